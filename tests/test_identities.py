"The law of the package as identities: in exact worlds they hold to rounding, for points and for images"
import math

import pytest
import torch
import torch.nn.functional as F

from scoreguidance.calibrate import sc, sc_total
from scoreguidance.core import bc
from scoreguidance.dlsm import dlsm, dlsm_total
from scoreguidance.exact import GMM, Parzen, bayes
from scoreguidance.guide import evidence, given, joint, likelihood
from scoreguidance.matching import ce, dsm
from scoreguidance.score import Score, at, denoiser, fixed, from_denoiser, from_eps, grad, mix
from scoreguidance.sde import VE, VP, SubVP, perturb

f64 = torch.float64
sdes = [VE(.01, 50.), VP(), SubVP()]
each_sde = pytest.mark.parametrize('sde', sdes, ids=lambda s: type(s).__name__)
each_shape = pytest.mark.parametrize('shape', [(2,), (3, 8, 8)], ids=['points', 'images'])


class World:
    "Three classes, each a mixture of two, with unequal priors; a batch noised to random times"
    def __init__(self, sde, shape, n=30):
        torch.manual_seed(0)
        self.sde, prior = sde, [.2, .3, .5]
        self.ps = [GMM(sde, torch.randn(2, *shape, dtype=f64), .1+.2*k, [.3, .7]) for k in range(3)]
        self.clf = bayes(self.ps, prior)
        weight = torch.cat([w*torch.tensor([.3, .7], dtype=f64) for w in prior])
        self.all = GMM(sde, torch.cat([p.mean for p in self.ps]), torch.cat([p.var for p in self.ps]), weight)
        self.y = torch.arange(n) % 3
        x0 = torch.stack([p.sample(n) for p in self.ps])[self.y, torch.arange(n)]
        self.b = perturb(sde, x0, torch.linspace(.02, 1, n, dtype=f64))
        self.x, self.t = self.b.x, self.b.t

    def class_score(self, x, t):
        return torch.stack([p.score(x, t) for p in self.ps])[self.y, torch.arange(len(x))]


@pytest.fixture(params=[(s, shape) for s in sdes for shape in [(2,), (3, 8, 8)]],
                ids=lambda p: f"{type(p[0]).__name__}-{'points' if len(p[1]) == 1 else 'images'}")
def w(request):
    return World(*request.param)


def close(a, b, tol=1e-6):
    "Relative, in the norm of each row, so that no row hides behind another"
    a, b = (torch.as_tensor(v).detach().double() for v in (a, b))
    if not a.ndim: a, b = a[None], b[None]
    off = (a-b).flatten(1).norm(dim=1)/b.flatten(1).norm(dim=1) if a.ndim > 1 else (a-b).abs()/b.abs()
    assert off.max() < tol, f'off by {off.max():.1e}'


# guidance

def test_guidance_is_the_class_score(w):
    close((w.all.score + likelihood(w.clf, w.y))(w.x, w.t), w.class_score(w.x, w.t))


def test_evidence_is_the_unconditional_score(w):
    close(evidence(w.clf)(w.x, w.t), w.all.score(w.x, w.t))


def test_joint_is_likelihood_plus_evidence(w):
    parts = likelihood(w.clf, w.y) + evidence(w.clf)
    close(joint(w.clf, w.y)(w.x, w.t), parts(w.x, w.t))
    close(joint(w.clf, w.y)(w.x, w.t), w.class_score(w.x, w.t))


@pytest.mark.parametrize('scale', [0., 1., 2.5, lambda t: 1+t], ids=['0', '1', '2.5', 'w(t)'])
def test_cfg_is_cg(w, scale):
    cg = w.all.score + scale*likelihood(w.clf, w.y)
    close(mix(w.all.score, w.class_score, scale)(w.x, w.t), cg(w.x, w.t))


def test_a_common_term_moves_evidence_alone(w):
    moved = lambda x, t: w.clf(x, t) + x.sin().flatten(1).sum(1)[:, None]
    # where the class is certain its gradient is 0 exactly: measure against the class score
    close((w.all.score + likelihood(moved, w.y))(w.x, w.t), w.class_score(w.x, w.t))
    close(evidence(moved)(w.x, w.t), w.all.score(w.x, w.t) + w.x.cos())


# losses, on the same noise

def test_dlsm_of_the_exact_classifier_is_dsm_of_the_class_score(w):
    loss = dlsm(w.clf, w.all.score, w.sde, w.b, w.y)
    close(loss, dsm(w.class_score, w.sde, w.b))
    close(dlsm_total(w.clf, w.all.score, w.sde, w.b, w.y, 3.), ce(w.clf, w.b, w.y) + 3*loss)


def test_sc_of_the_exact_classifier_is_dsm_of_the_score(w):
    close(sc(w.clf, w.sde, w.b), dsm(w.all.score, w.sde, w.b))
    y = torch.where(torch.arange(len(w.y)) < 12, w.y, -1)
    first = w.b.rows(y >= 0)
    cross = ce(w.clf, first, y[:12])
    close(sc_total(w.clf, w.sde, w.b, y, 3.), cross + 3*dsm(w.all.score, w.sde, w.b))
    close(sc_total(w.clf, w.sde, w.b, y, 3., everything=False), cross + 3*dsm(w.all.score, w.sde, first))


def test_weight_multiplies_each_row(w):
    weight = lambda t: 1+t
    rows = torch.stack([dsm(w.all.score, w.sde, w.b.rows(slice(i, i+1))) for i in range(len(w.t))])
    close(dsm(w.all.score, w.sde, w.b, weight), (weight(w.t)*rows).mean())


def test_losses_reach_the_classifier_through_its_gradient(w):
    "The derivative of each loss by a scale of the logits, against a central difference"
    for loss in (lambda c: dlsm(c, w.all.score, w.sde, w.b, w.y), lambda c: sc(c, w.sde, w.b)):
        at_scale = lambda k: loss(lambda x, t: k*w.clf(x, t))
        k, h = torch.tensor(1.3, dtype=f64, requires_grad=True), 1e-4
        slope, = torch.autograd.grad(at_scale(k), k)
        close(slope, (at_scale(1.3+h)-at_scale(1.3-h))/(2*h))


# densities and scores

def test_closed_form_is_the_gradient(w):
    close(w.all.score(w.x, w.t), grad(w.all.logp)(w.x, w.t))
    close(w.clf(w.x, w.t).logsumexp(1), w.all.logp(w.x, w.t))


def test_eps_score_denoiser_round_trips(w):
    s, sde = w.all.score, w.sde
    eps = lambda x, t: -bc(sde.sigma(t), x)*s(x, t)
    close(from_eps(eps, sde)(w.x, w.t), s(w.x, w.t))
    # at full noise a denoiser's score is a small difference of large numbers: stay where 1e-6 can be asked for
    x, t = w.x[w.t < .7], w.t[w.t < .7]
    close(from_denoiser(denoiser(s, sde), sde)(x, t), s(x, t))
    d = denoiser(s, sde)
    close(denoiser(from_denoiser(d, sde), sde)(x, t), d(x, t))


def test_denoiser_is_the_posterior_mean(w):
    "One Gaussian: the conjugate posterior mean"
    p = w.ps[0]
    one = GMM(w.sde, p.mean[:1], .3)
    a, v = bc(w.sde.alpha(w.t), w.x), bc(w.sde.sigma(w.t), w.x)**2
    close(denoiser(one.score, w.sde)(w.x, w.t), (v*p.mean[:1] + .3*a*w.x)/(a**2*.3 + v))


def test_at(w):
    "One network of (x, sigma), here the exact denoiser of a Gaussian, under every schedule"
    m, v = w.ps[0].mean[:1], .3
    net = lambda x, sigma: (bc(sigma, x)**2*m + v*x)/(v + bc(sigma, x)**2)
    close(at(net, w.sde)(w.x, w.t), denoiser(GMM(w.sde, m, v).score, w.sde)(w.x, w.t))
    few = w.t < .7
    close(from_denoiser(at(net, w.sde), w.sde)(w.x[few], w.t[few]), GMM(w.sde, m, v).score(w.x[few], w.t[few]))
    close(at(net, w.sde)(w.x, .4), at(net, w.sde)(w.x, torch.full_like(w.t, .4)))


def test_mix_conventions(w):
    u, c, pull = w.all.score, w.class_score, likelihood(w.clf, w.y)
    close(mix(u, c, 0)(w.x, w.t), u(w.x, w.t))
    close(mix(u, c, 1)(w.x, w.t), c(w.x, w.t))
    close(mix(u, c, 3)(w.x, w.t), 3*c(w.x, w.t) - 2*u(w.x, w.t))  # (1+w')c - w'u with w' = 2
    close(mix(u, c, 4)(w.x, w.t), (u + 4*pull)(w.x, w.t))


def test_given_and_fixed(w):
    net = lambda x, t, y: w.all.score(x, t)*bc(y.to(x), x)
    close(given(net, w.y+1)(w.x, w.t), net(w.x, w.t, w.y+1))
    k = torch.ones((), dtype=f64, requires_grad=True)
    s = Score(lambda x, t: k*w.all.score(x, t))
    assert s(w.x, w.t).requires_grad and not fixed(s)(w.x, w.t).requires_grad
    close(fixed(s)(w.x, w.t), s(w.x, w.t))


# Parzen: three ways to one field

def attention(data, sde, x, t):
    "The score written out: queries against the data with their squared norms as one more coordinate"
    a, v = sde.alpha(t)[:, None], sde.sigma(t)[:, None]**2
    k, q = data.flatten(1), x.flatten(1)
    keys = torch.cat([k, k.square().sum(1, keepdim=True)], 1)
    query = torch.cat([a*q/v, -a**2/(2*v)], 1)
    mean = F.scaled_dot_product_attention(query[None], keys[None], k[None], scale=1.)[0]
    return ((a*mean-q)/v).reshape(x.shape)


@each_sde
@pytest.mark.parametrize('sigma', [.01, .05, .3, .9])
@pytest.mark.parametrize('shape', [(2,), (3, 32, 32)], ids=['2', '3072'])
def test_parzen(sde, sigma, shape):
    "At noised data, and halfway between two points of the data, where the weights are a close call"
    g = torch.Generator().manual_seed(0)
    data = torch.randn(60, *shape, generator=g, dtype=f64)
    t = sde.t_of(torch.full((40,), sigma, dtype=f64))
    z = torch.randn(40, *shape, generator=g, dtype=f64)
    start = torch.cat([data[:20], (data[20:40]+data[40:])/2])
    z[20:] *= .1
    x = bc(sde.alpha(t), data)*start + sigma*z
    p, m = Parzen(sde, data), GMM(sde, data)
    close(p.score(x, t), m.score(x, t))
    close(attention(data, sde, x, t), m.score(x, t))
    close(grad(p.logp)(x, t), m.score(x, t))
    close(p.logp(x, t), m.logp(x, t))


@each_sde
def test_parzen_of_uncentred_data(sde):
    "Bytes as numbers, far from the origin: centring keeps the digits"
    data = torch.randint(0, 256, (50, 3, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    b = perturb(sde, data, torch.full((50,), .5, dtype=f64))
    close(Parzen(sde, data).score(b.x, b.t), GMM(sde, data).score(b.x, b.t))


@each_sde
@each_shape
def test_one_point(sde, shape):
    "The score of a single point is the pull to it, and its denoiser knows the point"
    x0 = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=f64)
    b = perturb(sde, x0.expand(9, *shape), torch.linspace(.02, .9, 9, dtype=f64))
    for p in (Parzen(sde, x0), GMM(sde, x0)):
        close(p.score(b.x, b.t), -b.z/bc(sde.sigma(b.t), b.x))
        close(p.logp(b.x, b.t), -(b.z.flatten(1)**2).sum(1)/2
              - math.prod(shape)*(sde.sigma(b.t)*math.sqrt(2*math.pi)).log())
    assert dsm(GMM(sde, x0).score, sde, b) < 1e-12


def test_parts_of_a_batch_keep_its_weights():
    "Cut for two processes or two slices, every row of the data still counts once"
    from scoreguidance.calibrate import by_row
    from scoreguidance.engine import batches, part
    from scoreguidance.nets import Classifier, Gauss
    torch.manual_seed(0)
    x, y, sde = torch.randint(256, (100, 1, 8, 8), dtype=torch.uint8), torch.full((100,), -1), VE(.05, 10.)
    y[:10] = torch.arange(10) % 2
    b, yb = batches(x, y, sde, 16, .5, flip=False)()
    net = Classifier(Gauss((1, 8, 8)), 2)
    def slope(ps):
        net.zero_grad()
        sum(sc_total(at(net, sde), sde, *p)/len(ps) for p in ps).backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])
    parts = [part(b, yb, i, 2) for i in range(2)]
    assert [by_row(v)(None)[[0, -1]].tolist() for _, v in parts] == [pytest.approx([.2, 1.8])]*2
    whole = slope([(b, yb)])
    assert (whole-slope(parts)).norm() < 1e-5*whole.norm()
