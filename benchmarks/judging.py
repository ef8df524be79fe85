"Precision, recall, density and coverage against PyPI prdc: the same values, time and peak memory"
import contextlib
import io
from importlib.metadata import version
from pathlib import Path

import torch
from prdc import compute_prdc
from turns import agreement, costs, faster, peak_mb, turns

from scoreguidance.files import read_json
from scoreguidance.metrics import prdc

peer = f'PyPI prdc {version("prdc")}'
stored = Path(__file__).resolve().parent.parent/'results'/'metrics'/'prdc.json'


def sets(n, d):
    "Two sets that overlap in part, with a falling spectrum as features have"
    g, scale = torch.Generator().manual_seed(0), torch.arange(1, d + 1).double().rsqrt()
    return [torch.randn(n, d, generator=g, dtype=torch.float64).mul_(s*scale) for s in (1., .97)]


def theirs(a, b):
    with contextlib.redirect_stdout(io.StringIO()): return compute_prdc(a.numpy(), b.numpy(), nearest_k=5)


def products(a, b, rows=1024):
    "The products in float32 that both radii and the distances between the sets take, and nothing else"
    a, b = ([v.float() for v in f.split(rows)] for f in (a, b))
    for f in (a, b):
        for i, u in enumerate(f):
            for v in f[:i + 1]: u @ v.T
    for u in a:
        for v in b: u @ v.T


def warm(f, n, d):
    "What `peak_mb` measures, after a small call"
    def prepare():
        f(*sets(60, 64)) # float32 looks first from there on
        a, b = sets(n, d)
        return lambda: f(a, b)
    return prepare


def row(tiny, rounds):
    n, d = (10_000, 2048) if not tiny else (300, 16)
    memory = {f: peak_mb(warm(f, n, d)) for f in (prdc, theirs)}
    print('  memory done', flush=True)
    a, b = sets(n, d)
    ours, peers = prdc(a, b), theirs(a, b)
    off = max(abs(ours[k] - float(peers[k])) for k in peers)
    t, big = turns({'ours': lambda: prdc(a, b), 'theirs': lambda: theirs(a, b), 'products': lambda: products(a, b)}, rounds), read_json(stored)
    return dict(
        what=f'P, R, D, C of {n:,} against {n:,} features', peer=peer, setting=dict(n=n, d=d, k=5, values=ours),
        claims=[faster('time', t['ours'], t['theirs'], t['products']),
                costs('peak memory beyond the features', [memory[prdc]], [memory[theirs]], 1., unit='MiB', kind='memory')],
        agreement=[agreement('largest difference of the four values', off, 1e-12)],
        floor='the products in float32 that both radii and the distances between the sets take, without which no exact search can do',
        note=(f"At {big['n']:,} rows of {big['d']} features the whole process stays at {big['peak_mb']} MiB (stored run, "
             f"{big['cpu_seconds']:.0f} processor seconds; python benchmarks/prdc_memory.py)."))
