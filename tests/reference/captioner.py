"""Golden of the shipped captioner: clips of the world, and what transformers says of them with assets/models/captioner.

    python3 captioner.py PACK      (the whole pack, from assets/training/gather.py and pack.py)

Three clips of 128x128 and two of 256x144, the first of a stream of their own whose captions have margins of one and more: H.264, so that a clip is a few KB, and two
ways to turn its colours into RGB differ by a value or two in a pixel.

    0.mp4 ..., captions.json: [{clip, text, truth, margin}]: margin is the least distance of the best logit from the second on the way
"""
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.video_utils import VideoMetadata

from common import GOLDEN, folder

ROOT = os.path.join(GOLDEN, "../..")
sys.path.insert(0, os.path.join(ROOT, "assets/training"))
import caption_text
import feed
from world import World

MODEL = os.path.join(ROOT, "assets/models/captioner")
FPS, KINDS = 12, ((128, 128, 17, 3), (256, 144, 33, 2))
QUESTION = "Describe this video."


def stories(world, size, frames):
    """Records and facts, without end."""
    teller = feed.teller_for(world.index, "teller", frames, *size, 96, True)
    for at in itertools.count():
        b = feed.draw(teller, "sheet", 900 + size[0], at, 1, None, {"second": 0.0})
        facts = b.pop("facts")[0]
        yield b, facts


def write_clip(path, clip):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "%dx%d" % clip.shape[2:0:-1], "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-crf", "20",
                    "-pix_fmt", "yuv420p", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1", path], input=clip.tobytes(), check=True)


def read_clip(path, h, w):
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, h, w, 3)


def caption(model, t, processor, clip):
    meta = VideoMetadata(total_num_frames=len(clip), fps=FPS)
    index = processor.sample_frames(meta, fps=4, min_frames=8, max_frames=8)
    meta.frames_indices = index.tolist()
    made = processor(videos=[torch.from_numpy(clip[index.numpy()]).permute(0, 3, 1, 2)], return_tensors="pt")
    grid = made["video_grid_thw"]
    talk = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    text = t.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    ids = t(text.replace("<|video_pad|>", "<|video_pad|>" * int(grid.prod() // 4)), add_special_tokens=False)["input_ids"]
    pad = t.convert_tokens_to_ids("<|video_pad|>")
    out = model.generate(input_ids=torch.tensor([ids]), mm_token_type_ids=torch.tensor([[2 * int(i == pad) for i in ids]]), pixel_values_videos=made["pixel_values_videos"],
                         video_grid_thw=grid, second_per_grid_ts=torch.tensor([len(clip) / FPS / len(index) * 2]), do_sample=False, max_new_tokens=64,
                         return_dict_in_generate=True, output_logits=True, pad_token_id=0)
    margin = min(float(top[0] - top[1]) for top in (x[0].float().topk(2).values for x in out.logits))
    return t.decode(out.sequences[0, len(ids):], skip_special_tokens=True), margin


if __name__ == "__main__":
    torch.use_deterministic_algorithms(False)
    path, world = folder("captioner"), World(sys.argv[1], "cpu", 6, 0, workers=0)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()
    with open(os.path.join(MODEL, "chat_template.json")) as f:
        t = PreTrainedTokenizerFast(tokenizer_file=os.path.join(MODEL, "tokenizer.json"), chat_template=json.load(f)["chat_template"])
    with open(os.path.join(MODEL, "video_preprocessor_config.json")) as f:
        processor = Qwen2VLVideoProcessor(**{k: v for k, v in json.load(f).items() if k not in ("fps", "min_frames", "max_frames")})
    rows = []
    for w, h, n, count in KINDS:
        for b, facts in stories(world, (w, h), n):
            name = "%d.mp4" % len(rows)
            x = world.render(b, h, w)[0][0]
            write_clip(os.path.join(path, name), ((x.permute(1, 2, 3, 0) + 1) * 127.5).round().byte().numpy())
            text, margin = caption(model, t, processor, read_clip(os.path.join(path, name), h, w))
            print(text, margin)
            if margin >= 1:
                rows.append({"clip": name, "text": text, "truth": caption_text.wording(facts), "margin": round(margin, 3)})
                count -= 1
            if not count:
                break
    with open(os.path.join(path, "captions.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
