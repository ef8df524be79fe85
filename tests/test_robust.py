"Each rival of self-calibration is one expression, and so one row of the experiments' table"
import pytest
import torch

from scoreguidance.guide import likelihood
from scoreguidance.matching import ce
from scoreguidance.methods import CLASSIFIER, Context, Method, cg
from scoreguidance.nets import Classifier, Gauss
from scoreguidance.robust import adversarial, gradient_penalty, jacobian, smooth, temper
from scoreguidance.score import Score, perturb
from scoreguidance.sde import VE


def lab(b, y): return b.rows(y >= 0), y[y >= 0]


LOSSES = {
    'smoothing': lambda f, w, b, y: smooth(f, *lab(b, y), .1),
    'adversarial': lambda f, w, b, y: adversarial(f, *lab(b, y), w.sde.sigma, 2),
    'jacobian': lambda f, w, b, y: ce(f, *lab(b, y)) + .1*jacobian(f, w.sde, b),
    'penalty': lambda f, w, b, y: ce(f, *lab(b, y)) + .1*gradient_penalty(f, w.sde, *lab(b, y)),
}


@pytest.fixture
def world():
    "A context, images, labels of half of them, and an untrained classifier"
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 1, 8, 8, generator=g), torch.arange(24) % 3
    y[12:] = -1
    torch.manual_seed(0)
    return Context(VE(.05, 10.), Score(lambda x, t: -x)), x, y, Classifier(Gauss((1, 8, 8), x), 3, 16, 1)


@pytest.mark.parametrize('name', LOSSES)
def test_a_rival_is_a_method(name, world):
    "Images, unlabelled rows, one training step, and a score that samples"
    (w, x, y, net), pull = world, lambda f, w, y, k: w.score + k*likelihood(temper(f, 2.), y)
    m = Method(CLASSIFIER, LOSSES[name], pull)
    f, b = m.kind.read(net, w.sde), perturb(w.sde, x)
    m.loss(f, w, b, y).backward()
    assert sum(p.grad.abs().sum() for p in net.parameters()) > 0
    full, plain = (m.score(f, w, y.clamp(min=0), k)(b.x, b.t) for k in (2., 0.))
    torch.testing.assert_close(plain, -b.x)
    half = likelihood(lambda x, t: f(x, t)/2, y.clamp(min=0))(b.x, b.t)
    torch.testing.assert_close(full - plain, 2*half, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', LOSSES)
def test_rows_do_not_meet(name, world):
    "A loss over all rows is the mean of the losses of its halves"
    (w, x, _, net), m, y = world, cg("a rival", LOSSES[name]), torch.arange(24) % 3
    torch.manual_seed(0)
    f, b = m.kind.read(net, w.sde), perturb(w.sde, x)
    loss = m.loss
    if name == 'jacobian':  # its random directions must be the same on both sides
        loss = lambda f, w, b, y: ce(f, b, y) + .1*jacobian(f, w.sde, b, 0)
    halves = [loss(f, w, b.rows(slice(i, i+12)), y[i:i+12]) for i in (0, 12)]
    torch.testing.assert_close(loss(f, w, b, y), sum(halves)/2, rtol=1e-4, atol=1e-5)
