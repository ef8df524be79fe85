"The benchmarks run, both sides of each row give the same values, and the page is built from what is stored"
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from scoreguidance.files import read_json, write_json

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'benchmarks'))
import page  # noqa: E402
import turns  # noqa: E402

PEERS = dict(networks='diffusers', judging='prdc', loading='torchvision', frechet='scipy')
present = [n for n in page.ROWS if n not in PEERS or importlib.util.find_spec(PEERS[n])]
stored = sorted((root/'results'/'benchmarks').glob('*.json'))


def form(r):
    "A record holds what the page needs, and what it holds is in order"
    assert {'name', 'what', 'peer', 'setting', 'claims', 'agreement', 'note', 'rounds', 'hardware', 'load'} <= r.keys()
    assert r['claims'] and r['agreement'] and r['hardware']['threads'] == 1
    for c in r['claims']:
        assert 0 < c['lowest'] <= c['ratio'] <= c['highest'] < math.inf and c['ours'] > 0 and c['theirs'] > 0
        assert c['better'] in ('more', 'less') and c['unit'] and turns.met(c) in (True, False, None)
        assert (c['floor'] is None) == (c['share'] is None)
        if c['share']: assert c['floor'] > 0 and 0 < c['share']['lowest'] <= c['share']['ratio'] <= c['share']['highest'] < math.inf and r['floor']
    for a in r['agreement']: assert 0 <= a['error'] <= a['tolerance'] < 1


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp('benchmarks')
    cmd = [sys.executable, root/'benchmarks'/'run.py', '--tiny', '--json', out, '--only', *present]
    run = subprocess.run(cmd, capture_output=True, text=True, cwd=root, timeout=600)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return out, run.stdout


def test_every_row_runs_and_agrees(tiny):
    out, said = tiny
    assert {f.stem for f in out.glob('*.json')} == set(present)
    for n in present:
        r = read_json(out/f'{n}.json')
        form(r)
        assert r['name'] == n and r['tiny'] and r['rounds'] == 1
        for a in r['agreement']: assert f"same values: {a['what']}" in said


def test_tiny_runs_touch_nothing_stored(tiny):
    assert not [f for f in stored if read_json(f).get('tiny')]


@pytest.mark.parametrize('path', stored, ids=lambda p: p.stem)
def test_stored_records(path):
    r = read_json(path)
    form(r)
    assert r['name'] == path.stem and path.stem in page.ROWS and r['rounds'] >= 5


def test_page_is_current():
    assert page.build() == page.PAGE.read_text(encoding='utf-8'), 'run python benchmarks/page.py'


def test_page_says_what_missed(tmp_path):
    "A record altered is seen on the page; a missed target is called so"
    r = read_json(stored[0])
    r.pop('sha256', None)
    share = dict(ratio=.7, lowest=.6, highest=.8)
    r['claims'] = [dict(r['claims'][0], what='a thing', kind='time', ratio=1.5, lowest=1.4, highest=1.6, floor=2., share=share, target=.75, better='more')]
    write_json(tmp_path/stored[0].name, r)
    assert '- ' + r['what'] + ', a thing: 1.50x (1.40 to 1.60), 70% (60 to 80) of the floor' in page.build(tmp_path)
    assert '| 1.50x (1.40 to 1.60) | 70% (60 to 80) | no slower, 75% of the floor | **missed** |' in page.build(tmp_path)


def test_the_page_leads_with_what_a_user_cares_about():
    lines = [v for v in page.build().split('\n\n')[3].splitlines()]
    assert len(lines) == 5 and all(v.startswith('- **') for v in lines)


def test_disagreement_ends_a_benchmark():
    assert turns.agreement('a', .5, 1.)['error'] == .5
    for bad in (2., math.nan):
        with pytest.raises(ValueError, match='off by'): turns.agreement('a', bad, 1.)


def test_ratios_are_of_rounds():
    "The median of ratios, not the ratio of medians"
    c = turns.faster('a', [1., 2., 4.], [3., 2., 4.])
    assert (c['ratio'], c['lowest'], c['highest'], c['ours'], c['theirs'], c['floor'], turns.met(c)) == (1., 1., 3., 2., 3., None, True)
    c = turns.faster('a', [1., 2., 4.], [3., 4., 5.], [.5, 1.8, 3.2])
    assert (c['floor'], c['share'], turns.met(c)) == (1.8, dict(ratio=.8, lowest=.5, highest=.9), True)
    assert turns.met(dict(c, share=dict(c['share'], ratio=.7))) is False and turns.met(dict(c, ratio=.9)) is False and turns.met(dict(c, target=None)) is None
    c = turns.costs('a', [2., 2.], [1., 1.], target=1.9)
    assert (c['ratio'], turns.met(c)) == (2., False)


def test_turns_alternate():
    said = []
    t = turns.turns(dict(a=lambda: said.append('a'), b=lambda: said.append('b')), 2)
    assert ''.join(said) == 'abbaab' and [len(v) for v in t.values()] == [2, 2]


def test_peak_memory():
    "What a call takes, and no more than that"
    import numpy as np
    got = turns.peak_mb(lambda: lambda: np.ones(2**23))
    assert 60 < got < 80


def test_records_are_json(tiny):
    for f in tiny[0].glob('*.json'): assert json.loads(f.read_text())['sha256']
