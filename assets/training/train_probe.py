"""Trains the probe on true renders; stops on the wall clock; reports its own accuracy on renders of held-out seeds.

    python3 train_probe.py --pack DIR --out DIR --minutes 2.5 [--resume] [--device cpu]
"""
import argparse
import json
import os
import time

import torch
import torch.nn.functional as F

import feed
from clock import Clock, Log, parser, save
from muon import Optimiser
from probe import HEADS, Probe
from world import World


def spoil(x):
    """Blur by a random amount, noise, contrast: what a VAE or a young model does to a clip. x [B, 3, T, H, W]."""
    B, d = x.shape[0], x.device
    soft = F.interpolate(F.avg_pool3d(x, (1, 2, 2)), scale_factor=(1, 2, 2), mode="trilinear")
    softer = F.interpolate(F.avg_pool3d(x, (1, 4, 4)), scale_factor=(1, 4, 4), mode="trilinear")
    u = torch.rand(B, 1, 1, 1, 1, device=d)
    x = torch.where(u < 0.35, x, torch.where(u < 0.8, soft, softer))
    x = x * (1 + 0.15 * torch.randn(B, 1, 1, 1, 1, device=d)) + 0.08 * torch.randn(B, 3, 1, 1, 1, device=d)
    return x + torch.randn_like(x) * (0.08 * torch.rand(B, 1, 1, 1, 1, device=d))


def loss_of(model, x, facts):
    out = model(x)
    return sum(F.cross_entropy(v.float(), facts[:, HEADS[k][0]].long()) for k, v in out.items())


@torch.no_grad()
def accuracy(model, clips, facts, cuda=True):
    """Fraction right per head. clips [N, 3, 17, 128, 128]; facts [N, 12]. Colour counts only recoloured actors. model None: no judge, all not a number."""
    if model is None:
        return {k: float("nan") for k in HEADS}
    model.eval()
    with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
        outs = [model(c) for c in clips.split(64)]
    row = {}
    for k, (column, _) in HEADS.items():
        right = (torch.cat([o[k] for o in outs]).argmax(1).cpu() == facts[:, column]).float()
        if k == "colour":
            right = right[facts[:, column] > 0]
        row[k] = float(right.mean()) if len(right) else float("nan")
    return row


def renders(world, purpose, seed, n, size, tier, want, held=False):
    """n true clips of 17 frames and their facts."""
    t, clips, facts = feed.teller_for(world.index, "teller", 17, size, size, tier, held), [], []
    for i in range(0, n, 32):
        b = feed.draw(t, purpose, seed, i, min(32, n - i), None, want)
        facts.append(torch.from_numpy(b.pop("facts")))
        clips.append(world.render(b, size, size)[0])
    return torch.cat(clips), torch.cat(facts)


def main(a):
    torch.manual_seed(1234 + a.seed)
    cuda = a.device != "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    os.makedirs(a.out, exist_ok=True)
    clock, log = Clock(a.minutes, begun=a.begun, fall=0.6), Log(os.path.join(a.out, "probe.log"))
    world = a.world or World(a.pack, a.device, a.variants, 0, workers=None if cuda else 0)
    model = Probe().to(a.device)
    opt = Optimiser(model, a.lr, 0.01, ("stem", "out.", "where"), ema=0.998)
    path = os.path.join(a.out, "probe.pt")
    if a.resume and os.path.exists(path):
        c = torch.load(path, map_location=a.device, weights_only=False)
        model.load_state_dict(c["model"])
        opt.load(c["optimiser"])
        a.seed = c["seed"] + 1
    f = feed.Feed(world.index, "teller", 17, a.size, a.size, a.tier, "probe", a.seed, a.batch, a.workers, want={"second": 0.0})
    step = torch.compile(loss_of) if cuda and not a.plain else loss_of
    done, total, t0 = 0, 0.0, time.time()
    while clock.running() and (not a.steps or done < a.steps):
        b = next(f)
        facts = torch.from_numpy(b.pop("facts")).to(a.device)
        x = spoil(world.render(b, a.size, a.size, fast=cuda and not a.plain)[0])
        if cuda:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss = step(model, x, facts)
        loss.backward()
        if done == 0:
            clock.start()
        opt.step(clock.factor())
        total, done = total + loss.detach(), done + 1
        if done % a.every == 0:
            log(step=done, loss=float(total) / a.every, clips_per_s=done * a.batch / (time.time() - t0), left=clock.left())
            total = 0.0
    f.close()
    save(path, {"model": model.state_dict(), "optimiser": opt.state(), "seed": a.seed})
    save(os.path.join(a.out, "probe.half.pt"), {"model": {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}})    # small enough to travel
    clips, facts = renders(world, "probe", 10 ** 6, a.judge, a.size, a.tier, {"second": 0.0}, held=True)
    row = accuracy(model, clips, facts, cuda)
    with open(os.path.join(a.out, "probe.json"), "w") as g:
        json.dump({"true_renders": row, "clips": a.judge, "steps": done}, g, indent=1)
    log(at="probe done", **row)
    return model, world, row


def options(argv=None):
    p = parser(2.5)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--judge", type=int, default=512)
    p.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    a.begun, a.world = None, None
    return a


def warm(a):
    """Compiles the renderer and the step into the cache on disk, and ends."""
    torch.set_float32_matmul_precision("high")
    world = World.from_outline(os.path.join(a.out, "world.outline"), a.device)
    b = feed.draw(feed.teller_for(world.index, "teller", 17, a.size, a.size, a.tier), "sheet", 0, 0, a.batch, None, {})
    facts = torch.from_numpy(b.pop("facts")).to(a.device)
    x = spoil(world.render(b, a.size, a.size, fast=True)[0]).contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast("cuda", torch.bfloat16):
        torch.compile(loss_of)(Probe().to(a.device), x, facts).backward()


if __name__ == "__main__":
    a = options()
    warm(a) if a.warm else main(a)
