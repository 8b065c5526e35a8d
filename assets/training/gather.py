"""Turns unpacked packages into the world pack that pack.py reads: anim/, static/, noto/, hdri/ and manifest.json. Called by fetch.sh.

Sprites: every second source frame (12 per second, one loop of three seconds), 128 px, WebP quality 80. The cartoon glyphs come out of the font's bitmap table
through Pillow at its one size, 109. Panoramas are copied as they are (Blender's) or decoded from base64 in a script file (pmndrs').
"""
import argparse
import base64
import glob
import io
import json
import os
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import words

SIZE = 128


def loop(path, every, limit=36):
    """An animated picture as WebP bytes at 128 px, every n-th frame, at most `limit`."""
    im, frames = Image.open(path), []
    for i in range(0, getattr(im, "n_frames", 1), every):
        im.seek(i)
        frames.append(im.convert("RGBA").resize((SIZE, SIZE), Image.LANCZOS))
    f = io.BytesIO()
    frames = frames[:limit]
    frames[0].save(f, "WEBP", save_all=len(frames) > 1, append_images=frames[1:], duration=84, loop=0, quality=80, method=6)
    return f.getvalue(), getattr(im, "n_frames", 1)


def glyph(font, code):
    """One colour glyph of the font as a WebP of 136 x 128, as the font holds it. Drawn on black and on white, since drawing on nothing squares the alpha of its edges."""
    over = []
    for ground in ("black", "white"):
        im = Image.new("RGB", (136, 128), ground)
        ImageDraw.Draw(im).text((0, 0), chr(int(code, 16)), font=font, embedded_color=True)
        over.append(np.asarray(im, np.float32))
    alpha = 255 - (over[1] - over[0]).mean(-1, keepdims=True)
    rgb = over[0] * 255 / np.maximum(alpha, 1)
    f = io.BytesIO()
    Image.fromarray(np.concatenate([rgb, alpha], -1).clip(0, 255).round().astype(np.uint8), "RGBA").save(f, "WEBP", quality=85)
    return f.getvalue()


def main(a):
    rows = {"anim": [], "static": [], "hdri": []}

    def put(kind, name, data, **row):
        path = os.path.join(a.out, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        if kind:
            rows[kind].append({"file": name, **row})
    moving = {os.path.basename(p)[:-5]: p for p in glob.glob(os.path.join(a.npm, "_lobehub_fluent-emoji-anim-*/**/*.webp"), recursive=True)}
    font = ImageFont.truetype(glob.glob(os.path.join(a.deb, "**/NotoColorEmoji.ttf"), recursive=True)[0], 109)
    for actor in words.ACTORS:
        path = moving[actor.code]
        data, n = loop(path, 2)
        part = re.search(r"anim-\d", path).group(0)
        put("anim", f"anim/{actor.code}.webp", data, unicode=actor.code, name=actor.name, src_frames=n, src=f"@lobehub/fluent-emoji-{part}@1.0.0")
        put(None, f"noto/{actor.code}.webp", glyph(font, actor.code))
    for p in sorted(glob.glob(os.path.join(a.npm, "_lobehub_fluent-emoji-3d/**/*.webp"), recursive=True)):
        code = os.path.basename(p)[:-5]
        if "-" not in code and code not in moving:          # one code point, and not an actor already
            put("static", f"static/{code}.webp", loop(p, 1, 1)[0], unicode=code, name=code)
    for p in sorted(glob.glob(os.path.join(a.npm, "_pmndrs_assets/**/hdri/*.exr.js"), recursive=True)):
        text = open(p, encoding="utf-8").read()
        data = base64.b64decode(re.search(r"base64,([A-Za-z0-9+/=]+)", text).group(1))
        put("hdri", f"hdri/ph_{os.path.basename(p).split('.')[0]}.exr", data, src="npm @pmndrs/assets@1.7.0 (Poly Haven, CC0)")
    for p in sorted(glob.glob(os.path.join(a.deb, "usr/share/blender/**/studiolights/world/*.exr"), recursive=True)):
        with open(p, "rb") as f:
            put("hdri", f"hdri/bl_{os.path.basename(p)}", f.read(), src="Debian blender-data (Greg Zaal, HDRI Haven, CC0)")
    with open(os.path.join(a.out, "manifest.json"), "w") as f:
        json.dump(rows, f, indent=0)
    print({k: len(v) for k, v in rows.items()})


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--npm", required=True)
    p.add_argument("--deb", required=True)
    p.add_argument("--out", required=True)
    main(p.parse_args())
