"""Golden of the CLIP vision tower (transformers CLIPVisionModel, erf GELU) and of the two ways to feed it.

The manifest uses the names of released checkpoints, "vision_model.…"; transformers 5 itself saves them without prefix
and loads both.

io.safetensors
    picture.a        [70, 92, 3]    8-bit codes; larger than 56 x 56
    picture.b        [30, 44, 3]    smaller
    {a,b}.pil        [3, 56, 56]    CLIPImageProcessor on PIL: bicubic (a = -1/2, antialiased, 8-bit), shortest edge to
                                    56, centre crop 56, /255, mean and std
    a.wan            [3, 56, 56]    original Wan: codes/127.5 - 1, torch bicubic (a = -3/4, no antialias) straight to
                                    56 x 56, x/2 + 1/2, mean and std
    embeds           [17, 64]       class token and patches of a.pil, positions added
    pre              [17, 64]       after pre_layrnorm
    layer0..2        [17, 64]       layer2 = hidden_states[-2], what the pipelines use; layer 3 is never needed
    bf16_error.layer0..2 (fed), bf16_error.{embeds,pre}, bf16_error.whole.layer2
"""
import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from common import Tap, build, default_rule, error, fill, folder, write_io

PREFIX = "vision_model."


def config():
    return CLIPVisionConfig(hidden_size=64, num_attention_heads=4, intermediate_size=128, num_hidden_layers=4,
                            image_size=56, patch_size=14, hidden_act="gelu")


def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def rule(name, shape):
    if "position_embedding" in name:
        return 0.5, 0.0
    scale, offset = default_rule(name, shape)
    if name.endswith((".v_proj.weight", ".out_proj.weight", ".fc2.weight")):
        scale *= 1.5
    return scale, offset


def picture(name, height, width):
    """8-bit RGB: two slow waves, a hard-edged disc, some grain; [h, w, 3] uint8."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / width, y / height
    waves = np.stack([0.5 + 0.4 * np.sin(7 * u + 2 * v), 0.5 + 0.4 * np.cos(3 * u - 9 * v), 0.3 + 0.5 * u * v], -1)
    disc = ((u - 0.6) ** 2 + (v - 0.4) ** 2 < 0.05)[..., None]
    out = np.where(disc, np.array([0.95, 0.2, 0.1]), waves) + fill(name, (height, width, 3), 0.08)
    return np.clip(np.round(out * 255), 0, 255).astype(np.uint8)


def pil_pixels(codes):
    return processor()(images=Image.fromarray(codes), return_tensors="pt").pixel_values[0]


def wan_pixels(codes):
    p = processor()
    x = torch.from_numpy(codes).permute(2, 0, 1)[None].float() / 127.5 - 1
    x = torch.nn.functional.interpolate(x, size=(56, 56), mode="bicubic", align_corners=False, antialias=False)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (p.image_mean, p.image_std))
    return ((x * 0.5 + 0.5 - mean) / std)[0]


def run(model, pixels):
    tap = Tap()
    tap.out(model.embeddings, "embeds")
    tap.out(model.pre_layrnorm, "pre")
    for i, layer in enumerate(model.encoder.layers):
        tap.out(layer, "layer%d" % i, lambda o: o[0] if isinstance(o, tuple) else o)
    hidden = model(pixels[None].to(model.dtype), output_hidden_states=True).hidden_states[-2]
    tap.close()
    kept = {k: v[0][0] for k, v in tap.kept.items()}
    assert torch.equal(kept["layer2"], hidden[0].float())
    return kept


def fed(model, i, x):
    o = model.encoder.layers[i](x[None].to(model.dtype), attention_mask=None)
    return (o[0] if isinstance(o, tuple) else o)[0].float()


if __name__ == "__main__":
    path = folder("clip")
    full, half = build(CLIPVisionModel(config()), rule, path, PREFIX)
    processor().save_pretrained(path)
    a, b = picture("picture.a", 70, 92), picture("picture.b", 30, 44)
    io = {"picture.a": torch.from_numpy(a), "picture.b": torch.from_numpy(b), "a.pil": pil_pixels(a),
          "b.pil": pil_pixels(b), "a.wan": wan_pixels(a)}
    kept, low = run(full, io["a.pil"]), run(half, io["a.pil"])
    x = kept["pre"]
    for name in ("embeds", "pre"):
        io[name], io["bf16_error." + name] = kept[name], error(low[name], kept[name])
    for i in range(3):
        name = "layer%d" % i
        assert error(fed(full, i, x), kept[name]) < 1e-5
        io[name], io["bf16_error." + name] = kept[name], error(fed(half, i, x), kept[name])
        x = kept[name]
    io["bf16_error.whole.layer2"] = error(low["layer2"], kept["layer2"])
    write_io(path, io)
