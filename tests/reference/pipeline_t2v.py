"""Golden of diffusers' WanPipeline, text to video, and (pipeline_t2v_expand.py) of the shipped family's form: head_dim 64,
its VAE widths, 64 text rows, one timestep a token, no guidance. Names: see pipeline.py.
"""
import tempfile

from diffusers import WanPipeline

import dit_hd64
import pipeline as p
from common import folder

CASES = {
    "pipeline_t2v": (dict(shift=3.0, dit_changes={}, vae_case="vae"), {}, dict(
        prompt="a red fox runs to the left  in the snow，wide shot &amp; soft light", negative_prompt=p.NEGATIVE,
        height=32, width=48, num_frames=9, num_inference_steps=4, guidance_scale=5.0, max_sequence_length=512)),
    "pipeline_t2v_expand": (dict(shift=5.0, dit_changes=dit_hd64.CHANGES, vae_case="vae_shipped"),
                            dict(expand_timesteps=True), dict(
        prompt="two horses walk in a green forest", height=48, width=32, num_frames=9, num_inference_steps=4,
        guidance_scale=1.0, max_sequence_length=64)),
}

def make(case):
    parts, options, request = CASES[case]
    path = folder(case)
    io = {}
    with tempfile.TemporaryDirectory() as tmp:
        p.save(WanPipeline(**p.components(**parts), **options), path, tmp)
        pipes = p.reload(WanPipeline, tmp)
    io["prompt.ids"], io["prompt.embeds"] = p.embeds(pipes[0], request, request["prompt"])
    if "negative_prompt" in request:
        io["negative.ids"], io["negative.embeds"] = p.embeds(pipes[0], request, request["negative_prompt"])
    p.record(io, pipes, request, p.init_latents(request["num_frames"], request["height"], request["width"]))
    p.write(path, io, request)


if __name__ == "__main__":
    make("pipeline_t2v")
