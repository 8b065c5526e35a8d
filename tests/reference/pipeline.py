"""What the pipeline goldens (pipeline_*.py) share: a whole diffusers pipeline of the tiny components.

A golden folder holds model_index.json, each component's configs and manifest.tsv in its subfolder, request.json (the
arguments of the call) and io.safetensors:
    prompt.ids, negative.ids         [n]              after cleaning, </s> included, no padding
    prompt.embeds, negative.embeds   [n, 64]          real rows; the rest of max_sequence_length is zero
    latents.init                     [16, F, h, w]    given to the call
    timesteps                        [steps]
    velocity0                        [16, F, h, w]    first velocity, guidance applied
    latents.step<i>                  [16, F, h, w]    after step i
    frames                           [3, T, H, W]     decoder output before the clamp; the pipeline's own frames are
                                                      (clamp(frames, -1, 1) + 1) / 2
  image to video, <r> one picture, "a" of the target size, "b" not (no frames stored); the names above behind
  <r>., but for the prompts, latents.init and timesteps, which are shared:
    <r>.picture      [H, W, 3]       8-bit codes
    <r>.pixels       [3, H, W]       what the VAE gets as first frame: LANCZOS by PIL to the target size, [-1, 1]
    <r>.condition    [20, F, h, w]   channels 16..35 of the model's input: mask 4, picture latent 16
                     [16, 1, h, w]   known first frame: its normalised latent, put into frame 0 of every stored step
    <r>.clip_pixels  [3, 56, 56]     from the picture itself, not from its resized form
    <r>.image        [17, 64]        CLIP tokens
    bf16_error.latents, bf16_psnr.frames              text and image encoder and transformer in bfloat16, VAE float32
    bf16_psnr.frames.vae                              VAE in bfloat16 as well
"""
import json
import os

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from transformers import UMT5EncoderModel

import clip
import dit
import umt5
import vae
from common import Tap, copy_configs, error, fill_directory, filled, psnr, weight_files, write_io
from fill import write_manifest
from pipeline_tokenizer import tokenizer

NEGATIVE = "low quality， blurry"
RULES = {"text_encoder": umt5.rule, "transformer": dit.rule, "vae": vae.rule, "image_encoder": clip.rule}
PREFIXES = {"image_encoder": clip.PREFIX}


def components(shift, dit_changes, vae_case="vae"):
    return dict(tokenizer=tokenizer(), text_encoder=UMT5EncoderModel(umt5.config()),
                transformer=dit.model(**dit_changes), vae=AutoencoderKLWan(**vae.CONFIGS[vae_case]),
                scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                                  flow_shift=shift))


def save(pipe, path, tmp):
    """Saves and fills pipe under tmp, leaves its configs and manifests under path."""
    pipe.save_pretrained(tmp)
    copy_configs(tmp, path)
    for name in sorted(os.listdir(tmp)):
        sub = os.path.join(tmp, name)
        if os.path.isdir(sub):
            rows = fill_directory(sub, RULES[name], PREFIXES.get(name, "")) if weight_files(sub) else []
            copy_configs(sub, os.path.join(path, name))
            if rows:
                write_manifest(os.path.join(path, name, "manifest.tsv"), rows)


def init_latents(frames, height, width, name="input.latents"):
    return filled(name, (16, (frames - 1) // 4 + 1, height // 8, width // 8), dit.ROOT3)


def call(pipe, request, latents, known=False, **extra):
    """Runs the pipeline. known: the first latent frame is given; it is put into every stored latent."""
    tap = Tap()
    tap.out(pipe.vae.decoder, "frames")
    tap.into(pipe.transformer, "model_input")
    if getattr(pipe, "image_encoder", None) is not None:
        tap.into_named(pipe.image_encoder, "clip_pixels", "pixel_values")
        tap.into_named(pipe.transformer, "image", "encoder_hidden_states_image")
    steps, velocity, latent, pixels = [], [], [], []
    step = pipe.scheduler.step

    def spy(v, *a, **k):
        velocity.append(v[0].float().clone())
        return step(v, *a, **k)

    encode = pipe.vae.encode

    def spy_encode(x, *a, **k):
        out = encode(x, *a, **k)
        latent.append(out.latent_dist.mode()[0].float().clone())
        pixels.append(x[0, :, 0].float().clone())
        return out

    def after(_pipe, _i, _t, kept):
        steps.append(kept["latents"][0].float().clone())
        return kept

    pipe.scheduler.step, pipe.vae.encode = spy, spy_encode
    pipe.set_progress_bar_config(disable=True)
    arguments = {k: v for k, v in request.items() if k in ("prompt", "negative_prompt", "height", "width", "num_frames",
                                                           "num_inference_steps", "guidance_scale",
                                                           "max_sequence_length")}
    video = pipe(latents=latents[None].clone(), callback_on_step_end=after, output_type="np", **arguments, **extra).frames[0]
    pipe.scheduler.step, pipe.vae.encode = step, encode
    tap.close()
    frames = torch.cat(tap.kept["frames"], 2)[0]
    again = (frames.clamp(-1, 1) + 1) / 2
    if pipe.vae.dtype == torch.float32:
        assert (torch.from_numpy(video).permute(3, 0, 1, 2) - again).abs().max() < 1e-6
    kept = dict(steps=steps, velocity0=velocity[0], frames=frames, timesteps=pipe.scheduler.timesteps.clone())
    if latent:
        mean, std = vae.statistics(pipe.vae)
        kept["pixels"] = pixels[0]
        kept["condition"] = (latent[0] - mean) / std if known else tap["model_input"][0][16:]
        for key in ("clip_pixels", "image"):
            if key in tap.kept:
                kept[key] = tap[key][0]
    if known:
        for x in steps:
            x[:, :1] = kept["condition"]
    return kept


def embeds(pipe, request, text):
    x = pipe._get_t5_prompt_embeds(text, max_sequence_length=request["max_sequence_length"])[0].float()
    ids = torch.tensor(pipe.tokenizer(prompt_clean(text)).input_ids)
    assert (x[len(ids):] == 0).all()
    # transformers 5 rebuilds a T5Tokenizer's normalizer and pre-tokenizer in code and ignores those of tokenizer.json;
    # the golden must hold for a reader of the file too.
    assert tokenizer().backend_tokenizer.encode(prompt_clean(text)).ids == ids.tolist()
    return ids, x[:len(ids)]


def record(io, pipes, request, latents, prefix="", store_frames=True, known=False, **extra):
    """pipes: float32, bfloat16 with float32 VAE, bfloat16."""
    full = call(pipes[0], request, latents, known, **extra)
    io["latents.init"], io["timesteps"] = latents, full["timesteps"]
    io[prefix + "velocity0"] = full["velocity0"]
    for i, x in enumerate(full["steps"]):
        io["%slatents.step%d" % (prefix, i)] = x
    for name in ("pixels", "condition", "clip_pixels", "image"):
        if name in full:
            io[prefix + name] = full[name]
    if store_frames:
        io[prefix + "frames"] = full["frames"]
    low, lowest = (call(p, request, latents, known, **extra) for p in pipes[1:])
    io[prefix + "bf16_error.latents"] = error(low["steps"][-1], full["steps"][-1])
    io[prefix + "bf16_psnr.frames"] = psnr(low["frames"], full["frames"])
    io[prefix + "bf16_psnr.frames.vae"] = psnr(lowest["frames"], full["frames"])
    return full


def reload(cls, tmp):
    b = torch.bfloat16
    return [cls.from_pretrained(tmp, torch_dtype=torch.float32),
            cls.from_pretrained(tmp, torch_dtype={"default": b, "vae": torch.float32}),
            cls.from_pretrained(tmp, torch_dtype=b)]


def write(path, io, request):
    with open(os.path.join(path, "request.json"), "w", encoding="utf-8") as f:
        json.dump(request, f, ensure_ascii=False, indent=1)
        f.write("\n")
    write_io(path, io)
