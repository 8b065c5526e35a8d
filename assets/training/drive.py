"""A whole session of training in one process: VAE, probe, latent statistics, text encoder and DiT, guidance, evaluation, export.

The gate rules: the DiT does not start on a VAE that fails its gate, unless --anyway says so (then the evaluation says so too). Everything shares one loaded
world. A stage given 0 minutes is skipped and its result in --out is used. --resume continues a stage from --out or else from the shipped weights.
The renderer for the probe and the DiT compiles in a second process while the VAE trains.

    python3 drive.py --pack DIR --out DIR --resume --vae 5 --probe 2.5 --dit 13 --distil 2.5 [--tier 96] [--anyway]
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time
import traceback

import torch

import evaluate
import export
import train_dit
import train_probe
import train_vae
from world import World


class Helpers:
    """The processes that compile for the DiT, at most `at_once` of them: each holds some ten GiB while it runs, and the VAE trains beside them. all(): every one, started."""

    def __init__(self, o, at_once):
        self.o, self.at_once, self.started = o, at_once, {}
        self.thread = threading.Thread(target=self.start, daemon=True)
        self.thread.start()

    def start(self):
        ring = ["ring"] if os.path.exists(os.path.join(self.o.out, "world.outline")) else []
        for k in [*ring, *train_dit.kinds(self.o)]:
            while sum(h.poll() is None for h in self.started.values()) >= self.at_once:
                time.sleep(0.5)
            self.started[k] = train_dit.start_warm(self.o, k)

    def all(self):
        self.at_once = 99
        self.thread.join()
        return self.started


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--vae", type=float, default=5)
    p.add_argument("--probe", type=float, default=2.5)
    p.add_argument("--dit", type=float, default=13)
    p.add_argument("--distil", type=float, default=2.5)
    p.add_argument("--tier", type=int, default=96)
    p.add_argument("--more", default="", help="options for the DiT trainer, as one string")
    p.add_argument("--vae-more", default="")
    p.add_argument("--probe-more", default="")
    p.add_argument("--eval-more", default="")
    p.add_argument("--judging", type=float, default=1.5, help="minutes kept for the evaluation")
    p.add_argument("--baseline", action="store_true", help="judge the model directory's own weights as well, before the others")
    p.add_argument("--device", default="cuda")
    p.add_argument("--variants", type=int, default=6)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--anyway", action="store_true")
    p.add_argument("--total", type=float, default=27, help="minutes for everything; the DiT gets what is left at most")
    a, begun = p.parse_args(), time.time()
    os.makedirs(a.out, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    cuda = a.device != "cpu"
    helpers = Helpers(train_dit.options(["--pack", a.pack, "--out", a.out, "--device", a.device, "--tier", str(a.tier)] + a.more.split()), 2 if a.vae > 0 else 99) \
        if a.dit > 0 and cuda and "--plain" not in a.more else None                     # compiling takes as long as loading
    world = World(a.pack, a.device, a.variants, 12 if cuda else 1, workers=None if cuda else 0)
    base, have = ["--pack", a.pack, "--out", a.out, "--device", a.device], lambda f: os.path.exists(os.path.join(a.out, f))
    again = ["--resume"] if a.resume else []
    left = lambda: a.total - (time.time() - begun) / 60

    def passed():
        with open(os.path.join(a.out, "vae.json")) as f:
            row = json.load(f)
        return row["world_psnr"] >= train_vae.GATE_WORLD and row.get("foreign_psnr", 0) >= train_vae.GATE_FOREIGN
    before = open(os.path.join(a.out, "vae.json")).read() if have("vae.json") else None
    if a.vae > 0:
        o = train_vae.options(base + again + ["--minutes", str(a.vae), "--export", os.path.join(a.out, "models")] + a.vae_more.split())
        o.world, o.begun = world, begun
        if a.probe > 0 and cuda:
            threading.Timer(30 * a.vae, subprocess.Popen, [[sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "train_probe.py"), *base, "--warm"]]).start()
        row = train_vae.main(o)[2]
        if before and a.resume and row["world_psnr"] < json.loads(before)["world_psnr"]:
            print("the VAE is worse than before: the old one is kept", flush=True)
            os.replace(os.path.join(a.out, "vae.pt"), os.path.join(a.out, "vae.worse.pt"))
            with open(os.path.join(a.out, "vae.json"), "w") as f:
                f.write(before)
    torch._dynamo.reset()
    if min(a.probe, left() - 0.5) > 0.5:
        o = train_probe.options(base + again + ["--minutes", str(min(a.probe, left() - 0.5))] + a.probe_more.split())
        o.world, o.begun = world, time.time()
        train_probe.main(o)
        torch._dynamo.reset()
    if not have("vae.json"):
        return
    print("gate of the VAE:", "passed" if passed() else "failed", flush=True)
    if a.dit <= 0 or not (passed() or a.anyway):
        return
    minutes = min(a.dit, left() - a.judging)
    if minutes < a.distil + 1:
        print(f"only {minutes:.1f} minutes are left: the DiT waits for the next leg", flush=True)
        return
    o = train_dit.options(base + again + ["--minutes", str(minutes), "--distil", str(a.distil), "--tier", str(a.tier), "--export", os.path.join(a.out, "models")]
                          + (["--vae", os.path.join(a.out, "vae.pt"), "--stats", os.path.join(a.out, "vae.json")] if have("vae.pt") else []) + a.more.split())
    o.world, o.begun, o.helpers = world, time.time(), helpers.all() if helpers else None
    teacher, student, vae, _ = train_dit.main(o)
    sidecar = dict(tier=a.tier, width=o.size, height=o.size, frames=o.frames)
    export.write(a.out, os.path.join(a.out, "models"), guidance=1.0 if a.distil > 0 else 3.0, **sidecar)
    if a.distil > 0:                               # the next leg goes on from the teacher, not from the student
        export.write(a.out, os.path.join(a.out, "teacher"), "teacher.pt", guidance=3.0, **sidecar)
    print("exported", flush=True)
    if not (have("probe.pt") or have("probe.half.pt")):
        print("no judge here: not judged", flush=True)
        return
    torch.backends.cudnn.benchmark = False          # new shapes ahead, each used a few times
    e = evaluate.options(["--pack", a.pack, "--run", a.out, "--tier", str(a.tier), "--device", a.device] + a.eval_more.split())
    runs = [("", student, ((8, 1.0),), True)] if a.distil > 0 else []
    runs.append(("_teacher", teacher, ((8, 3.0),), False))
    if a.baseline:
        shipped = train_dit.Net().to(a.device).eval()
        train_dit.load_models(shipped, o.models)
        runs.insert(0, ("_shipped", shipped, ((8, 1.0),), True))
    for tag, net, grid, extras in runs:
        if left() < 0.1:
            print("no time is left for", tag, flush=True)
            continue
        try:
            brief = argparse.Namespace(**{**vars(e), "brief": e.brief or tag != ""})
            print(tag, json.dumps(evaluate.run(brief, net, vae, world, tag=tag, grid=grid, extras=extras)), flush=True)
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    main()
    print("drive done", flush=True)
