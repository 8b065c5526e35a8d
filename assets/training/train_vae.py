"""Trains the VAE on world clips and jumbles; stops on the wall clock; reports PSNR on held-out clips and on photos no trainer sees.

Loss: 0.05 x the log of each clip's mean square error (which is its PSNR) + 0.5 x L1 + 0.1 x gradient L1 at two scales + KL. The KL weight (per latent value, against
per pixel value) is mild but real, so that the decoder learns to stand small errors in the latents: the DiT will make them. No perceptual network: the probe is a
judge and must not be a teacher.
A share of the clips are jumbles (any sprite anywhere, mosaics, wide lenses), for sharpness and colours outside the world. Small batches: early on, the number of
steps counts more than their size. Steps alternate between two shapes: a few long clips, for what the decoder must not lose with time, and many short ones, for
variety: a still teaches most of what a clip does.

Gate: 30 dB on world clips and 26 dB on photos (mean of PSNR over photos of things, still and slowly moving; pure textures are listed apart).
The clips must be long: trained on 9 frames, the first VAE kept 29 dB there and fell to 20 dB by frame 17 (see the model card).
Compiling takes a minute or two a shape: one more process for each shape does it into the cache on disk, meanwhile this one trains uncompiled. Should such a process
fail, its shape stays uncompiled: slower, and nothing is lost.

    python3 train_vae.py --pack DIR --out DIR --minutes 8 [--resume [--models DIR]] [--export DIR] [--frames 33 --size 96 --batch 8 --short 5x128x24] [--device cpu]
--resume continues vae.pt of --out, or, where there is none, the weights of a model directory.
"""
import argparse
import glob
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import configs
import export
import feed
import story
from clock import Clock, Log, MODELS, parser, save
from muon import Optimiser
from vae import VAE, Causal, Res
from world import World

GATE_WORLD, GATE_FOREIGN = 30.0, 26.0
TEXTURES = ("grass", "gravel", "brick")           # no things in them; nearly noise at this size


def edges(a, b):
    """L1 between the differences of neighbours, at full and half size. a, b [B, 3, T, H, W]."""
    total = 0.0
    for k in range(2):
        if k:
            a, b = (F.avg_pool3d(v, (1, 2, 2)) for v in (a, b))
        d = a - b
        total = total + (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
        if k == 0 and d.shape[2] > 1:
            total = total + (d[:, :, 1:] - d[:, :, :-1]).abs().mean()
    return total


def loss_of(vae, x, noise, kl=5e-4):
    """x in -1..1; noise: standard normal of the latent's shape. Returns (loss, L1, mean KL)."""
    mean, logvar = vae.encode(x)
    mean, logvar = mean.float(), logvar.float().clamp(-12, 6)
    z = mean + torch.exp(0.5 * logvar) * noise
    y = vae.decode(z.to(x.dtype)).float()
    x = x.float()
    l1 = (y - x).abs().mean()
    mse = (y - x).pow(2).mean((1, 2, 3, 4))
    k = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
    return 0.05 * (mse + 1e-4).log().mean() + 0.5 * l1 + 0.1 * edges(y, x) + kl * k, l1, k


def psnr(a, b):
    """Per clip, of values in -1..1: 10 log10(4 / mse)."""
    return 10 * torch.log10(4 / (a.clamp(-1, 1) - b).float().pow(2).flatten(1).mean(1).clamp(min=1e-10))


def photos(pack, size=256):
    """[N, 3, 1, size, size] stills and [N, 3, 17, size/2, size/2] slow pans over the same photos, in -1..1, and their names."""
    stills, pans, names = [], [], []
    for p in sorted(glob.glob(os.path.join(pack, "foreign/*.webp"))):
        im = Image.open(p).convert("RGB")
        s = size / min(im.size)
        im = im.resize((max(size, round(im.size[0] * s)), max(size, round(im.size[1] * s))), Image.LANCZOS)
        x = torch.from_numpy(np.asarray(im)).permute(2, 0, 1).float() / 127.5 - 1
        stills.append(x[:, :size, :size][:, None])
        pans.append(torch.stack([x[:, 40 + t:40 + t + size // 2, 2 * t:2 * t + size // 2] for t in range(17)], 1))
        names.append(os.path.basename(p)[:-5])
    return (torch.stack(stills), torch.stack(pans), names) if stills else (None, None, [])


@torch.no_grad()
def judge(vae, world, pack, device, tier=132, clips=96, size=128, frames=17):
    """Dict of measures; the clips come from the stream "vae-eval" that training never draws."""
    t = feed.teller_for(world.index, "teller", frames, size, size, tier, held=True)
    out, flick = [], []
    run = lambda x: vae.decode(vae.encode(x)[0]).float()
    cast = torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu")
    with cast:
        for i in range(0, clips, 16):
            n = min(16, clips - i)
            x = world.render({k: v for k, v in feed.draw(t, "vae-eval", 0, i, n, None, {}).items() if k != "facts"}, size, size)[0]
            y = run(x)
            out.append(psnr(y, x))
            e = (y - x).float()
            flick.append((e[:, :, 1:] - e[:, :, :-1]).abs().mean() / e.abs().mean())
        row = {"world_psnr": float(torch.cat(out).mean()), "world_psnr_p10": float(torch.cat(out).quantile(0.1)), "flicker_of_error": float(torch.stack(flick).mean())}
        row["by_length"] = {}
        for long in (9, 17, 33, 65):              # a VAE that saw short clips only may lean on the zeros before the first frame
            t = feed.teller_for(world.index, "teller", long, size, size, tier, held=True)
            some = []
            for i in range(min(8, clips)):
                x = world.render({k: v for k, v in feed.draw(t, "vae-eval", 1, i, 1, None, {}).items() if k != "facts"}, size, size)[0]
                some.append(psnr(run(x), x))
            row["by_length"][str(long)] = round(float(torch.cat(some).mean()), 2)
        stills, pans, names = photos(pack)
        if names:
            a, b = psnr(run(stills.to(device)), stills.to(device)), psnr(run(pans.to(device)), pans.to(device))
            thing = torch.tensor([n not in TEXTURES for n in names], device=a.device)
            row.update(foreign_psnr=float(torch.cat([a[thing], b[thing]]).mean()), foreign_still=float(a[thing].mean()), foreign_pan=float(b[thing].mean()),
                       textures_psnr=float(torch.cat([a[~thing], b[~thing]]).mean()),
                       per_photo={n: [round(float(p), 2), round(float(q), 2)] for n, p, q in zip(names, a, b)})
    return row


@torch.no_grad()
def glance(vae, world, device, size, clips):
    """Mean PSNR over the first clips of the judging stream, 17 frames: what judge() will say, roughly, in a second or two."""
    t, out = feed.teller_for(world.index, "teller", 17, size, size, 132, held=True), []
    with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
        for i in range(0, clips, 8):
            x = world.render({k: v for k, v in feed.draw(t, "vae-eval", 0, i, min(8, clips - i), None, {}).items() if k != "facts"}, size, size)[0]
            out.append(psnr(vae.decode(vae.encode(x)[0]).float(), x))
    return float(torch.cat(out).mean())


@torch.no_grad()
def latent_stats(vae, world, device, tier, clips=2048, size=128, frames=17, batch=64):
    """Mean and standard deviation of every latent channel over world clips: two lists of 16."""
    t, n, s1, s2 = feed.teller_for(world.index, "teller", frames, size, size, tier), 0, 0.0, 0.0
    with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
        for i in range(0, clips, batch):
            b = feed.draw(t, "latent-stats", 0, i, min(batch, clips - i), None, {})
            b.pop("facts")
            z = vae.encode(world.render(b, size, size)[0])[0].double()
            s1, s2, n = s1 + z.sum((0, 2, 3, 4)), s2 + z.pow(2).sum((0, 2, 3, 4)), n + z[:, 0].numel()
    mean = s1 / n
    return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in (s2 / n - mean ** 2).sqrt()]


def fastest_form(batch, frames, size):
    """The name of the fastest way to run the 3x3x3 convolutions here (vae.Causal.FORM), by timing the two widest places of the decoder uncompiled."""
    took = {}
    for form in ("conv3d", "fold"):
        Causal.FORM, took[form] = form, 0.0
        for width, s in ((32, size), (64, size // 4)):
            net = Res(width, width).cuda()
            x = torch.randn(batch, width, frames, s, s, device="cuda", dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
            for n in range(6):
                if n == 2:
                    torch.cuda.synchronize()
                    t = time.time()
                net(x).sum().backward()
            torch.cuda.synchronize()
            took[form] += time.time() - t
    Causal.FORM = min(took, key=took.get)
    return Causal.FORM, {k: round(v, 3) for k, v in took.items()}


def load_average(model, path, device):
    """Puts the weights of a checkpoint into the model: averages of what was trained, the others as they stood."""
    c = torch.load(path, map_location=device, weights_only=False)
    model.load_state_dict({**model.state_dict(), **c["model"], **c["optimiser"]["average"]})
    return model


def network(a):
    """The VAE to train. With --only encoder the decoder stands still, so that latents keep their meaning and a trained DiT stays good."""
    model = VAE(configs.VAE).to(a.device)
    if a.only:
        for n, p in model.named_parameters():
            p.requires_grad_(n.startswith(("encoder.", "quant_conv.")))
    return model


class Shape:
    """One shape of batch: its feeds, and the step on it, uncompiled until another process has filled the cache. size: (frames, pixels, clips)."""

    def __init__(self, a, size, index, seed):
        self.frames, self.size, self.batch = size
        self.fast, self.helper, odd = False, None, max(1, round(self.batch * a.jumble))
        self.noise = (self.batch, configs.VAE["z_dim"], 1 + (self.frames - 1) // 4, self.size // 8, self.size // 8)
        self.feeds = [feed.Feed(index, k, self.frames, self.size, self.size, a.tier, "vae", 2 * seed + i, n, a.workers)
                      for i, (k, n) in enumerate((("teller", self.batch - odd), ("jumble", odd)))] if index else []
        self.step = torch.compile(loss_of, dynamic=False)

    def take(self):
        """The next batch of stories."""
        parts = [next(f) for f in self.feeds]
        return {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k != "facts"}

    def loss(self, model, world, records, device, fast):
        """Draws the clips and returns loss_of's three numbers."""
        x = world.render(records, self.size, self.size, fast=fast)[0]
        if device != "cpu":
            x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
            return (self.step if fast else loss_of)(model, x, torch.randn(self.noise, device=device))

    def compile_elsewhere(self, a):
        """Starts the process that compiles this shape."""
        self.helper = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--pack", a.pack, "--out", a.out, "--frames", str(self.frames), "--size", str(self.size), "--batch",
                                        str(self.batch), "--form", Causal.FORM, "--warm", *(["--only", a.only] if a.only else [])], env={**os.environ, "PYTHONWARNINGS": "ignore"})

    def ready(self):
        """True once, when that process has succeeded."""
        if self.helper is None or self.helper.poll() is None:
            return False
        self.fast, self.helper = self.helper.returncode == 0, None
        return self.fast

    def close(self):
        for f in self.feeds:
            f.close()
        if self.helper:
            self.helper.kill()


def main(a):
    torch.manual_seed(a.seed)
    cuda = a.device != "cpu"
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 4       # of ten: trying all took a minute
    torch.set_float32_matmul_precision("high")
    os.makedirs(a.out, exist_ok=True)
    clock, log = Clock(a.minutes, a.rise, begun=a.begun, fall=a.fall), Log(os.path.join(a.out, "vae.log"))
    world = a.world or World(a.pack, a.device, a.variants, 12 if cuda else 1, workers=None if cuda else 0)
    log(at="world loaded", images=world.count)
    if cuda and a.form == "auto":
        log(at="form", **dict(zip(("best", "seconds"), map(str, fastest_form(a.batch, a.frames, a.size)))))
    elif a.form != "auto":
        Causal.FORM = a.form
    model = network(a)
    opt = Optimiser(model, a.lr, 0.0, ("conv_in", "encoder.conv_out", "decoder.conv_out", "quant_conv"), muon=not a.adamw, ema=0.998)
    path = os.path.join(a.out, "vae.pt")
    seed = a.seed
    if a.resume and os.path.exists(path):
        c = torch.load(path, map_location=a.device, weights_only=False)
        model.load_state_dict({**model.state_dict(), **c["model"]})
        opt.load(c["optimiser"])
        seed = c["seed"] + 1
    elif a.resume:
        model.load_state_dict({**model.state_dict(), **{k: v.float() for k, v in export.read(os.path.join(a.models, "vae")).items()}})
        for p, q in zip(opt.average, opt.params):
            p.copy_(q.detach())
        log(at="resumed", models=a.models)
    sizes = [(a.frames, a.size, a.batch)] + ([tuple(map(int, a.short.split("x")))] if a.short else [])
    shapes = [Shape(a, s, world.index, 10 * seed + i) for i, s in enumerate(sizes)]
    if cuda and not a.plain:
        world.outline(os.path.join(a.out, "world.outline"))
        for s in shapes:
            s.compile_elsewhere(a)
    judged = VAE(configs.VAE).to(a.device).eval()

    def write():
        """The checkpoint, the averaged weights in the form that ships, and a look at a few clips."""
        save(path, {"model": model.state_dict(), "optimiser": opt.state(), "seed": seed})
        judged.load_state_dict({**model.state_dict(), **opt.averaged()})
        if a.export:
            export.shards(judged.state_dict(), os.path.join(a.export, "vae"), "diffusion_pytorch_model")
        torch.backends.cudnn.benchmark = False
        log(at="checkpoint", step=done, world_psnr=glance(judged, world, a.device, a.judge_size, min(16, a.judge)))
        torch.backends.cudnn.benchmark = True
    mean, done, clips, starved, since, spent = torch.zeros(3, device=a.device), 0, 0, 0, time.time(), 0.0
    while clock.running() and (not a.steps or done < a.steps):
        shape = shapes[done % len(shapes)]
        if done % 10 < len(shapes) and shape.ready():
            t = time.time()
            try:
                sum(shape.loss(model, world, shape.take(), a.device, True)).backward()
            except Exception as e:                 # compiling is a convenience
                shape.fast = False
                log(at="stays uncompiled", frames=shape.frames, why=repr(e)[:300])
            for p in opt.params:
                p.grad = None
            log(at="compiled", frames=shape.frames, good=shape.fast, step=done, seconds=time.time() - t)
            since, clips, spent = time.time(), 0, 0.0
        t = time.time()
        records = shape.take()
        spent += time.time() - t
        try:
            loss, l1, kl = shape.loss(model, world, records, a.device, shape.fast)
            loss.backward()
            starved = 0
        except torch.cuda.OutOfMemoryError:        # somebody else is on the device: let go and try again
            for p in opt.params:
                p.grad = None
            loss = l1 = kl = records = None
            starved += 1
            log(at="out of memory", step=done)
            if starved > 20:
                raise
            torch.cuda.empty_cache()
            time.sleep(1)
            continue
        if done == 0:
            clock.start()
        opt.step(clock.factor())
        mean += torch.stack([loss.detach(), l1.detach(), kl.detach()])
        done, clips = done + 1, clips + shape.batch
        if done % a.every == 0:
            m = (mean / a.every).tolist()
            mean.zero_()
            took = time.time() - since
            log(step=done, loss=m[0], l1=m[1], kl=m[2], ms_a_step=1000 * took * (sum(s.batch for s in shapes) / len(shapes)) / max(1, clips), waiting=spent / took, rate=clock.share(), left=clock.left())
            since, clips, spent = time.time(), 0, 0.0
            if not math.isfinite(m[0]):
                raise SystemExit("the loss is not finite")
        if clock.due():
            write()
            since, clips, spent = time.time(), 0, 0.0
    for s in shapes:
        s.close()
    write()
    model, opt = load_average(model, path, a.device).eval(), None
    torch.backends.cudnn.benchmark = False          # new shapes ahead, each used once
    row = judge(model, world, a.pack, a.device, a.tier, a.judge, a.judge_size, 17)
    if a.only:
        with open(os.path.join(a.models, "vae/config.json")) as f:
            row.update({k: v for k, v in json.load(f).items() if k in ("latents_mean", "latents_std")})
    else:
        row["latents_mean"], row["latents_std"] = latent_stats(model, world, a.device, a.tier, 16 * a.judge, a.judge_size)
    row.update(steps=done, minutes=round((time.time() - clock.begun) / 60, 2), passed=bool(row["world_psnr"] >= GATE_WORLD and row.get("foreign_psnr", 0) >= GATE_FOREIGN))
    with open(os.path.join(a.out, "vae.json"), "w") as f:
        json.dump(row, f, indent=1)
    if a.export:
        configs.write(a.export, "random", {k: row[k] for k in ("latents_mean", "latents_std")})
    log(at="vae done", **{k: str(v) if isinstance(v, dict) else v for k, v in row.items() if not isinstance(v, list)})
    return model, world, row


def options(argv=None):
    p = parser(7, workers=2, every=100)
    p.add_argument("--models", default=MODELS)
    p.add_argument("--frames", type=int, default=33)
    p.add_argument("--size", type=int, default=96)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--short", default="5x128x24", help="frames x pixels x clips of every second step; empty: none")
    p.add_argument("--jumble", type=float, default=0.3)
    p.add_argument("--export")
    p.add_argument("--form", default="auto")
    p.add_argument("--only", choices=("encoder",))
    p.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--rise", type=int, default=200, help="steps of warm-up")
    p.add_argument("--fall", type=float, default=0.7)
    p.add_argument("--adamw", action="store_true")
    p.add_argument("--judge", type=int, default=96)
    p.add_argument("--judge-size", type=int, default=128)
    a = p.parse_args(argv)
    a.begun, a.world = None, None
    return a


def warm(a):
    """Compiles the renderer and the step for one shape into the cache on disk, and ends. Everything that decides the code must be as in main()."""
    torch.set_float32_matmul_precision("high")
    Causal.FORM = a.form if a.form != "auto" else Causal.FORM
    world = World.from_outline(os.path.join(a.out, "world.outline"), a.device)
    b = feed.draw(feed.teller_for(world.index, "teller", a.frames, a.size, a.size, a.tier), "sheet", 0, 0, a.batch, None, {})
    b.pop("facts")
    shape = Shape(a, (a.frames, a.size, a.batch), None, 0)
    sum(shape.loss(network(a), world, b, a.device, True)).backward()


if __name__ == "__main__":
    a = options()
    warm(a) if a.warm else main(a)
