"""Trains the captioner on true renders, a quarter of them after a trip through the VAE; stops on the wall clock; writes a model directory that
`genvid caption --model` and transformers read; reports F1 of the slots of held-out clips.

Clips the generator made are never trained on: a judge must not learn the habits of what it judges.

Three kinds of clip (KINDS), as users have them: small squares, wide ones, larger squares. Only the eight frames that genvid looks at are drawn, at the clip's own size, and
brought to the tower's as genvid brings them. Round trips need all frames, so they are kept in a ring and drawn from it a few times. One batch in eight is single
pictures. From a third of the leg on, a third of the batches reads a random half or quarter of the clip's tokens, so that pruning (VFlowOpt) is nothing new.

Losses beside the text's, while training only: the actor of each token of the clip, the scene and the weather from their mean, and all slots from the state where the answer
begins. The labels are the story's own, and they are why minutes suffice.

    python3 train_captioner.py --pack DIR --out DIR --minutes 8 [--export DIR] [--resume] [--device cpu]
"""
import json
import os
import time
import traceback

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import caption_text
import captioner
import feed
import words
from clock import Clock, Log, MODELS, parser, save
from muon import Optimiser
from probe import HEADS
from train_probe import spoil
from world import World

LOOKED = 8                                           # frames of a clip
STREAM = 7000                                        # seeds of the probe's stories that the probe does not use
HELD = STREAM + 10 ** 6
NONE = len(words.ACTORS)
#        width, height, frames; what the tower sees (genvid's rule: 112² to 168² pixels, sides multiples of 28); share of the batches
KINDS = {"small": ((128, 128, 17), (140, 140), 0.5), "wide": ((256, 144, 33), (224, 112), 0.3), "large": ((192, 192, 33), (168, 168), 0.2)}
TINY = {"small": ((32, 32, 9), (56, 56), 0.5), "wide": ((48, 32, 9), (84, 56), 0.3), "large": ((48, 48, 9), (56, 56), 0.2)}    # the smoke run's
LEAST, MOST = 112 * 112, 168 * 168
SAID = ("actor", "colour", "motion", "scene", "camera", "weather", "time")


class Net(nn.Module):
    """The captioner and the heads of training."""

    def __init__(self, vocabulary):
        super().__init__()
        self.net, d = captioner.Captioner(vocabulary), captioner.TEXT["hidden_size"]
        self.token, self.place, self.sky = nn.Linear(d, NONE + 1), nn.Linear(d, len(words.SCENES)), nn.Linear(d, len(words.WEATHERS))
        self.slots = nn.ModuleList(nn.Linear(d, HEADS[k][1]) for k in SAID)

    def forward(self, x, before, ids, want, begin, seconds, facts, tokens, kept):
        """x [B, 3, T, H, W], normalised; ids, want [B, m], begin: caption_text.Words.batch; facts [B, 12]; tokens [B, n]: actor of each token of the clip, or NONE.
        Returns (text's loss, tokens', slots')."""
        seen = self.net.visual(x)
        y, mean = self.net(seen, before, ids, seconds, kept), seen.mean((1, 2, 3))
        text = F.cross_entropy(self.net.say(y).float().flatten(0, 1), want.flatten(), ignore_index=-100)
        cell = F.cross_entropy(self.token(seen.flatten(1, 3)).float().flatten(0, 1), tokens.flatten()) + 0.3 * F.cross_entropy(self.place(mean).float(), facts[:, 4])
        cell = cell + 0.3 * F.cross_entropy(self.sky(mean).float(), facts[:, 6])
        asked = [k for k in SAID if x.shape[2] > captioner.STEP or k not in ("motion", "camera")]
        slot = sum(F.cross_entropy(h(y[:, begin]).float(), facts[:, HEADS[k][0]]) for k, h in zip(SAID, self.slots) if k in asked) / len(asked)
        return text, cell, slot


def normal(x):
    """-1..1 → what the tower takes, through the bytes of a picture."""
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1, 1) for v in (captioner.MEAN, captioner.STD))
    return (((x.clamp(-1, 1) + 1) * 127.5).round() / 255 - mean) / std


def fit(x, size):
    """[B, 3, T, H, W] → size (width, height), as genvid resizes."""
    B = x.shape[0]
    x = F.interpolate(x.transpose(1, 2).flatten(0, 1), size=size[::-1], mode="bicubic", antialias=True)
    return x.unflatten(0, (B, -1)).transpose(1, 2)


def looked(frames):
    return [i * frames // LOOKED for i in range(LOOKED)]


def actors_of(cover, facts, size):
    """cover [B, 2, T, H, W] of the looked-at frames → [B, T/2 * h * w]: the actor that fills a fifth of a token, or NONE."""
    facts = facts.to(cover.device)
    slot = facts[:, 9].view(-1, 1, 1, 1, 1, 1).expand(-1, 1, 1, *cover.shape[2:])[:, 0]
    share = F.adaptive_avg_pool3d(cover.gather(1, slot)[:, 0][:, None], (cover.shape[2] // captioner.STEP, size[1] // 28, size[0] // 28))[:, 0]
    return torch.where(share > 0.2, facts[:, 0].view(-1, 1, 1, 1), NONE).flatten(1)


class Clips:
    """Batches of one kind: stories from worker processes, drawn on the device."""

    def __init__(self, world, kind, a, seed, workers):
        (self.w, self.h, self.frames), self.size, self.share = kind
        self.world, self.a, self.cuda = world, a, a.device != "cpu"
        self.seconds = self.frames / a.fps / LOOKED * captioner.STEP
        self.feed = feed.Feed(world.index, "teller", self.frames, self.w, self.h, a.tier, "probe", STREAM + seed, a.batch, workers, want={"second": 0.0})
        self.at = torch.tensor(looked(self.frames), dtype=torch.float32)
        self.ring, self.filled, self.put = None, 0, 0

    def paint(self, b):
        """Records of whole stories → (frames looked at; facts, here; tokens)."""
        facts = torch.from_numpy(b.pop("facts").astype(np.int64))
        few, where = dict(b), looked(self.frames)
        few["cam"], few["act"], few["at"] = b["cam"][:, where], b["act"][:, :, where], self.at
        try:
            x, cover = self.world.render(few, self.h, self.w, fast=self.cuda and self.a.fast)
        except Exception:
            if not (self.cuda and self.a.fast):
                raise
            traceback.print_exc()
            print("the renderer does not compile: it runs as it is", flush=True)
            self.a.fast = False
            torch._dynamo.reset()
            x, cover = self.world.render(few, self.h, self.w)
        return fit(x, self.size), facts, actors_of(cover, facts, self.size)

    @torch.no_grad()
    def fresh(self):
        return self.paint(next(self.feed))

    @torch.no_grad()
    def travelled(self, b, vae, n):
        """The first n of a batch of records through the VAE, all frames."""
        b = {k: v[:n] for k, v in b.items()}
        facts = torch.from_numpy(b.pop("facts").astype(np.int64))
        out, covers, where = [], [], looked(self.frames)
        for i in range(0, n, 8):                      # eight at a time: the decoder's last stage is wide
            x, cover = self.world.render({k: v[i:i + 8] for k, v in b.items()}, self.h, self.w)
            with torch.autocast("cuda", torch.bfloat16, enabled=self.cuda):
                y = vae.decode(vae.encode(x)[0]).float()
            out.append(fit(y[:, :, where], self.size))
            covers.append(cover[:, :, where])
        return torch.cat(out), facts, actors_of(torch.cat(covers), facts, self.size)

    def renew(self, vae, n):
        x, facts, tokens = self.travelled(next(self.feed), vae, n)
        x = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        if self.ring is None:
            make = lambda v: torch.zeros(self.a.ring, *v.shape[1:], dtype=v.dtype, device=v.device)
            self.ring = [make(x), make(facts), make(tokens)]
        where = (torch.arange(n) + self.put) % self.a.ring
        for r, v in zip(self.ring, (x, facts, tokens)):
            r[where.to(v.device)] = v
        self.put, self.filled = (self.put + n) % self.a.ring, min(self.a.ring, self.filled + n)

    def kept(self):
        """A batch from the ring."""
        pick = torch.randint(self.filled, (self.a.batch,))
        x, facts, tokens = (r[pick.to(r.device)] for r in self.ring)
        return x.float() / 127.5 - 1, facts, tokens

    def close(self):
        self.feed.close()


def thin(tokens, share):
    """Which tokens of the clip are read: a random share, in half of the clips more likely those with the actor. [B, k], ascending."""
    B, n = tokens.shape
    score = torch.rand(B, n, device=tokens.device) + 0.6 * (tokens != NONE) * (torch.rand(B, 1, device=tokens.device) < 0.5)
    return score.topk(max(1, int(n * share)), 1).indices.sort(1).values


@torch.no_grad()
def read(net, texts, x, seconds, question=caption_text.CLIP_QUESTIONS[0], kept=None, longest=44, cuda=False):
    """Greedy texts of clips x, normalised."""
    ask = texts.ask(question)
    ids, out = torch.tensor([ask] * len(x), device=texts.device), []
    with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
        seen = net.visual(x)
        for _ in range(longest):
            best = net.say(net(seen, texts.before, ids, seconds, kept)[:, -1]).argmax(-1)
            out.append(best)
            ids = torch.cat([ids, best[:, None]], 1)
            if len(out) % 8 == 0 and bool((torch.stack(out) == texts.end).any(0).all()):
                break
    cut = lambda o: o[:o.index(texts.end)] if texts.end in o else o
    return [texts.t.decode(cut(o)) for o in torch.stack(out, 1).tolist()]


@torch.no_grad()
def judge(net, texts, world, a, kinds, vae, until=float("inf")):
    """F1 of held-out stories, held-out pairs among them: true renders of each kind, with a quarter of the tokens, after the VAE, and single pictures."""
    rows, tasks = {}, [(k, "true") for k in kinds] + [("small", "quarter"), ("small", "trip"), ("small", "picture"), ("wide", "trip")]
    cuda = a.device != "cpu"
    for at, (name, how) in enumerate(tasks):
        if time.time() > until:
            break
        c, n = kinds[name], a.judge if how in ("true", "quarter") else a.judge // 4
        if how == "trip" and vae is None:
            continue
        teller = feed.teller_for(world.index, "teller", c.frames, c.w, c.h, a.tier, True)
        said, facts = [], []
        while len(said) < n and time.time() < until:
            b = feed.draw(teller, "probe", HELD + at, len(said), a.batch, None, {"second": 0.0})
            few = min(a.batch, n - len(said))
            rows_ = b["facts"][:few]
            x, _, tokens = c.travelled(b, vae, few) if how == "trip" else c.paint(b)
            x, kept = normal(x)[:few], None
            if how == "quarter":
                kept = torch.rand_like(tokens[:few], dtype=torch.float32).topk(max(1, tokens.shape[1] // 4), 1).indices.sort(1).values
            if how == "picture":
                x = x[:, :, :1].expand(-1, -1, captioner.STEP, -1, -1)
            said += read(net, texts, x, 0.0 if how == "picture" else c.seconds, caption_text.PICTURE_QUESTIONS[0] if how == "picture" else caption_text.CLIP_QUESTIONS[0], kept, cuda=cuda)
            facts.append(rows_)
        if not said:
            break
        facts = np.concatenate(facts)
        rows[name + "_" + how] = dict(caption_text.score(said, facts, how == "picture"), clips=len(said))
        if at == 0:
            rows["examples"] = [[caption_text.wording(f), s] for f, s in list(zip(facts, said))[:8]]
            wrong = [[caption_text.wording(f), s] for f, s in zip(facts, said) if caption_text.slots(s) != caption_text.true_slots(f)]
            rows["wrong"] = wrong[:24]
    return rows


def export(net, texts, out):
    from safetensors.torch import save_file
    os.makedirs(out, exist_ok=True)
    ids = {c: texts.t.token_to_id(c) for c in caption_text.CONTROL}
    config = dict(captioner.TEXT, model_type="qwen2_5_vl", architectures=["Qwen2_5_VLForConditionalGeneration"], vocab_size=net["model.embed_tokens.weight"].shape[0],
                  rope_scaling={"type": "mrope", "mrope_section": list(captioner.SECTION)}, vision_config=dict(captioner.VISION, in_chans=3), torch_dtype="bfloat16",
                  image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
                  vision_end_token_id=ids["<|vision_end|>"], eos_token_id=ids["<|im_end|>"], bos_token_id=None)
    look = dict(patch_size=captioner.PATCH, merge_size=captioner.MERGE, temporal_patch_size=captioner.STEP, image_mean=captioner.MEAN, image_std=captioner.STD)
    files = {"config.json": config, "preprocessor_config.json": dict(look, min_pixels=LEAST, max_pixels=MOST),
             "video_preprocessor_config.json": dict(look, size={"shortest_edge": LEAST, "longest_edge": MOST}, fps=4, min_frames=LOOKED, max_frames=LOOKED),
             "generation_config.json": {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]}, "chat_template.json": {"chat_template": caption_text.TEMPLATE}}
    for name, value in files.items():
        with open(os.path.join(out, name), "w") as f:
            json.dump(value, f, indent=1)
    texts.t.save(os.path.join(out, "tokenizer.json"), pretty=False)
    path = os.path.join(out, "model.safetensors")
    save_file({k: v.detach().to(torch.bfloat16).contiguous().cpu() for k, v in net.items()}, path + ".part", metadata={"format": "pt"})
    os.replace(path + ".part", path)
    os.chmod(path, 0o644)                              # safetensors keeps it to its owner


def averaged(opt):
    return {k[4:]: v for k, v in opt.averaged().items() if k.startswith("net.")}


def main(a):
    torch.manual_seed(99 + a.seed)
    cuda = a.device != "cpu"
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = False            # other work shares the device, and the VAE's few shapes are seen early
    os.makedirs(a.out, exist_ok=True)
    clock, log = Clock(a.minutes - a.judging, fall=0.6), Log(os.path.join(a.out, "captioner.log"))
    world, texts = World(a.pack, a.device, a.variants, 0, workers=a.workers if cuda else 0), caption_text.Words(a.tokenizer, a.device)
    model = Net(texts.t.get_vocab_size()).to(a.device)
    net, path = model.net, os.path.join(a.out, "captioner.pt")
    print("%.2f million parameters, world after %.0f s" % (sum(p.numel() for p in net.parameters()) / 1e6, time.time() - clock.begun), flush=True)
    opt = Optimiser(model, a.lr, 0.01, ("embed", "merger.mlp.2", "patch_embed", "token.", "place.", "sky.", "slots."), ema=0.998)
    if a.resume and os.path.exists(path):
        c = torch.load(path, map_location=a.device, weights_only=False)
        model.load_state_dict(c["model"])
        opt.load(c["optimiser"])
        a.seed = c["seed"] + 1
    vae = None
    if not a.no_trips:
        from train_dit import load_vae
        vae = load_vae(a)
    table = KINDS if not a.tiny else TINY
    kinds = {k: Clips(world, v, a, a.seed * 10 + i, max(1, a.workers // 2) if i == 0 else 1) for i, (k, v) in enumerate(table.items())}
    names, shares, order = list(kinds), np.array([c.share for c in kinds.values()]), np.random.default_rng(a.seed)
    done, totals, t0, saved, spent = 0, torch.zeros(3, device=a.device), time.time(), time.time(), 0.0

    def keep():
        save(path, {"model": model.state_dict(), "optimiser": opt.state(), "seed": a.seed})
        if a.export:
            export(averaged(opt), texts, a.export)
    try:
        while clock.running() and (not a.steps or done < a.steps):
            kind = kinds[names[order.choice(len(names), p=shares)]]
            trip = vae is not None and done % 4 == 3 and kind is not kinds["large"]
            if trip:
                if kind.filled < a.trips or spent < 0.15 * (time.time() - t0):
                    spent -= time.time()
                    kind.renew(vae, a.trips if kind is kinds["small"] else max(1, a.trips // 4))
                    if cuda:
                        torch.cuda.synchronize()
                    spent += time.time()
                x, facts, tokens = kind.kept()
            else:
                x, facts, tokens = kind.fresh()
            x = normal(spoil(x) if order.random() < 0.5 else x)
            picture, seconds, kept = done % 8 == 5, kind.seconds, None
            if picture:
                i = int(order.integers(LOOKED // captioner.STEP))
                x, seconds = x[:, :, i * captioner.STEP:i * captioner.STEP + 1].expand(-1, -1, captioner.STEP, -1, -1), 0.0
                tokens = tokens.unflatten(1, (LOOKED // captioner.STEP, -1))[:, i]
            elif clock.share() > 0.33 and order.random() < 0.33:
                kept = thin(tokens, (0.5, 0.25)[int(order.integers(2))])
            q = caption_text.PICTURE_QUESTIONS if picture else caption_text.CLIP_QUESTIONS
            ids, want, begin = texts.batch(facts.numpy(), q[int(order.integers(len(q)))], picture)
            with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
                losses = model(x, texts.before, ids, want, begin, seconds, facts.to(x.device, non_blocking=True), tokens, kept)
            fade = 1 - clock.share()
            (losses[0] + (0.1 + 0.4 * fade) * (losses[1] + losses[2])).backward()
            if done == 0:
                clock.start()
            for p in opt.params:                       # a picture leaves some heads without a gradient
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            opt.step(clock.factor())
            totals, done = totals + torch.stack([l.detach().float() for l in losses]), done + 1
            if done % a.every == 0:
                text, cell, slot = (totals / a.every).tolist()
                log(step=done, text=text, cell=cell, slot=slot, clips_per_s=done * a.batch / (time.time() - t0), ring=sum(c.filled for c in kinds.values()), left=clock.left())
                totals.zero_()
            if time.time() - saved > 45:
                saved = time.time()
                keep()
    finally:
        for c in kinds.values():
            c.close()
        keep()
    net.eval()
    until = clock.begun + 60 * a.minutes if not a.steps else float("inf")
    now = {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(averaged(opt))
    rows = judge(net, texts, world, a, kinds, vae, until)
    with open(os.path.join(a.out, "captioner.json"), "w") as g:
        json.dump(dict(rows, steps=done, clips=done * a.batch), g, indent=1)
    for k, row in rows.items():
        if isinstance(row, dict):
            log(at=k, **row)
    net.load_state_dict(now)


def options(argv=None):
    p = parser(10, workers=4)
    p.add_argument("--models", default=MODELS)
    p.add_argument("--export")
    p.add_argument("--no-trips", action="store_true", help="no round trips through the VAE")
    p.add_argument("--vae", help="weights of train_vae.py, with --stats; the VAE that ships if not given")
    p.add_argument("--stats")
    p.add_argument("--tokenizer", help="tokenizer.json; made if not given")
    p.add_argument("--judging", type=float, default=0.5, help="minutes kept for it")
    p.add_argument("--fps", type=float, default=12)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--ring", type=int, default=8192, help="clips after the VAE that are kept, of each kind")
    p.add_argument("--trips", type=int, default=32, help="of them made at a time, at most a seventh of the time")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--judge", type=int, default=1024)
    p.add_argument("--tiny", action="store_true", help="small pictures, for a smoke run")
    a = p.parse_args(argv)
    a.fast = not a.plain
    return a


if __name__ == "__main__":
    main(options())
    print("captioner done", flush=True)
