"""Proves that what export.py writes is what diffusers and transformers load, and that their pipeline makes the same frames as the trainer's sampler.

Without weights in the model directory it makes random ones in a temporary copy, so it can run before any training.
    python3 check_models.py [MODEL_DIR]        needs diffusers and transformers; CPU, under a minute
"""
import json
import os
import shutil
import sys
import tempfile

import torch

import configs
import export
from dit import DiT, sample
from text import TextEncoder
from tokenizer import Pieces
from vae import VAE


def fill(model, seed):
    """Random weights without zeros, so that no layer can hide."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.5 / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 else 0.05))
    return model


def complete(folder, scratch):
    """A copy of the model directory in which missing weights are random ones."""
    shutil.copytree(folder, scratch, dirs_exist_ok=True)
    for name, make, stem in (("vae", lambda: VAE(configs.VAE), "diffusion_pytorch_model"), ("transformer", lambda: DiT(configs.TRANSFORMER), "diffusion_pytorch_model"),
                             ("text_encoder", lambda: TextEncoder(configs.TEXT), "model")):
        if not any(f.endswith(".safetensors") for f in os.listdir(os.path.join(scratch, name))):
            export.shards(fill(make(), 3).state_dict(), os.path.join(scratch, name), stem)
            print(f"{name}: no weights in {folder}, random ones here")
    return scratch


def main(folder):
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import AutoTokenizer, UMT5EncoderModel
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        m = complete(folder, scratch)
        with open(os.path.join(m, "vae/config.json")) as f:
            vc = json.load(f)
        ours = {"transformer": DiT(configs.TRANSFORMER), "text_encoder": TextEncoder(configs.TEXT), "vae": VAE(vc)}
        for n, model in ours.items():
            model.load_state_dict({k: v.float() for k, v in export.read(os.path.join(m, n)).items()}, strict=True)
            model.eval()
        theirs, info = {}, {}
        for n, c in (("transformer", WanTransformer3DModel), ("vae", AutoencoderKLWan)):
            theirs[n], info[n] = c.from_pretrained(m, subfolder=n, torch_dtype=torch.float32, output_loading_info=True)
        theirs["text_encoder"], info["text_encoder"] = UMT5EncoderModel.from_pretrained(m, subfolder="text_encoder", dtype=torch.float32, output_loading_info=True)
        for n, i in info.items():
            bad = [k for k in i["missing_keys"] if "embed_tokens" not in k] + list(i["unexpected_keys"])
            if bad:
                raise SystemExit(f"{n}: missing or unexpected {bad[:5]}")
        tok = AutoTokenizer.from_pretrained(os.path.join(m, "tokenizer"))
        prompt = "a red car drives to the left in the city at night"
        ids = torch.from_numpy(Pieces(os.path.join(m, "tokenizer")).encode([prompt]))
        if tok(prompt, padding="max_length", max_length=64, truncation=True).input_ids != ids[0].tolist():
            raise SystemExit("the tokenizers disagree")
        with torch.no_grad():
            text = ours["text_encoder"](ids)
            other = theirs["text_encoder"](ids, (ids != 0).long()).last_hidden_state * (ids != 0)[..., None]
            rel = lambda a, b: float((a - b).abs().max() / b.abs().max())
            errors = {"text": rel(text, other)}
            noise = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
            z = sample(ours["transformer"], text, noise, 8)
            video = ours["vae"].decode(ours["vae"].denormalise(z)).clamp(-1, 1)
            pipe = WanPipeline(tokenizer=tok, text_encoder=theirs["text_encoder"], transformer=theirs["transformer"], vae=theirs["vae"],
                               scheduler=UniPCMultistepScheduler.from_pretrained(m, subfolder="scheduler"), expand_timesteps=True)
            pipe.set_progress_bar_config(disable=True)
            out = pipe(prompt=prompt, height=64, width=64, num_frames=9, num_inference_steps=8, guidance_scale=1.0, latents=noise, max_sequence_length=64, output_type="pt").frames[0]
            out = out.permute(1, 0, 2, 3)[None] * 2 - 1
            errors["frames"] = float((out - video).abs().max() / 2)
        print("relative error:", {k: f"{v:.1e}" for k, v in errors.items()})
        if errors["text"] > 1e-4 or errors["frames"] > 2e-3:
            raise SystemExit("the exported model is not what was trained")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../models"))
