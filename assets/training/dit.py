"""WanTransformer3DModel for training: the tensor names of diffusers, one time value per latent frame, bidirectional or block-causal attention.

One set of weights does text to video (all frames at the same time t), image to video (frame 0 known, t = 0), continuation and block-causal
roll-out (earlier blocks known): whatever is known has t = 0. A time per latent frame is all that needs; diffusers' per-token time (expand_timesteps) is the same numbers.

Block-causal attention over few blocks needs no mask: the queries of block b attend to the keys of blocks 0..b in one dense call each.
Auxiliary heads (actor, cover and scene from the tokens of the middle block) exist in training only and are dropped on export.
Surprises: q and k are RMS-normed over all heads together; RoPE pairs are neighbours (2k, 2k+1); the split of a head of 64 is 24/20/20; text padding is attended.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

BLOCK = 3                                         # latent frames per causal block


class Rms(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps).to(x.dtype)


def rope_tables(head, frames, rows, columns, device, first=0):
    """cos and sin, each [frames * rows * columns, head / 2] float32. first: index of the first frame."""
    side = 2 * (head // 6)
    parts = []
    grid = torch.meshgrid(torch.arange(first, first + frames), torch.arange(rows), torch.arange(columns), indexing="ij")
    for axis, dim in zip(grid, (head - 2 * side, side, side)):
        freq = 1.0 / (10000.0 ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim))
        parts.append(axis.reshape(-1, 1).double() * freq)
    angle = torch.cat(parts, 1)
    return torch.cos(angle).float().to(device), torch.sin(angle).float().to(device)


def turn(x, cos, sin):
    """x [B, L, heads, head]; rotates neighbouring pairs."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[None, :, None], sin[None, :, None]
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, width, heads, eps):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q, self.norm_k, self.heads = Rms(width, eps), Rms(width, eps), heads

    def forward(self, x, context=None, rope=None, blocks=None):
        c = x if context is None else context
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(c)), self.to_v(c)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v))
        if rope is not None:
            q, k = turn(q, *rope), turn(k, *rope)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        if blocks is None:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y, a = [], 0
            for b in blocks:                       # ends of the blocks, in tokens
                y.append(F.scaled_dot_product_attention(q[:, :, a:b], k[:, :, :b], v[:, :, :b]))
                a = b
            y = torch.cat(y, 2)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class Gelu(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.proj = nn.Linear(a, b)

    def forward(self, x):
        return F.gelu(self.proj(x), approximate="tanh")


class Ffn(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.net = nn.ModuleList([Gelu(width, inner), nn.Identity(), nn.Linear(inner, width)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class Block(nn.Module):
    def __init__(self, width, heads, inner, eps):
        super().__init__()
        self.attn1, self.attn2, self.ffn = Attention(width, heads, eps), Attention(width, heads, eps), Ffn(width, inner)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width ** 0.5)
        self.eps = eps

    def forward(self, x, context, e, rope, blocks):
        """x [B, L, D] float32 stream; e [B, F, 6, D]: the time's modulation per latent frame; L = F * tokens per frame."""
        B, L, D = x.shape
        per = lambda t: t.repeat_interleave(L // t.shape[1], 1)
        m = [per(t) for t in (self.scale_shift_table[:, None].float() + e.float()).unbind(2)]
        u = F.layer_norm(x, (D,), eps=self.eps) * (1 + m[1]) + m[0]
        x = x + self.attn1(u, None, rope, blocks).float() * m[2]
        x = x + self.attn2(F.layer_norm(x, (D,), self.norm2.weight.float(), self.norm2.bias.float(), self.eps), context).float()
        u = F.layer_norm(x, (D,), eps=self.eps) * (1 + m[4]) + m[3]
        return x + self.ffn(u).float() * m[5]


class Mlp(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(a, b), nn.Linear(b, b)


class Condition(nn.Module):
    def __init__(self, width, freq, text):
        super().__init__()
        self.time_embedder, self.time_proj, self.text_embedder, self.freq = Mlp(freq, width), nn.Linear(width, width * 6), Mlp(text, width), freq

    def time(self, t):
        """t [B, F] in 0..1000. Returns (e [B, F, D], e0 [B, F, 6, D])."""
        half = self.freq // 2
        arg = t.float()[..., None] * torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
        e = torch.cat([torch.cos(arg), torch.sin(arg)], -1)
        e = self.time_embedder.linear_2(F.silu(self.time_embedder.linear_1(e)))
        return e, self.time_proj(F.silu(e)).unflatten(-1, (6, -1))

    def text(self, c):
        return self.text_embedder.linear_2(F.gelu(self.text_embedder.linear_1(c), approximate="tanh"))


class DiT(nn.Module):
    """config: the dict of transformer/config.json."""

    def __init__(self, config):
        super().__init__()
        c = config
        width = c["num_attention_heads"] * c["attention_head_dim"]
        self.patch_embedding = nn.Conv3d(c["in_channels"], width, tuple(c["patch_size"]), tuple(c["patch_size"]))
        self.condition_embedder = Condition(width, c["freq_dim"], c["text_dim"])
        self.blocks = nn.ModuleList([Block(width, c["num_attention_heads"], c["ffn_dim"], c["eps"]) for _ in range(c["num_layers"])])
        self.proj_out = nn.Linear(width, c["out_channels"] * 4)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width ** 0.5)
        self.head, self.eps, self._rope = c["attention_head_dim"], c["eps"], {}
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Conv3d)):
                nn.init.xavier_uniform_(m.weight.flatten(1))
                nn.init.zeros_(m.bias)
        nn.init.normal_(self.condition_embedder.time_embedder.linear_1.weight, std=0.02)
        nn.init.normal_(self.condition_embedder.time_embedder.linear_2.weight, std=0.02)
        nn.init.zeros_(self.proj_out.weight)
        for b in self.blocks:                      # every block begins as a small step
            nn.init.normal_(b.attn2.to_out[0].weight, std=0.02)

    def rope(self, frames, rows, columns, device):
        key = (frames, rows, columns, str(device))
        if key not in self._rope:
            self._rope[key] = rope_tables(self.head, frames, rows, columns, device)
        return self._rope[key]

    def forward(self, x, t, text, rope, causal=False, tap=None):
        """x [B, 16, F, h, w] normalised latents, noised; t [B, F] in 0..1000; text [B, 64, 192]; rope: what rope() returns.
        Returns velocity [B, 16, F, h, w] float32, or (velocity, stream after block `tap`) when tap is given."""
        B, C, Fr, h, w = x.shape
        y = F.conv3d(x, self.patch_embedding.weight.to(x.dtype), self.patch_embedding.bias.to(x.dtype), stride=self.patch_embedding.stride).flatten(2).transpose(1, 2).float().contiguous()
        e, e0 = self.condition_embedder.time(t)
        c = self.condition_embedder.text(text)
        per = (h // 2) * (w // 2)
        blocks = [min(b + BLOCK, Fr) * per for b in range(0, Fr, BLOCK)] if causal else None
        kept = None
        for i, b in enumerate(self.blocks):
            y = b(y, c, e0, rope, blocks)
            if i == tap:
                kept = y
        shift, scale = (self.scale_shift_table[:, None].float() + e.float()[:, :, None]).unbind(2)
        y = F.layer_norm(y, (y.shape[-1],), eps=self.eps) * (1 + scale.repeat_interleave(per, 1)) + shift.repeat_interleave(per, 1)
        y = self.proj_out(y).float().view(B, Fr, h // 2, w // 2, 1, 2, 2, C).permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(B, C, Fr, h, w)
        return y if tap is None else (y, kept)


class Heads(nn.Module):
    """Training only. From tokens: which actor covers this token (or none), and the scene; from pooled text: every slot."""

    def __init__(self, width, text, actors, slots):
        super().__init__()
        self.token, self.place, self.slots = nn.Linear(width, actors + 1), nn.Linear(width, slots[2]), nn.ModuleList([nn.Linear(text, n) for n in slots])


def encode_text(encoder, ids):
    """encoder: UMT5EncoderModel; ids [B, 64] with zeros after the end mark. Returns [B, 64, 192], zero at the padding, as Wan feeds it."""
    mask = (ids != 0)
    return encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state * mask[..., None]


# -- sampling ------------------------------------------------------------------------------------------------------------------------
def table(steps, shift=3.0):
    """The scheduler's sigmas [steps + 1] and whole timesteps [steps], as diffusers' UniPC with flow sigmas makes them."""
    s = torch.linspace(1, 1 / 1000, steps + 1, dtype=torch.float64)[:-1]
    s = shift * s / (1 + (shift - 1) * s)
    if abs(float(s[0]) - 1) < 1e-6:
        s[0] -= 1e-6
    return torch.cat([s, torch.zeros(1, dtype=torch.float64)]).float(), (s * 1000).floor()


@torch.no_grad()
def sample(model, text, noise, steps=8, shift=3.0, guidance=1.0, empty=None, first=None):
    """noise [B, 16, F, h, w]; text [B, 64, 192]; empty: the text of "" when guidance is not 1; first [B, 16, 1, h, w]: a known first latent frame.
    Returns normalised latents. Euler on the scheduler's table."""
    x, rope = noise.clone(), model.rope(noise.shape[2], noise.shape[3] // 2, noise.shape[4] // 2, noise.device)
    sigma, times = table(steps, shift)
    for i in range(steps):
        t = torch.full((x.shape[0], x.shape[2]), float(times[i]), device=x.device)
        if first is not None:
            x[:, :, :1], t[:, 0] = first, 0.0
        v = model(x, t, text, rope)
        if guidance != 1.0:
            u = model(x, t, empty, rope)
            v = u + guidance * (v - u)
        x = x + (float(sigma[i + 1]) - float(sigma[i])) * v
    if first is not None:
        x[:, :, :1] = first
    return x


@torch.no_grad()
def roll(model, text, noise, steps=4, shift=3.0, window=9, first=None):
    """Block-causal generation. noise [B, 16, F, h, w], any F; blocks of BLOCK frames, each seeing at most `window` frames, itself included.
    Without a cache: the window is run again with the known frames at t = 0, which gives the same numbers as a cache as long as nothing was evicted.
    Positions are counted from the start of the window, so that no distance beyond the trained span occurs."""
    done = []
    for a in range(0, noise.shape[2], BLOCK):
        x = noise[:, :, a:a + BLOCK].clone()
        past = torch.cat(done, 2)[:, :, max(0, a + x.shape[2] - window) if a + x.shape[2] > window else 0:a] if done else x[:, :, :0]
        n = past.shape[2]
        rope = model.rope(n + x.shape[2], x.shape[3] // 2, x.shape[4] // 2, x.device)
        sigma, times = table(steps, shift)
        for i in range(steps):
            t = torch.zeros(x.shape[0], n + x.shape[2], device=x.device)
            t[:, n:] = float(times[i])
            if first is not None and a == 0:
                x[:, :, :1], t[:, 0] = first, 0.0
            v = model(torch.cat([past, x], 2), t, text, rope, causal=True)[:, :, n:]
            x = x + (float(sigma[i + 1]) - float(sigma[i])) * v
        done.append(x)
    return torch.cat(done, 2)
