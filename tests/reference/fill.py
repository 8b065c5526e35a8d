"""The counter generator that fills golden weights and inputs, and the manifest that names them.

Weights are not stored. Both sides make them from the tensor's name and the element's index (row-major):

    h     = FNV-1a-64 of the UTF-8 name (offset basis 0xcbf29ce484222325, prime 0x100000001b3)
    z     = splitmix64 finaliser of h + (i+1) * 0x9E3779B97F4A7C15 mod 2^64
    u     = ((z >> 40) - 2^23) * 2^-23             in [-1, 1), exact in float32
    value = float32(float32(u * scale) + offset)   scale, offset float32

manifest.tsv, one line a tensor, sorted by name: name TAB d0,d1,... TAB scale TAB offset, numbers as %.9g.
`python fill.py` prints the values a twin in another language must reproduce.
"""
import numpy as np

MASK = (1 << 64) - 1


def name_hash(name):
    h = 0xCBF29CE484222325
    for byte in name.encode("utf-8"):
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def fill(name, shape, scale=1.0, offset=0.0):
    """float32 array of the given shape."""
    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(name_hash(name))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = ((z >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) * np.float32(2.0**-23)
    return ((u * np.float32(scale)).astype(np.float32) + np.float32(offset)).astype(np.float32).reshape(shape)


def number(x):
    return "%.9g" % np.float32(x)


def write_manifest(path, rows):
    """rows: (name, shape, scale, offset)"""
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for name, shape, scale, offset in sorted(rows, key=lambda r: r[0].encode("utf-8")):
            f.write("\t".join([name, ",".join(str(d) for d in shape), number(scale), number(offset)]) + "\n")


def read_manifest(path):
    rows = []
    for line in open(path, encoding="utf-8"):
        name, shape, scale, offset = line.rstrip("\n").split("\t")
        rows.append((name, tuple(int(d) for d in shape.split(",")), np.float32(scale), np.float32(offset)))
    return rows


if __name__ == "__main__":
    for name in ["", "a", "blocks.0.attn1.to_q.weight", "input.x"]:
        values = fill(name, (4,), 0.5, 1.0)
        print("%-28r %016x  %s" % (name, name_hash(name), "  ".join("%.9g" % v for v in values)))
