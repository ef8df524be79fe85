"CIFAR archives as they lie on disk: tiny ones made here, whole, damaged, incomplete and hostile"
import hashlib, io, pickle, tarfile

import numpy as np
import pytest
from torchvision import datasets

from scoreguidance import data
from scoreguidance.data import cifar10, cifar100, digest

LOAD = dict(cifar10=cifar10, cifar100=cifar100)
md5 = lambda b: hashlib.md5(b).hexdigest()


def made(name, version, seed=0):
    "Tiny files of one version -> {file: bytes}, pixels and labels of the training part"
    rng, files, xs, ys = np.random.RandomState(seed), {}, [], []
    binary = data.BINARY[name]
    for f in [*binary.train, *binary.test]:
        x = rng.randint(0, 256, (3, 3072)).astype(np.uint8)
        y, coarse = rng.randint(0, 10 if name == 'cifar10' else 100, 3), rng.randint(0, 20, 3)
        if version == 'binary':
            labels = [y] if name == 'cifar10' else [coarse, y]
            files[f] = np.concatenate([np.stack(labels, 1).astype(np.uint8), x], 1).tobytes()
        else:
            d = dict(data=x, labels=y.tolist()) if name == 'cifar10' else \
                dict(data=x, coarse_labels=coarse.tolist(), fine_labels=y.tolist())
            files[f.removesuffix('.bin')] = pickle.dumps(d, protocol=2)
        if f in binary.train: xs.append(x); ys.append(y)
    return files, np.concatenate(xs).reshape(-1, 3, 32, 32), np.concatenate(ys)


def layout(name, version): return data.BINARY[name] if version == 'binary' else data.python_layout(name)


def trust(monkeypatch, name, version, files):
    "Put the sums of `files` in place of the official ones"
    new = lambda sums: {f: md5(files[f]) for f in sums}
    if version == 'binary':
        v = data.BINARY[name]
        monkeypatch.setitem(data.BINARY, name, v._replace(train=new(v.train), test=new(v.test)))
    else:
        c = getattr(datasets, name.upper())
        for part in ('train_list', 'test_list'):
            monkeypatch.setattr(c, part, [list(i) for i in new(dict(getattr(c, part))).items()])


def lay_out(root, v, files, form):
    "Write `files` unpacked or as the archive; the path written"
    if form == 'folder':
        (root/v.folder).mkdir(parents=True)
        for f, b in files.items(): (root/v.folder/f).write_bytes(b)
        return root/v.folder
    with tarfile.open(root/v.archive, 'w:gz') as tar:
        for f, b in files.items():
            info = tarfile.TarInfo(f'{v.folder}/{f}'); info.size = len(b)
            tar.addfile(info, io.BytesIO(b))
    return root/v.archive


@pytest.fixture(params=['cifar10', 'cifar100'])
def name(request): return request.param

@pytest.fixture(params=['binary', 'python'])
def version(request): return request.param


@pytest.mark.parametrize('form', ['folder', 'archive'])
def test_every_version_and_form(monkeypatch, tmp_path, name, version, form):
    files, x, y = made(name, version)
    trust(monkeypatch, name, version, files)
    at = lay_out(tmp_path, layout(name, version), files, form)
    got = LOAD[name](tmp_path)
    assert (got.x.numpy() == x).all() and got.y.tolist() == y.tolist()
    assert len(got.classes) == (10 if name == 'cifar10' else 100)
    assert digest(*LOAD[name](at)[:2]) == digest(*got[:2]) # the archive or folder itself will do
    assert len(LOAD[name](tmp_path, train=False).y) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [at.name]             # nothing was written


@pytest.mark.parametrize('form', ['folder', 'archive'])
def test_damaged_file(monkeypatch, tmp_path, name, version, form):
    files, *_ = made(name, version)
    trust(monkeypatch, name, version, files)
    f = next(iter(files)); good = md5(files[f])
    files[f] = files[f][:-1] + bytes([files[f][-1] ^ 1])
    lay_out(tmp_path, layout(name, version), files, form)
    with pytest.raises(ValueError) as e: LOAD[name](tmp_path)
    for part in (f, good, md5(files[f]), 'fetch', 'cifar.html'): assert part in str(e.value)
    assert len(LOAD[name](tmp_path, train=False).y) == 3                       # the other part is still good


def test_truncated_archive(monkeypatch, tmp_path, name, version):
    files, *_ = made(name, version)
    trust(monkeypatch, name, version, files)
    at = lay_out(tmp_path, layout(name, version), files, 'archive')
    whole = at.read_bytes()
    for n in (0, 5, len(whole)//4, len(whole)//2):
        at.write_bytes(whole[:n])
        with pytest.raises((ValueError, FileNotFoundError), match=at.name): LOAD[name](tmp_path)


@pytest.mark.parametrize('form', ['folder', 'archive'])
def test_missing_file(monkeypatch, tmp_path, version, form):
    files, *_ = made('cifar10', version)
    trust(monkeypatch, 'cifar10', version, files)
    f = [f for f in files if '3' in f][0]; sum_ = md5(files.pop(f))
    lay_out(tmp_path, layout('cifar10', version), files, form)
    with pytest.raises(FileNotFoundError) as e: cifar10(tmp_path)
    for part in (f, sum_, 'fetch'): assert part in str(e.value)


def test_nothing_there(tmp_path, name):
    with pytest.raises(FileNotFoundError) as e: LOAD[name](tmp_path/'none')
    for v in (data.BINARY[name], data.python_layout(name)): assert v.archive in str(e.value)
    for part in ('md5', 'download=True', *data.python_layout(name).train.values()):
        assert part in str(e.value)


def test_unofficial_data_is_refused(tmp_path, name, version):
    "Well-formed files whose sums are not the official ones"
    lay_out(tmp_path, layout(name, version), made(name, version)[0], 'folder')
    official = next(iter(layout(name, version).train.values()))
    with pytest.raises(ValueError, match=official): LOAD[name](tmp_path)


class Touch:
    "Pickled code that would leave a file"
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (str(self.path), 'w')


@pytest.mark.parametrize('trusted', [False, True])
def test_hostile_pickle_never_runs(monkeypatch, tmp_path, name, trusted):
    files, *_ = made(name, 'python')
    mark = tmp_path/'ran'
    files = {f: pickle.dumps(dict(data=Touch(mark))) for f in files}
    if trusted: trust(monkeypatch, name, 'python', files)
    lay_out(tmp_path, data.python_layout(name), files, 'folder')
    if not trusted:
        never = lambda b: pytest.fail("looked at before its md5 was known")
        monkeypatch.setattr(data, 'python_records', never)
    with pytest.raises(ValueError, match='without pixels and labels' if trusted else 'md5'): LOAD[name](tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize('protocol', range(2, 6))
def test_opcodes_give_what_unpickling_gives(name, protocol):
    "Keys in any order, labels of every size, other lists of numbers and hostile objects beside them"
    x, y = np.random.RandomState(0).randint(0, 256, (1500, 12)).astype(np.uint8), np.arange(1500)*50 % 70001
    key = 'labels' if name == 'cifar10' else 'fine_labels'
    parts = dict(data=x, batch_label='training batch 1 of 5', coarse_labels=[7]*1500, filenames=['a.png']*1500)
    for order in (lambda d: {key: y.tolist(), **d}, lambda d: {**d, key: y.tolist()}):
        got = data.python_records(pickle.dumps(order(parts), protocol))
        assert (got[0] == x).all() and list(got[1]) == y.tolist()


def test_archive_members_stay_inside(monkeypatch, tmp_path):
    "A member with a path that climbs, or a link, is read by name only and never written"
    files, *_ = made('cifar100', 'binary')
    trust(monkeypatch, 'cifar100', 'binary', files)
    v = data.BINARY['cifar100']
    (tmp_path/'in').mkdir()
    with tarfile.open(tmp_path/'in'/v.archive, 'w:gz') as tar:
        link = tarfile.TarInfo('train.bin'); link.type, link.linkname = tarfile.SYMTYPE, '/etc/hostname'
        tar.addfile(link)
        for f, b in files.items():
            info = tarfile.TarInfo(f'../../{f}'); info.size = len(b)
            tar.addfile(info, io.BytesIO(b))
    assert len(cifar100(tmp_path/'in').y) == 3
    assert [p.name for p in tmp_path.rglob('*.bin')] == []


def test_download_is_asked_for_once_and_then_checked(monkeypatch, tmp_path, name):
    files, x, y = made(name, 'python')
    trust(monkeypatch, name, 'python', files)
    calls = []
    def fetch(self, root, train, download):
        assert download; calls.append(root)
        lay_out(root, data.python_layout(name), files, 'folder')
    monkeypatch.setattr(datasets.CIFAR10, '__init__', fetch)
    for _ in range(2): assert LOAD[name](tmp_path, download=True).y.tolist() == y.tolist()
    assert len(calls) == 1


def test_failed_download(monkeypatch, tmp_path, name):
    def fetch(self, *a, **kw): raise OSError("no route")
    monkeypatch.setattr(datasets.CIFAR10, '__init__', fetch)
    with pytest.raises(FileNotFoundError, match='no download .no route.*place'):
        LOAD[name](tmp_path, download=True)


def test_binary_is_preferred_and_needs_no_pickle(monkeypatch, tmp_path, name):
    for version in ('binary', 'python'):
        files, x, y = made(name, version, seed=len(version))
        trust(monkeypatch, name, version, files)
        lay_out(tmp_path, layout(name, version), files, 'folder')
        if version == 'binary': first = y.tolist()
    monkeypatch.setattr(data, 'python_records', None)
    assert LOAD[name](tmp_path).y.tolist() == first
