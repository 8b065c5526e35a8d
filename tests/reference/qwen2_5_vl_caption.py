"""Golden of a whole caption: a picture file, a chat template and a question to text (transformers), with the weights and the
config of qwen2_5_vl.py. The tokenizer is that of tests/golden/tokenizer cut to 1000 pieces; the template is written here, to
Qwen2.5-VL's format. The text is greedy with a repetition penalty of 1.05, as the published generation_config.json asks for.

    picture.png, tokenizer.json, chat_template.json, generation_config.json, request.json (question, text, new tokens)
    io.safetensors: ids (placeholders in their number), tokens, margin
"""
import json
import os

import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as processing

import qwen2_5_vl as base
from common import GOLDEN, folder, write_io

ADDED = {"<|endoftext|>": 1000, "<|image_pad|>": base.IMAGE, "<|video_pad|>": base.VIDEO, "<|vision_start|>": base.START,
         "<|vision_end|>": base.END, "<|im_start|>": 1005, "<|im_end|>": 1006}
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif c.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
QUESTIONS = ["What is in the picture?", "Describe this image.", "Who is there, and what do they do?", "Which colours are seen?",
             "Is it day or night?", "What happens here?"]
NEW = 64


def tokenizer(path):
    with open(os.path.join(GOLDEN, "tokenizer", "qwen.json"), encoding="utf-8") as f:
        t = json.load(f)
    t["model"]["vocab"] = {k: v for k, v in t["model"]["vocab"].items() if v < 1000}
    pair = lambda m: m if isinstance(m, list) else m.split(" ")
    t["model"]["merges"] = [m for m in t["model"]["merges"] if all(p in t["model"]["vocab"] for p in pair(m) + ["".join(pair(m))])]
    one = t["added_tokens"][0]
    t["added_tokens"] = [dict(one, id=i, content=c) for c, i in ADDED.items()]
    file = os.path.join(path, "tokenizer.json")
    with open(file, "w", encoding="utf-8") as f:
        json.dump(t, f, ensure_ascii=False)
    assert all(Tokenizer.from_file(file).token_to_id(c) == i for c, i in ADDED.items())
    return PreTrainedTokenizerFast(tokenizer_file=file, chat_template=TEMPLATE)


def prompt(t, question, image_tokens):
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = t.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    return t(text.replace("<|image_pad|>", "<|image_pad|>" * image_tokens), add_special_tokens=False)["input_ids"]


def caption(model, ids, patches, grid):
    model.model.rope_deltas = None
    call = {"input_ids": torch.tensor([ids]), "mm_token_type_ids": torch.tensor([[int(i == base.IMAGE) for i in ids]]),
            "pixel_values": patches, "image_grid_thw": grid}
    out = model.generate(**call, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, repetition_penalty=1.05,
                         return_dict_in_generate=True, output_scores=True, eos_token_id=None, pad_token_id=0)
    margin = min(float(top[0] - top[1]) for top in (x[0].float().topk(2).values for x in out.scores))
    return out.sequences[0, len(ids):], margin


if __name__ == "__main__":
    torch.use_deterministic_algorithms(False)
    path = folder("qwen2_5_vl_caption")
    full, _ = base.build(False, path)
    t = tokenizer(path)
    processor = processing.Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=12845056)
    processor.save_pretrained(path)
    picture = Image.fromarray(base.picture())
    picture.save(os.path.join(path, "picture.png"), optimize=True)
    made = processor(images=[picture], return_tensors="pt")
    tried = []
    for question in QUESTIONS:
        ids = prompt(t, question, int(made["image_grid_thw"].prod()) // 4)
        tokens, margin = caption(full, ids, made["pixel_values"], made["image_grid_thw"])
        stops = [i for i in tokens.tolist() if i in (1000, 1006)]
        tried.append((not stops, margin, question, ids, tokens))
    _, margin, question, ids, tokens = max(tried, key=lambda x: x[:2])
    with open(os.path.join(path, "chat_template.json"), "w") as f:
        json.dump({"chat_template": TEMPLATE}, f, indent=2)
    with open(os.path.join(path, "generation_config.json"), "w") as f:
        json.dump({"do_sample": True, "eos_token_id": [1006, 1000], "repetition_penalty": 1.05, "temperature": 0.000001}, f, indent=2)
    with open(os.path.join(path, "request.json"), "w") as f:
        json.dump({"question": question, "new": NEW, "text": t.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)}, f)
    write_io(path, {"ids": torch.tensor(ids), "tokens": tokens, "margin": torch.tensor([margin])})
