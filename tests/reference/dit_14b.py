"""Golden of one layer of the Wan DiT at the width of the 14B models: 5120, 40 heads, ffn 13824. Names: see dit.py. Needs 12 GB.

    a   [16, 2, 4, 6], t = 712, 5 real text rows of 512: temb, block0, out
"""
import torch

from common import build, filled, folder, write_io
from dit import ROOT3, model, record, rule

if __name__ == "__main__":
    path = folder("dit_14b")
    full, half = build(model(num_attention_heads=40, ffn_dim=13824, num_layers=1), rule, path)
    io = {}
    record(io, "a", full, half, filled("input.a.x", (16, 2, 4, 6), ROOT3), torch.tensor([712]),
           filled("input.a.text", (5, 64), ROOT3), 512, keep=("temb", "block0", "out"))
    write_io(path, io)
