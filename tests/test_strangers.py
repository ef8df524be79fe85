"What comes from other programs, in the forms they write by default: read right, or refused in one sentence"
import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from scoreguidance.calibrate import sc_total, semi
from scoreguidance.cli import main
from scoreguidance.core import bc
from scoreguidance.data import Data, as_float, as_labels, digits, from_tensor, hide, load_npz, ranged, subset, take, to_uint8
from scoreguidance.dlsm import dlsm_total
from scoreguidance.engine import batches
from scoreguidance.evaluation import evaluate, numbered, read_reference
from scoreguidance.exact import Parzen
from scoreguidance.features import extract, pixels
from scoreguidance.folders import located, read_networks, write_networks
from scoreguidance.guide import ce, drop, family, given, joint, labelled, likelihood, log_likelihood
from scoreguidance.images import EDM, NCSNpp, Reference, Shape, from_reference, to_reference
from scoreguidance.metrics import accuracy, frechet, kid, prdc
from scoreguidance.nets import Classifier, Denoiser, Gauss
from scoreguidance.readers import read
from scoreguidance.sample import heun, karras, prior, sample
from scoreguidance.score import Level, Score, at, from_denoiser, perturb
from scoreguidance.sde import VE
from scoreguidance.training import TrainingRequest, class_list, size_of
from test_bad_input import says

world = take(digits(False), torch.arange(200))
bytes_, y = to_uint8(world.x), world.y
colour = bytes_.expand(-1, 3, -1, -1).contiguous()


def png(x, **how):
    "A file of an image (c,h,w)"
    f = io.BytesIO()
    Image.fromarray(x.permute(1, 2, 0).squeeze(-1).numpy()).save(f, how.pop('format', 'PNG'), **how)
    return f.getvalue()


def fill(folder, names, xs=colour, **how):
    for n, x in zip(names, xs):
        (folder/n).parent.mkdir(parents=True, exist_ok=True)
        (folder/n).write_bytes(png(x, **how))
    return folder


# the default forms of other tools: what they write is read without an option, images and labels

def guided_diffusion(d): np.savez(d/'samples.npz', colour.permute(0, 2, 3, 1).numpy(), y.numpy()); return d/'samples.npz'
def edm_subdirs(d): return fill(d/'edm', [f'{i-i%1000:06d}/{i:06d}.png' for i in range(900, 1100)])
def edm_flat(d): return fill(d/'edm', [f'{i:06d}.png' for i in range(200)])
def unpadded(d): return fill(d/'plain', [f'{i}.png' for i in range(200)])
def torchvision(d): return fill(d/'tv', [f'{int(k)}/{i}.jpg.png' for i, k in enumerate(y)])
def own(d): save_file(dict(x=colour, y=y), d/'s.safetensors'); return d/'s.safetensors'
def bare_npy(d): np.save(d/'x.npy', colour.numpy()); return d/'x.npy'
def one_array(d): np.savez(d/'x.npz', pictures=colour.numpy(), steps=np.arange(3)); return d/'x.npz'


def stylegan(d):
    names = [f'{i//1000:05d}/img{i:08d}.png' for i in range(200)]
    fill(d/'sg', names)
    (d/'sg'/'dataset.json').write_text(json.dumps(dict(labels=[[n, int(k)] for n, k in zip(names, y)])))
    return d/'sg'


def stylegan_zip(d):
    top = stylegan(d)
    with zipfile.ZipFile(d/'sg.zip', 'w') as z:
        for p in sorted(top.rglob('*.*')): z.write(p, p.relative_to(top))
    return d/'sg.zip'


FORMS = [guided_diffusion, stylegan, stylegan_zip, own, torchvision]  # with labels
BARE = [edm_subdirs, edm_flat, unpadded, bare_npy, one_array]


@pytest.mark.parametrize('form', FORMS+BARE, ids=lambda f: f.__name__)
def test_default_forms(tmp_path, form):
    told = []
    d = read(form(tmp_path), say=told.append)
    order = y.sort(stable=True).indices if form is torchvision else torch.arange(200)
    assert torch.equal(d.x, colour[order])
    assert torch.equal(d.y, y[order] if form in FORMS else torch.full_like(y, -1))
    assert told and '200 images' in told[0]


@pytest.mark.parametrize('suffix', ['png', 'PNG', 'bmp', 'tif', 'webp'])
def test_suffixes(tmp_path, suffix):
    how = dict(format=dict(png='PNG', bmp='BMP', tif='TIFF', webp='WEBP')[suffix.lower()])
    if suffix == 'webp': how['lossless'] = True
    assert torch.equal(read(fill(tmp_path, [f'{i}.{suffix}' for i in range(20)], **how)).x, colour[:20])


# labels in another file

def savetxt(d): np.savetxt(d/'y.txt', y.numpy())
def bom(d): (d/'y.csv').write_text('label\n'+'\n'.join(map(str, y.tolist())), encoding='utf-8-sig')
def indexed(d): (d/'y.csv').write_text(',label\n'+'\n'.join(f'{i},{k}' for i, k in enumerate(y.tolist())))
def doubles(d): np.save(d/'y.npy', y.double().numpy())
def one_hot(d): np.save(d/'y.npy', np.eye(10)[y.numpy()])
def one_hot_text(d): np.savetxt(d/'y.txt', np.eye(10)[y.numpy()])
def shuffled(d): (d/'y.csv').write_text('file,label\n'+'\n'.join(f'{i}.png,{k}' for i, k in reversed(list(enumerate(y.tolist())))))
def tabs(d): (d/'y.tsv').write_text('name\tclass\n'+'\n'.join(f'{i}.png\t{k}' for i, k in enumerate(y.tolist())))
def arr(d): np.savez(d/'y.npz', y.numpy())


@pytest.mark.parametrize('form', [savetxt, bom, indexed, doubles, one_hot, one_hot_text, shuffled, tabs, arr], ids=lambda f: f.__name__)
def test_labels_beside(tmp_path, form):
    "Paired with `0.png ... 199.png` in numeric order, or by the names in the table, and the pairing is told"
    images, told = unpadded(tmp_path), []
    (tmp_path/'l').mkdir()
    form(tmp_path/'l')
    f, = (tmp_path/'l').iterdir()
    assert torch.equal(read(images, labels=f, say=told.append).y, y)
    assert f'0.png is {int(y[0])}, 199.png is {int(y[-1])}' in told[-1]


def test_words(tmp_path):
    names = np.array(['cat', 'dog', 'emu'])[np.arange(200)%3]
    (tmp_path/'y.txt').write_text('\n'.join(names))
    d = read(unpadded(tmp_path), labels=tmp_path/'y.txt')
    assert d.classes == ('cat', 'dog', 'emu') and d.y.tolist() == (np.arange(200)%3).tolist()


@pytest.mark.parametrize('text,word', [('1\n2\nx', 'no class numbers'), ('a,b,c\n1,2,3\n4,5,6', 'one class number a row'), ('1\n4e8', 'number classes from 0'),
                                       ('0.5\n1', 'whole numbers'), ('1,2\n3', 'no rows of one length'), ('', '0 labels for 2 rows'), ('file,label\nq.png,1', '1 labels for')])
def test_labels_refused(tmp_path, text, word):
    (tmp_path/'y.csv').write_text(text)
    np.savez(tmp_path/'x.npz', x=colour[:2].numpy())
    says(lambda: read(tmp_path/'x.npz', labels=tmp_path/'y.csv'), word)


@pytest.mark.parametrize('bad', [[1, 2, 4e8], np.array([1., np.nan]), np.array([[.2, .8], [.5, .5]]), [0.5, 1], np.array([1+2j]), 'abc', None])
def test_label_values(bad):
    if bad is None: assert as_labels([3, None])[0].tolist() == [3, -1]
    else: says(lambda: as_labels(bad), 'label')


# type and range

VALUES = [0, 64, 128, 255]


@pytest.mark.parametrize('kind', [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('door', ['to_uint8', 'from_tensor', 'load_npz', 'read', 'extract', 'evaluate'])
def test_bytes_of_any_type(tmp_path, kind, door):
    "Whole numbers 0..255 are bytes, through every door"
    x = torch.tensor(VALUES).reshape(1, 1, 2, 2).expand(16, -1, -1, -1).contiguous()
    if kind == torch.bfloat16: x = x.clamp(max=254)
    want, x = x.to(torch.uint8), x.to(kind)
    if door == 'to_uint8': got = to_uint8(x)
    elif door == 'from_tensor': got = from_tensor(x).x
    elif door == 'extract': got = to_uint8(extract(pixels(), x, bar=False).reshape(x.shape))
    elif door == 'evaluate':
        r = evaluate(Data(x, torch.full((16,), -1)), Data(want, torch.full((16,), -1)), times=0)
        assert abs(r.values['frechet'][0]) < 1e-9
        return
    elif kind == torch.bfloat16: save_file(dict(x=x), tmp_path/'x.safetensors'); got = read(tmp_path/'x.safetensors').x
    else:
        np.savez(tmp_path/'x.npz', x=x.numpy())
        got = (load_npz if door == 'load_npz' else read)(tmp_path/'x.npz').x
    assert torch.equal(to_uint8(got), want)


def test_scale_of_floats(tmp_path):
    x = torch.rand(20, 1, 4, 4, dtype=torch.float64)
    assert torch.equal(from_tensor(2*x-1).x, (2*x-1).float())
    assert (ranged(x, (0, 1))-(2*x-1)).abs().max() < 1e-6
    for v in (x, x-.004*(torch.arange(20) == 3)[:, None, None, None]*(x < .02), torch.zeros(2, 1, 4, 4)): says(lambda v=v: from_tensor(v), 'say what black and white are')
    low = x.clone(); low[0, 0, 0, 0] = -.004
    says(lambda: from_tensor(low), 'only 0.31% are negative', '0 1')
    assert ranged(low, (0, 1)).min() == -1                                              # told, a little overshoot is clipped
    says(lambda: from_tensor(200*x), 'must lie in [-1,1]', '0 255')
    for inf in (np.inf, -np.inf, np.nan): says(lambda v=inf: to_uint8(torch.tensor([[v, 0.]])), 'among the samples')
    says(lambda: ranged(torch.tensor([0, 1])), 'black and white')
    says(lambda: ranged(torch.tensor([0, 4000])), 'such as 0 65535')
    says(lambda: ranged(bytes_, (0, 1)), 'leave the range')
    assert torch.equal(from_tensor(np.array(x > .5)).x, (x > .5).float()*2-1)           # two colours
    assert torch.equal(from_tensor([v for v in colour]).x, colour) and torch.equal(from_tensor(colour.tolist()).x, colour)
    says(lambda: from_tensor('images'), 'images'); says(lambda: from_tensor(torch.zeros(2, 1, 4, 4, dtype=torch.complex64)), 'real numbers')


# folders

def test_what_does_not_count(tmp_path, recwarn):
    d, told = torchvision(tmp_path), []
    for junk in ('.ipynb_checkpoints/a.png', '__MACOSX/0/._a.png', '0/._0.png', 'Thumbs.db', '0/Thumbs.db', '.DS_Store'):
        (d/junk).parent.mkdir(parents=True, exist_ok=True)
        (d/junk).write_bytes(b'junk')
    (d/'grid.png').write_bytes(png(colour[0]))
    (d/'notes.txt').write_text('mine')
    got = read(d, say=told.append)
    assert len(got.x) == 200 and got.classes == tuple('0123456789')
    assert any('1 images not read: grid.png' in t for t in told) and any('notes.txt' in t for t in told)
    with pytest.warns(UserWarning, match='grid.png'): read(d)                           # not without a word in Python either


@pytest.mark.parametrize('names,word', [([f'{i}.png' for i in range(9)]+[f'a/{i}.png' for i in range(9)], 'move one of them'),
                                        (['train/0/1.png', 'test/0/2.png'], 'give one of these'), (['a/1.txt'], 'give the folder')])
def test_folders_refused(tmp_path, names, word):
    fill(tmp_path, names)
    says(lambda: read(tmp_path), word, error=FileNotFoundError if 'txt' in names[0] else ValueError)


def test_deep_folders_and_numbers_that_are_classes(tmp_path):
    d = read(fill(tmp_path/'a', ['x/cat/1/a.png', 'x/dog/b.png', 'x/dog/2/c.png']))
    assert d.classes == ('cat', 'dog') and d.y.tolist() == [0, 1, 1]
    assert read(fill(tmp_path/'b', ['00001/a0.png', '00002/a1.png'])).classes == ('00001', '00002')     # no shelf of these numbers


def pile(f):
    big = io.BytesIO()
    Image.new('1', (20_000, 20_000)).save(big, 'PNG')
    f.write_bytes(big.getvalue())


@pytest.mark.parametrize('made,word', [(pile, 'pixels'), (lambda f: f.write_bytes(b'?'), 'no readable image'), (lambda f: Image.new('RGBA', (8, 8)).save(f), 'mode RGBA'),
                                       (lambda f: Image.new('P', (8, 8)).save(f), 'mode P'), (lambda f: f.write_bytes(png(colour[0])[:90]), 'no readable image')])
def test_pictures_refused(tmp_path, made, word):
    made(tmp_path/'a.png')
    says(lambda: read(tmp_path), word)


def test_a_picture_with_much_text(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text('workflow', 'x'*2_000_000, zip=True)
    (tmp_path/'a.png').write_bytes(png(colour[0], pnginfo=text))
    assert torch.equal(read(tmp_path).x, colour[:1])


# classes by name

def classes(*names, n=40): return from_tensor(bytes_[:n], torch.arange(n)%len(names), names)


@pytest.mark.parametrize('ours,theirs,want', [
    ('012', '012', [0, 1, 2]), (('01', '02', '10'), ('1', '2', '10'), [0, 1, 2]), (('10', '2', '1'), ('1', '2', '10'), [2, 1, 0]),
    (('dog', 'cat'), ('cat', 'dog', 'emu'), [1, 0]), ('02', ('cat', 'dog', 'emu'), [0, 2]), ('37', '0123456789', [3, 7])])
def test_classes_match(ours, theirs, want): assert numbered(classes(*ours), tuple(theirs)).y[:len(ours)].tolist() == want


@pytest.mark.parametrize('ours,theirs', [('123456789', '012345678'), ('012345678', '123456789'), (('cat', 'dog'), '01'), (('cat', 'cow'), ('cat', 'dog')), ('03', ('cat', 'dog', 'emu'))])
def test_classes_refused(ours, theirs): says(lambda: numbered(classes(*ours), tuple(theirs)), 'are no classes of the reference')


def test_one_name_twice(): says(lambda: numbered(classes('1', '01'), ('0', '1')), 'rename one')


def test_names_travel(tmp_path):
    save_file(dict(x=colour[:4], y=torch.tensor([0, 1, 0, 1])), tmp_path/'s.safetensors', dict(classes=json.dumps(['3', '7'])))
    d = read(tmp_path/'s.safetensors')
    assert d.classes == ('3', '7') and numbered(d, tuple('0123456789')).y.tolist() == [3, 7, 3, 7]
    assert class_list('3,7', ['3', '7'], 4).tolist() == [0, 1, 0, 1]
    says(lambda: class_list('1', ['3', '7'], 4), 'no class 1')                               # a number is a name here
    assert class_list('1', ['cat', 'dog'], 2).tolist() == [1, 1]


# training

def test_nothing_is_mirrored_unasked():
    x = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4).expand(8, -1, -1, -1)
    assert not TrainingRequest('score', 'x').mirror and TrainingRequest('score', 'x', mirror=True).mirror
    for flip in (False, True):
        b, _ = batches(x, torch.zeros(8).long(), VE(1e-9, 2e-9), 64, flip=flip)()
        assert (to_uint8(b.x)-x[:1]).any().item() == flip


@pytest.mark.parametrize('level', [0, 127, 255])
def test_scale_is_about_zero(level):
    "What EDM's frame needs is the root mean square: of all-white data it is 1, not 0"
    x = torch.full((10, 1, 4, 4), level, dtype=torch.uint8)
    assert abs(size_of(x)-max(abs(level/127.5-1), .01)) < 1e-6


# named references

def test_places(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path)); monkeypatch.setenv('DATA', str(tmp_path))
    np.savez(tmp_path/'x.npz', x=colour[:4].numpy())
    for v in ('~/x.npz', '$DATA/x.npz'): assert len(read(v).x) == len(read_reference(v)[0].x) == 4
    for v in ('cifar10:~/no', 'cifar10:$DATA/no'): assert str(tmp_path) in says(lambda v=v: read_reference(v), 'no cifar10 in', error=FileNotFoundError)
    says(lambda: read_reference('digits', labels='y.txt'), 'leave reference-labels out')


# diffusers

m, var = .3, .16
diffusers = pytest.importorskip('diffusers')
from scoreguidance.bridge import CHAINS, EDMS, from_diffusers, schedule  # noqa: E402


def exact(sde, kind, sd=None, learned=False):
    "The network that knows N(m, var), in a scheduler's convention"
    def net(x, when, **_):
        if sd:
            sg = bc((4*when).exp(), x)
            v = sg**2+sd**2
            x = x*v.sqrt()
            out = dict(epsilon=1., v_prediction=-1.)[kind]*((var*x+sg**2*m)/(var+sg**2)-sd**2/v*x)*v.sqrt()/(sg*sd)
        elif isinstance(sde, VE): out = (m-x)/(var+bc(when, x)**2)
        else:
            a, sg = (bc(f(sde.time(when)), x) for f in (sde.alpha, sde.sigma))
            z, x0 = sg*(x-a*m)/(a**2*var+sg**2), m+a*var*(x-a*m)/(a**2*var+sg**2)
            out = dict(epsilon=z, sample=x0, v_prediction=a*z-sg*x0)[kind]
        return SimpleNamespace(sample=torch.cat([out, out+9], 1) if learned else out)
    return net


def moments(s, sde, n=30):
    x = prior(sde, torch.zeros(2000, 1, 1, 1, dtype=torch.float64))
    *_, x = sample(heun, s, sde, x, karras(sde, n))
    return x.mean().item(), x.std().item()


CASES = [(n, k) for n in CHAINS for k in ('epsilon', 'sample', 'v_prediction')] + [(n, k) for n in EDMS for k in ('epsilon', 'v_prediction')]


@pytest.mark.parametrize('name,kind', [*CASES, ('ScoreSdeVeScheduler', '')])
def test_schedulers(name, kind):
    sch = getattr(diffusers, name)(**(dict(prediction_type=kind) if kind else dict(sigma_min=.05, sigma_max=20.)))
    s, sde = from_diffusers(exact(schedule(sch), kind, float(sch.config['sigma_data']) if name in EDMS else None), sch)
    mean, sd = moments(s, sde)
    assert abs(mean-m) < .04 and abs(sd-var**.5) < .03


@pytest.mark.parametrize('name', ['FlowMatchEulerDiscreteScheduler', 'KarrasVeScheduler', 'CMStochasticIterativeScheduler', 'LCMScheduler', 'TCDScheduler', 'IPNDMScheduler',
                                  'CosineDPMSolverMultistepScheduler'])
def test_schedulers_refused(name):
    cls = getattr(diffusers, name, None) or getattr(diffusers.schedulers, name)
    try: sch = cls()
    except ImportError: sch = type(name, (), {})()      # needs a library that is not here: the closed list goes by name
    says(lambda: from_diffusers(None, sch), f'{name} is not known')


@pytest.mark.parametrize('how', [dict(use_flow_sigmas=True), dict(prediction_type='flow_prediction')])
def test_bent_schedulers(how): says(lambda: from_diffusers(None, diffusers.UniPCMultistepScheduler(**how)), 'not known')


def test_zero_terminal_snr():
    flat = dict(rescale_betas_zero_snr=True)
    for kind in ('v_prediction', 'sample'):
        sch = diffusers.DDIMScheduler(prediction_type=kind, **flat)
        s, sde = from_diffusers(exact(schedule(sch), kind), sch)
        mean, sd = moments(s, sde, 120)
        assert abs(mean-m) < .04 and abs(sd-var**.5) < .03
    says(lambda: schedule(diffusers.DDIMScheduler(**flat)), 'zero terminal SNR')


def test_learned_variance():
    sch = diffusers.DDPMScheduler()
    a, sde = from_diffusers(exact(schedule(sch), 'epsilon'), sch)
    b, _ = from_diffusers(exact(sde, 'epsilon', learned=True), sch)
    x = torch.randn(3, 2, 4, 4)
    assert torch.equal(a(x, torch.tensor(.3)), b(x, torch.tensor(.3)))


def test_networks_of_diffusers():
    tiny = dict(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, down_block_types=('DownBlock2D',)*2,
                up_block_types=('UpBlock2D',)*2)
    net, sch, x = diffusers.UNet2DModel(**tiny, num_class_embeds=3).eval(), diffusers.DDPMScheduler(), torch.randn(2, 1, 8, 8)
    for bad in (None, torch.tensor([-1, 0]), torch.tensor([0, 3])): says(lambda bad=bad: from_diffusers(net, sch, bad), '0 to 2')
    def asked(net): return from_diffusers(net, sch, torch.tensor([0, 2]))[0](x, torch.tensor(.3))
    with torch.no_grad(): full, half = asked(net), asked(net.bfloat16())
    assert half.dtype == torch.float32 and (half-full).abs().max() < .1*full.abs().max()


# the command line never shows a traceback

def command(capsys, *words):
    try: status = main(list(map(str, words)))
    except SystemExit as e: status = e.code
    got = capsys.readouterr()
    assert 'Traceback' not in got.err+got.out
    return status, got.err, got.out


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('HOME', str(tmp_path/'digits'))
    np.savez('x.npz', x=bytes_.numpy(), y=y.numpy())
    (tmp_path/'digits').mkdir()
    return tmp_path


def test_options_of_one_file(here, capsys):
    "Samples in [0,1], channels last and called z; the reference in bytes, channels first and called r"
    np.savez('z.npz', z=(colour.float()/255).permute(0, 2, 3, 1).numpy(), other=colour.numpy(), y=y.numpy())
    np.savez('r.npz', r=colour.numpy(), more=colour[:3].numpy(), y=y.numpy())
    words = 'evaluate z.npz --reference r.npz --features pixels --times 0 --key z --range 0 1 --channels-last --reference-key r --json a.json'.split()
    assert command(capsys, *words)[0] == 0
    assert json.loads((here/'a.json').read_text())['values']['frechet'][0] < 1e-6
    assert 'leave' in command(capsys, *words, '--reference-range', 0, 1)[1]


@pytest.mark.parametrize('words,word', [
    (('--reference-labels', 'y.txt'), 'leave reference-labels out'), (('--range', '0', '1'), 'leave the range'), (('--weights', 'w'), 'leave --weights'),
    (('--download',), 'leave --weights'), (('--times', '1'), '--times 1'), (('--key', 'q'), 'holds x, y'), (('--labels', 'no'), 'no labels at'),
    (('--device', 'gpu'), 'no device'), (('--nfe', 'x'), 'invalid int value')])
def test_options_without_effect(here, capsys, words, word):
    status, err, _ = command(capsys, 'evaluate', 'x.npz', '--reference', 'digits', '--features', 'inception' if 'gpu' in words else 'pixels', *words)
    assert status == 2 and word in err and len(err.strip().splitlines()) == 1


def test_no_folder_of_ones_own_is_taken_for_the_digits(here, capsys):
    status, _, out = command(capsys, 'evaluate', 'x.npz', '--reference', 'digits', '--features', 'pixels', '--times', '0')
    assert status == 0 and './digits is your own' in out
    assert command(capsys, 'evaluate', 'x.npz', '--reference', './digits', '--features', 'pixels')[0] == 2


@pytest.mark.parametrize('net', ['tiny', 'small'])
def test_advice_can_be_followed(here, capsys, net):
    "Nothing is advised that is chosen already or that the command has not"
    np.savez('odd.npz', x=np.zeros((20, 1, 7, 7), np.uint8)); np.savez('unit.npz', x=np.full((20, 1, 8, 8), .5))
    err = command(capsys, 'train', 'score', 'odd.npz', '--preset', 'smoke', '--net', net, '--out', 'o')[1]
    assert 'multiples of' in err and ('--net tiny' in err) == (net == 'small')
    err = command(capsys, 'train', 'score', 'unit.npz', '--preset', 'smoke', '--net', net, '--out', 'o')[1]
    assert '--range' in err
    assert 'set download=True' not in command(capsys, 'train', 'score', 'cifar10:here', '--out', 'o')[1]


def test_one_metric_fails_and_the_rest_is_there():
    one = Data(bytes_[:60], torch.zeros(60, dtype=torch.long))
    r = evaluate(one, one, one, times=0)
    assert 'frechet' in r.values and any('no CAS' in n for n in r.notes)


def test_the_limit_is_never_without_its_interval():
    rng = torch.Generator().manual_seed(0)
    def some(n): return Data(torch.randint(0, 256, (n, 1, 2, 2), generator=rng, dtype=torch.uint8), torch.full((n,), -1))
    assert 'frechet_infinite' not in evaluate(some(39), some(200), times=3).values
    v = evaluate(some(120), some(200), times=3).values['frechet_infinite']
    assert v[1] is not None


HOSTILE = dict(empty=b'', text=b'hello', zeros=bytes(200), zip=b'PK\x03\x04'+bytes(50), npy=b'\x93NUMPY'+bytes(40), png=b'\x89PNG\r\n\x1a\n'+bytes(40), json=b'{"labels": 3}', deep=b'['*3000)


@pytest.mark.parametrize('content', HOSTILE)
def test_fuzz_files(here, capsys, content):
    "Any content under any name, for samples, labels, records and folders: a sentence, never a traceback"
    (here/'folder').mkdir()
    quick = ['--features', 'pixels', '--times', '0']
    for name in ('a.npz', 'a.npy', 'a.safetensors', 'a.zip', 'a.csv', 'a.json', 'folder/a.png', 'folder/config.json', 'folder/dataset.json'):
        (here/name).write_bytes(HOSTILE[content])
        at = name.split('/')[0]
        for words in (['evaluate', at, '--reference', 'x.npz', *quick], ['evaluate', 'x.npz', '--reference', 'x.npz', '--labels', at, *quick], ['compare', at],
                      ['sample', at, '--out', 's.safetensors'], ['table', at], ['evaluate', 'x.npz', '--reference', 'x.npz', '--features', 'inception', '--weights', at]):
            status, err, _ = command(capsys, *words)
            assert status and len(err.strip().splitlines()) <= 1 and 'not foreseen' not in err, (words, err)


ODD = ['', '-1', '0', 'nan', 'None', '~', 'a,b', '99999999999999999999']
OPTIONS = [('evaluate', 'x.npz', '--reference', 'x.npz', '--features', 'pixels', '--times', '0', o) for o in ('--times', '--device', '--nfe', '--key', '--test', '--labels', '--features')] + \
    [('train', 'score', 'x.npz', '--out', 'o', '--preset', 'smoke', '--net', 'tiny', '--steps', '1', o) for o in ('--labels', '--batch', '--seed', '--slices', '--device', '--method')] + \
    [('sample', 'digits', '--out', 's.safetensors', '--n', '1', '--steps', '2', o) for o in ('--n', '--steps', '--classes', '--seed', '--batch', '--device')]


@pytest.mark.parametrize('words', OPTIONS, ids=lambda w: f'{w[0]} {w[-1]}')
def test_fuzz_options(here, capsys, words):
    for v in ODD:
        status, err, _ = command(capsys, *words, v)
        assert 'not foreseen' not in err and len(err.strip().splitlines()) <= 1, (words, v, err)


@pytest.mark.parametrize('n', ['0', '-1', 'two', ''])
def test_workers(here, capsys, n):
    status, err, _ = command(capsys, 'reproduce', 'digits', '-p', 'preset', 'smoke', '-p', 'workers', n) if n else (2, 'workers', '')
    assert status == 2 and 'workers' in err


# networks in wrappers, and whole checkpoints

def test_wrapped_networks(tmp_path):
    net, x, t = Denoiser(Gauss((2,)), 8, 1), torch.randn(4, 2), torch.ones(4)
    torch.nn.init.normal_(net.body.out.weight)
    wrapped = dict(plain=net, compiled=torch.compile(net, backend='eager'), spread=torch.nn.DataParallel(net), averaged=torch.optim.swa_utils.AveragedModel(net),
                   both=torch.compile(torch.nn.DataParallel(net), backend='eager'))
    for k, v in wrapped.items():
        write_networks(tmp_path/k, dict(score=v), VE())
        assert torch.equal(read_networks(tmp_path/k)[0]['score'](x, t), net(x, t)), k


def test_checkpoints():
    own = to_reference(Reference(NCSNpp(Shape(8, (1, 1), 1, ()))))
    x, level = torch.randn(2, 3, 8, 8), torch.ones(2)
    want = from_reference(own)(x, level)
    other = {k: v+1 for k, v in own.items()}
    trained = [k for k in own if k != 'sigmas' and not k.endswith('.W')]
    rest = {k: own[k] for k in own if k not in trained}
    score_sde = dict(optimizer={}, step=3, model={**{f'module.{k}': other[k] for k in own}, **{f'module.{k}': v for k, v in rest.items()}},
                     ema=dict(decay=.999, num_updates=3, shadow_params=[own[k] for k in trained]))
    whole = {'plain': own, 'ema': dict(model=other, ema=own, step=torch.ones(1)), 'state_dict': dict(state_dict=own, epoch=3), 'score_sde': score_sde}
    whole |= {p: {p+k: v for k, v in own.items()} for p in ('module.', '_orig_mod.', 'module._orig_mod.', 'averaged_model.')}
    for k, s in whole.items(): assert torch.equal(from_reference(s)(x, level), want), k
    says(lambda: from_reference(dict(optimizer={}, step=1)), 'not the weights of an NCSN++')


def test_folder_of_diffusers(tmp_path):
    for file in ('config.json', 'model_index.json'):
        (tmp_path/file).write_text('{"_class_name": "UNet2DModel"}')
        for f in (read_networks, located): says(lambda f=f: f(tmp_path), 'UNet2DModel of diffusers', 'from_diffusers')
        (tmp_path/file).unlink()


def test_a_gaussian_too_large(): says(lambda: Gauss((3, 128, 128)), '49152 dimensions', '10 GB')

# lists, arrays and columns where tensors are meant

sde2, x2, t2 = VE(), torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.full((6,), .5)
y2 = torch.tensor([0, 1, 2, 0, 1, 2])
cond, judge = Denoiser(Gauss((2,)), 16, 1, classes=3), Classifier(Gauss((2,)), 3, 16, 1)
for p in (cond.body.out.weight, judge.body.out.weight): torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
b2 = perturb(sde2, x2, .5, randn=torch.ones_like)
KEPT = dict(list=y2.tolist(), tuple=tuple(y2.tolist()), numpy=y2.numpy(), bytes=y2.numpy().astype(np.uint8), short=y2.int(), byte=y2.byte())
BOUND = dict(given=lambda y: from_denoiser(at(given(cond, y), sde2), sde2)(x2, t2), family=lambda y: family(cond, sde2)(y)(x2, t2),
             likelihood=lambda y: likelihood(at(judge, sde2), y)(x2, t2), joint=lambda y: joint(at(judge, sde2), y)(x2, t2),
             log=lambda y: log_likelihood(at(judge, sde2), y)(x2, t2), ce=lambda y: ce(at(judge, sde2), b2, y), labelled=lambda y: labelled(b2, y)[1],
             sc=lambda y: sc_total(at(judge, sde2), sde2, b2, y), dlsm=lambda y: dlsm_total(at(judge, sde2), cond, sde2, b2, y), drop=lambda y: drop(y, 0.),
             hide=lambda y: hide(y, [0, 4]), subset=lambda y: subset(y, .5, 0), semi=lambda y: semi(x2, y, 9)()[1].sort().values.unique(),
             batches=lambda y: batches(bytes_[:6], y, VE(), 60)()[1].unique(), accuracy=lambda y: torch.tensor(accuracy(torch.eye(3)[y2.flip(0)], y)))


@pytest.mark.parametrize('kept', KEPT)
@pytest.mark.parametrize('bound', BOUND)
def test_labels_in_any_container(bound, kept):
    got, want = BOUND[bound](KEPT[kept]), BOUND[bound](y2)
    assert torch.equal(got, want)


@pytest.mark.parametrize('bad,word', [(y2.float(), 'y.long()'), ([.5]*6, 'y.long()'), (torch.eye(3)[y2], 'as_labels'), (list('abcabc'), 'a list of numbers'), ([0, None]*3, 'a list of numbers'),
                                      (3, 'for each row'), ([[0, 1], [2]], 'a list of numbers'), (y2 > 0, 'as_labels')], ids=str)
@pytest.mark.parametrize('bound', BOUND)
def test_labels_that_are_none(bound, bad, word): says(lambda: BOUND[bound](bad), word)


@pytest.mark.parametrize('bound', ['likelihood', 'joint', 'log', 'ce', 'sc', 'dlsm', 'hide', 'subset', 'semi', 'batches', 'accuracy', 'labelled', 'drop'])
def test_labels_cannot_be_left_out(bound): says(lambda: BOUND[bound](None), 'NoneType')


@pytest.mark.parametrize('x', [x2.tolist(), x2.numpy(), None, 'x', (1, 2)], ids=lambda x: type(x).__name__)
def test_rows_are_tensors(x):
    s = from_denoiser(at(cond, sde2), sde2)
    for f in (lambda: next(sample(heun, s, sde2, x, [1., .5])), lambda: prior(sde2, x), lambda: cond(x, t2), lambda: s(x, .5), lambda: perturb(sde2, x, .5),
              lambda: Parzen(sde2, x), lambda: semi(x, y2, 4)): says(f, 'tensor')


@pytest.mark.parametrize('w', [[1., 2., 3., 1., 2., 3.], (2,)*6, np.arange(6.), np.float64(2.), np.float32(2.), torch.arange(6)])
def test_weights_and_times_in_any_container(w):
    s, v = Score(from_denoiser(at(cond, sde2), sde2)), torch.as_tensor(w).float()
    want = bc(v, x2)*s(x2, t2)
    for f in (w*s, s*w): assert torch.equal(f(x2, t2), want)
    assert torch.equal(s(x2, t2.tolist()), s(x2, t2)) and torch.equal(s(x2, t2.numpy()), s(x2, t2))
    for bad in (None, 'two', [None]): says(lambda bad=bad: bad*s, 'a list of numbers')
    says(lambda: s(x2, 'half'), 'a list of numbers')


KINDS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize('own', KINDS)
@pytest.mark.parametrize('given_', KINDS)
@pytest.mark.parametrize('form', [lambda: Denoiser(Gauss((2,)), 16, 1, classes=3), lambda: EDM(NCSNpp(Shape(8, (1,), 1, (), classes=3)))], ids=['rows', 'images'])
def test_networks_of_any_kind(form, given_, own):
    "Bound by `at` or `given`, a network is asked in its own type and answers in that of its rows; asked directly, one sentence"
    torch.manual_seed(0)
    net, x = form(), torch.randn(3, *((2,) if form().__class__ is Denoiser else (3, 8, 8)))
    want = net(x, torch.full((3,), 2.)).detach()
    net, x = net.to(own), x.to(given_)
    for f in (at(net, Level(2.)), at(given(net, [0, 1, -1]), Level(2.))): out = f(x, torch.full((3,), .5).to(given_)); assert out.dtype == given_
    got = at(net, Level(2.))(x, torch.full((3,), .5).to(given_))
    assert (got.float()-want).abs().max() < .05*want.abs().max()
    if own == torch.float32 and given_ == torch.float64: says(lambda: net(x, torch.full((3,), 2.).to(x)), 'at(net, sde)')


def test_images_in_any_container():
    plain, y = bytes_[:40].numpy(), world.y[:40]
    want = evaluate(Data(bytes_[:40], y), Data(bytes_[40:80], world.y[40:80]), times=0).values
    for x in (plain, plain.tolist(), plain.astype(np.int64), torch.from_numpy(plain).double()):
        got = evaluate((x, y.tolist()), (bytes_[40:80].numpy(), world.y[40:80].numpy()), times=0).values
        assert got == want
    assert torch.equal(extract(pixels(), plain, bar=False), extract(pixels(), bytes_[:40], bar=False))
    assert torch.equal(batches(plain, y, VE(1e-9, 2e-9), 200, flip=False)()[1].unique(), y.unique())
    says(lambda: evaluate(plain, plain, times=0), 'from_tensor(x, y)')
    for bad in (None, 'images', [[1, 2], [3]]):
        for f in (to_uint8, as_float, from_tensor, lambda v: extract(pixels(), v, bar=False)): says(lambda f=f, bad=bad: f(bad), '')
    for f in (frechet, kid, prdc): says(lambda f=f: f('features', torch.randn(9, 2)), 'a list of numbers')
