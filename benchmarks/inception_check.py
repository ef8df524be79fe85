"""torchmetrics' documentation example, reproduced with the optional Inception: FID on 64 and 2048 features, and KID.

    pip install 'scoreguidance[inception]' torch-fidelity
    python benchmarks/inception_check.py [--weights default_1.pt] [--out results/metrics/torchmetrics.json]

The example draws 100 + 100 random uint8 images *after* constructing its network, so what the construction takes
from the random numbers counts: torch-fidelity's class is constructed here too, and its weights left alone.
Two to three minutes on one core."""
import argparse
import time
from pathlib import Path
from statistics import fmean, pstdev
from unittest.mock import patch

import torch
import torch_fidelity.feature_extractor_inceptionv3 as theirs

from scoreguidance.features import extract, fid_helper, which
from scoreguidance.files import write_json
from scoreguidance.metrics import frechet, kid

printed = {'123': dict(fid_64=12.7202, kid=.0337, kid_sd=.0023), # as printed for manual_seed(123)
           '42': dict(fid_64=12.6388, kid=.0312, kid_sd=.0025)} # in torchmetrics 1.9.0, which does not say its seed: 42

p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument('--weights')
p.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results'/'metrics'/'torchmetrics.json')
a = p.parse_args()
torch.set_num_threads(1)


def images(seed):
    "The example's images, and the state of the generator after them"
    torch.manual_seed(seed)
    with patch.object(theirs, 'load_state_dict_from_url', return_value={}), \
         patch.object(theirs.FeatureExtractorInceptionV3, 'load_state_dict'):
        theirs.FeatureExtractorInceptionV3('inception-v3-compat', ['64'])
    draw = lambda lo, hi: torch.randint(lo, hi, (100, 3, 299, 299), dtype=torch.uint8)
    return draw(0, 200), draw(100, 255)


def subsets(f, g, n=100, size=50):
    "KID as torchmetrics averages it, from the generator where it stands"
    pick = lambda v: v[torch.randperm(len(v))[:size]]
    values = [kid(pick(f), pick(g)) for _ in range(n)]
    return fmean(values), pstdev(values)


begun, got = time.process_time(), {}
ex = {d: fid_helper('legacy_tensorflow', a.weights, d) for d in (64, 2048)}
for seed, said in printed.items():
    sets = images(int(seed))
    state = torch.get_rng_state()
    f = {d: [extract(e, x, 10) for x in sets] for d, e in ex.items()}
    torch.set_rng_state(state)
    mean, sd = subsets(*f[2048])
    got[seed] = dict(fid_64=frechet(*f[64]), kid=mean, kid_sd=sd, fid_2048=frechet(*f[2048]))
    print(seed, got[seed], 'printed', said, flush=True)
    for k, v in said.items(): assert abs(got[seed][k] - v) <= .50001e-4, (seed, k, got[seed][k], v)
write_json(a.out, dict(what="torchmetrics' documentation example", n=100, measured=got, printed=printed,
                       **which(ex[2048]), torch=torch.__version__, cpu_seconds=round(time.process_time() - begun, 1)))
