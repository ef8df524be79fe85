"""The gate: digests of what the experiments compute, stored before code moves and compared after each step.

    python tests/gate.py store        # computes everything, writes tests/golden/gate.json
    python tests/gate.py              # computes everything again, says what differs; status 1 if anything does
    python tests/gate.py digits toy   # a part: digits, toy, train, images

Every part runs in this process on one thread. Last bits belong to a processor and a build of PyTorch: the file names both, and elsewhere
`store` comes first. Seconds, memory and names of folders are left out; so are names of tensors and files, whose format may change.
"""
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from scoreguidance.experiment import plan
from scoreguidance.files import canonical, read_json
from scoreguidance.store import hardware

FILE = Path(__file__).parent/'golden'/'gate.json'
CLOCK = ('seconds', 'memory_mb')


def sha(data): return hashlib.sha256(data).hexdigest()[:16]


def bare(o):
    "A record without what another run of the same code changes"
    if isinstance(o, dict): return {k: bare(v) for k, v in o.items() if not k.endswith(CLOCK)}
    return [bare(v) for v in o] if isinstance(o, (list, tuple)) else o


def numbers(o): return sha(canonical(bare(o)).encode())


def tensors(files):
    "Tensors of files in the order of their names' ends, as bytes"
    named = {k: v for f in files for k, v in load_file(f).items() if '.world.' not in k}  # a Gaussian that travels is data
    return sha(b''.join(named[k].contiguous().view(-1).view(torch.uint8).numpy().tobytes() for k in sorted(named)))


def cell(folder):
    "What a finished folder holds"
    r = read_json(folder/'record.json')
    weights = sorted(f for f in folder.glob('*.safetensors') if f.name != 'samples.safetensors' and f.name != 'images.safetensors')
    images = [f for f in (folder/'samples.safetensors', folder/'images.safetensors') if f.exists()]
    said = {k: r[k] for k in ('rows', 'chosen', 'oracle', 'noise', 'floor', 'labels', 'labelled', 'data', 'digest') if k in r}
    return dict(weights=tensors(weights), images=tensors(images), numbers=numbers(said), **({'curve': numbers(r['curve'])} if r.get('curve') else {}))


def folder(out):
    "Every finished part of a grid, by method, share and seed"
    out, cells = Path(out), {}
    for p in sorted(out.glob('cells/*/record.json')):
        r = read_json(p)
        cells[f"{r['method']} {r['fraction']:g} {r['seed']}"] = cell(p.parent)
    return {**{p.parent.name: cell(p.parent) for p in sorted(out.glob('*/record.json'))}, **cells}


def digits(tmp):
    "The smoke grid of digits, and a part of it that was killed in the middle of a cell and resumed"
    from scoreguidance.digits import DIGITS
    from scoreguidance.tables import reproduce
    t = reproduce(DIGITS, 'smoke', out=str(tmp/'whole'), workers=1, say=None)
    stored = {f'table {k}': numbers(t[k]) for k in ('rows', 'floor')}
    whole = folder(tmp/'whole')
    same(killed(tmp/'killed'), whole, 'killed and resumed')
    return {**whole, **stored}


def killed(out):
    "A run killed after its first cell, at work on the next, and run again"
    go = ("import torch; torch.set_num_threads(1); from scoreguidance.tables import reproduce; from scoreguidance.digits import DIGITS; "
          f"reproduce(DIGITS, 'smoke', 'CG,CG-SC-all,CG-pseudo', .05, 0, {str(out)!r}, 1, say=None)")
    p = subprocess.Popen([sys.executable, '-c', go])
    while not list(out.glob('cells/*/record.json')) and p.poll() is None: time.sleep(.01)
    time.sleep(.3)
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    assert len(list(out.glob('cells/*/record.json'))) < 3, 'killed too late'
    subprocess.run([sys.executable, '-c', go], check=True)
    return folder(out)


def same(part, whole, how):
    "A part that was interrupted is the same part of the whole, but for the points of its curve"
    odd = [k for k in part if any(part[k][m] != whole[k][m] for m in ('weights', 'images', 'numbers'))]
    assert not odd, f'{how} is not as uninterrupted: {odd}'


def toy(tmp):
    "One short seed of both toy studies"
    from scoreguidance.toy import moons_seed, rings_seed
    return dict(moons=numbers(moons_seed(0, 30)), rings=numbers(rings_seed(0, 60)))


def train(tmp):
    "Networks of the command `train`: whole, and in slices of one step"
    from scoreguidance.training import TrainingRequest, train_network
    tiny = dict(data='digits', net='tiny', preset='smoke', steps=4, batch=8)
    asked = {'score': dict(what='score'), 'conditional': dict(what='conditional', labels=.25)}
    for name in ('CG', 'CG-SC-all', 'CG-SC-labeled', 'CG-DLSM', 'CG-SC-student', 'CG-consistency'):
        asked[name] = dict(what='classifier', method=name, labels=.25)
    asked['CG-DLSM']['score'], asked['CG-SC-student']['teacher'] = str(tmp/'score'), str(tmp/'CG')
    out = {}
    for name, a in asked.items():
        for cut in (None, 1e-9):
            where = tmp/(name if cut is None else f'{name}-cut')
            while train_network(TrainingRequest(**tiny, **a), where, 'cpu', max_seconds=cut): pass
            out[name if cut is None else f'{name} in slices'] = tensors([where/'model.safetensors'])
    return out


def images(tmp):
    "The smoke grid of images, and a part of it in slices of no time"
    from scoreguidance.cifar import CIFAR10
    from scoreguidance.experiment import Place, TimeUp, grid
    p = plan('smoke', task=CIFAR10)
    assert grid(tmp/'whole', p, 1, None, task=CIFAR10, here=Place(device='cpu')) == []
    few, out = replace(p, methods=('CG', 'CG-SC-all'), fractions=(.1,)), tmp/'slices'
    for _ in range(100):
        try: failed = grid(out, few, 1, None, task=CIFAR10, here=Place(device='cpu', until=time.time()+.5))
        except TimeUp: continue
        if not failed: break
        assert all(isinstance(e, TimeUp) for _, e in failed), failed
    whole = folder(tmp/'whole')
    same(folder(out), whole, 'in slices')
    return whole


PARTS = dict(digits=digits, toy=toy, train=train, images=images)


def compute(names):
    "Digests of some parts"
    out = {}
    for n in names:
        begun = time.time()
        with tempfile.TemporaryDirectory() as tmp: out[n] = PARTS[n](Path(tmp))
        print(f'{n}: {len(out[n])} entries, {time.time()-begun:.0f} s', flush=True)
    return out


def main(argv):
    torch.set_num_threads(1)
    storing = 'store' in argv
    parts = [a for a in argv if a != 'store'] or list(PARTS)
    where = {k: v for k, v in hardware().items() if k in ('cpu', 'torch')}
    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    if not storing and old.get('where') != where:
        print(f"the stored digests are of {old.get('where')}, and this is {where}: store them first, with the code as it was")
        return 2
    new = compute(parts)
    if storing:
        FILE.write_text(json.dumps({**old, **new, 'where': where}, indent=1) + '\n')
        return 0
    odd = [f'{p} {k}' for p in parts for k in {**old[p], **new[p]} if old[p].get(k) != new[p].get(k)]
    print('\n'.join([f'{len(odd)} entries differ', *odd]) if odd else 'the gate holds')
    return 1 if odd else 0


if __name__ == '__main__': raise SystemExit(main(sys.argv[1:]))
