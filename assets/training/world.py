"""The world on a device: sprites, stills, panoramas and particles as flat byte buffers, and the renderer that turns stories into clips.

A clip is an environment map seen by ray direction, with billboards standing in it, shadows on the ground, fog, falling things and a light. The same function
draws every pixel of a batch with plain tensor arithmetic and bilinear look-ups in flat buffers, so that torch.compile fuses it into
a few kernels on a GPU and the CPU runs it unchanged at tiny sizes. The same world through six faces would be the 360 clip.

Surprises: sprites are stored with premultiplied alpha at 128, 64 and 32 pixels and the level is chosen per frame by the drawn size, otherwise legs
flicker. Colours are display colours (already tone-mapped), not linear light.
"""
import colorsys
import glob
import math
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import panorama
import words

SIZE = 128                                        # sprites in memory
VARIANTS = 6                                      # of each procedural panorama
MOSAICS = 12


@dataclass
class Index:
    """What a Teller needs to know; small, and safe to hand to worker processes."""
    images: dict = field(default_factory=dict)     # (actor, style) -> (first image, count)
    base: list = field(default_factory=list)       # per actor: hue in degrees, luma, mean chroma
    foot: list = field(default_factory=list)       # per actor: empty share of the sprite under its feet
    panoramas: dict = field(default_factory=dict)  # stem -> panorama indices
    mosaics: list = field(default_factory=list)
    stills: list = field(default_factory=list)
    particles: dict = field(default_factory=dict)
    actors: list = field(default_factory=list)     # actors present in this pack


def read_frames(path):
    """[N, 4, 128, 128] uint8, premultiplied."""
    im, out = Image.open(path), []
    for i in range(getattr(im, "n_frames", 1)):
        im.seek(i)
        f = im.convert("RGBA")
        if f.size != (SIZE, SIZE):
            f = f.resize((SIZE, SIZE), Image.BICUBIC)
        a = np.asarray(f, np.float32)
        a[..., :3] *= a[..., 3:] / 255
        out.append((a + 0.5).astype(np.uint8).transpose(2, 0, 1))
    return np.stack(out)


def read_panorama(path):
    im = Image.open(path).convert("RGB")
    return np.asarray(im.resize((panorama.WIDTH, panorama.HEIGHT), Image.BICUBIC))


def base_colour(frames):
    """Hue (degrees) and luma of the saturated part of a sprite, and the mean chroma of all of it."""
    x = frames[::6].transpose(0, 2, 3, 1).reshape(-1, 4).astype(np.float32) / 255
    x = x[x[:, 3] > 0.9, :3]
    chroma = x.max(1) - x.min(1) if len(x) else np.zeros(0)
    weight = np.clip(chroma - 0.15, 0, None)
    if weight.sum() < 1:
        return (30.0, float(x.mean()) if len(x) else 0.5, 0.0)
    to = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    y, i, q = to @ (x * weight[:, None]).sum(0) / weight.sum()
    rgb = np.clip(np.linalg.inv(to) @ np.array([0.5, i, q]), 0, 1)
    return (colorsys.rgb_to_hsv(*rgb)[0] * 360, float(y), float(chroma.mean()))


def particles(name, rng):
    """A tile that wraps in both directions, [256, 256, 4] uint8, premultiplied."""
    n, out = 256, np.zeros((256, 256, 4), np.float32)

    def blend(r, c, colour, alpha):
        r, c = r % n, c % n
        out[r, c] = out[r, c] * (1 - alpha[..., None]) + np.concatenate([alpha[..., None] * colour, alpha[..., None]], -1)

    yy, xx = np.mgrid[-20:21, -20:21].astype(np.float32)
    for _ in range({"rain": 70, "snow": 70, "leaves": 22, "bubbles": 16, "confetti": 46}[name]):
        r, c = rng.integers(n, size=2)
        if name == "rain":
            a = np.clip(1 - np.abs(xx + yy * 0.12) / 1.4, 0, 1) * np.clip(1 - np.abs(yy) / 19, 0, 1) * 0.75
            col = np.array([0.82, 0.88, 0.95])
        elif name == "snow":
            s = rng.uniform(1.6, 4.2)
            a, col = np.clip(1.3 - np.hypot(xx, yy) / s, 0, 1), np.array([0.98, 0.99, 1.0])
        elif name == "leaves":
            t, s = rng.uniform(0, 6.3), rng.uniform(5, 8)
            u, v = xx * math.cos(t) + yy * math.sin(t), -xx * math.sin(t) + yy * math.cos(t)
            a = np.clip((1 - (u / s) ** 2 - (v / (s * 0.45)) ** 2) * 3, 0, 1)
            col = np.array([(0.85, 0.45, 0.1), (0.8, 0.25, 0.1), (0.85, 0.7, 0.15), (0.55, 0.35, 0.12)][rng.integers(4)])
        elif name == "bubbles":
            s = rng.uniform(6, 14)
            d = np.hypot(xx, yy)
            a = np.clip(1 - np.abs(d - s) / 1.6, 0, 1) * 0.85 + (d < s) * 0.10 + np.clip(1 - np.hypot(xx + s * 0.4, yy + s * 0.4) / 2.5, 0, 1) * 0.8
            a, col = np.clip(a, 0, 1), np.array([0.9, 0.97, 1.0])
        else:
            t, s = rng.uniform(0, 6.3), rng.uniform(3, 5)
            u, v = xx * math.cos(t) + yy * math.sin(t), -xx * math.sin(t) + yy * math.cos(t)
            a = np.clip((1 - np.maximum(np.abs(u) / s, np.abs(v) / (s * 0.6))) * 4, 0, 1)
            col = np.array(colorsys.hsv_to_rgb(rng.random(), 0.85, 1.0))
        blend(r + yy.astype(int), c + xx.astype(int), col, a)
    return (out * 255 + 0.5).clip(0, 255).astype(np.uint8)


class World:
    """Loads a pack. device: where the buffers live. variants, mosaics: fewer for smoke tests. Public: .index (Index), render()."""

    def __init__(self, pack, device="cpu", variants=VARIANTS, mosaics=MOSAICS, workers=None):
        self.device, index = torch.device(device), Index()
        have = {os.path.basename(p)[:-5] for p in glob.glob(os.path.join(pack, "anim/*.webp"))}
        jobs = []
        for i, a in enumerate(words.ACTORS):
            if a.code in have:
                index.actors.append(i)
                jobs += [((i, 0), os.path.join(pack, f"anim/{a.code}.webp")), ((i, 1), os.path.join(pack, f"noto/{a.code}.webp"))]
        jobs += [(None, p) for p in sorted(glob.glob(os.path.join(pack, "static/*.webp")))]
        photos = sorted(glob.glob(os.path.join(pack, "pano/*.webp")))
        if workers == 0:
            frames, views = [read_frames(p) for _, p in jobs], [read_panorama(p) for p in photos]
        else:
            with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
                frames, views = list(pool.map(read_frames, [p for _, p in jobs], chunksize=4)), list(pool.map(read_panorama, photos))
        first = 0
        index.base, index.foot = [(30.0, 0.5, 0.0)] * len(words.ACTORS), [0.0] * len(words.ACTORS)
        for (key, _), f in zip(jobs, frames):
            if key:
                index.images[key] = (first, len(f))
                if key[1] == 0:
                    index.base[key[0]] = base_colour(f)
                    index.foot[key[0]] = float(1 - (np.nonzero((f[:, 3] > 100).any((0, 2)))[0].max() + 1) / SIZE)
            else:
                index.stills.append(first)
            first += len(f)
        self.count = first
        images = torch.from_numpy(np.concatenate(frames)).to(self.device)
        levels = [images]
        for _ in range(2):
            levels.append(torch.cat([F.avg_pool2d(c.float(), 2).round().to(torch.uint8) for c in levels[-1].split(256)]))
        self.start = [0, images.numel(), images.numel() + levels[1].numel()]
        self.sprites = torch.cat([l.permute(0, 2, 3, 1).reshape(-1) for l in levels])
        rooms = [torch.from_numpy(np.ascontiguousarray(v)).to(self.device) for v in views]
        for p, v in zip(photos, views):
            index.panoramas[os.path.basename(p)[:-5]] = [len(index.panoramas)]
        for kind in panorama.KINDS:
            index.panoramas[kind] = list(range(len(rooms), len(rooms) + variants))
            rooms += [(panorama.make(kind, s, self.device) * 255 + 0.5).to(torch.uint8) for s in range(variants)]
        index.mosaics = list(range(len(rooms), len(rooms) + mosaics))
        pick = images[index.stills] if index.stills else images[:1]
        rooms += [(panorama.mosaic(pick / 255.0, s, self.device) * 255 + 0.5).to(torch.uint8) for s in range(mosaics)]
        for s in words.SCENES:                    # a small pack lacks most photos: something procedural stands in
            for stem in s.panoramas:
                index.panoramas.setdefault(stem, index.panoramas["hills"])
        self.rooms = torch.stack(rooms).reshape(-1)
        rng, tiles = np.random.default_rng(3), []
        for name in ("rain", "snow", "leaves", "bubbles", "confetti"):
            index.particles[name] = len(tiles)
            tiles.append(particles(name, rng))
        self.tiles = torch.from_numpy(np.stack(tiles)).reshape(-1).to(self.device)
        self.index = index
        self._fast = {}

    def outline(self, path):
        """Writes all that decides the compiled renderer, but no picture, for from_outline() in another process."""
        save = {"index": self.index, "start": self.start, "bytes": [b.numel() for b in (self.sprites, self.rooms, self.tiles)]}
        with open(path + ".part", "wb") as f:
            pickle.dump(save, f)
        os.replace(path + ".part", path)

    @classmethod
    def from_outline(cls, path, device):
        """A world of black pictures, for compiling only. path: a file of outline(), written by this same session."""
        self = cls.__new__(cls)
        with open(path, "rb") as f:
            o = pickle.load(f)
        self.device, self.index, self.start, self._fast = torch.device(device), o["index"], o["start"], {}
        self.sprites, self.rooms, self.tiles = (torch.zeros(n, dtype=torch.uint8, device=device) for n in o["bytes"])
        return self

    def render(self, records, height, width, fast=False):
        """records: dict of arrays or tensors as story.py describes, batch first. Returns (video [B, 3, T, height, width] float32 in -1..1,
        cover [B, 2, T, height, width] float32: how much of each pixel shows the actor in that slot). fast: compiled, one shape at a time.
        A record "at" [T] says which frames of the story these are, where they are not the first T."""
        r = {k: (torch.from_numpy(v) if isinstance(v, np.ndarray) else v).to(self.device, non_blocking=True) for k, v in records.items()}
        draw_ = draw
        if fast:
            key = (r["act"].shape, height, width, "at" in r)
            if key not in self._fast:
                self._fast[key] = torch.compile(draw, dynamic=False)
            draw_ = self._fast[key]
        return draw_(self.sprites, self.rooms, self.tiles, self.start, r["cam"], r["act"], r["col"], r["env"], r["tint"], r["fall"], height, width, r.get("at"))


def look(buffer, base, w, h, channels, x, y, wrap_x, wrap_y):
    """Bilinear look-up in a flat byte buffer of pictures. base, w, h: first byte, width and height per element (tensors or ints); x, y: pixel coordinates.
    Returns [..., channels] in 0..1. Outside: wraps, or repeats the edge."""
    x0, y0 = torch.floor(x), torch.floor(y)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    x0, y0 = x0.long(), y0.long()
    c = torch.arange(channels, device=buffer.device)

    def tap(xx, yy):
        xx = xx % w if wrap_x else torch.minimum(torch.clamp(xx, min=0), w - 1 + torch.zeros_like(xx))
        yy = yy % h if wrap_y else torch.minimum(torch.clamp(yy, min=0), h - 1 + torch.zeros_like(yy))
        return buffer[(base + (yy * w + xx) * channels)[..., None] + c].float()
    top = tap(x0, y0) * (1 - fx) + tap(x0 + 1, y0) * fx
    low = tap(x0, y0 + 1) * (1 - fx) + tap(x0 + 1, y0 + 1) * fx
    return (top * (1 - fy) + low * fy) * (1 / 255)


def draw(sprites, rooms, tiles, start, cam, act, col, env, tint, fall, H, W, at=None):
    """All pixels of a batch; see World.render. Everything broadcasts to [B, T, H, W]."""
    dev, f32 = cam.device, torch.float32
    T = cam.shape[1]
    four = lambda v: v[..., None, None]                                        # [B, T] -> [B, T, 1, 1]
    one = lambda v: v[:, None, None, None]                                     # [B] -> [B, 1, 1, 1]
    sx = ((torch.arange(W, device=dev, dtype=f32) + 0.5) / W * 2 - 1)[None, None, None, :]
    sy = ((torch.arange(H, device=dev, dtype=f32) + 0.5) / H * 2 - 1)[None, None, :, None]
    yaw, pitch, tan, bright = (four(cam[..., i]) for i in range(4))
    # the ray of each pixel: through the lens, then tilted, then turned
    vx, vy = sx * tan, -sy * tan * (H / W)
    cp, sp, cy, sn = torch.cos(pitch), torch.sin(pitch), torch.cos(yaw), torch.sin(yaw)
    dy, dz = vy * cp + sp, cp - vy * sp
    dx, dz = vx * cy + dz * sn, dz * cy - vx * sn
    # the room behind
    flat = torch.sqrt(dx * dx + dz * dz)
    azimuth, height = torch.atan2(dx, dz), torch.atan2(dy, flat)
    time = (torch.arange(T, device=dev, dtype=f32) if at is None else at)[None, :, None, None]
    wet = one(env[:, 4]) * torch.clamp(one(env[:, 5]) + (height < -0.005), max=1.0)
    near = torch.clamp(-height * 3, 0.15, 1.0)
    azimuth = azimuth + wet * near * torch.sin(height * 42 / near + time * 0.85)
    height = height + wet * near * 0.8 * torch.sin(azimuth * 23 + height * 61 + time * 0.7)
    azimuth = azimuth * one(env[:, 2]) + one(env[:, 1])
    pw, ph = panorama.WIDTH, panorama.HEIGHT
    out = look(rooms, one(env[:, 0]).long() * (pw * ph * 3), pw, ph, 3, (azimuth / (2 * math.pi) + 0.5) * pw - 0.5, (0.5 - height / math.pi) * ph - 0.5, True, False)
    shade = torch.ones_like(flat)
    down = torch.clamp(-dy, min=1e-3)
    gx, gz = dx * (panorama.EYE / down), dz * (panorama.EYE / down)
    for k in range(act.shape[1]):
        ax, ay, az, s = (four(act[:, k, :, i]) for i in (0, 1, 2, 3))
        d2 = ((gx - ax) / (s * 0.42)) ** 2 + ((gz - az) / (s * 0.22)) ** 2
        lift = torch.clamp((ay - s / 2 + panorama.EYE) / s, 0, 2)                # a shadow fades under what flies
        shade = shade * (1 - one(env[:, 7]) * four(act[:, k, :, 7]) * torch.exp(-d2 - lift * 1.2) * (dy < -0.01))
    light = four(cam[..., 3])[..., None] * (one(env[:, 3])[..., None] * tint[:, None, None, None, :])
    fog = one(env[:, 6])[..., None]
    grey = 0.80 * torch.clamp(light.mean(-1, keepdim=True), max=1.05)
    out = out * shade[..., None] * light
    out = out + (grey - out) * fog
    covers = []
    for k in range(act.shape[1]):
        ax, ay, az, s, wide, roll, image, alpha = (four(act[:, k, :, i]) for i in range(8))
        r = torch.sqrt(ax * ax + az * az)
        fx_, fz_ = ax / r, az / r
        t = r / torch.clamp(dx * fx_ + dz * fz_, min=1e-3)
        lx, ly = (dx * fz_ - dz * fx_) * t, dy * t - ay
        u, v = lx / s, -ly / s
        cr, sr = torch.cos(roll), torch.sin(roll)
        u, v = (u * cr + v * sr) / wide, v * cr - u * sr
        level = (s / az / (2 * tan) * W < 84).long() + (s / az / (2 * tan) * W < 40).long()
        side = torch.where(level == 0, 128, torch.where(level == 1, 64, 32))
        first = torch.where(level == 0, start[0], torch.where(level == 1, start[1], start[2])) + image.long() * side * side * 4
        px, py = (u + 0.5) * side - 0.5, (v + 0.5) * side - 0.5
        rgba = look(sprites, first, side, side, 4, px, py, False, False)
        inside = (torch.clamp(0.5 * side + 0.5 - (px - side / 2 + 0.5).abs(), 0, 1) * torch.clamp(0.5 * side + 0.5 - (py - side / 2 + 0.5).abs(), 0, 1)
                  * (dx * fx_ + dz * fz_ > 1e-3) * alpha)[..., None]
        rgba = rgba * inside
        a, m = rgba[..., 3:], col[:, k, None, None, None, :]
        red, green, blue = rgba[..., 0], rgba[..., 1], rgba[..., 2]
        paint = torch.stack([m[..., 3 * i] * red + m[..., 3 * i + 1] * green + m[..., 3 * i + 2] * blue + m[..., 9 + i] * a[..., 0] for i in range(3)], -1)
        paint = torch.minimum(torch.clamp(paint, min=0.0), a)
        paint = paint * torch.clamp(light * 1.02, max=1.6)
        paint = paint + (grey * a - paint) * fog * 0.55
        out = out * (1 - a) + paint
        covers = [c * (1 - a[..., 0]) for c in covers] + [a[..., 0]]
    kind, vx_, vy_, scale, strong, sway, p0, p1 = (one(fall[:, i]) for i in range(8))
    for layer, (zoom, pace) in enumerate(((1.0, 1.0), (1.7, 0.6))):
        q = 100.0 * zoom / scale
        wx = (sx - vx_ * pace * time + sway * torch.sin(time * 0.5 + sy * 3 + layer)) * q + p0 * 256
        wy = (sy * (H / W) - vy_ * pace * time) * q + p1 * 256 + layer * 91
        rgba = look(tiles, torch.clamp(kind, min=0).long() * (256 * 256 * 4), 256, 256, 4, wx, wy, True, True)
        a = rgba[..., 3:] * (strong * (kind >= 0))[..., None]
        out = out * (1 - a) + rgba[..., :3] * (strong * (kind >= 0))[..., None] * torch.clamp(light.mean(-1, keepdim=True) * 1.15, max=1.0)
    video = torch.clamp(out, 0, 1).permute(0, 4, 1, 2, 3) * 2 - 1
    return video, torch.stack(covers, 1)
