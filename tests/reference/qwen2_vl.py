"""Golden of Qwen2-VL (transformers Qwen2VLForConditionalGeneration), tiny: the tower with layer norms and plain MLPs, positions of a clip
(one a step, however long it lasts), the decoder, greedy text. Inputs and names as in qwen2_5_vl.py, whose pictures and
prompts are used; grids a, c and prompts picture, two, video.
"""
import os
import tempfile

import numpy as np
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as processing

import common
import qwen2_5_vl as base
from common import Tap, error, filled, folder, write_io


def config():
    text = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
                vocab_size=base.VOCAB, max_position_embeddings=4096, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2,
                rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]}, tie_word_embeddings=False)
    vision = dict(depth=3, embed_dim=64, hidden_size=64, num_heads=4, mlp_ratio=2, patch_size=14)
    return Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=base.IMAGE, video_token_id=base.VIDEO,
                         vision_start_token_id=base.START, vision_end_token_id=base.END, tie_word_embeddings=False)


def build(path):
    cls = Qwen2VLForConditionalGeneration
    with tempfile.TemporaryDirectory() as tmp:
        cls(config()).save_pretrained(tmp)
        rows = common.fill_directory(tmp, base.rule)
        common.copy_configs(tmp, path)
        common.write_manifest(os.path.join(path, "manifest.tsv"), rows)
        models = [cls.from_pretrained(tmp, dtype=t, attn_implementation="eager").eval() for t in (torch.float32, torch.bfloat16)]
        loaded = sorted(float(x.double().sum()) for x in dict(models[0].named_parameters()).values())
        stored = sorted(float(filled(*r).double().sum()) for r in rows)
        assert np.allclose(loaded, stored, rtol=1e-9), "the library loaded something else"
    return models


def tower(model, g):
    tap, visual = Tap(), model.model.visual
    tap.out(visual.patch_embed, "embed")
    for i, block in enumerate(visual.blocks):
        tap.out(block, "block%d" % i, lambda o: o[0] if isinstance(o, tuple) else o)
    out = visual(base.patches(g).to(model.dtype), grid_thw=torch.tensor([base.GRIDS[g]]))
    tap.close()
    kept = {k: v[0] for k, v in tap.kept.items()}
    kept["merged"] = out.pooler_output.float()
    return kept


if __name__ == "__main__":
    torch.use_deterministic_algorithms(False)
    processor = processing.Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=12845056)
    base.PATCHES = processor(images=[base.Image.fromarray(base.picture())], return_tensors="pt")["pixel_values"]
    inputs = base.inputs
    base.inputs = lambda *a, **k: {n: x for n, x in inputs(*a, **k).items() if n != "second_per_grid_ts"}
    path = folder("qwen2_vl")
    full, half = build(path)
    processor.save_pretrained(path)
    io = {}
    for g in "ac":
        io[g + ".grid"] = torch.tensor(base.GRIDS[g])
        kept, low = tower(full, g), tower(half, g)
        for k, x in kept.items():
            io["%s.%s" % (g, k)] = x
            io["bf16_error.%s.%s" % (g, k)] = error(low[k], x)
    base.prompts(io, full, half, ("picture", "two", "video"), 64)
    write_io(path, io)
