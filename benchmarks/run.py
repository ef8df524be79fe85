"""All benchmarks of the package's speed, against peers that do the same work, on one processor thread.

    python benchmarks/run.py [--only NAME ...] [--rounds 5] [--json results/benchmarks] [--tiny]

Each row runs in a process of its own. Its sides take turns in that process, and ratios are taken within a round; what is
reported is their median with the lowest and the highest. Times are processor seconds. Every row first checks that both
sides give the same values. Records go to results/benchmarks/NAME.json, and docs/performance.md is built from them
(benchmarks/page.py). --tiny runs every row at a size that takes a second: its numbers mean nothing, and it writes
only where --json says."""
import os

os.environ |= {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}

import argparse  # noqa: E402  (after the threads are set, as whatever imports torch must be)
import importlib  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from page import ROWS, shown, write  # noqa: E402
from turns import alone  # noqa: E402

from scoreguidance.store import hardware  # noqa: E402
from scoreguidance.files import write_json  # noqa: E402

HERE = Path(__file__).resolve().parent
STORE = HERE.parent/'results'/'benchmarks'


def record(name, tiny, rounds):
    "Run one row, in this process"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wall, cpu, load = time.time(), time.process_time(), os.getloadavg()
    got = importlib.import_module(name).row(tiny, rounds)
    return dict(name=name, **got, rounds=rounds, tiny=tiny, seconds=round(time.time() - wall, 1),
                cpu_seconds=round(time.process_time() - cpu, 1), load=[load, os.getloadavg()],
                hardware=dict(hardware(), machine=platform.machine(),
                              vector=torch.backends.cpu.get_cpu_capability()))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--only', nargs='+', choices=ROWS, metavar='NAME', default=ROWS, help=', '.join(ROWS))
    p.add_argument('--rounds', type=int, help='counted rounds, after one to warm up (5; with --tiny 1)')
    p.add_argument('--json', type=Path, help='where the records go')
    p.add_argument('--tiny', action='store_true', help='a second for each row, to see that it works')
    a = p.parse_args()
    failed, rounds = [], a.rounds or (1 if a.tiny else 5)
    if rounds < 1: p.error('--rounds: at least one')
    out = a.json or (None if a.tiny else STORE)
    if out: out.mkdir(parents=True, exist_ok=True)
    for name in a.only:
        print(name, flush=True)
        try: got = alone(lambda: record(name, a.tiny, rounds))
        except ValueError as e:
            failed.append(name)
            print(f'  FAILED: {e}', flush=True)
            continue
        print(shown(got), flush=True)
        if out: write_json(out/f'{name}.json', got)
    if out and out.resolve() == STORE: print(f'written: {write().relative_to(HERE.parent)}')
    if failed: sys.exit(f"failed: {', '.join(failed)}")


if __name__ == '__main__': main()
