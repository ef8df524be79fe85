"""The documentation site in _docs/ (or the folder given): notebooks as chapters, API pages, glossary, FAQ, search.

Nothing is executed: chapters show stored outputs. Formulas are MathML and the search index is a script, so the
pages need no network and no server. Names in backticks lead to where they are defined, and a link, an anchor or
an image that leads nowhere ends the build with an error."""
import ast, html, importlib, inspect, json, re, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import normpath
import pypandoc
from fastcore.docments import docments
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup, escape
from nbdev.config import get_config
from nbdev.process import NBProcessor
from readme import markdown, relink, root

cfg = get_config()
nbs, site, docs = cfg.nbs_path, root/'scripts'/'site', root/'docs'
blob = f'{cfg.git_url}/blob/{cfg.branch}'
colab = 'https://colab.research.google.com/github' + cfg.git_url.partition('github.com')[2] + f'/blob/{cfg.branch}'
parts = [(0, 'Scores'), (2, 'Learning a score'), (5, 'Noise and sampling'), (8, 'Networks and training'),
         (10, 'Guidance'), (14, 'Data and judgement'), (17, 'Experiments'), (19, 'Use and extend'), (20, 'Results')]
# what a learner reads, in this order; index.ipynb lists the same chapters with what each needs
path = ['01_score', '01a_exact', '03_score_matching', '04_dsm', '05_ncsn', '06_sde', '07_sampling', '09b_pictures',
        '10_guidance', '11_dlsm', '12_self_calibration', '12a_consistency']
# plumbing: to look things up in, not to read on the way
appendices = ['00_core', '07c_conventions', '08a_files', '08b_seeds', '08c_jobs', '08d_store', '15b_engine', '15c_generate', '15d_folders',
              '15e_columns']
template = Environment(loader=FileSystemLoader(site), autoescape=select_autoescape())
template.filters['code'] = lambda s: Markup(re.sub(r'`([^`]+)`', r'<code>\1</code>', str(escape(s))))


def page(fname):
    "The page of a notebook: its name without the number, as nbdev names it"
    return 'overview.html' if fname.stem == 'index' else re.sub(r'^\d+[a-z]?_', '', fname.stem) + '.html'


def number(fname): return (re.match(r'\d+[a-z]?', fname.stem) or [''])[0]


def part(fname):
    n = re.match(r'\d+', fname.stem)
    return [name for first, name in parts if first <= int(n[0])][-1] if n else ''


def groups(chs):
    "The chapters as (heading, [(file, title, subtitle)]): the path, the rest part by part, plumbing at the end"
    by = {f.stem: (f, t, sub) for f, t, sub in chs}
    if lost := [n for n in path + appendices if n not in by]:
        raise ValueError(f'the path or the appendices list {lost}, but there are no such notebooks')
    yield 'The path', [by[n] for n in path]
    rest = [c for c in chs if c[0].stem not in path + appendices]
    for _, name in parts: yield name, [c for c in rest if part(c[0]) == name]
    yield 'Appendices', [by[n] for n in appendices]


def folded(cell):
    "Answers are folded, and so are cells that only check the wording of errors or assert"
    d = cell.directives_
    if 'code-fold:' in d: return ' '.join(d.get('code-summary:', ['Code']))
    src = [l for l in cell.source.splitlines() if l.strip() and not l.strip().startswith('#')]
    return 'Tests' if src and all(re.match(r'(test_|assert\b)', l) for l in src) else ''


def heads(src):
    "Title and one-line subtitle of a markdown source"
    title = re.search(r'^# +(.+)$', src, re.M)
    sub = re.search(r'^> *(.+)$', src, re.M)
    return (title[1] if title else ''), (sub[1] if sub else '')


def chapters():
    "The notebooks in order, as (file, title, subtitle)"
    files = sorted((f for f in nbs.glob('*.ipynb') if f.stem != 'index'), key=lambda f: f.name)
    return [(f, *heads(NBProcessor(f).nb.cells[0].source)) for f in files]


def defined(cell):
    "The names that an export cell defines"
    if cell.cell_type != 'code' or not cell.directives_.keys() & {'export', 'exports'}: return []
    found = [n.name for n in ast.parse(cell.source).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    return [n for n in found if n[0] != '_']


def address(to, image=False, base='nbs'):
    "An address relative to `base`, as it is among the pages; other files are shown by the code host"
    path, hash_, where = to.partition('#')
    top = normpath(f'{base}/{path}')
    if not (root/top).exists(): raise ValueError(f'a link leads to {to}, but there is no {top}')
    if image: return f'figures/{Path(top).name}'
    if path.endswith('.ipynb'): return page(nbs/path) + hash_ + where
    if (root/top).parent == docs: return Path(top).stem + '.html' + hash_ + where
    return f'{blob}/{top}{hash_}{where}'


def link_names(md, where):
    "Names in backticks lead to where they are defined; fences, headings and links are left alone"
    def one(m): return f'[{m[0]}]({where[m[1]]})' if m[1] in where else m[0]
    name = r'(?<![`\[])`(\w+)(?:\(\))?`(?![`\]])'
    bits = re.split(r'(^```.*?^```|^#.*?$)', md, flags=re.M | re.S)
    return ''.join(b if i % 2 else re.sub(name, one, b) for i, b in enumerate(bits))


def unbadged(md):
    "Without the badge: a page has its own link to Colab"
    return re.sub(r'\[!\[Open in Colab\]\([^)\n]*\)\]\([^)\n]*\)\s*', '', md)


def to_html(md):
    "Markdown as HTML, formulas as MathML"
    cmd = [pypandoc.get_pandoc_path(), '-f', 'gfm+tex_math_dollars', '-t', 'html5', '--mathml', '--wrap=none']
    got = subprocess.run(cmd, input=md, capture_output=True, text=True, encoding='utf-8')
    if got.returncode or 'WARNING' in got.stderr: raise ValueError(got.stderr.strip())
    return re.sub(r'<table[^>]*>.*?</table>', r'<div class="wide">\g<0></div>', got.stdout, flags=re.S)


def chapter(fname, out, where):
    "The HTML of one notebook; its figures become files"
    count = iter(range(1, 1000))
    def save(data, ext):
        name = f'figures/{Path(page(fname)).stem}-{next(count)}.{ext}'
        (out/name).write_bytes(data)
        return name
    def to(path, image=False):
        got = address(path, image)
        if image: shutil.copy(nbs/path, out/got)
        return got
    def anchors(cell): return ''.join(f'<a id="{n}"></a>\n\n' for n in defined(cell))
    made = re.compile(r'!\[\]\(figures/\S+\)')
    try:
        cells = list(markdown(fname, save, anchors, folded))
        md = '\n\n'.join(link_names(c if made.fullmatch(c) else relink(unbadged(c), to), where) for c in cells)
        return to_html(md)
    except ValueError as e: raise ValueError(f'{fname.name}: {e}') from None


def signature(name, obj):
    "A function or class: its call, its docstring, and a row for each argument"
    try: sig = inspect.signature(obj)
    except (TypeError, ValueError): sig = inspect.Signature()
    try: told = docments(obj, full=True, returns=True)
    except (TypeError, OSError, AttributeError, ValueError): told = {}
    def show(v):
        if v is inspect.Parameter.empty or v is inspect.Signature.empty: return ''
        return v if isinstance(v, str) else getattr(v, '__name__', None) or re.sub(r' at 0x\w+', '', repr(v))
    def note(k): return re.sub(r'\s+', ' ', (told.get(k) or {}).get('docment') or '')
    rows = [dict(name={2: '*', 4: '**'}.get(int(p.kind), '') + k, type=show(p.annotation),
                 default=show(p.default)[:60], note=note(k)) for k, p in sig.parameters.items()]
    back = dict(type=show(sig.return_annotation), note=note('return'))
    fields = [dict(name=k, type='', default='', note=inspect.getdoc(f) or '') for k, f in vars(obj).items()
              if k[0] != '_' and inspect.isfunction(f)] if inspect.isclass(obj) else []
    doc = inspect.getdoc(obj) or ''
    return dict(name=name, kind='class' if inspect.isclass(obj) else 'def', rows=rows, back=back,
                doc='' if doc.startswith(f'{name}(') else doc, methods=fields,
                told=any(r['note'] for r in [*rows, back]),
                call=', '.join(r['name'] + (f"={r['default']}" if r['default'] else '') for r in rows))


def modules():
    "Each module with what it offers"
    homes, at = {}, {}
    for f, *_ in chapters():
        for c in NBProcessor(f).nb.cells:
            at |= {n: f'{page(f)}#{n}' for n in defined(c)}
            for d in c.directives_.get('default_exp', []) if c.cell_type == 'code' else []: homes[d] = f
    for mod in homes:
        m = importlib.import_module(f'{cfg.lib_path.name}.{mod}')
        own = [(n, getattr(m, n)) for n in m.__all__]
        own = [(n, o) for n, o in own if callable(o) and getattr(o, '__module__', '') == m.__name__]
        yield dict(name=mod, doc=heads(NBProcessor(homes[mod]).nb.cells[0].source)[1], nb=homes[mod],
                   home=page(homes[mod]),
                   items=[dict(signature(n, o), at=at.get(n, page(homes[mod]))) for n, o in own])


def sections(name, title, body):
    "What the search knows of a page: one entry for each section"
    bits = re.split(r'<h[123][^>]*\bid="([^"]+)"[^>]*>(.*?)</h[123]>', body, flags=re.S)
    def plain(s): return re.sub(r'\s+', ' ', html.unescape(re.sub(r'<[^>]+>', ' ', s))).strip()
    def words(s): return plain(re.sub(r'<math.*?</math>|<pre.*?</pre>', ' ', s, flags=re.S))[:1200]
    yield [title, '', name, words(bits[0])]
    for i in range(1, len(bits), 3): yield [title, plain(bits[i+1]), f'{name}#{bits[i]}', words(bits[i+2])]


def broken(out):
    "Links, anchors and images that lead nowhere"
    pages = {f.name: f.read_text(encoding='utf-8') for f in out.glob('*.html')}
    ids = {n: set(re.findall(r'\bid="([^"]+)"', t)) for n, t in pages.items()}
    for n, t in pages.items():
        for to in set(re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', t)):
            to_page, _, where = to.partition('#')
            if re.match(r'[a-z]+:', to): continue
            if (to_page or n) not in pages or where and where not in ids[to_page or n]: yield f'{n}: {to}'
        for to in set(re.findall(r'<(?:img|script|link)\b[^>]*?\b(?:src|href)="([^"]+)"', t)):
            if not re.match(r'[a-z]+:', to) and not (out/to).exists(): yield f'{n}: {to}'


def build(out):
    "Write all pages; returns their number"
    chs, mods = chapters(), list(modules())
    names = [page(f) for f, *_ in chs]
    if len(set(names)) < len(names): raise ValueError(f'two notebooks, one page name: {sorted(names)}')
    where = {i['name']: f"api-{m['name']}.html#{i['name']}" for m in mods for i in m['items']}
    shutil.rmtree(out, ignore_errors=True)
    (out/'figures').mkdir(parents=True)
    for f in site.glob('*.*s'): shutil.copy(f, out)  # style and scripts
    todo = [(nbs/'index.ipynb', 'Overview', ''), *(c for _, some in groups(chs) for c in some)]
    with ThreadPoolExecutor(2) as pool: bodies = list(pool.map(lambda c: chapter(c[0], out, where), todo))
    index, nav = [], [dict(part=name, pages=[dict(to=page(f), title=t, number=number(f), sub=s) for f, t, s in some])
                      for name, some in groups(chs)]
    common = dict(cfg=cfg, nav=[g for g in nav if g['pages']], modules=mods, version=cfg.version)
    def write(name, kind, title, **kw):
        got = template.get_template(f'{kind}.html').render(here=name, title=title, **common, **kw)
        (out/name).write_text(got, encoding='utf-8')
    for i, ((f, t, _), body) in enumerate(zip(todo, bodies)):
        near = dict(before=todo[i-1] if i else None, after=todo[i+1] if i+1 < len(todo) else None)
        near = {k: v and (page(v[0]), v[1]) for k, v in near.items()}
        write(page(f), 'chapter', t, body=body, source=f'{blob}/nbs/{f.name}', colab=f'{colab}/nbs/{f.name}', **near)
        index += sections(page(f), t, body)
    for f in sorted(docs.glob('*.md')):
        md = f.read_text(encoding='utf-8')
        try: body = to_html(link_names(relink(md, lambda to, image=False: address(to, image, 'docs')), where))
        except ValueError as e: raise ValueError(f'{f.name}: {e}') from None
        t = heads(md)[0]
        write(f'{f.stem}.html', 'chapter', t, body=body, source=f'{blob}/docs/{f.name}', colab=None,
              before=None, after=None)
        index += sections(f'{f.stem}.html', t, body)
    for m in mods:
        write(f"api-{m['name']}.html", 'api', m['name'], m=m, source=f"{blob}/{cfg.lib_path.name}/{m['name']}.py")
        index += [[i['name'], m['name'], where[i['name']], i['doc']] for i in m['items']]
    write('api.html', 'apis', 'Reference')
    first = re.split(r'<h2', bodies[0])[0].replace('href="#', f'href="{page(todo[0][0])}#') # its sections are over there
    write('index.html', 'landing', cfg.title, first=re.sub(r'<h1.*?</blockquote>', '', first, flags=re.S),
          subtitle=heads(NBProcessor(nbs/'index.ipynb').nb.cells[0].source)[1])
    (out/'search-index.js').write_text('const entries = ' + json.dumps(index) + ';\n', encoding='utf-8')
    return len(list(out.glob('*.html')))


if __name__ == '__main__':
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else cfg.doc_path
    try: n = build(out)
    except ValueError as e: sys.exit(f'docs: {e}')
    bad = [f'a link that leads nowhere in {b}' for b in sorted(broken(out))]
    if bad: sys.exit('docs: ' + '\n      '.join(bad))
    print(f'docs: {n} pages in {out.name}/, all links, anchors and images between them lead somewhere')
