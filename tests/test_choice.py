"The scale of a cell is chosen without what its user cannot know"
from types import SimpleNamespace

import pytest
import torch

from scoreguidance import cells
from scoreguidance.cells import ahead_net
from scoreguidance.cifar import SMOKE
from scoreguidance.comparisons import choose


def curve(monkeypatch, tmp_path, rule, oracle):
    "The rows of a cell whose rule and oracle say this at scales 1, 2, 4, ..."
    asked = []
    def draw(folder, w, run, f, k, *a): asked.append(k); return k
    monkeypatch.setattr(cells, 'draws', draw)
    monkeypatch.setattr(cells, 'seconds_of', lambda folder: 0.)
    monkeypatch.setattr(cells, 'in_blocks', lambda measure, b, k, *a: dict(intra_fid=oracle(k)))
    monkeypatch.setattr(cells, 'verdict', lambda judge, k: k)
    from dataclasses import replace
    run = SimpleNamespace(budget=replace(SMOKE, scales=(1., 2., 4.), most=64.), seed=0)
    w = SimpleNamespace(classes=3, look=lambda k: k, judge=None)
    rows, mine = cells._curve(tmp_path, w, run, None, lambda k, ask: rule(k), None)
    assert asked == [r['scale'] for r in rows]
    return rows, mine


def test_what_the_oracle_opens_is_not_chosen(monkeypatch, tmp_path):
    "The rule's best is inside; the oracle wants more, where the rule would be lower still"
    rule = {1.: 3., 2.: 1., 4.: 2., 8.: .5, 16.: .5}
    rows, mine = curve(monkeypatch, tmp_path, rule.get, lambda k: 1/k if k < 16 else 9.)
    assert [r['scale'] for r in rows] == [1, 2, 4, 8, 16] and [r['scale'] for r in mine] == [1, 2, 4]
    assert choose(mine, 'rule').scale == 2 and choose(mine, 'rule').inside and choose(rows, 'rule').scale == 8


def test_the_rule_opens_what_it_needs(monkeypatch, tmp_path):
    rows, mine = curve(monkeypatch, tmp_path, lambda k: abs(k-8), lambda k: abs(k-2))
    assert [r['scale'] for r in mine] == [1, 2, 4, 8, 16] and len(rows) == 5 and choose(mine, 'rule') == (8., 0., True)


def test_a_teacher_in_the_middle_of_its_training_teaches_nobody(tmp_path):
    "A checkpoint of an unfinished network is no network"
    from scoreguidance.digits import DIGITS, TINY
    from scoreguidance.experiment import Place, run_of
    from scoreguidance.cells import recipe_of, world_of
    from scoreguidance.train import save_state, start
    from scoreguidance.methods import METHODS
    DIGITS.make['data'](tmp_path, TINY, Place(device='cpu'))
    run = run_of('CG', .05, 0, TINY)
    w = world_of(tmp_path, run, Place(device='cpu'), score=False)
    s, r = start(METHODS['CG'].net(w)), recipe_of(run)
    folder = tmp_path/'cells'/run.name/'train'
    for step, fine in ((r.steps-1, False), (r.steps, True)):
        for p in s.net.parameters(): p.grad = torch.zeros_like(p)
        s.opt.step()
        s.step = step
        save_state(s, folder, **r.facts())
        if fine: ahead_net(tmp_path, run, w)(torch.zeros(2, 1, 8, 8), torch.full((2,), .5))
        else:
            with pytest.raises(ValueError, match=f'at step {step} of {r.steps}'): ahead_net(tmp_path, run, w)


def test_a_class_with_one_image_still_has_a_rule(tmp_path):
    "Where guesses find no second image of a class, there is no Frechet distance to it: the kernel distance decides"
    from scoreguidance.digits import DIGITS, TINY
    from scoreguidance.experiment import Place, run_of
    from scoreguidance.cells import world_of
    DIGITS.make['data'](tmp_path, TINY, Place(device='cpu'))
    run = run_of('CG', .05, 0, TINY)
    w = world_of(tmp_path, run, Place(device='cpu'), score=False)
    one = torch.full_like(w.y, -1)
    for k in range(10): one[(w.y == k).nonzero()[0]] = k
    ask, judge = torch.arange(60) % 10, (torch.nn.Flatten(), one)
    real = torch.stack([w.x[w.y == k][i // 10] for i, k in enumerate(ask)])
    for label, kind in ((w.y, 'frechet'), (one, 'kernel')):
        cells_own = lambda *a, label=label: (judge[0], label)
        with pytest.MonkeyPatch.context() as m:
            m.setattr(cells, 'own_judge', cells_own)
            m.setattr(cells, 'features_of', lambda judge, x: judge(x.float()/255))
            m.setattr(cells, 'label_distance', lambda *a: 'kernel')
            near = cells.rule(tmp_path, w, run, one, Place(device='cpu'))(real, ask)
        assert near == kind if kind == 'kernel' else near >= 0
