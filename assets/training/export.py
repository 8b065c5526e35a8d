"""Writes the trained weights as the diffusers Wan directory that ships: bf16 safetensors in shards under 16 MiB, configs, tokenizer, genvid.json.

    python3 export.py --run DIR --out MODEL_DIR [--weights student.pt] [--only vae] [--note key=value ...]
"""
import argparse
import json
import os

import torch

import configs

SHARD = 15 << 20


def shards(tensors, folder, stem):
    """tensors: dict name -> tensor. Writes stem.safetensors, or stem-0000i-of-0000n.safetensors with an index."""
    from safetensors.torch import save_file
    tensors = {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in tensors.items()}
    groups, size = [[]], 0
    for k, v in tensors.items():
        b = v.numel() * 2
        if size + b > SHARD and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(k)
        size += b
    os.makedirs(folder, exist_ok=True)
    names = [f"{stem}.safetensors"] if len(groups) == 1 else [f"{stem}-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    for n, g in zip(names, groups):                # whole files only: a leg may be cut at any moment
        save_file({k: tensors[k] for k in g}, os.path.join(folder, n + ".part"), metadata={"format": "pt"})
        os.replace(os.path.join(folder, n + ".part"), os.path.join(folder, n))
    for f in os.listdir(folder):                   # shards of an earlier count
        if f.startswith(stem) and f not in names and not f.endswith("config.json"):
            os.remove(os.path.join(folder, f))
    if len(groups) > 1:
        with open(os.path.join(folder, f"{stem}.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {"total_size": sum(t.numel() * 2 for t in tensors.values())}, "weight_map": {k: n for n, g in zip(names, groups) for k in g}}, f, indent=0)


def read(folder):
    """All tensors of the shards in a folder: dict name -> bf16 tensor."""
    from safetensors.torch import load_file
    return {k: v for f in sorted(os.listdir(folder)) if f.endswith(".safetensors") for k, v in load_file(os.path.join(folder, f)).items()}


def write(run, out, weights="student.pt", only=None, **sidecar):
    """run: folder of a training run; without a VAE of its own, that of the shipped models is taken along. sidecar: fields of genvid.json."""
    shipped = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models/vae")
    if os.path.exists(os.path.join(run, "vae.pt")):
        with open(os.path.join(run, "vae.json")) as f:
            row = json.load(f)
        c = torch.load(os.path.join(run, "vae.pt"), map_location="cpu", weights_only=False)
        tensors = {**c["model"], **c["optimiser"]["average"]}
    else:
        with open(os.path.join(shipped, "config.json")) as f:
            row = json.load(f)
        tensors = read(shipped)
    stats = {"latents_mean": row["latents_mean"], "latents_std": row["latents_std"]}
    shards(tensors, os.path.join(out, "vae"), "diffusion_pytorch_model")
    trained = only != "vae"
    if trained:
        net = torch.load(os.path.join(run, weights), map_location="cpu")
        shards({k[4:]: v for k, v in net.items() if k.startswith("dit.")}, os.path.join(out, "transformer"), "diffusion_pytorch_model")
        shards({k[5:]: v for k, v in net.items() if k.startswith("text.")}, os.path.join(out, "text_encoder"), "model")
    configs.write(out, "trained" if trained else "random", stats, **sidecar)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--run", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--weights", default="student.pt")
    p.add_argument("--only")
    p.add_argument("--note", nargs="*", default=[])
    a = p.parse_args()
    write(a.run, a.out, a.weights, a.only, **{k: json.loads(v) for k, v in (n.split("=", 1) for n in a.note)})
