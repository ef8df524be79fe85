"""Are notebooks, modules and README in sync? Clean, export, and show whatever that changed.

In CI (the variable `CI` is set) the result must also be what is committed. What had drifted is mended on the
way, so outside CI the second run passes: look at the difference, then commit it."""
import difflib, json, os, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
tools = Path(sys.executable).parent


def state():
    "Every notebook and module as text"
    kinds = {'nbs': '*.ipynb', 'scoreguidance': '*.py'}
    files = [p for d, kind in kinds.items() for p in sorted((root/d).rglob(kind))]
    return {str(p.relative_to(root)): p.read_text(encoding='utf-8') for p in files
            if '.ipynb_checkpoints' not in p.parts}


def shown(a, b, name, most=60):
    "A unified difference, shortened; long lines are figures"
    a, b = a.splitlines(), b.splitlines()
    lines = list(difflib.unified_diff(a, b, f'{name} (before)', f'{name} (after)', lineterm=''))
    more = [f'... {len(lines) - most} more lines'] if len(lines) > most else []
    return '\n'.join([l[:160] for l in lines[:most]] + more)


def is_bar(output):
    "Is this what a progress bar leaves behind: a style sheet, or HTML that is empty?"
    html = output.get('data', {}).get('text/html')
    return html is not None and ('progress-bar-interrupted' in ''.join(html) or not ''.join(html).strip())


def without_bars(text):
    "A notebook's text without the remains of progress bars; the same text where there are none"
    nb = json.loads(text)
    cells = [c for c in nb['cells'] if any(map(is_bar, c.get('outputs', ())))]
    for c in cells: c['outputs'] = [o for o in c['outputs'] if not is_bar(o)]
    return json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n' if cells else text


def drift():
    "The files that cleaning and exporting change"
    before = state()
    for f, text in before.items():
        if f.endswith('.ipynb') and (less := without_bars(text)) != text: (root/f).write_text(less, encoding='utf-8')
    for tool in ('nbdev_clean', 'nbdev_export'): subprocess.run([tools/tool], cwd=root, check=True)
    after = state()
    changed = [f for f in sorted({*before, *after}) if before.get(f) != after.get(f)]
    for f in changed: print(shown(before.get(f, ''), after.get(f, ''), f))
    return changed


def uncommitted():
    "The notebooks and modules that git sees changed (none where this is no git checkout)"
    ask = ['git', 'status', '--porcelain', '--', 'nbs', 'scoreguidance']
    try: got = subprocess.run(ask, cwd=root, capture_output=True, text=True)
    except FileNotFoundError: got = None
    if got is None or got.returncode:
        print('sync: no git checkout here, so nothing to compare with what is committed')
        return []
    if got.stdout: subprocess.run(['git', '--no-pager', 'diff', '--', 'nbs', 'scoreguidance'], cwd=root)
    return got.stdout.splitlines()


if __name__ == '__main__':
    changed = drift()
    if changed: sys.exit(f"sync: {', '.join(changed)} had drifted; mended now: look, commit, run again")
    if os.environ.get('CI') and (left := uncommitted()):
        sys.exit('sync: nbs/ and scoreguidance/ differ from what is committed:\n' + '\n'.join(left))
    sys.exit(subprocess.run([sys.executable, root/'scripts'/'readme.py', '--check']).returncode)
