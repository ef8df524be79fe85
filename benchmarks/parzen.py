"The score of a noised data set, 10,000 points in the plane at 1,225 queries, against a plain loop over queries"
import torch
from turns import agreement, faster, turns

from scoreguidance.exact import Parzen, _padded, _query
from scoreguidance.sde import VE

peer = 'a loop over queries: differences, softmax, mean'
sde = VE(.01, 50.)


def loop(data, x, sigma):
    "Query by query, in the type of its arguments"
    out = torch.empty_like(x)
    for i, q in enumerate(x):
        w = (-(data - q).square().sum(1)/(2*sigma**2)).softmax(0)
        out[i] = ((w[:, None]*data).sum(0) - q)/sigma**2
    return out


def relative(a, b): return ((a - b).norm(dim=1)/b.norm(dim=1))


def row(tiny, rounds):
    n, m, g = *((10_000, 1225) if not tiny else (300, 49)), torch.Generator().manual_seed(0)
    data = torch.randn(n, 2, generator=g, dtype=torch.float64)
    side = torch.linspace(-3, 3, round(m**.5), dtype=torch.float64)
    q, p, agree = torch.cartesian_prod(side, side), Parzen(sde, data), []
    at = lambda sigma: sde.t_of(torch.tensor(sigma, dtype=torch.float64))
    for sigma in (.1, .5, 2., 10.):
        ours, truth = p.score(q, at(sigma)), loop(data, q, float(sde.sigma(at(sigma))))
        agree.append(agreement(f'float64, sigma {sigma:g}: median relative error', relative(ours, truth).median(), 1e-12))
        fresh = Parzen(sde, data)
        ours = fresh.score(q.float(), at(sigma)).double()
        kind = 'float32' if 'coarse' in vars(fresh) else 'float64'
        truth = p.score(q.float().double(), at(sigma))
        agree.append(agreement(f'float32 queries, sigma {sigma:g}, computed in {kind}: largest error of sigma*score',
                               sigma*(ours - truth).abs().max(), 1e-4))
    low, t2, t10 = (q*3).float(), at(2.), at(10.)
    assert 'coarse' not in vars(p)

    def bare(q, k): torch.nn.functional.scaled_dot_product_attention(q[None, None], k[None, None], k[None, None], scale=1.)

    def ready(x, t, keys): # what `score` asks of its keys
        v = _query(p, x, t)[3]
        return torch.nn.functional.pad(v, (0, keys.shape[1] - v.shape[1])).to(keys), keys
    wide, narrow = ready(q, t2, p.keys), ready(low, t10, _padded(p.keys, 16).float())
    sides = {'floor 64': lambda: bare(*wide), 'floor 32': lambda: bare(*narrow), 'double': lambda: p.score(q, t2), 'loop': lambda: loop(data, q, 2.),
             'single': lambda: p.score(low, t10), 'low loop': lambda: loop(data.float(), low, 10.)}
    t = turns(sides, rounds)
    assert 'coarse' in vars(p)
    how = dict(per=1e-3, unit='ms')
    return dict(
        what=f'Parzen score, {n:,} points in 2-D, {m:,} queries', peer=peer, setting=dict(points=n, queries=m),
        claims=[faster('float64, sigma 2', t['double'], t['loop'], t['floor 64'], **how),
                faster('float32, sigma 10, against the float64 loop it replaces', t['single'], t['loop'], t['floor 32'], **how),
                faster('float32, sigma 10, against the loop in float32', t['single'], t['low loop'], t['floor 32'], target=None, **how)],
        agreement=agree, floor="PyTorch's attention kernel alone, on queries and keys that are ready for it; products and exponentials by hand are slower",
        note='Float32 is taken for float32 queries where the level is large against the radius of the data, so that a bound on '
             'the rounding of sigma*score stays under 1e-4; float64 queries are always answered in float64.')
