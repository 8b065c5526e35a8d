"""Golden of LLaVA-OneVision (transformers LlavaOnevisionForConditionalGeneration), tiny: tiling, the SigLIP tower, packing, pooling, the
decoder, greedy text, and a whole caption with the checkpoint's chat template.

llava_onevision/io.safetensors
    sizes                [n, 5]    height, width, and with the published sizes what a picture is brought to and how many tokens it makes
    wide.patches         [25, 588] picture "wide" in three tiles, 25 patches each, every third; in a row channel, line, column
    wide.embed, .layer1..2 [75, 144], .projected [75, 64]
    wide.merged, big.merged, a.merged, clip.merged   the tokens: tiled (75 and more), shrunk ("big"), one of two, three frames
    {p}.ids, .tokens, .margin, .logits               p = wide, big, two, clip
    wide.layer.1..2      [n, 64]   of the decoder
    bf16_error.X         the whole model in bfloat16
Pictures are floor(fill(name, [h, w, 3], 0.5, 0.5) * 256).
    picture.png, tokenizer.json, chat_template.json, request.json: as qwen2_5_vl_caption.py
"""
import json
import os
import tempfile

import numpy as np
import torch
from PIL import Image
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor
from transformers.image_processing_utils import select_best_resolution

import common
import qwen2_5_vl as base
import qwen2_5_vl_caption as still
from common import Tap, default_rule, error, fill, filled, folder, write_io

IMAGE, VIDEO, VOCAB, TILE = 1001, 1002, 1024, 70
PINS = [[TILE * i, TILE * j] for i in range(1, 5) for j in range(1, 5)]
SIZES = {"wide": (60, 130), "big": (300, 260), "a": (90, 101), "b": (50, 40), "f0": (64, 90), "f1": (64, 90), "f2": (64, 90)}
HALF = [0.5, 0.5, 0.5]
# as the published chat_template.json renders one question
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}{# images, then clips, then text #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] }}{% endfor %}"
    "{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
ADDED = {"<|endoftext|>": 1000, "<image>": IMAGE, "<video>": VIDEO, "<|extra_0|>": 1003, "<|extra_1|>": 1004, "<|im_start|>": 1005, "<|im_end|>": 1006}
NEW = 64


def config():
    text = Qwen2Config(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128, vocab_size=VOCAB,
                       max_position_embeddings=4096, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
                       rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    vision = SiglipVisionConfig(hidden_size=144, intermediate_size=192, num_hidden_layers=3, num_attention_heads=2, image_size=TILE, patch_size=14,
                                vision_use_head=False)
    return LlavaOnevisionConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, video_token_index=VIDEO,
                                image_grid_pinpoints=PINS, vision_feature_layer=-1, tie_word_embeddings=False)


def rule(name, shape):
    if name.endswith("embed_tokens.weight") or name.endswith("lm_head.weight"):
        return 1.0, 0.0
    if name.endswith("position_embedding.weight"):
        return 0.5, 0.0
    if name.endswith("image_newline"):
        return 1.0, 0.0
    return default_rule(name, shape)


def publish_names(file):
    """The tower under the name that the published files have; this version saves it without vision_model and reads both."""
    old = common.load_file(file)
    common.save_file({k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in old.items()}, file, metadata={"format": "pt"})


def build(path):
    cls = LlavaOnevisionForConditionalGeneration
    with tempfile.TemporaryDirectory() as tmp:
        cls(config()).save_pretrained(tmp)
        publish_names(os.path.join(tmp, "model.safetensors"))
        rows = common.fill_directory(tmp, rule)
        common.copy_configs(tmp, path)
        common.write_manifest(os.path.join(path, "manifest.tsv"), rows)
        models = [cls.from_pretrained(tmp, dtype=t, attn_implementation="eager").eval() for t in (torch.float32, torch.bfloat16)]
        loaded = sorted(float(x.double().sum()) for x in dict(models[0].named_parameters()).values())
        stored = sorted(float(filled(*r).double().sum()) for r in rows)
        assert np.allclose(loaded, stored, rtol=1e-9), "the library loaded something else"
    return models


def picture(name):
    return np.floor(fill(name, SIZES[name] + (3,), 0.5, 0.5) * 256).astype(np.uint8)


def image_inputs(names):
    made = PROCESSOR(images=[[Image.fromarray(picture(n)) for n in names]], return_tensors="pt")
    return {"pixel_values": made["pixel_values"], "image_sizes": torch.tensor(made["image_sizes"]), "batch_num_images": torch.tensor([len(names)])}


def clip_inputs():
    frames = torch.stack([torch.from_numpy(picture("f%d" % i)).permute(2, 0, 1) for i in range(3)])
    return {"pixel_values_videos": VIDEOS(videos=[frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]}


def features(model, call):
    cast = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in call.items()}
    if "pixel_values" in call:
        return list(model.model.get_image_features(**cast).pooler_output)
    return [model.model.get_video_features(**cast).pooler_output[0]]


CASES = {"wide": ["wide"], "big": ["big"], "two": ["a", "b"], "clip": None}


def call_of(p):
    return clip_inputs() if p == "clip" else image_inputs(CASES[p])


def prompt(p, seed, counts):
    name = "prompt.llava.%s.%d" % (p, seed)
    ids = base.text(name, 5)
    for i, n in enumerate(counts):
        ids += [VIDEO if p == "clip" else IMAGE] * n + base.text(name + ".%d" % i, 3 + i)
    return ids


def greedy(model, ids, call, n, penalty=1.0):
    call = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in call.items()}
    out = model.generate(input_ids=torch.tensor([ids]), **call, do_sample=False, max_new_tokens=n, min_new_tokens=n, return_dict_in_generate=True,
                         output_scores=True, eos_token_id=None, pad_token_id=0, repetition_penalty=penalty)
    margin = min(float(top[0] - top[1]) for top in (x[0].float().topk(2).values for x in out.scores))
    return out.sequences[0, len(ids):], margin


def decode(model, ids, call):
    call = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in call.items()}
    tap = Tap()
    for i, layer in enumerate(model.model.language_model.layers):
        tap.out(layer, "layer.%d" % i, lambda o: o[0] if isinstance(o, tuple) else o)
    out = model(input_ids=torch.tensor([ids]), **call)
    tap.close()
    kept = {k: v[0].squeeze(0) for k, v in tap.kept.items()}
    kept["logits"] = out.logits[0, -1].float()
    return kept


def tower(model, call):
    tap, m = Tap(), model.model
    flat = lambda o: (o[0] if isinstance(o, tuple) else o).flatten(0, 1)
    vision = getattr(m.vision_tower, "vision_model", m.vision_tower)
    tap.out(vision.embeddings, "embed", flat)
    for i, layer in enumerate(vision.encoder.layers):
        tap.out(layer, "layer%d" % i, flat)
    tap.out(m.multi_modal_projector, "projected", flat)
    features(model, call)
    tap.close()
    return {k: v[0] for k, v in tap.kept.items() if k != "layer0"}


def sizes():
    real = LlavaOnevisionImageProcessorPil()
    p = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    p.image_processor, p.num_image_tokens, p.vision_aspect_ratio = real, 729, "anyres_max_9"
    rows, u = [], fill("llava.sizes", (150, 2), 0.5, 0.5)
    for a, b in u.tolist() + [(0.5, 0.5)]:
        h, w = int(10 ** (1.3 + 2.3 * a)), int(10 ** (1.3 + 2.3 * b))
        if max(h, w) / min(h, w) > 100:
            continue
        rows.append((h, w) + tuple(select_best_resolution((h, w), real.image_grid_pinpoints)) + (p._get_number_of_features(h, w, 384, 384),))
    return torch.tensor(rows)


def caption(path, full):
    t = tokenizer(path)
    tried = []
    call = image_inputs(["wide"])
    n = features(full, call)[0].shape[0]
    for question in still.QUESTIONS:
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text = t.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        ids = t(text.replace("<image>", "<image>" * n), add_special_tokens=False)["input_ids"]
        tokens, margin = greedy(full, ids, call, NEW)
        tried.append((not [i for i in tokens.tolist() if i in (1000, 1006)], margin, question, ids, tokens))
    _, margin, question, ids, tokens = max(tried, key=lambda x: x[:2])
    Image.fromarray(picture("wide")).save(os.path.join(path, "picture.png"), optimize=True)
    with open(os.path.join(path, "chat_template.json"), "w") as f:
        json.dump({"chat_template": TEMPLATE}, f, indent=2)
    with open(os.path.join(path, "generation_config.json"), "w") as f:
        json.dump({"eos_token_id": [1006, 1000]}, f, indent=2)
    with open(os.path.join(path, "request.json"), "w") as f:
        json.dump({"question": question, "new": NEW, "text": t.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)}, f)
    return {"caption.ids": torch.tensor(ids), "caption.margin": torch.tensor([margin])}


def tokenizer(path):
    added, template = still.ADDED, still.TEMPLATE
    still.ADDED, still.TEMPLATE = ADDED, TEMPLATE
    made = still.tokenizer(path)
    still.ADDED, still.TEMPLATE = added, template
    return made


if __name__ == "__main__":
    torch.use_deterministic_algorithms(False)
    path = folder("llava_onevision")
    full, half = build(path)
    PROCESSOR = LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, image_grid_pinpoints=PINS, image_mean=HALF, image_std=HALF)
    VIDEOS = LlavaOnevisionVideoProcessor(size={"height": TILE, "width": TILE}, image_mean=HALF, image_std=HALF)
    PROCESSOR.save_pretrained(path)
    io = {"sizes": sizes()}
    call = call_of("wide")
    tiles = call["pixel_values"][0]
    io["wide.patches"] = tiles.reshape(-1, 3, 5, 14, 5, 14).permute(0, 2, 4, 1, 3, 5).reshape(-1, 588)[::3]
    kept, low = tower(full, call), tower(half, call)
    for k, x in kept.items():
        io["wide." + k] = x
        io["bf16_error.wide." + k] = error(low[k], x)
    for p in CASES:
        call = call_of(p)
        made, rough = features(full, call), features(half, call)
        for name, x, y in zip(CASES[p] or ["clip"], made, rough):
            io[name + ".merged"], io["bf16_error.%s.merged" % name] = x, error(y, x)
        tried = []
        for seed in range(40):
            ids = prompt(p, seed, [len(x) for x in made])
            tokens, margin = greedy(full, ids, call, NEW)
            tried.append((len(set(tokens.tolist())) > 8, margin, seed, tokens, ids))
        _, margin, _, tokens, ids = max(tried, key=lambda t: t[:2])  # a text that only repeats one token says little
        io[p + ".ids"], io[p + ".tokens"], io[p + ".margin"] = torch.tensor(ids), tokens, torch.tensor([margin])
        kept, low = decode(full, ids, call), decode(half, ids, call)
        for k, x in kept.items():
            if k == "logits" or (p == "wide" and k != "layer.0"):
                io["%s.%s" % (p, k)], io["bf16_error.%s.%s" % (p, k)] = x, error(low[k], x)
    io.update(caption(path, full))
    write_io(path, io)
