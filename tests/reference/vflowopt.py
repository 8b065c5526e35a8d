"""Golden of VFlowOpt's pruning (arXiv 2508.05211) on the tiny LLaVA-OneVision of llava_onevision.py, written from the paper's steps around
transformers' modules: importance from the eager attention of the tower's last layer, recycling by cells, drops before decoder
layers 1 and 2 of 3 with the positions of the whole prompt, text recomputed token by token without a cache.

    opts     [6]    keep before, at the first and at the second drop; cell; sink; entropy
    score    [80]   importance of each token of picture "wide", newlines 1
    place    [n]    tokens that the first stage leaves; depth [n]: drops that each outlives
    merged   [n, 64] their features
    logits   [1024] of the first token; tokens [64], margin
"""
import math

import numpy as np
import torch

import llava_onevision as llava
from common import folder, write_io

KEEP, CELL, SINK, ENTROPY, NEW = (0.5, 0.7, 0.6), 2.5, 1.3, 0.2, 64
DROPS = (1, 2)
SIDE = 5


def attention_of_last_layer(model, pixels):
    vision = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    kept = []
    handle = vision.encoder.layers[-1].self_attn.register_forward_hook(lambda _m, _a, o: kept.append(o[1]))
    vision(pixels)
    handle.remove()
    return kept[0].double().mean(1)  # [tiles, 25, 25]


def importance(model, pixels):
    maps = []
    for a, tile in zip(attention_of_last_layer(model, pixels), pixels):
        received = a.mean(0)
        sinks = received > SINK * received.mean()
        score = a[sinks].mean(0) if sinks.any() else a[received.argmax()]
        grey = ((tile.double() * 0.5 + 0.5) * 255).mean(0).add(0.5).floor().clamp(0, 255)
        cells = grey.reshape(SIDE, 14, SIDE, 14).permute(0, 2, 1, 3).reshape(SIDE * SIDE, -1)
        bits = []
        for c in cells:
            p = torch.bincount(c.long(), minlength=256).double() / c.numel()
            bits.append(-(p[p > 0] * p[p > 0].log2()).sum())
        maps.append(score + ENTROPY * torch.softmax(torch.stack(bits), 0))
    return torch.stack(maps)


def pack(model, maps):
    """As features are packed, with one channel; newlines 1."""
    newline = torch.ones(1)
    out, _ = model.model.pack_image_features([maps.float()[..., None]], torch.tensor([llava.SIZES["wide"]]), image_newline=newline)
    return out[0][:, 0]


def stage_one(score, x, width):
    n = len(score)
    reduce, budget = round(n * (1 - KEEP[0])), int(n / CELL ** 2)
    order = sorted(range(n), key=lambda i: (score[i].item(), i))
    low, groups = order[:reduce + budget], {}
    for i in low:
        base = i < SIDE * SIDE
        at, w = (i, SIDE) if base else (i - SIDE * SIDE, width)
        groups.setdefault((base, int(at // w / CELL), int(at % w / CELL)), []).append(i)
    kept = [(i, x[i], score[i]) for i in order[reduce + budget:]]
    for members in groups.values():
        w = score[members].double()
        first = max(members, key=lambda i: (score[i].item(), -i))
        kept.append((first, (x[members].double() * (w / w.sum())[:, None]).sum(0).float(), score[first]))
    kept.sort(key=lambda t: t[0])
    return [k[0] for k in kept], torch.stack([k[1] for k in kept]), torch.stack([k[2] for k in kept])


def depths(score):
    order, at, depth = sorted(range(len(score)), key=lambda i: (score[i].item(), i)), 0, [2] * len(score)
    for d in range(2):
        go = round((len(score) - at) * (1 - KEEP[d + 1]))
        for i in order[at:at + go]:
            depth[i] = d
        at += go
    return depth


def forward(model, x, positions, depth):
    """x [n, D] at their positions; before layer DROPS[d] the tokens of depth d go."""
    lm = model.model.language_model
    x, positions, depth = x[None], torch.tensor([positions]), torch.tensor(depth)
    for i, layer in enumerate(lm.layers):
        if i in DROPS:
            stay = depth > DROPS.index(i)
            x, positions, depth = x[:, stay], positions[:, stay], depth[stay]
        n = x.shape[1]
        mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
        out = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=lm.rotary_emb(x, positions))
        x = out[0] if isinstance(out, tuple) else out
    return model.lm_head(lm.norm(x))[0, -1]


if __name__ == "__main__":
    import tempfile
    torch.use_deterministic_algorithms(False)
    path = folder("vflowopt")
    with tempfile.TemporaryDirectory() as tmp:
        full, _ = llava.build(tmp)
    llava.PROCESSOR = llava.LlavaOnevisionImageProcessorPil(size={"height": llava.TILE, "width": llava.TILE}, image_grid_pinpoints=llava.PINS,
                                                            image_mean=llava.HALF, image_std=llava.HALF)
    call = llava.call_of("wide")
    features = llava.features(full, call)[0]
    score = pack(full, importance(full, call["pixel_values"][0]))
    gaps = score.sort().values.diff()
    place, merged, left = stage_one(score, features, 11)
    pictures = depths(left)
    embed = full.get_input_embeddings()
    best = None
    for seed in range(20):
        ids = llava.prompt("wide", seed, [len(score)])
        begin = ids.index(llava.IMAGE)
        positions = [i for i in range(len(ids)) if ids[i] != llava.IMAGE or i - begin in set(place)]
        x = torch.cat([embed(torch.tensor(ids[:begin])), merged, embed(torch.tensor(ids[begin + len(score):]))])
        depth = [2] * begin + pictures + [2] * (len(ids) - begin - len(score))
        tokens, margin, first = [], math.inf, None
        for k in range(NEW):
            logits = forward(full, x, positions + list(range(len(ids), len(ids) + k)), depth + [2] * k)
            first = logits if first is None else first
            top = logits.topk(2).values
            margin = min(margin, float(top[0] - top[1]))
            tokens.append(int(logits.argmax()))
            x = torch.cat([x, embed(torch.tensor([tokens[-1]]))])
        tried = (len(set(tokens)) > 8, margin, seed, ids, tokens, first)
        best = tried if best is None or tried[:2] > best[:2] else best
    _, margin, _, ids, tokens, first = best
    print("least gap of scores", float(gaps[gaps > 0].min()))
    write_io(path, {"opts": torch.tensor([*KEEP, CELL, SINK, ENTROPY]), "score": score, "place": torch.tensor(place), "depth": torch.tensor(pictures),
                    "merged": merged, "ids": torch.tensor(ids), "logits": first, "tokens": torch.tensor(tokens), "margin": torch.tensor([margin])})
