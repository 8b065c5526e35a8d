"""Golden of the DiT in the shape of the shipped family: head_dim 64 (RoPE split 24/20/20), 64 text rows, one timestep
a token. Names: see dit.py.

    a   [16, 3, 8, 12], t = 833 for every token, 5 real text rows: everything
    b   x and text of a, first latent frame known at t = 0: block0, out
    c   x and text of a, block-causal style: t = 0, 0, 500 by latent frame: out
"""
from common import build, filled, folder, write_io
from dit import ROOT3, model, record, rule, token_times

CHANGES = dict(attention_head_dim=64, num_layers=2)

if __name__ == "__main__":
    path = folder("dit_hd64")
    full, half = build(model(**CHANGES), rule, path)
    io = {}
    x, text = filled("input.a.x", (16, 3, 8, 12), ROOT3), filled("input.a.text", (5, 64), ROOT3)
    record(io, "a", full, half, x, token_times(x, 833, 0), text, 64)
    record(io, "b", full, half, x, token_times(x, 833, 1), text, 64, keep=("block0", "out"))
    record(io, "c", full, half, x, token_times(x, 500, 2), text, 64, keep=("out",))
    for name in ("b.x", "b.text", "c.x", "c.text"):
        del io[name]
    write_io(path, io)
