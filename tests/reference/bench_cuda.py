"""Wan's transformer in plain PyTorch on a GPU, eager and compiled, with cuDNN's attention: what tests/bench_models.c is measured
beside there. No diffusers, so that it runs where only PyTorch is. Shapes and order of operations as in diffusers'
transformer_wan.py (0.35): norms, rotation and modulation in f32, products and attention in bf16.

    python bench_cuda.py make DIR NAME [layers]   DIR/NAME: config and random bf16 weights, NAME 1.3b or 14b
    python bench_cuda.py time NAME LAYERS ROUNDS TxHxW... [--go FILE --done FILE]

Its forward was compared by shape on a CPU only; the timing has not run on a GPU yet.

--go: compile and warm up, then wait for FILE before timing; --done: make FILE behind the last line. H and W count latents.
"""
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

torch.set_grad_enabled(False)
WIDTHS = {"1.3b": (12, 8960, 30), "14b": (40, 13824, 40)}
HEAD, TEXT, FREQ, CHANNELS = 128, 4096, 256, 16


def weights(name, layers, device="cpu"):
    heads, ffn, _ = WIDTHS[name]
    d = heads * HEAD
    shapes = {"patch_embedding.weight": (d, CHANNELS, 1, 2, 2), "scale_shift_table": (1, 2, d), "proj_out.weight": (4 * CHANNELS, d)}
    embedder = "condition_embedder."
    for part, n, m in (("time_embedder.linear_1", d, FREQ), ("time_embedder.linear_2", d, d), ("time_proj", 6 * d, d),
                       ("text_embedder.linear_1", d, TEXT), ("text_embedder.linear_2", d, d)):
        shapes[embedder + part + ".weight"] = (n, m)
    for i in range(layers):
        b = f"blocks.{i}."
        for a in ("attn1", "attn2"):
            for p in ("to_q", "to_k", "to_v", "to_out.0"):
                shapes[f"{b}{a}.{p}.weight"] = (d, d)
            shapes[f"{b}{a}.norm_q.weight"] = shapes[f"{b}{a}.norm_k.weight"] = (d,)
        shapes[b + "ffn.net.0.proj.weight"], shapes[b + "ffn.net.2.weight"] = (ffn, d), (d, ffn)
        shapes[b + "norm2.weight"], shapes[b + "scale_shift_table"] = (d,), (1, 6, d)
    generator = torch.Generator(device=device).manual_seed(5)
    made = {}
    for key, shape in shapes.items():
        one = len(shape) == 1
        made[key] = torch.randn(shape, generator=generator, device=device) * (0.1 if one else 0.02) + (1.0 if one else 0.0)
        if key.endswith(".weight") and ("norm_" not in key):
            made[key[:-6] + "bias"] = torch.randn(shape[:1], generator=generator, device=device) * 0.02
    return {k: v.to(torch.bfloat16).contiguous() for k, v in made.items()}


def make(folder, name, layers):
    from safetensors.torch import save_file
    heads, ffn, all_layers = WIDTHS[name]
    layers = layers or all_layers
    to = os.path.join(folder, name)
    os.makedirs(to, exist_ok=True)
    config = {"_class_name": "WanTransformer3DModel", "num_attention_heads": heads, "attention_head_dim": HEAD, "ffn_dim": ffn,
              "num_layers": layers, "in_channels": CHANNELS, "out_channels": CHANNELS, "text_dim": TEXT, "freq_dim": FREQ,
              "patch_size": [1, 2, 2], "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": 1e-6,
              "rope_max_seq_len": 1024, "image_dim": None, "added_kv_proj_dim": None, "pos_embed_seq_len": None}
    with open(os.path.join(to, "config.json"), "w") as f:
        json.dump(config, f)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = {k: v.cpu() for k, v in weights(name, layers, device).items()}
    save_file(made, os.path.join(to, "diffusion_pytorch_model.safetensors"))


def rotate(x, cos, sin):
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def rms(x, w):
    return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * w


def attend(w, p, x, kv, heads, rope=None):
    q = rms(F.linear(x, w[p + "to_q.weight"], w[p + "to_q.bias"]), w[p + "norm_q.weight"])
    k = rms(F.linear(kv, w[p + "to_k.weight"], w[p + "to_k.bias"]), w[p + "norm_k.weight"])
    v = F.linear(kv, w[p + "to_v.weight"], w[p + "to_v.bias"])
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
    if rope:
        q, k = rotate(q, *rope), rotate(k, *rope)
    o = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return F.linear(o.transpose(1, 2).flatten(2), w[p + "to_out.0.weight"], w[p + "to_out.0.bias"])


def block(w, x, text, mod, rope, heads):
    d = x.shape[-1]
    s0, c0, g0, s1, c1, g1 = (w["scale_shift_table"].float() + mod).chunk(6, 1)
    h = (F.layer_norm(x.float(), (d,), eps=1e-6) * (1 + c0) + s0).to(x.dtype)
    x = (x.float() + attend(w, "attn1.", h, h, heads, rope).float() * g0).to(x.dtype)
    h = F.layer_norm(x.float(), (d,), w["norm2.weight"].float(), w["norm2.bias"].float(), 1e-6).to(x.dtype)
    x = x + attend(w, "attn2.", h, text, heads)
    h = (F.layer_norm(x.float(), (d,), eps=1e-6) * (1 + c1) + s1).to(x.dtype)
    h = F.gelu(F.linear(h, w["ffn.net.0.proj.weight"], w["ffn.net.0.proj.bias"]), approximate="tanh")
    h = F.linear(h, w["ffn.net.2.weight"], w["ffn.net.2.bias"])
    return (x.float() + h.float() * g1).to(x.dtype)


def forward(w, blocks, x, t, text, rope, heads):
    """x [1, 16, T, H, W] bf16 → the same, the whole of one step."""
    T, H, W = x.shape[2], x.shape[3] // 2, x.shape[4] // 2
    e = "condition_embedder."
    freq = torch.exp(-torch.arange(FREQ // 2, device=x.device) * (9.210340371976184 / (FREQ // 2)))
    angle = t[:, None].float() * freq
    temb = F.linear(torch.cat((angle.cos(), angle.sin()), -1).to(x.dtype), w[e + "time_embedder.linear_1.weight"], w[e + "time_embedder.linear_1.bias"])
    temb = F.linear(F.silu(temb), w[e + "time_embedder.linear_2.weight"], w[e + "time_embedder.linear_2.bias"])
    mod = F.linear(F.silu(temb), w[e + "time_proj.weight"], w[e + "time_proj.bias"]).unflatten(1, (6, -1)).float()
    text = F.gelu(F.linear(text, w[e + "text_embedder.linear_1.weight"], w[e + "text_embedder.linear_1.bias"]), approximate="tanh")
    text = F.linear(text, w[e + "text_embedder.linear_2.weight"], w[e + "text_embedder.linear_2.bias"])
    x = F.conv3d(x, w["patch_embedding.weight"], w["patch_embedding.bias"], stride=(1, 2, 2)).flatten(2).transpose(1, 2)
    for b in blocks:
        x = block(b, x, text, mod, rope, heads)
    shift, scale = (w["scale_shift_table"].float() + temb.float()[:, None]).chunk(2, 1)
    x = (F.layer_norm(x.float(), x.shape[-1:], eps=1e-6) * (1 + scale) + shift).to(x.dtype)
    x = F.linear(x, w["proj_out.weight"], w["proj_out.bias"])
    return x.view(1, T, H, W, 1, 2, 2, CHANNELS).permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(1, CHANNELS, T, 2 * H, 2 * W)


def rope_of(T, H, W, device):
    """cos, sin [1, tokens, 1, 64] f32; the head's 128 are 44 for t and 42 each for h and w."""
    parts = []
    for axis, (n, size) in enumerate(((T, 44), (H, 42), (W, 42))):
        f = 1.0 / 10000 ** (torch.arange(0, size, 2, device=device).double() / size)
        shape = [1, 1, 1, size // 2]
        shape[axis] = n
        parts.append((torch.arange(n, device=device).double()[:, None] * f).view(shape).expand(T, H, W, -1))
    angle = torch.cat(parts, -1).reshape(1, T * H * W, 1, -1)
    return angle.cos().float(), angle.sin().float()


def clock(call, rounds):
    times = []
    for _ in range(rounds):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        call()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b))
    return statistics.median(times), min(times), max(times)


def measure(name, layers, rounds, grids, go, done):
    heads = WIDTHS[name][0]
    w = weights(name, layers, "cuda")
    blocks = [{k[len(f"blocks.{i}."):]: v for k, v in w.items() if k.startswith(f"blocks.{i}.")} for i in range(layers)]
    calls = []
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        for T, H, W in grids:
            x = torch.randn(1, CHANNELS, T, H, W, device="cuda", dtype=torch.bfloat16)
            text = torch.randn(1, 512, TEXT, device="cuda", dtype=torch.bfloat16)
            args = (w, blocks, x, torch.tensor([500.0], device="cuda"), text, rope_of(T, H // 2, W // 2, "cuda"), heads)
            fast = torch.compile(block, dynamic=False)

            def compiled(args=args, fast=fast):
                global block
                kept, block = block, fast
                try:
                    return forward(*args)
                finally:
                    block = kept
            for kind, call in (("eager", lambda args=args: forward(*args)), ("compile", compiled)):
                call(), call()
                torch.cuda.synchronize()
                calls.append((kind, T * H * W // 4, call))
        print("warm", flush=True)
        while go and not os.path.exists(go):
            time.sleep(0.05)
        for kind, tokens, call in calls:
            n = rounds if tokens > 8192 else 4 * rounds
            torch.cuda.reset_peak_memory_stats()
            call()
            print("PyTorch %s %s, %d layers, %d tokens: %.2f ms (%.2f to %.2f), peak %d MiB"
                  % ((torch.__version__, kind, layers, tokens) + clock(call, n) + (torch.cuda.max_memory_allocated() >> 20,)), flush=True)
    if done:
        open(done, "w").close()


if __name__ == "__main__":
    argv = sys.argv[1:]
    flags = {}
    for flag in ("--go", "--done"):
        if flag in argv:
            i = argv.index(flag)
            flags[flag] = argv[i + 1]
            del argv[i:i + 2]
    if argv[0] == "make":
        make(argv[1], argv[2], int(argv[3]) if len(argv) > 3 else 0)
    else:
        measure(argv[1], int(argv[2]), int(argv[3]), [tuple(map(int, g.split("x"))) for g in argv[4:]], flags.get("--go"), flags.get("--done"))
