/* Pixels on the host: 8-bit RGB pictures, and the conversions between them, float frames and YUV planes. All colour is
 * sRGB-encoded with BT.709 primaries; YUV is BT.709 limited range. */
#ifndef GV_IO_FRAME_H
#define GV_IO_FRAME_H

#include <stdint.h>

#include "core/status.h"

/* An 8-bit RGB picture. Owns its pixels; rows are contiguous: stride = 3 * width. */
struct image {
    int      width, height;
    uint8_t *rgb; /* [height, width, 3] */
};
gv_status gv_image_new(struct image *im, int width, int height, struct error *e); /* zeroed */
void      gv_image_free(struct image *im);

/* n values: float [-1, 1] (values outside are clamped, NaN → 0) ↔ 8 bit. To 8 bit: round half up of (x + 1) / 2 · 255. */
void gv_pixels_from_float(uint8_t *rgb, const float *x, int64_t n);
void gv_pixels_to_float(float *x, const uint8_t *rgb, int64_t n);
/* To 16 bit: round half up of (x + 1) / 2 · 65535, for outputs of more than 8 bits. From 8 bit: v · 257, which is exact. */
void gv_pixels16_from_float(uint16_t *rgb, const float *x, int64_t n);
void gv_pixels16_from_8(uint16_t *wide, const uint8_t *rgb, int64_t n);

/* Resize to width × height into float [0, 255], not rounded: [height, width, 3]. Errors: MEMORY, ARGUMENT.
 *   LANCZOS, PIL_BICUBIC: antialiased, as Pillow does it, with its 8-bit rounding after each pass (Resample.c)
 *   TORCH_BYTES: antialiased bicubic as torch does it with bytes, which is what torchvision's resize and so transformers' video
 *                processors give; differs from PIL_BICUBIC by a code here and there
 *   TORCH_BICUBIC: a = -0.75, no antialias, align_corners = false, as torch.nn.functional.interpolate does it */
enum resize_kind { RESIZE_LANCZOS, RESIZE_PIL_BICUBIC, RESIZE_TORCH_BYTES, RESIZE_TORCH_BICUBIC };
gv_status gv_image_resize(float *dst, int width, int height, const struct image *src, enum resize_kind kind, struct error *e);

/* 8-bit planes of one picture, BT.709 limited range, computed exactly and rounded once, half up.
 * 4:4:4: u, v [height, width]. 4:2:0: [ceil(height/2), ceil(width/2)], left-sited: (1 2 1)/4 across, (1 1)/2 down. */
enum yuv_kind { YUV_444, YUV_420, YUV_422 };
void gv_yuv_from_rgb(uint8_t *y, ptrdiff_t y_stride, uint8_t *u, uint8_t *v, ptrdiff_t uv_stride, const uint8_t *rgb, int width,
                     int height, enum yuv_kind kind); /* YUV_444 or YUV_420 */

/* The same in 10 bits from 16-bit RGB. 4:2:2: u, v [height, ceil(width/2)], (1 2 1)/4 across. Strides in samples. */
struct planes10 {
    uint16_t *plane[3];
    ptrdiff_t stride[3];
};
void gv_yuv10_from_rgb16(const struct planes10 *dst, const uint16_t *rgb, int width, int height, enum yuv_kind kind);

#endif
