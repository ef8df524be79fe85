"""NCSN++ of CIFAR-10, forward and training step, against diffusers' UNet2DModel of the same shape, on one CPU thread.

    pip install --no-deps --target PEER diffusers        # once, beside the environment, not into it
    PYTHONPATH=PEER python benchmarks/networks.py [--batch 4] [--rounds 5] [--json results/benchmarks/networks.json]

All networks live in one process and take turns; a round is one forward pass and one training step of each. Times are
processor seconds of this process, ratios are taken within a round, and what is reported is their median. A training
step is forward, backward, fused Adam and a foreach moving average, the same for everyone; dropout is 0 everywhere."""
import argparse
import copy
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

try: import diffusers
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


class Contender:
    "A network with its optimiser and its moving average"
    def __init__(self, net, call):
        self.net, self.call, self.ema = net, call, copy.deepcopy(net).requires_grad_(False)
        self.opt = torch.optim.Adam(net.parameters(), 1e-4, fused=True)

    @torch.no_grad()
    def forward(self):
        self.net.eval()
        self.call(self.net, x, sigma)

    def step(self): # seconds of forward and backward, and of all
        self.net.train()
        begun = time.process_time()
        self.opt.zero_grad()
        (self.call(self.net, x, sigma) - z).square().sum((1, 2, 3)).mean().backward()
        passes = time.process_time() - begun
        self.opt.step()
        average(self.ema, self.net, .999)
        return passes, time.process_time() - begun


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
who = {'scoreguidance': Contender(full(dropout=0.), ours), 'diffusers': Contender(peer(), theirs),
       'diffusers, channels_last': Contender(peer().to(memory_format=torch.channels_last), theirs)}
about = {k: dict(parts(c.net), forward_flops=flops(c.net, c.call)) for k, c in who.items()}
for k, v in about.items(): print(k, v, flush=True)

seconds = {k: {m: [] for m in ('forward', 'forward and backward', 'training step')} for k in who}
for r in range(a.rounds + 1):
    for k, c in who.items():
        begun = time.process_time()
        c.forward()
        took = (time.process_time() - begun, *c.step())
        if r:
            for m, v in zip(seconds[k], took): seconds[k][m].append(v)
    print(f'round {r} of {a.rounds}', flush=True)

rows = []
for k in who:
    for m, v in seconds[k].items():
        ratios = [t/s for t, s in zip(v, seconds['scoreguidance'][m])]
        rows.append(dict(network=k, what=m, ms_per_image=round(1e3*median(v)/a.batch, 1), times_ours=round(median(ratios), 3),
                         lowest=round(min(ratios), 3), highest=round(max(ratios), 3)))
        print(f"{k:26s} {m:22s} {rows[-1]['ms_per_image']:8.1f} ms/image  {rows[-1]['times_ours']:.2f} "
              f"({rows[-1]['lowest']:.2f} to {rows[-1]['highest']:.2f}) times ours")
record = dict(what='NCSN++ for CIFAR-10, float32, one CPU thread', batch=a.batch, rounds=a.rounds, rows=rows, networks=about,
              note='processor seconds; ratios within a round, median (lowest, highest); dropout 0; the same fused Adam '
                   'and foreach moving average for all. The designs differ in how the image enters below (ours 3x3 '
                   'convolutions, theirs 1x1) and in their image outputs at every level; all else agrees to the parameter',
              hardware=dict(hardware(), machine=platform.machine(), diffusers=diffusers.__version__))
if a.json:
    a.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(a.json, record)
