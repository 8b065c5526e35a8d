"""Reads clips back through genvid: true renders of held-out stories, or (--made) clips that genvid makes of their wording, captioned by genvid and compared slot by slot.

Each --with is a set of options for `genvid caption`, so that pruning and the like are judged the same way:

    python3 readback.py --pack DIR --genvid PATH --clips 128 [--made] [--keep DIR] [--with "" --with "--prune 25"]

Prints a line of JSON for each: F1 over all slots, by slot, share of captions with every slot right, and the share of slots asked for that came back ("recall"), which is what
is meant where a clip was made from a prompt.

--pointing asks genvid where it read the actor's name (--explain) and looks whether the hottest token, the actor filling a fifth of it at least, is one of the actor's; by
chance: the share of such tokens. True renders alone know where the actor is, and only actors that were named right are asked for.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

import caption_text
import evaluate
import feed
import train_captioner
import words
from world import World

W, H, T, FPS = 128, 128, 17, 12


def write(path, clip):
    """clip [T, H, W, 3] uint8, kept to the bit."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{clip.shape[2]}x{clip.shape[1]}", "-r", str(FPS), "-i", "-", "-c:v", "ffv1", "-pix_fmt", "gbrp", path],
                   input=clip.tobytes(), check=True)


def stories(world, a):
    """Numbers and records of the stream that judges the captioner, and facts [12], one by one."""
    teller = feed.teller_for(world.index, "teller", T, W, H, a.tier, True)
    for i in range(a.first, a.first + a.clips):
        b = feed.draw(teller, "probe", train_captioner.HELD, i, 1, None, {"second": 0.0})
        yield i, b, b.pop("facts")[0]


def rendered(world, a, folder):
    """True renders. Facts [n, 12]."""
    out = []
    for i, b, facts in stories(world, a):
        path = os.path.join(folder, "%04d.mkv" % i)
        if not os.path.exists(path):
            x = world.render(b, H, W)[0][0]
            write(path, ((x.permute(1, 2, 3, 0) + 1) * 127.5).round().byte().numpy())
        out.append(facts)
    return np.stack(out)


def pointing(world, a, folder):
    """How often the hottest token of the actor's name is one of the actor's."""
    hits, chance = [], []
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([a.genvid, "caption", folder, "-m", a.model, "-q", "--explain", tmp], check=True, stdout=subprocess.DEVNULL)
        for i, b, facts in stories(world, a):
            with open(os.path.join(tmp, "%04d.mkv" % i, "explain.json")) as f:
                told = json.load(f)
            if caption_text.slots(told["text"]).get("actor") != facts[0]:
                continue
            name = words.ACTORS[facts[0]].name.split()
            heat = [np.array(x["places"][0]["map"]) for x in told["words"] if x["word"].lower() in name]
            if not heat:
                continue
            h, few = sum(heat), dict(b)
            where = train_captioner.looked(T)
            few["cam"], few["act"], few["at"] = b["cam"][:, where], b["act"][:, :, where], torch.tensor(where, dtype=torch.float32)
            cover = world.render(few, H, W)[1]
            there = F.adaptive_avg_pool3d(cover[:, int(facts[9])][None], h.shape)[0, 0].numpy() > 0.2
            hits.append(bool(there.reshape(-1)[h.argmax()]))
            chance.append(float(there.mean()))
    print(json.dumps({"pointing": round(float(np.mean(hits)), 4), "by_chance": round(float(np.mean(chance)), 4), "clips": len(hits)}))


def made(world, a, folder):
    """Clips of the prompts that evaluate.py judges the generator on, seeds 0, 1, ..."""
    labels, facts = evaluate.prompts(world, a.clips, a.tier, W)
    for i, l in enumerate(labels):
        path = os.path.join(folder, "%04d.mkv" % i)
        if not os.path.exists(path):
            subprocess.run([a.genvid, "video", caption_text.language.canonical(l), "-m", a.model, "-o", path, "--codec", "ffv1", "--size", f"{W}x{H}", "--frames", str(T), "--seed", str(i), "-q"],
                           check=True, stdout=subprocess.DEVNULL)
    return facts.numpy()


def captions(a, folder, options):
    out = subprocess.run([a.genvid, "caption", folder, "-m", a.model, "--json", "-q", *options.split()], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(l) for l in out.splitlines()]
    return [r["text"] for r in sorted((r for r in rows if "text" in r), key=lambda r: r["file"])]


def judge(a, folder, facts, options):
    texts, true = captions(a, folder, options)[:a.clips], [caption_text.true_slots(f) for f in facts]
    assert len(texts) == len(facts), "a clip has no caption"
    back = [sum(caption_text.slots(t).get(k) == v for k, v in s.items()) for t, s in zip(texts, true)]
    row = {**caption_text.score(texts, facts), "recall": sum(back) / sum(map(len, true)), "clips": len(texts)}
    print(json.dumps({"with": options, **{k: round(v, 4) for k, v in row.items()}}), flush=True)
    for f, t, s in zip(facts, texts, true):
        if caption_text.slots(t) != s:
            print(caption_text.wording(f), "|", t, file=sys.stderr)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True)
    p.add_argument("--genvid", default=os.path.join(here, "../../build/genvid"))
    p.add_argument("--model", default=os.path.join(here, "../models"))
    p.add_argument("--clips", type=int, default=128)
    p.add_argument("--first", type=int, default=0, help="the first true render's number: later ones are for choosing settings")
    p.add_argument("--made", action="store_true", help="clips that genvid makes, instead of true renders")
    p.add_argument("--keep", help="folder for the clips; those that are there are used again")
    p.add_argument("--tier", type=int, default=96)
    p.add_argument("--variants", type=int, default=6)
    p.add_argument("--pointing", action="store_true", help="of true renders: is the actor where its name was read?")
    p.add_argument("--with", dest="options", action="append", help="options of genvid caption, as one string")
    a = p.parse_args()
    world = World(a.pack, "cpu", a.variants, 0, workers=0)
    with tempfile.TemporaryDirectory() as tmp:
        folder = a.keep or tmp
        os.makedirs(folder, exist_ok=True)
        facts = (made if a.made else rendered)(world, a, folder)
        for options in a.options or [""]:
            judge(a, folder, facts, options)
        if a.pointing and not a.made:
            pointing(world, a, folder)


if __name__ == "__main__":
    main()
