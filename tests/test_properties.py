"""Laws for all inputs, tried by hypothesis: shapes, dtypes, seeds, label sets, schedules, grids, records.

`make nightly` tries ten times as many, drawn anew each time."""
import json
import math

import numpy as np
import torch
from hypothesis import assume, example, given, strategies as st
from hypothesis.extra.numpy import arrays

from scoreguidance.calibrate import semi
from scoreguidance.core import bc, check_y, rows, sumsq
from scoreguidance.data import as_float, digest, from_tensor, hide, subset, to_uint8
from scoreguidance.exact import GMM, Parzen, bayes
from scoreguidance.files import canonical, read_json, read_tensors, write_json, write_tensors
from scoreguidance.guide import drop, evidence, joint, likelihood
from scoreguidance.matching import dsm
from scoreguidance.metrics import (accuracy, brier, ece, frechet, frechet_statistics, inception_score, kid, nearest, nll, prdc,
                                   statistics)
from scoreguidance.nets import Classifier, Denoiser, Gauss
from scoreguidance.sample import ancestral, em, heun, karras, langevin, ode, prior, reverse_diffusion, sample, then, transition
from scoreguidance.score import Score, denoiser, fixed, from_denoiser, from_eps, grad, mix
from scoreguidance.sde import VE, VP, SubVP, perturb
from scoreguidance.train import Recipe

f32, f64 = torch.float32, torch.float64

seeds = st.integers(0, 2**32-1)
shapes = st.sampled_from([(1,), (2,), (7,), (1, 8, 8), (3, 4, 4)])
batches = st.sampled_from([1, 2, 5])
times = st.floats(1e-3, 1.)
scales = st.floats(-5, 5)
ves = st.builds(lambda lo, ratio: VE(lo, lo*ratio), st.floats(1e-3, 1.), st.floats(2., 1e4))
vps = st.builds(lambda k, b0, add: k(b0, b0+add), st.sampled_from([VP, SubVP]), st.floats(.01, 1.), st.floats(1., 30.))
sdes = ves | vps
norms = st.sampled_from([1e-3, 1., 1e3])


def gen(seed): return torch.Generator().manual_seed(seed)


def randn(seed, *shape, dtype=f64): return torch.randn(shape, generator=gen(seed), dtype=f64).to(dtype)


def near(a, b, tol=1e-9):
    "Relative to the largest number of either"
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    assert a.shape == b.shape, (a.shape, b.shape)
    size = max(a.abs().max().item(), b.abs().max().item(), 1e-300) if a.numel() else 1.
    assert a.numel() == 0 or (a-b).abs().max().item() <= tol*size, f'off by {(a-b).abs().max().item()/size:.1e}'


def field(seed, shape):
    "Some smooth field: no score, so that only the algebra counts"
    w = randn(seed, math.prod(shape), math.prod(shape))/math.prod(shape)
    return Score(lambda x, t: (torch.sin(x.flatten(1).double()@w)*(1+rows(t, x).double())[:, None]).reshape(x.shape).to(x.dtype))


@st.composite
def spots(draw, least=1):
    "A field's arguments: points and their times"
    shape, n, seed = draw(shapes), draw(batches), draw(seeds)
    x = randn(seed, max(n, least), *shape)*draw(norms)
    return x, draw(times) if draw(st.booleans()) else torch.rand(len(x), generator=gen(seed), dtype=f64)*.99+.01


@st.composite
def worlds(draw, **kw):
    "A mixture under a schedule, and points at its noised data"
    sde, shape, seed, k, n = draw(sdes), draw(shapes), draw(seeds), draw(st.integers(1, 4)), draw(batches)
    p = GMM(sde, randn(seed, k, *shape)*draw(st.sampled_from([1e-2, 1., 1e2])), draw(st.floats(0., 2.)))
    t = torch.rand(n, generator=gen(seed), dtype=f64)*.9+.1
    return p, perturb(sde, p.sample(n, gen(seed)), t, randn=lambda x: randn(seed+1, *x.shape, dtype=x.dtype))


# core

@given(shapes, batches, seeds)
def test_broadcasting(shape, n, seed):
    x, v = randn(seed, n, *shape), randn(seed+1, n)
    near(bc(v, x)*x, torch.stack([a*b for a, b in zip(v, x)]))
    near(bc(2., x)*x, 2*x); near(rows(3., x), torch.full((n,), 3.)); near(rows(v, x), v)
    near(sumsq(x), torch.stack([r.square().sum() for r in x]))
    assert bc(v, x).dtype == x.dtype and bc(v.float(), x).dtype == x.dtype


@given(st.lists(st.integers(-3, 12), max_size=9), st.integers(1, 10))
def test_labels_are_checked(y, c):
    good = all(0 <= v < c for v in y)
    try: check_y(torch.tensor(y, dtype=torch.long), c, len(y))
    except ValueError: assert not good
    else: assert good


# the algebra

@given(spots(), seeds, scales, scales)
def test_scores_are_a_vector_space(at, seed, v, w):
    x, t = at
    a, b, c = (field(seed+i, x.shape[1:]) for i in range(3))
    same = lambda f, g: near(f(x, t), g(x, t))
    same(a+b, b+a); same((a+b)+c, a+(b+c)); same(a-a, 0*a); same(-a, -1*a); same(a-b, a+-b)
    same(w*(a+b), w*a+w*b); same((v+w)*a, v*a+w*a); same(v*(w*a), (v*w)*a); same(1*a, a); same(a*w, w*a)
    plain = lambda x, t: b(x, t)
    same(a+plain, a+b); same(plain+a, a+b); same(a-plain, a-b); same(plain-a, b-a)
    same((lambda t: w*t)*a, Score(lambda x, t: bc(w*rows(t, x), x)*a(x, t)))


@given(spots(), seeds, scales)
def test_mixing(at, seed, w):
    x, t = at
    u, c = (field(seed+i, x.shape[1:]) for i in range(2))
    near(mix(u, c, w)(x, t), (1-w)*u(x, t)+w*c(x, t))
    near(mix(u, c, 0)(x, t), u(x, t)); near(mix(u, c, 1)(x, t), c(x, t)); near(mix(u, u, w)(x, t), u(x, t))


@given(worlds())
def test_forms_of_a_score(w):
    p, b = w
    assume(p.sde.alpha(b.t).min() > .05)
    s, sde = Score(p.score), p.sde
    eps = lambda x, t: -bc(sde.sigma(rows(t, x)), x)*s(x, t)
    near(from_eps(eps, sde)(b.x, b.t), s(b.x, b.t))
    d = denoiser(s, sde)
    near(denoiser(from_denoiser(d, sde), sde)(b.x, b.t), d(b.x, b.t), 1e-6)
    near(grad(p.logp)(b.x, b.t), s(b.x, b.t), 1e-7)
    assert not fixed(s)(b.x, b.t).requires_grad


@given(worlds(), seeds)
def test_a_score_never_looks_across_the_batch(w, seed):
    "Also for a batch of one, an empty one and one in another order"
    p, b = w
    order = torch.randperm(len(b.x), generator=gen(seed))
    whole = p.score(b.x, b.t)
    near(p.score(b.x[order], b.t[order]), whole[order])
    for i in range(len(b.x)): near(p.score(b.x[i:i+1], b.t[i:i+1]), whole[i:i+1])
    assert p.score(b.x[:0], b.t[:0]).shape == b.x[:0].shape and p.logp(b.x[:0], b.t[:0]).shape == (0,)


@given(sdes, shapes, seeds, batches, st.sampled_from([1e-3, 1e-2, 1., 1e2]))
def test_parzen_is_its_mixture(sde, shape, seed, n, size):
    data = randn(seed, 6, *shape)*size
    b = perturb(sde, data[:n], torch.rand(n, generator=gen(seed), dtype=f64)*.9+.1)
    near(Parzen(sde, data).score(b.x, b.t), GMM(sde, data).score(b.x, b.t), 1e-6)


@given(worlds(), seeds, st.integers(2, 4))
def test_bayes_splits_the_score(w, seed, c):
    "likelihood + evidence = joint; class scores; likelihoods weighted by the posterior cancel; any common term too"
    p, b = w
    ps = [GMM(p.sde, p.mean+k*randn(seed+k, *p.mean.shape[1:]), p.var) for k in range(c)]
    clf, y = bayes(ps), torch.randint(c, (len(b.x),), generator=gen(seed))
    truth = torch.stack([q.score(b.x, b.t) for q in ps])[y, torch.arange(len(y))]
    size = truth.abs().max()
    small = lambda d: bool((d.abs() <= 1e-8*size).all())
    parts = likelihood(clf, y)(b.x, b.t) + evidence(clf)(b.x, b.t)
    assert small(joint(clf, y)(b.x, b.t)-truth) and small(parts-truth)
    post = clf(b.x, b.t).softmax(1)
    pulls = torch.stack([likelihood(clf, torch.full_like(y, k))(b.x, b.t) for k in range(c)])
    assert small(sum(bc(post[:, k], b.x)*pulls[k] for k in range(c)))
    moved = lambda x, t: clf(x, t)+x.flatten(1).square().sum(1)[:, None]
    assert small(likelihood(moved, y)(b.x, b.t)-likelihood(clf, y)(b.x, b.t))


@given(worlds())
def test_float32_is_float64_but_rounded(w):
    "Exact worlds compute in float64 and give back the caller's type; dsm of the truth is the same number"
    p, b = w
    x, t = b.x.float(), b.t.float()
    assert p.score(x, t).dtype == f32 and p.logp(x, t).dtype == f32 and p.score(b.x, b.t).dtype == f64
    near(p.score(x, t), p.score(x.double(), t.double()), 1e-5)


@given(st.floats(1e-3, 1e3), shapes, seeds, batches)
def test_networks_at_extreme_noise(sigma, shape, seed, n):
    "Finite, and a fresh denoiser is the posterior mean of its Gaussian, rows apart"
    g = Gauss(shape, randn(seed, 20, *shape, dtype=f32))
    x = randn(seed+1, n, *shape, dtype=f32)*(1+sigma)
    torch.manual_seed(seed % 1000)
    net, clf = Denoiser(g, 8, 1), Classifier(g, 3, 8, 1)
    s = torch.full((n,), sigma)
    near(net(x, s), g.denoise(x, s), 1e-6)
    assert clf(x, s).isfinite().all()
    near(clf(x, s)[:1], clf(x[:1], s[:1]), 1e-4)
    assert net(x[:0], s[:0]).shape == x[:0].shape and clf(x[:0], s[:0]).shape == (0, 3)


# schedules

@given(sdes, st.floats(.01, 1.))
def test_schedules(sde, t):
    "t_of inverts sigma; f and g are what autograd says of alpha and sigma: f = alpha'/alpha, g^2 = (sigma^2)' - 2 f sigma^2"
    t = torch.tensor(t, dtype=f64, requires_grad=True)
    a, v = sde.alpha(t), sde.sigma(t)**2
    da, dv = (torch.autograd.grad(h, t, retain_graph=True)[0] if h.requires_grad else torch.zeros(()) for h in (a, v))
    f = da/a
    near(sde.f(t).detach(), f.detach(), 1e-9) if f != 0 else near(sde.f(t), torch.zeros((), dtype=f64))
    near((sde.g(t)**2).detach(), (dv-2*f*v).detach(), 1e-7)
    if sde.sigma(t) < .999 or isinstance(sde, VE): near(sde.t_of(sde.sigma(t)).detach(), t.detach(), 1e-6)


@given(sdes, st.integers(1, 6), seeds)
def test_schedules_by_row(sde, n, seed):
    "A number or one per row, any float type: the same values in the same shape"
    t = torch.rand(n, generator=gen(seed), dtype=f64)*.98+.01
    for f in (sde.alpha, sde.sigma, sde.f, sde.g):
        assert f(t).shape == (n,) and f(t.float()).dtype == f32
        near(f(t), torch.stack([f(u) for u in t]), 1e-12); near(f(t.float()), f(t.float().double()), 1e-4)


@given(sdes, times, times, times)
def test_transitions_compose(sde, a, b, c):
    u, m, t = (torch.tensor(v, dtype=f64) for v in sorted((a, b, c)))
    assume(u < m < t)
    (a1, v1), (a2, v2), (a3, v3) = transition(sde, m, u), transition(sde, t, m), transition(sde, t, u)
    near(a1*a2, a3, 1e-12); near(v2+a2**2*v1, v3, 1e-8)


@given(sdes, st.integers(2, 60), st.floats(1., 10.))
def test_grids(sde, n, rho):
    ts = karras(sde, n, rho=rho)
    assert len(ts) == n and ts.dtype == f64 and (ts.diff() < 0).all() and 0 < ts[-1] and ts[0] <= 1
    r = (sde.sigma(ts)/sde.alpha(ts))**(1/rho)
    near(r.diff(), r.diff()[:1].expand(n-1), 1e-4)


@given(sdes, shapes, seeds, batches)
def test_perturb_by_row(sde, shape, seed, n):
    x0, z = randn(seed, n, *shape), randn(seed+1, n, *shape)
    b = perturb(sde, x0, randn=lambda x: z)
    near(b.x, torch.stack([sde.alpha(t)*a+sde.sigma(t)*e for a, t, e in zip(x0, b.t, z)]))
    assert perturb(sde, x0.float()).x.dtype == f32 and perturb(sde, x0[:0]).x.shape == x0[:0].shape
    assert ((b.t > 0) & (b.t <= 1)).all()


# samplers

steps = st.sampled_from([em, ode, heun, ancestral, reverse_diffusion, then(em, ode), then(reverse_diffusion, heun)])


def noise(seed):
    "Draws that depend on the seed and the call alone, the same for every row"
    g = gen(seed)
    return lambda x: torch.randn(x.shape[1:], generator=g, dtype=f64).to(x).expand(x.shape)


@given(steps, sdes, shapes, seeds, st.integers(2, 5))
def test_steps_are_affine_where_the_score_is(step, sde, shape, seed, n):
    "One Gaussian: walking a mixture of two starts is the mixture of the walks, on the same noise"
    p = GMM(sde, randn(seed, 1, *shape), .5)
    ts, (a, b) = karras(sde, n), prior(sde, randn(seed, 2, *shape), lambda x: randn(seed+1, *x.shape))
    walk = lambda x: list(sample(step, p.score, sde, x[None], ts, noise(seed)))[-1][0]
    near(walk(.3*a+.7*b), .3*walk(a)+.7*walk(b), 1e-8)


@given(steps | st.just(langevin), sdes, shapes, seeds, batches)
def test_samples_do_not_depend_on_their_batch(step, sde, shape, seed, n):
    p = GMM(sde, randn(seed, 3, *shape), .5)
    x, ts = prior(sde, torch.empty(n, *shape, dtype=f64), lambda x: randn(seed, *x.shape)), karras(sde, 4)
    walk = lambda x: list(sample(step, p.score, sde, x, ts, noise(seed)))
    whole = walk(x)
    assert len(whole) == 3
    for i in range(n): near(walk(x[i:i+1])[-1], whole[-1][i:i+1], 1e-8)
    order = torch.randperm(n, generator=gen(seed))
    near(walk(x[order])[-1], whole[-1][order], 1e-8)
    assert walk(x[:0])[-1].shape == x[:0].shape


@given(ves, shapes, seeds, st.floats(.1, 10.))
def test_sampling_commutes_with_shift_and_scale(sde, shape, seed, k):
    "Moving the data moves the samples; scaling data and schedule scales them"
    m, x, ts = randn(seed, 2, *shape), randn(seed+1, 3, *shape), torch.linspace(.9, .1, 5, dtype=f64)
    walk = lambda sde, m, x: list(sample(heun, GMM(sde, m, 0.).score, sde, x, ts))[-1]
    plain = walk(sde, m, sde.hi*x)
    near(walk(sde, m+k, sde.hi*x+k), plain+k, 1e-5)
    near(walk(VE(k*sde.lo, k*sde.hi), k*m, k*sde.hi*x), k*plain, 1e-6)


@given(sdes, st.sampled_from([ode, heun]), seeds)
def test_finer_steps_are_closer(sde, step, seed):
    "On a Gaussian the flow is known: x moves in proportion to the standard deviation"
    p, x = GMM(sde, torch.zeros(1, 2, dtype=f64), 1.), randn(seed, 4, 2)
    sd = lambda t: (sde.alpha(t)**2+sde.sigma(t)**2).sqrt()
    def off(n):
        ts = karras(sde, n)
        got = list(sample(step, p.score, sde, x*sd(ts[0]), ts))[-1]
        return (got-x*sd(ts[-1])).norm().item()
    assert off(129) <= max(.6*off(33), 1e-9)


@given(sdes, shapes, seeds)
def test_float32_walks_like_float64(sde, shape, seed):
    p, x = GMM(sde, randn(seed, 2, *shape), .5), prior(sde, torch.empty(3, *shape, dtype=f64), lambda x: randn(seed, *x.shape))
    walk = lambda x: list(sample(heun, p.score, sde, x, karras(sde, 6)))[-1]
    assert walk(x.float()).dtype == f32
    near(walk(x.float()), walk(x), 2e-3)


# metrics

def features(seed, n, d=4, size=1.): return randn(seed, n, d)*size


def turned(seed, d=4): return torch.linalg.qr(randn(seed, d, d))[0]


@given(seeds, norms, st.floats(-100, 100))
def test_metrics_do_not_see_order_rotation_or_shift(seed, size, shift):
    a, b, q = features(seed, 30, size=size), features(seed+1, 25, size=size)*1.2, turned(seed)
    shift = shift*size
    p, r = torch.randperm(30, generator=gen(seed)), torch.randperm(25, generator=gen(seed))
    for f, turn in ((frechet, True), (prdc, True), (kid, False)):
        flat = lambda v: np.array(list(v.values()) if isinstance(v, dict) else [v])
        want, top = flat(f(a, b)), max(np.abs(flat(f(a, b))).max(), 1e-12)
        for x, y in ((a[p], b[r]), *([(a@q, b@q), (a+shift, b+shift)] if turn else [])):
            assert np.abs(flat(f(x, y))-want).max() <= 1e-5*top, f.__name__
    near(nearest(b@q+shift, a@q+shift), nearest(b, a), 1e-5)


@given(seeds, st.sampled_from([.01, .5, 3., 100.]))
def test_metrics_and_scale(seed, k):
    "A squared distance grows with the square; neighbours do not move"
    a, b = features(seed, 30), features(seed+1, 25)+.3
    near(frechet(k*a, k*b), k*k*frechet(a, b), 1e-6)
    assert prdc(k*a, k*b) == prdc(a, b)
    near(nearest(k*b, k*a), k*nearest(b, a), 1e-9)


@given(seeds, st.integers(6, 40), st.integers(6, 40))
def test_metrics_both_ways(seed, n, m):
    a, b = features(seed, n), features(seed+1, m)+.5
    near(frechet(a, b), frechet(b, a), 1e-6); near(kid(a, b), kid(b, a), 1e-9)
    near(frechet_statistics(statistics(a), statistics(b)), frechet(a, b), 1e-6)
    assert frechet(a, a) <= 1e-9*frechet(a, b+1) and frechet(a, b) >= 0
    one, two = prdc(a, b), prdc(b, a)
    assert one['precision'] == two['recall'] and one['recall'] == two['precision']
    assert all(v >= 0 for v in one.values()) and max(one[k] for k in ('precision', 'recall', 'coverage')) <= 1
    assert [prdc(a, a)[k] for k in ('precision', 'recall', 'coverage')] == [1, 1, 1]


@given(seeds, st.sampled_from([torch.float16, f32, f64]))
def test_metrics_of_any_type_are_those_of_float64(seed, dtype):
    a, b = features(seed, 20).to(dtype), features(seed+1, 20).to(dtype)
    for f in (frechet, kid): assert f(a, b) == f(a.double(), b.double()) == f(a.double().numpy(), b.double().numpy())
    assert prdc(a, b) == prdc(a.double(), b.double())


@given(seeds, st.integers(1, 30), st.integers(2, 6))
def test_classifier_metrics(seed, n, c):
    l, y = randn(seed, n, c)*3, torch.randint(c, (n,), generator=gen(seed))
    p, relabel = torch.randperm(n, generator=gen(seed)), torch.randperm(c, generator=gen(seed+1))
    for f in (accuracy, nll, brier, ece):
        v = f(l, y)
        near(f(l[p], y[p]), v); near(f(l+7., y), v, 1e-9); near(f(l.softmax(1), y), v, 1e-6)
        near(f(l[:, relabel], relabel.argsort()[y]), v)
    assert 0 <= accuracy(l, y) <= 1 and 0 <= brier(l, y) <= 2 and 0 <= ece(l, y) <= 1 and nll(l, y) >= 0
    assert 1-1e-9 <= inception_score(l.softmax(1)) <= c+1e-9
    near(inception_score(torch.eye(c, dtype=f64)), float(c)); near(inception_score(l[:1].softmax(1).repeat(4, 1)), 1.)


# records and tensors

scalars = st.none() | st.booleans() | st.integers(-10**30, 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
content = st.dictionaries(st.text().filter(lambda k: k != 'sha256'),
                          st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=12),
                          max_size=6)


@given(content, st.randoms())
@example({'': '', '\ud800': ['\x00', -0., 5e-324, 1e308, {}]}, __import__('random').Random(0))
def test_records_come_back(tmp_path_factory, record, random):
    "Any JSON, exactly; the canonical text knows nothing of the order of keys, and another layout is no damage"
    path = tmp_path_factory.getbasetemp()/'record.json'
    write_json(path, record)
    back = read_json(path)
    assert repr(sort(back)) == repr(sort(record))  # repr tells 1 from 1.0 and 0. from -0.
    items = list(record.items()); random.shuffle(items)
    assert canonical(dict(items)) == canonical(record) == canonical(back) == canonical(json.loads(canonical(record)))
    path.write_text(json.dumps(json.loads(path.read_text()), indent=random.choice([None, 4]), ensure_ascii=random.choice([True, False])),
                    errors='surrogatepass') if '\\ud' not in path.read_text() else None
    assert repr(sort(read_json(path))) == repr(sort(record))


def sort(v):
    return {k: sort(v[k]) for k in sorted(v)} if isinstance(v, dict) else [*map(sort, v)] if isinstance(v, list) else v


@given(st.dictionaries(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), st.integers(), max_size=5))
def test_keys_are_kept_or_refused(tmp_path_factory, record):
    "Keys become text as JSON says, and two that become one are an error, not a loss"
    path = tmp_path_factory.getbasetemp()/'keys.json'
    try: write_json(path, record)
    except ValueError as e: assert ';' in str(e) or ':' in str(e)
    else: assert sorted(read_json(path).values()) == sorted(record.values())


dtypes = [torch.float16, torch.bfloat16, f32, f64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]


@given(st.dictionaries(st.text(st.characters(codec='utf-8'), max_size=8).filter(lambda k: k != '__metadata__'),
                       st.tuples(st.sampled_from(dtypes), st.lists(st.integers(0, 3), max_size=3), seeds, st.booleans()), max_size=4))
def test_tensors_come_back(tmp_path_factory, spec):
    "Every type and shape, empty ones, scalars and transposed views, bit for bit and under their names"
    path = tmp_path_factory.getbasetemp()/'t.safetensors'
    tensors = {k: (randn(seed, *shape)*100).to(d) for k, (d, shape, seed, _) in spec.items()}
    tensors = {k: v.transpose(0, -1) if spec[k][3] and v.ndim > 1 else v for k, v in tensors.items()}
    back = read_tensors(path, write_tensors(path, tensors))
    assert back.keys() == tensors.keys()
    for k, v in tensors.items(): assert back[k].dtype == v.dtype and torch.equal(back[k], v)


# data sets and label sets

@given(arrays(np.uint8, st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(4, 5))))
def test_bytes_come_back(a):
    d = from_tensor(a)
    assert torch.equal(to_uint8(as_float(d.x)), d.x) and as_float(d.x).abs().max() <= 1 and (d.y == -1).all()


@st.composite
def classes(draw):
    counts = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    y = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    return y[torch.randperm(len(y), generator=gen(draw(seeds)))], counts


@given(classes(), seeds, st.floats(.01, 1.), st.floats(.01, 1.))
def test_label_sets(labels, seed, a, b):
    "Balanced, nested, sorted, without repeats, a function of the seed; what is hidden is the rest"
    y, counts = labels
    small, large = (subset(y, f, seed) for f in sorted((a, b)))
    assert set(small.tolist()) <= set(large.tolist()), 'nested'
    for f, i in zip(sorted((a, b)), (small, large)):
        assert torch.equal(i, i.unique()) and torch.equal(i, subset(y, f, seed))
        assert [int((y[i] == k).sum()) for k in range(len(counts))] == [max(1, int(f*n+.5)) for n in counts]
        h = hide(y, i)
        assert torch.equal(h[i], y[i]) and int((h >= 0).sum()) == len(i) and torch.equal((h >= 0).nonzero()[:, 0], i)
    assert torch.equal(subset(y, 1., seed), torch.arange(len(y)))


@given(classes(), seeds, st.integers(1, 20), st.sampled_from([0., .3, 1.]))
def test_semi_supervised_batches(labels, seed, size, share):
    y, counts = labels
    x, h = torch.arange(len(y)).float()[:, None], hide(y, subset(y, .3, seed))
    torch.manual_seed(seed % 10**6)
    xb, yb = semi(x, h, size, share, len(counts))()
    i = xb[:, 0].long()
    assert len(xb) == len(yb) == size and torch.equal(h[i], yb)
    if (h < 0).any(): assert int((yb >= 0).sum()) == (size if share == 1 else round(share*size))


@given(seeds, st.floats(0, 1), st.integers(0, 50))
def test_dropped_labels(seed, p, n):
    y = torch.arange(n)
    torch.manual_seed(seed % 10**6)
    d = drop(y, p)
    assert ((d == y) | (d == -1)).all() and d.dtype == y.dtype
    assert (drop(y, 0.) == y).all() and (drop(y, 1.) == -1).all()


@given(arrays(st.sampled_from([np.uint8, np.int64, np.float32]), st.tuples(st.integers(0, 3), st.integers(0, 3))), seeds)
def test_digests_name_their_content(a, seed):
    t = torch.from_numpy(a.copy())
    assert digest(t) == digest(a) == digest(t.clone())
    for o in (t.reshape(-1), t.double(), torch.cat([t, t])):
        assert (digest(o) == digest(t)) == (o.dtype == t.dtype and o.shape == t.shape)
    if t.numel():
        i, other = seed % t.numel(), t.clone().reshape(-1)
        other[i] = 78 if other[i] == 77 else 77
        assert digest(other.reshape(t.shape)) != digest(t)
    assert digest(t, t) != digest(t)


# losses and rates

@given(worlds())
def test_the_true_score_beats_others_at_a_point(w):
    "dsm is half a squared distance, summed over dimensions: nonnegative, and of zero noise at z = 0"
    p, b = w
    sde = p.sde
    assert dsm(p.score, sde, b) >= 0
    perfect = Score(lambda x, t: -b.z/bc(sde.sigma(rows(t, x)), x))
    assert dsm(perfect, sde, b) <= 1e-20*(1+b.z.square().sum())
    near(dsm(0*perfect, sde, b), b.z.flatten(1).square().sum(1).mean()/2, 1e-9)


@given(st.integers(1, 10_000), st.floats(1e-6, 10.), st.integers(1, 500))
def test_learning_rates(steps, lr, warm):
    r = Recipe(steps, lr, warm, decay=True)
    rates = [r.rate(i) for i in {0, steps//3, steps//2, steps-1, steps}]
    assert all(0 <= v <= lr*(1+1e-12) for v in rates) and r.rate(steps) <= 1e-15*lr
