"The end of a training step, clipping, Adam and moving average, against the same done one tensor after another"
import copy

import torch
from turns import agreement, apart, faster, turns

from scoreguidance.images import full
from scoreguidance.train import average, clipped_step

peer = "a loop over tensors: PyTorch's Adam, clipping and moving average with foreach=False"


@torch.no_grad()
def loop_average(ema, net, mu):
    for e, p in zip(ema.parameters(), net.parameters()): e.mul_(mu).add_(p, alpha=1 - mu)


def row(tiny, rounds):
    net = full(dropout=0.) if not tiny else full(width=16, mult=(1, 2), blocks=1, dropout=0.)
    for p in net.parameters(): p.grad = .01*torch.randn_like(p)
    ours, theirs = net, copy.deepcopy(net)
    for p, q in zip(ours.parameters(), theirs.parameters()): q.grad = p.grad.clone()
    averages = [copy.deepcopy(n).requires_grad_(False) for n in (ours, theirs)]
    fused = torch.optim.Adam(ours.parameters(), 2e-4, fused=True)
    plain = torch.optim.Adam(theirs.parameters(), 2e-4, foreach=False, fused=False)

    def our_step():
        clipped_step(fused, 1.)
        average(averages[0], ours, .999)

    def their_step(): # clipping changes the gradients themselves: from the second step on it finds norm 1
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1., foreach=False)
        plain.step()
        loop_average(averages[1], theirs, .999)
    n = sum(p.numel() for p in net.parameters())
    a, b, c = (torch.zeros(n) for _ in range(3))
    t = turns({'ours': our_step, 'theirs': their_step, 'floor': lambda: torch.add(a, b, out=c)}, rounds)
    flat = lambda n: torch.cat([p.detach().flatten() for p in n.parameters()])
    traffic = [v*11/3 for v in t['floor']]
    return dict(
        what=f'clip, Adam and moving average of {n/1e6:.1f} M parameters', peer=peer, setting=dict(parameters=n),
        claims=[faster('time', t['ours'], t['theirs'], traffic, per=1e-3, unit='ms')],
        agreement=[agreement(f'weights after {rounds + 1} steps', apart(flat(ours), flat(theirs)), 1e-5),
                   agreement('moving averages', apart(*map(flat, averages)), 1e-5)], note='',
        floor='every number read or written once by the norm (1), Adam (7) and the average (3), at the rate of one addition of as long vectors (3)')
