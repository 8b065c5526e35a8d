"""Manifests of the shipped family: every tensor's name and shape as diffusers and transformers save them, with a scale that
keeps activations of order one. No activations are stored: the manifests let a seeded random model be made in the shipped
configuration where assets/models holds no trained weights, and check the names of those it holds.

    python shipped.py [MODEL_DIR]      MODEL_DIR: assets/models
"""
import os
import sys

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

import dit
import umt5
import vae
from common import GOLDEN
from fill import write_manifest

HERE = os.path.dirname(os.path.abspath(__file__))


def rows(model, rule):
    out = []
    for name, tensor in model.state_dict().items():
        if name == "encoder.embed_tokens.weight":  # the same tensor as shared.weight
            continue
        scale, offset = rule(name, tuple(tensor.shape))
        out.append((name, tuple(tensor.shape), scale, offset))
    return out


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", "..", "assets", "models")
    with torch.device("meta"):
        parts = {"transformer": (WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(source + "/transformer")), dit.rule),
                 "vae": (AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(source + "/vae")), vae.rule),
                 "text_encoder": (UMT5EncoderModel(UMT5Config.from_pretrained(source + "/text_encoder")), umt5.rule)}
    for part, (model, rule) in parts.items():
        folder = os.path.join(GOLDEN, "shipped", part)
        os.makedirs(folder, exist_ok=True)
        write_manifest(os.path.join(folder, "manifest.tsv"), rows(model, rule))


if __name__ == "__main__":
    main()
