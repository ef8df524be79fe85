"Few labels on images: official files in, killed in the middle, refused where something does not fit"
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scoreguidance import data
from scoreguidance.cells import cell
from scoreguidance.core import checkout
from scoreguidance.folders import ImageDenoiser, read_networks
from scoreguidance.world import Budget, facts, keep_data, make_score, patterns, smaller, weights_of
from scoreguidance.cifar import CIFAR10, SMOKE, make_data
from scoreguidance.cli import main
from scoreguidance.cost import estimate, plan_of
from scoreguidance.experiment import METHODS, PAPERS, RIVALS, Place, Plan, TimeUp, grid, teacher_of, weak_of
from scoreguidance.files import read_json, read_tensors
from scoreguidance.tables import reproduce

tiny = replace(SMOKE, score_steps=4, clf_steps=4, judge_steps=6, n=24, scales=(1.,), levels=(1.,))
here = Place(device='cpu')


@pytest.fixture(scope='module', autouse=True)
def one_thread(): torch.set_num_threads(1)


@pytest.fixture
def official(tmp_path, monkeypatch):
    "A folder that looks like CIFAR-10's binary version, of 60 generated images for each file"
    import hashlib
    rng, folder = np.random.RandomState(0), tmp_path/'data'/'cifar-10-batches-bin'
    folder.mkdir(parents=True)
    sums = ({}, {})
    for part, names in zip(sums, (['data_batch_1.bin', 'data_batch_2.bin'], ['test_batch.bin'])):
        for name in names:
            r = rng.randint(0, 256, (60, 3073)).astype(np.uint8)
            r[:, 0] = np.arange(60) % 10
            (folder/name).write_bytes(r.tobytes())
            part[name] = hashlib.md5(r.tobytes()).hexdigest()
    monkeypatch.setitem(data.BINARY, 'cifar10', data.BINARY['cifar10']._replace(train=sums[0], test=sums[1]))
    return tmp_path/'data'


def test_official_files_become_the_data_of_a_run(official, tmp_path):
    b = Budget(size=16, classes=3)
    r = make_data(tmp_path/'out', b, Place(str(official)))
    assert (r['n'], r['n_test']) == (36, 18)
    t = read_tensors(tmp_path/'out'/'data'/'images.safetensors')
    d = data.cifar10(official)
    keep = d.y < 3
    assert torch.equal(t['y'], d.y[keep]) and torch.equal(t['x'], smaller(d.x[keep], 16))
    mean = d.x[keep].float().unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5))
    assert (t['x'].float()-mean).abs().max() <= .5+1e-3                    # a block's mean, rounded to a byte
    w = facts(tmp_path/'out', b, torch.device('cpu'))
    assert w.classes == 3 and w.gauss.mean.shape == (3*16*16,)


def test_smoke_takes_real_images_where_it_is_told(official, tmp_path, capsys):
    out = tmp_path/'out'
    assert main(['reproduce', 'cifar10', '-p', 'preset', 'smoke', '-p', 'methods', 'CG', '-p', 'fractions', '1',
                 '-p', 'root', str(official), '-p', 'out', str(out), '-p', 'workers', '1']) == 0
    assert read_json(out/'plan.json')['budget']['data'] == 'cifar10'
    said = capsys.readouterr().out
    assert 'CIFAR-10, 3 classes at 8x8' in said and '| 100% (36) | CG |' in said


@pytest.mark.parametrize('change, words', [
    (dict(root='nowhere'), ('no cifar10 in nowhere', 'place', 'cifar-10')),
    (dict(root=''), ('-p root FOLDER', 'smoke')),
    (dict(preset='tiny'), ("unknown preset 'tiny'", 'budget')),
    (dict(preset='smoke', device='abacus'), ("no device 'abacus'", "'cpu'")),
    (dict(preset='smoke', seconds='0'), ('seconds', 'above 0')),
    (dict(preset='smoke', workers='many'), ('workers must be',)),
    (dict(preset='smoke', executor='slurm'), ('processes or dask',)),
])
def test_what_does_not_fit_is_said_before_any_work(change, words, tmp_path):
    out = tmp_path/'out'
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        reproduce(CIFAR10, **{'preset': 'cpu', 'out': str(out), 'say': None, **change})
    assert all(w in str(e.value) for w in words), str(e.value)
    assert not (out/'cells').exists()


def numbers(out, p):
    strip = lambda r: {k: v for k, v in r.items() if k != 'sample_seconds'}
    return {c.name: [strip(r) for r in (lambda q: [*q['rows'], q['chosen'], q['oracle']])(cell(out, c, here))] for c in p.runs}


def test_killed_cells_go_on_and_end_alike(tmp_path):
    "The console command killed by SIGKILL again and again ends with the numbers of an uninterrupted run"
    p = Plan(('CG-SC-all', 'CFG-all'), (.1,), (0,), SMOKE, 'smoke')
    assert grid(tmp_path/'whole', p, 1, None, task=CIFAR10, here=here) == []
    out, kills = tmp_path/'out', 0
    args = ['reproduce', 'cifar10', '-p', 'preset', 'smoke', '-p', 'methods', 'CG-SC-all,CFG-all', '-p', 'fractions',
            '.1', '-p', 'workers', '1', '-p', 'device', 'cpu', '-p', 'out', str(out)]
    code = f'from scoreguidance.cli import main; raise SystemExit(main({args!r}))'
    for seen in ('judge/train', 'score/train', 'cells/*/train', 'cells/*/draws'):
        q = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.time()+120
        while time.time() < end and q.poll() is None and not any(f.iterdir() for f in out.glob(seen)): time.sleep(.01)
        if q.poll() is None: q.send_signal(signal.SIGKILL); kills += 1
        q.wait()
    assert kills >= 2
    assert subprocess.run([sys.executable, '-c', code], stdout=subprocess.DEVNULL, timeout=300).returncode == 0
    assert numbers(out, p) == numbers(tmp_path/'whole', p)
    assert not list(out.rglob('*.tmp')) and not list(out.glob('cells/*/train'))


def test_time_that_is_up_ends_with_three(tmp_path, capsys):
    args = ['reproduce', 'cifar10', '-p', 'preset', 'smoke', '-p', 'methods', 'CG', '-p', 'fractions', '.1', '-p',
            'workers', '1', '-p', 'device', 'cpu', '-p', 'out', str(tmp_path/'out')]
    assert main([*args, '-p', 'seconds', '0.2']) == 3
    assert 'goes on from here' in capsys.readouterr().out
    assert main(args) == 0


def test_a_failing_cell_leaves_a_hole_and_the_rest_goes_on(tmp_path, monkeypatch):
    "Its error is told; the table names it; the next run fills it"
    out, broken = tmp_path/'out', METHODS['CG-smooth']
    bad = lambda f, w, b, y: f(b.x, b.t).sum()*float('nan')
    monkeypatch.setitem(METHODS, 'CG-smooth', broken._replace(loss=bad))
    said, choice = [], dict(preset='smoke', methods='CG,CG-smooth', fractions='.1', out=str(out), workers=1, device='cpu')
    t = reproduce(CIFAR10, **choice, say=said.append)
    assert len(t['missing']) == 1 and t['missing'][0].startswith('CG-smooth') and [r['method'] for r in t['rows']] == ['CG']
    assert any('CG-smooth' in s and 'not finite' in s for s in said)
    monkeypatch.setitem(METHODS, 'CG-smooth', broken)
    assert reproduce(CIFAR10, **choice, say=None)['missing'] == []


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    "A cell that cannot write says so; what was finished is whole, and the same command goes on"
    from scoreguidance import files
    p = Plan(('CG',), (.1,), (0, 1), tiny, 'tiny')
    out, left = tmp_path/'out', [40]
    whole = files.os.replace
    def replace_(a, b):
        left[0] -= 1
        if left[0] < 0: raise OSError(28, 'No space left on device')
        whole(a, b)
    monkeypatch.setattr(files.os, 'replace', replace_)
    try: failed = [e for _, e in grid(out, p, 1, None, task=CIFAR10, here=here)]
    except ValueError as e: failed = [e]
    assert failed and 'No space left on device' in str(failed[0]) and 'free space' in str(failed[0])
    monkeypatch.setattr(files.os, 'replace', whole)
    assert grid(out, p, 1, None, task=CIFAR10, here=here) == []


def test_nothing_is_unpickled(tmp_path):
    "A planted pickle among the files of a run is never executed"
    p, out, mark = Plan(('CG',), (.1,), (0,), tiny, 'tiny'), tmp_path/'out', tmp_path/'executed'
    assert grid(out, p, 1, None, task=CIFAR10, here=here) == []
    class Evil:
        def __reduce__(self): return os.mkdir, (str(mark),)
    folder = next((out/'cells').iterdir())
    (folder/'model.safetensors').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match='damaged'): grid(out, p, 1, None, task=CIFAR10, here=here)
    shutil.rmtree(folder)
    assert grid(out, p, 1, None, task=CIFAR10, here=here) == [] and not mark.exists()


def test_every_method_is_a_row_of_every_task():
    "No method is of one data set only; teachers come before their students in a plan"
    for p in CIFAR10.presets.values(): assert set(p.methods) <= set(METHODS)
    assert CIFAR10.presets['smoke'].methods == (*PAPERS, *RIVALS)
    for r in CIFAR10.presets['smoke'].runs:
        for t in filter(None, (teacher_of(r), weak_of(r))): assert t in CIFAR10.presets['smoke'].runs


def test_the_plan_counts_what_is_left(tmp_path):
    p = Plan(('CG', 'Cond'), (.1,), (0, 1), tiny, 'tiny')
    first = estimate(CIFAR10, p, tmp_path, here)
    assert first['shared'] == ['data', 'judge', 'score', 'reference'] and [r['left'] for r in first['rows']] == [2, 2]
    grid(tmp_path, replace(p, methods=('CG',), seeds=(0,)), 1, None, task=CIFAR10, here=here)
    then = estimate(CIFAR10, p, tmp_path, here)
    assert then['shared'] == [] and {r['method']: r['left'] for r in then['rows']} == {'CG': 1, 'Cond': 2}
    assert then['score_hours'] == 0
    said = plan_of(CIFAR10, 'smoke', 'CG', [.1, .5], out=str(tmp_path), root='my data', device='cpu')
    asked = f"-p preset smoke -p methods CG -p fractions 0.1,0.5 -p root 'my data' -p device cpu -p out {tmp_path}"
    assert said.count(f'scoreguidance reproduce cifar10 {asked}') == 2 and 'dask' in said # each command repeats the choice


def test_late_is_not_failed(tmp_path):
    p = Plan(('CG',), (.1,), (0,), tiny, 'tiny')
    with pytest.raises(TimeUp): grid(tmp_path, p, 1, None, task=CIFAR10, here=Place(device='cpu', until=time.time()-1))
    assert not list(Path(tmp_path).glob('cells/*'))


def test_the_stored_score_fits_its_preset(tmp_path):
    "Hours of training are kept: `-p score results/cifar10-16` fits the preset, is a denoiser, and is refused for other data"
    kept, b = checkout('results/cifar10-16'), CIFAR10.presets['cpu'].budget
    net = read_networks(kept)[0]['score']
    ImageDenoiser(b.shape, b.net, net.sd).load_state_dict(weights_of(kept))
    (x, y), (u, v) = (patterns(40, 10, 16, k) for k in (0, 1))
    clean, g = u.float()/127.5-1, torch.Generator().manual_seed(0)
    for sigma in (.5, 5.):
        noisy = clean+sigma*torch.randn(clean.shape, generator=g)
        assert (net(noisy, torch.full((40,), sigma))-clean).square().mean() < (noisy-clean).square().mean()
    keep_data(tmp_path, b, x, y, u, v)
    with pytest.raises(ValueError, match='standard deviation 0.4.*give the data it was made for'):
        make_score(tmp_path, b, Place(device='cpu', score=str(kept)))
