"""NCSN++ of CIFAR-10, forward and training step, against diffusers' UNet2DModel of the same shape, on one CPU thread.

    pip install --no-deps --target PEER diffusers        # once, beside the environment, not into it
    PYTHONPATH=PEER python benchmarks/networks.py [--batch 4] [--rounds 5] [--json results/benchmarks/networks.json]

Both networks live in one process and take turns; a round is one forward pass and one training step of each. Times are
processor seconds of this process, ratios are taken within a round, and what is reported is their median. Dropout is 0.
After the same backward pass a step is finished in two ways: by clipping, fused Adam and a foreach moving average, and,
for the peer, also as diffusers' own training example does it (clipping, AdamW by default, its EMAModel)."""
import argparse
import copy
import os
import platform
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from scoreguidance.experiment import hardware
from scoreguidance.files import write_json
from scoreguidance.images import full
from scoreguidance.train import average

try:
    import diffusers
    from diffusers.training_utils import EMAModel
except ImportError:
    sys.exit("diffusers is not installed: pip install --no-deps --target PEER diffusers, then PYTHONPATH=PEER python "
             "benchmarks/networks.py")

p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument('--batch', type=int, default=4)
p.add_argument('--rounds', type=int, default=5, help='counted rounds, after one to warm up')
p.add_argument('--json', type=Path)
a = p.parse_args()


def peer():
    "diffusers' own NCSN++ for CIFAR-10, as its published configuration has it"
    down, up = ['SkipDownBlock2D']*4, ['SkipUpBlock2D']*4
    down[1], up[2] = 'AttnSkipDownBlock2D', 'AttnSkipUpBlock2D'
    return diffusers.UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=4, block_out_channels=(128, 256, 256, 256),
        down_block_types=tuple(down), up_block_types=tuple(up), time_embedding_type='fourier', freq_shift=0,
        mid_block_scale_factor=2**.5, norm_eps=1e-6, norm_num_groups=None, attention_head_dim=None, act_fn='silu')


def ours_finish(net):
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


def seconds_of(f):
    begun = time.process_time()
    f()
    return time.process_time() - begun


class Contender:
    "A network and the ways its step is finished"
    def __init__(self, net, call, **finish):
        self.net, self.call, self.finish = net, call, {k: f(net) for k, f in finish.items()}

    @torch.no_grad()
    def forward(self):
        self.net.eval()
        self.call(self.net, x, sigma)

    def passes(self):
        self.net.train().zero_grad()
        (self.call(self.net, x, sigma) - z).square().sum((1, 2, 3)).mean().backward()

    def round(self): # seconds of everything
        t = {'forward': seconds_of(self.forward), 'forward and backward': seconds_of(self.passes)}
        return t | {f'step, {k}': t['forward and backward'] + seconds_of(f) for k, f in self.finish.items()}


def parts(net):
    "Parameters in all, and of what the two designs do not share"
    n = {k: v.numel() for k, v in net.named_parameters()}
    own = {k: sum(v for m, v in n.items() if k in m) for k in ('pyramid', 'skip_', 'time_proj')}
    return dict(parameters=sum(n.values()), **{f'parameters_{k.strip("_")}': v for k, v in own.items() if v})


def flops(net, call):
    with FlopCounterMode(display=False) as m, torch.no_grad(): call(net, x[:1], sigma[:1])
    return m.get_total_flops()


torch.set_num_threads(1)
torch.manual_seed(0)
x, sigma = torch.randn(a.batch, 3, 32, 32), torch.rand(a.batch) + .5
z = torch.randn_like(x)
ours, theirs = lambda net, x, s: net(x, s), lambda net, x, s: net(x, s).sample
SAME, OWN = 'same optimiser', 'own optimiser'
who = {'scoreguidance': Contender(full(dropout=0.), ours, **{SAME: ours_finish}),
       'diffusers': Contender(peer(), theirs, **{SAME: ours_finish, OWN: their_finish})}
about = {k: dict(parts(c.net), forward_flops=flops(c.net, c.call)) for k, c in who.items()}
for k, v in about.items(): print(k, v, flush=True)

rounds = []
for r in range(a.rounds + 1):
    rounds.append({k: c.round() for k, c in who.items()})
    print(f'round {r} of {a.rounds}', flush=True)
rounds = rounds[1:]
rows = []
for k in who:
    for m in rounds[0][k]:
        base = f'step, {SAME}' if m.startswith('step') else m
        ratios = [r[k][m]/r['scoreguidance'][base] for r in rounds]
        ms = 1e3*median(r[k][m] for r in rounds)/a.batch
        rows.append(dict(network=k, what=m, ms_per_image=round(ms, 1), times_ours=round(median(ratios), 3),
                         lowest=round(min(ratios), 3), highest=round(max(ratios), 3)))
        print(f"{k:14s} {m:22s} {ms:8.1f} ms/image  {rows[-1]['times_ours']:.2f} "
              f"({rows[-1]['lowest']:.2f} to {rows[-1]['highest']:.2f}) times ours")
record = dict(what='NCSN++ for CIFAR-10, float32, one CPU thread', batch=a.batch, rounds=a.rounds, rows=rows,
              networks=about, load=os.getloadavg(),
              note='processor seconds; ratios within a round, median (lowest, highest); dropout 0. Same optimiser: clip, '
                   'fused Adam, foreach moving average; own: clip, AdamW and EMAModel as in the example of diffusers, '
                   'against our step. The designs differ in how the image enters below (ours 3x3 convolutions, theirs '
                   '1x1), in its outputs at every level, and in 128 frequencies counted as parameters; all else agrees',
              hardware=dict(hardware(), machine=platform.machine(), diffusers=diffusers.__version__))
if a.json:
    a.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(a.json, record)
