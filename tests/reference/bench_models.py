"""The models that tests/bench_models.c times, and the same work in diffusers.

    python bench_models.py make DIR            DIR/dit: 4 layers of Wan 1.3B; DIR/vae: Wan 2.1 in full width; bf16, random
    python bench_models.py dit DIR [rounds [TxHxW...]]    diffusers, bf16, as many threads as cores; grids of latents as there
    python bench_models.py vae DIR [rounds [TxHxW...]]
"""
import os
import statistics
import sys
import time

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

torch.set_grad_enabled(False)


def randomise(model):
    generator = torch.Generator().manual_seed(5)
    for name, p in model.named_parameters():
        scale = 0.02 if p.ndim >= 2 else 0.1
        p.copy_(torch.randn(p.shape, generator=generator) * scale + (1.0 if "norm" in name and p.ndim != 2 else 0.0))
    return model.to(torch.bfloat16)


def make(folder):
    dit = WanTransformer3DModel(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=4)
    randomise(dit).save_pretrained(os.path.join(folder, "dit"))
    randomise(AutoencoderKLWan()).save_pretrained(os.path.join(folder, "vae"))


def timed(call, rounds):
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times), min(times), max(times)


def grids(texts, usual):
    return [tuple(map(int, text.split("x"))) for text in texts or usual]


def dit(folder, rounds, texts):
    model = WanTransformer3DModel.from_pretrained(os.path.join(folder, "dit"), torch_dtype=torch.bfloat16).eval()
    text = torch.randn(1, 512, 4096, dtype=torch.bfloat16)
    for grid in grids(texts, ("1x60x104", "3x60x104")):
        x = torch.randn(1, 16, *grid, dtype=torch.bfloat16)
        print("diffusers dit %d layers, %d tokens: %.4f s (%.4f to %.4f)"
              % ((model.config.num_layers, grid[0] * grid[1] * grid[2] // 4) +
                 timed(lambda: model(x, torch.tensor([500]), text, return_dict=False), rounds)), flush=True)


def vae(folder, rounds, texts):
    model = AutoencoderKLWan.from_pretrained(os.path.join(folder, "vae"), torch_dtype=torch.bfloat16).eval()
    for grid in grids(texts, ("5x16x16", "21x16x16")):
        z = torch.randn(1, 16, *grid, dtype=torch.bfloat16)
        print("diffusers vae decode %d frames of %dx%d: %.3f s (%.3f to %.3f)"
              % ((4 * grid[0] - 3, 8 * grid[2], 8 * grid[1]) + timed(lambda: model.decode(z, return_dict=False), rounds)),
              flush=True)


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    kind, folder = sys.argv[1:3]
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    {"make": lambda: make(folder), "dit": lambda: dit(folder, n, sys.argv[4:]),
     "vae": lambda: vae(folder, n, sys.argv[4:])}[kind]()
