"""Proves that the trainer's VAE is diffusers' VAE: the same names and shapes, and the same numbers as the chunked, cached run.

    python3 check_vae.py [CONFIG]        needs diffusers; CPU, seconds
"""
import json
import os
import sys

import torch

from vae import VAE, Causal


def main(path):
    from diffusers import AutoencoderKLWan
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with open(path) as f:
        config = json.load(f)
    theirs = AutoencoderKLWan.from_config(config).eval()
    ours = VAE(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():             # zero-initialised layers would hide errors
            p.copy_(torch.randn_like(p) * (0.7 / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 and p.shape[1] > 1 else 0.1) + (1.0 if p.dim() > 2 and p.shape[1] == 1 and p[0].numel() == 1 else 0.0))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    Causal.FORM = os.environ.get("VAE_FORM", Causal.FORM)
    x = torch.rand(1, 3, 17, 48, 32) * 2 - 1
    with torch.no_grad():
        a = theirs.encode(x).latent_dist
        mean, logvar = ours.encode(x)
        b = ours.decode(mean)
        c = theirs.decode(mean).sample
    rel = lambda p, q: float((p - q).abs().max() / q.abs().max())
    errors = {"mean": rel(mean, a.mean), "logvar": rel(logvar.clamp(-30, 20), a.logvar), "video": rel(b.clamp(-1, 1), c)}
    print("chunked against parallel, relative error:", {k: f"{v:.1e}" for k, v in errors.items()})
    if not all(v < 1e-4 for v in errors.values()):
        raise SystemExit("the parallel VAE differs from diffusers' chunked one")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models/vae/config.json"))
