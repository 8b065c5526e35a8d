"""Contact sheets: clips as rows of frames, to be looked at. A world nobody looked at teaches nonsense.

    python3 sheet.py --pack DIR --out sheet.png [--rows 12 --frames 17 --width 128 --height 128 --seed 0 --jumble]
"""
import argparse

import numpy as np
import torch
from PIL import Image, ImageDraw

import language
import story
import words


def sheet(videos, texts, path, columns=6, quality=88):
    """videos: [B, 3, T, H, W] in -1..1 (tensor or array). texts: B strings, written under each row. path: .png or .jpg. A row shows `columns` frames."""
    v = torch.as_tensor(np.asarray(videos) if not torch.is_tensor(videos) else videos).float().cpu().clamp(-1, 1)
    B, _, T, H, W = v.shape
    pick = np.linspace(0, T - 1, columns).round().astype(int)
    out = Image.new("RGB", (columns * (W + 2), B * (H + 14)), "white")
    pen = ImageDraw.Draw(out)
    for b in range(B):
        for c, t in enumerate(pick):
            f = ((v[b, :, t].permute(1, 2, 0) + 1) * 127.5 + 0.5).clamp(0, 255).byte().numpy()
            out.paste(Image.fromarray(f), (c * (W + 2), b * (H + 14)))
        pen.text((2, b * (H + 14) + H + 1), texts[b][:columns * (W + 2) // 6], fill="black")
    out.save(path, quality=quality) if path.endswith("jpg") else out.save(path)


if __name__ == "__main__":
    from world import World
    a = argparse.ArgumentParser()
    a.add_argument("--pack", required=True)
    a.add_argument("--out", required=True)
    a.add_argument("--rows", type=int, default=12)
    a.add_argument("--frames", type=int, default=17)
    a.add_argument("--width", type=int, default=128)
    a.add_argument("--height", type=int, default=128)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--variants", type=int, default=1)
    a.add_argument("--jumble", action="store_true")
    a.add_argument("--device", default="cpu")
    a = a.parse_args()
    torch.set_num_threads(1)
    world = World(a.pack, a.device, a.variants, 2, workers=2)
    teller = (story.Jumble if a.jumble else story.Teller)(world.index, a.frames, a.width, a.height)
    videos, texts = [], []
    for i in range(a.rows):
        rng = story.seeded("sheet", a.seed, i)
        record, label = teller.tell(rng)
        videos.append(world.render(story.stack([record]), a.height, a.width)[0])
        texts.append(language.caption(label, rng) + " | " + language.canonical(label))
    sheet(torch.cat(videos), texts, a.out)
