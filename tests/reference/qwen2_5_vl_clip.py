"""Golden of a clip's caption (transformers Qwen2VLVideoProcessor, which needs torchvision): which frames are looked at, what they are
brought to, and the greedy text, with the weights, tokenizer and template of qwen2_5_vl_caption.py. The clip is kept without
loss (FFV1, RGB), so that both sides see the same pixels; its seconds a grid step are no whole number.

    clip.mkv, video_preprocessor_config.json, request.json (question, text, new tokens)
    io.safetensors
    sizes     [n, 5]  height, width, frames of a clip, and what they are brought to within the reference's default limits
    sampled   [n, 6]  frames, frames a second, wanted a second; and how many are looked at, the index at a third, the last index
    frames    [4]     indices of the frames of clip.mkv that are looked at; seconds [1] a grid step; grid [3]
    patches   [n/4, 1176], every fourth; ids [n] (placeholders in their number); tokens, margin
"""
import json
import os
import subprocess

import numpy as np
import torch
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize
from transformers.video_utils import VideoMetadata

import qwen2_5_vl as base
import qwen2_5_vl_caption as still
from common import fill, folder, write_io

TOTAL, FPS, H, W, NEW = 30, 12, 61, 90, 64
QUESTIONS = still.QUESTIONS + ["What moves?", "Describe this video.", "How many are there?"]


def frames():
    """Smooth, so that it packs well, and no two alike."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)
    u = fill("clip", (6,), 0.5, 0.5)
    out = []
    for t in range(TOTAL):
        planes = [128 + 100 * np.sin(x * (0.05 + 0.1 * u[k]) + y * (0.04 + 0.1 * u[3 + k]) + t * (0.3 + 0.2 * k)) for k in range(3)]
        out.append(np.stack(planes, -1))
    return np.floor(np.stack(out)).astype(np.uint8)


def write_clip(path, clip):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "%dx%d" % (W, H), "-r", str(FPS), "-i", "-",
                    "-c:v", "ffv1", "-pix_fmt", "gbrp", "-fflags", "+bitexact", "-flags:v", "+bitexact", path],
                   input=clip.tobytes(), check=True)


def sampled():
    rows, p = [], Qwen2VLVideoProcessor()
    for total, fps, want in [(30, 12, 2), (100, 25, 2), (250, 25, 2), (10800, 60, 2), (10800, 60, 8), (77, 24, 2), (9, 30, 2), (3, 30, 2),
                             (1000, 50, 1), (999, 30, 3), (5000, 25, 4), (61, 60, 2), (451, 29.97, 2), (48000, 24, 2)]:
        index = p.sample_frames(VideoMetadata(total_num_frames=total, fps=fps), fps=want)
        rows.append((total, fps, want, len(index), int(index[len(index) // 3]), int(index[-1])))
    return torch.tensor(rows)


def sizes():
    p, rows = Qwen2VLVideoProcessor(), []
    for h, w, n in [(240, 320, 8), (480, 854, 24), (720, 1280, 60), (1080, 1920, 120), (1080, 1920, 360), (2160, 3840, 768), (61, 90, 4), (1000, 100, 16),
                    (1, 150, 4), (1440, 1080, 300)]:
        most = max(min(p.size["longest_edge"], int(p.max_video_tokens * 28 * 28 * 0.9) * 2 // n), int(p.size["shortest_edge"] * 1.05))
        rows.append((h, w, n) + smart_resize(h, w, 28, p.size["shortest_edge"], most))
    return torch.tensor(rows)


def prompt(t, question, tokens):
    talk = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    text = t.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    return t(text.replace("<|video_pad|>", "<|video_pad|>" * tokens), add_special_tokens=False)["input_ids"]


def caption(model, ids, made, seconds):
    model.model.rope_deltas = None
    call = {"input_ids": torch.tensor([ids]), "mm_token_type_ids": torch.tensor([[2 * int(i == base.VIDEO) for i in ids]]),
            "pixel_values_videos": made["pixel_values_videos"], "video_grid_thw": made["video_grid_thw"],
            "second_per_grid_ts": torch.tensor([seconds])}
    out = model.generate(**call, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, repetition_penalty=1.05,
                         return_dict_in_generate=True, output_scores=True, eos_token_id=None, pad_token_id=0)
    margin = min(float(top[0] - top[1]) for top in (x[0].float().topk(2).values for x in out.scores))
    return out.sequences[0, len(ids):], margin


if __name__ == "__main__":
    import tempfile
    torch.use_deterministic_algorithms(False)
    path = folder("qwen2_5_vl_clip")
    with tempfile.TemporaryDirectory() as tmp:
        full, _ = base.build(False, tmp)
        t = still.tokenizer(tmp)
    processor = Qwen2VLVideoProcessor(size={"shortest_edge": 3136, "longest_edge": 50176}, cap_pixels_per_frame=True)
    processor.save_pretrained(path)
    clip = frames()
    write_clip(os.path.join(path, "clip.mkv"), clip)
    meta = VideoMetadata(total_num_frames=TOTAL, fps=FPS)
    index = processor.sample_frames(meta, fps=2)
    meta.frames_indices = index.tolist()
    seconds = 2 / meta.sampled_fps
    made = processor(videos=[torch.from_numpy(clip[index.numpy()]).permute(0, 3, 1, 2)], return_tensors="pt")
    tried = []
    for question in QUESTIONS:
        ids = prompt(t, question, int(made["video_grid_thw"].prod()) // 4)
        tokens, margin = caption(full, ids, made, seconds)
        stops = [i for i in tokens.tolist() if i in (1000, 1006)]
        tried.append((not stops, margin, question, ids, tokens))
    _, margin, question, ids, tokens = max(tried, key=lambda x: x[:2])
    with open(os.path.join(path, "request.json"), "w") as f:
        json.dump({"question": question, "new": NEW, "text": t.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)}, f)
    write_io(path, {"sizes": sizes(), "sampled": sampled(), "frames": index, "seconds": torch.tensor([seconds]), "grid": made["video_grid_thw"][0],
                    "patches": made["pixel_values_videos"][::4], "ids": torch.tensor(ids), "tokens": tokens, "margin": torch.tensor([margin])})
