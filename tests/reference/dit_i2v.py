"""Golden of the Wan2.1 image-to-video DiT: 36 channels (16 noise, 4 mask, 16 picture), 17 CLIP tokens with their own
keys and values. Names: see dit.py.

    a   [36, 3, 6, 10], t = 749, 7 real text rows of 512: everything
"""
import torch

from common import build, filled, folder, write_io
from dit import ROOT3, model, record, rule

CHANGES = dict(in_channels=36, image_dim=64, added_kv_proj_dim=256)

if __name__ == "__main__":
    path = folder("dit_i2v")
    full, half = build(model(**CHANGES), rule, path)
    io = {}
    record(io, "a", full, half, filled("input.a.x", (36, 3, 6, 10), ROOT3), torch.tensor([749]),
           filled("input.a.text", (7, 64), ROOT3), 512, image=filled("input.a.image", (17, 64), ROOT3))
    write_io(path, io)
