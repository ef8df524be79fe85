"""Every notebook opens in Colab: a badge under its title, and a hidden first cell that fetches what it needs there.

Writes both where they are missing or out of date and leaves the rest of the file alone: all other cells keep
their ids, and a second run changes nothing. `--check` writes nothing and fails where there is something to do."""
import argparse, json, re, sys
from pathlib import Path
from nbdev.config import get_config

root = Path(__file__).resolve().parent.parent
cfg = get_config(cfg_name=root/'settings.ini')
image = 'https://colab.research.google.com/assets/colab-badge.svg'
badge = re.compile(rf'\s*^\[!\[Open in Colab\]\({re.escape(image)}\)\]\([^)\n]*\)\s*', re.M)
head = re.compile(r'# .+(\s*^>.*$)*', re.M)
# what notebooks import beyond what the package requires and Colab has
extra = 'fastcore clean-fid scikit-image diffusers'
setup = f'''#| hide
import os, subprocess, sys
if 'google.colab' in sys.modules and not os.path.exists('../nbs'):
    git = 'git clone -q --depth 1 -b {cfg.branch} {cfg.git_url}'
    pip = f'{{sys.executable}} -m pip install -q ./{cfg.repo} {extra}'
    for cmd in () if os.path.exists('{cfg.repo}') else (git, pip): subprocess.run(cmd.split(), check=True)
    os.chdir('{cfg.repo}/nbs')'''


def notebooks(nbs): return sorted([*nbs.glob('[0-9]*.ipynb'), *nbs.glob('index.ipynb')])


def link(name): return f'https://colab.research.google.com/github/{cfg.user}/{cfg.repo}/blob/{cfg.branch}/nbs/{name}'


def titled(md, name):
    "The title cell, with the badge of the notebook `name` under title and subtitle"
    md = badge.sub('\n\n', md).strip()
    if not (m := head.match(md)): raise ValueError(f'{name}: its first cell must begin with `# Title` and `> subtitle`')
    parts = m[0], f'[![Open in Colab]({image})]({link(name)})', md[m.end():].strip()
    return '\n\n'.join(filter(None, parts))


def text(cell): return ''.join(cell['source'])


def is_setup(cell): return cell['cell_type'] == 'code' and "'google.colab' in sys.modules" in text(cell)


def dressed(nb, name):
    "The notebook with its badge and its setup cell"
    first, *rest = [c for c in nb['cells'] if not is_setup(c)]
    if first['cell_type'] != 'markdown': raise ValueError(f'{name}: its first cell must be its title, as markdown')
    cell = dict(cell_type='code', id='colab', metadata={}, outputs=[], execution_count=None)
    cells = [dict(first, source=titled(text(first), name)), dict(cell, source=setup)]
    return dict(nb, cells=[dict(c, source=c['source'].splitlines(True)) for c in cells] + rest)


def wanted(f):
    "The text that the notebook's file should have"
    nb = dressed(json.loads(f.read_text(encoding='utf-8')), f.name)
    return json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n'


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--check', action='store_true', help='write nothing; fail where something is out of date')
    p.add_argument('--nbs', type=Path, default=cfg.nbs_path, help='the folder of notebooks')
    args = p.parse_args()
    try: stale = {f: w for f in notebooks(args.nbs) if (w := wanted(f)) != f.read_text(encoding='utf-8')}
    except ValueError as e: sys.exit(f'badges: {e}')
    names = ', '.join(f.name for f in stale)
    if args.check: sys.exit(f'badges: {names} out of date: run scripts/badges.py and commit' if stale else 0)
    for f, w in stale.items(): f.write_text(w, encoding='utf-8')
    print(f'badges: {names or "all"} {"written" if stale else "were current"}')
