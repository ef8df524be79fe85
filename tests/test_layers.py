"The number is the layer: exported code imports only lower numbers; every module has its notebook"
import ast
import re
from pathlib import Path

import pytest
from nbdev.process import NBProcessor

root = Path(__file__).resolve().parent.parent
lib = 'scoreguidance'
generated = {'__init__', '__main__', '_modidx'}
modules = sorted(p for p in (root/lib).glob('*.py') if p.stem not in generated)
exporting = {'export', 'exports', 'exporti'}
columns, cell_lines = 110, 25


def number(nb):
    "01a_exact.ipynb -> (1, 'a'); the index comes after everything"
    m = re.match(r'(\d+)([a-z]?)_', nb.name)
    return (int(m[1]), m[2]) if m else (1000, '')


def imports(src):
    "The modules of the package that `src` imports, lazily or not"
    for n in ast.walk(ast.parse(src)):
        if isinstance(n, ast.Import): names = [a.name for a in n.names]
        elif isinstance(n, ast.ImportFrom):
            base = '.'.join(filter(None, [lib if n.level else '', n.module]))
            names = [f'{base}.{a.name}' for a in n.names] if base == lib else [base]
        else: continue
        yield from (m[1] for m in (re.match(rf'{lib}\.(\w+)', s) for s in names) if m)


class Notebook:
    "What the laws below ask of a notebook"
    def __init__(self, path):
        self.path, self.name, self.number = path, path.name, number(path)
        nb = NBProcessor(path).nb
        self.kernel = nb.metadata.get('kernelspec', {}).get('name')
        code = [c for c in nb.cells if c.cell_type == 'code']
        self.cells = [(c.directives_, re.sub(r'^\s*[%!].*$', 'pass', c.source, flags=re.M)) for c in code]
        self.exports = [s for d, s in self.cells if d.keys() & exporting]
        named = [a for d, _ in self.cells for k in ('default_exp', *exporting) for a in d.get(k, [])]
        self.modules = set(named)  # `#| default_exp sde`, or `#| export sde` for one cell


notebooks = [Notebook(p) for p in sorted((root/'nbs').glob('*.ipynb'))]
homes = {}  # module -> the notebooks that export to it
for nb in notebooks:
    for m in nb.modules: homes.setdefault(m, []).append(nb)
each = pytest.mark.parametrize('nb', notebooks, ids=lambda nb: nb.name)
each_module = pytest.mark.parametrize('mod', modules, ids=lambda p: p.stem)


def test_imports_are_found():
    src = f'import os, {lib}.a\nfrom {lib}.b import x\nfrom {lib} import c\n'
    src += 'def f():\n  from .d import y\n  from . import e'
    assert set(imports(src)) == set('abcde')


def test_numbers_are_unique():
    numbers = [nb.number for nb in notebooks]
    assert len(set(numbers)) == len(numbers), 'two notebooks have the same number: which comes first?'


@each
def test_exports_import_downward(nb):
    for dep in {d for s in nb.exports for d in imports(s)}:
        assert dep in homes, f'{nb.name} imports {lib}.{dep}, which no notebook exports'
        top = max(homes[dep], key=lambda h: h.number)
        assert top.number < nb.number, f'{nb.name} imports upward: {lib}.{dep} is made in {top.name}'


@each
def test_cells_import_no_later_notebook(nb):
    for dep in {d for _, s in nb.cells for d in imports(s)} & homes.keys():
        first = min(homes[dep], key=lambda h: h.number)
        assert first.number <= nb.number, f'{nb.name} uses {lib}.{dep}, which is only made in {first.name}'


@each
def test_export_cells_are_small(nb):
    sizes = {c[0]: len(c) for c in (s.strip().splitlines() for s in nb.exports) if c}
    big = {first: n for first, n in sizes.items() if n > cell_lines}
    assert not big, f'{nb.name}: export cells of more than {cell_lines} lines: {big}'


@each
def test_kernel(nb):
    assert nb.kernel == 'python3', f'{nb.name} names no python3 kernel, which papermill needs'


@each_module
def test_module_has_its_notebook(mod):
    made = re.findall(r'^# %% (\S+\.ipynb)', mod.read_text(), flags=re.M)
    assert mod.stem in homes, f'{mod.name} is left over: no notebook exports to {mod.stem}'
    other = {Path(m).name for m in made} - {h.name for h in homes[mod.stem]}
    assert not other, f'{mod.name} has cells of {other}, which do not export to it: run nbdev_export'


def test_every_export_has_its_module():
    assert set(homes) == {m.stem for m in modules}, 'run nbdev_export; remove modules whose notebook is gone'


@each_module
def test_module_is_plain(mod):
    src = mod.read_text()
    for n in ast.walk(ast.parse(src)):
        top = [a.name.split('.')[0] for a in n.names] if isinstance(n, ast.Import) else \
              [(n.module or '').split('.')[0]] if isinstance(n, ast.ImportFrom) and not n.level else []
        tools = {'fastcore', 'nbdev', 'execnb', 'IPython', 'papermill', 'pytest'} & set(top)
        assert not tools, f'{mod.name} imports {tools}: a notebook tool'
        assert not (isinstance(n, ast.ImportFrom) and n.names[0].name == '*'), f'{mod.name} has a star import'
    assert src.isascii(), f'{mod.name} is not ASCII: {next(l for l in src.splitlines() if not l.isascii())!r}'


@each_module
def test_columns(mod):
    "No line is too wide, but for the one that nbdev writes"
    body = re.sub(r'^__all__ = \[.*?\]', '', mod.read_text(), flags=re.M | re.S)
    wide = [f'{len(l)}: {l.strip()}' for l in body.splitlines() if len(l) > columns]
    if wide: pytest.fail(f'{mod.name}: lines over {columns} columns\n' + '\n'.join(wide), pytrace=False)
