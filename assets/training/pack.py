"""Cuts a training pack from the world pack: sprites, stills, cartoon stills, panoramas as 8-bit pictures, foreign photos for judging.

Why not train from the world pack itself: it needs an EXR reader and the panoramas need cleaning; a training machine has neither network nor time. In the pack
a panorama is a WebP whose value is sqrt(y / (1 + y)), y = light / (its geometric mean) * 0.3: the tone map the renderer wants, and it can be undone.

Surprises: panoramas compressed with loss have negative values next to lamps and the sun; such pixels take the median of their neighbours, or the sun
would be a blue square. The eight photos under foreign/ are for judging only; no trainer reads them.

    python3 pack.py --world WORLD_PACK --photos SKIMAGE_DATA --out .pack [--tier 132]           the full pack, about 30 MB
    python3 pack.py --world WORLD_PACK --out mini --mini                                         the committed one, under 1 MB
"""
import argparse
import glob
import io
import json
import os
import shutil

import numpy as np
from PIL import Image

import words

FOREIGN = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "grass.png", "gravel.png", "brick.png", "hubble_deep_field.jpg")
MINI_ACTORS = ("1f415", "1f697", "2b50")
MINI_PANORAMAS = ("bl_city", "bl_forest", "ph_park")


def read_exr(path):
    """[H, W, 3] float32, linear light."""
    import OpenEXR
    c = OpenEXR.File(path).channels()
    x = (c["RGB"] if "RGB" in c else c["RGBA"]).pixels[:, :, :3].astype(np.float32)
    return np.nan_to_num(x, nan=0.0, posinf=6e4, neginf=-1.0)


def clean(x):
    """x [H, W, 3]. Replaces pixels with a negative channel, or a single glaring one, and their neighbours by the median of the good ones around them."""
    bad = (x < 0).any(-1) | ((x.max(-1) > 4) & (x.min(-1) < 0.02 * x.max(-1)))
    near = np.zeros_like(bad)
    for r, c in zip(*np.nonzero(bad)):
        near[max(0, r - 1):r + 2, max(0, c - 1):c + 2] = True
    bad, out = near, x.copy()
    for r, c in zip(*np.nonzero(bad)):
        for k in (2, 4, 8):
            box = (slice(max(0, r - k), r + k + 1), slice(max(0, c - k), c + k + 1))
            good = x[box][~bad[box]]
            if len(good) >= 8:
                out[r, c] = np.median(good, 0)
                break
    return out.clip(0)


def tone(x):
    """Linear light to the pack's 0..1: the geometric mean lands at 0.48."""
    y = x / np.exp(np.log(x.mean(-1) + 1e-4).mean()) * 0.3
    return np.sqrt(y / (1 + y))


def as_webp(pixels, quality):
    f = io.BytesIO()
    Image.fromarray((pixels * 255 + 0.5).clip(0, 255).astype(np.uint8)).save(f, "WEBP", quality=quality, method=6)
    return f.getvalue()


def shrink(path, size, step, quality):
    """An animated WebP again, smaller: every step-th frame at size x size."""
    im, frames = Image.open(path), []
    for i in range(0, getattr(im, "n_frames", 1), step):
        im.seek(i)
        frames.append(im.convert("RGBA").resize((size, size), Image.LANCZOS))
    f = io.BytesIO()
    frames[0].save(f, "WEBP", save_all=True, append_images=frames[1:], duration=84 * step, loop=0, quality=quality, method=6)
    return f.getvalue()


def cut(world, out, photos=None, tier=132, mini=False):
    """world, out, photos: folders. Returns the manifest it writes: file, bytes and source of everything in the pack."""
    with open(os.path.join(world, "manifest.json")) as f:
        source = json.load(f)
    actors = [a.code for a in words.ACTORS][:tier]
    actors = [c for c in actors if c in MINI_ACTORS] if mini else actors
    if os.path.isdir(out):
        shutil.rmtree(out)
    rows = []

    def put(name, data, src):
        path = os.path.join(out, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        rows.append({"file": name, "bytes": len(data), "src": src})

    def raw(name):
        with open(os.path.join(world, name), "rb") as f:
            return f.read()

    by_code = {a["unicode"]: a for a in source["anim"]}
    for c in actors:
        put(f"anim/{c}.webp", shrink(os.path.join(world, f"anim/{c}.webp"), 64, 3, 70) if mini else raw(f"anim/{c}.webp"), by_code[c]["src"])
        put(f"noto/{c}.webp", raw(f"noto/{c}.webp"), "Debian fonts-noto-color-emoji")
    for s in source["static"][::120 if mini else 1]:
        put(f"static/{s['unicode']}.webp", raw(s["file"]), "@lobehub/fluent-emoji-3d@1.1.0")
    for h in source["hdri"]:
        stem = os.path.basename(h["file"])[:-4]
        if mini and stem not in MINI_PANORAMAS:
            continue
        x = tone(clean(read_exr(os.path.join(world, h["file"]))))
        if mini:
            x = x.reshape(128, x.shape[0] // 128, 256, x.shape[1] // 256, 3).mean((1, 3))
        put(f"pano/{stem}.webp", as_webp(x, 70 if mini else 92), h["src"])
    for name in FOREIGN if photos else ():
        im = Image.open(os.path.join(photos, name)).convert("RGB")
        im = im.crop((0, 0, *(min(v, 1024) for v in im.size)))
        im.thumbnail((512, 512), Image.LANCZOS)
        put(f"foreign/{name.split('.')[0]}.webp", as_webp(np.asarray(im) / 255.0, 95), "Debian python3-skimage")
    with open(os.path.join(out, "manifest.json"), "w") as f:
        json.dump({"files": rows, "bytes": sum(r["bytes"] for r in rows)}, f, indent=0)
    return rows


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("--world", required=True)
    a.add_argument("--out", required=True)
    a.add_argument("--photos")
    a.add_argument("--tier", type=int, default=132)
    a.add_argument("--mini", action="store_true")
    a = a.parse_args()
    rows = cut(a.world, a.out, a.photos, a.tier, a.mini)
    print(f"{len(rows)} files, {sum(r['bytes'] for r in rows) / 1e6:.1f} MB in {a.out}")
