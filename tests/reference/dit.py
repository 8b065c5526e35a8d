"""What the DiT goldens (dit_*.py) share. Library: diffusers WanTransformer3DModel.

Names in io.safetensors, <r> one run ("a", "b", ...), N tokens in the order frame, row, column, D the width:
    <r>.x             [C, F, h, w]     latent
    <r>.t             [1] or [N]       timestep, one for all or one a token
    <r>.text          [n, text_dim]    real rows; rows n.. to text_len are zero, and attended
    <r>.image         [m, image_dim]   CLIP tokens (dit_i2v)
    <r>.patch_embed   [N, D]
    <r>.temb          [D] or [G, D]    time embedding before time_proj; per-token runs store one row a distinct t,
    <r>.timestep_proj [6, D] or [G, 6, D]      in the order of <r>.groups [G]
    <r>.text_embed    [n + 1, D]       the last row is that of every padding row
    <r>.image_embed   [m, D]
    <r>.block0.self, .cross [N, D]     residual stream after self-attention, after cross-attention
    <r>.block<i>      [N, D]
    <r>.out           [C, F, h, w]
    bf16_error.<r>.block<i>            block fed the golden input
    bf16_error.<r>.head                out, head fed the last golden block
    bf16_error.<r>.{patch_embed,temb,timestep_proj,text_embed,image_embed}   as in a whole run
    bf16_error.whole.<r>.block<i>, .out
"""
import torch
from diffusers import WanTransformer3DModel

from common import Tap, default_rule, error


def model(**changes):
    config = dict(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=128, in_channels=16, out_channels=16,
                  text_dim=64, freq_dim=256, ffn_dim=512, num_layers=3, cross_attn_norm=True,
                  qk_norm="rms_norm_across_heads", eps=1e-6, image_dim=None, added_kv_proj_dim=None,
                  rope_max_seq_len=1024)
    config.update(changes)
    return WanTransformer3DModel(**config)


def rule(name, shape):
    """Sharper attention and larger updates than the default, so that a wrong rotation or key shows in the output."""
    scale, offset = default_rule(name, shape)
    if ".norm_q." in name or ".norm_k." in name or ".norm_added_k." in name:
        return 0.3, 1.5
    if name.endswith((".to_v.weight", ".add_v_proj.weight", ".to_out.0.weight", ".ffn.net.2.weight")):
        scale *= 1.5
    return scale, offset


def padded(rows, length):
    return torch.cat([rows, rows.new_zeros(length - rows.shape[0], rows.shape[1])])


def run(m, x, t, text, text_len, image=None):
    """One forward; every activation float32, all padding rows of the text embedding included."""
    tap = Tap()
    tap.out(m.patch_embedding, "patch_embed", lambda o: o[0].flatten(1).T)
    ce = m.condition_embedder
    tap.out(ce, "temb", lambda o: o[0][0])
    tap.out(ce, "timestep_proj", lambda o: o[1][0].unflatten(-1, (6, -1)))
    tap.out(ce.text_embedder, "text_embed", lambda o: o[0])
    if image is not None:
        tap.out(ce.image_embedder, "image_embed", lambda o: o[0])
    tap.into(m.blocks[0].norm2, "block0.self")
    tap.into(m.blocks[0].norm3, "block0.cross")
    for i, block in enumerate(m.blocks):
        tap.out(block, "block%d" % i, lambda o: o[0])
    out = m(hidden_states=x[None].to(m.dtype), timestep=t if t.numel() == 1 else t[None],
            encoder_hidden_states=padded(text, text_len)[None].to(m.dtype),
            encoder_hidden_states_image=None if image is None else image[None].to(m.dtype), return_dict=False)[0]
    tap.close()
    kept = {k: v[0] for k, v in tap.kept.items()}
    kept["block0.self"], kept["block0.cross"] = kept["block0.self"][0], kept["block0.cross"][0]
    kept["out"] = out[0].float()
    return kept


def fed_block(m, i, kept, x_shape):
    """Block i of m, given what it was given in kept."""
    d = m.dtype
    x = kept["patch_embed" if i == 0 else "block%d" % (i - 1)]
    context = kept["text_embed"]
    if "image_embed" in kept:
        context = torch.cat([kept["image_embed"], context])
    rope = m.rope(torch.empty(1, *x_shape))
    return m.blocks[i](x[None].to(d), context[None].to(d), kept["timestep_proj"][None].to(d), rope)[0].float()


def fed_head(m, kept, x_shape):
    d = m.dtype
    x = kept["block%d" % (len(m.blocks) - 1)][None].to(d)
    temb = kept["temb"][None].to(d)
    if temb.ndim == 3:
        shift, scale = (m.scale_shift_table[None] + temb[:, :, None]).unbind(2)
    else:
        shift, scale = (m.scale_shift_table + temb[:, None]).chunk(2, dim=1)
    y = m.proj_out((m.norm_out(x.float()) * (1 + scale) + shift).to(d))[0].float()
    _, f, h, w = x_shape
    return y.reshape(f, h // 2, w // 2, 2, 2, -1).permute(5, 0, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def record(io, r, full, half, x, t, text, text_len, image=None, keep=None):
    """Runs both models and adds run r to io; keep names the activations stored, all when None."""
    kept, low = (run(m, x, t, text, text_len, image) for m in (full, half))
    io[r + ".x"], io[r + ".t"], io[r + ".text"] = x, t.float(), text
    if image is not None:
        io[r + ".image"] = image
    n = text.shape[0]
    pad = kept["text_embed"][n:]
    assert (pad - pad[0]).abs().max() < 1e-6
    stored = dict(kept, text_embed=kept["text_embed"][:n + 1])
    if t.numel() > 1:
        groups = torch.unique(t)
        rows = [int((t == g).nonzero()[0]) for g in groups]
        io[r + ".groups"] = groups
        stored["temb"], stored["timestep_proj"] = kept["temb"][rows], kept["timestep_proj"][rows]
    for name, value in stored.items():
        if keep is None or name in keep:
            io["%s.%s" % (r, name)] = value
    wanted = lambda name: keep is None or name in keep
    for name in ("patch_embed", "temb", "timestep_proj", "text_embed", "image_embed"):
        if name in kept and wanted(name):
            io["bf16_error.%s.%s" % (r, name)] = error(low[name], kept[name])
    for i in range(len(full.blocks)):
        name = "block%d" % i
        assert error(fed_block(full, i, kept, x.shape), kept[name]) < 1e-5
        if wanted(name):
            io["bf16_error.%s.%s" % (r, name)] = error(fed_block(half, i, kept, x.shape), kept[name])
            io["bf16_error.whole.%s.%s" % (r, name)] = error(low[name], kept[name])
    assert error(fed_head(full, kept, x.shape), kept["out"]) < 1e-5
    if keep is None:
        io["bf16_error.%s.head" % r] = error(fed_head(half, kept, x.shape), kept["out"])
    io["bf16_error.whole.%s.out" % r] = error(low["out"], kept["out"])


def token_times(x, t, known):
    """[N]: 0 for tokens of the first `known` latent frames, t for the others."""
    _, f, h, w = x.shape
    times = torch.full((f, h // 2, w // 2), float(t))
    times[:known] = 0
    return times.flatten()


ROOT3 = 3.0 ** 0.5  # a counter tensor of this scale has variance 1
