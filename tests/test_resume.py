"The console command killed in the middle, run again, ends with the table of an uninterrupted run"
import json
import os
import signal
import subprocess
import sys
import time

import pytest

choice = dict(preset='smoke', methods='CG,CG-SC-all,Cond', fractions='0.05', seeds='0,1')


def command(out):
    "The console command, as the shell would start it"
    args = [a for k, v in {**choice, 'out': str(out)}.items() for a in ('-p', k, v)]
    return [sys.executable, '-c', 'from scoreguidance.cli import main; raise SystemExit(main())', 'reproduce', 'digits', *args]


def rows(out): return json.loads((out/'table.json').read_text())['rows']


def children(pid):
    "Processes whose parent is `pid`"
    out = []
    for p in os.listdir('/proc'):
        if p.isdigit():
            try: fields = open(f'/proc/{p}/stat').read().rsplit(')', 1)[1].split()
            except OSError: continue
            if int(fields[1]) == pid: out.append(int(p))
    return out


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "An uninterrupted run"
    out = tmp_path_factory.mktemp('whole')/'out'
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '| 5% (70) | CG-SC-all |' in done.stdout
    return out


@pytest.mark.parametrize('after', [0, 2])
def test_killed_and_resumed(whole, tmp_path, after):
    out = tmp_path/'out'
    p = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finished = lambda: sorted(out.glob('cells/*/record.json'))
    end = time.time() + 200
    while time.time() < end and (len(finished()) < after if after else not (out/'score').is_dir()): time.sleep(.05)
    workers = children(p.pid)
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    kept = {f: f.stat().st_mtime_ns for f in finished()}
    assert len(kept) < 6, 'killed too late to test anything'
    while time.time() < end and any(os.path.isdir(f'/proc/{w}') for w in workers): time.sleep(.1)
    assert not any(os.path.isdir(f'/proc/{w}') for w in workers), 'workers outlive their parent'
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(out) == rows(whole)
    assert kept == {f: f.stat().st_mtime_ns for f in kept}, 'a finished cell was computed again'


def test_a_finished_run_computes_nothing(whole):
    before = {f: f.stat().st_mtime_ns for f in whole.glob('cells/*/*')}
    done = subprocess.run(command(whole), capture_output=True, text=True, timeout=120)
    assert '6 of 6 cells are finished; 0 to do' in done.stdout
    assert before == {f: f.stat().st_mtime_ns for f in whole.glob('cells/*/*')}


def test_a_second_run_waits_for_the_first(tmp_path):
    "As after killing `make` alone, whose child lives on: the second run ends with the whole table"
    args = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    first = subprocess.Popen(command(tmp_path/'out'), **args)
    while not (tmp_path/'out'/'plan.json').exists() and first.poll() is None: time.sleep(.05)
    second = subprocess.run(command(tmp_path/'out'), timeout=300, **args)
    said = first.communicate(timeout=300)[0]
    assert first.returncode == 0, said
    assert second.returncode == 0 and 'waiting for it' in second.stdout and '6 of 6 cells are finished' in second.stdout, second.stdout
