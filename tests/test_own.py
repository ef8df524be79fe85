"A user's own images: a folder of PNGs and an .npz by the command, resumed, planned, and refused where they cannot work"
import numpy as np
import pytest
import torch
from PIL import Image

from scoreguidance.world import facts
from scoreguidance.cli import main
from scoreguidance.data import digits, held_out, to_uint8
from scoreguidance.experiment import Place, complete, everything
from scoreguidance.files import read_json
from scoreguidance.own import images_of, make_own, side, task_of

few = ['-p', 'preset', 'smoke', '-p', 'methods', 'CG,CG-SC-all', '-p', 'fractions', '0.2', '-p', 'device', 'cpu', '-p', 'workers', '1']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "Three digits as a folder of PNGs, one folder for each class, and as an .npz in colour, twice the size"
    torch.set_num_threads(1)
    d, data = tmp_path_factory.mktemp('own'), digits()
    rows = [(data.y == k).nonzero()[:36, 0] for k in range(3)]
    for k, i in enumerate(rows):
        (d/'pictures'/'abc'[k]).mkdir(parents=True)
        for j, x in enumerate(to_uint8(data.x[i])): Image.fromarray(x[0].numpy()).save(d/'pictures'/'abc'[k]/f'{j}.png')
    x = to_uint8(data.x[torch.cat(rows)]).numpy().repeat(3, 1).repeat(2, 2).repeat(2, 3)
    np.savez(d/'colour.npz', x=x, y=np.arange(3).repeat(36))
    return d


@pytest.mark.parametrize('name', ['pictures', 'colour.npz'])
def test_the_whole_path(files, name, tmp_path, capsys):
    "Table, records and figures; the same command again computes nothing"
    args = ['reproduce', str(files/name), *few, '-p', 'out', str(tmp_path/'out')]
    assert main(args) == 0
    said = capsys.readouterr().out
    assert '| CG-SC-all |' in said and f'{name.split(".")[0]}, 3 classes at 8x8' in said
    assert {p.name for p in (tmp_path/'out').glob('*.png')} >= {'fractions.png', 'samples.png', 'classes.png'}
    assert read_json(tmp_path/'out'/'data'/'record.json')['n'] == 3*29
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path/'out').rglob('record.json')}
    assert main(args) == 0 and '2 of 2 cells are finished' in capsys.readouterr().out
    assert kept == {p: p.stat().st_mtime_ns for p in kept}
    assert main(['plan', str(files/name), *few[:6], '-p', 'out', str(tmp_path/'out')]) == 0
    assert f'scoreguidance reproduce {files/name} -p preset smoke' in capsys.readouterr().out


def test_unlabelled_images_are_welcome(files, tmp_path):
    "Scores and semi-supervised rows train on them, at 100% of the labels too; the judge never sees them"
    d = images_of(files/'colour.npz')
    y = torch.cat([d.y, torch.full((20,), -1)])
    x = torch.cat([d.x, 255-d.x[:20]])
    np.savez(tmp_path/'some.npz', x=x.numpy(), y=y.numpy())
    out = tmp_path/'out'
    assert main(['reproduce', str(tmp_path/'some.npz'), *few[:3], '-p', 'methods', 'CG-SC-labeled,CG-SC-all', '-p', 'fractions', '1', *few[9:],
                 '-p', 'out', str(out)]) == 0
    b = read_json(out/'plan.json')['budget']
    assert b['data'] == 'some and unlabelled' and not complete(b)
    rows = read_json(out/'table.json')['rows']
    assert [r['method'] for r in rows] == ['CG-SC-labeled', 'CG-SC-all'] and 'are one run' not in (out/'table.md').read_text()
    w = facts(out, task_of(tmp_path/'some.npz', images_of(tmp_path/'some.npz')).presets['smoke'].budget, torch.device('cpu'))
    assert len(w.more) == 20 and len(w.x) == 3*29 and int(w.y.min()) == 0
    x, y = everything(w, w.y)
    assert len(x) == 107 and int((y < 0).sum()) == 20


def test_both_forms_are_the_same_images(files):
    "A folder in grey and a file in colour, averaged to the folder's size"
    a, b = images_of(files/'pictures'), images_of(files/'colour.npz')
    assert a.x.shape[1:] == (3, 8, 8) and side(b.x.shape[2], 8) == 8
    assert torch.equal(a.x.sort(0).values, b.x[:, :, ::2, ::2].sort(0).values) and torch.equal(a.y.sort().values, b.y)


def test_held_out_images_are_the_same_fifth_of_each_class():
    y = torch.arange(300) % 3
    y[:30] = -1
    test = held_out(y, .2)
    assert y[test].bincount().tolist() == [18, 18, 18] and torch.equal(test, held_out(y, .2))


@pytest.mark.parametrize('y, shape, words', [
    (np.arange(90) % 5, (8, 8), 'fewer than 30 labelled images: 0 (18), 1 (18)'),
    (np.zeros(90, int), (8, 8), 'has one class'),
    (np.arange(90) % 2, (8, 12), 'crop them to squares'),
    (np.arange(90) % 2, (10, 10), 'resize them to a multiple of 4'),
])
def test_what_cannot_work_is_said_before_any_work(y, shape, words, tmp_path, capsys):
    np.savez(tmp_path/'a.npz', x=np.zeros((90, 3, *shape), np.uint8), y=y)
    assert main(['reproduce', str(tmp_path/'a.npz'), *few, '-p', 'out', str(tmp_path/'out')]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count('\n') == 1 and not (tmp_path/'out').exists()


def test_another_file_is_another_folder(files, tmp_path, capsys):
    "A run belongs to the images it was made from"
    np.savez(tmp_path/'a.npz', x=np.zeros((90, 3, 8, 8), np.uint8), y=np.arange(90) % 2)
    np.savez(tmp_path/'b.npz', x=np.ones((90, 3, 8, 8), np.uint8), y=np.arange(90) % 2)
    b = task_of(tmp_path/'a.npz', images_of(tmp_path/'a.npz')).presets['smoke'].budget
    make_own(tmp_path/'out', b, Place(root=str(tmp_path/'a.npz')))
    assert main(['reproduce', str(tmp_path/'b.npz'), *few, '-p', 'out', str(tmp_path/'out')]) == 2
    assert 'was made from other images' in capsys.readouterr().err
