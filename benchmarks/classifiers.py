"""The step of a DLSM and of an SC classifier, against the same two losses added by hand, and beside cross-entropy alone.

Both losses differentiate a gradient: three passes more than cross-entropy's three, if the forward pass is shared. That is the floor. The
unconditional score of DLSM is a closed form here, so that the cost is the classifier's own. All rows are labelled."""
import copy

import torch
from turns import agreement, costs, faster, peak_mb, seconds

from scoreguidance.calibrate import sc, sc_total
from scoreguidance.dlsm import dlsm, dlsm_total
from scoreguidance.images import Energy, ImageClassifier, ResNet, Round, Shape
from scoreguidance.matching import ce
from scoreguidance.score import Score, at, grad, perturb
from scoreguidance.sde import VE
from scoreguidance.train import average, clipped_step, start

peer = 'the sum of the two losses, each with a forward pass of its own'
sde = VE(.01, 50.)
world = Score(grad(at(Round().logp, sde)))
LOSSES = {'CE': lambda f, b, y: ce(f, b, y),
          'CE+SC': lambda f, b, y: sc_total(f, sde, b, y),
          'CE+DLSM': lambda f, b, y: dlsm_total(f, world, sde, b, y)}
SEPARATE = {'CE+SC': lambda f, b, y: ce(f, b, y) + sc(f, sde, b),
            'CE+DLSM': lambda f, b, y: ce(f, b, y) + dlsm(f, world, sde, b, y)}


def build(name, tiny):
    "A classifier none of whose parts starts at zero"
    torch.manual_seed(0)
    shape = Shape(width=64, blocks=3, dropout=0.) if not tiny else Shape(width=16, mult=(1, 2), blocks=1, dropout=0.)
    clf = ImageClassifier(10, shape) if name == 'encoder' else ResNet(10) if not tiny else ResNet(10, 16, (1, 1))
    for p in clf.parameters():
        if p.ndim > 1 and p.std() < 1e-3: p.data = .3*torch.randn_like(p)/p[0].numel()**.5
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


def finish(clf):
    "The end of a training step: clipping, fused Adam, foreach moving average"
    s = start(clf)
    s.opt.param_groups[0]['lr'] = 1e-6

    def end():
        clipped_step(s.opt, 1.)
        average(s.ema, s.net, .999)
    return end


class Heard(torch.nn.Module):
    "A float32 embedding of the noise level, for a float64 network"
    def __init__(self, embed):
        super().__init__()
        self.embed = embed
    def forward(self, x, sigma, *y): return self.embed(x.float(), sigma.float(), *y).double()


def truth(clf, heard):
    "The classifier in float64; with `heard` it is told the noise level as the float32 classifier is"
    c = copy.deepcopy(clf).double()
    home, mine = (v.clf.encoder if hasattr(v.clf, 'encoder') else v.clf for v in (c, clf))
    if heard: home.embed = Heard(copy.deepcopy(mine.embed))
    return c


def measured(name, tiny, loss, b, y):
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
    memory = {k: peak_mb(measured(name, tiny, f, b, y)) for k, f in LOSSES.items()}
    clf, wide, agree, plain = build(name, tiny), type(b)(*(v.double() for v in b)), [], {}
    for k, f in LOSSES.items():
        g = gradient(clf, f, b, y)
        h, plain[k] = (((g - t).norm()/t.norm()).item() for t in (gradient(truth(clf, v), f, wide, y) for v in (True, False)))
        agree.append(agreement(f'{name}, gradient of {k} against float64', h, 1e-4))
    end, losses, t = finish(clf), {**LOSSES, **{f'{k}, separate': f for k, f in SEPARATE.items()}}, []
    for r in range(rounds + 1):
        t.append({k: (seconds(lambda f=f: gradient(clf, f, b, y)), seconds(end)) for k, f in list(losses.items())[::1 - r%2*2]})
        print(f'  {name}, round {r} of {rounds}', flush=True)
    passes_of, how = (lambda k: [r[k][0] for r in t[1:]]), dict(per=n/1e3, unit='ms per image')
    whole = lambda k: [sum(r[k]) for r in t[1:]]
    twice, ends = [2*v for v in passes_of('CE')], [r['CE'][1] for r in t[1:]]
    claims = []
    for k in SEPARATE:
        claims += [faster(f'{name}: {k}, whole step', whole(k), whole(f'{k}, separate'), [a + b for a, b in zip(twice, ends)], **how),
                   faster(f'{name}: {k}, passes only', passes_of(k), passes_of(f'{k}, separate'), twice, target=None, **how),
                   costs(f'{name}: {k}, whole step, beside cross-entropy', whole(k), whole('CE'), **how),
                   costs(f'{name}: {k}, peak memory beyond the weights, beside cross-entropy', [memory[k]], [memory['CE']], unit='MiB', kind='memory')]
    return claims, agree, sum(p.numel() for p in clf.parameters()), plain


def row(tiny, rounds):
    got = {name: one(name, tiny, rounds) for name in ('encoder', 'ResNet-18')}
    worst = max((e, name, k) for name, v in got.items() for k, e in v[3].items())
    worst = f'{worst[1]}, {worst[2]}', worst[0], got[worst[1]][3]['CE']
    return dict(
        what="CE+DLSM and CE+SC classifiers, NCSN++'s encoder (the `small` shape) and ResNet-18, float32, all rows labelled", peer=peer,
        setting=dict(batch=4 if not tiny else 2, image=32 if not tiny else 8, parameters={k: v[2] for k, v in got.items()},
                     own_embedding={k: v[3] for k, v in got.items()}),
        claims=[c for v in got.values() for c in v[0]], agreement=[a for v in got.values() for a in v[1]],
        floor='twice the passes of cross-entropy, six for its three, and the same optimiser',
        note='A whole step is passes, clipping, fused Adam and the moving average. In rows "beside cross-entropy" the peer is a step of '
             'cross-entropy alone, which does less. The float64 network is told the '
             'noise level by the float32 embedding: the rounding of its sines of log sigma, which all losses share, makes '
             f'errors of up to {worst[1]:.1e} otherwise ({worst[0]}; cross-entropy alone {worst[2]:.1e}).')
