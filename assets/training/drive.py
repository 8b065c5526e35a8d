"""A whole session of training in one process: VAE until its gate or its minutes, probe, latent statistics, text encoder and DiT, guidance, evaluation.

The gates rule: the DiT does not start on a VAE that fails, unless --anyway says so (then the evaluation says so too). Everything shares one loaded world.
Each stage skips itself when its result is in --out and --redo does not name it, so a leg that was cut continues.

    python3 drive.py --pack DIR --out DIR --vae 6.5 --probe 2 --dit 10 --distil 2 [--tier 96] [--anyway]
"""
import argparse
import json
import os
import time
import traceback

import torch

import evaluate
import train_dit
import train_probe
import train_vae
from vae import Causal
from world import World


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--vae", type=float, default=6.5)
    p.add_argument("--probe", type=float, default=2.0)
    p.add_argument("--dit", type=float, default=10.0)
    p.add_argument("--distil", type=float, default=2.0)
    p.add_argument("--tier", type=int, default=96)
    p.add_argument("--form", default="conv3d")
    p.add_argument("--more", default="", help="options for the DiT trainer, as one string")
    p.add_argument("--vae-more", default="")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--anyway", action="store_true")
    p.add_argument("--until", type=float, default=0, help="unix time at which the DiT must end, whatever --dit says")
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    Causal.FORM = a.form
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    world = World(a.pack, "cuda")
    base, have = ["--pack", a.pack, "--out", a.out], lambda f: os.path.exists(os.path.join(a.out, f))
    again = ["--resume"] if a.resume else []
    if a.vae > 0:
        o = train_vae.options(base + again + ["--minutes", str(a.vae)] + a.vae_more.split())
        o.world, o.begun = world, time.time()
        train_vae.main(o)
        torch._dynamo.reset()
    if a.probe > 0:
        o = train_probe.options(base + again + ["--minutes", str(a.probe)])
        o.world, o.begun = world, time.time()
        train_probe.main(o)
        torch._dynamo.reset()
    if not have("vae.json"):
        return
    with open(os.path.join(a.out, "vae.json")) as f:
        passed = json.load(f)["passed"]
    print("gate of the VAE:", "passed" if passed else "failed", flush=True)
    if a.dit <= 0 or not (passed or a.anyway):
        return
    minutes = min(a.dit, (a.until - time.time()) / 60) if a.until else a.dit
    o = train_dit.options(base + again + ["--minutes", str(minutes), "--distil", str(a.distil), "--tier", str(a.tier), "--vae", os.path.join(a.out, "vae.pt"),
                                  "--stats", os.path.join(a.out, "vae.json")] + a.more.split())
    o.world, o.begun = world, time.time()
    teacher, student, vae, _ = train_dit.main(o)
    e = evaluate.options(["--pack", a.pack, "--run", a.out, "--tier", str(a.tier)])
    for tag, net, grid, extras in (("", student, ((8, 1.0),), True), ("_teacher", teacher, ((8, 1.0), (8, 2.0), (8, 3.0), (8, 4.5), (16, 3.0)), False)):
        try:
            print(tag, json.dumps(evaluate.run(e, net, vae, world, tag=tag, grid=grid, extras=extras)), flush=True)
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    main()
    print("drive done", flush=True)
