"""The UMT5 encoder for training: transformers' tensor names, written flat so that it compiles into the training step.

transformers' own class gives the same numbers (check_models.py) but breaks the graph. No scaling of the scores, no biases, a relative position
bias in every layer, RMS norms, gated GELU: reference umT5. Padded keys are masked; the padding's rows come out as zeros, as Wan feeds them.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def buckets(n, count=32, far=128):
    """Relative position buckets [n, n] for (query, key), bidirectional."""
    rel = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    half, a = count // 2, rel.abs()
    exact = half // 2
    large = exact + (torch.log(a.clamp(min=1).float() / exact) / math.log(far / exact) * (half - exact)).long()
    return torch.where(a < exact, a, large.clamp(max=half - 1)) + (rel > 0).long() * half


class Holder(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for k, v in parts.items():
            setattr(self, k, v)


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), 1e-6)


def lin(a, b, std):
    l = nn.Linear(a, b, bias=False)
    nn.init.normal_(l.weight, std=std)
    return l


class Layer(nn.Module):
    def __init__(self, d, heads, kv, ff, count):
        super().__init__()
        inner = heads * kv
        att = Holder(q=lin(d, inner, (d * kv) ** -0.5), k=lin(d, inner, d ** -0.5), v=lin(d, inner, d ** -0.5), o=lin(inner, d, inner ** -0.5),
                     relative_attention_bias=nn.Embedding(count, heads))
        nn.init.normal_(att.relative_attention_bias.weight, std=d ** -0.5)
        dense = Holder(wi_0=lin(d, ff, d ** -0.5), wi_1=lin(d, ff, d ** -0.5), wo=lin(ff, d, ff ** -0.5))
        self.layer = nn.ModuleList([Holder(SelfAttention=att, layer_norm=Scale(d)), Holder(DenseReluDense=dense, layer_norm=Scale(d))])
        self.heads = heads

    def forward(self, x, mask, where):
        a, f = self.layer
        n, s = a.layer_norm(x), a.SelfAttention
        q, k, v = (m(n).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (s.q, s.k, s.v))
        bias = s.relative_attention_bias.weight[where].permute(2, 0, 1)[None].float() + mask
        y = torch.softmax((q @ k.mT).float() + bias, -1).to(v.dtype) @ v
        x = x + s.o(y.transpose(1, 2).flatten(2)).float()
        n, g = f.layer_norm(x), f.DenseReluDense
        return x + g.wo(F.gelu(g.wi_0(n), approximate="tanh") * g.wi_1(n)).float()


class TextEncoder(nn.Module):
    """config: the dict of text_encoder/config.json. forward(ids [B, n] int, 0 = padding) -> [B, n, d_model] float32, zero at the padding."""

    def __init__(self, c, length=64):
        super().__init__()
        self.shared = nn.Embedding(c["vocab_size"], c["d_model"])
        self.encoder = Holder(block=nn.ModuleList([Layer(c["d_model"], c["num_heads"], c["d_kv"], c["d_ff"], c["relative_attention_num_buckets"]) for _ in range(c["num_layers"])]),
                              final_layer_norm=Scale(c["d_model"]))
        self.register_buffer("where", buckets(length, c["relative_attention_num_buckets"], c["relative_attention_max_distance"]), persistent=False)

    def forward(self, ids):
        real = ids != 0
        n = ids.shape[1]
        x, mask = self.shared(ids).float(), (~real)[:, None, None, :].float() * -1e9
        for b in self.encoder.block:
            x = b(x, mask, self.where[:n, :n])
        return self.encoder.final_layer_norm(x) * real[..., None]
