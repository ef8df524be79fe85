"Frechet distance from stored statistics, against the matrix root of scipy"
import warnings

import numpy as np
import scipy
import torch
from scipy import linalg
from turns import agreement, faster, turns

from scoreguidance.metrics import frechet_statistics, statistics

peer = f'scipy.linalg.sqrtm of the product, scipy {scipy.__version__}'


def sqrtm_route(p, q):
    "The usual code"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        root = linalg.sqrtm(p.cov.numpy()@q.cov.numpy())
    return float((p.mean - q.mean).square().sum() + p.cov.trace() + q.cov.trace()) - 2*float(np.trace(root.real))


def row(tiny, rounds):
    d = 2048 if not tiny else 64
    scale, g = torch.logspace(-1, 1, d).double(), torch.Generator().manual_seed(0)
    p, q = (statistics(torch.randn(5*d//2, d, generator=g, dtype=torch.float64)*scale**k + m) for k, m in ((1., 0.), (1.1, .1)))
    ours, peers = frechet_statistics(p, q), sqrtm_route(p, q)
    s = (p.cov + q.cov)/2
    t = turns({'floor': lambda: torch.linalg.eigvalsh(s), 'ours': lambda: frechet_statistics(p, q), 'theirs': lambda: sqrtm_route(p, q)}, rounds)
    return dict(
        what=f'Frechet distance at {d:,} features from mean and covariance, float64', peer=peer, setting=dict(d=d, rows=p.n, value=ours),
        claims=[faster('time', t['ours'], t['theirs'], t['floor'])],
        agreement=[agreement('relative difference', abs(ours/peers - 1), 1e-9)], note='', floor='the eigenvalues of one symmetric matrix of this size')
