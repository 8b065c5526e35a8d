"""Trains the DiT and the text encoder together on latents of world clips; then teaches the result to do without guidance.

Rectified flow: x_s = (1 - s) x0 + s eps, target eps - x0, timestep 1000 s, MSE over unknown tokens. Tasks in one batch: text to video, image to video (frame 0
known), continuation (a few frames known); on 30 % of the steps block-causal attention with a time per block (earlier blocks clean half of the time).
Clips are rendered, encoded and kept in a ring on the device; each step a share of it is renewed, so a clip is seen a few times with other noise and wording.
Auxiliary losses, 0.1 each: actor and scene from the tokens of block 6, all slots from the pooled text. They are true labels, not the probe's.

Second part (--distil): the averaged model becomes a frozen teacher; the student learns v_u + w (v_c - v_u), so that one pass per step is enough.

    python3 train_dit.py --pack DIR --out DIR --vae VAE.pt --stats VAE.json --minutes 12 [--distil 2.5] [--resume] [--device cpu]
"""
import argparse
import copy
import json
import math
import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import configs
import export
import feed
import words
from clock import Clock, Log, save
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


class Net(nn.Module):
    """Everything that learns: the DiT, the text encoder, the heads of training."""

    def __init__(self, dit=configs.TRANSFORMER):
        super().__init__()
        self.dit, self.text = DiT(dit), TextEncoder(configs.TEXT)
        width = dit["num_attention_heads"] * dit["attention_head_dim"]
        self.heads = Heads(width, configs.TEXT["d_model"], len(words.ACTORS), [n for _, n in (HEADS[k] for k in ("actor", "motion", "scene", "colour", "camera", "weather", "time"))])


COLUMNS = [HEADS[k][0] for k in ("actor", "motion", "scene", "colour", "camera", "weather", "time")]


def loss_of(net, x0, eps, s, weight, ids, tokens, facts, said, rope, causal):
    """x0, eps [B, 16, F, h, w]; s [B, F]; weight [B, F]: 1 where the frame is asked for; tokens [B, L] labels; facts [B, 12]; said [B]: 0 where the caption was dropped.
    Returns (flow loss, token loss, slot loss)."""
    k = s[:, None, :, None, None]
    x = (1 - k) * x0 + k * eps
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
        self.cuda = d != "cpu"
        self.encode = torch.compile(vae.encode) if self.cuda else vae.encode

    @torch.no_grad()
    def renew(self):
        """One chunk of new clips."""
        b = next(self.feed)
        facts, ids = torch.from_numpy(b.pop("facts")).to(self.a.device), torch.from_numpy(b.pop("ids")).to(self.a.device)
        x, cover = self.world.render(b, self.a.size, self.a.size, fast=self.cuda)
        if self.cuda:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.cuda):
            z = self.vae.normalise(self.encode(x)[0].float())
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

    def draw(self, n):
        """n random clips: (latents float32, ids int64, tokens, facts)."""
        i = torch.randint(self.n if self.full else self.at, (n,), device=self.z.device)
        w = torch.randint(feed.WORDINGS, (n,), device=self.z.device)
        return self.z[i].float(), self.ids[i, w].long(), self.tokens[i], self.facts[i]


def load_vae(a):
    """The frozen VAE with its measured latent statistics."""
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


def main(a):
    torch.manual_seed(77 + a.seed)
    cuda = a.device != "cpu"
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    os.makedirs(a.out, exist_ok=True)
    clock, log = Clock(a.minutes - a.distil, begun=a.begun, fall=0.3, floor=0.05), Log(os.path.join(a.out, "dit.log"))
    world = a.world or World(a.pack, a.device, a.variants, 0, workers=None if cuda else 0)
    vae = a.frozen or load_vae(a)
    net = Net({**configs.TRANSFORMER, "num_layers": a.layers}).to(a.device)
    opt = Optimiser(net, a.lr, 0.01, ("shared", "bias", "table", "proj_out", "patch_", "heads.", "time_embedder"), ema=0.9995)
    for g in opt.adam.param_groups:
        g["weight_decay"] = 0.0
    path, seed = os.path.join(a.out, "dit.pt"), a.seed
    if a.resume and os.path.exists(path):
        c = torch.load(path, map_location=a.device, weights_only=False)
        net.load_state_dict(c["net"])
        opt.load(c["optimiser"])
        seed = c["seed"] + 1
    elif a.resume and os.path.isdir(os.path.join(a.models, "transformer")):
        for part, folder in ((net.dit, "transformer"), (net.text, "text_encoder")):
            part.load_state_dict({**part.state_dict(), **{k: v.float() for k, v in export.read(os.path.join(a.models, folder)).items()}})
        for p, q in zip(opt.average, opt.params):
            p.copy_(q.detach())
        log(at="resumed", models=a.models)
    ring = Ring(world, vae, a, "train", seed)
    t0 = time.time()
    while ring.at < min(a.fill, a.ring - a.chunk):
        ring.renew()
    if cuda:
        torch.cuda.synchronize()
    log(at="ring filled", clips=ring.at, seconds=time.time() - t0)
    frames, side = ring.z.shape[2], ring.z.shape[3]
    rope = net.dit.rope(frames, side // 2, side // 2, a.device)
    step = loss_of
    if cuda:
        compile_blocks(net)
    gen = torch.Generator().manual_seed(seed)

    def write():
        save(path, {"net": net.state_dict(), "optimiser": opt.state(), "seed": seed})

    def batch(n):
        x0, ids, tokens, facts = ring.draw(n)
        said = (torch.rand(n, device=a.device) > 0.1)
        blank = torch.zeros_like(ids)
        blank[:, 0] = 1                               # the end mark alone: what the tokenizer makes of ""
        return x0, torch.where(said[:, None], ids, blank), tokens, facts, said.float(), blank
    total, done, t0, owed = torch.zeros(3, device=a.device), 0, None, 0.0
    while clock.running() and (not a.steps or done < a.steps):
        x0, ids, tokens, facts, said, _ = batch(a.batch)
        causal = bool(torch.rand((), generator=gen) < a.causal)
        s, ask = times(a.batch, frames, causal, a.shift, a.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            flow, token, slot = step(net, x0, torch.randn_like(x0), s, ask, ids, tokens, facts, said, rope, causal)
        (flow + 0.1 * token + 0.1 * slot).backward()
        if done == 3:
            clock.start()
        opt.step(clock.factor())
        total += torch.stack([flow.detach(), token.detach(), slot.detach()])
        done += 1
        owed += a.batch * a.renew / a.chunk
        while owed >= 1:
            ring.renew()
            owed -= 1
        if done == 20:
            if cuda:
                torch.cuda.synchronize()
            t0 = time.time()
        if done % a.every == 0:
            m = (total / a.every).tolist()
            total.zero_()
            log(step=done, flow=m[0], token=m[1], slot=m[2], samples_per_s=(done - 20) * a.batch / (time.time() - t0) if t0 and done > 20 else 0.0, left=clock.left())
            if not math.isfinite(m[0]):
                raise SystemExit("the loss is not finite")
        if clock.due():
            write()
    write()
    teacher = averaged(net, opt)
    save(os.path.join(a.out, "teacher.pt"), teacher.state_dict())
    log(at="first part done", steps=done)
    student = teacher
    if a.distil > 0:
        student = distil(a, teacher, ring, rope, frames, batch, clock, log)
    save(os.path.join(a.out, "student.pt"), student.state_dict())
    ring.feed.close()
    return copy.deepcopy(teacher), copy.deepcopy(student), vae, world        # a copy forgets that it was compiled


def compile_blocks(net):
    """Compiles one block of each kind and reuses it: seconds, where the whole network took 84 for each variant on an H200."""
    for b in [*net.dit.blocks, *net.text.encoder.block]:
        b.compile(dynamic=False)


def guided(teacher, student, x0, eps, s, ask, ids, blank, rope, causal, w):
    """The student's answer against the teacher's guided one."""
    k = s[:, None, :, None, None]
    x = (1 - k) * x0 + k * eps
    with torch.no_grad():
        vc, vu = teacher.dit(torch.cat([x, x]), torch.cat([s, s]) * 1000, torch.cat([teacher.text(ids), teacher.text(blank)]), rope, causal).chunk(2)
        target = vu + w * (vc - vu)
    v = student.dit(x, s * 1000, student.text(ids), rope, causal)
    return ((v - target).pow(2).mean((1, 3, 4)) * ask).sum() / ask.sum()


def distil(a, teacher, ring, rope, frames, batch, clock, log):
    """Guidance into the weights, for a.distil minutes. Captions are always said; unknown frames are what the student will meet."""
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    student.heads.requires_grad_(False)
    opt = Optimiser(student, a.lr * 0.4, 0.0, ("shared", "bias", "table", "proj_out", "patch_", "time_embedder"), ema=0.995)
    cuda = a.device != "cpu"
    step = guided
    if cuda:
        compile_blocks(teacher)
        compile_blocks(student)
    more = Clock(a.minutes, begun=clock.begun, warm=50, fall=0.7)
    total, done, n, gen = torch.zeros((), device=a.device), 0, max(1, a.batch // 2), torch.Generator().manual_seed(5)
    while more.running() and (not a.steps or done < a.steps):
        x0, ids, tokens, facts = ring.draw(n)
        blank = torch.zeros_like(ids)
        blank[:, 0] = 1
        causal = bool(torch.rand((), generator=gen) < a.causal)
        s, ask = times(n, frames, causal, a.shift + 0.5, a.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss = step(teacher, student, x0, torch.randn_like(x0), s, ask, ids, blank, rope, causal, a.guidance)
        loss.backward()
        if done == 3:
            more.start()
        opt.step(more.factor())
        total, done = total + loss.detach(), done + 1
        if done % a.every == 0:
            log(at="distil", step=done, loss=float(total) / a.every, left=more.left())
            total.zero_()
    return averaged(student, opt)


def options(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("--pack", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--vae")
    p.add_argument("--stats")
    p.add_argument("--tokenizer", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models/tokenizer"))
    p.add_argument("--models", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models"))
    p.add_argument("--minutes", type=float, default=12)
    p.add_argument("--distil", type=float, default=0.0)
    p.add_argument("--guidance", type=float, default=3.0)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--tier", type=int, default=96)
    p.add_argument("--frames", type=int, default=17)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--batch", type=int, default=768)
    p.add_argument("--ring", type=int, default=65536)
    p.add_argument("--fill", type=int, default=12288)
    p.add_argument("--chunk", type=int, default=128)
    p.add_argument("--renew", type=float, default=0.25)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--shift", type=float, default=2.0)
    p.add_argument("--causal", type=float, default=0.3)
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--every", type=int, default=100)
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--variants", type=int, default=6)
    a = p.parse_args(argv)
    a.begun, a.world, a.frozen = None, None, None
    return a


if __name__ == "__main__":
    main(options())
