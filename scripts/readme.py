"""README.md from nbs/index.ipynb: its markdown, visible code and stored outputs; `--check` only compares.

nbdev's directives are honoured; figures become files in nbs/images/; links and images, written relative
to nbs/ in the notebook, are made relative to the top level, and one that leads nowhere is an error. Nothing
is executed."""
import argparse, base64, re, sys
from pathlib import Path
from posixpath import normpath
from nbdev.process import NBProcessor

root = Path(__file__).resolve().parent.parent
ansi = re.compile(r'\x1b\[[0-9;]*[A-Za-z]')
hide_line = re.compile(r'^.*#\|\s*hide_line\s*$\n?', re.M)
# fences and inline code are matched first and left alone, then addresses: [text](to), ![alt](to), src=, href=
linked = re.compile(r'(?P<code>^(?P<f>```+|~~~+).*?^(?P=f)\s*?$|(?P<q>`+)(?!`).+?(?<!`)(?P=q)(?!`))|'
                    r'(?P<pre>!\[[^\]]*\]\(|\]\(|(?:src|href)=")(?P<to>[^)"\s]+)', re.M | re.S)


def off(directives, name): return directives.get(f'{name}:', [''])[0].lower() == 'false'


def text(x): return ansi.sub('', ''.join(x))


def fence(s, lang=''):
    "`s` as a block of code"
    ticks = '`'*max(3, 1 + max(map(len, re.findall('`+', s)), default=0))
    return f'{ticks}{lang}\n{s.rstrip()}\n{ticks}'


def output(o, # one stored output of a cell
           save, # bytes and extension -> the figure's address
           skip=(), # words of `#| filter_stream`
          ): # markdown
    "The richest form of an output that markdown can hold"
    if o['output_type'] == 'error': raise ValueError('a stored output is an error: run the notebook again')
    if o['output_type'] == 'stream':
        lines = [l for l in text(o['text']).splitlines() if not any(w in l for w in skip)]
        return fence('\n'.join(lines), 'text') if any(l.strip() for l in lines) else ''
    d = o['data']
    if 'image/png' in d: return f"![]({save(base64.b64decode(''.join(d['image/png'])), 'png')})"
    if 'image/svg+xml' in d: return f"![]({save(''.join(d['image/svg+xml']).encode(), 'svg')})"
    for mime in ('text/markdown', 'text/html'):
        if mime in d: return re.sub(r'<style.*?</style>', '', text(d[mime]), flags=re.S).strip()
    return fence(text(d['text/plain']), 'text') if 'text/plain' in d else ''


def markdown(fname, # a notebook
             save, # bytes and extension -> the figure's address
             before=lambda cell: '', # markdown to put before a code cell
             fold=lambda cell: '', # the heading a code cell is folded under; empty where it is open
            ): # the cells that are meant to be seen, as markdown strings
    "A notebook's visible cells and stored outputs"
    for c in NBProcessor(fname).nb.cells:
        d = c.directives_
        if c.cell_type == 'markdown':
            if c.get('attachments'): raise ValueError(f'{fname.name}: an attached image; link a file instead')
            yield c.source
        if c.cell_type != 'code' or d.keys() & {'hide', 'default_exp'} or off(d, 'include'): continue
        src = re.sub(r'^\s*#\s*\|.*\n?', '', hide_line.sub('', c.source), flags=re.M).strip()
        name = fold(c)
        if name: yield f'<details>\n<summary>{name}</summary>\n'
        if src and not off(d, 'echo'): yield before(c) + fence(src, 'python')
        if not off(d, 'output'):
            yield from filter(None, (output(o, save, d.get('filter_stream', ())) for o in c.outputs))
        if name: yield '</details>\n'


def relink(md, f):
    "Pass every relative address in `md` through `f(address, image?)`"
    def one(m):
        to = m['to']
        if m['code'] or re.match(r'[a-z][a-z0-9+.-]*:|#|//', to): return m[0]
        return m['pre'] + f(to, m['pre'][0] in '!s')
    return linked.sub(one, md)


def from_top(to, image=False):
    "An address relative to nbs/, made relative to the top level"
    path, hash_, part = to.partition('#')
    path = normpath(f'nbs/{path}')
    if not (root/path).exists(): raise ValueError(f'nbs/index.ipynb links to {to}, but there is no {path}')
    return path + hash_ + part


def readme(fname):
    "(the text, {image file: its bytes})"
    images = {}
    def save(data, ext):
        name = f'nbs/images/index-{len(images) + 1}.{ext}'
        images[name] = data
        return name
    cells = list(markdown(fname, save))
    note = '<!-- Built from nbs/index.ipynb by `make readme`: edit the notebook, not this file. -->'
    parts = [c if re.fullmatch(r'!\[\]\(nbs/images/\S+\)', c) else relink(c, from_top) for c in cells]
    return '\n\n'.join([note, *parts]).rstrip() + '\n', images


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--check', action='store_true', help='write nothing; fail where something is out of date')
    p.add_argument('--nb', type=Path, default=root/'nbs'/'index.ipynb', help='the notebook')
    args = p.parse_args()
    if not args.nb.exists(): sys.exit(f'readme: there is no {args.nb}')
    try: body, images = readme(args.nb)
    except ValueError as e: sys.exit(f'readme: {e}')
    want = {'README.md': body.encode(), **images}
    built = [root/'README.md', *(root/'nbs'/'images').glob('index-*')]
    have = {str(f.relative_to(root)): f for f in built if f.exists()}
    stale = [f for f in {**want, **have} if f not in want or f not in have or have[f].read_bytes() != want[f]]
    if args.check:
        sys.exit(f"readme: {', '.join(stale)} out of date: run `make readme` and commit" if stale else 0)
    for f in have.keys() - want.keys(): have[f].unlink()
    for f, data in want.items():
        (root/f).parent.mkdir(parents=True, exist_ok=True)
        (root/f).write_bytes(data)
    print(f"readme: {', '.join(want)} {'written' if stale else 'were current'}")
