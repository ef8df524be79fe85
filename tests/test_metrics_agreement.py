"Our metrics on the same features as clean-fid, torch-fidelity and prdc compute them on"
import warnings

import numpy as np
import pytest
import torch
from cleanfid import fid as clean
from prdc import compute_prdc
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from scoreguidance.features import tensorflow_bilinear
from scoreguidance.metrics import (Stats, frechet, frechet_statistics, inception_score, kid, kid_blocks, prdc,
                                   statistics)

quiet = dict(verbose=False)
sets = [(400, 300, 16, 0.), (900, 1000, 64, .3), (120, 500, 5, 1.)]
each = pytest.mark.parametrize('n,m,d,shift', sets)


def features(n, m, d, shift):
    "Two correlated clouds"
    rng = np.random.RandomState(n)
    mix = rng.randn(d, d)/d**.5
    return rng.randn(n, d)@mix, rng.randn(m, d)@mix*1.1 + shift


@each
def test_frechet(n, m, d, shift):
    a, b = features(n, m, d, shift)
    stats = [s for f in (a, b) for s in (f.mean(0), np.cov(f, rowvar=False))]
    theirs = float(clean.frechet_distance(*stats))
    fidelity = metric_fid.fid_statistics_to_metric(*(metric_fid.fid_features_to_statistics(torch.from_numpy(f))
                                                     for f in (a, b)), **quiet)
    for v in (theirs, fidelity[metric_fid.KEY_METRIC_FID]):
        assert frechet(a, b) == pytest.approx(v, rel=1e-6)
        assert frechet_statistics(statistics(a), statistics(b)) == pytest.approx(v, rel=1e-6)


def test_statistics_of_a_file_are_enough():
    "mu and sigma as clean-fid stores them"
    a, b = features(*sets[0])
    stored = [Stats(torch.from_numpy(f.mean(0)), torch.from_numpy(np.cov(f, rowvar=False)), len(f)) for f in (a, b)]
    assert frechet_statistics(*stored) == pytest.approx(frechet(a, b), rel=1e-9)


@each
def test_kid_of_all_rows(n, m, d, shift):
    "With subsets of all rows the published averaging has nothing to draw"
    a, b = (f[:min(n, m)] for f in features(n, m, d, shift))
    size = len(a)
    assert kid(a, b) == pytest.approx(float(clean.kernel_distance(a, b, num_subsets=2, max_subset_size=size)), abs=1e-9)
    args = dict(kid_subsets=2, kid_subset_size=size, rng_seed=0, **quiet)
    theirs = metric_kid.kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **args)
    assert kid(a, b) == pytest.approx(theirs[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-6)


def test_kid_of_subsets():
    "Subsets are drawn, so the two agree within what subsets vary"
    a, b = features(*sets[1])
    args = dict(kid_subsets=50, kid_subset_size=300, rng_seed=0, **quiet)
    theirs = metric_kid.kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **args)
    mean, sd = (theirs[k] for k in (metric_kid.KEY_METRIC_KID_MEAN, metric_kid.KEY_METRIC_KID_STD))
    assert abs(kid(a, b, subsets=50, size=300) - mean) < 3*sd*(2/50)**.5
    blocks = kid_blocks(a, b, 3)
    assert abs(blocks.value - mean) < 4*blocks.se


@pytest.mark.parametrize('k', [3, 5])
@each
def test_prdc(n, m, d, shift, k, capsys):
    a, b = features(n, m, d, shift)
    theirs, ours = compute_prdc(real_features=a, fake_features=b, nearest_k=k), prdc(a, b, k=k)
    for name in theirs: assert ours[name] == pytest.approx(float(theirs[name]), abs=1e-12), name


@each
def test_precision_and_recall(n, m, d, shift):
    a, b = features(n, m, d, shift)
    theirs = metric_prc.calculate_precision_recall_full(torch.from_numpy(b), torch.from_numpy(a), 3) # fakes first
    ours = prdc(a, b, k=3)
    assert [ours['precision'], ours['recall']] == pytest.approx([float(v) for v in theirs[:2]], abs=1e-6)


@pytest.mark.parametrize('splits', [1, 4, 10])
def test_inception_score(splits):
    v = torch.randn(600, 12, generator=torch.Generator().manual_seed(0)).double()*3
    theirs = metric_isc.isc_features_to_metric(v, splits=splits, shuffle=False)
    assert inception_score(v.softmax(1), splits) == pytest.approx(theirs[metric_isc.KEY_METRIC_ISC_MEAN], rel=1e-9)


@pytest.mark.parametrize('h,w', [(8, 8), (32, 32), (40, 25), (299, 299), (400, 300)])
def test_resizing_like_tensorflow(h, w):
    x = torch.randint(256, (2, 3, h, w)).float()
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    assert torch.allclose(tensorflow_bilinear(x), theirs, atol=2e-2) # theirs places its grid in float32
    assert (tensorflow_bilinear(x) - theirs).abs().mean() < 1e-3


def test_where_the_matrix_root_fails_ours_does_not():
    "Rank-deficient and identical: the truth is zero, and theirs is off by far more"
    a = np.random.RandomState(0).randn(150, 200)*10
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = float(clean.frechet_distance(*[s for _ in 'ab' for s in (a.mean(0), np.cov(a, rowvar=False))]))
        assert 0 <= frechet(a, a) < 1e-9 < abs(theirs)
