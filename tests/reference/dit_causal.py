"""Golden of block-causal generation: the bidirectional library model over a whole sequence, with a time per token and a mask
over its self-attention. Frames before the last block are clean (t = 0), the last block is noisy. What the engine must give
for the last block with its cache of earlier keys and values, block by block.

    a   [16, 6, 8, 12], blocks of 2 frames, every earlier frame visible
    b   [16, 8, 8, 12], blocks of 2, a window of 4 frames (the block's own among them) whose first is frame 0, the sink:
        block k reads itself, frame 0 and frame 2k - 1
Stored: <r>.x, <r>.text, <r>.t (of the last block), <r>.out [16, 2, h, w] of the last block; bf16_error.whole.<r>.out
"""
import torch

from common import build, error, filled, folder, write_io
from dit import ROOT3, model, padded, rule

BLOCK = 2


def sees_all(i, j):
    return j // BLOCK <= i // BLOCK


def sees_window(i, j):
    k = i // BLOCK
    return j // BLOCK == k or (k > 0 and j in (0, BLOCK * k - 1))


def masked(m, mask):
    for block in m.blocks:
        attn, forward = block.attn1, type(block.attn1).forward
        block.attn1.forward = lambda x, context=None, _mask=None, rope=None, attn=attn, forward=forward, **kw: \
            forward(attn, x, context, mask, rope, **kw)


def run(m, x, times, text, text_len, sees):
    _, frames, h, w = x.shape
    n = h // 2 * (w // 2)
    mask = torch.tensor([[sees(i, j) for j in range(frames)] for i in range(frames)])
    masked(m, mask.repeat_interleave(n, 0).repeat_interleave(n, 1)[None, None])
    t = torch.tensor(times, dtype=torch.float32).repeat_interleave(n)
    return m(hidden_states=x[None].to(m.dtype), timestep=t[None], encoder_hidden_states=padded(text, text_len)[None].to(m.dtype),
             return_dict=False)[0][0].float()


if __name__ == "__main__":
    path = folder("dit_causal")
    full, half = build(model(attention_head_dim=64, num_layers=2), rule, path)
    io = {}
    for r, frames, t, sees in (("a", 6, 625, sees_all), ("b", 8, 833, sees_window)):
        x, text = filled("input.%s.x" % r, (16, frames, 8, 12), ROOT3), filled("input.%s.text" % r, (5, 64), ROOT3)
        times = [0] * (frames - BLOCK) + [t] * BLOCK
        out, low = (run(m, x, times, text, 64, sees)[:, -BLOCK:] for m in (full, half))
        io.update({r + ".x": x, r + ".text": text, r + ".t": torch.tensor([float(t)]), r + ".out": out,
                   "bf16_error.whole.%s.out" % r: error(low, out)})
        # clean frames do not see the noisy block: the mask is at work
        other = x.clone()
        other[:, -BLOCK:] += 1
        assert torch.equal(run(full, other, times, text, 64, sees)[:, :-BLOCK], run(full, x, times, text, 64, sees)[:, :-BLOCK])
    write_io(path, io)
