"""The notebooks as self-contained pages in _docs/ (figures embedded, formulas as MathML), as stored.

Names in backticks lead to the cell that exports them, notebooks link to each other's pages, and a link that
leads nowhere ends the build with an error."""
import ast, base64, re, shutil, subprocess, sys
from posixpath import normpath
import pypandoc
from nbdev.config import get_config
from nbdev.process import NBProcessor
from readme import markdown, relink, root

cfg = get_config()
nbs, out = cfg.nbs_path, cfg.doc_path
style = '''<style>body{max-width:52em;padding:1em 2em}
nav{font-size:85%;line-height:1.7;border-bottom:1px solid #ccc}
nav a{margin-right:.9em;white-space:nowrap} pre{background:#f6f6f6;padding:.5em .8em;overflow-x:auto}
pre.text{background:none;border-left:3px solid #ddd} img{max-width:100%} blockquote{color:#555}</style>'''


def page(fname):
    "The page of a notebook: its name without the number, as nbdev names it"
    return re.sub(r'^\d+[a-z]?_', '', fname.stem) + '.html'


def title(fname):
    first = NBProcessor(fname).nb.cells[0].source
    return re.sub(r'^#+\s*', '', first.splitlines()[0]) if first.startswith('#') else fname.stem


def defined(cell):
    "The names that an export cell defines"
    if cell.cell_type != 'code' or not cell.directives_.keys() & {'export', 'exports'}: return []
    found = [n.name for n in ast.parse(cell.source).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    return [n for n in found if n[0] != '_']


def address(to, image=False):
    "An address relative to nbs/, as it is among the pages; other files are shown by the code host"
    path, hash_, part = to.partition('#')
    top = normpath(f'nbs/{path}')
    if not (root/top).exists(): raise ValueError(f'a link leads to {to}, but there is no {top}')
    if path.endswith('.ipynb'): return page(nbs/path) + hash_ + part
    if image: return to  # found by pandoc, which runs in nbs/, and embedded
    return f'{cfg.git_url}/blob/{cfg.branch}/{top}{hash_}{part}'


def link_names(md, where):
    "Names in backticks lead to where they are defined; fences and headings are left alone"
    def one(m): return f'[{m[0]}]({where[m[1]]})' if m[1] in where else m[0]
    name = r'(?<![`\[])`(\w+)(?:\(\))?`(?![`\]])'
    parts = re.split(r'(^```.*?^```|^#.*?$)', md, flags=re.M | re.S)
    return ''.join(p if i % 2 else re.sub(name, one, p) for i, p in enumerate(parts))


def unbadged(md):
    "A badge as a plain link: pages embed their images, and building them needs no network"
    return re.sub(r'\[!\[(Open in Colab)\]\([^)\n]*\)\]', r'[\1]', md)


def build(fname, nav, where):
    "Write the page of one notebook"
    def save(data, ext):
        return f"data:image/{ext.replace('svg', 'svg+xml')};base64,{base64.b64encode(data).decode()}"
    def anchors(cell): return ''.join(f'<a id="{n}"></a>\n\n' for n in defined(cell))
    try: md = '\n\n'.join(link_names(relink(unbadged(c), address), where) for c in markdown(fname, save, anchors))
    except ValueError as e: raise ValueError(f'{fname.name}: {e}') from None
    here = nav.replace(f'<a href="{page(fname)}">', '<a style="font-weight:bold">')
    cmd = [pypandoc.get_pandoc_path(), '-f', 'gfm+tex_math_dollars', '-t', 'html5', '-s',
           '-o', out/page(fname), '--mathml', '--embed-resources', '--fail-if-warnings',
           '-M', f'pagetitle={title(fname)}', '-V', 'lang=en',
           '-V', f'header-includes={style}', '-V', f'include-before={here}']
    done = subprocess.run(cmd, input=md, text=True, encoding='utf-8', cwd=nbs)
    if done.returncode: raise ValueError(f'{fname.name}: pandoc has warnings or errors, see above')


def broken():
    "Links between pages that lead nowhere"
    html = {f.name: f.read_text(encoding='utf-8') for f in out.glob('*.html')}
    ids = {n: set(re.findall(r'\bid="([^"]+)"', t)) for n, t in html.items()}
    for n, t in html.items():
        for to in set(re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', t)):
            to_page, _, part = to.partition('#')
            if re.match(r'[a-z]+:', to): continue
            if (to_page or n) not in html or part and part not in ids[to_page or n]: yield f'{n}: {to}'


if __name__ == '__main__':
    files = sorted(nbs.glob('*.ipynb'), key=lambda f: (f.stem != 'index', f.name))
    pages = [page(f) for f in files]
    if len(set(pages)) < len(pages): sys.exit(f'docs: two notebooks, one page name: {sorted(pages)}')
    where = {n: f'{page(f)}#{n}' for f in files for c in NBProcessor(f).nb.cells for n in defined(c)}
    nav = '<nav>' + ' '.join(f'<a href="{page(f)}">{title(f)}</a>' for f in files) + '</nav>'
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    bad = []
    for f in files:
        try: build(f, nav, where)
        except ValueError as e: bad.append(str(e))
    bad = bad or [f'a link that leads nowhere in {b}' for b in sorted(broken())]
    if bad: sys.exit('docs: ' + '\n      '.join(bad))
    print(f'docs: {len(files)} pages in {out.relative_to(root)}/, all links between them lead somewhere')
