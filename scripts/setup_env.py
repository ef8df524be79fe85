"""Make .venv hold the package and its development tools; do nothing when it already does.

Run by the Makefile before every target. Standard library only, and readable by Pythons too old to go on with,
so that they can be told so. What counts as current: the stamp .venv/.stamp, a hash of the files that name
requirements, of the Python inside and of this folder's path. The stamp is removed first and written last, so
an installation that was cut short is never taken for a finished one."""
import fcntl, hashlib, os, shutil, subprocess, sys, time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
env = root/'.venv'
python, stamp, begun = env/'bin'/'python', env/'.stamp', env/'.unfinished'
bearing = ['settings.ini', 'setup.py', 'pyproject.toml']
least = (3, 10)
need = 'Python %d.%d or later' % least


def die(msg): sys.exit('setup: ' + msg)


def ask(exe):
    "((major, minor, micro), the Python behind `exe`) or None where `exe` does not run"
    line = "import sys; print(*sys.version_info[:3], getattr(sys, '_base_executable', '') or sys.executable)"
    try: out = subprocess.check_output([str(exe), '-c', line], stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError): return None
    *v, base = out.strip().split(' ', 3)
    return tuple(map(int, v)), base


def version(exe): return (ask(exe) or [None])[0]


def fits():
    "Does .venv run, is it recent, and is it the Python that was asked for?"
    v, named = version(python), os.environ.get('PYTHON')
    return bool(v) and v >= least and (not named or (version(named) or v)[:2] == v[:2])


def choose():
    "The Python to build with: $PYTHON where it is set, else the first recent one on the path"
    named = os.environ.get('PYTHON')
    names = [named] if named else ['python3'] + ['python3.%d' % v for v in (13, 12, 11, 10)]
    found = [(exe,) + got for exe in names for got in [ask(exe)] if got]
    for _, v, base in found:
        if v >= least: return base, v
    seen = ', '.join('%s is %d.%d.%d' % ((exe,) + v) for exe, v, _ in found) or '%s does not run' % names[0]
    die('%s is needed, but %s. Install it, or name one: make PYTHON=/path/to/python3.11 ...' % (need, seen))


def key():
    "What the installation depends on"
    h = hashlib.sha256(repr((version(python), str(root))).encode())
    for name in bearing: h.update((root/name).read_bytes())
    return h.hexdigest()


def current(): return stamp.exists() and fits() and stamp.read_text() == key()


def create():
    "An empty .venv in place of one that was cut short or has another Python"
    exe, v = choose()
    print('setup: a new .venv with Python %d.%d.%d: about 2 minutes and 5 GB, once' % v, flush=True)
    if subprocess.call([exe, '-c', 'import venv, ensurepip'], stderr=subprocess.DEVNULL):
        die('%s has no venv module. On Debian or Ubuntu: apt install python%d.%d-venv' % ((exe,) + v[:2]))
    if env.exists(): shutil.rmtree(str(env))
    if subprocess.call([exe, '-m', 'venv', str(env)]): die('%s -m venv .venv failed: see above' % exe)


def install():
    start = time.time()
    if stamp.exists(): stamp.unlink()
    if begun.exists() or not fits(): create()
    begun.touch()
    print('setup: installing the package and its development tools into .venv', flush=True)
    pip = [str(python), '-m', 'pip', '--disable-pip-version-check', '--no-input', 'install', '--quiet']
    failed = subprocess.call(pip + ['-e', '.[dev]'], cwd=str(root))
    if not failed:
        stamp.with_suffix('.new').write_text(key())
        os.replace(str(stamp.with_suffix('.new')), str(stamp))
    begun.unlink()  # only a killed installation leaves it: pip cleans up after its own failures
    if failed: die('the installation failed: pip says why above. Mend that and run this again.')
    print('setup: done in %.0f s' % (time.time() - start), flush=True)


if __name__ == '__main__':
    with open(str(root/'.venv.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second waits, then finds it current
        if not current(): install()
