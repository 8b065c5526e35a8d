"""Samples from prompts of held-out seeds, lets the probe read the clips back, and writes numbers and contact sheets beside the model.

The labels of the stream "eval" become canonical captions; nothing else of the clip is given to the model. Measured for the bidirectional sampler (all
steps and guidances asked for), for image to video, for the causal roll-out, and for true renders and VAE round trips as the ceiling. Two streams of their own
judge what the first holds too little of: recoloured actors, every actor in every colour as often, and pairs that training never draws.
The numbers are written as they come in, so that a run that is cut has the first of them.

    python3 evaluate.py --pack DIR --run DIR [--tier 96 --clips 768 --steps 8 --guidance 1.0 --weights student.pt]
"""
import argparse
import json
import os

import torch

import configs
import feed
import language
import sheet
import story
import words
from dit import roll, sample
from probe import Probe
from tokenizer import Pieces
from train_dit import Net, load_vae
from train_probe import accuracy, renders
from train_vae import psnr
from world import World

PROMPTS = ("a red car drives to the left in the city", "a dog runs to the right in the park", "a t-rex walks to the left in the forest", "a ufo hovers over a calm lake at night",
           "a penguin jumps in the snow", "a sailboat on the sea, the camera pans right", "a blue butterfly flies in circles in a meadow", "a robot stands in the factory")


def prompts(world, n, tier, size, want=None):
    """n labels of the evaluation stream, held-out pairs included: list of labels, facts [n, 12]."""
    t, labels = feed.teller_for(world.index, "teller", 17, size, size, tier, held=True), []
    for i in range(n):
        rng = story.seeded("eval", 0, i)
        labels.append(t.tell(rng, {"second": 0.0, "style": 0, "speed": 0, **(want or {})})[1])
    return labels, torch.stack([torch.from_numpy(feed.facts(l)) for l in labels])


def recoloured(index, n, tier, size, seed=77):
    """n stories of recoloured actors, all of them and all colours in turn: records, labels, facts. Weather is off, as it tints."""
    t, actors = feed.teller_for(index, "teller", 17, size, size, tier, held=True), [i for i in index.actors if i < tier and words.ACTORS[i].recolour]
    pairs = [(a, c) for c in range(1, len(words.COLOURS)) for a in actors if not story.same_hue(c, index.base[a])]
    told = [t.tell(story.seeded("eval", seed, i), {"second": 0.0, "style": 0, "speed": 0, "weather": 0, "actor": pairs[i % len(pairs)][0], "colour": pairs[i % len(pairs)][1]})
            for i in range(n)]
    return story.stack([r for r, _ in told]), [l for _, l in told], torch.stack([torch.from_numpy(feed.facts(l)) for _, l in told])


def never_trained(index, n, tier, size, seed=78):
    """Labels and facts of n stories whose pair of actor and scene, or of actor and motion, training never draws."""
    t, labels, i = feed.teller_for(index, "teller", 17, size, size, tier, held=True), [], 0
    while len(labels) < n and i < 100 * n:
        l = t.tell(story.seeded("eval", seed, i), {"second": 0.0, "style": 0, "speed": 0})[1]
        if story.held_out(l["actors"][0][0], l["scene"], l["motion"]):
            labels.append(l)
        i += 1
    return labels, torch.stack([torch.from_numpy(feed.facts(l)) for l in labels])


@torch.no_grad()
def generate(net, vae, ids, size, frames, steps, guidance, seed, device, first=None, causal=False, latent_frames=None, batch=96):
    """ids [N, 64] -> clips [N, 3, frames, size, size] in -1..1 on the CPU. first: known first pictures [N, 3, 1, size, size]."""
    g, out, f, s = torch.Generator().manual_seed(seed), [], latent_frames or 1 + (frames - 1) // 4, size // 8
    blank = torch.zeros(1, ids.shape[1], dtype=torch.int64, device=device)
    blank[:, 0] = 1
    with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
        for i in range(0, len(ids), batch):
            k = ids[i:i + batch].to(device)
            noise = torch.randn(len(k), 16, f, s, s, generator=g).to(device)
            text, empty = net.text(k), net.text(blank).expand(len(k), -1, -1)
            known = vae.normalise(vae.encode(first[i:i + batch].to(device))[0].float()) if first is not None else None
            if causal:
                z = roll(net.dit, text, noise, steps, first=known)
            else:
                z = sample(net.dit, text, noise, steps, guidance=guidance, empty=empty, first=known)
            for j in range(0, len(k), 16):
                out.append(vae.decode(vae.denormalise(z[j:j + 16])).float().clamp(-1, 1).cpu())
    return torch.cat(out)


@torch.no_grad()
def measure(net, vae, probe, world, a, steps, guidance, want=None, told=None, **more):
    """Accuracies by the probe over prompts of the evaluation stream, or over (labels, facts) as told: row, clips, facts."""
    labels, facts = told or prompts(world, a.clips, a.tier, a.size, want)
    ids = torch.from_numpy(Pieces(a.tokenizer).encode([language.canonical(l) for l in labels]))
    clips = generate(net, vae, ids, a.size, a.frames, steps, guidance, 1, a.device, **more)
    row = accuracy(probe, clips.to(a.device), facts, a.device != "cpu")
    pair = torch.tensor([story.held_out(int(f[0]), int(f[4]), int(f[2])) for f in facts])
    for name, m in (("actor_held_out_pairs", pair), ("actor_seen_pairs", ~pair)):
        if m.any():
            row[name] = accuracy(probe, clips[m].to(a.device), facts[m], a.device != "cpu")["actor"]
    for tier in (48, 96):
        m = facts[:, 0] < tier
        if m.any() and a.tier > tier:
            row[f"actor_first_{tier}"] = accuracy(probe, clips[m].to(a.device), facts[m], a.device != "cpu")["actor"]
    row["clips"], row["clips_held_out"], row["clips_recoloured"] = len(facts), int(pair.sum()), int((facts[:, 1] > 0).sum())
    row["motion_amount"] = float((clips[:, :, 1:] - clips[:, :, :-1]).abs().mean())
    return row, clips, facts


def run(a, net=None, vae=None, world=None, probe=None, tag="", grid=((8, 1.0),), extras=True):
    """Writes eval<tag>.json and sheets into a.run; returns the numbers."""
    cuda = a.device != "cpu"
    world = world or World(a.pack, a.device, a.variants, 0, workers=None if cuda else 0)
    vae = vae or load_vae(a)
    if net is None:
        net = Net({**configs.TRANSFORMER, "num_layers": a.layers}).to(a.device)
        net.load_state_dict(torch.load(os.path.join(a.run, a.weights), map_location=a.device))
        net.eval()
    for f in ("probe.pt", "probe.half.pt"):        # the second is what travels
        if probe is None and os.path.exists(os.path.join(a.run, f)):
            probe = Probe().to(a.device)
            probe.load_state_dict(torch.load(os.path.join(a.run, f), map_location=a.device, weights_only=False)["model"])
    out = {"clips": a.clips, "tier": a.tier, "judged": probe is not None, "size": [a.size, a.size, a.frames], "seed": 1}
    path = os.path.join(a.run, f"eval{tag}.json")

    def put(name, row):
        out[name] = row
        with open(path + ".part", "w") as f:
            json.dump(out, f, indent=1)
        os.replace(path + ".part", path)
    for steps, guidance in grid:
        row, clips, facts = measure(net, vae, probe, world, a, steps, guidance)
        put(f"steps {steps} guidance {guidance}", row)
    steps, guidance = grid[-1]
    n = min(a.clips, 256)
    b = argparse.Namespace(**{**vars(a), "clips": n})
    few = argparse.Namespace(**{**vars(a), "clips": min(n, 64)})
    if extras:
        put("never trained pairs", measure(net, vae, probe, world, a, steps, guidance, told=never_trained(world.index, n, a.tier, a.size))[0])
        put("recoloured", measure(net, vae, probe, world, a, steps, guidance, told=recoloured(world.index, a.recoloured, a.tier, a.size)[1:])[0])
        _, long, lf = measure(net, vae, probe, world, few, 4, 1.0, want={"camera": 0, "weather": 0, "motion": 0}, causal=True, latent_frames=36)
        last, begin = long[:, :, -17:], long[:, :, :17]
        put("causal 12 blocks", {"last_block": accuracy(probe, last.to(a.device), lf, cuda), "first_block": accuracy(probe, begin.to(a.device), lf, cuda),
                                 "brightness_drift": float((last.mean((1, 2, 3, 4)) - begin.mean((1, 2, 3, 4))).abs().mean() / 2)})
        row, clips4, _ = measure(net, vae, probe, world, b, 4, 1.0, causal=True)
        put("causal 4 steps", row)
        put("causal 8 steps", measure(net, vae, probe, world, b, 8, 1.0, causal=True)[0])
    if extras and not a.brief:
        trip = lambda x: torch.cat([vae.decode(vae.encode(c)[0]).float().clamp(-1, 1) for c in x.split(16)])
        true, facts_true = renders(world, "eval", 0, n, a.size, a.tier, {"second": 0.0, "style": 0, "speed": 0}, held=True)
        put("true renders", {**accuracy(probe, true, facts_true, cuda), "motion_amount": float((true[:, :, 1:] - true[:, :, :-1]).abs().mean())})
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            round_trip = trip(true)
        put("vae round trip", accuracy(probe, round_trip, facts_true, cuda))
        labels, facts = prompts(world, n, a.tier, a.size)
        ids = torch.from_numpy(Pieces(a.tokenizer).encode([language.canonical(l) for l in labels]))
        i2v = generate(net, vae, ids, a.size, a.frames, steps, guidance, 2, a.device, first=true[:, :, :1])
        put("image to video", {**accuracy(probe, i2v.to(a.device), facts, cuda), "first_frame_psnr": float(psnr(i2v[:, :, 0].to(a.device), true[:, :, 0]).mean())})
        records, _, facts_true = recoloured(world.index, a.recoloured, a.tier, a.size)
        seen, got = [], []
        for i in range(0, len(facts_true), 32):
            x = world.render({k: v[i:i + 32] for k, v in records.items()}, a.size, a.size)[0]
            seen.append(x)
            with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=cuda):
                got.append(trip(x))
        put("recoloured, true renders", accuracy(probe, torch.cat(seen), facts_true, cuda))
        put("recoloured, vae round trip", accuracy(probe, torch.cat(got), facts_true, cuda))
        sheet.sheet(i2v[:8], ["from a picture: " + language.canonical(l) for l in labels[:8]], os.path.join(a.run, f"sheet{tag}_i2v.jpg"))
        sheet.sheet(round_trip[:6], ["VAE round trip: " + language.canonical(l) for l in labels[:6]], os.path.join(a.run, f"sheet{tag}_vae.jpg"))
        sheet.sheet(clips4[:8], ["causal: " + language.canonical(l) for l in labels[:8]], os.path.join(a.run, f"sheet{tag}_causal.jpg"))
    steps, guidance = grid[-1]
    sheet.sheet(clips[:16], [language.canonical(l) for l in prompts(world, 16, a.tier, a.size)[0]], os.path.join(a.run, f"sheet{tag}.jpg"))
    fixed = generate(net, vae, torch.from_numpy(Pieces(a.tokenizer).encode(PROMPTS)), a.size, a.frames, steps, guidance, 0, a.device)
    sheet.sheet(fixed, PROMPTS, os.path.join(a.run, f"sheet{tag}_prompts.jpg"))
    return out


def options(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True)
    p.add_argument("--run", required=True)
    p.add_argument("--vae")
    p.add_argument("--stats")
    p.add_argument("--tokenizer", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models/tokenizer"))
    p.add_argument("--models", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models"))
    p.add_argument("--weights", default="student.pt")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--tier", type=int, default=96)
    p.add_argument("--clips", type=int, default=768)
    p.add_argument("--recoloured", type=int, default=384, help="clips of recoloured actors, for colour")
    p.add_argument("--brief", action="store_true", help="no true renders, round trips or pictures to video")
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--frames", type=int, default=17)
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--variants", type=int, default=6)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--guidance", type=float, default=1.0)
    a = p.parse_args(argv)
    if not a.vae and os.path.exists(os.path.join(a.run, "vae.pt")):
        a.vae, a.stats = os.path.join(a.run, "vae.pt"), os.path.join(a.run, "vae.json")
    return a


if __name__ == "__main__":
    a = options()
    print(json.dumps(run(a, grid=((a.steps, a.guidance),)), indent=1))
