"""Goldens of pictures, clips and resizing: small files, and what they show, by Pillow, torch and plain arithmetic.

Needs Pillow, torch and the ffmpeg command (which only wraps known planes in files, losslessly).

tests/golden/media
    pictures.tsv     file, width, height, tolerance in codes; the pixels are in FILE.rgb, [height, width, 3] bytes
    resize.tsv       kind, source width, height, width, height, file; source in source.WxH.rgb,
                     pillow: bytes [height, width, 3]; torch: float32 [height, width, 3]
Stills are compared with Pillow's own reading, alpha composed over white. Clips are compared with the conversion of their
planes to RGB written out below in float64, which shares nothing with the library: matrix and range from the tags, chroma
linear between samples at its tagged place.
"""
import ctypes
import ctypes.util
import io
import os
import struct
import subprocess
import tempfile
import zlib

import numpy as np
import torch
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "media")
W, H = 24, 16
rows = []


def scene(w, h):
    """Smooth, colourful, without any symmetry."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    u, v = (x + 0.5) / w, (y + 0.5) / h
    r = 0.15 + 0.8 * u
    g = 0.5 + 0.4 * np.sin(2.2 * u + 3.0 * v * v)
    b = 0.9 - 0.75 * v * (0.5 + 0.5 * u)
    return np.clip(np.stack([r, g, b], -1) * 255 + 0.5, 0, 255).astype(np.uint8)


def path(name):
    return os.path.join(OUT, name)


def expect(name, rgb, tolerance):
    rgb = np.ascontiguousarray(rgb, dtype=np.uint8)
    rgb.tofile(path(name + ".rgb"))
    rows.append((name, rgb.shape[1], rgb.shape[0], tolerance))


def seen(name):
    """What Pillow reads: upright, alpha over white, RGB."""
    from PIL import ImageOps
    im = ImageOps.exif_transpose(Image.open(path(name)))
    if im.mode in ("LA", "RGBA", "PA") or "transparency" in im.info:
        rgba = im.convert("RGBA")
        im = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.asarray(im.convert("RGB"))


def still(name, im, tolerance, **options):
    im.save(path(name), **options)
    expect(name, seen(name), tolerance)


def exif(orientation):
    e = Image.Exif()
    e[0x0112] = orientation
    return e


# ---- stills ------------------------------------------------------------------------------------------------------------

def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_by_hand(name, depth, colour, lines):
    head = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, 0)
    data = b"".join(b"\0" + line for line in lines)
    with open(path(name), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(data)) +
                png_chunk(b"IEND", b""))


def stills():
    a = scene(W, H)
    rgb = Image.fromarray(a)
    ramp = np.broadcast_to(np.linspace(0, 255, W).astype(np.uint8), (H, W))
    rgba = Image.fromarray(np.dstack([a, ramp]))
    still("rgb.png", rgb, 0)
    still("rgba.png", rgba, 1)
    still("grey.png", rgb.convert("L"), 0)
    still("grey1.png", rgb.convert("1"), 0)
    still("grey_alpha.png", rgba.convert("LA"), 1)
    still("palette.png", rgb.quantize(16), 0)
    still("palette_alpha.png", rgb.quantize(16), 0, transparency=3)
    still("exif6.png", rgb, 0, exif=exif(6))
    wide = a.astype(np.uint16) * 257 - 100 * (a > 0)
    png_by_hand("rgb16.png", 16, 2, [wide[y].astype(">u2").tobytes() for y in range(H)])
    expect("rgb16.png", wide >> 8, 0)

    still("rgb.jpg", rgb, 2, quality=95, subsampling=0)
    still("rgb420.jpg", rgb, 2, quality=95, subsampling=2)
    still("progressive.jpg", rgb, 2, quality=90, progressive=True)
    still("grey.jpg", rgb.convert("L"), 2, quality=95)
    for o in range(1, 9):
        still("exif%d.jpg" % o, rgb, 2, quality=95, subsampling=0, exif=exif(o))
    still("cmyk_adobe.jpg", cmyk(a), 2, quality=98)
    without_adobe("cmyk_adobe.jpg", "cmyk_plain.jpg")
    expect("cmyk_plain.jpg", seen("cmyk_plain.jpg"), 2)
    ycck("ycck.jpg", np.asarray(cmyk(a)))
    expect("ycck.jpg", seen("ycck.jpg"), 5)  # 5 where libav reads it, which rounds at each of its steps; TurboJPEG: 0

    still("lossless.webp", rgb, 0, lossless=True)
    still("alpha.webp", rgba, 1, lossless=True, exact=True)
    still("lossy.webp", rgb, 2, quality=95)
    still("exif8.webp", rgb, 0, lossless=True, exif=exif(8))
    still("rgb.bmp", rgb, 0)
    still("palette.bmp", rgb.quantize(16), 0)
    still("rgb.tiff", rgb, 0)
    still("lzw.tiff", rgb, 0, compression="tiff_lzw")
    still("bilevel.tiff", rgb.convert("1"), 0)
    still("exif3.tiff", rgb, 0, tiffinfo={274: 3})
    still("rgb.gif", rgb.quantize(32), 0)
    still("alpha.gif", rgb.quantize(16), 0, transparency=3)


def cmyk(a):
    c = 255 - a.astype(np.int32)
    k = c.min(-1) // 2
    return Image.fromarray(np.dstack([(c - k[..., None]), k]).astype(np.uint8), "CMYK")


def without_adobe(src, dst):
    data = open(path(src), "rb").read()
    at = data.index(b"\xff\xee")
    n = struct.unpack(">H", data[at + 2:at + 4])[0]
    open(path(dst), "wb").write(data[:at] + data[at + 2 + n:])


def ycck(name, ink):
    """TurboJPEG turns CMYK into YCCK; Adobe's convention stores the inks inverted."""
    lib = ctypes.CDLL(ctypes.util.find_library("turbojpeg"))
    lib.tjInitCompress.restype = ctypes.c_void_p
    lib.tjFree.argtypes = [ctypes.c_void_p]
    pixels = np.ascontiguousarray(255 - ink).tobytes()
    out, size = ctypes.c_void_p(), ctypes.c_ulong()
    handle = ctypes.c_void_p(lib.tjInitCompress())
    r = lib.tjCompress2(handle, pixels, W, 0, H, 11, ctypes.byref(out), ctypes.byref(size), 0, 98, 0)
    assert r == 0
    open(path(name), "wb").write(ctypes.string_at(out, size.value))
    lib.tjFree(out)
    lib.tjDestroy(handle)


# ---- clips -------------------------------------------------------------------------------------------------------------

MATRIX = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}


def planes(w, h, sx, sy, depth, full):
    """Made up in YUV itself, inside the gamut, so that nothing is clipped."""
    unit = 1 << (depth - 8)
    y, x = np.mgrid[0:h, 0:w] + 0.5
    luma = (0.3 + 0.35 * x / w + 0.1 * np.sin(5 * y / h))
    cy, cx = np.mgrid[0:-(-h // (1 << sy)), 0:-(-w // (1 << sx))] + 0.5
    fx, fy = cx * (1 << sx) / w, cy * (1 << sy) / h
    cb, cr = 0.18 * np.cos(3 * fx + fy), 0.2 * np.sin(2 * fx - 4 * fy)
    top = (1 << depth) - 1
    q = (lambda v, o, s: np.floor(v * s + o + 0.5).astype(np.int64))
    if full:
        return q(luma, 0, top), q(cb, 1 << (depth - 1), top), q(cr, 1 << (depth - 1), top)
    return q(luma, 16 * unit, 219 * unit), q(cb, 128 * unit, 224 * unit), q(cr, 128 * unit, 224 * unit)


def widen(c, w, h, sx, sy, site):
    """Values between chroma samples; sample (i, j) sits at pixel (i 2^sx + site[0], j 2^sy + site[1])."""
    ch, cw = c.shape
    py = np.clip((np.arange(h) - site[1]) / (1 << sy), 0, ch - 1)
    px = np.clip((np.arange(w) - site[0]) / (1 << sx), 0, cw - 1)
    cols = np.stack([np.interp(px, np.arange(cw), row) for row in c])
    return np.stack([np.interp(py, np.arange(ch), cols[:, x]) for x in range(w)], 1)


def rgb_of(p, w, h, sx, sy, depth, full, matrix, site):
    kr, kb = MATRIX[matrix]
    unit, top, mid = 1 << (depth - 8), (1 << depth) - 1, 1 << (depth - 1)
    y, cb, cr = [c.astype(np.float64) for c in p]
    if full:
        y, cb, cr = y / top, (cb - mid) / top, (cr - mid) / top
    else:
        y, cb, cr = (y / unit - 16) / 219, (cb / unit - 128) / 224, (cr / unit - 128) / 224
    cb, cr = widen(cb, w, h, sx, sy, site), widen(cr, w, h, sx, sy, site)
    r = y + 2 * (1 - kr) * cr
    b = y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.floor(np.clip(np.stack([r, g, b], -1), 0, 1) * 255 + 0.5).astype(np.uint8)


def wrap(name, raw, pix_fmt, w, h, options, before=(), more=()):
    with tempfile.NamedTemporaryFile(suffix=".raw") as f:
        f.write(raw)
        f.flush()
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", "%dx%d" % (w, h), "-r",
                        "16", *before, "-i", f.name, *more, "-fflags", "+bitexact", "-flags", "+bitexact", *options, path(name)],
                       check=True)


def clip(name, pix_fmt, shape, depth, full, matrix, site, options, w=W, h=H, turn=lambda a: a):
    sx, sy = shape
    p = planes(w, h, sx, sy, depth, full)
    raw = b"".join(c.astype("<u2" if depth > 8 else np.uint8).tobytes() for c in p)
    tags = ["-colorspace", matrix, "-color_range", "pc" if full else "tv"]
    wrap(name, raw, pix_fmt, w, h, [*options, *tags], tags)
    expect(name, turn(rgb_of(p, w, h, sx, sy, depth, full, matrix, site)), 1)


def track_matrix(name, a, b, c, d, x, y):
    """Into the track's header: (x, y) is shown at (a x + c y + tx, b x + d y + ty)."""
    data = bytearray(open(path(name), "rb").read())
    at = data.index(b"tkhd") + 4 + 4 + 36
    one = 1 << 16
    data[at:at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, x * one, y * one, 1 << 30)
    open(path(name), "wb").write(data)


FFV1 = ["-c:v", "ffv1", "-level", "3"]
X264 = ["-c:v", "libx264", "-qp", "0", "-preset", "medium", "-x264-params", "info=0"]


def clips():
    left, whole = (0.0, 0.5), (0.0, 0.0)
    clip("bt709.mkv", "yuv444p", (0, 0), 8, False, "bt709", whole, FFV1)
    clip("bt601_full.mkv", "yuv444p", (0, 0), 8, True, "smpte170m", whole, FFV1)
    clip("bt2020_10bit.mkv", "yuv422p10le", (1, 0), 10, False, "bt2020nc", (0.0, 0.0), FFV1)
    clip("left.mkv", "yuv420p", (1, 1), 8, False, "bt709", left, FFV1, w=25, h=15)
    clip("left.mp4", "yuv420p", (1, 1), 8, False, "bt709", left, X264)
    clip("lossless.webm", "yuv444p", (0, 0), 8, False, "bt709", whole, ["-c:v", "libvpx-vp9", "-lossless", "1"])
    clip("untagged_range.avi", "yuv444p", (0, 0), 8, False, "smpte170m", whole, ["-c:v", "ffv1", "-level", "1"])
    for name, matrix, turn in (
            ("rotate90.mp4", (0, 1, -1, 0, H, 0), lambda a: np.rot90(a, -1)),  # clockwise, as players turn it
            ("rotate180.mp4", (-1, 0, 0, -1, W, H), lambda a: np.rot90(a, 2)),
            ("rotate270.mp4", (0, -1, 1, 0, 0, W), lambda a: np.rot90(a, 1)),
            ("mirror.mp4", (-1, 0, 0, 1, W, 0), lambda a: a[:, ::-1])):
        clip(name, "yuv444p", (0, 0), 8, False, "bt709", whole, X264, turn=turn)
        track_matrix(name, *matrix)
    clip("wide_pixels.mkv", "yuv444p", (0, 0), 8, False, "bt709", whole, [*FFV1, "-aspect", "%d:%d" % (2 * W, H)],
         turn=lambda a: np.asarray(Image.fromarray(a).resize((2 * W, H), Image.LANCZOS)))
    clip("tall_pixels.mp4", "yuv444p", (0, 0), 8, False, "bt709", whole, [*X264, "-aspect", "%d:%d" % (W, 2 * H)],
         turn=lambda a: np.asarray(Image.fromarray(a).resize((W, 2 * H), Image.LANCZOS)))
    a = scene(W, H)
    wrap("rgb.mkv", a[..., ::-1].tobytes(), "bgr24", W, H, [*FFV1, "-pix_fmt", "bgr0"])
    expect("rgb.mkv", a, 0)


def sound():
    """A quarter of a second of a tone beside four pictures."""
    tone = (128 + 100 * np.sin(np.arange(2000) * 0.3)).astype(np.uint8)
    with tempfile.NamedTemporaryFile(suffix=".u8") as f:
        f.write(tone.tobytes())
        f.flush()
        wrap("sound.mkv", scene(W, H)[..., ::-1].tobytes() * 4, "bgr24", W, H,
             [*FFV1, "-pix_fmt", "bgr0", "-c:a", "pcm_u8"], more=["-f", "u8", "-ar", "8000", "-ac", "1", "-i", f.name])


# ---- resizing ----------------------------------------------------------------------------------------------------------

def noisy(w, h):
    rng = np.random.default_rng(7)
    return np.clip(scene(w, h).astype(np.int64) + rng.integers(-90, 91, (h, w, 3)), 0, 255).astype(np.uint8)


def resizing():
    lines = []
    sources = {(61, 43): [(72, 50), (23, 17), (130, 11), (61, 20), (5, 43), (1, 1)], (700, 1): [(1333, 1)]}
    for (sw, sh), targets in sources.items():
        a = noisy(sw, sh)
        a.tofile(path("source.%dx%d.rgb" % (sw, sh)))
        for w, h in targets:
            for kind, filt in (("lanczos", Image.LANCZOS), ("bicubic", Image.BICUBIC)):
                name = "%s.%dx%d.%dx%d.rgb" % (kind, sw, sh, w, h)
                np.asarray(Image.fromarray(a).resize((w, h), filt)).tofile(path(name))
                lines.append((kind, sw, sh, w, h, name))
            t = torch.from_numpy(a).permute(2, 0, 1)[None].float()
            y = torch.nn.functional.interpolate(t, size=(h, w), mode="bicubic", align_corners=False)
            name = "torch.%dx%d.%dx%d.f32" % (sw, sh, w, h)
            y[0].permute(1, 2, 0).contiguous().numpy().astype("<f4").tofile(path(name))
            lines.append(("torch", sw, sh, w, h, name))
    with open(path("resize.tsv"), "w") as f:
        f.writelines("\t".join(map(str, line)) + "\n" for line in lines)


def main():
    os.makedirs(OUT, exist_ok=True)
    for old in os.listdir(OUT):
        os.unlink(path(old))
    stills()
    clips()
    sound()
    resizing()
    with open(path("pictures.tsv"), "w") as f:
        f.writelines("\t".join(map(str, row)) + "\n" for row in rows)


main()
