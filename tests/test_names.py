"Every public name says what it is, and somebody uses it; the type checker and the linter have nothing to say"
import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

root = Path(__file__).resolve().parent.parent
modules = sorted(p for p in (root/'scoreguidance').glob('*.py') if p.stem[0] != '_')
each = pytest.mark.parametrize('module', modules, ids=lambda p: p.stem)


def public(module):
    "The names of `__all__`, and the functions and classes among them"
    tree = ast.parse(module.read_text())
    names = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__')
    return names, {n.name: n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in names}


@each
def test_docstrings(module):
    bare = {f'{module.stem}.{k}' for k, n in public(module)[1].items() if not ast.get_docstring(n)}
    assert not bare, f'no docstring: {bare}'


@pytest.fixture(scope='session')
def cells():
    "The source of every notebook's cells and of every test: where it is from, and the text"
    nbs = [(p.name, c.source) for p in sorted((root/'nbs').glob('*.ipynb')) for c in nbformat.read(p, 4).cells]
    return nbs + [(p.name, p.read_text()) for p in sorted((root/'tests').glob('*.py')) if p != Path(__file__)]


@each
def test_names_are_used(module, cells):
    "By a cell that shows or tests it, by a test, or by other exported code"
    lost = []
    for name in public(module)[0]:
        word, made = re.compile(rf'\b{name}\b'), re.compile(rf'^(def|class) {name}\b|^(\w+, *)*{name}(, *\w+)* *(:\w+)?=[^=]', re.M)
        uses = sum(len(word.findall(text))-len(made.findall(text)) for _, text in cells if word.search(text))
        if uses < 1: lost.append(name)
    assert not lost, f'{module.name}: public, but nobody uses {lost}'


def test_lint():
    r = subprocess.run([sys.executable, '-m', 'ruff', 'check', 'scoreguidance', 'tests', 'scripts', 'benchmarks'], cwd=root, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:]


def test_types():
    r = subprocess.run([sys.executable, '-m', 'mypy', '--cache-dir', root/'.mypy_cache', 'scoreguidance'], cwd=root, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-1000:]
