"What comes from outside and is wrong ends in one sentence: what is wrong, and what to do"
import json
import re

import pytest
import torch
from torch import nn

from scoreguidance.calibrate import sc, semi
from scoreguidance.core import check_t, check_x, check_y, rows
from scoreguidance.data import check_labels, from_tensor, hide, subset
from scoreguidance.dlsm import dlsm
from scoreguidance.exact import GMM, Parzen, bayes
from scoreguidance.files import read_json, read_tensors, writable, write_bytes, write_json, write_tensors
from scoreguidance.guide import joint, likelihood
from scoreguidance.matching import ce
from scoreguidance.ncsn import ladder
from scoreguidance.nets import Classifier, Denoiser, Gauss
from scoreguidance.sample import em, karras, sample
from scoreguidance.score import at
from scoreguidance.sde import VE, VP, SubVP, perturb
from scoreguidance.train import fit, start

sde, nan = VE(), float('nan')
y3 = torch.tensor([0, 1, 2])


def says(f, *words, error=ValueError):
    "`f` raises `error` itself, in one sentence that holds all the words and, after a colon or semicolon, what to do"
    with pytest.raises((ValueError, FileNotFoundError)) as e: f()
    assert e.type is error, f'{e.type.__name__}, not {error.__name__}'
    text = str(e.value)
    for w in words: assert w in text, f'{w!r} is not in: {text}'
    assert re.search(r'[:;] \S', text), f'says not what to do: {text}'
    assert '\n' not in text.strip() and not text.rstrip().endswith('.'), f'more than one sentence: {text}'
    return text


@pytest.fixture
def world():
    ps = [GMM(sde, torch.randn(2, 2), .1) for _ in range(3)]
    return ps, bayes(ps)


@pytest.fixture
def b():
    return perturb(sde, torch.randn(6, 2), .5)


# types

def test_arrays_and_fractions():
    x, y = torch.randn(6, 2), torch.arange(6)%3
    says(lambda: Gauss((2,), x.numpy()), 'x is a ndarray', 'torch.from_numpy')
    says(lambda: semi(x.numpy(), y, 4), 'x is a ndarray')
    says(lambda: semi(x, y.float(), 4), 'labels are torch.float32', 'y.long()')
    says(lambda: hide(y.double().numpy(), [0]), 'labels are torch.float64', 'y.long()')


# times

@pytest.mark.parametrize('t', [0., -1e-3, 1.001, 50, nan, torch.tensor([.5, 2.]), torch.tensor([.5, nan])])
def test_time(t):
    says(lambda: check_t(t), 'time t must lie in (0,1]', 'sde.t_of(sigma)')
    says(lambda: perturb(sde, torch.randn(2, 2), t), 'time t must lie in (0,1]')


@pytest.mark.parametrize('ts', [[1., .5, 0.], [1.2, .5], [1., nan]])
def test_times_of_a_walk(ts):
    says(lambda: next(sample(em, GMM(sde, torch.zeros(1, 2)).score, sde, torch.zeros(3, 2), torch.tensor(ts))), '(0,1]')


@pytest.mark.parametrize('ts', [[1.], [.1, 1.], [1., 1.], [[1., .5], [.5, .1]]])
def test_walk_goes_down(ts):
    says(lambda: next(sample(em, GMM(sde, torch.zeros(1, 2)).score, sde, torch.zeros(3, 2), torch.tensor(ts))),
         'strictly falling times', 'torch.linspace')


def test_as_many_times_as_rows():
    says(lambda: rows(torch.rand(4), torch.zeros(6, 2)), '(4,) for 6 rows', 'one for each row')
    says(lambda: perturb(sde, torch.zeros(6, 2), torch.rand(4)), '(4,) for 6 rows')
    says(lambda: perturb(sde, torch.zeros(6, 2), torch.rand(6, 1)), '(6, 1) for 6 rows')
    says(lambda: GMM(sde, torch.zeros(1, 2)).score(torch.zeros(6, 2), torch.rand(4)), 'one for each row')


# schedules and grids

def test_schedules():
    for f in (lambda: VE(1., .5), lambda: VE(0., 1.), lambda: VE(nan, 1.), lambda: VE(.1, float('inf'))):
        says(f, 'a schedule needs 0 < lo < hi')
    for kind in (VP, SubVP): says(lambda: kind(20., .1), 'a schedule needs 0 < b0 < b1')
    says(lambda: ladder(1., .1, 5), 'a ladder needs 0 < lo < hi and n > 1')
    says(lambda: karras(sde, 1), 'a grid needs n >= 2')
    says(lambda: karras(sde, 10, 5., 1.), '0 < lo < hi')


# labels

@pytest.mark.parametrize('y,words', [
    (torch.tensor([0, 1, 3]), ('0..2', 'got 0..3', 'number of classes')),
    (torch.tensor([0, -1, 2]), ('0..2', '-1 means unlabelled', 'select the labelled rows')),
    (torch.tensor([0, 1]), ('2 labels for 3 rows', 'one label per row')),
    (torch.tensor([0., 1., 2.]), ('labels are torch.float32', 'y.long()')),
    (torch.tensor([[0], [1], [2]]), ('a whole number for each row', '(3, 1)')),
    (torch.tensor([True, False, True]), ('torch.bool', 'y.long()')),
])
def test_labels(world, y, words):
    ps, clf = world
    x, t = torch.randn(3, 2), torch.full((3,), .5)
    noised = perturb(sde, x, t)
    says(lambda: check_y(y, 3, 3), *words)
    says(lambda: likelihood(clf, y)(x, t), *words)
    says(lambda: joint(clf, y)(x, t), *words)
    says(lambda: ce(clf, noised, y), *words)
    says(lambda: dlsm(clf, ps[0].score, sde, noised, y), *words)


def test_labels_of_a_conditional_network():
    net = Denoiser(Gauss((2,)), 8, 1, classes=3)
    x, s = torch.randn(3, 2), torch.full((3,), .5)
    says(lambda: net(x, s, y3+1), '0..2', '-1 for none')
    says(lambda: net(x, s, y3-2), '0..2', '-1 for none')
    says(lambda: net(x, s, y3[:2]), 'labels must be [3]', '-1 for none')
    says(lambda: Denoiser(Gauss((2,)), 8, 1)(x, s, y3), 'without classes', 'build it with classes=c')


def test_fewer_labels_than_classes():
    x, y = torch.randn(9, 2), torch.tensor([0, 2, 2, -1, -1, -1, -1, -1, -1])
    says(lambda: semi(x, y, 4, c=3), '2 of 3 classes have a label (labels [0, 2])', 'at least one')
    says(lambda: semi(x, y-3, 4), 'no labelled rows', 'at least one label')
    says(lambda: semi(x, y[:5], 4), '5 labels for 9 rows', 'one per row')
    says(lambda: subset(torch.tensor([0, 0, 1]), .5, 0, c=3), 'no item of class [2]', 'at least one item')
    says(lambda: subset(y3, 0., 0), 'fraction must lie in (0,1]', '0.05 labels 5%')


def test_labels_of_a_data_set():
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    says(lambda: check_labels(y3+1, 3, 3), 'label 3 is outside -1..2', 'from 0')
    says(lambda: from_tensor(images, y3[:2]), '2 labels for 3 rows', 'one label a row')
    says(lambda: from_tensor(images, y3.double()+.5), 'class numbers', 'whole numbers')
    assert from_tensor(images, y3.double()).y.tolist() == y3.tolist()


# data

@pytest.mark.parametrize('bad', [nan, float('inf')])
def test_data_with_nan(bad):
    x = torch.randn(6, 2)
    x[4, 1] = bad
    says(lambda: check_x(x), 'NaN or infinity in 1 of 6 rows', 'row 4', 'remove or mend')
    says(lambda: GMM(sde, x), 'mean holds NaN', 'row 4')
    says(lambda: Parzen(sde, x), 'data holds NaN', 'row 4')
    says(lambda: Gauss((2,), x), 'NaN or infinity', 'row 4')
    says(lambda: semi(x, torch.zeros(6).long(), 4), 'NaN or infinity', 'row 4')
    says(lambda: next(sample(em, Parzen(sde, torch.zeros(1, 2)).score, sde, x, torch.tensor([1., .5]))),
         'NaN or infinity', 'start from prior')
    images = torch.zeros(3, 1, 8, 8)
    images[1] = bad
    says(lambda: from_tensor(images, y3), 'NaN or infinity', 'rows')


def test_shapes(world, b):
    says(lambda: check_x(torch.zeros(3)), 'floating point of shape [b,...]', '(3,)', 'batch axis')
    says(lambda: check_x(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)), 'uint8', 'as_float')
    says(lambda: from_tensor(torch.zeros(3, 8, 8), y3), '(N,C,H,W)', '(3, 8, 8)')
    says(lambda: from_tensor(torch.zeros(3, 32, 32, 3), y3), 'channels-last', 'permute')
    ps, clf = world
    for wrong in (torch.zeros(6, 1), torch.zeros(6, 3), torch.zeros(6, 1, 2, 2)):  # (6,1) would broadcast in silence
        n = wrong[0].numel()
        for f in (ps[0].score, ps[0].logp, Parzen(sde, torch.zeros(5, 2)).score, Parzen(sde, torch.zeros(5, 2)).logp):
            says(lambda: f(wrong, .5), f'rows of {n} numbers in a world of 2', 'shape of its data')
        says(lambda: sc(clf, sde, perturb(sde, wrong, .5)), f'rows of {n} numbers')
        for net in (Denoiser(Gauss((2,)), 8, 1), Classifier(Gauss((2,)), 3, 8, 1)):
            says(lambda: net(wrong, .5), f'rows of {n} numbers for a network of 2', 'built for')
            says(lambda: at(net, sde)(wrong, .5), f'rows of {n} numbers')


def test_worlds(world):
    for kw in (dict(weight=[1.]), dict(weight=[1., -1.]), dict(var=-1.)):
        says(lambda: GMM(sde, torch.zeros(2, 2), **kw), 'a mixture of 2 needs as many positive weights', error=ValueError)
    for prior in ([1.], [.5, .5, 0.]): says(lambda: bayes(world[0], prior), '3 classes need', 'prior probabilities')
    says(lambda: Gauss((3,), torch.randn(9, 2)), '(9, 2) for rows of shape (3,)', 'shape of one row')
    says(lambda: Gauss((2,), torch.randn(1, 2)), 'at least two rows')


# files

def test_damaged_record(tmp_path):
    path = tmp_path/'record.json'
    says(lambda: read_json(path), 'no record at', 'run the experiment', error=FileNotFoundError)
    write_json(path, dict(a=1, b=[.5, 'x']))
    whole = path.read_text()
    assert read_json(path) == dict(a=1, b=[.5, 'x'])
    for text in (whole[:len(whole)//2], '', '{}', '[1]', '3', 'null', '"x"', json.dumps(dict(a=1))):
        path.write_text(text)
        says(lambda: read_json(path), 'damaged record', 'not a complete record', 'delete it and run again')
    path.write_bytes(b'\xff\xfe\x00')
    says(lambda: read_json(path), 'damaged record', 'delete it and run again')
    for old, new in (('0.5', '0.6'), ('"a": 1', '"a": 2'), ('"x"', '"y"')):
        path.write_text(whole.replace(old, new))
        says(lambda: read_json(path), 'damaged record', 'does not match its checksum', 'delete it and run again')
    path.write_text(json.dumps(json.loads(whole)))  # another layout of the same content is no damage
    assert read_json(path) == dict(a=1, b=[.5, 'x'])


def test_damaged_tensors(tmp_path):
    path = tmp_path/'w.safetensors'
    says(lambda: read_tensors(path), 'no tensors at', 'run the experiment', error=FileNotFoundError)
    sha = write_tensors(path, dict(a=torch.arange(100.)))
    whole = path.read_bytes()
    for cut in (0, 5, 30, len(whole)-1):
        path.write_bytes(whole[:cut])
        says(lambda: read_tensors(path), 'damaged file', 'not safetensors', 'delete it and run again')
    for i in (2, 30, len(whole)-1):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i+1:])
        says(lambda: read_tensors(path, sha), 'damaged file', 'expected sha256', 'delete it and run again')


@pytest.fixture
def job():
    data = torch.randn(50, 2)

    def make(width=3):
        s = start(nn.Linear(2, width))
        return s, lambda: s.net(data[torch.randint(50, (8,))]).square().mean()
    return make


def test_damaged_checkpoint(tmp_path, job):
    s, loss = job()
    for _ in fit(s, loss, 6, folder=tmp_path, every=2): pass
    again = lambda width=3, **kw: next(fit(*job(width), **{**dict(steps=6, folder=tmp_path), **kw}), None)
    assert again() is None  # whole: nothing left to do
    says(lambda: again(lr=1.), 'belongs to another run', 'use another folder or delete it')
    record, weights = tmp_path/'checkpoint.json', next(tmp_path.glob('step-*.safetensors'))
    data = weights.read_bytes()
    weights.write_bytes(data[:-9])
    says(again, 'damaged file', 'expected sha256', f"delete the folder '{tmp_path}' and run again")
    weights.unlink()
    says(again, 'no tensors at', f"delete the folder '{tmp_path}' and run again", error=FileNotFoundError)
    weights.write_bytes(data)
    assert again() is None
    text = record.read_text()
    record.write_text(text[:-20])
    says(again, 'damaged record', 'not a complete record', 'delete it and run again')
    record.write_text(text.replace('"step": 6', '"step": 5'))
    says(again, 'damaged record', 'checksum', 'delete it and run again')


def test_loss_that_is_not_finite_keeps_the_checkpoint(tmp_path, job):
    s, loss = job()
    burst = lambda: loss()/(0. if s.step == 5 else 1.)
    says(lambda: list(fit(s, burst, 9, folder=tmp_path, every=2)), 'not finite at step 6 (loss inf)', 'lower lr', 'is kept')
    s, loss = job()
    assert len(list(fit(s, loss, 9, folder=tmp_path, every=2))) == 9-4


def test_unwritable(tmp_path):
    "A path below a regular file: even root cannot write there"
    (tmp_path/'file').write_text('kept')
    below = tmp_path/'file'/'results'
    says(lambda: writable(below), 'cannot write to', str(below), 'choose another folder')
    says(lambda: writable(tmp_path/'file'), 'cannot write to', 'choose another folder')
    for f in (lambda: write_json(below, dict(a=1)), lambda: write_bytes(below, b''),
              lambda: write_tensors(below, dict(a=torch.zeros(1)))):
        says(f, 'cannot write', str(below), 'choose another folder')
    assert (tmp_path/'file').read_text() == 'kept'


def test_unwritable_checkpoint(tmp_path, job):
    (tmp_path/'file').write_text('kept')
    s, loss = job()
    says(lambda: list(fit(s, loss, 3, folder=tmp_path/'file'/'run')), 'cannot write', 'choose another folder')


def test_record_that_json_cannot_hold(tmp_path):
    path = tmp_path/'r.json'
    write_json(path, dict(a=1))
    with pytest.raises(ValueError): write_json(path, dict(a=nan))
    assert read_json(path) == dict(a=1)  # what was there is unchanged
