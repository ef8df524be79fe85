"A finished cell of a grid is a folder of networks: the hub and the command `sample` read what the grid trained"
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scoreguidance.cli import main
from scoreguidance.cells import read_net
from scoreguidance.cifar import CIFAR10
from scoreguidance.world import load_world, weights_of
from scoreguidance.digits import DIGITS, TINY
from scoreguidance.experiment import Place, Plan, grid, plan
from scoreguidance.files import read_json, read_tensors
from scoreguidance.hub import from_pretrained
from scoreguidance.methods import METHODS
from scoreguidance.store import whole

tiny = replace(TINY, score_steps=10, clf_steps=6, judge_steps=10, batch=32, clf_batch=32, times=4, n=60, curve=60, gate=0, scales=(1., 2.), most=2.)
todo = Plan(('CG', 'CFG-all', 'CG-exact'), (.05,), (0,), tiny, 'tiny')


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp('grid')
    assert grid(out, todo, 1, None, task=DIGITS) == []
    return out


def test_every_cell_with_a_network_is_read_by_the_hub(out):
    "Logits and scores are those of the grid, bit for bit; what trains nothing has no network"
    w = load_world(str(out), tiny, 'cpu')
    x, t, y = torch.randn(4, 1, 8, 8), torch.full((4,), .4), torch.arange(4)
    for run in todo.runs:
        folder, m = out/'cells'/run.name, METHODS[run.method]
        if not m.loss:
            assert not (folder/'config.json').exists()
            continue
        f, theirs = m.kind.read(from_pretrained(folder).nets[m.kind.stored], w.sde), read_net(out, run, w)
        with torch.no_grad(): assert torch.equal(m.score(f, w.context(), y, 2.)(x, t), m.score(theirs, w.context(), y, 2.)(x, t))
    with torch.no_grad(): assert torch.equal(from_pretrained(out/'score').score(x, t), w.score(x, t))
    cfg = next(out/'cells'/r.name for r in todo.runs if r.method == 'CFG-all')
    with torch.no_grad(): assert not torch.equal(from_pretrained(cfg).family(y)(x, t), from_pretrained(cfg).score(x, t))


def test_the_command_samples_from_a_grid(out, tmp_path):
    "The grid's score, guided by the classifier of one of its cells; and a conditional cell alone"
    cells = {r.method: str(out/'cells'/r.name) for r in todo.runs}
    args = ['--n', '6', '--steps', '3', '--device', 'cpu', '--scale', '2', '--out']
    assert main(['sample', str(out/'score'), '--classifier', cells['CG'], *args, str(tmp_path/'cg.safetensors')]) == 0
    assert main(['sample', cells['CFG-all'], *args, str(tmp_path/'cfg.safetensors')]) == 0
    for name in ('cg', 'cfg'): assert read_tensors(tmp_path/f'{name}.safetensors')['x'].shape == (6, 1, 8, 8)


def test_a_cell_is_whole(out):
    "The weights' file is one of those that a record names"
    for run in todo.runs:
        r = whole(out/'cells'/run.name)
        assert ('model' in r['tensors']) == bool(METHODS[run.method].loss)
        if 'model' in r['tensors']: assert read_json(out/'cells'/run.name/'config.json')['tensors'] == r['tensors']['model']


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    "The smallest grid of colour images, and the same with networks that run in bfloat16"
    torch.set_num_threads(1)
    out, p = tmp_path_factory.mktemp('images'), replace(plan('smoke', task=CIFAR10), methods=('CG', 'Cond'), fractions=(.1,), seeds=(0,))
    for name in ('whole', 'half'):
        q = replace(p, budget=replace(p.budget, bf16=name == 'half'))
        assert grid(out/name, q, 1, None, task=CIFAR10, here=Place(device='cpu')) == []
    return out, p


@pytest.mark.parametrize('name', ['whole', 'half'])
def test_cells_of_images_are_read_by_the_hub(images, name):
    "Logits with their evidence, which needs the data's Gaussian, and scores: those of the grid, though the folder is elsewhere"
    out, p = images
    b = replace(p.budget, bf16=name == 'half')
    w = load_world(str(out/name), b, 'cpu')
    x, t, y = torch.randn(4, *b.shape), torch.full((4,), .4), torch.arange(4) % b.classes
    for run in p.runs:
        run, folder, m = replace(run, budget=b), out/name/'cells'/replace(run, budget=b).name, METHODS[run.method]
        net = m.net(w)
        net.load_state_dict(weights_of(folder))
        moved = Path(shutil.copytree(folder, out/f'{name}-{run.method}'))
        f, theirs = m.kind.read(from_pretrained(moved).nets[m.kind.stored], w.sde), m.kind.read(net.eval(), w.sde)
        with torch.no_grad():
            if m.kind.stored == 'clf': assert torch.equal(f(x, t), theirs(x, t))
            assert torch.equal(m.score(f, w.context(), y, 2.)(x, t), m.score(theirs, w.context(), y, 2.)(x, t))
        kinds = {v.dtype for k, v in read_tensors(moved/'model.safetensors').items() if k.endswith('conv0.weight')}
        assert kinds == {torch.bfloat16 if b.bf16 else torch.float32}


def test_the_command_samples_from_a_grid_of_images(images, tmp_path):
    out, p = images
    clf = next(out/'whole'/'cells'/r.name for r in p.runs if r.method == 'CG')
    args = ['--n', '6', '--steps', '3', '--device', 'cpu', '--scale', '2', '--out', str(tmp_path/'cg.safetensors')]
    assert main(['sample', str(out/'whole'/'score'), '--classifier', str(clf), *args]) == 0
    assert read_tensors(tmp_path/'cg.safetensors')['x'].shape == (6, *p.budget.shape)
