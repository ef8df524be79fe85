"NCSN++ against the published network's output, its weights in every form, and what is refused"
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scoreguidance.core import bc, sumsq
from scoreguidance.images import (EDM, Down, Energy, ImageClassifier, NCSNpp, Reference, ResNet, Shape, Up,
                                  from_reference, shape_of, standard, to_reference)
from scoreguidance.matching import dsm
from scoreguidance.metrics import against_noise
from scoreguidance.score import at, from_denoiser, perturb
from scoreguidance.sde import VE

Z = dict(np.load(Path(__file__).parent/'golden'/'ncsnpp_tiny.npz'))
STATE = {k[6:]: torch.from_numpy(v) for k, v in Z.items() if k.startswith('state/')}
X, SIGMA, OUT = (torch.from_numpy(Z[k]) for k in ('x', 'sigma', 'output'))
KEYS = list(STATE)


def off(a, b):
    "Largest relative difference of a row"
    return ((a - b).flatten(1).norm(dim=1)/b.flatten(1).norm(dim=1)).max().item()


def shaken(net):
    "Nothing is zero that should not be"
    for p in net.parameters():
        z = torch.randn(p.shape)
        p.data = z/p[0].numel()**.5 if p.ndim > 1 else p.data + .3*z
    return net.eval()


@pytest.mark.parametrize('dtype,tolerance', [(torch.float32, 2e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format])
def test_golden(dtype, tolerance, layout):
    net = from_reference({k: v.to(dtype) for k, v in STATE.items()}).to(memory_format=layout)
    with torch.no_grad():
        out = net(X.to(dtype), SIGMA.to(dtype))
        assert out.dtype == dtype and off(out, OUT) < tolerance
        rows = [net(X[i:i+1].to(dtype), SIGMA[i:i+1].to(dtype)) for i in range(len(X))]
        assert off(torch.cat(rows), OUT) < tolerance
        channels_last = X.to(dtype).to(memory_format=torch.channels_last)
        assert off(net(channels_last, SIGMA.to(dtype)), OUT) < tolerance


def test_golden_has_power():
    "One weight of a thousand moved by a tenth is seen"
    net = from_reference(STATE)
    net.net.encoder.downs[1].pyramid.conv.bias.data[0] += .1
    with torch.no_grad(): assert off(net(X, SIGMA), OUT) > 1e-4


def test_weights_of_data_parallel_training():
    net = from_reference({f'module.{k}': v for k, v in STATE.items()})
    assert all(torch.equal(v, STATE[k]) for k, v in to_reference(net).items())


def test_round_trip_keeps_bits_types_and_names():
    state = {k: v.double() for k, v in STATE.items()}
    state['sigmas'] = torch.linspace(50, .01, 7, dtype=torch.float64)
    back = to_reference(from_reference(state))
    assert back.keys() == state.keys()
    for k, v in back.items(): assert v.dtype == state[k].dtype and torch.equal(v, state[k]) and v.is_contiguous(), k


def test_what_is_saved_is_a_copy():
    net = from_reference(STATE)
    back = to_reference(net)
    back['all_modules.8.NIN_1.W'].zero_()
    with torch.no_grad(): assert off(net(X, SIGMA), OUT) < 2e-5


SHAPES = [Shape(8, (1,), 1, ()), Shape(8, (1, 2), 2, (0,)), Shape(4, (2, 1, 3), 1, (1, 2), channels=1),
          Shape(8, (1, 2, 2, 2), 3, (1,), classes=5), Shape(12, (1, 1), 1, (0, 1), channels=4, classes=2, dropout=.3)]

@pytest.mark.parametrize('s', SHAPES, ids=lambda s: f'{s.width}-{s.mult}-{s.blocks}-{s.attention}')
def test_the_form_is_read_off_the_weights(s):
    net = shaken(NCSNpp(s))
    state = to_reference(Reference(net))
    assert shape_of(state, dropout=s.dropout) == s
    again = from_reference(state)
    x, sigma = torch.randn(3, s.channels, 16, 24), torch.rand(3) + .1
    y = (torch.tensor([0, -1, s.classes - 1]),) if s.classes else ()
    with torch.no_grad(): assert off(again.net(x, sigma, *y), net(x, sigma, *y)) < 2e-5


@pytest.mark.parametrize('name', ['sigmas', *KEYS[1::19], 'all_modules.8.NIN_0.W', 'all_modules.6.Conv2d_0.weight',
                                  'all_modules.4.Conv_0.bias', 'all_modules.31.bias'])
def test_each_missing_or_misshaped_entry_is_named(name):
    without = {k: v for k, v in STATE.items() if k != name}
    with pytest.raises(ValueError, match=f'missing.*{name}'.replace('.', r'\.').replace(r'\.*', '.*')):
        from_reference(without)
    if name == 'sigmas': return
    with pytest.raises(ValueError) as e: from_reference({**STATE, name: torch.ones(5, 7)})
    if name != 'all_modules.3.weight': assert f'{name} of shape (5, 7) instead of {tuple(STATE[name].shape)}' in str(e.value)


@pytest.mark.parametrize('name', ['all_modules.3.weight', 'all_modules.3.bias'])
def test_without_its_first_convolution_it_is_no_network(name):
    with pytest.raises(ValueError, match='not the weights of an NCSN'):
        from_reference({k: v for k, v in STATE.items() if k != name})


def test_many_wrong_entries_are_counted():
    with pytest.raises(ValueError, match=r'missing: .* and \d+ more'):
        from_reference({k: v for k, v in STATE.items() if '.2' not in k})
    with pytest.raises(ValueError, match='unknown: optimizer, step'):
        from_reference({**STATE, 'optimizer': torch.ones(1), 'step': torch.ones(1)})


@pytest.mark.parametrize('taps', [(1, 1), (1, 3, 3, 1), (1, 2, 2, 1), (1, 5, 10, 10, 5, 1)])
def test_fir_is_its_definition(taps):
    "Zeros between, a true convolution, every second pixel"
    k = torch.tensor(taps, dtype=torch.float64)
    k = torch.outer(k, k)/k.sum()**2
    x, n, down, up = torch.randn(2, 3, 8, 10).double(), len(taps), Down(taps).double(), Up(taps).double()
    each = lambda x, k: F.conv2d(x.flatten(0, 1)[:, None], k.flip(0, 1)[None, None]).unflatten(0, (2, 3))[:, :, 0]
    a, b = n//2 - 1, (n - 1)//2
    assert torch.allclose(down(x), each(F.pad(x, (b, a, b, a)), k)[..., ::2, ::2])
    z = x.new_zeros(2, 3, 16, 20)
    z[..., ::2, ::2] = x
    assert torch.allclose(up(x), each(F.pad(z, (n//2, n//2 - 1)*2), 4*k))
    assert torch.allclose(down.blur(x), each(F.pad(x, (n//2,)*4), k))


def test_edm_loss_is_the_score_loss_reweighted():
    "Half the squared error of the network itself is DSM with weight (sigma^2 + sd^2)/sd^2 (Karras et al. 2022, Eq. 8)"
    sde, sd, net = VE(), .5, shaken(NCSNpp(Shape(8, (1, 2), 1))).double()
    b = perturb(sde, torch.rand(4, 3, 8, 8).double()*2 - 1, torch.tensor([.2, .4, .6, .8]).double())
    sigma = sde.sigma(b.t)
    x0, v = b.x - bc(sigma, b.x)*b.z, bc(sigma**2 + sd**2, b.x)
    target = (x0 - sd**2/v*b.x)/(bc(sigma, b.x)*sd/v.sqrt())
    own = sumsq(net(*standard(b.x, sigma, sd)) - target).mean()/2
    s = from_denoiser(at(EDM(net, sd), sde), sde)
    assert math.isclose(dsm(s, sde, b, lambda t: (sde.sigma(t)**2 + sd**2)/sd**2).item(), own.item(), rel_tol=1e-9)


@pytest.mark.parametrize('make', [lambda: ImageClassifier(10, Shape(8, (1, 2), 1)),
                                  lambda: Energy(ImageClassifier(10, Shape(8, (1, 2), 1)))], ids=['plain', 'energy'])
def test_an_untrained_classifier_reports_ignorance(make):
    "Its negative log likelihood is log 10 at every level, with or without the common term"
    sde, x, y = VE(), torch.rand(50, 3, 8, 8)*2 - 1, torch.arange(50)%10
    rows = against_noise(at(make().eval(), sde), sde, x, y, sde.t_of(torch.tensor([.1, 1., 10.])).tolist())
    assert len(rows) == 3
    for r in rows: assert math.isclose(r['nll'], math.log(10), rel_tol=1e-3) and r['ece'] < .11, r


@pytest.mark.parametrize('net', [NCSNpp(Shape(8, (1, 2), 1)), ImageClassifier(3, Shape(8, (1, 2), 1)), ResNet(3, 8)],
                         ids=lambda n: type(n).__name__)
def test_training_after_sampling(net):
    "A pass in inference mode leaves nothing behind that training cannot use; dropout is for training only"
    net, x = shaken(net), torch.randn(2, 3, 16, 16)
    with torch.inference_mode(): a = net(x, .5)
    out = net(x, .5)
    assert off(out.detach(), a) < 1e-5
    out.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    if isinstance(net, NCSNpp): assert off(net.train()(x, .5).detach(), a) > 1e-3
