"Metrics against golden values, other implementations, and exact integer arithmetic"
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg

from scoreguidance.metrics import (accuracy, ece, floor, frechet, inception_score, intra, kid, nearest, nll,
                                   prdc, root_trace)

Z = dict(np.load(Path(__file__).parent/'golden'/'metrics.npz'))
close = lambda a, b, rel=1e-9: abs(a - b) <= rel*max(abs(a), abs(b))


def test_golden():
    got = prdc(Z['real'], Z['fake'], k=int(Z['nearest_k']))
    for m in ('precision', 'recall', 'density', 'coverage'): assert close(got[m], float(Z[m])), m
    assert close(frechet(Z['real'], Z['fake']), float(Z['frechet']))
    assert close(inception_score(Z['probs']), float(Z['inception_score']))


def test_float32_tensors_give_the_golden_values_too():
    real, fake = torch.from_numpy(Z['real']).float(), torch.from_numpy(Z['fake']).float()
    assert close(frechet(real, fake), float(Z['frechet']), 1e-5)
    assert close(prdc(real, fake)['density'], float(Z['density']), 1e-3)


@pytest.mark.parametrize('n,m,d', [(60, 80, 10), (400, 90, 40), (2000, 2000, 64)])
def test_frechet_is_the_sqrtm_route_where_that_is_stable(n, m, d):
    rng = np.random.RandomState(d)
    a, b = rng.randn(n, d)@rng.randn(d, d) + 2, rng.randn(m, d)@rng.randn(d, d)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    truth = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2*linalg.sqrtm(ca@cb).real)
    assert close(frechet(a, b), truth)


RANKS = [(30, 20, 20), (30, 20, 5), (10, 50, 9), (200, 100, 3), (12, 12, 11), (2, 7, 1)]

@pytest.mark.parametrize('n,d,rank', RANKS)
def test_frechet_of_any_rank(n, d, rank):
    "Zero against itself, never below; a shift adds its square; orthogonal supports share nothing"
    g = torch.Generator().manual_seed(n)
    a = torch.randn(n, rank, generator=g).double()@torch.randn(rank, d, generator=g).double()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert 0 <= frechet(a, a) < 1e-8
        assert 0 <= frechet(a, a.flip(0)) < 1e-8
        assert close(frechet(a, a + 3), 9*d)
        apart = [torch.cat(p, 1) for p in ((a, 0*a), (0*a, a))]
        own = (a - a.mean(0)).square().sum().item()/(n-1)
        assert close(frechet(*apart), 2*own + 2*a.mean(0).square().sum().item())
        assert close(frechet(7*a, 0*a), 49*(own + a.mean(0).square().sum().item()))


def test_both_routes_of_the_trace_agree():
    a, b = (torch.randn(300, 30).double() for _ in range(2))
    singular = [torch.linalg.qr(v, mode='r').R for v in (a, b)] # 30 rows: takes the other route
    assert close(root_trace(a, b).item(), root_trace(*singular).item(), 1e-10)


def test_frechet_warns_of_few_rows_only():
    a = torch.randn(11, 10)
    with warnings.catch_warnings():
        warnings.simplefilter('error'); frechet(a, a)
    with pytest.warns(UserWarning, match='10 rows in 10 dimensions'): frechet(a, a[:10])


def exact_prdc(a, b, k):
    "The definition on integer points, in integer arithmetic: balls open but for their centre"
    sq = lambda u, v: np.square(u[:, None].astype(np.int64) - v[None]).sum(-1)
    r = lambda v: np.sort(sq(v, v) + np.diag([1 << 40]*len(v)), 1)[:, k-1]
    g, ra, rb = sq(a, b), r(a), r(b)
    ina, inb = (g < ra[:, None]) | (g == 0), (g < rb) | (g == 0)
    return dict(precision=ina.any(0).mean(), recall=inb.any(1).mean(),
                density=ina.sum()/(k*len(b)), coverage=ina.any(1).mean())


@pytest.mark.parametrize('d', [1, 2, 3, 4, 64, 700]) # from 64 on float32 looks first
@pytest.mark.parametrize('seed', range(3))
def test_prdc_counts_ties_right(seed, d):
    "Integer points are full of ties and duplicates; a shift and a scale must not move one of them"
    rng = np.random.RandomState(seed)
    side, k = 2 + 5*seed if d < 64 else 2 + seed, 1 + (seed + d) % 5
    a, b = rng.randint(0, side, (40, d)), rng.randint(0, side, (30, d))
    for scale, shift in ((1., 0.), (1/3, 0.), (1e-4, 1e-3), (.1, -3.3)):
        for chunk in (7, 64):
            got = prdc(a*scale + shift, b*scale + shift, k=k, chunk=chunk)
            for m, v in exact_prdc(a, b, k).items(): assert close(got[m], float(v)), (m, scale, shift, chunk)


@pytest.mark.parametrize('k', [1, 3, 5])
def test_prdc_of_identical_sets(k):
    for f in (torch.randn(500, 64), torch.randn(300, 2)*1e4 + 1e6, torch.zeros(9, 3), torch.eye(9)):
        got = prdc(f, f.flip(0).clone(), k=k, chunk=100)
        assert got['precision'] == got['recall'] == got['coverage'] == 1.
    assert set(prdc(torch.randn(200, 8), torch.randn(200, 8) + 1e3).values()) == {0.}
    f = torch.randn(400, 16)
    assert close(prdc(f, f, k=k)['density'], 1.)


def test_prdc_memory_is_bounded(monkeypatch):
    "No block is larger than chunk^2, whatever n is"
    import scoreguidance.neighbours as M
    sizes, low = [], M._low

    def seen(*args):
        sizes.append(low(*args).numel())
        return low(*args)
    monkeypatch.setattr(M, '_low', seen)
    for d in (4, 100): prdc(torch.randn(1000, d), torch.randn(700, d), chunk=64)
    assert max(sizes) == 64**2


def test_prdc_in_float32_is_that_of_float64(monkeypatch):
    "Where float32 looks first, float64 has the last word, also on rows that float32 cannot tell apart"
    import scoreguidance.neighbours as M
    torch.manual_seed(0)
    a, b = torch.randn(400, 600).double(), torch.randn(300, 600).double()
    close_by = torch.randn(1, 600).double() + 1e-6*a # distances of 1e-12 of the squares' sum and less
    late, whole = [], M._whole
    monkeypatch.setattr(M, '_whole', lambda a, rows, k: (late.append(len(rows)), whole(a, rows, k))[1])
    for scale in (1., 1e-30, 1e30):
        for p, q in ((a, b), (a.float(), b.float()), (torch.cat([a, close_by]), torch.cat([close_by.flip(0), b]))):
            p, q = p*scale, q*scale
            got, reach = prdc(p, q, k=3, chunk=128), M.radii(p, 3, chunk=128)
            with monkeypatch.context() as m:
                m.setattr(torch, 'get_float32_matmul_precision', lambda: 'high') # then float32 is left alone
                assert got == prdc(p, q, k=3)
                assert torch.allclose(reach, M.radii(p, 3), rtol=1e-9, atol=1e-12*(600*scale**2))
    assert sum(late) >= 400


def test_rows_may_come_in_any_order():
    a, b = torch.from_numpy(Z['real']), torch.from_numpy(Z['fake'])
    p, q = torch.randperm(len(a)), torch.randperm(len(b))
    for metric in (frechet, kid): assert close(metric(a[p], b[q]), metric(a, b), 1e-8)
    assert prdc(a[p], b[q]) == pytest.approx(prdc(a, b), rel=1e-12)


@pytest.mark.parametrize('metric', [frechet, kid, prdc, nearest])
@pytest.mark.parametrize('bad,says', [
    (lambda f: f[:, :3], 'same extractor'), (lambda f: f*float('nan'), 'NaN'), (lambda f: f/0*1., 'NaN'),
    (lambda f: f[0], r'\(n,d\)'), (lambda f: f[:0], 'at least'), (lambda f: f[:, :, None], r'\(n,d\)')])
def test_bad_features(metric, bad, says):
    f = torch.randn(20, 5)
    for pair in ((f, bad(f)), (bad(f), f)):
        with pytest.raises(ValueError, match=says): metric(*pair)


def test_probabilities_and_logits_are_the_same_to_a_classifier_metric():
    v, y = torch.randn(500, 7), torch.randint(7, (500,))
    for f in (accuracy, nll, ece): assert abs(f(v, y) - f(v.softmax(1), y)) < 1e-6
    for b in (1, 5, 15): assert 0 <= ece(v, y, bins=b) <= 1
    assert close(ece(v, y, bins=1), abs(v.double().softmax(1).amax(1).mean().item() - accuracy(v, y)))


def test_intra_and_floor_take_numbers_and_dicts():
    f, g = torch.randn(60, 3), torch.randn(80, 3)
    y, u = torch.arange(60) % 3, torch.arange(80) % 3
    assert close(intra(frechet, f, y, g, u).mean, np.mean([frechet(f[y == k], g[u == k]) for k in range(3)]))
    arrays = [v.numpy() for v in (f, y, g, u)]
    assert intra(prdc, *arrays) == intra(prdc, f, y, g, u)
    s = floor(prdc, f, g, 40, seeds=range(3))
    assert close(s.mean['recall'], np.mean([v['recall'] for v in s.values])) and s.n == 40
    assert s.values == floor(prdc, f, g, 40, seeds=range(3)).values            # a seed names its draw
    with pytest.raises(ValueError, match='class 2 has 20 real and 0'):
        intra(frechet, f, y, g[u < 2], u[u < 2])
