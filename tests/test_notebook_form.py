"Every notebook opens in Colab: its badge has its own name, and its setup cell works there and does nothing elsewhere"
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent

def script(name):
    spec = importlib.util.spec_from_file_location(name, root/'scripts'/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


badges, sync = script('badges'), script('sync')
files = badges.notebooks(root/'nbs')
each = pytest.mark.parametrize('f', files, ids=lambda f: f.name)


def cells(f): return json.loads(f.read_text(encoding='utf-8'))['cells']


def test_there_are_notebooks(): assert {'index.ipynb', '00_core.ipynb'} <= {f.name for f in files}


@each
def test_badge_is_its_own(f):
    title = badges.text(cells(f)[0]).split('\n\n')
    address = f'https://colab.research.google.com/github/scoreguidance/scoreguidance/blob/main/nbs/{f.name}'
    assert title[0].startswith('# ') and title[1].startswith('> '), 'title, then subtitle'
    assert title[2] == f'[![Open in Colab]({badges.image})]({address})', 'run scripts/badges.py'
    assert sum(badges.text(c).count('colab-badge.svg') for c in cells(f)) == 1


@each
def test_setup_comes_first(f):
    found = [i for i, c in enumerate(cells(f)) if badges.is_setup(c)]
    assert found == [1], 'run scripts/badges.py'
    c = cells(f)[1]
    assert badges.text(c) == badges.setup and c['id'] == 'colab' and not c['outputs'] and not c['metadata']


@each
def test_ids_are_unique(f):
    ids = [c['id'] for c in cells(f)]
    assert len(set(ids)) == len(ids)


@each
def test_no_remains_of_progress_bars(f):
    text = f.read_text(encoding='utf-8')
    assert sync.without_bars(text) == text, 'run `make sync`'


def test_remains_of_progress_bars_go():
    def html(s): return dict(output_type='display_data', data={'text/html': s, 'text/plain': ['<HTML>']}, metadata={})
    bars = html(['<style>\n', '.progress-bar-interrupted {}\n', '</style>']), html(''), html([' \n'])
    rest = [html('<b>9</b>'), dict(output_type='stream', name='stdout', text=['done'])]
    nb = made(dict(cell_type='code', id='a', metadata={}, source=['1'], execution_count=None, outputs=[*bars, *rest]))
    got = json.loads(sync.without_bars(json.dumps(nb)))
    assert got['cells'][0].pop('outputs') == rest and nb['cells'][0].pop('outputs') and got == nb


def test_setup_is_hidden_and_short():
    lines = badges.setup.splitlines()
    assert lines[0] == '#| hide' and max(map(len, lines)) <= 110 and badges.setup.isascii()


def test_setup_does_nothing_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, 'run', lambda *a, **k: pytest.fail('something was run'))
    exec(badges.setup, {})
    assert Path.cwd() == tmp_path


def test_setup_fetches_in_colab(monkeypatch, tmp_path):
    "Once: clone, install, go to the notebooks; neither a second run nor a restarted session repeats it"
    done = []
    def run(cmd, check):
        done.append(cmd)
        if cmd[0] == 'git': os.makedirs(cmd[-1].split('/')[-1] + '/nbs')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, 'google.colab', object())
    monkeypatch.setattr(subprocess, 'run', run)
    exec(badges.setup, {})
    assert done[0] == ['git', 'clone', '-q', '--depth', '1', '-b', 'main', 'https://github.com/scoreguidance/scoreguidance']
    assert done[1][:6] == [sys.executable, '-m', 'pip', 'install', '-q', './scoreguidance']
    assert Path.cwd() == tmp_path/'scoreguidance'/'nbs'
    exec(badges.setup, {})
    monkeypatch.chdir(tmp_path)
    exec(badges.setup, {})
    assert len(done) == 2 and Path.cwd() == tmp_path/'scoreguidance'/'nbs'


def made(*cells): return dict(cells=list(cells), metadata={}, nbformat=4, nbformat_minor=5)


def test_dressing_is_idempotent_and_keeps_ids():
    title = dict(cell_type='markdown', id='a', metadata={}, source='# One\n\n> Two\n\nThree\n\nFour')
    code = dict(cell_type='code', id='b', metadata={}, source=['#| default_exp one'], outputs=[], execution_count=None)
    once = badges.dressed(made(title, code), '01_one.ipynb')
    assert badges.dressed(once, '01_one.ipynb') == once
    assert [c['id'] for c in once['cells']] == ['a', 'colab', 'b'] and once['cells'][2] == code
    md = badges.text(once['cells'][0])
    assert md.startswith('# One\n\n> Two\n\n[![Open') and md.endswith('01_one.ipynb)\n\nThree\n\nFour')
    # a renamed notebook, an old badge, an old setup cell that lost its id
    old = made(once['cells'][0], code, dict(once['cells'][1], id='c', source="if 'google.colab' in sys.modules: 1"))
    again = badges.dressed(old, '02_one.ipynb')
    assert [c['id'] for c in again['cells']] == ['a', 'colab', 'b'] and '01_one' not in str(again)
    assert badges.dressed(again, '01_one.ipynb') == once


@pytest.mark.parametrize('first', [dict(cell_type='code', source='1'), dict(cell_type='markdown', source='No title')])
def test_a_notebook_without_title(first):
    with pytest.raises(ValueError, match='its first cell must'):
        badges.dressed(made(dict(first, id='a', metadata={})), 'x.ipynb')


def test_subtitle_of_two_lines_or_none():
    one = badges.titled('# One\n\n> Two\n> three\n\nText', 'x.ipynb')
    assert one.startswith('# One\n\n> Two\n> three\n\n[![') and one.endswith('\n\nText')
    assert badges.titled('# One', 'x.ipynb').startswith('# One\n\n[![')
