"Each notebook is one test, in a process of its own: a hang is a failure, and nothing leaks into the next"
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from nbdev.doclinks import nbglob

root = Path(__file__).resolve().parent.parent
limit = float(os.environ.get('NOTEBOOK_SECONDS', 600))
notebooks = sorted(nbglob(root/'nbs', as_path=True))


def kill(p):
    "End a process and all that it started, which may hold its output open"
    try: os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    p.wait()


def run(notebook, seconds):
    "None where the notebook passes, else what went wrong"
    with tempfile.TemporaryFile('w+') as log:
        cmd = [sys.executable, root/'tests'/'run_notebook.py', notebook, str(seconds)]
        streams = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        p = subprocess.Popen(cmd, cwd=root, start_new_session=True, **streams)
        try: p.wait(seconds)
        except subprocess.TimeoutExpired: why = f'still running after {seconds:g} s, so it was stopped'
        else: why = p.returncode and f'exit status {p.returncode}'
        finally: kill(p)
        log.seek(0)
        if why: return f'{notebook.name}: {why}\n' + re.sub(r'\x1b\[[0-9;]*m', '', log.read())[-6000:]


@pytest.mark.parametrize('notebook', notebooks, ids=lambda p: p.name)
def test_notebook(notebook):
    if problem := run(notebook, limit): pytest.fail(problem, pytrace=False)


def test_there_are_notebooks(): assert len(notebooks) >= 2, f'no notebooks found in {root}/nbs'


@pytest.fixture
def made(tmp_path):
    "A notebook with the given code cells"
    def f(*cells):
        cell = dict(cell_type='code', metadata={}, outputs=[], execution_count=None)
        kernel = dict(display_name='python3', language='python', name='python3')
        nb = dict(cells=[dict(cell, id=f'c{i}', source=s) for i, s in enumerate(cells)],
                  metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
        (tmp_path/'made.ipynb').write_text(json.dumps(nb))
        return tmp_path/'made.ipynb'
    return f


def test_passing_and_flagged_cells(made):
    assert run(made('#| slow\n1/0', '#| gpu\n1/0', 'a = 1', 'assert a == 1'), 60) is None


def test_failing_cell_is_shown(made):
    problem = run(made('a = 1', 'assert a == 2, "one is not two"'), 60)
    assert 'exit status 1' in problem and 'one is not two' in problem and 'assert a == 2' in problem


def test_hang_is_a_failure(made):
    child = 'import subprocess, time\nsubprocess.Popen(["sleep", "100"])'
    problem = run(made(child, 'def stuck(): time.sleep(100)\nstuck()'), 12)
    assert 'still running after 12 s' in problem and 'stuck' in problem
