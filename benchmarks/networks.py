"""NCSN++ of CIFAR-10, forward and training step, against diffusers' UNet2DModel of the same shape.

A round is one forward pass and one training step of each; dropout is 0. After the same backward pass a step is finished
in two ways: by clipping, fused Adam and a foreach moving average, and, for the peer, also as diffusers' own training
example does it (clipping, AdamW by default, its EMAModel)."""
import copy
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch.utils.flop_counter import FlopCounterMode
from turns import agreement, faster, seconds

from scoreguidance.images import Shape, from_reference, full
from scoreguidance.train import average

peer = f'UNet2DModel of diffusers {diffusers.__version__}, same shape'


def theirs(s, size):
    "diffusers' own NCSN++, as its published configuration has it for CIFAR-10"
    down, up = ['SkipDownBlock2D']*len(s.mult), ['SkipUpBlock2D']*len(s.mult)
    for i in s.attention: down[i], up[-1-i] = 'AttnSkipDownBlock2D', 'AttnSkipUpBlock2D'
    return diffusers.UNet2DModel(
        sample_size=size, in_channels=3, out_channels=3, layers_per_block=s.blocks, block_out_channels=tuple(s.cs),
        down_block_types=tuple(down), up_block_types=tuple(up), time_embedding_type='fourier', freq_shift=0,
        mid_block_scale_factor=2**.5, norm_eps=1e-6, norm_num_groups=None, attention_head_dim=None, act_fn='silu')


def our_finish(net):
    "Clip, fused Adam, foreach moving average"
    opt, ema = torch.optim.Adam(net.parameters(), 1e-4, fused=True), copy.deepcopy(net).requires_grad_(False)

    def finish():
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
        opt.step()
        average(ema, net, .999)
    return finish


def their_finish(net):
    "As in diffusers' example of unconditional training"
    opt, ema = torch.optim.AdamW(net.parameters(), 1e-4), EMAModel(net.parameters(), decay=.999, use_ema_warmup=True)

    def finish():
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
        opt.step()
        ema.step(net.parameters())
    return finish


class Contender:
    "A network and the ways its step is finished"
    def __init__(self, net, call, batch, **finish):
        self.net, self.call, self.batch, self.finish = net, call, batch, {k: f(net) for k, f in finish.items()}

    @torch.no_grad()
    def forward(self):
        self.net.eval()
        self.call(self.net, *self.batch[:2])

    def passes(self):
        self.net.train().zero_grad()
        x, sigma, z = self.batch
        (self.call(self.net, x, sigma) - z).square().sum((1, 2, 3)).mean().backward()

    def round(self): # seconds of everything
        t = {'forward': seconds(self.forward), 'backward': seconds(self.passes)}
        return t | {k: t['backward'] + seconds(f) for k, f in self.finish.items()}

    def work(self): # parameters, floating point operations per image
        x, sigma, _ = self.batch
        with FlopCounterMode(display=False) as m, torch.no_grad(): self.call(self.net, x[:1], sigma[:1])
        return dict(parameters=sum(p.numel() for p in self.net.parameters()), forward_flops=m.get_total_flops())


class Convolutions:
    "The convolutions of a network alone, each with the input it had"
    def __init__(self, net, x, sigma):
        self.seen, hooks = [], []
        for m in net.modules():
            if isinstance(m, torch.nn.Conv2d): hooks.append(m.register_forward_hook(lambda m, i, o: self.seen.append((m, i[0].detach(), torch.ones_like(o)))))
        with torch.no_grad(): net.eval()(x, sigma)
        for h in hooks: h.remove()

    @torch.no_grad()
    def forward(self):
        for m, x, _ in self.seen: torch.nn.functional.conv2d(x, m.weight, m.bias, m.stride, m.padding)

    def passes(self):
        for m, x, g in self.seen:
            out = torch.nn.functional.conv2d(x.requires_grad_(), m.weight, m.bias, m.stride, m.padding)
            torch.autograd.grad(out, [x, m.weight], g)


def golden():
    "Our network with a published network's weights, against that network's stored outputs"
    z = np.load(Path(__file__).resolve().parent.parent/'tests'/'golden'/'ncsnpp_tiny.npz')
    z = {k: torch.from_numpy(v) for k, v in z.items()}
    net = from_reference({k[6:]: v for k, v in z.items() if k.startswith('state/')})
    with torch.no_grad(): return ((net(z['x'], z['sigma']) - z['output']).norm()/z['output'].norm()).item()


def row(tiny, rounds):
    s = Shape(dropout=0.) if not tiny else Shape(width=32, mult=(1, 2), blocks=1, dropout=0.)
    n, size = (4, 32) if not tiny else (2, 8)
    x, sigma = torch.randn(n, 3, size, size), torch.rand(n) + .5
    batch = x, sigma, torch.randn_like(x)
    a = Contender(full(**vars(s)), lambda net, x, s: net(x, s), batch, same=our_finish)
    b = Contender(theirs(s, size), lambda net, x, s: net(x, s).sample, batch, same=our_finish, own=their_finish)
    bare, n_all = Convolutions(a.net, x, sigma), sum(p.numel() for p in a.net.parameters())
    p, q, o = (torch.zeros(n_all) for _ in range(3))
    work = {'scoreguidance': a.work(), 'diffusers': b.work()}
    t = []
    for r in range(rounds + 1):
        t.append({k: c.round() for k, c in list(dict(ours=a, theirs=b).items())[::1 - r%2*2]})
        t[-1]['floor'] = dict(forward=seconds(bare.forward), backward=seconds(bare.passes), traffic=seconds(lambda: torch.add(p, q, out=o)))
        print(f'  round {r} of {rounds}', flush=True)
    take = lambda side, k: [r[side][k] for r in t[1:]]
    how = dict(per=n/1e3, unit='ms per image')
    step = [v + w*11/3 for v, w in zip(take('floor', 'backward'), take('floor', 'traffic'))]
    flops, sizes = ([w[k] for w in work.values()] for k in ('forward_flops', 'parameters'))
    close = .02 if not tiny else .2 # what the designs do not share is a larger part of a small network
    return dict(
        what='NCSN++ for CIFAR-10, float32', peer=peer, setting=dict(batch=n, image=size, width=s.width, work=work),
        claims=[faster('forward', take('ours', 'forward'), take('theirs', 'forward'), take('floor', 'forward'), **how),
                faster('forward and backward', take('ours', 'backward'), take('theirs', 'backward'), take('floor', 'backward'), **how),
                faster('training step, our optimiser for both', take('ours', 'same'), take('theirs', 'same'), step, **how),
                faster("training step, theirs as in diffusers' example", take('ours', 'same'), take('theirs', 'own'), step,
                       **how)],
        agreement=[agreement('operations of a forward pass', abs(flops[0]/flops[1] - 1), close),
                   agreement('number of parameters', abs(sizes[0]/sizes[1] - 1), close),
                   agreement("our network with published weights, against that network's outputs", golden(), 2e-5)],
        floor='the convolutions of our network alone, each with the input it has there; in a step also the traffic of the optimiser, see below',
        note='The two designs are siblings, not twins, so it is their work that agrees: ours lets the image in below by '
             '3x3 convolutions, theirs by 1x1 and with outputs at every level, and 128 frequencies of theirs count as '
             'parameters. Ours is the published network, which is checked by its values.')
