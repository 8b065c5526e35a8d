"""Muon for matrices and convolutions, AdamW for the rest, an exponential average of the weights: one object, one step().

Muon replaces a matrix's momentum by the nearest orthogonal matrix (five Newton-Schulz steps in bf16), which makes small models learn in
fewer steps than AdamW. Parameters of one shape are stacked so that the steps are a few batched products. The update is scaled by
0.2 sqrt(max(rows, columns)), which gives it AdamW's usual size, so one learning rate serves both.

Surprise: embeddings, norms, biases, first and last layers go to AdamW; which parameters are "matrices" is decided by `adam` (name parts).
"""
import torch


def orthogonal(m, steps=5):
    """m [n, r, c] -> about U V^T of each, bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = m.bfloat16()
    flip = x.shape[1] > x.shape[2]
    if flip:
        x = x.mT
    x = x / (x.float().norm(dim=(1, 2), keepdim=True).bfloat16() + 1e-7)
    for _ in range(steps):
        g = x @ x.mT
        x = a * x + torch.baddbmm(b * g, g, g, beta=1, alpha=c) @ x
    return x.mT if flip else x


class Optimiser:
    """model: trained in place. lr: peak; decay: weight decay on matrices. adam: parts of names kept from Muon. muon=False: AdamW alone."""

    def __init__(self, model, lr, decay=0.01, adam=(), muon=True, ema=0.9995):
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        is_muon = lambda n, p: muon and p.dim() >= 2 and p.numel() > p.shape[0] and min(p.shape[0], p[0].numel()) >= 8 and not any(s in n for s in adam)
        self.matrices = [p for n, p in named if is_muon(n, p)]
        rest = [p for n, p in named if not is_muon(n, p)]
        self.groups = {}
        for p in self.matrices:
            self.groups.setdefault((p.shape[0], p[0].numel()), []).append(p)
        self.momentum = {k: torch.zeros(len(g), *k, device=g[0].device) for k, g in self.groups.items()}
        self.adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=rest[0].is_cuda)
        self.peak, self.decay, self.params, self.n = lr, decay, [p for _, p in named], 0
        self.names, self.rate = [n for n, _ in named], ema
        self.average = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def step(self, factor):
        """factor: the schedule, 0..1. Clips the gradient to norm 1 (as a whole), updates, averages, and clears gradients."""
        lr = self.peak * factor
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        torch._foreach_mul_(grads, torch.clamp(1.0 / (norm + 1e-6), max=1.0))
        for (r, c), group in self.groups.items():
            g, m = torch.stack([p.grad.reshape(r, c) for p in group]), self.momentum[(r, c)]
            m.lerp_(g, 0.05)
            u = orthogonal(torch.lerp(g, m, 0.95)).float() * (-lr * 0.2 * max(r, c) ** 0.5)
            torch._foreach_mul_(group, 1 - lr * self.decay)
            torch._foreach_add_(group, [v.reshape(p.shape) for v, p in zip(u.unbind(0), group)])
        for g in self.adam.param_groups:
            g["lr"] = lr
        self.adam.step()
        self.n += 1
        rate = min(self.rate, (1 + self.n) / (10 + self.n))
        torch._foreach_lerp_(self.average, self.params, 1 - rate)
        for p in self.params:
            p.grad = None
        return norm

    def averaged(self):
        """Dict name -> averaged weight (shared memory; clone to keep)."""
        return dict(zip(self.names, self.average))

    def state(self):
        return {"momentum": self.momentum, "adam": self.adam.state_dict(), "average": self.averaged(), "n": self.n}

    def load(self, s):
        self.momentum, self.n = s["momentum"], s["n"]
        self.adam.load_state_dict(s["adam"])
        for a, n in zip(self.average, self.names):
            a.copy_(s["average"][n])
