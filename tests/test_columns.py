"What tables know of a metric agrees with the metric, and with the tables that are stored"
from pathlib import Path

import pytest
import torch

from scoreguidance.columns import METRICS, SAMPLES, Metric, metric
from scoreguidance.files import read_json
from scoreguidance.metrics import accuracy, brier, ece, frechet, frechet_infinite, inception_score, kid, nll, prdc
from scoreguidance.protocol import mark
from scoreguidance.tables import COLUMNS, markdown

root = Path(__file__).resolve().parent.parent


def measured(shift, sharp):
    "Metrics of normal features, moved by `shift`, and of logits whose right class is `sharp` above the others"
    g = torch.Generator().manual_seed(0)
    real, fake = torch.randn(400, 4, generator=g), torch.randn(400, 4, generator=g) + shift
    y = torch.arange(400) % 5
    logits = torch.randn(400, 5, generator=g)
    logits[torch.arange(400), y] += sharp
    said = dict(frechet=frechet(real, fake), frechet_infinite=frechet_infinite(real, fake), kid=kid(real, fake), **prdc(real, fake))
    judged = dict(accuracy=accuracy(logits, y), nll=nll(logits, y), brier=brier(logits, y), ece=ece(logits*(1+shift), y), inception_score=inception_score(logits.softmax(1)))
    return {k: float(v) for k, v in {**said, **judged}.items()}


def test_signs_and_bounds():
    "A better set of samples, a better judge: every number moves the way its sign says, within its bounds"
    good, bad = measured(0., 5.), measured(2., .2)
    for name in good:
        m = METRICS[name]
        assert m.sign*(good[name] - bad[name]) > 0, name
        for v in (good[name], bad[name]): assert m.lo <= v <= m.hi, name


def test_an_unbiased_estimate_may_be_negative():
    "Of equal distributions: half of all draws, so a lower bound of 0 would be wrong"
    g = torch.Generator().manual_seed(0)
    draws = [kid(torch.randn(50, 4, generator=g), torch.randn(50, 4, generator=g)) for _ in range(20)]
    assert min(draws) < 0 < max(draws) and METRICS['kid'].lo == METRICS['inception_kid'].lo == -float('inf')


@pytest.mark.parametrize('name', ['digits', 'cifar10-cpu'])
def test_stored_tables_read_the_same(name):
    "Titles, digits and spreads of stored tables come out as they were printed"
    folder = root/'results'/name
    lines = lambda text: [l for l in text.splitlines() if l.startswith('|')]            # the words around them may change
    assert lines(markdown(read_json(folder/'table.json'))) == lines((folder/'table.md').read_text())


def test_a_metric_from_outside(monkeypatch):
    assert mark('mine', [(1., None), (2., None)]) == ['', '']
    monkeypatch.setitem(METRICS, 'mine', Metric('mine', 'my metric', 1))
    assert mark('mine', [(1., None), (2., None)]) == ['', 'best'] and metric('mine').title == 'my metric'


def test_every_column_is_described_once():
    names = [m.name for m in SAMPLES]
    assert len(set(names)) == len(names) and list(COLUMNS) == names
