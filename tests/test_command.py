"The console command: every help has examples that parse, the cheap ones run; it is quiet where nobody watches; Ctrl-C at any time"
import os
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from scoreguidance import cli
from scoreguidance.cli import parser
from scoreguidance.data import digits, to_uint8

# Ctrl-C is heard even where the shell that started the tests had it ignored, as for jobs in the background
heard = ('import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); '
         'from scoreguidance.cli import main; raise SystemExit(main(sys.argv[1:]))')
start = [sys.executable, '-c', heard]


def parsers(p, name='scoreguidance'):
    "A parser and all below it: (what to type, parser)"
    yield name, p
    for a in p._actions:
        if hasattr(a, 'choices') and isinstance(a.choices, dict):
            for k, q in a.choices.items(): yield from parsers(q, f'{name} {k}')


known = dict(parsers(parser()))
examples = [(n, l.strip()) for n, p in known.items() for l in (p.epilog or '').splitlines() if l.strip().startswith('scoreguidance')]


@pytest.mark.parametrize('name', known)
def test_help_has_examples(name):
    mine = [l for n, l in examples if n == name]
    assert mine and known[name].epilog.startswith('EXAMPLES\n'), f'{name}: give add_parser examples=((what for, command), ...)'
    assert all(l.startswith(name) for l in mine) and mine[0] in known[name].format_help()


@pytest.mark.parametrize('name,line', examples)
def test_example_parses(name, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'pictures').mkdir()                     # a folder that examples speak of
    args = parser().parse_args(shlex.split(line)[1:])
    assert args.command == line.split()[1]


def cheap(line):
    "Does it take seconds, on files that are here?"
    return line.split()[1] in ('table', 'evaluate', 'compare') and '--download' not in line and '[' not in line \
        or 'preset smoke' in line


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A user's folder: samples of their own, and somebody else's record"
    d, test = tmp_path_factory.mktemp('user'), digits(False)
    np.savez(d/'samples.npz', x=to_uint8(test.x).numpy()[:100], y=test.y.numpy()[:100])
    assert run('scoreguidance evaluate samples.npz --reference digits --features pixels --json theirs.json', d).returncode == 0
    return d


def run(line, d): return subprocess.run(start + shlex.split(line)[1:], cwd=d, capture_output=True, text=True, timeout=300)


def test_cheap_examples_run(folder):
    "In the order of the help: what one leaves, the next one reads; not a word on stderr, no bar, no colour"
    lines = list(dict.fromkeys(l for n, l in examples if cheap(l) and n != 'scoreguidance'))
    assert {l.split()[1] for l in lines} >= {'reproduce', 'table', 'evaluate', 'compare'}
    assert {l for n, l in examples if n == 'scoreguidance' and cheap(l)} <= set(lines), 'the overview shows what the commands show'
    for line in lines:
        done = run(line, folder)
        assert done.returncode == 0 and not done.stderr, f'{line}\n{done.stderr}'
        assert done.stdout and not {'\r', '\x1b'} & set(done.stdout), line
    assert (folder/'results'/'try'/'table.md').exists() and (folder/'ours.json').exists()


@pytest.mark.parametrize('argv,words', [
    ((), ('EXAMPLES', 'reproduce', 'evaluate')),
    (('--version',), ('0.',)),
])
def test_alone_is_an_overview(argv, words, tmp_path):
    done = subprocess.run(start + list(argv), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and all(w in done.stdout for w in words)


@pytest.mark.parametrize('line,words', [
    ('reproduce digit', "unknown experiment 'digit': did you mean digits? choose one of digits"),
    ('reproduce', "missing experiment: 'scoreguidance reproduce --help'"),
    ('evaluat a.npz', "unknown command 'evaluat': did you mean evaluate?"),
    ('evaluate a.npz', "missing --reference: 'scoreguidance evaluate --help'"),
    ('evaluate a.npz --reference digits --times few', "--times: invalid int value: 'few': 'scoreguidance evaluate --help'"),
    ('reproduce digits --colour red', "unknown --colour red: 'scoreguidance"),
    ('train classifier digits --loss sc --out x', 'unknown --loss sc: a loss is named by its row of the tables, as --method CG-SC-all'),
    ('compare a.json --format pdf', "unknown --format 'pdf': choose one of markdown, latex, json"),
])
def test_a_typing_mistake_is_one_sentence(line, words, capfd):
    with pytest.raises(SystemExit) as e: parser().parse_args(line.split())
    out, err = capfd.readouterr()
    assert e.value.code == 2 and not out and err.startswith('scoreguidance: ') and err.count('\n') == 1
    assert words in err


def spent(pid):
    "CPU seconds of a process"
    try: return int(open(f'/proc/{pid}/schedstat').read().split()[0])/1e9
    except OSError: return float('inf')


@pytest.mark.parametrize('line,words', [
    ('evaluate none.npz --reference digits --features pixels', 'no samples at none.npz: give'),
    ('evaluate samples.npz --reference digit --features pixels', 'nothing at digit: give digits, cifar10:FOLDER'),
    ('evaluate samples.npz --reference cifar10 --features pixels', 'nothing at cifar10: give digits, cifar10:FOLDER'),
    ('evaluate samples.npz --reference digits --features digits --device abacus', "no device 'abacus' here"),
    ('evaluate samples.npz --reference digits --features pixels --device abacus', "no device 'abacus' here"),
    ('evaluate shifted.npz --reference digits --features pixels', 'classes 10, 11, 12, 13, 14 of the samples are no classes'),
    ('evaluate named --reference digits --features pixels', 'classes one, zero of the samples are no classes of the reference: name them 0, 1'),
    ('compare samples.npz', 'samples.npz is no record: give a file that'),
])
def test_samples_that_cannot_be_judged(folder, line, words):
    data = digits()
    np.savez(folder/'shifted.npz', x=to_uint8(data.x[:200]).numpy(), y=data.y[:200].numpy() + 5)
    for i, name in enumerate(('zero', 'one')):
        (folder/'named'/name).mkdir(parents=True, exist_ok=True)
        for j, x in enumerate(to_uint8(data.x[data.y == i][:10])): Image.fromarray(x[0].numpy()).save(folder/'named'/name/f'{j}.png')
    done = run(f'scoreguidance {line}', folder)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count('\n') == 1 and 'delete' not in done.stderr, done.stderr


def test_ctrl_c_that_an_import_swallows(folder, tmp_path, monkeypatch):
    "Where `import torch` catches everything, the process ends nevertheless"
    (tmp_path/'torch.py').write_text("""import os, signal
try: os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(100_000)]
except BaseException: pass
raise SystemExit('went on')""")
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    got = subprocess.run([*start, 'reproduce', 'digits'], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (got.returncode, got.stdout) == (130, '') and got.stderr.startswith('\nstopped; what is finished is kept'), got


def test_ctrl_c_that_a_compiled_module_renames(monkeypatch, capsys):
    "pybind11 says `ImportError: initialization failed` of a Ctrl-C that meets a module's start; it is one all the same"
    def renamed(a):
        try: raise KeyboardInterrupt
        except KeyboardInterrupt as e: raise ImportError('initialization failed') from e
    monkeypatch.setattr(cli, 'compare', renamed)
    assert cli.main(['compare', 'a.json']) == 130
    assert capsys.readouterr().err.startswith('\nstopped; ')
    def broken(a): raise ImportError('initialization failed')
    monkeypatch.setattr(cli, 'compare', broken)
    assert cli.main(['compare', 'a.json']) == 2


@pytest.mark.parametrize('line', ['reproduce digits -p preset smoke -p workers 1', 'reproduce digits -p preset smoke -p workers 2',
                                  'evaluate samples.npz --reference digits --features pixels --times 400 --json never.json'])
@pytest.mark.parametrize('moment', [.4, 1.2, 2.5, 4.])
def test_ctrl_c_at_any_time(folder, tmp_path, line, moment):
    "While it imports, starts its workers, or works: one sentence that says how to go on, and 130"
    where = ['-p', 'out', str(tmp_path/'out')] if 'reproduce' in line else []
    p = subprocess.Popen(start + line.split() + where, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end, workers = time.time()+100, 'workers 2' in line and moment > 2
    busy = lambda: spent(p.pid) < moment if not workers else not (tmp_path/'out'/'plan.json').exists()
    while busy() and p.poll() is None and time.time() < end: time.sleep(.002)
    if workers: time.sleep(moment-2.4)  # they import, or work
    os.killpg(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130, (p.returncode, out, err)
    assert err.startswith('\nstopped; ') and err.count('\n') == 2, err
    assert ('the same command goes on' if 'reproduce' in line else 'run the same command again') in err
    assert not (folder/'never.json').exists()
