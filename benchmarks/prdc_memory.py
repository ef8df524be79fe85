"""50,000 against 50,000 rows of precision, recall, density and coverage: time and peak memory, stored.

    python benchmarks/prdc_memory.py [--n 50000] [--d 64] [--out results/metrics/prdc.json]

Two draws of one Gaussian, so precision and recall must agree with each other and density must be near one."""
import argparse
import platform
import resource
import time
from pathlib import Path

import torch

from scoreguidance.files import write_json
from scoreguidance.metrics import prdc

p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument('--n', type=int, default=50_000)
p.add_argument('--d', type=int, default=64)
p.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results'/'metrics'/'prdc.json')
a = p.parse_args()


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
real, fake = (torch.randn(a.n, a.d, generator=g, dtype=torch.float64) for _ in range(2))
before, wall, cpu = peak(), time.time(), time.process_time()
values = prdc(real, fake)
record = dict(what='P, R, D, C of two draws of one Gaussian', n=a.n, d=a.d, k=5, values=values,
              seconds=round(time.time() - wall, 1), cpu_seconds=round(time.process_time() - cpu, 1),
              peak_mb=round(peak()), peak_mb_before=round(before), matrix_mb=round(a.n*a.n*8/2**20),
              torch=torch.__version__, machine=platform.machine(), threads=1)
a.out.parent.mkdir(parents=True, exist_ok=True)
write_json(a.out, record)
print(record)
