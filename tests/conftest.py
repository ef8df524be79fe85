"One thread per process, repeatable draws, and how long each notebook took"
import os
import sys
from pathlib import Path

os.environ |= {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'MPLBACKEND': 'Agg'}

import pytest  # noqa: E402  (after the threads are set, as whatever imports torch must be)
from hypothesis import settings  # noqa: E402

settings.register_profile('repeatable', derandomize=True, deadline=None, max_examples=25, database=None)
settings.register_profile('nightly', deadline=None, max_examples=250, print_blob=True, database=None)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'repeatable'))


@pytest.fixture(scope='session')
def root():
    "The top of the repository"
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def seeded():
    "Every test starts from the same draws, where it draws with torch at all"
    if torch := sys.modules.get('torch'):
        torch.set_num_threads(1)
        torch.set_flush_denormal(False)  # a grid that stays in its process turns it on
        torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter):
    runs = [r for k in ('passed', 'failed') for r in terminalreporter.stats.get(k, [])
            if r.when == 'call' and '::test_notebook[' in r.nodeid]
    if not runs: return
    terminalreporter.section('seconds by notebook')
    for r in sorted(runs, key=lambda r: -r.duration):
        name = r.nodeid.split('[')[1][:-1]
        terminalreporter.line(f"{r.duration:7.1f}  {name}{'  FAILED' if r.failed else ''}")
    terminalreporter.line(f'{sum(r.duration for r in runs):7.1f}  in all')
