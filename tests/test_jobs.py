"Jobs whose workers are killed: every one is done once, the others do not notice, and nobody outlives the parent"
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from scoreguidance.jobs import dask, processes, run

# what workers run: texts for `exec`, which every worker can import
begin = 'import os, time; open({0!r}, "a").write(f"begun {1} {{os.getpid()}}\\n"); '
end = 'open({0!r}, "a").write("done {1}\\n")'


def job(log, name, seconds=.2): return name, exec, ((begin+f'time.sleep({seconds}); '+end).format(str(log), name),)


def said(log, word): return [l.split()[1:] for l in log.read_text().splitlines() if l.startswith(word)] if log.exists() else []


def soon(what, seconds=60):
    "Wait until `what()` holds"
    until = time.time()+seconds
    while not what():
        assert time.time() < until, 'waited too long'
        time.sleep(.02)


def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False


def assassin(log, name):
    "Kill the worker of a job soon after it begins, in a thread"
    def f():
        soon(lambda: [p for n, p in said(log, 'begun') if n == name])
        os.kill(next(int(p) for n, p in said(log, 'begun') if n == name), signal.SIGKILL)
    t = threading.Thread(target=f)
    t.start()
    return t


@pytest.fixture(params=['processes', 'dask'])
def pool(request):
    if request.param == 'dask': pytest.importorskip('distributed')
    with dict(processes=processes, dask=lambda n: dask(n=n))[request.param](2) as p: yield p


def test_a_worker_is_killed(pool, tmp_path):
    "Its job is done all the same, and each is done once; a neighbour that was running is not even begun again"
    log, told = tmp_path/'log', []
    jobs = [job(log, 'victim', 1.5), job(log, 'neighbour', 2.5), *[job(log, f'j{i}') for i in range(4)]]
    t = assassin(log, 'victim')
    ends = list(run(jobs, pool, say=told.append))
    t.join()
    names = sorted(n for n, *_ in jobs)
    assert sorted(ends) == [(n, None) for n in names] and told == ['victim: its worker died; trying again']
    assert sorted(n for n, in said(log, 'done')) == names
    assert sorted(n for n, _ in said(log, 'begun')) == sorted([*names, 'victim'])
    ends = dict(run([('bad', os._exit, (1,)), ('word', int, ('x',)), job(log, 'good')], pool))  # and the pool goes on
    assert re.search(r'its worker ended 2 times before the job did .*run again with fewer workers', str(ends['bad']))
    assert isinstance(ends['word'], ValueError) and 'invalid literal' in str(ends['word'])
    assert ends['good'] is None and said(log, 'done').count(['good']) == 1


def test_exceptions_are_not_tried_again(tmp_path):
    log = tmp_path/'log'
    text = f'open({str(log)!r}, "a").write("begun x 0\\n"); 1/0'
    for make in (lambda: processes(1), lambda: ThreadPoolExecutor(2)):
        log.unlink(missing_ok=True)
        with make() as pool: (name, e), = run([('x', exec, (text,))], pool, retries=3)
        assert name == 'x' and isinstance(e, ZeroDivisionError) and len(said(log, 'begun')) == 1


def test_another_executor_that_breaks(tmp_path):
    "It cannot be mended from outside: what it had not finished is handed over with a sentence, once each"
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        ends = list(run([('bad', os._exit, (1,)), ('a', int, ('1',)), ('b', int, ('2',))], pool))
    assert sorted(n for n, _ in ends) == ['a', 'b', 'bad']
    assert all('its worker ended' in str(e) for _, e in ends if e is not None) and dict(ends)['bad'] is not None


def test_no_retries():
    with processes(2) as pool: (_, e), = run([('bad', os._exit, (1,))], pool, retries=0)
    assert 'ended 1 time before' in str(e)


def test_killed_between_two_jobs():
    "A worker that dies idle is replaced, and that is no try of the next job"
    with processes(2) as pool:
        for _ in range(5):
            pids = {pool.submit(os.getpid).result() for _ in range(2)}
            for pid in pids: os.kill(pid, signal.SIGKILL)
            assert list(run([('a', int, ('1',))], pool, retries=0)) == [('a', None)]


def test_leaving_early_ends_the_workers(pool, tmp_path):
    "A caller that stops listening waits for nobody"
    log = tmp_path/'log'
    it = run([job(log, 'quick', 0), job(log, 'slow', 100), job(log, 'next', 100), job(log, 'never', 100)], pool)
    assert next(it) == ('quick', None)
    soon(lambda: 'slow' in [n for n, _ in said(log, 'begun')])
    begun = time.time()
    it.close()
    soon(lambda: not any(alive(p) for _, p in said(log, 'begun')), 20)
    assert time.time()-begun < 20 and said(log, 'done') == [['quick']]


script = '''
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)    # also where the tests run in the background
from scoreguidance.jobs import dask, processes, run
text = {text!r}
if __name__ == '__main__':
    with {make} as pool:
        for name, e in run([(n, exec, (text.replace('NAME', n),)) for n in 'ab'], pool): pass
'''


@pytest.mark.parametrize('make,sig', [('processes(2)', signal.SIGKILL), ('dask(n=2)', signal.SIGKILL), ('processes(2)', signal.SIGINT)])
def test_workers_end_with_their_parent(tmp_path, make, sig):
    "Killed, it can tell nobody; at Ctrl-C, which reaches the workers too, it ends them itself"
    if 'dask' in make: pytest.importorskip('distributed')
    log = tmp_path/'log'
    (tmp_path/'go.py').write_text(script.format(text=(begin+'time.sleep(100)').format(str(log), 'NAME'), make=make))
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).resolve().parent.parent)}
    p = subprocess.Popen([sys.executable, tmp_path/'go.py'], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        soon(lambda: len(said(log, 'begun')) == 2)
        workers = [int(w) for _, w in said(log, 'begun')]
        assert all(map(alive, workers)) and p.pid not in workers
        os.killpg(p.pid, sig) if sig == signal.SIGINT else os.kill(p.pid, sig)
        soon(lambda: not any(map(alive, workers)), 15)
        err = p.communicate(timeout=15)[1]
    finally:
        if p.poll() is None: p.kill()
    assert 'KeyboardInterrupt' in err if sig == signal.SIGINT else p.returncode == -sig


def test_dask_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(ModuleNotFoundError, match=r"Dask is not installed: pip install 'distributed>="): dask()


def test_nobody_answers():
    pytest.importorskip('distributed')
    with pytest.raises(ValueError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:9'.*start it with `dask scheduler`"):
        dask('tcp://127.0.0.1:9', seconds=1)
    with pytest.raises(ValueError, match="no Dask scheduler answers at 'nonsense:x'"): dask('nonsense:x', seconds=1)


def test_a_cluster_elsewhere(tmp_path):
    "By its address: its jobs are done, its workers live on; without workers it is said what is missing"
    distributed = pytest.importorskip('distributed')
    log, where = tmp_path/'log', dict(processes=False, dashboard_address=None, threads_per_worker=1)
    with distributed.LocalCluster(n_workers=0, **where) as cluster:
        with pytest.raises(ValueError, match='has no workers: start it'): dask(cluster.scheduler_address, seconds=.5)
        cluster.scale(1)
        for _ in range(2):
            with dask(cluster.scheduler_address) as pool: assert list(run([job(log, 'far')], pool)) == [('far', None)]
    assert said(log, 'done') == [['far']]*2


@pytest.mark.parametrize('make', [processes, lambda n: dask(n=n)])
def test_no_workers(make):
    if make is not processes: pytest.importorskip('distributed')
    with pytest.raises(ValueError, match='workers must be 1 or more, got 0'): make(0)
