"""Files of torch.save for tests/io/test_pth.c: what it writes, read back by a reader that runs nothing.

Each tensor is filled by the counter generator from its own name (fill.py), so that the C test needs the files alone. Saving is
not bit-stable between torch versions; the test looks at tensors only.
"""

import argparse
import collections
import os
import zipfile

import torch

from fill import fill

SHAPES = {
    "head.weight": (5, 7),
    "head.bias": (5,),
    "conv.weight": (4, 3, 1, 2, 2),
    "scalar": (),
    "empty": (0, 9),
}


def tensors(dtype=torch.float32):
    return collections.OrderedDict((n, torch.from_numpy(fill(n, s, 1.0, 0.0)).to(dtype)) for n, s in SHAPES.items())


def rezip(src, dst, flag_zip64):
    """The same entries by Python's own writer: other header fields, and ZIP64 where asked for."""
    with zipfile.ZipFile(src) as a, zipfile.ZipFile(dst, "w", zipfile.ZIP_STORED) as b:
        for info in a.infolist():
            with b.open(info.filename, "w", force_zip64=flag_zip64) as f:
                f.write(a.read(info))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=os.path.join(os.path.dirname(__file__), "..", "golden", "pth"))
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)

    def save(name, value, **kw):
        torch.save(value, os.path.join(out, name), **kw)

    save("f32.pth", tensors())
    save("bf16.pth", tensors(torch.bfloat16))
    save("f16.pth", tensors(torch.float16))
    save("f64.pth", dict(tensors(torch.float64)))

    # a module's state_dict carries _metadata; a Parameter is rebuilt by _rebuild_parameter
    module = torch.nn.Linear(7, 5)
    with torch.no_grad():
        for n, p in module.named_parameters():
            p.copy_(tensors()["head." + n])
    save("module.pth", module.state_dict())
    save("parameters.pth", {"head." + n: p for n, p in module.named_parameters()})

    # nested, as a trainer saves it, beside what is no tensor
    save("nested.pt", {"step": 7, "note": "text", "rate": 1e-4, "big": 1 << 40, "none": None, "flags": [True, False, (1, 2)],
                       "generator": {"model": tensors()}})

    # tensors that share a storage, one behind the other; and the same one under two names
    both = torch.cat([tensors()["head.weight"].flatten(), tensors()["head.bias"]])
    tied = both[:35].view(5, 7)
    save("shared.pth", {"head.weight": tied, "head.bias": both[35:], "again": tied})

    # newer protocols: frames, short texts, MEMOIZE, STACK_GLOBAL
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pth", tensors(), pickle_protocol=protocol)

    # integer types
    save("integers.pth", {"i64": torch.arange(-3, 3), "i32": torch.arange(4, dtype=torch.int32),
                          "u8": torch.arange(250, 256, dtype=torch.uint8), "bool": torch.tensor([True, False])})

    # what is refused
    save("strided.pth", {"head.weight": tensors()["head.weight"].t()})
    save("old.pth", {"head.bias": tensors()["head.bias"]}, _use_new_zipfile_serialization=False)
    save("namespace.pth", {"args": argparse.Namespace(a=1), "head.bias": tensors()["head.bias"]})

    rezip(os.path.join(out, "f32.pth"), os.path.join(out, "zip64.pth"), True)


if __name__ == "__main__":
    main()
