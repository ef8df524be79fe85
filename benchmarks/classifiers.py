"""The step of a DLSM and of an SC classifier, against the cross-entropy step of the same classifier.

Both losses differentiate a gradient: three passes more than cross-entropy's three, if the forward pass is shared. The
unconditional score of DLSM is a closed form here, so that the cost is the classifier's own. All rows are labelled."""
import copy

import torch
from turns import agreement, costs, peak_mb, turns

from scoreguidance.calibrate import sc, sc_total
from scoreguidance.dlsm import dlsm_total
from scoreguidance.engine import clipped_step
from scoreguidance.images import Energy, ImageClassifier, ResNet, Round, Shape
from scoreguidance.matching import ce
from scoreguidance.score import Score, at, grad, perturb
from scoreguidance.sde import VE
from scoreguidance.train import average, start

peer = 'the cross-entropy step of the same classifier'
sde = VE(.01, 50.)
world = Score(grad(at(Round().logp, sde)))
LOSSES = {'CE': lambda f, b, y: ce(f, b, y),
          'CE+SC': lambda f, b, y: sc_total(f, sde, b, y),
          'CE+DLSM': lambda f, b, y: dlsm_total(f, world, sde, b, y)}
SEPARATE = {'CE+SC': lambda f, b, y: ce(f, b, y) + sc(f, sde, b)}


def build(name, tiny):
    "A classifier none of whose parts starts at zero"
    torch.manual_seed(0)
    shape = Shape(dropout=0.) if not tiny else Shape(width=16, mult=(1, 2), blocks=1, dropout=0.)
    clf = ImageClassifier(10, shape) if name == 'encoder' else ResNet(10) if not tiny else ResNet(10, 16, (1, 1))
    for p in clf.parameters(): p.data.add_(.02*torch.randn_like(p)) if p.ndim > 1 else None
    return Energy(clf).to(memory_format=torch.channels_last)


def batch(n, size):
    g = torch.Generator().manual_seed(1)
    x = .5*torch.randn(n, 3, size, size, generator=g).contiguous(memory_format=torch.channels_last)
    t = torch.linspace(.1, .9, n)
    return perturb(sde, x, t, randn=lambda x: torch.randn(x.shape, generator=g)), torch.arange(n)%10


def gradient(clf, loss, b, y):
    "Forward and backward passes; the gradient of all weights"
    clf.zero_grad()
    loss(at(clf, sde), b, y).backward()
    return torch.cat([p.grad.flatten() for p in clf.parameters() if p.grad is not None])


def steps(clf, b, y, losses):
    "Whole training steps: passes, clipping, Adam, moving average"
    s = start(clf)
    s.opt.param_groups[0]['lr'] = 1e-6

    def step(loss):
        clf.zero_grad()
        loss(at(clf, sde), b, y).backward()
        clipped_step(s.opt, 1.)
        average(s.ema, s.net, .999)
    return {k: (lambda f=f: step(f)) for k, f in losses.items()}


def passes(name, tiny, loss, b, y):
    "What `peak_mb` measures: the passes of one loss, warmed up on a small classifier"
    def prepare():
        gradient(build(name, True), loss, *batch(2, 8))
        clf = build(name, tiny)
        return lambda: gradient(clf, loss, b, y)
    return prepare


def one(name, tiny, rounds):
    "Claims and agreements of one classifier"
    n, size = (4, 32) if not tiny else (2, 8)
    b, y = batch(n, size)
    memory = {k: peak_mb(passes(name, tiny, f, b, y)) for k, f in LOSSES.items()}
    clf = build(name, tiny)
    exact, wide, agree = copy.deepcopy(clf).double(), type(b)(*(v.double() for v in b)), []
    for k, f in LOSSES.items():
        g, truth = gradient(clf, f, b, y), gradient(exact, f, wide, y)
        agree.append(agreement(f'{name}, gradient of {k} against float64', (g - truth).norm()/truth.norm(), 1e-4))
    del exact
    run = {k: (lambda f=f: gradient(clf, f, b, y)) for k, f in LOSSES.items()}
    run |= {f'{k}, separate': (lambda f=f: gradient(clf, f, b, y)) for k, f in SEPARATE.items()}
    run |= {f'{k}, step': f for k, f in steps(clf, b, y, LOSSES).items()}
    t, how = turns(run, rounds), dict(per=n/1e3, unit='ms per image')
    claims = [costs(f'{name}: {k}, whole step', t[f'{k}, step'], t['CE, step'], 2.4, **how) for k in list(LOSSES)[1:]]
    claims += [costs(f'{name}: {k}, passes only', t[k], t['CE'], **how) for k in [*LOSSES, *(f'{k}, separate' for k in SEPARATE)][1:]]
    claims += [costs(f'{name}: {k}, peak memory beyond the weights', [memory[k]], [memory['CE']], 2.3, unit='MiB',
                     kind='memory') for k in list(LOSSES)[1:]]
    print(f'  {name} done', flush=True)
    return claims, agree, sum(p.numel() for p in clf.parameters())


def row(tiny, rounds):
    got = {name: one(name, tiny, rounds) for name in ('encoder', 'ResNet-18')}
    return dict(
        what="CE+DLSM and CE+SC classifiers: NCSN++'s encoder and ResNet-18, float32, all rows labelled", peer=peer,
        setting=dict(batch=4 if not tiny else 2, image=32 if not tiny else 8, parameters={k: v[2] for k, v in got.items()}),
        claims=[c for v in got.values() for c in v[0]], agreement=[a for v in got.values() for a in v[1]],
        note='A whole step is passes, clipping, fused Adam and the moving average. "Separate" asks the network twice, once '
             'for the labels and once for the gradient, as `ce` and `sc` do when added by hand.')
