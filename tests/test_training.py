"The commands `train` and `sample` on files like CIFAR's: slices, kills, wrong requests, and what the judge makes of it"
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scoreguidance.cli import main
from scoreguidance.data import as_float, digest
from scoreguidance.engine import batches, runner
from scoreguidance.evaluation import read
from scoreguidance.files import read_json
from scoreguidance.folders import read_networks
from scoreguidance.hub import from_pretrained
from scoreguidance.methods import METHODS, Context
from scoreguidance.score import at, from_denoiser
from scoreguidance.sde import VE
from scoreguidance.selflearn import pseudo
from scoreguidance.train import start
from scoreguidance.training import TrainingRequest, blank, load, recipe_of, train_network

fast = dict(net='tiny', preset='smoke', steps=3, batch=4)


def flags(**kw): return [w for k, v in kw.items() for w in (f'--{k}', str(v))]


@pytest.fixture(scope='module')
def cifar(tmp_path_factory):
    "Images of CIFAR's form, two classes that differ in brightness, as a file"
    file = tmp_path_factory.mktemp('cifar')/'images.npz'
    rng, y = np.random.RandomState(0), np.arange(40) % 2
    np.savez(file, x=(rng.randint(0, 128, (40, 3, 32, 32))+127*y[:, None, None, None]).astype(np.uint8), y=y)
    return str(file)


def command(*argv): return [sys.executable, '-c', 'from scoreguidance.cli import main; raise SystemExit(main())', *argv]


@pytest.fixture(scope='module')
def networks(cifar, tmp_path_factory):
    "A score, a conditional network and a classifier, by command"
    out = tmp_path_factory.mktemp('networks')
    for what, more in (('score', {}), ('conditional', dict(labels=.5)), ('classifier', dict(labels=.25, method='CG-SC-all'))):
        assert main(['train', what, cifar, '--out', str(out/what), '--device', 'cpu', *flags(**fast, **more)]) == 0
    return out


def test_slices_are_one_run(cifar, networks, tmp_path):
    "Slices of no time, each of one step, end with the same file, for a classifier trained with SC too"
    for what, more in (('score', {}), ('classifier', dict(labels=.25, method='CG-SC-all'))):
        ask = TrainingRequest(what, cifar, **fast, **more)
        assert [train_network(ask, tmp_path/what, 'cpu', max_seconds=1e-9) for _ in range(3)] == [2, 1, 0]
        file = f'{what}/model.safetensors'
        assert (tmp_path/file).read_bytes() == (networks/file).read_bytes()
        assert sorted(p.name for p in (tmp_path/what).iterdir()) == ['README.md', 'config.json', 'model.safetensors', 'run.json']


def test_killed_and_resumed(tmp_path):
    "The command is killed after a checkpoint; the same command ends with the file of an uninterrupted one"
    args = lambda out: ['train', 'score', 'digits', '--device', 'cpu', '--out', str(out), *flags(net='tiny', preset='smoke', steps=60, batch=2)]
    p = subprocess.Popen(command(*args(tmp_path/'cut')), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.time()+120
    while not (tmp_path/'cut'/'train'/'checkpoint.json').exists() and time.time() < until and p.poll() is None: time.sleep(.01)
    os.kill(p.pid, signal.SIGKILL)
    assert p.wait() == -signal.SIGKILL and read_json(tmp_path/'cut'/'train'/'checkpoint.json')['step'] < 60
    for out in ('cut', 'whole'): assert main(args(tmp_path/out)) == 0
    assert (tmp_path/'cut'/'model.safetensors').read_bytes() == (tmp_path/'whole'/'model.safetensors').read_bytes()


def test_the_hub_reads_it(networks):
    m, c = from_pretrained(networks/'score'), from_pretrained(networks/'classifier')
    assert m.shape == (3, 32, 32) and c.classes == ('0', '1') and '25% of the labels' in c.about
    x, t = torch.randn(2, 3, 32, 32), torch.full((2,), .5)
    assert m.score(x, t).shape == x.shape and c.clf(x, t).shape == (2, 2)


@pytest.mark.parametrize('score', ['score', 'conditional'])
def test_sampled_and_judged(cifar, networks, tmp_path, score, capsys):
    "Guided by a classifier, and by the conditional network itself; the file is one that `evaluate` takes"
    out = tmp_path/'s.safetensors'
    guide = ['--classifier', str(networks/'classifier')] if score == 'score' else []
    draw = ['sample', str(networks/score), *guide, '--device', 'cpu', '--out', str(out), '--grid', str(tmp_path/'g.png')]
    draw += flags(scale=2, n=18, steps=3, batch=5)
    assert main(draw) == 0
    d, before = read(out), out.stat().st_mtime_ns
    assert d.x.shape == (18, 3, 32, 32) and d.y.tolist() == [0, 1]*9 and (tmp_path/'g.png').stat().st_size > 500
    assert main(draw) == 0 and out.stat().st_mtime_ns == before, 'drawn again'
    one = ['sample', str(networks/score), *guide, '--device', 'cpu', '--out', str(tmp_path/'one.safetensors')]
    assert main([*one, *flags(scale=2, n=18, steps=3, batch=18)]) == 0
    close = (read(tmp_path/'one.safetensors').x.int()-d.x.int()).abs().max() if d.x.dtype == torch.uint8 else (read(tmp_path/'one.safetensors').x-d.x).abs().max()
    assert close <= 1, 'samples depend on the batch'
    assert main(['evaluate', str(out), '--reference', cifar, '--features', 'pixels', '--times', '0', '--json', str(tmp_path/'r.json')]) == 0
    assert 'frechet' in read_json(tmp_path/'r.json')['values']


def trained(out, *argv):
    "The weights that a command leaves"
    assert main(['train', *argv, '--out', str(out), '--device', 'cpu']) == 0
    return load_file(out/'model.safetensors')


@pytest.mark.parametrize('name', [k for k, m in METHODS.items() if m.loss])
def test_a_row_of_the_tables(name, cifar, networks, tmp_path):
    "Three steps by command, and by the row's own expressions: loss, share of labelled rows, teacher, score, average"
    m, sde, steps = METHODS[name], VE(.01, 50.), 3
    folders = {k: networks/v for k, v in dict(score='score', teacher='classifier').items() if getattr(m, 'prior' if k == 'score' else k)}
    got = trained(tmp_path/'out', m.kind.name, cifar, *flags(**{**fast, 'batch': 8}, method=name, labels=.25, lam=.7, **folders))
    ask = TrainingRequest(m.kind.name, cifar, **{**fast, 'batch': 8}, method=name, labels=.25, lam=.7, **folders)
    x, y, names = load(ask, torch.device('cpu'))
    s, nets = start(blank(ask, x, 2)), {k: read_networks(v)[0] for k, v in folders.items()}
    if m.teacher: y = pseudo(at(nets['teacher']['clf'], sde), as_float(x), y, m.sure)
    score = from_denoiser(at(nets['score']['score'], sde), sde) if m.prior else None
    ema = m.kind.read(runner(s.ema.eval()), sde)    # read as `train` does: at first student and average differ by rounding, which Adam enlarges
    known = Context(sde, score, ema, lam=.7)
    draw = batches(x, y, sde, 8, m.share, flip=False)
    for i in range(steps):
        torch.manual_seed(i)
        for g in s.opt.param_groups: g['lr'] = recipe_of(ask).rate(i)
        b, yb = draw()
        s.opt.zero_grad(); m.loss(m.kind.read(s.net, sde), known, b, yb).backward()
        torch.nn.utils.clip_grad_norm_(s.net.parameters(), 1.); s.opt.step()
        for p, q in zip(s.ema.parameters(), s.net.parameters()): p.lerp_(q.detach(), 1-(i+1)/(i+10))
    flat = lambda d: torch.cat([d[k].flatten() for k in s.ema.state_dict()])
    was, want, have = map(flat, (blank(ask, x, 2).state_dict(), s.ema.state_dict(), {k.removeprefix(f'{m.kind.stored}.'): v for k, v in got.items()}))
    assert (have-want).norm() < 1e-4*(want-was).norm()


def test_what_a_row_wants(cifar, networks, tmp_path, capsys):
    "A network of another kind, or of other data, is refused in a sentence"
    for argv, word in (((*flags(method='CG-DLSM', score=networks/'classifier'),), 'holds clf, and no score'),
                       ((*flags(method='CG-DLSM', score='digits'),), 'is for items of shape (1, 8, 8), and the data have (3, 32, 32)'),
                       ((*flags(method='CG-SC-student', teacher=networks/'score'),), 'holds score, and no clf'),
                       ((*flags(method='CG', teacher='x'),), 'CG asks for no teacher'), (('--loss', 'sc'), 'as --method CG-SC-all')):
        try: code = main(['train', 'classifier', cifar, *argv, *flags(**fast), '--out', str(tmp_path/'out'), '--device', 'cpu'])
        except SystemExit as e: code = e.code
        err = capsys.readouterr().err
        assert code == 2 and word in err and err.count('\n') == 1, err
    assert not (tmp_path/'out').exists()


WRONG = [(['train', 'gan', 'digits'], "unknown kind 'gan': choose score, conditional or classifier"),
         (['train', 'score', 'digits', '--net', 'huge'], "unknown net 'huge': choose tiny, small, full or deep"),
         (['train', 'score', 'digits', '--preset', 'quick'], "unknown preset 'quick': choose smoke or paper"),
         (['train', 'classifier', 'digits', '--method', 'mse'], 'unknown method mse: choose among CG, CG-SC-labeled'),
         (['train', 'classifier', 'digits', '--method', 'Cond'], 'Cond trains a conditional network, and a classifier is asked for'),
         (['train', 'conditional', 'digits', '--method', 'CG-exact'], 'CG-exact trains nothing'),
         (['train', 'classifier', 'digits', '--method', 'CG-pseudo'], 'CG-pseudo needs a teacher (a classifier, as CG trains it): give --teacher FOLDER'),
         (['train', 'classifier', 'digits', '--labels', '5'], '0.05 labels 5%'),
         (['train', 'classifier', 'digits', '--method', 'CG-DLSM'], 'needs a score: give --score FOLDER'),
         (['train', 'score', 'cifar10:nowhere'], 'nowhere'),
         (['train', 'score', 'nowhere.npz'], 'nothing at nowhere.npz'),
         (['train', 'classifier', '{bare}'], 'has no labels'),
         (['train', 'score', '{odd}', '--net', 'small'], 'cannot be halved 3 times'),
         (['train', 'score', 'digits', '--device', 'tpu9'], "no device 'tpu9'"),
         (['train', 'score', 'digits', '--out', '{bare}/x'], 'choose another folder')]


@pytest.mark.parametrize('argv,word', WRONG, ids=lambda v: ' '.join(v)[:40] if isinstance(v, list) else '')
def test_wrong_requests(tmp_path, capsys, argv, word):
    "Exit status 2, one sentence, nothing written"
    x = np.zeros((4, 3, 12, 12), np.uint8)
    np.savez(tmp_path/'bare.npz', x=x); np.savez(tmp_path/'odd.npz', x=x)
    argv = [a.format(bare=tmp_path/'bare.npz', odd=tmp_path/'odd.npz') for a in argv]
    if '--out' not in argv: argv += ['--out', str(tmp_path/'out')]
    assert main([*argv, *([] if '--device' in argv else ['--device', 'cpu'])]) == 2
    err = capsys.readouterr().err
    assert word in err and err.count('\n') == 1 and err.startswith('scoreguidance: '), err
    assert not (tmp_path/'out'/'train').exists()


def test_wrong_samples(cifar, networks, tmp_path, capsys):
    out, score, clf = str(tmp_path/'s.safetensors'), str(networks/'score'), str(networks/'classifier')
    for argv, word in (([score, '--classifier', score], 'holds no classifier'), ([clf], 'holds no score'),
                       (['digits', '--classifier', clf], 'is for items of shape (3, 32, 32), the score for (1, 8, 8)'),
                       ([score, '--classifier', clf, '--classes', 'cat'], 'no class cat: choose among 0, 1'),
                       ([score, '--scale', '2'], 'give --classifier FOLDER'), ([score, '--classes', '1'], 'leave --classes out'),
                       ([score, '--n', '0'], '--n must be 1 to a million'), ([score, '--steps', '1'], '--steps must be 2 or more'),
                       (['nothing'], "no config.json in 'nothing'")):
        assert main(['sample', *argv, '--out', out, '--device', 'cpu']) == 2
        err = capsys.readouterr().err
        assert word in err and err.count('\n') == 1, err
    assert not os.path.exists(out)


def test_another_run_is_refused(cifar, networks, capsys):
    "And a folder that is done says so, without training"
    again = ['train', 'score', cifar, '--out', str(networks/'score'), '--device', 'cpu']
    before = digest(*from_pretrained(networks/'score').nets['score'].state_dict().values())
    assert main([*again, *flags(**fast)]) == 0 and 'The network is in' in capsys.readouterr().out
    assert main([*again, *flags(**{**fast, 'steps': 4}, seed=1)]) == 2
    assert 'differs in steps, seed' in capsys.readouterr().err
    assert digest(*from_pretrained(networks/'score').nets['score'].state_dict().values()) == before
