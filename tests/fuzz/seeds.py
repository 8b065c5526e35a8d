#!/usr/bin/env python3
"""Makes tests/fuzz/corpus: small, valid inputs where no golden file is one. Files that the search found stay beside them.

    python3 tests/fuzz/seeds.py
"""
import json
import os
import re
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden")


def save(noun, name, data):
    folder = os.path.join(HERE, "corpus", noun)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def read(*path):
    with open(os.path.join(GOLDEN, *path), "rb") as f:
        return f.read()


# ---- safetensors ----

BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8}


def safetensors(tensors, metadata=None):
    """tensors: name → (type, shape, bytes or None for zeros)"""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (kind, shape, content) in tensors.items():
        n = BYTES[kind]
        for d in shape:
            n *= d
        content = bytes(n) if content is None else content
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensors():
    save("tensors", "plain.safetensors", safetensors({"b": ("F32", [2, 3], None), "a": ("BF16", [4], None)}, {"format": "pt"}))
    save("tensors", "types.safetensors", safetensors({f"x.{k}": (k, [2], None) for k in BYTES}))
    save("tensors", "empty.safetensors", safetensors({"none": ("F32", [0, 7], None), "one": ("F32", [], None)}))


# ---- parts in Wan's own names ----

def names(family):
    rows = [line.split("\t") for line in read("layouts", "names.tsv").decode().splitlines()]
    return {ours: theirs for kind, ours, theirs in rows if kind == family}


def manifest(*path):
    rows = [line.split("\t") for line in read(*path, "manifest.tsv").decode().splitlines()]
    return {row[0].replace("vision_model.", ""): [int(d) for d in row[1].split(",")] for row in rows}


def part(file, family, shapes, smaller):
    """The golden's tensors with every size replaced by a small one; of layers, the first."""
    out = {}
    for ours, theirs in names(family).items():
        shape = shapes.get(ours) or shapes.get(ours.replace("vision_model.", ""))
        if shape and not re.match(r"(blocks|encoder.block)\.[1-9]", ours):
            out.setdefault(theirs, ("BF16", smaller(ours, shape), None))
    save("checkpoint", file, safetensors(out))


def table(sizes):
    return lambda name, shape: [sizes.get(d, d) for d in shape]


def thin_vae(name, shape):
    """A sixteenth of the golden's channels, but for the latents, whose statistics are built in."""
    latents = {"decoder.conv_in.weight": [4, 16], "encoder.conv_out.weight": [32, 4], "encoder.conv_out.bias": [32],
               "quant_conv.weight": [32, 32], "quant_conv.bias": [32], "post_quant_conv.weight": [16, 16],
               "post_quant_conv.bias": [16]}
    fixed = latents.get(name, [])
    return fixed + [d // 16 if d >= 16 else d for d in shape[len(fixed):]]


def checkpoint():
    sizes = {256: 16, 512: 24, 1536: 96, 128: 8, 64: 8, 192: 24, 36: 4, 16: 4}
    part("dit", "dit", manifest("pipeline_t2v", "transformer"), table(sizes))
    part("dit_i2v", "dit", manifest("pipeline_i2v", "transformer"), table(sizes))
    part("umt5", "umt5", manifest("pipeline_t2v", "text_encoder"), table({64: 8, 128: 16, 4: 2}))
    part("vae", "vae", manifest("pipeline_t2v", "vae"), thin_vae)


# ---- spiece.model ----

def varint(n):
    out = b""
    while True:
        out += bytes([n & 0x7F | (0x80 if n > 0x7F else 0)])
        n >>= 7
        if not n:
            return out


def block(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(field, n):
    return varint(field << 3) + varint(n)


def spiece():
    pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("\u2581", -2, 1), ("\u2581a", -3, 1), ("\u2581red", -4, 1),
              ("fox", -4, 1), ("f", -6, 1), ("o", -6, 1), ("x", -6, 1), ("<own>", 0, 4), ("snow", -5, 5)]
    pieces += [(f"<0x{i:02X}>", 0, 6) for i in range(256)]
    body = b"".join(block(1, block(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, kind))
                    for text, score, kind in pieces)
    body += block(2, number(3, 1) + number(35, 1) + number(41, 1) + number(42, 2))
    # a charsmap: a trie of one node that maps nothing, and no texts
    charsmap = struct.pack("<I", 4) + struct.pack("<I", 0)
    save("tokenizer", "spiece", body + block(3, number(3, 1) + number(4, 1) + number(5, 1)))
    save("tokenizer", "spiece_charsmap", body + block(3, block(2, charsmap) + number(3, 1) + number(4, 1) + number(5, 1)))


# ---- configs ----

def configs():
    for golden, folder, files in (
            ("pipeline_i2v", "model", ("model_index.json", "scheduler/scheduler_config.json", "transformer/config.json",
                                       "vae/config.json", "text_encoder/config.json", "image_encoder/config.json")),
            ("qwen2_5_vl_caption", "chat", ("config.json", "preprocessor_config.json", "generation_config.json",
                                            "chat_template.json"))):
        for file in files:
            text = json.dumps(json.loads(read(golden, file)), separators=(",", ":")).encode()
            save("configs", folder + "_" + file.replace("/", "_"), f"{folder}/{file}\n".encode() + text)
    sidecar = {"text_length": 64, "width": 32, "height": 32, "frames": 5, "fps": 12.5, "steps": 3, "guidance": 2, "shift": 3,
               "known_first_frame": False, "weights": "random", "words": ["fox"], "preview": [[1, 0, 0]] * 16,
               "causal": {"block": 1, "window": 3, "sink": 1, "steps": 2}}
    save("configs", "model_genvid.json", b"model/genvid.json\n" + json.dumps(sidecar).encode())
    for kind, rest in (("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction",
                                                        "flow_shift": 3.0}),
                       ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0})):
        save("configs", kind, b"model/scheduler/scheduler_config.json\n" + json.dumps({"_class_name": kind, **rest}).encode())
    index = {"metadata": {}, "weight_map": {"patch_embedding.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    save("configs", "model_index_of_shards",
         b"model/transformer/diffusion_pytorch_model.safetensors.index.json\n" + json.dumps(index).encode())
    save("configs", "chat_tokenizer_config", b'chat/tokenizer_config.json\n{"chat_template":"{{ x }}"}')


# ---- requests: see fuzz_request.c for the order of the bytes ----

def request(**f):
    real = lambda x: bytes([int((x + 1) * 8)])
    return (bytes([0, 0, 0, f.get("calls", 200), len(f.get("options", ())), 0])
            + bytes([f.get("width", 16), f.get("height", 16), f.get("frames", 1), f.get("steps", 1)])
            + real(f.get("fps", 8)) + real(f.get("guidance", 1)) + real(f.get("shift", 3)) + struct.pack(">Q", 7)
            + bytes([f.get("solver", 0), f.get("noise", 0), f.get("image", 0), 0])
            + b"".join(bytes(o) for o in f.get("options", ()))
            + bytes([0]) + b"\0" + f.get("prompt", b"a red fox") + b"\0" + b"\0grey\0")


def requests():
    save("request", "still", request())
    save("request", "clip", request(frames=9, steps=2, guidance=3, prompt="ein Fuchs, \u72d0\u72f8".encode()))
    save("request", "picture", request(frames=5, image=1, solver=2))
    save("request", "cancelled", request(frames=5, steps=3, calls=4))
    save("request", "causal", request(frames=17, options=((0, 0),)))
    save("request", "window", request(frames=57, options=((0, 1), (1, 6))))
    save("request", "large", request(width=240, frames=201))
    save("request", "caption", bytes([255, 0, 0, 100, 0, 0, 1, 4, 8, 8, 16, 0]) + struct.pack(">Q", 1) + b"\0what is it?\0")
    save("request", "captions", bytes([255, 0, 0, 100, 0, 0, 2, 3, 16, 14, 16, 5]) + struct.pack(">Q", 1) + b"\0<|im_end|>\0")


def state():
    """Of the job in fuzz_state.c, after its first step."""
    numbers = struct.pack("<10q", 1, 1, 16, 16, 2, 5000000, 5000000, 7, 1, 1)
    latents = {name: ("F32", [1, 2, 2, 16], None) for name in ("x", "last", "data.0", "data.1", "data.2")}
    save("state", "after_one_step", safetensors({**latents, "numbers": ("I64", [10], numbers)}))


if __name__ == "__main__":
    tensors()
    checkpoint()
    spiece()
    configs()
    requests()
    state()
