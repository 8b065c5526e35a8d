"""One set of random weights for genvid and stable-diffusion.cpp, in the layout that each reads. For tests/bench_peers.sh.

    python bench_peers.py DIR

    DIR/dit, DIR/vae     diffusers' names: what tests/bench_models.c opens
    DIR/sd-dit.safetensors, DIR/sd-vae.safetensors      the same bytes under Wan's names
    DIR/sd-umt5.gguf     one layer of a UMT5-XXL of zeros: stable-diffusion.cpp wants a text encoder; it is not measured

The shape is Wan2.1 T2V 1.3B's: stable-diffusion.cpp knows no other of that kind. 3.1 GB on the disk, twice.
"""
import json
import os
import pathlib
import re
import struct
import sys

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

RULES = [(r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
         (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
         (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
         (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
         (r"^condition_embedder\.time_proj", "time_projection.1"), (r"^scale_shift_table$", "head.modulation"),
         (r"^proj_out", "head.head"), (r"\.scale_shift_table$", ".modulation"), (r"\.attn1\.", ".self_attn."),
         (r"\.attn2\.", ".cross_attn."), (r"\.to_(q|k|v)\.", r".\1."), (r"\.to_out\.0\.", ".o."), (r"\.norm2\.", ".norm3."),
         (r"\.ffn\.net\.0\.proj\.", ".ffn.0."), (r"\.ffn\.net\.2\.", ".ffn.2.")]


def wan_dit(name):
    for rule, text in RULES:
        name = re.sub(rule, text, name)
    return name


def wan_vae():
    rows = pathlib.Path(__file__).parent / "golden" / "layouts" / "names.tsv"
    names = dict(line.rstrip("\n").split("\t")[1:3] for line in rows.open() if line.startswith("vae\t"))
    return lambda name: names.get(name, name)


def random_tensors(model):
    g = torch.Generator().manual_seed(5)
    for name, p in sorted(model.named_parameters()):
        gain = 1.0 if "norm" in name and p.ndim != 2 and name.endswith(("weight", "gamma")) else 0.0
        yield name, (torch.randn(p.shape, generator=g) * (0.02 if p.ndim >= 2 else 0.1) + gain).to(torch.bfloat16)


def header(names, shapes):
    entries, at = {}, 0
    for name, shape in zip(names, shapes):
        n = 2 * torch.Size(shape).numel()
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write(model, folder, peer, rename):
    os.makedirs(folder, exist_ok=True)
    model.save_config(folder)
    names = sorted(n for n, _ in model.named_parameters())
    shapes = [dict(model.named_parameters())[n].shape for n in names]
    with open(os.path.join(folder, "diffusion_pytorch_model.safetensors"), "wb") as ours, open(peer, "wb") as theirs:
        ours.write(header(names, shapes))
        theirs.write(header([rename(n) for n in names], shapes))
        for _, t in random_tensors(model):
            data = t.contiguous().view(torch.uint16).numpy().tobytes()
            ours.write(data)
            theirs.write(data)


def write_umt5(path):
    """One layer of UMT5-XXL; the peer counts layers. GGUF version 3: F32 norms, Q4_0 matrices (18 bytes for 32 numbers)."""
    tensors = [("shared.weight", (4096, 256384)), ("encoder.final_layer_norm.weight", (4096,))]
    for i in range(1):
        b = "encoder.block.%d.layer." % i
        tensors += [(b + "0.SelfAttention.%s.weight" % k, (4096, 4096)) for k in "qkvo"]
        tensors += [(b + "0.SelfAttention.relative_attention_bias.weight", (64, 32)), (b + "0.layer_norm.weight", (4096,)),
                    (b + "1.DenseReluDense.wi_0.weight", (4096, 10240)), (b + "1.DenseReluDense.wi_1.weight", (4096, 10240)),
                    (b + "1.DenseReluDense.wo.weight", (10240, 4096)), (b + "1.layer_norm.weight", (4096,))]
    infos, at = b"", 0
    for name, ne in tensors:
        plain = len(ne) == 1 or "relative" in name
        count = torch.Size(ne).numel()
        infos += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(ne)) + struct.pack("<%dQ" % len(ne), *ne)
        infos += struct.pack("<IQ", 0 if plain else 2, at)
        at += -(-(count * 4 if plain else count // 32 * 18) // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0) + infos
    head += b"\0" * (-len(head) % 32)
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(len(head) + at)


if __name__ == "__main__":
    out = sys.argv[1]
    with torch.device("meta"):
        dit = WanTransformer3DModel(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30)
        vae = AutoencoderKLWan()
    write(dit, os.path.join(out, "dit"), os.path.join(out, "sd-dit.safetensors"), wan_dit)
    write(vae, os.path.join(out, "vae"), os.path.join(out, "sd-vae.safetensors"), wan_vae())
    write_umt5(os.path.join(out, "sd-umt5.gguf"))
