"""torch.randn from a fresh generator, on the CPU (drawn here) and on a GPU (drawn on one H200 with PyTorch 2.11 by --draw-cuda,
whose file is then given with --cuda). Writes golden/noise/io.safetensors.

The GPU's numbers are checked against a plain model of PyTorch's kernel (aten/src/ATen/native/cuda/DistributionTemplates.h):
Philox 4x32-10, the thread's number as subsequence, four normals a thread one grid apart. They differ by 3e-6 at the most,
which is what the GPU's fast sine is off by.

    python noise.py --draw-cuda cuda.json     # on the GPU
    python noise.py --cuda cuda.json          # here
"""
import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

SEEDS = (0, 42, (1 << 40) + 7)
CPU_SIZES = (1, 2, 7, 15, 16, 17, 31, 100, 1000, 4096)
CUDA_SIZES = (7, 1000, 270337, 1081345, 16 * 21 * 60 * 104)
OUT = pathlib.Path(__file__).parent.parent / "golden" / "noise" / "io.safetensors"


def places(n):
    return sorted({0, 1, 2, 3, n // 3, n // 2, n - 2, n - 1} | {i * (n - 1) // 15 for i in range(16)})


def draw_cuda(path):
    rows = []
    for seed in SEEDS:
        for n in CUDA_SIZES:
            x = torch.randn(n, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").cpu().numpy()
            rows.append({"seed": str(seed), "n": n, "draw": 0, "at": places(n), "bits": x[places(n)].view(np.uint32).tolist()})
    device = torch.cuda.get_device_properties(0)
    json.dump({"torch": torch.__version__, "sms": device.multi_processor_count, "threads": device.max_threads_per_multi_processor,
               "rows": rows}, open(path, "w"))


def philox(counter, key):
    c, k, low = [x.astype(np.uint64) for x in counter], [np.uint64(x) for x in key], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ k[0], b & low, (a >> np.uint64(32)) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return c


def model(at, n, seed, sms, threads):
    step = min(sms * (threads // 256), (n + 255) // 256) * 256
    at = np.asarray(at, dtype=np.int64)
    lane, thread = at % (4 * step) // step, at % step
    w = philox([at // (4 * step), np.zeros_like(at), thread, np.zeros_like(at)], [seed & 0xFFFFFFFF, seed >> 32])
    u = (np.where(lane < 2, w[0], w[2]).astype(np.float64) + 0.5) * 2.0**-32
    v = (np.where(lane < 2, w[1], w[3]).astype(np.float64) + 0.5) * 2.0**-32 * 2 * np.pi
    return np.sqrt(-2 * np.log(u)) * np.where(lane % 2 == 0, np.sin(v), np.cos(v))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--draw-cuda")
    p.add_argument("--cuda")
    a = p.parse_args()
    if a.draw_cuda:
        return draw_cuda(a.draw_cuda)
    out = {}
    for seed in SEEDS:
        for n in CPU_SIZES:
            out[f"cpu.{seed}.{n}"] = torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
    cuda = json.load(open(a.cuda))
    for r in cuda["rows"]:
        seed, n = int(r["seed"]), r["n"]
        if seed not in SEEDS or n not in CUDA_SIZES or r["draw"]:
            continue
        x = np.array(r["bits"], dtype=np.uint32).view(np.float32)
        worst = np.abs(x - model(r["at"], n, seed, cuda["sms"], cuda["threads"])).max()
        assert worst < 5e-6, (seed, n, worst)
        out[f"cuda.{seed}.{n}"] = x
        out[f"cuda.{seed}.{n}.at"] = np.array(r["at"], dtype=np.float32)
    OUT.parent.mkdir(exist_ok=True)
    save_file(out, OUT)


main()
