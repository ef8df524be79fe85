"The commands `train` and `sample` on files like CIFAR's: slices, kills, wrong wishes, and what the judge makes of it"
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from scoreguidance.cli import main
from scoreguidance.data import digest
from scoreguidance.evaluation import read
from scoreguidance.files import read_json
from scoreguidance.hub import from_pretrained
from scoreguidance.training import Wish, train_network

fast = dict(net='tiny', preset='tiny', steps=3, batch=4)


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
    for what, more in (('score', {}), ('conditional', dict(labels=.5)), ('classifier', dict(labels=.25, loss='sc'))):
        assert main(['train', what, cifar, '--out', str(out/what), '--device', 'cpu', *flags(**fast, **more)]) == 0
    return out


def test_slices_are_one_run(cifar, networks, tmp_path):
    "Slices of no time, each of one step, end with the same file, for a classifier trained with SC too"
    for what, more in (('score', {}), ('classifier', dict(labels=.25, loss='sc'))):
        wish = Wish(what, cifar, **fast, **more)
        assert [train_network(wish, tmp_path/what, 'cpu', max_seconds=1e-9) for _ in range(3)] == [2, 1, 0]
        file = f'{what}/model.safetensors'
        assert (tmp_path/file).read_bytes() == (networks/file).read_bytes()
        assert sorted(p.name for p in (tmp_path/what).iterdir()) == ['README.md', 'config.json', 'model.safetensors', 'run.json']


def test_killed_and_resumed(tmp_path):
    "The command is killed after a checkpoint; the same command ends with the file of an uninterrupted one"
    args = lambda out: ['train', 'score', 'digits', '--device', 'cpu', '--out', str(out), *flags(net='tiny', preset='tiny', steps=60, batch=2)]
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


def test_dlsm_needs_a_score(cifar, networks, tmp_path):
    wish = dict(data=cifar, **{**fast, 'steps': 2}, loss='dlsm')
    assert train_network(Wish('classifier', **wish, score=str(networks/'score')), tmp_path/'clf', 'cpu') == 0
    with pytest.raises(ValueError, match='holds clf, and no score'):
        train_network(Wish('classifier', **wish, score=str(networks/'classifier')), tmp_path/'other', 'cpu')


WRONG = [(['train', 'gan', 'digits'], "unknown kind 'gan': choose score, conditional or classifier"),
         (['train', 'score', 'digits', '--net', 'huge'], "unknown net 'huge': choose tiny, small, full or deep"),
         (['train', 'score', 'digits', '--preset', 'quick'], "unknown preset 'quick': choose tiny or paper"),
         (['train', 'classifier', 'digits', '--loss', 'mse'], "unknown loss 'mse': choose ce, sc"),
         (['train', 'classifier', 'digits', '--labels', '5'], '0.05 labels 5%'),
         (['train', 'classifier', 'digits', '--loss', 'dlsm'], 'give --score FOLDER'),
         (['train', 'score', 'cifar10:nowhere'], 'nowhere'),
         (['train', 'score', 'nowhere.npz'], 'nothing at nowhere.npz'),
         (['train', 'classifier', '{bare}'], 'has no labels'),
         (['train', 'score', '{odd}', '--net', 'small'], 'cannot be halved 3 times'),
         (['train', 'score', 'digits', '--device', 'tpu9'], "no device 'tpu9'"),
         (['train', 'score', 'digits', '--out', '{bare}/x'], 'choose another folder')]


@pytest.mark.parametrize('argv,word', WRONG, ids=lambda v: ' '.join(v)[:40] if isinstance(v, list) else '')
def test_wrong_wishes(tmp_path, capsys, argv, word):
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
