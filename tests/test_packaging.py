"The distribution: what is in the wheel, that it needs what it declares and no more, and that it imports fast"
import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

root = Path(__file__).resolve().parent.parent
cfg = configparser.ConfigParser(delimiters=['='])
cfg.read(root/'settings.ini')
cfg = cfg['DEFAULT']
lib = cfg['lib_name']
modules = sorted(p.stem for p in (root/lib).glob('*.py') if p.stem[0] != '_')
carried = ['settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in',
           'README.md', 'LICENSE', 'CHANGELOG.md', 'CONTRIBUTING.md', 'CITATION.cff', 'constraints-lowest.txt']


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A wheel made from a source distribution made from a copy: (the wheel's file, the wheel unpacked)"
    src, out = tmp_path_factory.mktemp('src'), tmp_path_factory.mktemp('out')
    for f in carried: shutil.copy(root/f, src)
    shutil.copytree(root/lib, src/lib, ignore=shutil.ignore_patterns('__pycache__'))
    for d in ('nbs', 'tests'): shutil.copytree(root/d, src/d, ignore=shutil.ignore_patterns('__pycache__'))
    cmd = [sys.executable, '-m', 'build', '--no-isolation', '-o', out, src]
    r = subprocess.run(cmd, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-2000:]
    wheel, = out.glob('*.whl')
    zipfile.ZipFile(wheel).extractall(out/'wheel')
    return wheel, out/'wheel'


@pytest.fixture(scope='module')
def meta(built):
    info, = built[1].glob('*.dist-info')
    return email.message_from_string((info/'METADATA').read_text()), configparser_of(info/'entry_points.txt')


def configparser_of(path):
    c = configparser.ConfigParser(delimiters=['='])
    c.read(path)
    return {s: dict(c[s]) for s in c.sections()}


def test_contents(built):
    names = zipfile.ZipFile(built[0]).namelist()
    files = [*(root/lib).glob('*.py'), *(root/lib).glob('pretrained/*/*'), root/lib/'py.typed']
    here = {str(p.relative_to(root)) for p in files}
    info = {n for n in names if '.dist-info/' in n}
    assert set(names) - info == here, 'the wheel holds modules, trained networks, the mark of types, and nothing else'
    assert any(n.endswith('/LICENSE') for n in info)


def test_metadata(meta):
    m, points = meta
    assert m['Name'] == lib and m['Version'] == cfg['version'] and m['License-Expression'] == 'Apache-2.0'
    assert m['Requires-Python'] == f">={cfg['min_python']}"
    declared = {str(Requirement(r)) for r in m.get_all('Requires-Dist') if 'extra ==' not in r}
    assert declared == {str(Requirement(r)) for r in cfg['requirements'].split()}
    assert points == {'console_scripts': {lib: f'{lib}.cli:main'}, 'nbdev': {lib: f'{lib}._modidx:d'}}
    assert len(m.get_payload()) > 500, 'the README is the long description'


def test_version(built):
    "One version, in settings.ini and in the package"
    assert f'__version__ = "{cfg["version"]}"' in (built[1]/lib/'__init__.py').read_text()


def needed():
    "The distributions that installing the wheel brings, by following what each requires"
    todo, seen = [Requirement(r) for r in cfg['requirements'].split()], set()
    while todo:
        r = todo.pop()
        name = r.name.lower().replace('_', '-')
        if name in seen or r.marker and not r.marker.evaluate({'extra': ''}): continue
        try: todo += [Requirement(d) for d in distribution(name).requires or []]
        except PackageNotFoundError: continue  # for another platform
        seen.add(name)
    return seen


def python(code, wheel):
    "Run `code` with the wheel's package first on the path, away from the repository"
    env = {**os.environ, 'PYTHONPATH': str(wheel)}
    cmd = [sys.executable, '-c', code]
    r = subprocess.run(cmd, cwd=wheel, env=env, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr[-3000:]
    return r.stdout


def test_needs_only_what_it_declares(built):
    "Every module imports where only the declared requirements are: no notebook tool is among them"
    keep = needed()
    tops = packages_distributions().items()
    owners = {top: {d.lower().replace('_', '-') for d in dists} for top, dists in tops}
    foreign = {top for top, dists in owners.items() if top != lib and not dists & keep}
    assert {'nbdev', 'fastcore', 'IPython', 'execnb', 'papermill', 'pytest'} <= foreign
    code = f'''
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {foreign!r}: raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
for m in {modules!r}:
    got = importlib.import_module('{lib}.' + m)
    assert got.__file__.startswith({str(built[1])!r}), got.__file__
    for name in got.__all__: getattr(got, name)
'''
    python(code, built[1])


def test_imports_fast(built):
    "All modules within a second beyond torch itself; the best of three, as machines are shared"
    code = f'''
import time, torch, importlib
start = time.perf_counter()
for m in {modules!r}: importlib.import_module('{lib}.' + m)
print(time.perf_counter() - start)
'''
    best = float('inf')
    for _ in range(3):
        best = min(best, float(python(code, built[1])))
        if best < 1: return
    pytest.fail(f'{best:.2f} s beyond torch; python -X importtime names what is heavy: import it late')


def test_lowest_versions_are_those_promised():
    "constraints-lowest.txt, with which CI runs every test, names each main dependency at its lower bound"
    lines = [l for l in (root/'constraints-lowest.txt').read_text().splitlines() if l and l[0] != '#']
    bounds = {r.name: next(s.version for s in r.specifier if s.operator == '>=') for r in map(Requirement, cfg['requirements'].split())}
    pins = {r.name: next(iter(r.specifier)).version for r in map(Requirement, lines)}
    padded = lambda v: (v.split('.') + ['0', '0'])[:3]
    assert {k: padded(v) for k, v in pins.items()} == {k: padded(v) for k, v in bounds.items()}


def test_citation():
    text = (root/'CITATION.cff').read_text()
    assert f'version: {cfg["version"]}' in text and f'name: {cfg["author"]}' in text and 'license: Apache-2.0' in text


@pytest.fixture
def repository(tmp_path):
    "A git repository with what a release needs"
    for f in carried: shutil.copy(root/f, tmp_path)
    for d in (lib, 'nbs', 'tests', 'scripts'): shutil.copytree(root/d, tmp_path/d, ignore=shutil.ignore_patterns('__pycache__'))
    (tmp_path/'.gitignore').write_text('dist/\nbuild/\n*.egg-info/\n__pycache__/\n')
    for c in (['init', '-q', '-b', 'main'], ['add', '-A'], ['-c', 'user.name=t', '-c', 'user.email=t@t', 'commit', '-qm', 'all']):
        subprocess.run(['git', *c], cwd=tmp_path, check=True)
    return tmp_path


def test_release_is_rehearsed(repository):
    "Without --do it builds, checks, prints what it would do, and changes nothing but dist/"
    ask = lambda *a: subprocess.run([sys.executable, 'scripts/release.py', *a], cwd=repository, capture_output=True, text=True)
    tags = lambda: subprocess.run(['git', 'tag'], cwd=repository, capture_output=True).stdout
    log = repository/'CHANGELOG.md'
    log.write_text(re.sub(rf'^(## {cfg["version"]}).*', r'\1 (not yet released)', log.read_text(), flags=re.M) + '\n')
    r = ask()
    assert r.returncode == 0, r.stdout + r.stderr
    assert '2 obstacles' in r.stdout and 'not yet released' in r.stdout and 'uncommitted' in r.stdout
    assert f'git tag -a v{cfg["version"]}' in r.stdout and 'twine upload' in r.stdout and not tags()
    assert sorted(p.suffix for p in (repository/'dist').iterdir()) == ['.gz', '.whl']
    r = ask('--do')  # what stands in the way is not stepped over
    assert r.returncode == 1 and 'nothing was done' in r.stderr and 'uncommitted' in r.stderr and not tags()
    (repository/lib/'__init__.py').write_text('__version__ = "9.9"\n')
    r = ask()
    assert r.returncode == 1 and 'not fit to publish' in r.stderr and '9.9' in r.stderr
