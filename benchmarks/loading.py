"""Images per second of the training data path, against torchvision's DataLoader on PIL images.

Images are random bytes of CIFAR-10's shape: what is timed does not depend on what they show. `batches` also noises its
images; the peer's usual code does not. So there are two claims: images alone (the noising replaced by nothing), and with
noise on both sides."""
from unittest.mock import patch

import torch
import torchvision
from PIL import Image
from torchvision import transforms
from turns import agreement, faster, turns

from scoreguidance import engine
from scoreguidance.data import as_float
from scoreguidance.score import perturb
from scoreguidance.sde import VE

peer = f'torchvision {torchvision.__version__}: DataLoader(num_workers=0) of RandomHorizontalFlip, ToTensor, Normalize'
sde = VE(.01, 50.)


class Pictures(torch.utils.data.Dataset):
    "As torchvision.datasets.CIFAR10: an array of bytes, a PIL image on the way, a transform"
    def __init__(self, x, y, transform): self.data, self.y, self.transform = x.permute(0, 2, 3, 1).numpy(), y.tolist(), transform
    def __len__(self): return len(self.data)
    def __getitem__(self, i): return self.transform(Image.fromarray(self.data[i])), self.y[i]


def row(tiny, rounds):
    n, size, count = (50_000, 128, 40) if not tiny else (500, 32, 2)
    x, y = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8), torch.arange(n) # the label says which image
    tail = [transforms.ToTensor(), transforms.Normalize((.5,)*3, (.5,)*3)]
    data = Pictures(x, y, transforms.Compose([transforms.RandomHorizontalFlip(), *tail]))
    still = Pictures(x, y, transforms.Compose(tail))
    draw = engine.batches(x, y, sde, size)
    plain = patch.object(engine, 'perturb', lambda sde, x0, t=None: x0)

    def ours(noise):
        def run():
            for _ in range(count): draw()
        if noise: return run
        def quiet():
            with plain: run()
        return quiet

    def theirs(noise):
        def run():
            for i, (xb, _) in enumerate(torch.utils.data.DataLoader(data, size, shuffle=True, drop_last=True)):
                if noise: perturb(sde, xb)
                if i + 1 == count: break
        return run
    with plain: xb, yb = draw()
    want = torch.stack([still[i][0] for i in yb.tolist()])
    off = torch.minimum((xb - want).abs().amax((1, 2, 3)), (xb - want.flip(-1)).abs().amax((1, 2, 3))).max()
    got = next(iter(torch.utils.data.DataLoader(still, size)))[0]
    out, noise, z = (torch.empty(size, 3, 32, 32) for _ in range(3))

    def floor(noised):
        for _ in range(count):
            out.copy_(x.index_select(0, torch.randint(n, (size,)))).mul_(1/127.5).sub_(1)
            if noised: torch.add(out, z.normal_(), alpha=.5, out=noise)
    t = turns({'floor': lambda: floor(False), 'noised floor': lambda: floor(True), 'ours': ours(False), 'theirs': theirs(False), 'noised': ours(True), 'both': theirs(True)}, rounds)
    how = dict(per=size*count/1e6, unit='us per image')
    return dict(
        what='images for training, 3x32x32 bytes', peer=peer, setting=dict(images=n, batch=size, batches=count),
        claims=[faster('drawn, mirrored, scaled', t['ours'], t['theirs'], t['floor'], **how),
                faster('and noised, on both sides', t['noised'], t['both'], t['noised floor'], **how)],
        agreement=[agreement('each image of a batch, against the peer image of its label, mirrored or not', off, 1e-6),
                   agreement('the first batch of the peer in order', (as_float(x[:size]) - got).abs().max(), 1e-6)],
        floor='the bytes gathered, made floats and scaled in place, not mirrored; with noise, its draw and one addition',
        note='The first claim leaves out noising, which the peer does not do; the second adds the same noising to both.')
