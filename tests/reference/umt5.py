"""Golden of the UMT5 encoder (transformers UMT5EncoderModel): padded and masked, and long enough for the far buckets.

io.safetensors
    a.ids, a.mask     [64]       37 real tokens, the last one </s> = 1, then padding 0
    b.ids             [150]      no padding; distances to 149 reach every bucket
    {a,b}.embed       [n, 64]    rows of shared.weight
    {a,b}.layer0..2   [n, 64]    after each block, padding rows included (b: layer0 only)
    {a,b}.out         [n, 64]    after the final norm; rows of padding are not zeroed here
    bf16_error.{a,b}.layer0..2, .out    each block fed the golden input; out: final norm fed layer2
    bf16_error.whole.{a,b}.out          real rows
    buckets           [299]      bucket of key - query = -149..149
"""
import math

import numpy as np
import torch
from transformers import UMT5Config, UMT5EncoderModel

from common import Tap, build, default_rule, error, fill, folder, write_io


def config():
    return UMT5Config(vocab_size=512, d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=3,
                      relative_attention_num_buckets=32, relative_attention_max_distance=128,
                      feed_forward_proj="gated-gelu")


def rule(name, shape):
    if name in ("shared.weight", "encoder.embed_tokens.weight"):
        return math.sqrt(3.0), 0.0
    if "relative_attention_bias" in name:
        return 1.0, 0.0
    scale, offset = default_rule(name, shape)
    if name.endswith((".q.weight", ".k.weight")):
        scale *= 0.6  # no 1/sqrt(d) in this model
    return scale, offset


def ids(name, count, real):
    u = fill(name, (count,), 0.5, 0.5)
    x = 3 + np.floor(u * 509).astype(np.int64)
    x[real - 1] = 1
    x[real:] = 0
    return torch.from_numpy(x)


def run(model, tokens, mask):
    tap = Tap()
    enc = model.encoder
    tap.out(enc.embed_tokens, "embed")
    for i, block in enumerate(enc.block):
        tap.out(block, "layer%d" % i, lambda o: o[0] if isinstance(o, tuple) else o)
    tap.out(enc.final_layer_norm, "out")
    model(input_ids=tokens[None], attention_mask=mask[None])
    tap.close()
    return {k: v[0][0] for k, v in tap.kept.items()}


def fed(model, i, x, mask):
    """Block i of the library, given x; the mask is made as the encoder makes it, additive."""
    dtype = model.dtype
    bias = torch.zeros(mask.shape, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)
    bias = bias[None, None, None, :].expand(1, 1, mask.numel(), -1)
    o = model.encoder.block[i](x[None].to(dtype), attention_mask=bias)
    return (o[0] if isinstance(o, tuple) else o)[0].float()


if __name__ == "__main__":
    path = folder("umt5")
    full, half = build(UMT5EncoderModel(config()), rule, path)
    io = {}
    for case, count, real in [("a", 64, 37), ("b", 150, 150)]:
        tokens, mask = ids("input." + case, count, real), (torch.arange(count) < real).long()
        kept, low = run(full, tokens, mask), run(half, tokens, mask)
        io[case + ".ids"] = tokens
        if case == "a":
            io["a.mask"] = mask
        for name, x in kept.items():
            if case == "a" or name in ("embed", "layer0", "out"):
                io["%s.%s" % (case, name)] = x
        x = kept["embed"]
        for i in range(3):
            name = "layer%d" % i
            assert error(fed(full, i, x, mask)[:real], kept[name][:real]) < 1e-5
            io["bf16_error.%s.%s" % (case, name)] = error(fed(half, i, x, mask)[:real], kept[name][:real])
            x = kept[name]
        io["bf16_error.%s.out" % case] = error(half.encoder.final_layer_norm(x.to(half.dtype)), kept["out"])
        io["bf16_error.whole.%s.out" % case] = error(low["out"][:real], kept["out"][:real])
    attention = full.encoder.block[0].layer[0].SelfAttention
    io["buckets"] = attention._relative_position_bucket(torch.arange(-149, 150))
    write_io(path, io)
