"Which Inception is taken, what is told of it, and that clean-fid does the resizing; no weights needed"
import warnings

import cleanfid.features
import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer

import scoreguidance.features as F
from scoreguidance.features import clean_fid, extract, inception, resized, sha_of, which

x = torch.randint(256, (3, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def seen(monkeypatch, tmp_path):
    "clean-fid with a stand-in for its network, which notes what it is given"
    seen, file = [], tmp_path/'weights.pt'
    file.write_bytes(b'weights')
    def net(v): seen.append(v); return v.mean((2, 3))
    monkeypatch.setattr(cleanfid.features, 'build_feature_extractor', lambda mode, device, use_dataparallel: net)
    monkeypatch.setattr(F, 'clean_fid_file', lambda mode: file)
    monkeypatch.setattr(F, 'fid_helper_file', lambda: None)
    seen.append(file)
    return seen


@pytest.mark.parametrize('mode', F.MODES)
def test_clean_fid(seen, mode):
    ex = clean_fid(mode)
    assert which(ex) == dict(extractor='Inception (clean-fid)', weights=sha_of(seen[0]), resize=mode)
    extract(ex, x)
    if mode == 'legacy_tensorflow': want = x.float() # its network file resizes by itself
    else:
        with warnings.catch_warnings(): # that function silences all warnings for good
            one = build_resizer(mode)
            rows = [one(np.ascontiguousarray(v)) for v in x.permute(0, 2, 3, 1).numpy()]
        want = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
    if mode == 'clean': assert torch.allclose(seen[1], want, rtol=0, atol=2e-3)          # of 255: PyTorch's own enlargement
    else: assert torch.equal(seen[1], want)


def test_missing_weights(seen):
    seen[0].unlink()
    with pytest.raises(FileNotFoundError, match='--download'): clean_fid()
    with pytest.raises(FileNotFoundError, match=r'scoreguidance\[inception\]'): inception()


def test_failed_download(seen, monkeypatch):
    def fails(*a, **kw): raise OSError('no route to host')
    monkeypatch.setattr(cleanfid.features, 'build_feature_extractor', fails)
    with pytest.raises(FileNotFoundError, match="can't be had.*no route"): clean_fid(download=True)


def test_clean_fid_comes_first_and_is_named(seen, monkeypatch):
    monkeypatch.setattr(F, 'fid_helper', lambda mode, device: 'the extra')
    monkeypatch.setattr(F, 'fid_helper_file', lambda: seen[0])
    assert inception().name == 'Inception (clean-fid)'
    seen[0].unlink()
    assert inception() == 'the extra'


@pytest.mark.parametrize('shape', [(1, 1, 8, 8), (2, 3, 32, 32), (1, 3, 299, 299), (1, 3, 310, 280)])
@pytest.mark.parametrize('mode', F.MODES)
def test_resized(mode, shape):
    v = torch.randint(256, shape, dtype=torch.uint8)
    got = resized(v, mode)
    assert got.shape == (shape[0], 3, 299, 299) and got.dtype == torch.float32
    assert 0 <= got.min() and got.max() <= 255
    if shape[2:] == (299, 299): assert torch.allclose(got, v.float(), atol=1e-3)  # nothing to resize
    assert abs(got.mean() - v.float().mean()) < 6


def test_a_gpu_gives_the_same_where_there_is_one():
    "The device is an argument; features come back on the CPU"
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
    for device in ['cpu'] + ['cuda']*torch.cuda.is_available():
        f = extract(F.network(net, 'net', device=device), x)
        assert f.device.type == 'cpu' and torch.allclose(f, net.cpu()(F.as_float(x)), atol=1e-4)
