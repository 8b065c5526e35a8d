"""First minutes on a new GPU: is the renderer the same compiled as plain, and how fast is each part? Prints one line per measurement.

    python3 bench.py --pack DIR --out DIR [--race 35]      --race: seconds of VAE training with Muon and with AdamW, to compare
"""
import argparse
import os
import time
import traceback

import torch

import configs
import feed
import language
import sheet
import story
import train_dit
import train_probe
import train_vae
from muon import Optimiser
from probe import Probe
from vae import VAE, Causal
from world import World

BEGUN = time.time()


def say(*a):
    print(f"[{time.time() - BEGUN:6.1f}]", *a, flush=True)


def clock(f, n=10, warm=3):
    """Mean seconds of f()."""
    for _ in range(warm):
        f()
    torch.cuda.synchronize()
    t = time.time()
    for _ in range(n):
        f()
    torch.cuda.synchronize()
    return (time.time() - t) / n


def tried(f):
    """Runs one measurement; an error is printed and does not end the rest."""
    try:
        f()
    except Exception:
        say(f.__name__, "FAILED")
        traceback.print_exc(limit=6)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--race", type=float, default=35)
    p.add_argument("--only", default="")
    p = p.parse_args()
    os.makedirs(p.out, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    world = World(p.pack, "cuda")
    say("world loaded:", world.count, "sprites,", len(world.index.actors), "actors,", torch.cuda.memory_allocated() >> 20, "MiB")
    results = {}

    def batch(frames, n, kind="teller"):
        b = feed.draw(feed.teller_for(world.index, kind, frames, 128, 128, 132), "sheet", 1, 0, n, None, {})
        b.pop("facts")
        return {k: torch.from_numpy(v).cuda() for k, v in b.items()}

    def stories():
        t = time.time()
        feed.draw(feed.teller_for(world.index, "teller", 17, 128, 128, 132), "sheet", 1, 0, 200, None, {})
        say(f"stories: {200 / (time.time() - t):.0f} a second and process")

    def render():
        for frames, n in ((9, 48), (17, 128)):
            b = batch(frames, n)
            t = time.time()
            fast = world.render(b, 128, 128, fast=True)[0]
            say(f"renderer compiled in {time.time() - t:.1f} s")
            plain = torch.cat([world.render({k: v[i:i + 16] for k, v in b.items()}, 128, 128)[0] for i in range(0, n, 16)])
            d = (fast - plain).abs()
            say(f"render {frames}x128x128: largest difference {float(d.max()):.3f}, mean {float(d.mean()):.2e}; {n / clock(lambda: world.render(b, 128, 128, fast=True)):.0f} clips/s")

    def pictures():
        videos, texts = [], []
        t = feed.teller_for(world.index, "teller", 17, 128, 128, 132)
        for i in range(20):
            rng = story.seeded("sheet", 9, i)
            r, l = t.tell(rng)
            videos.append(world.render(story.stack([r]), 128, 128)[0])
            texts.append(language.caption(l, rng))
        sheet.sheet(torch.cat(videos), texts, os.path.join(p.out, "world.jpg"))

    def vae_forms():
        b = batch(9, 48)
        x = world.render(b, 128, 128, fast=True)[0].contiguous(memory_format=torch.channels_last_3d)
        for form in ("conv3d", "fold", "taps"):
            torch._dynamo.reset()
            Causal.FORM = form
            m = VAE(configs.VAE).cuda()
            step = torch.compile(train_vae.loss_of)
            noise = torch.randn(48, 16, 3, 16, 16, device="cuda")

            def go():
                with torch.autocast("cuda", torch.bfloat16):
                    step(m, x, noise)[0].backward()
            t = time.time()
            go()
            torch.cuda.synchronize()
            say(f"VAE {form}: compiled in {time.time() - t:.1f} s")
            s = clock(go, 10, 2)
            results[form] = s
            say(f"VAE {form}: {48 / s:.0f} clips/s of 9x128x128, forward and backward; {torch.cuda.max_memory_allocated() >> 20} MiB")
            torch.cuda.reset_peak_memory_stats()
        Causal.FORM = min(results, key=results.get)
        with open(os.path.join(p.out, "form"), "w") as f:
            f.write(Causal.FORM)
        o = Optimiser(m, 1e-3)

        def opt():
            for q in m.parameters():
                q.grad = torch.ones_like(q) * 1e-3
            o.step(1.0)
        say(f"VAE optimiser: {clock(opt, 5, 1) * 1e3:.1f} ms")
        torch._dynamo.reset()
        b = batch(17, 128)
        x = world.render(b, 128, 128, fast=True)[0].contiguous(memory_format=torch.channels_last_3d)
        enc = torch.compile(m.encode)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            enc(x)
            say(f"VAE encode ({Causal.FORM}): {128 / clock(lambda: enc(x), 5, 1):.0f} clips/s of 17x128x128")

    def race():
        torch._dynamo.reset()
        for adamw in (False, True):
            a = train_vae.options(["--pack", p.pack, "--out", os.path.join(p.out, "race"), "--minutes", str(p.race / 60 + 0.6), "--judge", "16", "--every", "50"] + (["--adamw"] if adamw else []))
            a.world, a.begun, a.fall = world, time.time(), 0.5
            say("race:", "AdamW" if adamw else "Muon", Causal.FORM)
            train_vae.main(a)

    def dit():
        torch._dynamo.reset()
        net = train_dit.Net().cuda()
        o = Optimiser(net, 1e-3, 0.01, ("shared", "bias", "table", "proj_out", "patch_", "heads.", "time_embedder"))
        say("DiT:", sum(q.numel() for q in net.dit.parameters()), "text:", sum(q.numel() for q in net.text.parameters()), "Muon shapes:", len(o.groups))
        step = torch.compile(train_dit.loss_of, dynamic=False)
        n = 768
        rope = net.dit.rope(5, 8, 8, "cuda")
        x, ids = torch.randn(n, 16, 5, 16, 16, device="cuda"), torch.randint(3, 2000, (n, 64), device="cuda")
        tok, facts, said = torch.randint(0, 132, (n, 320), device="cuda").to(torch.uint8), torch.zeros(n, 12, dtype=torch.int16, device="cuda"), torch.ones(n, device="cuda")
        for causal in (False, True):
            s, ask = train_dit.times(n, 5, causal, 2.0, "cuda")

            def go():
                with torch.autocast("cuda", torch.bfloat16):
                    f, k, l = step(net, x, torch.randn_like(x), s, ask, ids, tok, facts, said, rope, causal)
                (f + k + l).backward()
                o.step(1e-6)
            t = time.time()
            go()
            torch.cuda.synchronize()
            say(f"DiT causal={causal}: compiled in {time.time() - t:.1f} s")
            say(f"DiT causal={causal}: {n / clock(go, 8, 2):.0f} samples/s, {torch.cuda.max_memory_allocated() >> 20} MiB")

    def probe():
        torch._dynamo.reset()
        b = batch(17, 128)
        x = world.render(b, 128, 128, fast=True)[0].contiguous(memory_format=torch.channels_last_3d)
        m = Probe().cuda()
        step = torch.compile(train_probe.loss_of)
        f = torch.zeros(128, 12, dtype=torch.int16, device="cuda")

        def go():
            with torch.autocast("cuda", torch.bfloat16):
                step(m, train_probe.spoil(x).contiguous(memory_format=torch.channels_last_3d), f).backward()
        t = time.time()
        go()
        torch.cuda.synchronize()
        say(f"probe: {sum(q.numel() for q in m.parameters())} parameters, compiled in {time.time() - t:.1f} s")
        say(f"probe: {128 / clock(go, 8, 2):.0f} clips/s")

    for f in (stories, render, pictures, vae_forms, dit, probe, race):
        if not p.only or f.__name__ in p.only.split(","):
            tried(f)
    say("done")
