"""A predictor-corrector step beyond its network, against the published code's own lines.

The score is one multiplication, so that what is left is the sampler. Both sides draw the same noise in the same order."""
from functools import partial

import torch
from turns import agreement, apart, faster, turns

from scoreguidance.sample import langevin, prior, reverse_diffusion, sample, then
from scoreguidance.score import Score
from scoreguidance.sde import VE

peer = "the lines of Song et al. 2021's sampling.py (ReverseDiffusionPredictor, LangevinCorrector)"
sde, snr = VE(.01, 50.), .16
step = then(partial(langevin, snr=snr, norm=torch.mean), reverse_diffusion)


def score(x, t): return -.5*x


def theirs(x, ts):
    "As published, with the ladder's levels at the same times"
    levels = sde.sigma(ts)
    for i in range(len(ts) - 1):
        vec_t = torch.ones(x.shape[0])*ts[i]
        grad, noise = score(x, vec_t), torch.randn_like(x)
        grad_norm = torch.norm(grad.reshape(grad.shape[0], -1), dim=-1).mean()
        noise_norm = torch.norm(noise.reshape(noise.shape[0], -1), dim=-1).mean()
        step_size = (snr*noise_norm/grad_norm)**2*2*torch.ones_like(vec_t)
        x = x + step_size[:, None, None, None]*grad
        x = x + torch.sqrt(step_size*2)[:, None, None, None]*noise
        timestep = torch.full((x.shape[0],), i)
        sigma, adjacent = levels[timestep], levels[timestep + 1]
        f, G = torch.zeros_like(x), torch.sqrt(sigma**2 - adjacent**2)
        rev_f = f - G[:, None, None, None]**2*score(x, vec_t)
        z = torch.randn_like(x)
        x = x - rev_f + G[:, None, None, None]*z
    return x


def ours(x, ts):
    *_, x = sample(step, Score(score), sde, x, ts)
    return x


def bare(x, ts):
    for _ in ts[1:]:
        for _ in range(2):
            score(x, None)
            torch.randn_like(x)


def row(tiny, rounds):
    steps, claims, agree = (40 if not tiny else 3), [], []
    ts = torch.linspace(1, 1e-2, steps + 1)
    for size in (1, 128) if not tiny else (2,):
        x, out = prior(sde, torch.zeros(size, 3, 32, 32)), {}
        for name, f in (('ours', ours), ('theirs', theirs)):
            torch.manual_seed(1)
            out[name] = f(x, ts)
        agree.append(agreement(f'images after {steps} steps of the same noise, batch {size}', apart(out['ours'], out['theirs']), 1e-4))
        t = turns({k: (lambda f=f: f(x, ts)) for k, f in dict(ours=ours, theirs=theirs, bare=bare).items()}, rounds)
        claims.append(faster(f'a step, batch {size}', t['ours'], t['theirs'], t['bare'], per=steps*1e-3, unit='ms'))
    return dict(
        what='a predictor-corrector step beyond its network, 3x32x32, float32', peer=peer, setting=dict(steps=steps), claims=claims,
        agreement=agree, floor='its two draws of normal noise, and twice the multiplication that stands for the network', note='')
