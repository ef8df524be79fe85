"""Build a release, check it, and say what publishing would do; with --do, do it.

Nothing leaves this machine without --do, and with it nothing does while anything stands in the way."""
import argparse, configparser, email, hashlib, re, shutil, subprocess, sys, tarfile, tempfile, zipfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
ini = configparser.ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
lib, version = cfg['lib_name'], cfg['version']
tag = f'v{version}'


def git(*a):
    try: return subprocess.run(['git', *a], cwd=root, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError: return ''


def obstacles():
    "What must be mended before this can be published"
    said = re.search(r'__version__ = "(.*)"', (root/lib/'__init__.py').read_text())
    if not said or said[1] != version: yield f"settings.ini says {version}, {lib}/__init__.py {said and said[1]}: run make sync"
    if f'version: {version}\n' not in (root/'CITATION.cff').read_text(): yield f"CITATION.cff does not say version: {version}"
    entry = re.search(rf'^## {re.escape(version)}(.*)$', (root/'CHANGELOG.md').read_text(), flags=re.M)
    if not entry: yield f"CHANGELOG.md has no entry '## {version}'"
    elif not re.search(r'\d{4}-\d\d-\d\d', entry[1]): yield f"CHANGELOG.md says '{entry[0][3:]}': put the date in its place"
    if git('rev-parse', '--git-dir') == '': yield "this is no git checkout, so there is nothing to tag"
    if git('status', '--porcelain', '--untracked-files=no'): yield "there are uncommitted changes: commit them"
    if git('tag', '--list', tag): yield f"the tag {tag} exists: raise the version in settings.ini"


def build(out):
    "A source distribution, and a wheel made from it"
    with tempfile.TemporaryDirectory() as tmp:
        cmd = [sys.executable, '-m', 'build', '--no-isolation', '-o', tmp, str(root)]
        r = subprocess.run(cmd, capture_output=True, text=True)
        if r.returncode: sys.exit(f'release: the build failed\n{r.stdout[-2000:]}{r.stderr[-2000:]}')
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return [Path(shutil.move(p, out)) for p in sorted(Path(tmp).iterdir())]


def check(sdist, wheel):
    "What an index asks of a distribution, and what this one must hold"
    z = zipfile.ZipFile(wheel)
    names = z.namelist()
    m = email.message_from_bytes(z.read(next(n for n in names if n.endswith('.dist-info/METADATA'))))
    for k in ('Name', 'Version', 'Summary', 'License-Expression', 'Requires-Python'):
        if not m[k]: yield f'{wheel.name} has no {k}'
    if (m['Name'], m['Version']) != (lib, version): yield f"{wheel.name} calls itself {m['Name']} {m['Version']}"
    if m['Description-Content-Type'] != 'text/markdown' or len(m.get_payload()) < 500: yield f'{wheel.name} lacks its description'
    if z.testzip(): yield f'{wheel.name} is damaged'
    there = {n.split('/', 1)[1] for n in tarfile.open(sdist).getnames() if '/' in n}
    for f in ('README.md', 'LICENSE', 'settings.ini', 'CITATION.cff', f'{lib}/py.typed'):
        if f not in there: yield f'{sdist.name} lacks {f}'
    for f in sorted(p.name for p in (root/lib).glob('*.py')):
        if f'{lib}/{f}' not in names: yield f'{wheel.name} lacks {f}'
    if f'{lib}/py.typed' not in names: yield f'{wheel.name} lacks py.typed'
    with tempfile.TemporaryDirectory() as tmp:
        z.extractall(tmp)
        code = f'import sys; sys.path.insert(0, {tmp!r}); import {lib}; print({lib}.__version__, {lib}.__file__)'
        r = subprocess.run([sys.executable, '-c', code], cwd=tmp, capture_output=True, text=True)
        if not r.stdout.startswith(f'{version} {tmp}'): yield f'the unpacked wheel does not import: {r.stdout}{r.stderr}'


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--do', action='store_true', help='tag, push the tag and upload')
    a = p.parse_args()
    wrong = list(obstacles())
    if a.do and wrong: sys.exit('release: nothing was done\n' + '\n'.join(f'  {w}' for w in wrong))
    made = build(root/'dist')
    if bad := list(check(*sorted(made, key=lambda p: p.suffix))): sys.exit('release: not fit to publish\n' + '\n'.join(f'  {b}' for b in bad))
    for f in made: print(f'{hashlib.sha256(f.read_bytes()).hexdigest()}  dist/{f.name}  {f.stat().st_size/1024:.0f} kB')
    steps = [['git', 'tag', '-a', tag, '-m', f'{lib} {version}'], ['git', 'push', 'origin', tag],
             [sys.executable, '-m', 'twine', 'upload', *(f'dist/{f.name}' for f in made)]]
    if a.do:
        if subprocess.call([sys.executable, '-m', 'twine', '--version'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            sys.exit('release: nothing was done: pip install twine first')
        for s in steps: subprocess.run(s, cwd=root, check=True)
        sys.exit(0)
    print('Checked: metadata, contents, import. Nothing was published. `make release DO=1` would run')
    for s in steps: print('  ' + ' '.join(f"'{w}'" if ' ' in w else w for w in s).replace(sys.executable, 'python'))
    print(f"{len(wrong) or 'no'} obstacle{'s'*(len(wrong) != 1)}{':' if wrong else ''}")
    for w in wrong: print(f'  {w}')
