"""Procedural panoramas: the places no photo in the pack shows (beach, sea, snow, desert, space, ...), and mosaics for the VAE.

Each is an equirectangular picture [512, 1024, 3] in 0..1, made from a seed with torch on any device: sky by elevation, ground by
intersecting the ray with the plane 1.5 below the eye, hills as a height profile by azimuth. All noise wraps around in azimuth, so there is no seam.
Surprise: ground texture fades to its mean towards the horizon, otherwise it would alias into glitter.
"""
import math

import torch
import torch.nn.functional as F

HEIGHT, WIDTH = 512, 1024
EYE = 1.5


def hex3(s, dev):
    return torch.tensor([int(s[i:i + 2], 16) / 255 for i in (0, 2, 4)], device=dev)


def noise(g, cells, shape, dev, octaves=5):
    """Fractal noise in 0..1, [shape], periodic in both axes. cells: (rows, columns) of the coarsest grid."""
    out, amp, total = torch.zeros(shape, device=dev), 1.0, 0.0
    for o in range(octaves):
        r, c = cells[0] * 2 ** o, cells[1] * 2 ** o
        if r > shape[0] or c > shape[1]:
            break
        n = torch.rand(1, 1, r, c, generator=g).to(dev)
        n = F.pad(n, (2, 2, 2, 2), mode="circular") if min(r, c) >= 2 else F.pad(n, (2, 2, 2, 2), mode="replicate")
        up = F.interpolate(n, scale_factor=(shape[0] / r, shape[1] / c), mode="bicubic", align_corners=False)[0, 0]
        dy, dx = 2 * shape[0] // r, 2 * shape[1] // c
        out += amp * up[dy:dy + shape[0], dx:dx + shape[1]]
        total += amp
        amp *= 0.5
    return (out / total).clamp(0, 1)


def rays(dev):
    yaw = (torch.arange(WIDTH, device=dev) + 0.5) / WIDTH * 2 * math.pi - math.pi
    pitch = math.pi / 2 - (torch.arange(HEIGHT, device=dev) + 0.5) / HEIGHT * math.pi
    return yaw[None, :].expand(HEIGHT, WIDTH), pitch[:, None].expand(HEIGHT, WIDTH)


def mix(a, b, k):
    return a + (b - a) * k[..., None]


def ground(g, dev, scale, low, high, contrast=1.0):
    """Colour of the plane under the eye, [H, W, 3]: two colours mixed by noise in ground coordinates."""
    yaw, pitch = rays(dev)
    dist = EYE / torch.tan((-pitch).clamp(min=1e-3))
    tex = ((noise(g, (8, 8), (512, 512), dev, 6) - 0.5) * 1.7 * contrast + 0.5).clamp(0, 1)
    u, v = (torch.sin(yaw) * dist / scale) % 1.0, (torch.cos(yaw) * dist / scale) % 1.0
    grid = torch.stack([u * 2 - 1, v * 2 - 1], -1)[None]
    k = F.grid_sample(tex[None, None], grid, padding_mode="border", align_corners=False)[0, 0]
    fade = torch.exp(-dist / (scale * 1.6))
    return mix(low, high, k * fade + 0.5 * (1 - fade)), dist


def profile(g, dev, low, high, cells, rough=4):
    """Height of a skyline by azimuth, [W] in radians."""
    n = noise(g, (1, cells), (8, WIDTH), dev, rough)[4]
    n = (n - n.min()) / (n.max() - n.min() + 1e-6)
    return low + (high - low) * n


def sky(g, dev, top, horizon, clouds=0.5):
    yaw, pitch = rays(dev)
    k = (pitch / (math.pi / 2)).clamp(0, 1) ** 0.6
    out = mix(horizon, top, k)
    if clouds > 0:
        n = noise(g, (6, 8), (HEIGHT, WIDTH), dev, 6)
        c = ((n - (0.62 - 0.25 * clouds)) * 5).clamp(0, 1) * (pitch / 0.25).clamp(0, 1)
        out = mix(out, torch.ones(3, device=dev) * 0.97, c * 0.85)
    return out


def sun(out, g, dev, colour="fff6d8", size=0.07, glow=0.5):
    yaw, pitch = rays(dev)
    a, e = float(torch.rand(1, generator=g)) * 6.28 - 3.14, 0.35 + 0.5 * float(torch.rand(1, generator=g))
    cosang = torch.sin(pitch) * math.sin(e) + torch.cos(pitch) * math.cos(e) * torch.cos(yaw - a)
    ang = torch.acos(cosang.clamp(-1, 1))
    return mix(out, hex3(colour, dev), ((1 - ang / size) * 8).clamp(0, 1) + glow * torch.exp(-(ang / 0.3)) * (ang > size) * 0.6)


def make(kind, seed, dev="cpu"):
    """kind: one of KINDS; seed: int. Returns [512, 1024, 3] float32 in 0..1."""
    g = torch.Generator().manual_seed(seed * 1009 + KINDS.index(kind) * 13 + 5)
    yaw, pitch = rays(dev)
    h = lambda s: hex3(s, dev)
    u = lambda lo, hi: lo + (hi - lo) * float(torch.rand(1, generator=g))
    below = (pitch < 0).float()
    if kind == "beach":
        out = sun(sky(g, dev, h("3f8fe0"), h("cfe8f7"), u(0, 0.9)), g, dev)
        sand, dist = ground(g, dev, 3.0, h("d9bd86"), h("f0dcae"), 0.8)
        shore = 5.5 + 1.8 * torch.sin(yaw + u(0, 6)) + 0.5 * torch.sin(3 * yaw)
        water = mix(h("2aa6b8"), h("1f6fae"), (dist / 40).clamp(0, 1))
        foam = torch.exp(-((dist - shore) / 0.35) ** 2)
        floor = mix(mix(sand, water, ((dist - shore) * 3).clamp(0, 1)), torch.ones(3, device=dev), foam * 0.8)
    elif kind == "desert":
        out = sun(sky(g, dev, h("4f9bdc"), h("f3dfb8"), u(0, 0.2)), g, dev)
        floor, _ = ground(g, dev, 6.0, h("c98f4e"), h("eec07c"))
        for lo, hi, dark in ((0.04, 0.22, 0.82), (0.0, 0.10, 0.95)):
            top = profile(g, dev, lo, hi, 4, 2)[None]
            shade = noise(g, (4, 8), (HEIGHT, WIDTH), dev, 4)
            dune = mix(h("b57a3c"), h("edbd78"), ((shade - 0.5) * 2 + 0.5).clamp(0, 1)) * dark
            out = mix(out, dune, ((top - pitch) * 60).clamp(0, 1))
    elif kind == "snowfield":
        out = sky(g, dev, h("8fb9de"), h("e9eff4"), u(0.2, 1.0))
        top = profile(g, dev, 0.02, u(0.15, 0.4), 6, 5)[None]
        rock = noise(g, (8, 16), (HEIGHT, WIDTH), dev, 5)
        out = mix(out, mix(h("8a9bb0"), h("f4f8fb"), ((rock - 0.35) * 5).clamp(0, 1)), ((top - pitch) * 80).clamp(0, 1))
        trees = profile(g, dev, -0.02, 0.075, 128, 3)[None]
        out = mix(out, h("2f4a42") * (0.8 + 0.4 * rock[..., None]), ((trees - pitch) * 70).clamp(0, 1))
        floor, _ = ground(g, dev, 5.0, h("d5e0ea"), h("fbfdff"))
    elif kind == "sea":
        out = sun(sky(g, dev, h("3a83d6"), h("d5ebf7"), u(0, 1)), g, dev)
        floor, dist = ground(g, dev, 7.0, h("0f4f86"), h("4aa3cf"), 1.2)
        floor = mix(floor, h("8fc3df"), (dist / 120).clamp(0, 0.7))
    elif kind == "underwater":
        out = mix(h("0b5d8f"), h("8fe3ee"), (pitch / 1.3).clamp(0, 1))
        rayn = noise(g, (1, 24), (8, WIDTH), dev, 3)[4][None].expand(HEIGHT, WIDTH)
        out = mix(out, h("c9f6f6"), ((rayn - 0.5) * 2).clamp(0, 1) * (pitch / 0.8).clamp(0, 1) * 0.6)
        reef = profile(g, dev, -0.12, 0.14, 16, 4)[None]
        n = noise(g, (8, 32), (HEIGHT, WIDTH), dev, 5)
        out = mix(out, mix(h("1b5f74"), h("c86f7a") if u(0, 1) < 0.5 else h("5f9a6a"), ((n - 0.45) * 4).clamp(0, 1)), ((reef - pitch) * 40).clamp(0, 1) * 0.85)
        floor, dist = ground(g, dev, 3.0, h("5f9f96"), h("cfd9a8"))
        floor = mix(floor, h("1374a0"), (dist / 14).clamp(0, 1))
    elif kind in ("moonland", "space"):
        stars = (torch.rand(HEIGHT, WIDTH, generator=g) > 0.9965).float().to(dev)
        stars = F.max_pool2d(stars[None, None], 3, 1, 1)[0, 0] * torch.rand(HEIGHT, WIDTH, generator=g).to(dev).pow(2)
        neb = noise(g, (4, 8), (HEIGHT, WIDTH), dev, 5)
        tone = torch.stack([noise(g, (2, 4), (HEIGHT, WIDTH), dev, 3) for _ in range(3)], -1)
        out = h("05060f") + (tone * ((neb - 0.45) * 3).clamp(0, 1)[..., None]) * (0.55 if kind == "space" else 0.12) + stars[..., None] * 1.2
        for size in ((0.28, 0.16) if kind == "space" else (0.14,)):
            a, e = u(-3.1, 3.1), u(0.15, 0.5) if kind == "moonland" else u(-0.4, 0.5)
            c = torch.sin(pitch) * math.sin(e) + torch.cos(pitch) * math.cos(e) * torch.cos(yaw - a)
            ang = torch.acos(c.clamp(-1, 1))
            bands = noise(g, (16, 4), (HEIGHT, WIDTH), dev, 4)
            col = mix(h("d98b4a"), h("f3d9a8"), bands) if kind == "space" else mix(h("2f6fc0"), h("ffffff"), ((bands - 0.45) * 4).clamp(0, 1))
            lit = (1.15 - ang / size * 0.5 + 0.5 * torch.sin(yaw - a) / size * 0.6).clamp(0.05, 1.1)
            out = mix(out, col * lit[..., None], ((size - ang) * 90).clamp(0, 1))
        if kind == "space":
            return out.clamp(0, 1)
        floor, _ = ground(g, dev, 4.0, h("5e5e62"), h("b4b4b2"), 1.3)
        top = profile(g, dev, -0.01, 0.08, 8, 4)[None]
        out = mix(out, h("8a8a8c") * (0.7 + 0.5 * neb[..., None]), ((top - pitch) * 80).clamp(0, 1))
    elif kind == "road":
        out = sun(sky(g, dev, h("4a93db"), h("dcecf5"), u(0, 1)), g, dev)
        top = profile(g, dev, 0.01, 0.10, 16, 5)[None]
        n = noise(g, (16, 64), (HEIGHT, WIDTH), dev, 4)
        out = mix(out, mix(h("2f5f2c"), h("6f9a4d"), n), ((top - pitch) * 80).clamp(0, 1))
        floor, dist = ground(g, dev, 2.0, h("4f8a34"), h("86b552"))
        asphalt, _ = ground(g, dev, 1.0, h("4b4c50"), h("6a6b6e"), 0.6)
        across, along = torch.cos(yaw) * dist, torch.sin(yaw) * dist      # the road runs from left to right before the eye, and behind
        lane = ((5.0 - (across.abs() - 5.2).abs() - 1.8) * 3).clamp(0, 1)
        floor = mix(floor, asphalt, lane)
        dash = ((0.16 - (across.abs() - 5.2).abs()) * 12).clamp(0, 1) * ((along / 2.5) % 1.0 < 0.55).float()
        edge = ((0.10 - ((across.abs() - 5.2).abs() - 3.0).abs()) * 12).clamp(0, 1)
        floor = mix(floor, h("f2f2ea"), (dash + edge).clamp(0, 1) * lane)
    elif kind == "hills":
        out = sun(sky(g, dev, h("4a93e0"), h("d8ecf8"), u(0.3, 1)), g, dev)
        n = noise(g, (8, 32), (HEIGHT, WIDTH), dev, 5)
        for lo, hi, c, cells in ((0.06, 0.26, "86a9b8", 6), (0.02, 0.17, "4f8f52", 5), (-0.02, 0.09, "6db04a", 4)):
            top = profile(g, dev, lo, hi, cells, 3)[None]
            out = mix(out, h(c) * (0.75 + 0.5 * n[..., None]), ((top - pitch) * 90).clamp(0, 1))
        floor, _ = ground(g, dev, 3.0, h("4c9436"), h("8fc653"))
    elif kind == "wall":
        base = torch.rand(3, generator=g).to(dev) * 0.75 + 0.2
        out = base * (0.9 + 0.1 * (pitch / 1.2).clamp(-1, 1))[..., None] * (0.94 + 0.06 * noise(g, (4, 8), (HEIGHT, WIDTH), dev, 3))[..., None]
        other = torch.rand(3, generator=g).to(dev) * 0.6 + 0.25
        floor, _ = ground(g, dev, 5.0, other * 0.92, other, 0.5)
        below = (pitch < -0.16).float()
    elif kind == "checker":
        base, other = torch.rand(3, generator=g).to(dev) * 0.7 + 0.25, torch.rand(3, generator=g).to(dev) * 0.5 + 0.1
        out = mix(base, torch.ones(3, device=dev), (pitch / 1.2).clamp(0, 1) * 0.6)
        _, dist = ground(g, dev, 3.0, base, other)
        a, b = torch.sin(yaw) * dist, torch.cos(yaw) * dist
        k = ((torch.floor(a / 1.2) + torch.floor(b / 1.2)) % 2 == 0).float()
        fade = torch.exp(-dist / 18)
        floor = mix(other, torch.ones(3, device=dev) * 0.93, k * fade + 0.5 * (1 - fade))
    else:
        raise ValueError(f"no panorama is called {kind!r}; there are {', '.join(KINDS)}")
    return mix(out, floor, below).clamp(0, 1)


KINDS = ["beach", "desert", "snowfield", "sea", "underwater", "moonland", "road", "space", "hills", "wall", "checker"]


def mosaic(images, seed, dev="cpu"):
    """Pictures strewn over stripes and noise, for the VAE: sharp edges of all colours everywhere. images [N, 4, h, h] premultiplied, 0..1."""
    g = torch.Generator().manual_seed(seed + 77)
    a, b = torch.rand(3, generator=g).to(dev), torch.rand(3, generator=g).to(dev)
    n = noise(g, (8, 16), (HEIGHT, WIDTH), dev, 7)
    out = mix(a, b, ((n - 0.5) * 3 + 0.5).clamp(0, 1)).permute(2, 0, 1).contiguous()
    if seed % 2:
        yaw, pitch = rays(dev)
        k = (torch.sin((yaw * (8 + seed % 5 * 7) + pitch * (seed % 3) * 20)) * 4).clamp(-0.5, 0.5) + 0.5
        out = out * k + (1 - out) * (1 - k) * 0.8
    for _ in range(420):
        im = images[int(torch.randint(len(images), (1,), generator=g))]
        s = int(16 + 70 * float(torch.rand(1, generator=g)) ** 2)
        im = F.interpolate(im[None].float(), size=(s, s), mode="bilinear", antialias=True)[0]
        r, c = int(torch.randint(HEIGHT - s, (1,), generator=g)), int(torch.randint(WIDTH - s, (1,), generator=g))
        out[:, r:r + s, c:c + s] = out[:, r:r + s, c:c + s] * (1 - im[3:]) + im[:3]
    return out.permute(1, 2, 0).clamp(0, 1)
