"""What every golden script shares: filling a model, running it in float32 and bfloat16, writing the folder.

A golden folder holds the model directory's config files as the library saves them, manifest.tsv (fill.py) and
io.safetensors. Everything in io.safetensors is float32, token ids, masks and pixel codes too. Its metadata names
the library versions. Batch dimensions of one are dropped.

    bf16_error.X   max|a-b| / max|b|, b the float32 activation X, a the same module of the library loaded in bfloat16
                   (its keep-in-fp32 modules kept) and fed the golden float32 inputs; "whole" in the name: not fed,
                   the whole model from its inputs
    bf16_psnr.X    20 log10(2 / rmse) for pixels, which lie in [-1, 1] before the clamp
"""
import glob
import json
import math
import os
import shutil
import struct
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fill import fill, write_manifest

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")


def folder(case):
    path = os.path.join(GOLDEN, case)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def versions():
    import diffusers
    import safetensors
    import tokenizers
    import transformers
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__, "safetensors": safetensors.__version__, "numpy": np.__version__}


def filled(name, shape, scale=1.0, offset=0.0):
    return torch.from_numpy(fill(name, shape, scale, offset))


def default_rule(name, shape):
    """(scale, offset) of a tensor: no zeros and no ones anywhere, activations of order one."""
    last = name.rsplit(".", 1)[-1]
    if "scale_shift_table" in name:
        return 0.3, 0.0
    if last == "gamma" or (last == "weight" and len(shape) == 1):
        return 0.1, 1.0
    if last == "bias":
        return 0.1, 0.0
    return math.sqrt(3.0 / math.prod(shape[1:])), 0.0


def weight_files(path):
    return sorted(glob.glob(os.path.join(path, "*.safetensors")))


def fill_directory(path, rule, prefix=""):
    """Overwrites the weights the library saved under path; returns the manifest's rows. prefix: put before every name,
    for libraries that save other names than those of the released checkpoints."""
    rows = []
    for file in weight_files(path):
        with safe_open(file, "np") as f:
            shapes = {k: tuple(f.get_slice(k).get_shape()) for k in f.keys()}
        tensors = {}
        for name, shape in shapes.items():
            name = prefix + name
            scale, offset = rule(name, shape)
            scale, offset = float(np.float32(scale)), float(np.float32(offset))
            rows.append((name, shape, scale, offset))
            tensors[name] = filled(name, shape, scale, offset)
        save_file(tensors, file, metadata={"format": "pt"})
    return rows


def copy_configs(source, target):
    os.makedirs(target, exist_ok=True)
    for name in sorted(os.listdir(source)):
        if os.path.isfile(os.path.join(source, name)) and not name.endswith((".safetensors", ".bin")):
            shutil.copyfile(os.path.join(source, name), os.path.join(target, name))


def build(model, rule, target, prefix=""):
    """Saves, fills and reloads model; leaves configs and manifest in target. Returns the float32 and the bfloat16 model."""
    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(tmp)
        rows = fill_directory(tmp, rule, prefix)
        copy_configs(tmp, target)
        write_manifest(os.path.join(target, "manifest.tsv"), rows)
        full = type(model).from_pretrained(tmp, dtype=torch.float32) if is_hf(model) else \
            type(model).from_pretrained(tmp, torch_dtype=torch.float32)
        half = type(model).from_pretrained(tmp, dtype=torch.bfloat16) if is_hf(model) else \
            type(model).from_pretrained(tmp, torch_dtype=torch.bfloat16)
        stored = {}
        for file in weight_files(tmp):
            stored.update(load_file(file))
    state = full.state_dict()
    for name, tensor in stored.items():  # what the library loaded is what the counter made
        assert torch.equal(state[name[len(prefix):]], tensor), name
    return full.eval(), half.eval()


def is_hf(model):
    return type(model).__module__.startswith("transformers.")


class Tap:
    """Keeps what modules take in and give out while it is open."""

    def __init__(self):
        self.kept = {}
        self.handles = []

    def out(self, module, key, pick=lambda o: o):
        def hook(_m, _a, o):
            self.kept.setdefault(key, []).append(pick(o).detach().float().clone())
        self.handles.append(module.register_forward_hook(hook))

    def into(self, module, key):
        def hook(_m, args, kwargs):
            x = args[0] if args else kwargs["hidden_states"]
            self.kept.setdefault(key, []).append(x.detach().float().clone())
        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def into_named(self, module, key, name):
        def hook(_m, _args, kwargs):
            self.kept.setdefault(key, []).append(kwargs[name].detach().float().clone())
        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def close(self):
        for h in self.handles:
            h.remove()

    def __getitem__(self, key):
        return self.kept[key][0]


def error(a, b):
    a, b = a.double(), b.double()
    return torch.tensor([((a - b).abs().max() / b.abs().max()).item()], dtype=torch.float32)


def psnr(a, b):
    rmse = (a.double() - b.double()).pow(2).mean().sqrt().item()
    return torch.tensor([20 * math.log10(2.0 / max(rmse, 1e-12))], dtype=torch.float32)


def write_io(path, tensors):
    """io.safetensors, written here and not by the library, whose header has no fixed order: a remake gives equal bytes."""
    header, chunks, at = {"__metadata__": versions()}, [], 0
    for name in sorted(tensors):
        t = torch.as_tensor(tensors[name]).detach().to(torch.float32).contiguous()
        assert torch.isfinite(t).all(), name
        chunks.append(t.numpy().astype("<f4").tobytes())
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + len(chunks[-1])]}
        at += len(chunks[-1])
        if t.numel() == 1:
            print("  %-32s %.4g" % (name, t.item()))
        else:
            print("  %-32s %-18s std %.4f  max %.4f" % (name, list(t.shape), t.std(), t.abs().max()))
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    file = os.path.join(path, "io.safetensors")
    with open(file, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))
    assert load_file(file).keys() == tensors.keys()
    print("%s: %d bytes" % (os.path.basename(path), os.path.getsize(file)))
