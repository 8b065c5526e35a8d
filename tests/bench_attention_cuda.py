#!/usr/bin/env python3
"""The fast CUDA attention kernels against float64, and beside cuDNN and FlexAttention. Needs a Hopper GPU and PyTorch.

    nvcc -std=c++17 -O3 -I. -Iinclude -gencode arch=compute_90a,code=sm_90a -Xcompiler -fPIC -shared \
         -o LIB attention/cuda/attn_sm90.cu attention/cuda/attn_decode.cu
    bench_attention_cuda.py LIB check                    fresh random cases, prints seeds and errors; fails if one is too large
    bench_attention_cuda.py LIB time 12x32760x128 ... [flex] [decode]

Shapes are heads x tokens x channels; lists are random blocks at 50, 25 and 10%, the same number for every query tile; flex
times FlexAttention on the same. TFLOP/s count visited blocks. With -DGV_SPIN_LIMIT=20000000 a kernel that waits for ever
ends with an error instead.
"""

import ctypes
import math
import sys
import time

import torch

SOURCES = 8
PAD = 0xFFFFFFFF
I, L, P = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p


# attention/cuda/attn_cuda.h


class Array(ctypes.Structure):
    _fields_ = [("data", P), ("type", I), ("b", L), ("n", L), ("a", L)]


class Lse(ctypes.Structure):
    _fields_ = [("data", P), ("b", L), ("a", L)]


class Keys(ctypes.Structure):
    _fields_ = [("k", Array), ("v", Array), ("n", L), ("log_weight", ctypes.c_float), ("key_bias", P), ("always", ctypes.c_bool)]


class Result(ctypes.Structure):
    _fields_ = [("o", Array), ("lse", Lse)]


class Mask(ctypes.Structure):
    _fields_ = [("kind", I), ("a", L), ("b", L), ("sink", L), ("query_start", L), ("key_start", L * SOURCES), ("qseg", P),
                ("kseg", P), ("allow", P)]


class Args(ctypes.Structure):
    _fields_ = [("B", L), ("Nq", L), ("A", L), ("A_kv", L), ("D", L), ("Dv", L), ("rows", L), ("tiles", L), ("q", Array),
                ("n_sources", I), ("source", Keys * SOURCES), ("out", Result), ("seed", Result), ("first", Result),
                ("scale", ctypes.c_float), ("bias", P), ("bias_a", L), ("bias_n", L), ("q_order", P), ("skip", P), ("row", P),
                ("entries", P), ("split", P), ("order", P), ("list_batch", I), ("list_heads", I), ("mask", Mask)]


class Chip(ctypes.Structure):
    _fields_ = [("major", I), ("minor", I), ("multiprocessors", I), ("shared_bytes", I), ("encode_tensor_map", P)]


def array(t):
    assert t.stride(3) == 1
    return Array(t.data_ptr(), {torch.float32: 0, torch.bfloat16: 1}[t.dtype], 0 if t.shape[0] == 1 else t.stride(0),
                 t.stride(1), t.stride(2))


def result(part):
    o, lse = part
    return Result(array(o), Lse(lse.data_ptr(), lse.stride(0), lse.stride(1)) if lse is not None else Lse())


class Attention:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        p = torch.cuda.get_device_properties(0)
        encode = ctypes.cast(ctypes.CDLL("libcuda.so.1").cuTensorMapEncodeTiled, P)
        self.chip = Chip(p.major, p.minor, p.multi_processor_count, 232448, encode)

    def call(self, q, sources, o, lse, plan=None, seed=None, scale=None, decode=False):
        """q [B, N, A, D]; sources: (k, v, always[, log_weight, key_bias]); plan: dict; returns a function that launches."""
        B, N, A, D = q.shape
        c = Args(B=B, Nq=N, A=A, A_kv=sources[0][0].shape[2], D=D, Dv=D, rows=N, tiles=(N + 127) // 128,
                 scale=scale or 1 / math.sqrt(D), q=array(q), n_sources=len(sources), out=result((o, lse)))
        for i, (k, v, always, *more) in enumerate(sources):
            log_weight, bias = more or (0.0, None)
            c.source[i] = Keys(array(k), array(v), k.shape[1], log_weight, bias.data_ptr() if bias is not None else None,
                               bool(always))
        if seed:
            c.seed = result(seed)
        if plan:
            c.list_batch, c.list_heads = plan["batch"], plan["heads"]
            for name in ("row", "entries", "skip"):
                if plan.get(name) is not None:
                    setattr(c, name, plan[name].data_ptr())
            if plan.get("mask"):
                c.mask.kind, c.mask.a, c.mask.b, c.mask.sink, c.mask.query_start = plan["mask"]
                for i, x in enumerate(plan["key_start"]):
                    c.mask.key_start[i] = x
        keep = (q, sources, o, lse, plan, seed)
        kernel = "decode" if decode else "sm90"
        assert getattr(self.lib, f"gv_attn_{kernel}_takes")(ctypes.byref(self.chip), ctypes.byref(c)) & 255, kernel
        size = getattr(self.lib, f"gv_attn_{kernel}_scratch")
        size.restype = ctypes.c_size_t
        memory = torch.full((size(ctypes.byref(self.chip), ctypes.byref(c)) // 4 + 1,), math.nan, device="cuda")

        def launch(*_):
            stream, scratch = P(torch.cuda.current_stream().cuda_stream), P(memory.data_ptr())
            status = getattr(self.lib, f"gv_attn_{kernel}")(ctypes.byref(self.chip), ctypes.byref(c), scratch, stream)
            if status or not keep:
                raise RuntimeError(f"{kernel}: CUDA error {status}")

        return launch


def entry(start, length=64, source=0, masked=0):
    return start << 10 | (length - 1) << 4 | source << 1 | masked


def u32(values):
    return torch.tensor(values, dtype=torch.int64).to(torch.uint32).cuda() if len(values) else torch.zeros(1, dtype=torch.uint32).cuda()


def plan_of(lists, batch, heads, **more):
    """lists[row] = entries of one query tile"""
    row = [0]
    for x in lists:
        row.append(row[-1] + len(x))
    return dict(row=u32(row), entries=u32([e for x in lists for e in x]), batch=batch, heads=heads, lists=lists, **more)


def mask_range(mask, i):
    kind, a, b, sink, start = mask
    i = i + start
    if kind == 1:
        return (i + a - b + 1 if b else -1 << 40), i + a, (sink if b else 0)
    if kind == 2:
        return i - a, i + b, sink
    if kind == 3:
        return -1 << 40, (i // a + 1) * a - 1, 0
    return -1 << 40, 1 << 40, 0


def allowed(q, sources, plan):
    """[B, A, Nq, all keys] bool: what a list reads"""
    B, Nq, A, _ = q.shape
    ns = [k.shape[1] for k, *_ in sources]
    off = [sum(ns[:i]) for i in range(len(ns))]
    m = torch.zeros(B, A, Nq, sum(ns), dtype=torch.bool)
    if not plan or plan.get("entries") is None:
        m[:] = True
        return m.cuda()
    for i, (_, _, always, *_) in enumerate(sources):
        if always:
            m[..., off[i]:off[i] + ns[i]] = True
    tiles = (Nq + 127) // 128
    for b in range(B):
        for h in range(A):
            for t in range(tiles):
                r = ((0 if plan["batch"] == 1 else b) * plan["heads"] + h // (A // plan["heads"])) * tiles + t
                for e in plan["lists"][r]:
                    if e == PAD:
                        continue
                    start, length, s, masked = e >> 10, (e >> 4 & 63) + 1, e >> 1 & 7, e & 1
                    q1 = min(Nq, t * 128 + 128)
                    if not masked:
                        m[b, h, t * 128:q1, off[s] + start:off[s] + start + length] = True
                        continue
                    j = torch.arange(start, start + length)
                    for i in range(t * 128, q1):
                        lo, hi, sink = mask_range(plan["mask"], i)
                        pos = j + plan["key_start"][s]
                        m[b, h, i, off[s] + start:off[s] + start + length] = ((pos >= lo) & (pos <= hi)) | (pos < sink)
    return m.cuda()


def reference(q, sources, plan=None, scale=None):
    """float64; [B, N, A, D] and [B, A, N]"""
    B, Nq, A, D = q.shape
    k = torch.cat([k.expand(B, -1, -1, -1) for k, *_ in sources], 1).double().nan_to_num(0)
    v = torch.cat([v.expand(B, -1, -1, -1) for _, v, *_ in sources], 1).double().nan_to_num(0)
    keep = allowed(q, sources, plan) if plan and plan.get("entries") is not None else None
    o, lse = torch.empty(B, Nq, A, D, dtype=torch.float64, device="cuda"), torch.empty(B, A, Nq, dtype=torch.float64, device="cuda")
    for h in range(A):
        kv = h // (A // k.shape[2])
        s = torch.einsum("bnd,bmd->bnm", q[:, :, h].double(), k[:, :, kv]) * (scale or 1 / math.sqrt(D))
        for i, (x, _, _, *more) in enumerate(sources):
            if more:
                at = sum(y.shape[1] for y, *_ in sources[:i])
                s[..., at:at + x.shape[1]] += more[0] + (more[1].double() if more[1] is not None else 0)
        if keep is not None:
            s.masked_fill_(~keep[:, h], -math.inf)
        lse[:, h] = torch.logsumexp(s, -1)
        s -= lse[:, h].nan_to_num(neginf=0)[..., None]
        o[:, :, h] = torch.einsum("bnm,bmd->bnd", s.exp_(), v[:, :, kv])
    return o, lse


def errors(o, lse, ro, rlse):
    bad = (~torch.isfinite(o)).sum().item()
    o_err = ((o.double() - ro).norm() / ro.norm().clamp_min(1e-30)).item() if not bad else math.nan
    empty = rlse == -math.inf
    if (lse[empty] != -math.inf).any() or torch.isnan(lse).any():
        return o_err, math.nan
    l_err = (lse[~empty].double() - rlse[~empty]).abs().max().item() if (~empty).any() else 0.0
    return o_err, l_err


MEGA = 1 << 20


def rand(*shape, dtype=torch.bfloat16):
    """At an offset of 1 MiB into its allocation."""
    n = math.prod(shape)
    flat = torch.empty(MEGA // 2 + n, device="cuda", dtype=dtype)
    flat[MEGA // 2:] = torch.randn(n, device="cuda").to(dtype)
    return flat[MEGA // 2:].view(*shape)


def poisoned(*shape, dtype=torch.bfloat16):
    return torch.full(shape, math.nan, device="cuda", dtype=dtype)


def random_lists(g, rows, blocks, keep):
    out = []
    for _ in range(rows):
        pick = torch.rand(blocks, generator=g) < keep
        out.append([entry(64 * int(i)) for i in pick.nonzero()[:, 0]])
    return out


def cases(D, g):
    """(name, q, sources, plan, out type)"""
    yield "dense 512", rand(1, 512, 4, D), [(rand(1, 512, 4, D), rand(1, 512, 4, D), 0)], None, torch.bfloat16
    qkv = rand(2, 777, 3, 4, D)
    yield "odd strided", qkv[:, :300, 0], [(qkv[:, :, 1], qkv[:, :, 2], 0)], None, torch.bfloat16
    yield "f32 out, gqa", rand(2, 129, 6, D), [(rand(2, 1001, 2, D), rand(2, 1001, 2, D), 0)], None, torch.float32
    yield "7 keys", rand(1, 65, 3, D), [(rand(1, 7, 3, D), rand(1, 7, 3, D), 0)], None, torch.bfloat16
    yield "3 sources, shared", rand(2, 200, 2, D), [(rand(2, 130, 2, D), rand(2, 130, 2, D), 0),
                                                    (rand(1, 70, 2, D), rand(1, 70, 2, D), 1),
                                                    (rand(2, 400, 2, D), rand(2, 400, 2, D), 0)], None, torch.bfloat16
    k, v = rand(2, 1000, 4, D), rand(2, 1000, 4, D)
    lists = random_lists(g, 2 * 4 * 6, 15, 0.4)
    lists[3] = []
    lists[7] = [PAD]
    yield "random lists", rand(2, 700, 4, D), [(k, v, 0)], plan_of(lists, 2, 4), torch.bfloat16
    lists = []
    for t in range(3):
        full, part = [], []
        for j in range(0, 400, 64):
            lo, hi = t * 128 - 40, t * 128 + 127 - 40
            if j <= hi:
                (full if j + 63 <= lo else part).append(entry(j, min(64, 400 - j), 0, 0 if j + 63 <= lo else 1))
        lists.append(full + part)
    yield "causal, offset", rand(2, 300, 4, D), [(rand(2, 400, 4, D), rand(2, 400, 4, D), 0)], plan_of(
        lists, 1, 1, mask=(1, -40, 0, 0, 0), key_start=[0]), torch.bfloat16
    # Any start, any length, two masked kinds of source, rubbish behind the keys in use.
    n = [500, 260, 90]
    src = [(rand(1, m, 2, D), rand(1, m, 2, D), int(i == 2)) for i, m in enumerate(n)]
    src[1][0][:, 100:] = math.nan
    src[1][1][:, 100:] = math.nan
    for kind in ((1, 30, 70, 9, 300), (2, 50, 20, 5, 250), (3, 37, 0, 0, 100)):
        lists = []
        for _ in range(2 * 2):
            full, part, at = [], [], 0
            for s, end in ((0, 500), (1, 100)):
                at = int(torch.randint(0, 40, (1,), generator=g))
                while at < end:
                    length = min(int(torch.randint(1, 65, (1,), generator=g)), end - at)
                    (part if torch.rand(1, generator=g) < 0.5 else full).append((at, length, s))
                    at += length + int(torch.randint(0, 50, (1,), generator=g))
            lists.append([entry(*x) for x in full] + [entry(*x, 1) for x in part])
        yield f"any start, mask {kind[0]}", rand(1, 222, 2, D), src, plan_of(lists, 1, 2, mask=kind,
                                                                              key_start=[0, 500, 0]), torch.bfloat16


def check(attention, D):
    seed = time.time_ns() % (1 << 31)
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    failed = False

    def say(name, o_err, l_err, ok=None):
        nonlocal failed
        ok = (o_err <= 5e-3 and l_err <= 1e-4) if ok is None else ok
        failed |= not ok
        print(f"D {D} {name:22s} O {o_err:.2e}  LSE {l_err:.2e}  {'ok' if ok else 'FAILED'}", flush=True)

    print(f"D {D} seed {seed}", flush=True)
    for name, q, src, plan, dtype in cases(D, g):
        o, lse = poisoned(*q.shape, dtype=dtype), poisoned(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
        attention.call(q, src, o, lse, plan)()
        torch.cuda.synchronize()
        say(name, *errors(o, lse, *reference(q, src, plan)))
    # Many tiles for each block, and a repeat that must give the same bits.
    q, k, v = rand(1, 4000, 12, D), rand(1, 4000, 12, D), rand(1, 4000, 12, D)
    o, lse = poisoned(*q.shape), poisoned(1, 12, 4000, dtype=torch.float32)
    run = attention.call(q, [(k, v, 0)], o, lse)
    run()
    ro, rl = reference(q, [(k, v, 0)])
    say("12 x 4000", *errors(o, lse, ro, rl))
    first = o.clone()
    for _ in range(5):
        o.fill_(math.nan)
        run()
    torch.cuda.synchronize()
    same = torch.equal(first.view(torch.int16), o.view(torch.int16))
    say("  again, same bits", 0 if same else 1, 0)
    plan = plan_of([[entry(64 * j, min(64, 4000 - 64 * j)) for j in range(63)]] * 32, 1, 1)
    o.fill_(math.nan)
    attention.call(q, [(k, v, 0)], o, lse, plan)()
    torch.cuda.synchronize()
    say("  full list, same bits", 0 if torch.equal(first.view(torch.int16), o.view(torch.int16)) else 1, 0)
    skip = torch.zeros(1, dtype=torch.int32)
    skip[0] = 0x0F0F1001
    o.fill_(7)
    attention.call(q, [(k, v, 0)], o, lse, dict(plan, skip=skip.cuda()))()
    torch.cuda.synchronize()
    want = first.clone()
    for t in range(32):
        if int(skip[0]) >> t & 1:
            want[:, t * 128:t * 128 + 128] = 7
    say("  skipped tiles", 0 if torch.equal(want.view(torch.int16), o.view(torch.int16)) else 1, 0)
    for dtype in (torch.float32, torch.bfloat16):
        so, sl = poisoned(*q.shape, dtype=dtype), poisoned(1, 12, 4000, dtype=torch.float32)
        attention.call(q, [(k[:, :1500], v[:, :1500], 0)], so, sl)()
        o.fill_(math.nan), lse.fill_(math.nan)
        attention.call(q, [(k[:, 1500:], v[:, 1500:], 0)], o, lse, seed=(so, sl))()
        torch.cuda.synchronize()
        say(f"  seeded {'f32' if dtype == torch.float32 else 'bf16'}", *errors(o, lse, ro, rl))
    # Nothing to read: the seed comes through, or nothing.
    o.fill_(math.nan)
    none = plan_of([[]] * 32, 1, 1)
    attention.call(q, [(k, v, 0)], o, lse, none, seed=(so, sl))()
    torch.cuda.synchronize()
    say("  empty list, seeded", *errors(o, lse, so.double(), sl.double()))
    attention.call(q, [(k, v, 0)], o, lse, none)()
    torch.cuda.synchronize()
    say("  empty list", o.float().abs().max().item(), 0, ok=bool((o == 0).all() and (lse == -math.inf).all()))
    return failed


def check_decode(attention):
    seed = time.time_ns() % (1 << 31)
    torch.manual_seed(seed)
    print(f"decode seed {seed}")
    failed = False
    for D in (64, 128):
        for B, Nq, A, A_kv, ns, dtype in ((1, 1, 28, 4, (5000,), torch.bfloat16), (3, 1, 6, 2, (1, 900, 16), torch.bfloat16),
                                          (2, 3, 4, 4, (333,), torch.float32), (1, 4, 28, 4, (40000,), torch.bfloat16),
                                          (1, 1, 2, 2, (5,), torch.float32)):
            q = rand(B, Nq, A, D)
            src = [(rand(B, n, A_kv, D), rand(B, n, A_kv, D), 0, 0.3 * i, rand(n, dtype=torch.float32) if i == 1 else None)
                   for i, n in enumerate(ns)]
            o, lse = poisoned(B, Nq, A, D, dtype=dtype), poisoned(B, A, Nq, dtype=torch.float32)
            attention.call(q, src, o, lse, decode=True)()
            torch.cuda.synchronize()
            o_err, l_err = errors(o, lse, *reference(q, src))
            ok = o_err <= 5e-3 and l_err <= 1e-4
            failed |= not ok
            print(f"decode D {D} B {B} Nq {Nq} A {A}/{A_kv} keys {ns}: O {o_err:.2e} LSE {l_err:.2e} {'ok' if ok else 'FAILED'}")
    return failed


def time_decode(attention):
    """Bytes of keys and values over time; input sets by turns, together several times the L2."""
    for A, A_kv, N, D in ((28, 4, 2048, 128), (28, 4, 8192, 128), (28, 4, 32768, 128), (12, 12, 8192, 128), (14, 2, 32768, 64)):
        sets = [(rand(1, 1, A, D), rand(1, N, A_kv, D), rand(1, N, A_kv, D)) for _ in range(max(3, (400 << 20) // (N * A_kv * D * 4)))]
        o, lse = poisoned(1, 1, A, D), poisoned(1, A, 1, dtype=torch.float32)
        ours = [attention.call(q, [(k, v, 0)], o, lse, decode=True) for q, k, v in sets]
        theirs = [lambda q=q, k=k, v=v: torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), enable_gqa=True) for q, k, v in sets]
        line = f"decode {A}/{A_kv} heads x {N} x {D}:"
        for name, fns in (("ours", ours), ("PyTorch", theirs)):
            torch.cuda.synchronize()
            g = torch.cuda.CUDAGraph()
            fns[0]()
            with torch.cuda.graph(g):
                for f in fns:
                    f()
            ms = medians_ms([lambda i: g.replay()], 9)[0] / len(fns)
            line += f" {name} {1000 * ms:.1f} us, {N * A_kv * D * 4 / ms / 1e9:.2f} TB/s;"
        print(line, flush=True)


def medians_ms(fns, reps, warm=2):
    """By turns, so that heat and clocks are the same for all."""
    times = [[] for _ in fns]
    for i in range(reps + warm):
        for f, to in zip(fns, times):
            a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            a.record()
            f(i)
            b.record()
            if i >= warm:
                to.append((a, b))
    torch.cuda.synchronize()
    return [sorted(a.elapsed_time(b) for a, b in to)[reps // 2] for to in times]


def inputs(A, N, D):
    return [torch.randn(1, N, A, D, device="cuda", dtype=torch.bfloat16) for _ in range(3)]


def block_lists(A, N, density, block):
    """Per (head, tile) the same number of random blocks of `block` keys, as entries of 64 on the GPU."""
    tiles, blocks = (N + 127) // 128, N // block
    count = max(1, round(blocks * density))
    pick = torch.rand(A * tiles, blocks, device="cuda").argsort(1)[:, :count].sort(1).values
    per = block // 64
    start = (pick[:, :, None] * block + torch.arange(per, device="cuda") * 64).reshape(-1)
    row = torch.arange(A * tiles + 1, device="cuda") * count * per
    return dict(row=row.to(torch.int32), entries=(start << 10 | 63 << 4).to(torch.int32), batch=1, heads=A), \
        count * block / N


def cudnn(q, k, v):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))

    def run():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    return run


def flex(q, k, v, plan, N):
    """FlexAttention on the same 128-key blocks."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention
    A, tiles = q.shape[2], (N + 127) // 128
    start = (plan["entries"].view(A, tiles, -1)[:, :, ::2] >> 17).to(torch.int32)
    index = torch.zeros(1, A, tiles, tiles, dtype=torch.int32, device="cuda")
    index[0, :, :, :start.shape[2]] = start
    count = torch.full((1, A, tiles), start.shape[2], dtype=torch.int32, device="cuda")
    mask = BlockMask.from_kv_blocks(torch.zeros_like(count), torch.zeros_like(index), count, index, BLOCK_SIZE=128,
                                    seq_lengths=(N, N), compute_q_blocks=False)
    compiled = torch.compile(flex_attention, dynamic=False)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return lambda i: compiled(q, k, v, block_mask=mask)


def timing(attention, names):
    shapes = [tuple(int(n) for n in x.split("x")) for x in names if x[0].isdigit()]
    begin = time.time()
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    ms = medians_ms([lambda i: x @ x], 10, 20)[0]
    print(f"matmul 8192: {2 * 8192 ** 3 / ms / 1e9:.0f} TFLOP/s")
    for A, N, D in shapes:
        sets = [inputs(A, N, D) for _ in range(2 if A * N < 300000 else 1)]
        outs = [(poisoned(1, N, A, D), poisoned(1, A, N, dtype=torch.float32)) for _ in sets]
        jobs = []  # name, flops, function of a turn

        def add(name, density, fns):
            jobs.append((name, 4 * A * N * N * D * density, lambda i: fns[i % len(fns)](i)))

        add("cuDNN", 1, [lambda i, f=cudnn(*s): f() for s in sets])
        add("ours", 1, [attention.call(q, [(k, v, 0)], *out) for (q, k, v), out in zip(sets, outs)])
        for block in (128, 64):
            for density in (0.5, 0.25, 0.1):
                plan, exact = block_lists(A, N, density, block)
                add(f"{block}-key {100 * exact:.1f}%", exact,
                    [attention.call(q, [(k, v, 0)], *out, plan) for (q, k, v), out in zip(sets, outs)])
                if block == 128 and "flex" in names:
                    add(f"flex {100 * exact:.1f}%", exact, [flex(*s, plan, N) for s in sets])
        ms = medians_ms([f for _, _, f in jobs], 15 if A * N < 1000000 else 4)
        rate = [x / t / 1e9 for (_, x, _), t in zip(jobs, ms)]
        print(f"{A}x{N}x{D}: " + ", ".join(f"{name} {r:.0f}" for (name, _, _), r in zip(jobs, rate)) +
              f" | dense {rate[1] / rate[0]:.3f} of cuDNN, lists " +
              " ".join(f"{r / rate[1]:.2f}" for (name, _, _), r in zip(jobs, rate) if "key" in name), flush=True)
        del sets, outs, jobs
    print(f"{time.time() - begin:.1f} s")


def main():
    attention = Attention(sys.argv[1])
    if sys.argv[2] == "check":
        sys.exit(any([check(attention, 64), check(attention, 128), check_decode(attention)]))
    if "decode" in sys.argv:
        time_decode(attention)
    timing(attention, [x for x in sys.argv[3:] if x != "decode"])


if __name__ == "__main__":
    main()
