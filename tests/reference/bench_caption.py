"""The models that tests/bench_caption.c times, and the same work in transformers.

    python bench_caption.py make DIR [layers [blocks]]       Qwen2.5-VL-3B with so many of its 36 decoder layers and 32 blocks of the tower;
                                                             every width, the heads and the vocabulary as published; bf16, random
    python bench_caption.py captioner DIR                    the shipped captioner's configuration, random
    python bench_caption.py run DIR [rounds [tokens ...]]    transformers, bf16, on the GPU if there is one, else as many threads as cores:
                                                             prefill of so many embedded tokens (1024 if none), decoding behind the first
                                                             number of them, the tower on PATCHES patches (1024, 12288 on a GPU)
"""
import json
import os
import statistics
import sys
import time

import torch

torch.set_grad_enabled(False)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 16
PATCHES = (128, 96) if DEVICE == "cuda" else (32, 32)
SHARD = 2 << 30


def config(layers, blocks):
    from transformers import Qwen2_5_VLConfig
    text = dict(hidden_size=2048, num_hidden_layers=layers, num_attention_heads=16, num_key_value_heads=2, intermediate_size=11008, vocab_size=151936,
                max_position_embeddings=128000, rms_norm_eps=1e-6, bos_token_id=151643, eos_token_id=151645, tie_word_embeddings=True,
                rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]})
    vision = dict(depth=blocks, hidden_size=1280, num_heads=16, intermediate_size=3420, patch_size=14, window_size=112, out_hidden_size=2048,
                  fullatt_block_indexes=[i for i in (7, 15, 23, 31) if i < blocks], tokens_per_second=2)
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=151655, video_token_id=151656, vision_start_token_id=151652,
                            vision_end_token_id=151653, tie_word_embeddings=True)


def make(folder, layers, blocks):
    """Shards are written one by one, from one block of random numbers: a model need not fit in memory twice."""
    from safetensors.torch import save_file
    from transformers import Qwen2_5_VLForConditionalGeneration as Model
    with torch.device("meta"):
        model = Model(config(layers, blocks))
    os.makedirs(folder, exist_ok=True)
    model.config.save_pretrained(folder)
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as f:
        json.dump({"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
                   "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}, f)
    noise = (torch.randn(1 << 25, generator=torch.Generator().manual_seed(5)) * 0.02).to(torch.bfloat16)
    shards, bytes_, index, at = [{}], 0, {}, 0
    for name, p in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        n, at = p.numel(), (at + 7919) % noise.numel()
        x = noise.roll(-at).repeat(-(-n // noise.numel()))[:n].reshape(p.shape).clone()
        if "norm" in name or "ln_q" in name:
            x = x + 1
        if bytes_ + 2 * n > SHARD:
            write_shard(folder, shards, index, save_file)
            bytes_ = 0
        shards[-1][name], bytes_ = x, bytes_ + 2 * n
    write_shard(folder, shards, index, save_file)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": index}, f)


def write_shard(folder, shards, index, save_file):
    name = "model-%05d.safetensors" % len(shards)
    save_file(shards[-1], os.path.join(folder, name), metadata={"format": "pt"})
    index.update({k: name for k in shards[-1]})
    shards[-1] = None
    shards.append({})


def captioner(folder):
    training = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../assets/training")
    sys.path.insert(0, training)
    import captioner
    import train_captioner
    options = train_captioner.options(["--pack", "", "--out", folder])
    words = train_captioner.Words(options.tokenizer, "cpu")
    torch.manual_seed(5)
    train_captioner.export(captioner.Captioner(words.t.get_vocab_size()), words, folder, options)


def timed(call, rounds):
    times = []
    for i in range(rounds + 1):
        began = time.perf_counter()
        call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    times = sorted(times[1:])
    return statistics.median(times), times[0], times[-1]


def run(folder, rounds, tokens):
    from transformers import Qwen2_5_VLForConditionalGeneration as Model
    model = Model.from_pretrained(folder, dtype=torch.bfloat16).to(DEVICE).eval()
    lm, head, what = model.model.language_model, model.lm_head, "transformers, %d layers" % model.config.text_config.num_hidden_layers
    kept = {}

    def prefill(x):
        kept["cache"] = None  # the last one's memory
        out = lm(inputs_embeds=x, use_cache=True)
        kept["cache"] = out.past_key_values
        return head(out.last_hidden_state[:, -1:])

    def decode():
        for _ in range(STEPS):
            out = lm(input_ids=torch.tensor([[7]], device=DEVICE), past_key_values=kept["cache"], use_cache=True)
            int(head(out.last_hidden_state)[0, -1].argmax())

    for n in tokens:
        x = torch.randn(1, n, lm.config.hidden_size, generator=torch.Generator().manual_seed(3)).to(DEVICE, torch.bfloat16) * 0.02
        print("%s, prefill of %d tokens: %.4f s (%.4f to %.4f)" % ((what, n) + timed(lambda: prefill(x), rounds)), flush=True)
        if n == tokens[0]:
            t = timed(decode, rounds)
            print("%s, decode behind %d tokens: %.2f ms a token, %.2f tokens/s" % (what, n, 1e3 * t[0] / STEPS, STEPS / t[0]), flush=True)
    kept.clear()
    tower, (h, w) = model.model.visual, PATCHES
    patches = torch.randn(h * w, 1176, generator=torch.Generator().manual_seed(3)).to(DEVICE, torch.bfloat16)
    grid = torch.tensor([[1, h, w]], device=DEVICE)
    print("transformers, %d blocks of the tower, %d patches: %.4f s (%.4f to %.4f)"
          % ((len(tower.blocks), h * w) + timed(lambda: tower(patches, grid_thw=grid), rounds)), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    kind, folder = sys.argv[1:3]
    numbers = [int(x) for x in sys.argv[3:]]
    if kind == "make":
        make(folder, *(numbers + [36, 32][len(numbers):]))
    elif kind == "captioner":
        captioner(folder)
    else:
        run(folder, numbers[0] if numbers else 3, numbers[1:] or [1024])
