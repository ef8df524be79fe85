"""A CUDA device that is only pretended: every tensor says it lives there, none has values, and an operation on two devices raises.

So a tensor left on the host, or a value that is read back, fails here on any machine. Gradients need a real device's engine and are taken to be
of their input's shape: what is tried is every forward pass of every row, its score, and the walks.
"""
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scoreguidance import core, images
from scoreguidance.cifar import SMOKE
from scoreguidance.core import tell
from scoreguidance.data import as_float
from scoreguidance.engine import runner
from scoreguidance.experiment import World
from scoreguidance.generate import heun_walk, memory_walk, pc_walk
from scoreguidance.methods import METHODS
from scoreguidance.nets import Gauss
from scoreguidance.score import at, denoiser, from_denoiser, perturb
from scoreguidance.sde import VE
from scoreguidance.truth import Images
from scoreguidance.world import makers, unconditional

n, c = 12, 3


@contextmanager
def pretended(monkeypatch):
    "Everything is made on a device that is not there"
    monkeypatch.setattr(torch.nn.Module, 'to', lambda s, *a, **kw: s)              # modules are born there; fake ones cannot be moved
    monkeypatch.setattr(core, '_extremes', lambda v: (1., 1.))                     # input checks see nothing amiss
    monkeypatch.setattr(torch.autograd, 'grad', lambda out, x, *a, **kw: tuple(torch.empty_like(v) for v in (x if isinstance(x, (tuple, list)) else [x])))
    images._band.cache_clear()                                                     # matrices of other devices
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device('cuda'): yield
    images._band.cache_clear()


def world():
    b, dev, sde = SMOKE, torch.device('cuda'), VE(SMOKE.lo, SMOKE.hi)
    common = SimpleNamespace(logp=lambda x, sigma: -x.flatten(1).square().sum(1)/2)
    x, y = torch.zeros(n, 3, 8, 8, dtype=torch.uint8), tell(torch.zeros(n, dtype=torch.long), bounds=(-1, c-1), labelled=slice(n//2))
    clf, cond = makers(b, common, .5, dev)
    w = World(b, sde, Gauss((1,)), x, y, x, y, c, clf, cond, cache(lambda: Images(sde, x, y)), .5)
    net = runner(unconditional(w).eval().requires_grad_(False))
    return World(b, sde, w.gauss, x, y, x, y, c, clf, cond, w.truth, .5, score=from_denoiser(at(net, sde), sde))


@pytest.mark.parametrize('name', METHODS)
def test_a_row_stays_on_the_device(name, monkeypatch):
    with pretended(monkeypatch):
        w, m = world(), METHODS[name]
        f = m.kind.read(runner(m.net(w)), w.sde) if m.kind.spends else None
        known, b = w.context(ema=f, weak=f), perturb(w.sde, as_float(w.x), torch.full((n,), .5))
        if m.loss: assert m.loss(f, known, b, w.y).device.type=='cuda'
        if name != 'CG-exact':                                                      # its world is built from values
            asked = tell(torch.zeros(n, dtype=torch.long), bounds=(0, c-1))
            assert m.score(f, known, asked, 2.)(b.x, b.t).device.type=='cuda'


@pytest.mark.parametrize('walk', [heun_walk, memory_walk, pc_walk])
def test_a_walk_stays_on_the_device(walk, monkeypatch):
    way = walk(VE(SMOKE.lo, SMOKE.hi), 3)                                          # a grid of times is made on the host, once
    with pretended(monkeypatch):
        w, x = world(), torch.empty(n, 3, 8, 8)
        x, ts = way.begin(x) if way.begin else x, torch.empty(len(way.ts))         # times on the device, as `sample` has them
        for t, u in zip(ts, ts[1:]): x = way.step(w.score, w.sde, x, t, u, torch.empty_like)
        x = x[0] if isinstance(x, tuple) else x
        assert denoiser(w.score, w.sde)(x, torch.full((n,), .1)).device.type=='cuda'


def test_what_is_left_on_the_host_is_found(monkeypatch):
    "The test's own test"
    with pretended(monkeypatch):
        w = world()
        with pytest.raises(RuntimeError, match='device'): w.score(torch.empty(n, 3, 8, 8), torch.full((n,), .5)) + torch.zeros(n, 3, 8, 8, device='cpu')
        with pytest.raises(Exception, match='_local_scalar_dense'): torch.empty(()).item()
