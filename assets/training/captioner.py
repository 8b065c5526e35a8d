"""The captioner: Qwen2.5-VL's layout at two million parameters, in plain PyTorch, so that it trains where transformers is not installed. Tensors have the
published names; genvid and transformers read what train_captioner.py writes (its logits equal transformers' to 1e-6).

A clip is eight frames, two to a step; every block of the tower sees its whole step; tokens stand at (time, row, column) as pipelines do it. Names of the
modules are those of the checkpoint, which is why some read oddly. Three positions a second and not the published two: the steps of a clip of a second and
a half would else share one. The sum over a clip stays in float32 under autocast; all else follows it.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

PATCH, MERGE, STEP, PACE = 14, 2, 2, 3               # pixels; patches a side of a token; frames of a step; positions a second
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VISION = dict(depth=4, hidden_size=128, num_heads=4, intermediate_size=320, out_hidden_size=160, patch_size=PATCH, temporal_patch_size=STEP, spatial_merge_size=MERGE,
              window_size=112, fullatt_block_indexes=[0, 1, 2, 3], tokens_per_second=PACE, hidden_act="silu", in_channels=3)
TEXT = dict(hidden_size=160, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=320, max_position_embeddings=4096, rms_norm_eps=1e-6,
            rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=True)
SECTION = (6, 7, 7)                                  # of the 20 pairs of a head: time, row, column


class Norm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return F.rms_norm(x.float(), x.shape[-1:], self.weight, 1e-6)


def turn(x, cos, sin):
    """x [B, A, N, D]; cos, sin [.., N, D/2], as x: pairs are halves."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Gated(nn.Module):
    def __init__(self, d, f, bias):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(d, f, bias), nn.Linear(d, f, bias), nn.Linear(f, d, bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Look(nn.Module):
    """A block of the tower. x [steps, n, d]."""

    def __init__(self, d, heads, f):
        super().__init__()
        self.heads, self.norm1, self.norm2, self.mlp = heads, Norm(d), Norm(d), Gated(d, f, True)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(d, 3 * d), "proj": nn.Linear(d, d)})

    def forward(self, x, cos, sin):
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        cos, sin = cos.type_as(q), sin.type_as(q)
        y = F.scaled_dot_product_attention(turn(q, cos, sin), turn(k, cos, sin), v)
        x = x + self.attn["proj"](y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Tower(nn.Module):
    def __init__(self, d, heads, f, depth, out):
        super().__init__()
        self.head = d // heads
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, d, (STEP, PATCH, PATCH), (STEP, PATCH, PATCH), bias=False)})
        self.blocks = nn.ModuleList(Look(d, heads, f) for _ in range(depth))
        cell = d * MERGE * MERGE
        self.merger = nn.ModuleDict({"ln_q": Norm(d), "mlp": nn.Sequential(nn.Linear(cell, cell), nn.GELU(), nn.Linear(cell, out))})

    def forward(self, x):
        """x [B, 3, T, H, W], normalised; H, W multiples of 28. Returns [B, T/2, H/28, W/28, out]."""
        x = x.unflatten(4, (-1, PATCH)).unflatten(3, (-1, PATCH)).unflatten(2, (-1, STEP)).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        x = F.linear(x, self.patch_embed["proj"].weight.flatten(1)).float()             # a convolution whose windows do not overlap is a product
        B, T, h, w, d = x.shape
        rate = 10000.0 ** (-torch.arange(self.head // 4, device=x.device) * 4.0 / self.head)
        y, z = torch.meshgrid(torch.arange(h, device=x.device), torch.arange(w, device=x.device), indexing="ij")
        angle = torch.cat([y.reshape(-1, 1) * rate, z.reshape(-1, 1) * rate], 1)
        x = x.reshape(B * T, h * w, d)
        for block in self.blocks:
            x = block(x, angle.cos(), angle.sin())
        x = self.merger["ln_q"](x).view(B, T, h // MERGE, MERGE, w // MERGE, MERGE, d).permute(0, 1, 2, 4, 3, 5, 6).flatten(4)
        return self.merger["mlp"](x)


class Layer(nn.Module):
    def __init__(self, d, heads, kv, f):
        super().__init__()
        h = d // heads
        self.heads, self.kv = heads, kv
        self.input_layernorm, self.post_attention_layernorm, self.mlp = Norm(d), Norm(d), Gated(d, f, False)
        self.self_attn = nn.ModuleDict({"q_proj": nn.Linear(d, d), "k_proj": nn.Linear(d, kv * h), "v_proj": nn.Linear(d, kv * h), "o_proj": nn.Linear(d, d, False)})

    def forward(self, x, cos, sin):
        y, a = self.input_layernorm(x), self.self_attn
        q = a["q_proj"](y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (a[n](y).unflatten(-1, (self.kv, -1)).transpose(1, 2).repeat_interleave(self.heads // self.kv, 1) for n in ("k_proj", "v_proj"))
        cos, sin = cos.type_as(q), sin.type_as(q)
        y = F.scaled_dot_product_attention(turn(q, cos, sin), turn(k, cos, sin), v, is_causal=True)
        x = x + a["o_proj"](y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.post_attention_layernorm(x))


class Captioner(nn.Module):
    def __init__(self, vocabulary, vision=VISION, text=TEXT):
        super().__init__()
        d = text["hidden_size"]
        self.visual = Tower(vision["hidden_size"], vision["num_heads"], vision["intermediate_size"], vision["depth"], d)
        layers = [Layer(d, text["num_attention_heads"], text["num_key_value_heads"], text["intermediate_size"]) for _ in range(text["num_hidden_layers"])]
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(vocabulary, d), "layers": nn.ModuleList(layers), "norm": Norm(d)})
        self.rate = [text["rope_theta"] ** (-2.0 * i / (d // text["num_attention_heads"])) for i in range(sum(SECTION))]
        nn.init.normal_(self.model["embed_tokens"].weight, std=0.05)

    def places(self, grid, seconds, before, after, device):
        """[3, n]: `before` tokens of text, the clip, `after` more. grid (T, h, w) of tokens; seconds from step to step."""
        T, h, w = grid
        t = torch.floor(torch.arange(T, dtype=torch.float64) * seconds * PACE).long()
        clip = torch.stack(torch.meshgrid(t, torch.arange(h), torch.arange(w), indexing="ij")).flatten(1) + before
        begin = int(clip.max()) + 1
        text = lambda n, at: (torch.arange(n) + at).expand(3, -1)
        return torch.cat([text(before, 0), clip, text(after, begin)], 1).to(device)

    def forward(self, seen, before, after, seconds, kept=None):
        """seen: what the tower gives, [B, T, h, w, d]; before [n] ids in front of the clip, after [B, m] behind it; kept [B, k]: the clip's tokens that are
        read, ascending, or all. Returns the last states of the tokens behind the clip, [B, m, d]; see say()."""
        table, d = self.model["embed_tokens"], seen.shape[-1]
        B, T, h, w, _ = seen.shape
        place, n = self.places((T, h, w), seconds, len(before), after.shape[1], seen.device), len(before)
        axis = torch.repeat_interleave(torch.arange(3), torch.tensor(SECTION)).to(seen.device)
        angle, clip = place[axis].T * torch.tensor(self.rate, device=seen.device), seen.flatten(1, 3)
        if kept is not None:
            clip = clip.gather(1, kept[..., None].expand(-1, -1, d))
            angle = torch.cat([angle[:n].expand(B, -1, -1), angle[n:n + T * h * w][kept], angle[n + T * h * w:].expand(B, -1, -1)], 1)[:, None]
        x = torch.cat([table(before).expand(B, -1, -1).float(), clip.float(), table(after).float()], 1)
        for layer in self.model["layers"]:
            x = layer(x, angle.cos(), angle.sin())
        return self.model["norm"](x[:, -after.shape[1]:])

    def say(self, x):
        """States → logits of the next token."""
        return F.linear(x, self.model["embed_tokens"].weight)
