"""The nearest of many training images, exactly, against a float32 product.

The images are generated, smooth colour fields with noise as bytes, so that nothing has to be downloaded; what is timed
does not depend on what they show."""
import torch
import torch.nn.functional as F
from turns import agreement, faster, turns

from scoreguidance.ncsn import nearest

peer = 'the usual |b|^2 - 2ab in float32, blocks of 1,000'


def images(n, size, g):
    "Bytes [n,3,size,size]"
    out = torch.empty(n, 3, size, size, dtype=torch.uint8)
    for o in out.split(5000):
        x = F.interpolate(torch.randn(len(o), 3, 4, 4, generator=g), size=size, mode='bilinear')
        o.copy_((128 + 50*x + 10*torch.randn(o.shape, generator=g)).clamp_(0, 255))
    return out


def theirs(a, b, chunk=1000):
    "Index of the nearest row [m]"
    a, best, where = a.flatten(1).float(), None, None
    for j, c in zip(range(0, len(b), chunk), b.flatten(1).split(chunk)):
        c = c.float()
        d, i = (c.square().sum(1) - 2*a@c.T).min(1)
        closer = d < best if j else torch.ones(len(a), dtype=torch.bool)
        best, where = (d, i) if not j else (torch.where(closer, d, best), torch.where(closer, i + j, where))
    return where


def row(tiny, rounds):
    m, n, size = (1000, 50_000, 32) if not tiny else (20, 1500, 8)
    g = torch.Generator().manual_seed(0)
    a, b = images(m, size, g), images(n, size, g)
    d, i = nearest(a, b)
    far, _ = nearest(a.double(), b[:max(n//10, 20)]) # the search in float64, on a part, and single distances on all
    own = nearest(a, b[:max(n//10, 20)])[0]
    of = lambda i: (a.double() - b[i].double()).flatten(1).norm(dim=1)
    whole = getattr(torch.cpu, '_is_vnni_supported', bool)()
    u, v = (w.flatten(1) for w in (a, b))
    p, q = ((w.bitwise_xor(128).view(torch.int8) if whole else w.float()) for w in (u, v))
    product = (lambda c: torch._int_mm(p, c.T)) if whole else (lambda c: p@c.T)

    def bare():
        for c in q.split(1000): product(c)
    t = turns({'floor': bare, 'ours': lambda: nearest(a, b), 'theirs': lambda: theirs(a, b)}, rounds)
    how = 'int8 products' if whole else 'no int8 products on this processor: float32 in parts of 1,024 columns'
    return dict(
        what=f'nearest of {n:,} images of {a[0].numel():,} bytes, {m:,} queries (generated images)', peer=peer,
        setting=dict(queries=m, images=n, bytes=a[0].numel(), products=how),
        claims=[faster('time', t['ours'], t['theirs'], t['floor'])],
        agreement=[agreement("distance found, against the distance to the peer's find", (d[:, 0].double() - of(theirs(a, b))).abs().max(), 1e-3),
                   agreement('distances of a search in float64, on a tenth of the images', (own.double() - far).abs().max(), 1e-3),
                   agreement('distances, against differences in float64', (d[:, 0].double() - of(i[:, 0])).abs().max(), 1e-3)],
        floor=f"the products alone, in {'int8' if whole else 'float32'}, of images that have that type already",
        note=f'Exact here by {how}.')
