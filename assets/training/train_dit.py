"""Trains the DiT and the text encoder together on latents of world clips; then teaches the result to do without guidance.

Rectified flow: x_s = (1 - s) x0 + s eps, target eps - x0, timestep 1000 s, MSE over unknown tokens. Tasks in one batch: text to video, image to video (frame 0
known), continuation (a few frames known); on 30 % of the steps block-causal attention with a time per block (earlier blocks clean half of the time).
Clips are rendered, encoded and kept in a ring on the device; each step a share of it is renewed, so a clip is seen a few times with other noise and wording.
Three kinds of batch: images (first latent frames, four times as many; the first quarter of the leg is nothing else: what things look like is most of what is to be
learned, and a frame teaches it at a fifth of the price), clips, and now and then long, large clips of over 4,096 tokens.
Auxiliary losses, 0.1 each: actor and scene from the tokens of block 6, all slots from the pooled text. They are true labels, not the probe's.

Each kind compiles its blocks in a process of its own at the start (--warm), while this one loads the world and fills the ring uncompiled; the blocks then come from the
cache on disk. Whatever does not compile runs as it is.

Second part (--distil): the averaged model becomes a frozen teacher; the student learns v_u + w (v_c - v_u), so that one pass per step is enough.

    python3 train_dit.py --pack DIR --out DIR [--vae VAE.pt --stats VAE.json] --minutes 12 [--distil 2.5] [--resume] [--device cpu]
"""
import argparse
import copy
import json
import math
import os
import subprocess
import sys
import time
from argparse import Namespace

import torch
import torch.nn as nn
import torch.nn.functional as F

import configs
import export
import feed
import words
from clock import Clock, Log, MODELS, parser, save
from dit import BLOCK, DiT, Heads
from muon import Optimiser
from probe import HEADS
from text import TextEncoder
from tokenizer import LENGTH
from train_vae import load_average
from vae import VAE
from world import World

NONE = len(words.ACTORS)                           # token label: no actor here
TAP = 5
STREAM = 9                                         # latent frames that a long causal clip reads: genvid.json's window


class Net(nn.Module):
    """Everything that learns: the DiT, the text encoder, the heads of training."""

    def __init__(self, dit=configs.TRANSFORMER):
        super().__init__()
        self.dit, self.text = DiT(dit), TextEncoder(configs.TEXT)
        width = dit["num_attention_heads"] * dit["attention_head_dim"]
        self.heads = Heads(width, configs.TEXT["d_model"], len(words.ACTORS), [n for _, n in (HEADS[k] for k in ("actor", "motion", "scene", "colour", "camera", "weather", "time"))])


COLUMNS = [HEADS[k][0] for k in ("actor", "motion", "scene", "colour", "camera", "weather", "time")]


def loss_of(net, x0, eps, s, weight, ids, tokens, facts, said, rope, causal, seen=None):
    """x0, eps [B, 16, F, h, w]; s [B, F]; weight [B, F]: 1 where the frame is asked for; tokens [B, L] labels; facts [B, 12]; said [B]: 0 where the caption was dropped.
    seen: what is put in for x0, where it differs (worn()). Returns (flow loss, token loss, slot loss)."""
    k = s[:, None, :, None, None]
    x = (1 - k) * (x0 if seen is None else seen) + k * eps
    c = net.text(ids)
    v, tap = net.dit(x, s * 1000, c, rope, causal, TAP)
    flow = ((v - (eps - x0)).pow(2).mean((1, 3, 4)) * weight).sum() / weight.sum()
    token = F.cross_entropy(net.heads.token(tap).float().flatten(0, 1), tokens.flatten().long()) + 0.3 * F.cross_entropy(net.heads.place(tap.mean(1)).float(), facts[:, 4].long())
    pooled = c.sum(1) / (ids != 0).sum(1, keepdim=True)
    slot = sum((F.cross_entropy(h(pooled).float(), facts[:, j].long(), reduction="none") * said).mean() for h, j in zip(net.heads.slots, COLUMNS)) / len(COLUMNS)
    return flow, token, slot


def times(B, frames, causal, shift, device):
    """Noise levels s [B, F] and which frames are asked for [B, F]."""
    def draw(n):
        s = torch.sigmoid(torch.randn(n, device=device))
        s = shift * s / (1 + (shift - 1) * s)
        return torch.where(torch.rand(n, device=device) < 0.1, torch.rand(n, device=device), s)
    at = torch.arange(frames, device=device)[None]
    u = torch.rand(B, 1, device=device)
    if not causal:
        s, known = draw((B, 1)).expand(B, frames).clone(), torch.zeros(B, 1, device=device)
        if frames > 1:
            known = torch.where(u < 0.28, 1.0, torch.where(u < 0.36, torch.randint(1, frames, (B, 1), device=device).float(), known))
        ask = (at >= known).float()
        return s * ask, ask
    n = -(-frames // BLOCK)
    s, block = draw((B, n)), at // BLOCK
    now = torch.randint(n, (B, 1), device=device)
    clean = torch.rand(B, 1, device=device) < 0.6
    s = s.gather(1, block.expand(B, -1))
    past = (block < now) & clean
    s = torch.where(past, torch.where(u < 0.5, torch.zeros_like(s), s * 0.08), s)
    ask = (~past).float()
    first = (torch.rand(B, 1, device=device) < 0.3) & (at == 0)
    return torch.where(first, torch.zeros_like(s), s), torch.where(first, torch.zeros_like(ask), ask)


def worn(x0, ask):
    """Known frames as a long roll-out would hand them on: contrast, colour and sharpness a little off, in half of the clips. What is asked for stays true, so that
    the next block leads back. x0 [B, 16, F, h, w]; ask [B, F]."""
    B, C = x0.shape[:2]
    d, soft = x0.device, F.avg_pool3d(F.pad(x0, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), 1)
    y = torch.lerp(x0, soft, 0.5 * torch.rand(B, 1, 1, 1, 1, device=d)) * (1 + 0.12 * torch.randn(B, 1, 1, 1, 1, device=d)) + 0.12 * torch.randn(B, C, 1, 1, 1, device=d)
    return torch.where((ask[:, None, :, None, None] == 0) & (torch.rand(B, 1, 1, 1, 1, device=d) < 0.5), y, x0)


class Ring:
    """Latents of world clips on the device, renewed as training goes. size: clips. Public: renew(n), draw(n)."""

    def __init__(self, world, vae, a, purpose="train", seed=0):
        f, s = 1 + (a.frames - 1) // 4, a.size // 8
        d = a.device
        self.world, self.vae, self.a, self.n, self.at, self.full = world, vae, a, a.ring, 0, False
        self.z = torch.zeros(a.ring, 16, f, s, s, dtype=torch.float16, device=d)
        self.ids = torch.zeros(a.ring, feed.WORDINGS, LENGTH, dtype=torch.int16, device=d)
        self.tokens = torch.zeros(a.ring, f * (s // 2) ** 2, dtype=torch.uint8, device=d)
        self.facts = torch.zeros(a.ring, 12, dtype=torch.int16, device=d)
        self.feed = feed.Feed(world.index, "teller", a.frames, a.size, a.size, a.tier, purpose, seed, a.chunk, a.workers, tokenizer=a.tokenizer)
        self.cuda, self.fast, self.helper = d != "cpu", False, None
        self.compiled = torch.compile(vae.encode, dynamic=False)

    def compile_elsewhere(self, started=None):
        """Has the renderer and the encoder for this ring's chunks compiled by another process, unless one was started before."""
        if not started:
            self.world.outline(os.path.join(self.a.out, "world.outline"))
        self.helper = started or start_warm(self.a, "ring")

    def encoded(self, records):
        """(normalised latents, cover) of a batch of stories."""
        x, cover = self.world.render(records, self.a.size, self.a.size, fast=self.fast)
        if self.cuda:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.cuda):
            return self.vae.normalise((self.compiled if self.fast else self.vae.encode)(x)[0].float()), cover

    @torch.no_grad()
    def renew(self):
        """One chunk of new clips."""
        if self.helper is not None and self.helper.poll() is not None:
            self.fast, self.helper = self.helper.returncode == 0, None
        b = next(self.feed)
        facts, ids = torch.from_numpy(b.pop("facts")).to(self.a.device), torch.from_numpy(b.pop("ids")).to(self.a.device)
        try:
            z, cover = self.encoded(b)
        except Exception as e:                     # out of memory, because somebody else is on the device, or not compilable: the ring keeps what it has
            if not self.fast and not isinstance(e, torch.cuda.OutOfMemoryError):
                raise
            print("ring:", repr(e)[:300], flush=True)
            self.fast = False
            torch.cuda.empty_cache()
            return
        n = len(facts)
        c = F.avg_pool3d(cover, (1, 16, 16))                                             # [n, 2, T, h/2, w/2]
        c = torch.cat([c[:, :, :1], c[:, :, 1:].unflatten(2, (-1, 4)).mean(3)], 2).flatten(2)
        slot = facts[:, 9].long()
        mine, other = c[torch.arange(n), slot], c[torch.arange(n), 1 - slot]
        label = torch.where(mine > 0.25, facts[:, :1].long(), torch.where((other > 0.25) & (facts[:, 11:] >= 0), facts[:, 11:].long().clamp(min=0), NONE))
        i = (torch.arange(n, device=z.device) + self.at) % self.n
        self.z[i], self.ids[i], self.tokens[i], self.facts[i] = z.half(), ids, label.to(torch.uint8), facts
        self.full |= self.at + n >= self.n
        self.at = (self.at + n) % self.n

    def draw(self, n, frames=None):
        """n random clips, or their first frames: (latents float32, ids int64, tokens, facts)."""
        i = torch.randint(self.n if self.full else self.at, (n,), device=self.z.device)
        w = torch.randint(feed.WORDINGS, (n,), device=self.z.device)
        f, per = frames or self.z.shape[2], self.z.shape[3] * self.z.shape[4] // 4
        at = int(torch.randint(self.z.shape[2] - f + 1, ())) if f > 1 and torch.rand(()) < 0.7 else 0    # a window of a long clip does not begin with a single picture
        return self.z[i, :, at:at + f].float(), self.ids[i, w].long(), self.tokens[i, at * per:(at + f) * per], self.facts[i]


def load_vae(a):
    """The frozen VAE with its measured latent statistics: a.vae and a.stats of a run, or else the one in the model directory."""
    if not a.vae:
        with open(os.path.join(a.models, "vae/config.json")) as f:
            vae = VAE(json.load(f)).to(a.device)
        vae.load_state_dict({**vae.state_dict(), **{k: v.float() for k, v in export.read(os.path.join(a.models, "vae")).items()}})
        return vae.eval().requires_grad_(False)
    with open(a.stats) as f:
        row = json.load(f)
    vae = VAE({**configs.VAE, "latents_mean": row["latents_mean"], "latents_std": row["latents_std"]}).to(a.device)
    load_average(vae, a.vae, a.device).eval().requires_grad_(False)
    return vae


def averaged(net, opt):
    """A copy of the network with the averaged weights."""
    out = copy.deepcopy(net)
    out.load_state_dict({**net.state_dict(), **opt.averaged()})
    return out.eval().requires_grad_(False)


def load_models(net, folder):
    """Puts the weights of a model directory into a Net; the heads stay as they are."""
    for part, name in ((net.dit, "transformer"), (net.text, "text_encoder")):
        part.load_state_dict({**part.state_dict(), **{k: v.to(next(part.parameters()).device).float() for k, v in export.read(os.path.join(folder, name)).items()}})


def kinds(a):
    """The kinds of batch: name -> (latent frames, latent side, clips, causal)."""
    f, s = 1 + (a.frames - 1) // 4, a.size // 8
    out = {"image": (1, s, 4 * a.batch, False), "clip": (f, s, a.batch, False), "causal": (f, s, a.batch, True)}
    if a.stream:
        out["stream"] = (STREAM, s, max(1, a.batch * f // STREAM), True)
    if a.long:
        n, size, batch = map(int, a.long.split("x"))
        out["long"] = (1 + (n - 1) // 4, size // 8, batch, False)
    return out


def stride(net, kind, a, x0, ids, tokens, facts):
    """Loss of one batch of a kind: the three numbers of loss_of. Noise levels, dropped captions and tasks are drawn here."""
    f, side, n, causal = kind
    s, ask = times(n, f, causal, a.shift if f < 9 else a.shift + 1, a.device)
    seen = worn(x0, ask) if causal else x0
    said = torch.rand(n, device=a.device) > 0.1
    ids = torch.where(said[:, None], ids, blanks(ids))
    with torch.autocast("cuda", torch.bfloat16, enabled=a.device != "cpu"):
        return loss_of(net, x0, torch.randn_like(x0), s, ask, ids, tokens, facts, said.float(), net.dit.rope(f, side // 2, side // 2, a.device), causal, seen)


def total_loss(three):
    return three[0] + 0.1 * three[1] + 0.1 * three[2]


def blanks(ids):
    """The end mark alone: what the tokenizer makes of ""."""
    blank = torch.zeros_like(ids)
    blank[:, 0] = 1
    return blank


def compile_blocks(net):
    """One block of each sort is compiled and serves all: seconds, where the whole network took 84 for each kind on an H200."""
    for b in [*net.dit.blocks, *net.text.encoder.block]:
        b.compile(dynamic=False)


def uncompile(net):
    for b in [*net.dit.blocks, *net.text.encoder.block]:
        b._compiled_call_impl = None


def start_warm(a, what):
    """A process that compiles for one kind of batch, or for the ring, into the cache on disk. Everything that decides the code is handed on."""
    keep = [v for k in ("pack", "out", "device", "frames", "size", "layers", "batch", "chunk", "tier", "models", "long", "stream") for v in ("--" + k, str(getattr(a, k)))]
    return subprocess.Popen([sys.executable, os.path.abspath(__file__), *keep, "--warm", what], env={**os.environ, "PYTHONWARNINGS": "ignore"})


def warm(a):
    """What start_warm() starts. Random data of the right shapes; its losses mean nothing."""
    torch.set_float32_matmul_precision("high")
    if a.warm == "ring":
        world = World.from_outline(os.path.join(a.out, "world.outline"), a.device)
        vae = VAE(configs.VAE).to(a.device).eval().requires_grad_(False)
        ring = Ring(world, vae, Namespace(**{**vars(a), "ring": a.chunk, "workers": 1}))
        ring.fast = True
        ring.renew()
        ring.feed.close()
        return
    torch._dynamo.config.recompile_limit = 32
    net, d = Net({**configs.TRANSFORMER, "num_layers": TAP + 1}).to(a.device), a.device
    compile_blocks(net)
    kind = kinds(a)[a.warm]
    f, s, n, _ = kind
    x0, ids = torch.randn(n, 16, f, s, s, device=d), torch.randint(1, 2000, (n, LENGTH), device=d)
    total_loss(stride(net, kind, a, x0, ids, torch.zeros(n, f * s * s // 4, dtype=torch.uint8, device=d), torch.zeros(n, 12, dtype=torch.int16, device=d))).backward()


def main(a):
    torch.manual_seed(77 + a.seed)
    cuda = a.device != "cpu"
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.recompile_limit = 32
    os.makedirs(a.out, exist_ok=True)
    clock, log = Clock(a.minutes - a.distil, warm=100, begun=a.begun, fall=a.fall, floor=a.floor), Log(os.path.join(a.out, "dit.log"))
    forms = kinds(a)
    helpers = a.helpers or ({k: start_warm(a, k) for k in forms} if cuda and not a.plain else {})
    of_ring = helpers.pop("ring", None)
    world = a.world or World(a.pack, a.device, a.variants, 0, workers=None if cuda else 0)
    vae = a.frozen or load_vae(a)
    net = Net({**configs.TRANSFORMER, "num_layers": a.layers}).to(a.device)
    opt = Optimiser(net, a.lr, 0.01, ("shared", "bias", "table", "proj_out", "patch_", "heads.", "time_embedder"), ema=a.ema)
    for g in opt.adam.param_groups:
        g["weight_decay"] = 0.0
    path, seed = os.path.join(a.out, "dit.pt"), a.seed
    if a.resume and os.path.exists(path):
        c = torch.load(path, map_location=a.device, weights_only=False)
        net.load_state_dict(c["net"])
        opt.load(c["optimiser"])
        seed = c["seed"] + 1
    elif a.resume and any(f.endswith(".safetensors") for f in os.listdir(os.path.join(a.models, "transformer"))):
        load_models(net, a.models)
        for p, q in zip(opt.average, opt.params):
            p.copy_(q.detach())
        log(at="resumed", models=a.models)
    rings, t0 = {"clip": Ring(world, vae, a, "train", 2 * seed)}, time.time()
    if cuda and not a.plain:
        rings["clip"].compile_elsewhere(of_ring)
    if "long" in forms:
        n, size, _ = map(int, a.long.split("x"))
        rings["long"] = Ring(world, vae, Namespace(**{**vars(a), "frames": n, "size": size, "ring": a.long_ring, "chunk": 2, "workers": 2}), "train", 2 * seed + 1)
    if "stream" in forms:
        rings["stream"] = Ring(world, vae, Namespace(**{**vars(a), "frames": a.stream, "ring": a.stream_ring, "chunk": max(1, a.chunk // 4), "workers": 2}), "train", 2 * seed + 100001)
    ring = rings["clip"]
    while ring.at < min(a.fill, a.ring - a.chunk):
        ring.renew()
        if time.time() - t0 > a.patience:          # begin with what there is
            break
    log(at="ring filled", clips=ring.at, seconds=time.time() - t0, compiled=ring.fast)
    first = helpers.get("image" if a.images > 0 else "clip")
    if first:                                      # the others are needed later
        try:
            first.wait(timeout=max(1.0, a.patience - (time.time() - t0)))
        except subprocess.TimeoutExpired:
            pass
    log(at="blocks compiled elsewhere", codes=str({k: h.poll() for k, h in helpers.items()}), seconds=time.time() - t0)
    if cuda and not a.plain:
        compile_blocks(net)
    gen, picker = torch.Generator().manual_seed(seed), {"image": ring, "clip": ring, "causal": ring, "long": rings.get("long"), "stream": rings.get("stream")}

    def write():
        save(path, {"net": net.state_dict(), "optimiser": opt.state(), "seed": seed})
        if a.export:
            shadow = averaged(net, opt)
            export.shards(shadow.dit.state_dict(), os.path.join(a.export, "transformer"), "diffusion_pytorch_model")
            export.shards(shadow.text.state_dict(), os.path.join(a.export, "text_encoder"), "model")
    total, count, done, owed, starved, seen = {}, {}, 0, 0.0, 0, 0
    last = time.time()
    while clock.running() and (not a.steps or done < a.steps):
        u, share = float(torch.rand((), generator=gen)), clock.share()
        name = "image" if share < a.images or u < a.images_later else "causal" if float(torch.rand((), generator=gen)) < a.causal else "clip"
        if name == "causal" and "stream" in forms and done % 2:
            name = "stream"
            for _ in range(4 if rings[name].at < 4 * forms[name][2] and not rings[name].full else 1):
                rings[name].renew()
        if share >= a.images and "long" in forms and done % a.long_every == a.long_every - 1:
            name = "long"
            few = rings["long"].at < 16 and not rings["long"].full
            if few or done % (2 * a.long_every) == a.long_every - 1:
                for _ in range(8 if few else 1):
                    rings["long"].renew()
        kind = forms[name]
        first = name not in count
        t = time.time()
        try:
            three = stride(net, kind, a, *picker[name].draw(kind[2], kind[0]))
            total_loss(three).backward()
            starved = 0
        except Exception as e:
            for p in opt.params:
                p.grad = None
            starved, three = starved + 1, None
            log(at="a step failed", kind=name, why=repr(e)[:300])
            if starved > 8 or not cuda:
                raise
            if not isinstance(e, torch.cuda.OutOfMemoryError):
                uncompile(net)                     # slower, but it goes on
            torch.cuda.empty_cache()
            time.sleep(1)
            continue
        if done == 3:
            clock.start()
        opt.step(clock.factor())
        if first:
            if cuda:
                torch.cuda.synchronize()
            log(at="first step", kind=name, seconds=time.time() - t)
        total[name] = total.get(name, 0) + torch.stack([v.detach() for v in three])
        count[name] = count.get(name, 0) + 1
        done, seen = done + 1, seen + kind[2]
        owed += kind[2] * a.renew * (1.0 if ring.fast or not cuda or a.plain else 0.2) / a.chunk     # uncompiled, a clip costs more than its steps
        while owed >= 1 and name not in ("long", "stream"):
            ring.renew()
            owed -= 1
        if done % a.every == 0:
            row = {k: [round(float(v) / count[k], 4) for v in total[k]] + [count[k]] for k in total if count[k]}
            log(step=done, **{k: str(v) for k, v in row.items()}, samples_per_s=seen / (time.time() - last), fast_ring=ring.fast, rate=clock.share(), left=clock.left())
            if not all(math.isfinite(v) for r in row.values() for v in r):
                raise SystemExit("the loss is not finite")
            total, count, seen, last = {}, {k: 0 for k in count}, 0, time.time()
        if clock.due():
            write()
    write()
    teacher = averaged(net, opt)
    save(os.path.join(a.out, "teacher.pt"), teacher.state_dict())
    log(at="first part done", steps=done)
    student = teacher
    if a.distil > 0:
        student = distil(a, teacher, picker, forms, clock, log)
    save(os.path.join(a.out, "student.pt"), student.state_dict())
    for r in rings.values():
        r.feed.close()
    teacher, student = copy.deepcopy(teacher), copy.deepcopy(student)
    uncompile(teacher), uncompile(student)
    return teacher, student, vae, world


def guided(teacher, student, x0, eps, s, ask, ids, blank, rope, causal, w):
    """The student's answer against the teacher's guided one. w: one number a frame, [F]."""
    k, w = s[:, None, :, None, None], w[:, None, None]
    x = (1 - k) * x0 + k * eps
    with torch.no_grad():
        vc, vu = (teacher.dit(x, s * 1000, teacher.text(i), rope, causal) for i in (ids, blank))    # one shape, one compiled form
        target = vu + w * (vc - vu)
    v = student.dit(x, s * 1000, student.text(ids), rope, causal)
    return ((v - target).pow(2).mean((1, 3, 4)) * ask).sum() / ask.sum()


def distil(a, teacher, rings, forms, clock, log):
    """Guidance into the weights, for a.distil minutes. Captions are always said; unknown frames are what the student will meet. Blocks that have a history to go
    by are guided less (a.guidance_later): each block's guidance adds to the contrast of the last, and a long roll-out would drift.
    rings: where each kind's clips come from."""
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    student.heads.requires_grad_(False)
    opt = Optimiser(student, a.lr * 0.4, 0.0, ("shared", "bias", "table", "proj_out", "patch_", "time_embedder"), ema=0.99)
    cuda = a.device != "cpu"
    if cuda and not a.plain:
        compile_blocks(teacher)
        compile_blocks(student)
    more = Clock(a.minutes, begun=clock.begun, warm=50, fall=0.8)
    total, done, failed, gen = torch.zeros((), device=a.device), 0, 0, torch.Generator().manual_seed(5)
    while more.running() and (not a.steps or done < a.steps):
        name = ("stream" if "stream" in forms and done % 2 else "causal") if float(torch.rand((), generator=gen)) < a.causal else "clip"
        f, side, n, causal = forms[name]
        x0, ids, tokens, facts = rings[name].draw(n, f)
        w = torch.full((f,), a.guidance, device=a.device)
        if causal:
            w[BLOCK:] = a.guidance_later
        s, ask = times(n, f, causal, a.shift + 0.5, a.device)
        try:
            with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
                x0 = worn(x0, ask) if causal else x0
                loss = guided(teacher, student, x0, torch.randn_like(x0), s, ask, ids, blanks(ids), student.dit.rope(f, side // 2, side // 2, a.device), causal, w)
            loss.backward()
        except Exception as e:
            failed += 1
            log(at="a step of distillation failed", why=repr(e)[:300])
            if failed > 5 or not cuda:
                raise
            for p in opt.params:
                p.grad = None
            uncompile(teacher), uncompile(student)
            torch.cuda.empty_cache()
            continue
        if done == 3:
            more.start()
        opt.step(more.factor())
        total, done = total + loss.detach(), done + 1
        if done % a.every == 0:
            log(at="distil", step=done, loss=float(total) / a.every, left=more.left())
            total.zero_()
    log(at="distilled", steps=done)
    return averaged(student, opt)


def options(argv=None):
    p = parser(12, tier=96, workers=8)
    p.add_argument("--models", default=MODELS)
    p.add_argument("--vae")
    p.add_argument("--stats")
    p.add_argument("--tokenizer", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models/tokenizer"))
    p.add_argument("--distil", type=float, default=0.0)
    p.add_argument("--guidance", type=float, default=3.0)
    p.add_argument("--guidance-later", type=float, default=2.0, help="of causal blocks after the first")
    p.add_argument("--frames", type=int, default=17)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--batch", type=int, default=384)
    p.add_argument("--ring", type=int, default=65536)
    p.add_argument("--fill", type=int, default=8192)
    p.add_argument("--patience", type=float, default=75, help="seconds to wait for a full ring and for compiled blocks")
    p.add_argument("--images", type=float, default=0.25, help="first share of the leg that is images only")
    p.add_argument("--images-later", type=float, default=0.12, help="share of the later steps that are images")
    p.add_argument("--long", default="65x256x48", help="frames x pixels x clips of the long kind; empty: none")
    p.add_argument("--long-every", type=int, default=10, help="one step in so many is long: with 10, over a tenth of the time")
    p.add_argument("--stream", type=int, default=49, help="frames of the clips whose windows teach long roll-outs; 0: none")
    p.add_argument("--stream-ring", type=int, default=8192)
    p.add_argument("--long-ring", type=int, default=256)
    p.add_argument("--export")
    p.add_argument("--warm", help=argparse.SUPPRESS)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--chunk", type=int, default=64)
    p.add_argument("--renew", type=float, default=0.18)
    p.add_argument("--lr", type=float, default=2.5e-3)
    p.add_argument("--fall", type=float, default=0.4, help="last share of the leg in which the rate falls")
    p.add_argument("--floor", type=float, default=0.03, help="to this share of the peak")
    p.add_argument("--shift", type=float, default=2.0)
    p.add_argument("--causal", type=float, default=0.3)
    a = p.parse_args(argv)
    a.begun, a.world, a.frozen, a.helpers = None, None, None, None
    return a


if __name__ == "__main__":
    a = options()
    warm(a) if a.warm else main(a)
