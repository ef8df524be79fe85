"Two gloo processes on the CPU give the weights of one process with the joint batch"
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scoreguidance.files import read_tensors

root = Path(__file__).resolve().parent.parent
script = '''
import sys, torch
torch.set_num_threads(1)
from torch import nn
from scoreguidance.calibrate import sc_total
from scoreguidance.engine import Recipe, batches, train
from scoreguidance.files import write_tensors
from scoreguidance.nets import Classifier, Gauss
from scoreguidance.score import at
from scoreguidance.sde import VE
from scoreguidance.train import start

acc = None
if 'RANK' in __import__('os').environ:
    from accelerate import Accelerator
    acc = Accelerator(cpu=True)
    assert acc.num_processes==2
torch.manual_seed(0)
x = torch.randint(0, 256, (120, 1, 4, 4), dtype=torch.uint8)
y = torch.where(torch.arange(120)%4==0, torch.arange(120)//4%3, -1)
sde = VE(.05, 8.)
s = start(Classifier(Gauss((1, 4, 4), x/127.5-1), 3, 24, 1))
loss = lambda f,b,y: sc_total(at(f, sde), sde, b, y)
recipe = Recipe(steps=12, lr=3e-3, warm=3, every=5, slices=int(sys.argv[2]))
seconds = float(sys.argv[3]) or None
seen = [r for r in train(s, loss, batches(x, y, sde, 32, .5), recipe, sys.argv[1], seconds, acc=acc)]
if s.step==12 and (acc is None or acc.is_main_process):
    last = {'loss': torch.tensor([float(r.loss) for r in seen])}
    write_tensors(sys.argv[1]+'/end.safetensors', last | {f'ema.{k}': v for k,v in s.ema.state_dict().items()})
if acc is not None:
    acc.wait_for_everyone()
    acc.end_training() # without it the interpreter ends while gloo's threads run, and may abort
'''


def run(tmp_path, name, processes, slices=1, seconds=0):
    (tmp_path/'run.py').write_text(script)
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'] if processes == 2 else []
    cmd = [sys.executable, *launch, tmp_path/'run.py', tmp_path/name, str(slices), str(seconds)]
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(root)}
    done = subprocess.run([str(c) for c in cmd], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    end = tmp_path/name/'end.safetensors'
    return read_tensors(end) if end.exists() else None


@pytest.fixture(scope='module')
def one(tmp_path_factory): return run(tmp_path_factory.mktemp('one'), 'one', 1)


def same(a, b):
    assert a.keys() == b.keys()
    for k in a: torch.testing.assert_close(a[k], b[k], rtol=1e-5, atol=1e-5)


def test_two_processes_are_one(tmp_path, one): same(run(tmp_path, 'two', 2, slices=2), one)


def test_two_processes_stop_together_and_resume(tmp_path, one):
    "A slice of time ends in both processes at the same step; the next one goes on"
    assert run(tmp_path, 'cut', 2, seconds=1e-9) is None and (tmp_path/'cut'/'checkpoint.json').exists()
    end = run(tmp_path, 'cut', 2)
    assert len(end.pop('loss')) < 12
    same(end, {k: v for k, v in one.items() if k != 'loss'})
