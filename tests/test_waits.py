"Nothing waits: a sampler's step and a step of training read no value back from the device and bring none to it"
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scoreguidance.calibrate import sc_total, semi
from scoreguidance.consistency import consistency_total
from scoreguidance.core import bounds, check_t, check_x, check_y
from scoreguidance.dlsm import dlsm_total
from scoreguidance.engine import Recipe, batches, part, train
from scoreguidance.guide import ce, drop, evidence, given, joint, labelled, likelihood
from scoreguidance.images import EDM, Energy, ImageClassifier, NCSNpp, Shape
from scoreguidance.matching import dsm
from scoreguidance.nets import Classifier, Denoiser, Gauss
from scoreguidance.robust import adversarial, gradient_penalty, jacobian, smooth
from scoreguidance.sample import ancestral, ddim, em, heun, langevin, ode, pc, prior, reverse_diffusion, sample
from scoreguidance.score import at, from_denoiser, mix, perturb
from scoreguidance.sde import VE, VP, SubVP, ddpm
from scoreguidance.steps import churn, heun_sde
from scoreguidance.selflearn import fixmatch
from scoreguidance.train import start
from scoreguidance.unet import UNet


class Waits(TorchDispatchMode):
    "Counts what makes the host wait for the device: values read, and values brought from the host"
    reads = {'_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'is_nonzero', '_unique2', 'unique_dim', 'unique_consecutive'}
    indexed = {'index', 'index_put', 'index_put_', '_index_put_impl_'}

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split('.')[0]
        masked = name in self.indexed and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name in self.reads or masked: self.seen.append('read: '+name)
        if name=='lift_fresh': self.seen.append('brought: '+name)
        return func(*args, **(kwargs or {}))


class Alike(torch.nn.Module):
    "A network of (x, sigma, y) for rows of two numbers, with and without a label"
    def __init__(self): super().__init__(); self.net = Denoiser(Gauss((2,)), 16, 1, classes=3)
    def forward(self, *a): return self.net(*a)


n, y = 8, torch.arange(8)%3
SDES = dict(ve=VE(), vp=VP(), subvp=SubVP(), ddpm=ddpm(100))
STEPS = dict(em=em, ode=ode, ddim=ddim, heun=heun, ancestral=ancestral, reverse=reverse_diffusion, pc=pc, churn=churn, sde=heun_sde,
             langevin=partial(langevin, norm=torch.mean))


def scores(sde):
    net, f = Alike(), at(Classifier(Gauss((2,)), 3, 16, 1), sde)
    s = from_denoiser(at(net, sde), sde)
    def cond(y): return from_denoiser(at(given(net, y), sde), sde)
    return {'guided': s + 2.*likelihood(f, y), 'free': mix(cond(-torch.ones_like(y)), cond(y), 3.),
            'scheduled': s + (lambda t: 1+t)*likelihood(f, y), 'joint': joint(f, y), 'evidence': evidence(f) + likelihood(f, y),
            'null': cond(None), 'given': cond(y)}


def test_a_counter_counts():
    with Waits() as w:
        x = torch.ones(4)
        x.sum().item(); x[x>0]; bool(x.sum()>0); torch.tensor(2.); x.nonzero(); x.tolist()
    assert len(w.seen)==5 and sum(s.startswith('brought') for s in w.seen)==1


@pytest.mark.parametrize('step', STEPS)
@pytest.mark.parametrize('sde', SDES)
def test_sampler(sde, step):
    sde = SDES[sde]
    for name, s in scores(sde).items():
        walk = sample(STEPS[step], s, sde, prior(sde, torch.zeros(n, 2)), torch.linspace(1, .1, 5))
        next(walk)                                      # labels, grid and start are looked at here
        for i in range(3):
            with Waits() as w: next(walk)
            assert not w.seen, f"{name}, step {i+1}: {w.seen}"


def diffusers_score():
    "A network of diffusers with classes, bound by the bridge"
    diffusers = pytest.importorskip('diffusers')
    from scoreguidance.bridge import from_diffusers
    net = diffusers.UNet2DModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
                                down_block_types=('DownBlock2D',)*2, up_block_types=('UpBlock2D',)*2, num_class_embeds=3)
    return from_diffusers(net, diffusers.DDPMScheduler(), y)


def picture_score(net):
    return from_denoiser(at(given(net, y.tolist()), VE()), VE()), VE()


WORLDS = dict(unet=lambda: picture_score(UNet(3, classes=3)), ncsnpp=lambda: picture_score(EDM(NCSNpp(Shape(8, (1,), 1, (), classes=3)))),
              diffusers=diffusers_score)


@pytest.mark.parametrize('world', WORLDS)
def test_image_networks(world):
    "Labels may be a list: they are read where they are bound"
    s, sde = WORLDS[world]()
    walk = sample(heun, s, sde, prior(sde, torch.zeros(n, 3, 8, 8)), torch.linspace(1, .1, 4))
    next(walk)
    with Waits() as w: next(walk)
    if world=='diffusers': w.seen = [v for v in w.seen if v.startswith('read')]     # its own embedding brings a number along
    assert not w.seen, w.seen


def losses(net, f, sde):
    s, other = from_denoiser(at(net, sde), sde), from_denoiser(at(Denoiser(Gauss((2,)), 16, 1), sde), sde)
    g = at(f, sde)
    def cond(y): return from_denoiser(at(given(net, y), sde), sde)
    return {'dsm': lambda b,y: dsm(s, sde, b), 'weighted': lambda b,y: dsm(s, sde, b, lambda t: 1/t),
            'conditional': lambda b,y: dsm(cond(y), sde, b), 'free': lambda b,y: dsm(cond(drop(y)), sde, b),
            'ce': lambda b,y: ce(g, *labelled(b, y)), 'sc': lambda b,y: sc_total(g, sde, b, y),
            'sc labelled': lambda b,y: sc_total(g, sde, b, y, everything=False),
            'dlsm': lambda b,y: dlsm_total(g, other, sde, *labelled(b, y)), 'smooth': lambda b,y: smooth(g, *labelled(b, y)),
            'consistency': lambda b,y: consistency_total(g, g, sde, b, y), 'fixmatch': lambda b,y: fixmatch(g, g, sde, b),
            'jacobian': lambda b,y: jacobian(g, sde, b), 'penalty': lambda b,y: gradient_penalty(g, sde, *labelled(b, y)),
            'adversarial': lambda b,y: adversarial(g, *labelled(b, y), lambda t: .3*sde.sigma(t), 2)}


@pytest.mark.parametrize('share', [.5, 1.])
@pytest.mark.parametrize('sde', SDES)
def test_losses(sde, share):
    "From the draw of a batch to its gradient"
    sde, y = SDES[sde], torch.arange(40)%4-1
    net, f = Alike(), Classifier(Gauss((2,)), 3, 16, 1)
    draw = semi(torch.randn(40, 2), y, 8, share, 3)
    for name, loss in losses(net, f, sde).items():
        for _ in range(2):                              # the first may look at what is given once and for all
            with Waits() as w:
                x, yb = draw()
                loss(perturb(sde, x), yb).backward()
        assert not w.seen, f"{name}: {w.seen}"


def image_world(kind):
    shape = Shape(8, (1,), 1, ())
    if kind=='score':
        net = EDM(NCSNpp(Shape(8, (1,), 1, (), classes=3)))
        return net, lambda f,b,y: dsm(from_denoiser(at(given(f, drop(y)), VE()), VE()), VE(), b)
    net = Energy(ImageClassifier(3, shape))
    if kind=='sc': return net, lambda f,b,y: sc_total(at(f, VE()), VE(), b, y)
    return net, lambda f,b,y: ce(at(f, VE()), *labelled(b, y))


@pytest.mark.parametrize('kind, slices, floats', [('score', 1, False), ('sc', 2, False), ('ce', 1, True)])
def test_engine(kind, slices, floats):
    "Between looks the loop of notebook 15b reads nothing"
    y = torch.arange(24)%4-1
    net, loss = image_world(kind)
    x = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8)
    batch = batches(x.float()/127.5-1 if floats else x, y, VE(), 8, .5)
    steps = train(start(net), loss, batch, Recipe(6, look=6, slices=slices))
    next(steps)                                         # what is given once and for all is looked at here
    for _ in range(4):
        with Waits() as w: next(steps)
        assert not [v for v in w.seen if v.startswith('read')]


def test_what_is_written_to_is_read_again():
    x, y, t = torch.zeros(4, 2), torch.zeros(4).long(), torch.full((4,), .5)
    check_x(x); check_y(y, 3); check_t(t)
    x[1] = float('nan'); y[2] = 3; t[3] = 2.
    with pytest.raises(ValueError, match='first: row 1'): check_x(x)
    with pytest.raises(ValueError, match='0..2, got 0..3'): check_y(y, 3)
    with pytest.raises(ValueError, match='sde.t_of'): check_t(t)


def test_what_is_told_holds():
    "Rows of a batch lie within the bounds they were told, labelled rows come first, through every part of it"
    x, y = torch.randn(40, 2), torch.arange(40)%4-1
    for share in (.5, 1.):
        xb, yb = semi(x, y, 8, share, 3)()
        b = perturb(VE(), xb)
        for v in (xb, yb, b.t, drop(yb), labelled(b, yb)[1], *(part(b, yb, i, 2)[1] for i in (0, 1))):
            lo, hi = bounds(v)
            assert lo<=v.min() and v.max()<=hi
        for i in (0, 1):
            rows, labels = part(b, yb, i, 2)
            got, kept = labelled(rows, labels)
            assert torch.equal(kept, labels[labels>=0]) and torch.equal(got.x, rows.x[labels>=0])
