"""Trains the captioner on true renders (and, with --round-trips, half of them through the VAE); stops on the wall clock; writes a model directory that
`genvid caption --model` and transformers read; reports how many slots of held-out clips it names right.

The target is language.canonical(): one wording, so that what it says can be compared word by word. Second actors are left out, as for the probe.
Clips the generator made are never trained on: a judge must not learn the habits of what it judges.

    python3 train_captioner.py --pack DIR --out DIR --minutes 10 [--round-trips] [--export DIR] [--resume] [--device cpu]
"""
import argparse
import json
import os
import time

import torch
import torch.nn.functional as F

import captioner
import feed
import language
from clock import Clock, Log, save
from muon import Optimiser
from train_probe import spoil
from world import World

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SYSTEM, ASK = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n", "Describe this video."
TEMPLATE = ("{% for m in messages %}{% if loop.first and m.role != 'system' %}" + SYSTEM.split("<|im_start|>user")[0].replace("\n", "\\n") + "{% endif %}<|im_start|>{{ m.role }}\n"
            "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
            "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}").replace("\\n", "\n")
SLOTS = {"actor": 0, "colour": 1, "motion": 2, "scene": 4, "camera": 5, "weather": 6, "time": 7, "style": 8}
LOOKED = 8                                           # frames of a clip
STREAM = 7000                                        # seeds of the probe's stories that the probe does not use


def tokenizer(source):
    """The text tokenizer of the video model with control tokens; no end mark is appended."""
    from tokenizers import AddedToken, Tokenizer
    with open(os.path.join(source, "tokenizer.json"), encoding="utf-8") as f:
        t = json.load(f)
    t["post_processor"] = None
    t = Tokenizer.from_str(json.dumps(t))
    t.add_special_tokens([AddedToken(c, special=True, normalized=False) for c in CONTROL])
    return t


def target(facts):
    """The one wording of a row of facts."""
    return language.canonical({"actors": [(int(facts[0]), int(facts[1]))], "motion": int(facts[2]), "scene": int(facts[4]), "camera": int(facts[5]),
                               "weather": int(facts[6]), "time": int(facts[7]), "style": int(facts[8])})


def looked_at(x):
    """[B, 3, T, H, W] in -1..1 → the eight frames that genvid would look at, normalised for the tower."""
    n = x.shape[2]
    x = x[:, :, [i * n // LOOKED for i in range(LOOKED)]]
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1, 1) for v in (captioner.MEAN, captioner.STD))
    return (((x.clamp(-1, 1) + 1) * 127.5).round() / 255 - mean) / std


class Words:
    """Prompts and targets as ids."""

    def __init__(self, source, device):
        self.t = tokenizer(source)
        ids = lambda s: self.t.encode(s, add_special_tokens=False).ids
        self.before = torch.tensor(ids(SYSTEM + "<|vision_start|>"), device=device)
        self.ask = ids("<|vision_end|>" + ASK + "<|im_end|>\n<|im_start|>assistant\n")
        self.end, self.pad, self.device, self.ids = self.t.token_to_id("<|im_end|>"), self.t.token_to_id("<|endoftext|>"), device, ids

    def batch(self, facts):
        """ids [B, m] behind the clip, and the targets of each [B, m], -100 where nothing is asked."""
        rows = [self.ids(target(f)) + [self.end] for f in facts]
        m = max(map(len, rows))
        ids = torch.full((len(rows), len(self.ask) + m), self.pad)
        want = torch.full(ids.shape, -100)
        for i, r in enumerate(rows):
            ids[i, :len(self.ask) + len(r)] = torch.tensor(self.ask + r)
            want[i, len(self.ask) - 1:len(self.ask) - 1 + len(r)] = torch.tensor(r)
        return ids.to(self.device), want.to(self.device)


@torch.no_grad()
def read(net, words, pixels, seconds, longest=48):
    """Greedy texts."""
    ids, out = torch.tensor([words.ask] * len(pixels), device=words.device), [[] for _ in pixels]
    for _ in range(longest):
        best = net(pixels, words.before, ids, seconds)[:, -1].argmax(-1)
        for o, b in zip(out, best.tolist()):
            o.append(b)
        ids = torch.cat([ids, best[:, None]], 1)
    cut = lambda o: o[:o.index(words.end)] if words.end in o else o
    return [words.t.decode(cut(o)) for o in out]


def judge(net, words, world, a):
    """Share of slots named right, each by the sentence it would change."""
    teller, right, asked, exact = feed.teller_for(world.index, "teller", a.frames, a.size[0], a.size[1], a.tier, True), {k: 0 for k in SLOTS}, {k: 0 for k in SLOTS}, 0
    for at in range(0, a.judge, 32):
        b = feed.draw(teller, "probe", STREAM + 10 ** 6, at, min(32, a.judge - at), None, {"second": 0.0})
        facts = b.pop("facts")
        said = read(net, words, looked_at(world.render(b, a.size[1], a.size[0])[0]), a.frames / a.fps / LOOKED * captioner.STEP)
        for f, text in zip(facts, said):
            whole = set(language_words(target(f)))
            exact += language_words(target(f)) == language_words(text)
            for k, column in SLOTS.items():
                g = f.copy()
                g[column] = 0 if f[column] else 1
                told = whole - set(language_words(target(g)))   # the words that this slot alone puts there
                asked[k] += bool(told)
                right[k] += bool(told) and told <= set(language_words(text))
    row = {k: right[k] / max(1, asked[k]) for k in SLOTS}
    return dict(row, mean=sum(right.values()) / max(1, sum(asked.values())), whole=exact / a.judge)


def language_words(text):
    return text.lower().replace(".", " ").replace(",", " ").split()


def export(net, words, out, a):
    from safetensors.torch import save_file
    os.makedirs(out, exist_ok=True)
    ids = {c: words.t.token_to_id(c) for c in CONTROL}
    config = dict(captioner.TEXT, model_type="qwen2_5_vl", architectures=["Qwen2_5_VLForConditionalGeneration"], vocab_size=net.model["embed_tokens"].num_embeddings,
                  rope_scaling={"type": "mrope", "mrope_section": list(captioner.SECTION)}, vision_config=dict(captioner.VISION, in_chans=3), torch_dtype="bfloat16",
                  image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
                  vision_end_token_id=ids["<|vision_end|>"], eos_token_id=ids["<|im_end|>"], bos_token_id=None)
    pixels = a.size[0] * a.size[1]
    look = dict(patch_size=captioner.PATCH, merge_size=captioner.MERGE, temporal_patch_size=captioner.STEP, image_mean=captioner.MEAN, image_std=captioner.STD)
    files = {"config.json": config, "preprocessor_config.json": dict(look, min_pixels=pixels // 2, max_pixels=pixels),
             "video_preprocessor_config.json": dict(look, size={"shortest_edge": pixels // 2, "longest_edge": pixels}, fps=4, min_frames=LOOKED, max_frames=LOOKED),
             "generation_config.json": {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]}, "chat_template.json": {"chat_template": TEMPLATE}}
    for name, value in files.items():
        with open(os.path.join(out, name), "w") as f:
            json.dump(value, f, indent=1)
    words.t.save(os.path.join(out, "tokenizer.json"))
    save_file({k: v.detach().to(torch.bfloat16).contiguous().cpu() for k, v in net.state_dict().items()}, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})


def loss_of(net, x, before, ids, want, seconds):
    return F.cross_entropy(net(x, before, ids, seconds).float().flatten(0, 1), want.flatten(), ignore_index=-100)


def main(a):
    torch.manual_seed(99 + a.seed)
    cuda = a.device != "cpu"
    os.makedirs(a.out, exist_ok=True)
    clock, log = Clock(a.minutes, fall=0.6), Log(os.path.join(a.out, "captioner.log"))
    world, words = World(a.pack, a.device, a.variants, 0, workers=None if cuda else 0), Words(a.tokenizer, a.device)
    net = captioner.Captioner(words.t.get_vocab_size()).to(a.device)
    print("%.2f million parameters" % (sum(p.numel() for p in net.parameters()) / 1e6))
    opt, path = Optimiser(net, a.lr, 0.01, ("embed", "merger.mlp.2"), ema=0.998), os.path.join(a.out, "captioner.pt")
    if a.resume and os.path.exists(path):
        c = torch.load(path, map_location=a.device, weights_only=False)
        net.load_state_dict(c["model"])
        opt.load(c["optimiser"])
        a.seed = c["seed"] + 1
    vae = None
    if a.round_trips:
        from train_dit import load_vae
        vae = load_vae(a)
    f = feed.Feed(world.index, "teller", a.frames, *a.size, a.tier, "probe", STREAM + a.seed, a.batch, a.workers, want={"second": 0.0})
    step = torch.compile(loss_of) if cuda else loss_of
    done, total, t0, seconds = 0, 0.0, time.time(), a.frames / a.fps / LOOKED * captioner.STEP
    while clock.running() and (not a.steps or done < a.steps):
        b = next(f)
        ids, want = words.batch(b.pop("facts"))
        x = world.render(b, a.size[1], a.size[0], fast=cuda)[0]
        if vae is not None and done % 2:
            with torch.no_grad():
                x = vae.decode(vae.encode(x)[0])
        x = looked_at(spoil(x) if done % 4 else x)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss = step(net, x, words.before, ids, want, seconds)
        loss.backward()
        if done == 0:
            clock.start()
        opt.step(clock.factor())
        total, done = total + loss.detach(), done + 1
        if done % a.every == 0:
            log(step=done, loss=float(total) / a.every, clips_per_s=done * a.batch / (time.time() - t0), left=clock.left())
            total = 0.0
        if clock.due():
            save(path, {"model": net.state_dict(), "optimiser": opt.state(), "seed": a.seed})
    f.close()
    save(path, {"model": net.state_dict(), "optimiser": opt.state(), "seed": a.seed})
    net.eval()
    row = judge(net, words, world, a)
    with open(os.path.join(a.out, "captioner.json"), "w") as g:
        json.dump(dict(row, clips=a.judge, steps=done), g, indent=1)
    log(at="captioner done", **row)
    if a.export:
        export(net, words, a.export, a)


def options(argv=None):
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--export")
    p.add_argument("--round-trips", action="store_true", help="half of the batches go through the VAE: that of --vae and --stats, or the one that ships")
    p.add_argument("--vae")
    p.add_argument("--stats")
    p.add_argument("--models", default=os.path.join(here, "../models"))
    p.add_argument("--tokenizer", default=os.path.join(here, "../models/tokenizer"))
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--tier", type=int, default=132)
    p.add_argument("--size", type=int, nargs=2, default=(112, 112), help="width and height of what is looked at: multiples of 28")
    p.add_argument("--frames", type=int, default=17)
    p.add_argument("--fps", type=float, default=12)
    p.add_argument("--batch", type=int, default=96)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--every", type=int, default=50)
    p.add_argument("--judge", type=int, default=512)
    p.add_argument("--workers", type=int, default=6)
    p.add_argument("--variants", type=int, default=6)
    return p.parse_args(argv)


if __name__ == "__main__":
    main(options())
