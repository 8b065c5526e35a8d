"""Golden of the Wan DiT, text to video, head_dim 128 (RoPE split 44/42/42), 512 text rows. Names: see dit.py.

    a   [16, 3, 8, 12], t = 937, 9 real text rows: everything
    b   [16, 5, 6, 10], t = 937.5, 3 real text rows: temb, out
    c   x and text of a, per-token t: first latent frame 0, the others 625: temb, timestep_proj, block0, out
"""
import torch

from common import build, filled, folder, write_io
from dit import ROOT3, model, record, rule, token_times

if __name__ == "__main__":
    path = folder("dit_t2v")
    full, half = build(model(), rule, path)
    io = {}
    x, text = filled("input.a.x", (16, 3, 8, 12), ROOT3), filled("input.a.text", (9, 64), ROOT3)
    record(io, "a", full, half, x, torch.tensor([937]), text, 512)
    record(io, "b", full, half, filled("input.b.x", (16, 5, 6, 10), ROOT3), torch.tensor([937.5]),
           filled("input.b.text", (3, 64), ROOT3), 512, keep=("temb", "out"))
    record(io, "c", full, half, x, token_times(x, 625, 1), text, 512, keep=("temb", "timestep_proj", "block0", "out"))
    del io["c.x"], io["c.text"]
    write_io(path, io)
