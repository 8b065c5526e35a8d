"""Golden of diffusers' WanImageToVideoPipeline: Wan2.1 with 36 channels and CLIP tokens; (pipeline_flf2v.py) the same between
two pictures, with a position for each CLIP token; and (pipeline_i2v_known.py) with the first latent frame known at t = 0
(expand_timesteps), as the shipped family does. Names: see pipeline.py.
"""
import tempfile

import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image
from transformers import CLIPVisionModel

import clip
import dit_hd64
import dit_i2v
import pipeline as p
from common import folder

CASES = {
    "pipeline_i2v": (dict(shift=3.0, dit_changes=dit_i2v.CHANGES, vae_case="vae"), {}, dict(
        prompt="a fishing boat turns around beside the river", negative_prompt=p.NEGATIVE, height=32, width=48,
        num_frames=5, num_inference_steps=4, guidance_scale=5.0, max_sequence_length=512)),
    "pipeline_flf2v": (dict(shift=16.0, dit_changes=dict(dit_i2v.CHANGES, pos_embed_seq_len=34), vae_case="vae"), {}, dict(
        prompt="a red boat sails to the lighthouse", height=32, width=48, num_frames=9, num_inference_steps=4,
        guidance_scale=1.0, max_sequence_length=512)),
    "pipeline_i2v_known": (dict(shift=5.0, dit_changes=dit_hd64.CHANGES, vae_case="vae_shipped"),
                           dict(expand_timesteps=True), dict(
        prompt="a white cat jumps over a fence, wide shot", height=32, width=48, num_frames=9, num_inference_steps=4,
        guidance_scale=1.0, max_sequence_length=64)),
}

def make(case):
    known = case == "pipeline_i2v_known"
    parts, options, request = CASES[case]
    path = folder(case)
    parts = p.components(**parts)
    parts.update(dict(image_encoder=None, image_processor=None) if known else
                 dict(image_encoder=CLIPVisionModel(clip.config()), image_processor=clip.processor()))
    with tempfile.TemporaryDirectory() as tmp:
        p.save(WanImageToVideoPipeline(**parts, **options), path, tmp)
        pipes = p.reload(WanImageToVideoPipeline, tmp)
    io = {}
    io["prompt.ids"], io["prompt.embeds"] = p.embeds(pipes[0], request, request["prompt"])
    if "negative_prompt" in request:
        io["negative.ids"], io["negative.embeds"] = p.embeds(pipes[0], request, request["negative_prompt"])
    latents = p.init_latents(request["num_frames"], request["height"], request["width"])
    for name, height, width in [("a", 32, 48), ("b", 50, 61)]:
        codes = clip.picture("picture." + name, height, width)
        io[name + ".picture"] = torch.from_numpy(codes)
        extra = dict(image=Image.fromarray(codes))
        if case == "pipeline_flf2v":
            last = clip.picture("last." + name, height, width)
            io[name + ".last_picture"] = torch.from_numpy(last)
            extra["last_image"] = Image.fromarray(last)
        p.record(io, pipes, request, latents, name + ".", store_frames=name == "a", known=known, **extra)
    exact = io["a.picture"].permute(2, 0, 1).float() / 255 * 2 - 1
    assert (exact - io["a.pixels"]).abs().max() < 1e-6
    p.write(path, io, request)


if __name__ == "__main__":
    make("pipeline_i2v")
