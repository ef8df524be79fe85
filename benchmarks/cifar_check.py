"""Real CIFAR-10 images against real ones: Inception at small n in three resizings, and the judge.

    python benchmarks/cifar_check.py ROOT [--n 200] [--weights default_1.pt] [--judge resnet56_cifar10.npz]
                                     [--device cpu] [--out results/metrics/cifar10.json]

ROOT holds CIFAR-10 (any official version). With a GPU, --n 10000 --device cuda is the usual train-against-test
floor. At n=200 a Frechet distance of 2048 features is mostly bias: the record says so by giving KID beside it."""
import argparse
import time
import warnings
from pathlib import Path

import torch

from scoreguidance.data import cifar10
from scoreguidance.store import hardware
from scoreguidance.features import MODES, extract, fid_helper, resnet56, which
from scoreguidance.files import write_json
from scoreguidance.metrics import accuracy, bootstrap, frechet, kid_blocks, prdc

p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument('root')
p.add_argument('--n', type=int, default=200)
p.add_argument('--judged', type=int, default=2000, help='test images for the judge')
p.add_argument('--weights')
p.add_argument('--judge')
p.add_argument('--device', default='cpu')
p.add_argument('--cache')
p.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results'/'metrics'/'cifar10.json')
a = p.parse_args()
torch.set_num_threads(1)
begun, rows = time.process_time(), []
train, test = cifar10(a.root), cifar10(a.root, train=False)
x, u = train.x[:a.n], test.x[:a.n] # the official order is shuffled
for mode in MODES:
    ex = fid_helper(mode, a.weights, device=a.device)
    f, g = (extract(ex, v, 20, a.cache) for v in (x, u))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter('always')
        fid = frechet(f, g)
    k = kid_blocks(f, g, min(10, a.n//50))
    rows.append(dict(which(ex), n=a.n, n_reference=a.n, fid=fid, kid=k.value, kid_se=k.se, **prdc(f, g),
                     warning=str(heard[0].message) if heard else ''))
    print(rows[-1], flush=True)
record = dict(what='CIFAR-10: the first test images against the first training images', rows=rows, hardware=hardware())
if a.judge:
    ex = resnet56(a.judge, a.device)
    f = extract(ex, test.x[:a.judged], 100, a.cache)
    right = bootstrap(accuracy, (ex.head(f), test.y[:a.judged]))
    record['judge'] = dict(which(ex), n=len(f), accuracy=right.value, sd=right.sd, lo=right.lo, hi=right.hi)
    print(record['judge'], flush=True)
write_json(a.out, dict(record, cpu_seconds=round(time.process_time() - begun, 1)))
