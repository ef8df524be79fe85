"Notebooks as researchers run them: through papermill, from any folder; parameters of notebook 20 are checked before any work"
import json
import subprocess
import sys

import pytest


def papermill(root, tmp_path, **params):
    args = [a for k, v in params.items() for a in ('-p', k, str(v))]
    return subprocess.run([sys.executable, '-m', 'papermill', 'nbs/20_digits.ipynb', str(tmp_path/'run.ipynb'), *args,
                           '--no-progress-bar', '--log-level', 'ERROR'], cwd=root, capture_output=True, text=True, timeout=300)


def test_runs_and_leaves_its_table(root, tmp_path):
    done = papermill(root, tmp_path, preset='smoke', methods='CG,CFG-all', fractions=.05, seeds=3, out=tmp_path/'out')
    assert done.returncode == 0, done.stderr[-3000:]
    table = json.loads((tmp_path/'out'/'table.json').read_text())
    assert [(r['method'], r['fraction'], r['seeds']) for r in table['rows']] == [('CG', .05, [3]), ('CFG-all', .05, [3])]
    assert (tmp_path/'out'/'table.md').exists() and (tmp_path/'out'/'samples.png').exists()


@pytest.mark.parametrize('params, words', [(dict(preset='huge'), "unknown preset 'huge'"), (dict(methods='VAE'), 'unknown method VAE'),
                                           (dict(colour='red'), "unknown parameters ['colour']")])
def test_wrong_parameters_stop_before_any_work(root, tmp_path, params, words):
    done = papermill(root, tmp_path, out=tmp_path/'out', **params)
    assert done.returncode and words in done.stderr
    assert not (tmp_path/'out').exists()


@pytest.mark.parametrize('name', ['00_core', '06_sde', '23_published'])
def test_runs_from_any_folder(root, tmp_path, name):
    "Stored results and reference values are found from a folder that has nothing to do with the repository"
    words = ['papermill', str(root/'nbs'/f'{name}.ipynb'), 'run.ipynb', '--no-progress-bar', '--log-level', 'ERROR']
    done = subprocess.run([sys.executable, '-m', *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [p.name for p in tmp_path.iterdir()] == ['run.ipynb']


def test_no_path_that_holds_in_one_folder_only(root):
    "No cell of a notebook that reads or writes by '../'"
    for p in sorted((root/'nbs').glob('*.ipynb')):
        cells = [''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'code']
        assert not [s for s in cells if "'../" in s and 'google.colab' not in s], p.name
