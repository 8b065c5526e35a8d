"""Tables and step traces of the samplers, as tests/golden/schedulers/schedulers.json.

tables[]   {name, shift, steps, t, sigma}   sigma float32 with the last 0; t what the model gets
    diffusers-unipc        the installed diffusers' UniPCMultistepScheduler, use_flow_sigmas (same since 0.37)
    diffusers-unipc-0.36   the table of 0.36 and before, from its formula in double
    diffusers-dpm          the installed DPMSolverMultistepScheduler, use_flow_sigmas
    wan-unipc, wan-dpm     the original repository's, from their formulas in double
    flow-match-euler       the installed FlowMatchEulerDiscreteScheduler (shift applied twice)
    self-forcing           linspace(1, 0, N+1) without its end, shifted; t not truncated
traces[]   {solver, table, shift, steps, x}: x[i] the sample after step i + 1 on the velocity v = a*x + b, from x0.
    Run by the library's own step in float64 on the float32 sigmas of the table. float32: the largest difference of the
    library's own float32 run. solvers: unipc (order 2, bh2, corrector), unipc-1 (order 1, no corrector), euler,
    dpm (DPM-Solver++ 2M, midpoint)
a, b, x0   the eight elements of the velocity and of the start
"""
import json
import os

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from common import fill, folder, versions

STEPS, SHIFTS = (4, 8, 20, 50), (3.0, 5.0)


def unipc(shift, order=2):
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
                                   num_train_timesteps=1000, solver_order=order, solver_type="bh2", predict_x0=True,
                                   lower_order_final=True, disable_corrector=list(range(1000)) if order == 1 else [])


def dpm(shift):
    return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
                                       num_train_timesteps=1000, solver_order=2, algorithm_type="dpmsolver++",
                                       solver_type="midpoint", lower_order_final=True, final_sigmas_type="zero")


def euler(shift):
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)


def shifted(sigma, k):
    return k * sigma / (1 + (k - 1) * sigma)


def library(scheduler, n):
    scheduler.set_timesteps(n)
    return scheduler.timesteps.numpy(), scheduler.sigmas.numpy()


def formula(sigma, whole=True):
    t = sigma * 1000
    t = t.astype(np.int64) if whole else t.astype(np.float32)
    return t, np.append(sigma, 0).astype(np.float32)


def wan_unipc(k, n):
    top = float(np.float32(1 - 1 / 1000))  # sigma_max of the constructor, float32
    return formula(shifted(np.linspace(top, 0, n + 1)[:-1], k))


def old_unipc(k, n):
    sigma = 1 - np.linspace(1, 1 / 1000, n + 1)
    return formula(np.flip(shifted(sigma, k))[:-1].copy())


TABLES = {
    "diffusers-unipc": lambda k, n: library(unipc(k), n),
    "diffusers-unipc-0.36": old_unipc,
    "diffusers-dpm": lambda k, n: library(dpm(k), n),
    "wan-unipc": wan_unipc,
    "wan-dpm": lambda k, n: formula(shifted(np.linspace(1, 0, n + 1)[:n], k)),
    "flow-match-euler": lambda k, n: library(euler(k), n),
    "self-forcing": lambda k, n: formula(shifted(np.linspace(1, 0, n + 1)[:-1], k), whole=False),
}
SOLVERS = {"unipc": unipc, "unipc-1": lambda k: unipc(k, 1), "euler": euler, "dpm": dpm}
TRACES = [("unipc", "diffusers-unipc"), ("unipc", "wan-unipc"), ("unipc-1", "diffusers-unipc"),
          ("euler", "flow-match-euler"), ("dpm", "wan-dpm"), ("dpm", "diffusers-dpm")]


def trace(solver, t, sigma, k, dtype, a, b, x):
    s = SOLVERS[solver](k)
    n = len(t)
    s.set_timesteps(n)
    s.timesteps, s.sigmas = torch.from_numpy(t), torch.from_numpy(sigma).to(dtype)
    s.set_begin_index(0)
    a, b, x = (torch.from_numpy(v).to(dtype)[None] for v in (a, b, x))
    out = []
    for i in range(n):
        x = s.step(a * x + b, s.timesteps[i], x, return_dict=False)[0].to(dtype)
        assert torch.isfinite(x).all(), (solver, i)
        out.append(x[0].numpy().astype(np.float64))
    return np.stack(out)


def numbers(values, digits):
    return [float(("%%.%dg" % digits) % v) for v in values]


if __name__ == "__main__":
    path = folder("schedulers")
    a, b, x0 = (fill("input." + n, (8,), s) for n, s in (("a", 1.0), ("b", 0.5), ("x0", 3.0 ** 0.5)))
    result = {"versions": versions(), "a": numbers(a, 9), "b": numbers(b, 9), "x0": numbers(x0, 9), "tables": [],
              "traces": []}
    tables = {}
    for name, make in TABLES.items():
        for k in SHIFTS:
            for n in STEPS:
                t, sigma = tables[name, k, n] = make(k, n)
                assert sigma.dtype == np.float32 and len(sigma) == n + 1 and len(t) == n
                result["tables"].append({"name": name, "shift": k, "steps": n, "t": numbers(t, 9) if t.dtype ==
                                         np.float32 else [int(v) for v in t], "sigma": numbers(sigma, 9)})
    for solver, name in TRACES:
        for k in SHIFTS:
            for n in STEPS:
                t, sigma = tables[name, k, n]
                exact = trace(solver, t, sigma, k, torch.float64, a, b, x0)
                plain = trace(solver, t, sigma, k, torch.float32, a, b, x0)
                difference = float("%.3g" % np.abs(exact - plain).max())
                result["traces"].append({"solver": solver, "table": name, "shift": k, "steps": n,
                                         "float32": difference, "x": [numbers(v, 10) for v in exact]})
                print("%-8s %-18s k=%g N=%-3d float32 differs by %g, last %.4f" %
                      (solver, name, k, n, difference, np.abs(exact[-1]).max()))
    with open(os.path.join(path, "schedulers.json"), "w", newline="\n") as f:
        f.write(json.dumps(result, separators=(",", ":")).replace("},{", "},\n{") + "\n")
