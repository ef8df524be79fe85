"""Network evaluations that Heun and DPM-Solver++ 2M need on EDM's grid for the error of 2,000 evaluations of the published predictor-corrector.

Exact scores, exact starts, and errors against the exact answer, as in notebook 07b: eight modes on a ring, by the sliced
Wasserstein distance of 4,000 samples to the mixture's own quantiles, and a Gaussian of forty scales, whose error of scale
is computed without samples. Nothing here is timed: what is compared is the number of evaluations at equal error."""
import math
from functools import partial
from statistics import median

import torch
from turns import agreement

from scoreguidance.exact import GMM
from scoreguidance.sample import heun, karras, langevin, reverse_diffusion, sample, then
from scoreguidance.score import Score
from scoreguidance.sde import VE
from scoreguidance.steps import begin, multistep

peer = 'predictor-corrector of Song et al. 2021 (reverse diffusion, Langevin at snr 0.16)'
sde, end = VE(.01, 50.), 1e-3
published = then(partial(langevin, norm=torch.mean), reverse_diffusion)
first, last = torch.tensor([1., end]).double()
edm = lambda n, cost=2: karras(sde, n//cost + 1, float(sde.sigma(last)), float(sde.sigma(first)))
even = lambda n: torch.linspace(1, end, n//2 + 1).double()

angle = torch.arange(8)*math.pi/4
ring = GMM(sde, 2*torch.stack([angle.cos(), angle.sin()], 1), [.01, .04]*4, [4., 1., 2., 3., 1., 2., 4., 3.])
theta = (torch.arange(16) + .5)*math.pi/16
theta = torch.stack([theta.cos(), theta.sin()], 1).double()


def score(x, t):
    "ring.score with the squares expanded: faster, and good enough in float64"
    v = ring.var + sde.sigma(t)**2
    square = (x**2).sum(1, keepdim=True) - 2*x@ring.mean.T + (ring.mean**2).sum(1)
    r = (ring.logw - v.log() - square/(2*v)).softmax(1)/v
    return r@ring.mean - r.sum(1, keepdim=True)*x


def noised(n, t, seed):
    g = torch.Generator().manual_seed(seed)
    return ring.sample(n, g) + sde.sigma(t)*torch.randn(n, 2, generator=g, dtype=torch.float64)


def quantiles(n):
    "Quantiles of the projected mixture at the last level [16,n]"
    line, sd = torch.linspace(-6, 6, 20_001).double(), (ring.var + sde.sigma(last)**2).sqrt()
    out, q = [], (torch.arange(n).double() + .5)/n
    for th in theta:
        F = torch.special.ndtr((line[:, None] - ring.mean@th)/sd)@ring.logw.exp()
        i = torch.searchsorted(F, q).clamp(1, len(F) - 1)
        out.append(line[i-1] + (q - F[i-1])/(F[i] - F[i-1])*(line[i] - line[i-1]))
    return torch.stack(out)


def sliced(x, Q): return float(((x@theta.T).T.sort(1).values - Q).abs().mean())


def walk(step, ts, x):
    *_, x = sample(step, score, sde, begin(x) if step is multistep else x, ts)
    return x.x if step is multistep else x


scales = torch.logspace(-2, 0, 40).double()**2
V = lambda t: scales + sde.sigma(t)**2
linear = Score(lambda x, t: -x/V(t))


def carry(step, var, t, u):
    "Variances after one step, exactly"
    ones = torch.ones(1, len(scales)).double()
    a = step(linear, sde, ones, t, u, randn=torch.zeros_like)[0]
    return a**2*var + step(linear, sde, 0*ones, t, u, randn=torch.ones_like)[0]**2


def corrector(var, t, snr=.16):
    "The corrector's step with norms at their average"
    e = 2*snr**2*len(var)/(var/V(t)**2).sum()
    return lambda s, sde, x, t, u, randn: x + e*s(x, t) + (2*e).sqrt()*randn(x)


def off_scale(step, ts, corrected):
    var = V(first)
    if step is multistep:  # a walk along the flow is linear as a whole
        *_, p = sample(step, linear, sde, begin(var.sqrt()[None]), ts)
        return float((p.x/V(last).sqrt() - 1).square().mean().sqrt())
    for t, u in zip(ts[:-1], ts[1:]):
        if corrected: var = carry(corrector(var, t), var, t, u)
        var = carry(step, var, t, u)
    return float(((var/V(last)).sqrt() - 1).square().mean().sqrt())


def claim(what, errors, pc, n, target=40):
    "Evaluations for an error no larger than the peer's `pc`"
    need = next((k for k, e in errors.items() if e <= pc), math.inf)
    if need == math.inf: raise ValueError(f'{what}: never came down to {pc:.3g}')
    return dict(what=what, kind='evaluations', ours=need, theirs=n, unit='evaluations', ratio=need, lowest=need, highest=need,
                floor=None, share=None, target=target, better='less')


def row(tiny, rounds):
    n, budget = (4000, 2000) if not tiny else (400, 100)
    grid = (12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80, 160)
    Q = quantiles(n)
    pc, floor, second, memory = [], [], {k: [] for k in grid}, {k: [] for k in grid}
    for seed in range(rounds):
        torch.manual_seed(seed)
        x = noised(n, first, 100 + seed)
        pc.append(sliced(walk(published, even(budget), x), Q))
        floor.append(sliced(noised(n, last, seed), Q))
        for k in grid:
            second[k].append(sliced(walk(heun, edm(k), x), Q))
            memory[k].append(sliced(walk(multistep, edm(k, 1), x), Q))
        print(f'  seed {seed} of {rounds}', flush=True)
    modes, remembered = ({k: median(v) for k, v in c.items()} for c in (second, memory))
    linear2m = {k: off_scale(multistep, edm(k, 1), False) for k in grid}
    exact, gauss = off_scale(reverse_diffusion, even(budget), True), {k: off_scale(heun, edm(k), False) for k in grid}
    x = noised(300, last, 7)
    return dict(
        what='evaluations for the error of the published predictor-corrector, exact scores', peer=peer,
        setting=dict(samples=n, seeds=rounds, budget=budget, modes=dict(pc=median(pc), pc_lowest=min(pc), pc_highest=max(pc),
                     floor=median(floor), floor_lowest=min(floor), floor_highest=max(floor), heun=modes, multistep=remembered), gauss=dict(pc=exact, heun=gauss, multistep=linear2m)),
        claims=[claim('eight modes, distance to the distribution, medians', modes, max(median(pc), median(floor)), budget),
                claim('Gaussian of forty scales, error of scale, exact', gauss, exact, budget),
                claim('2M: eight modes, distance to the distribution, medians', remembered, max(median(pc), median(floor)), budget, 24),
                claim('2M: Gaussian of forty scales, error of scale, exact', linear2m, exact, budget, 24)],
        agreement=[agreement('the score used, against the closed form', (sde.sigma(last)*(score(x, last) - ring.score(x, last))).abs().max(), 1e-6)],
        note=f'Errors at {budget:,} evaluations of the predictor-corrector and at 40 of Heun and 24 of 2M: modes {median(pc):.3f}, {modes[40]:.3f} and {remembered[24]:.3f}, '
             f'where exact samples themselves score {median(floor):.3f} ({min(floor):.3f} to {max(floor):.3f}), so that samples cannot tell '
             f'more; Gaussian {exact:.4f}, {gauss[40]:.4f} and {linear2m[24]:.4f}, where nothing is sampled.')
