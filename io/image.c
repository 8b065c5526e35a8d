/* Pictures in and out. The first bytes say what a file is; its name says nothing.
 *
 *     file ─ head ─┬─ PNG ───────────── chunks and checksums (ours) ─ stb_image
 *                  ├─ JPEG ──────────── markers (ours) ─ TurboJPEG, or libav where that is missing
 *                  ├─ WebP BMP TIFF GIF ─────────────── libav decoder, no demuxer
 *                  ├─ MP4 MKV AVI Y4M ───────────────── libav demuxer of that one kind, first frame
 *                  └─ anything else: refused
 *                                             then: limits, alpha over white, EXIF orientation
 *
 * Every byte is hostile. Sizes are read and limited before a decoder runs. stb_image is compiled for PNG only (its GIF reader
 * can be crashed), checks no checksums and inflates without end: the walk over the chunks checks them, refuses compressed
 * data far beyond what the header's size needs, and the allocator given to stb stops at STB_BYTES. A progressive JPEG is cut
 * off at 500 scans. Names never reach a library.
 *
 * Surprises: ICC profiles and gAMA are ignored (sRGB is assumed); 16 bits are cut to 8; CMYK is multiplied out, as Pillow
 * does, inks always inverted, as Pillow and browsers have it. stb keeps its failure text in a thread-local variable; nothing else here is global.
 *
 * Sources: PNG 3rd edition; ITU-T T.81 (JPEG); GIF89a; CIPA DC-008 (EXIF); RFC 9649 (WebP). */
#include "io/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/media_kind.h"
#include "io/sink_kind.h"
#ifdef GV_HAVE_FFMPEG
#include "io/media.h"
#endif
#ifdef GV_HAVE_TURBOJPEG
#include <turbojpeg.h>
#endif

/* The largest honest buffer: 16-bit RGBA of GV_IMAGE_PIXELS and a filter byte a row. */
#define STB_BYTES ((size_t)GV_IMAGE_PIXELS * 8 + GV_IMAGE_SIDE)

static void *stb_malloc(size_t n)
{
    return n > STB_BYTES ? NULL : malloc(n);
}

static void *stb_realloc(void *p, size_t n)
{
    return n > STB_BYTES ? NULL : realloc(p, n);
}

#pragma GCC diagnostic ignored "-Wunused-function" /* judged at the end of this file, so it cannot be popped */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS GV_IMAGE_SIDE
#define STBI_MALLOC(n)     stb_malloc(n)
#define STBI_REALLOC(p, n) stb_realloc(p, n)
#define STBI_FREE(p)       free(p)
#include <stb_image.h>
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>
#pragma GCC diagnostic pop

struct bytes {
    uint8_t *at;
    size_t   size;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static gv_status size_check(int64_t width, int64_t height, const char *path, struct error *e)
{
    if (width >= 1 && height >= 1 && width <= GV_IMAGE_SIDE && height <= GV_IMAGE_SIDE && width * height <= GV_IMAGE_PIXELS)
        return GV_OK;
    return gv_fail(e, GV_ERR_FORMAT, "%s claims %lld×%lld pixels; the limit is %d a side and %d in all", path,
                   (long long)width, (long long)height, GV_IMAGE_SIDE, GV_IMAGE_PIXELS);
}

/* ---- orientation ------------------------------------------------------------------------------------------------------ */

/* Tag 0x0112 in the first directory of a TIFF header (EXIF is one; so is a TIFF file). 1 where there is none. */
static int exif_orientation(const uint8_t *p, size_t size)
{
    if (size < 8 || (memcmp(p, "II*\0", 4) && memcmp(p, "MM\0*", 4)))
        return 1;
    const bool     big = p[0] == 'M';
    const uint32_t dir = big ? be32(p + 4) : le32(p + 4);
    if (dir > size - 2)
        return 1;
    const size_t n = big ? (size_t)(p[dir] << 8 | p[dir + 1]) : (size_t)(p[dir + 1] << 8 | p[dir]);
    for (size_t i = 0, at = (size_t)dir + 2; i < n && at + 12 <= size; i++, at += 12) {
        const uint8_t *t = p + at;
        if ((big ? t[0] << 8 | t[1] : t[1] << 8 | t[0]) != 0x0112)
            continue;
        const int value = big ? t[8] << 8 | t[9] : t[9] << 8 | t[8];
        return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}

/* o as in EXIF: 1 upright; 5..8 have their sides swapped. */
gv_status gv_image_orient(struct image *im, int o, struct error *e)
{
    const bool   swap = o >= 5, flip_x = o == 2 || o == 3 || o == 6 || o == 7, flip_y = o == 3 || o == 4 || o == 7 || o == 8;
    struct image out;
    if (o <= 1 || o > 8)
        return GV_OK;
    TRY(gv_image_new(&out, swap ? im->height : im->width, swap ? im->width : im->height, e));
    for (int64_t y = 0; y < im->height; y++)
        for (int64_t x = 0; x < im->width; x++) {
            int64_t ox = swap ? y : x, oy = swap ? x : y;
            ox = flip_x ? out.width - 1 - ox : ox;
            oy = flip_y ? out.height - 1 - oy : oy;
            memcpy(out.rgb + (oy * out.width + ox) * 3, im->rgb + (y * im->width + x) * 3, 3);
        }
    gv_image_free(im);
    *im = out;
    return GV_OK;
}

/* ---- PNG -------------------------------------------------------------------------------------------------------------- */

static uint32_t crc_update(uint32_t crc, const uint8_t *p, size_t n)
{
    static const uint32_t nibble[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}

static uint32_t crc(const uint8_t *p, size_t n)
{
    return ~crc_update(~0u, p, n);
}

struct png_facts {
    int64_t width, height;
    size_t  raw_bytes, idat_bytes; /* what the header needs inflated; what there is compressed */
    int     orientation;
};

static gv_status png_header(struct png_facts *f, const uint8_t *p, const char *path, struct error *e)
{
    static const int channels[7] = {1, 0, 3, 1, 2, 0, 4};
    const int        depth = p[8], type = p[9];
    f->width  = be32(p);
    f->height = be32(p + 4);
    TRY(size_check(f->width, f->height, path, e));
    if (type > 6 || !channels[type] || (depth != 1 && depth != 2 && depth != 4 && depth != 8 && depth != 16))
        return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged PNG: its header says colour type %d with %d bits", path, type, depth);
    f->raw_bytes = (size_t)f->height * ((size_t)f->width * (size_t)channels[type] * (size_t)depth / 8 + 2);
    return GV_OK;
}

/* From signature to IEND: every chunk inside the file and with its checksum right. */
static gv_status png_walk(struct png_facts *f, struct bytes b, const char *path, struct error *e)
{
    *f = (struct png_facts){.orientation = 1};
    for (size_t at = 8; b.size - at >= 12;) {
        const uint8_t *p = b.at + at;
        const size_t   n = be32(p);
        if (n > b.size - at - 12)
            break;
        if (crc(p + 4, n + 4) != be32(p + 8 + n))
            return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged PNG: the chunk at byte %zu fails its checksum", path, at);
        if ((at == 8) != !memcmp(p + 4, "IHDR", 4) || (at == 8 && n != 13))
            return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged PNG: its header is not where it must be", path);
        if (at == 8)
            TRY(png_header(f, p + 8, path, e));
        if (!memcmp(p + 4, "IDAT", 4))
            f->idat_bytes += n;
        if (!memcmp(p + 4, "eXIf", 4))
            f->orientation = exif_orientation(p + 8, n);
        if (!memcmp(p + 4, "IEND", 4))
            return GV_OK;
        at += n + 12;
    }
    return gv_fail(e, GV_ERR_FORMAT, "%s is a truncated PNG: it ends after %zu bytes inside a chunk", path, b.size);
}

static uint8_t over_white(int c, int a)
{
    return (uint8_t)((c * a + 255 * (255 - a) + 127) / 255);
}

static gv_status png_read(struct image *im, int *orientation, struct bytes b, const char *path, struct error *e)
{
    struct png_facts f;
    int              width, height, channels;
    TRY(png_walk(&f, b, path, e));
    *orientation = f.orientation;
    if (f.idat_bytes > 2 * f.raw_bytes + 65536)
        return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged PNG: %zu compressed bytes for %lld×%lld pixels", path, f.idat_bytes,
                       (long long)f.width, (long long)f.height);
    uint8_t *rgba = stbi_load_from_memory(b.at, (int)b.size, &width, &height, &channels, 4);
    if (!rgba)
        return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged PNG: %s", path, stbi_failure_reason());
    const gv_status st = gv_image_new(im, width, height, e);
    for (int64_t i = 0; st == GV_OK && i < (int64_t)width * height; i++)
        for (int k = 0; k < 3; k++)
            im->rgb[i * 3 + k] = over_white(rgba[i * 4 + k], rgba[i * 4 + 3]);
    free(rgba);
    return st;
}

static uint8_t *put_chunk(uint8_t *p, const char *type, const void *a, size_t na, const void *b, size_t nb)
{
    const size_t   n       = na + nb;
    const uint8_t  head[8] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n,
                              (uint8_t)type[0],   (uint8_t)type[1],   (uint8_t)type[2],  (uint8_t)type[3]};
    memcpy(p, head, 8);
    memcpy(p + 8, a, na);
    if (nb)
        memcpy(p + 8 + na, b, nb);
    const uint32_t c = crc(p + 4, n + 4);
    for (int i = 0; i < 4; i++)
        p[8 + n + (size_t)i] = (uint8_t)(c >> (24 - 8 * i));
    return p + 12 + n;
}

/* stb's PNG with an sRGB chunk and the comment put in behind its header. */
static gv_status png_encode(struct bytes *out, const uint8_t *rgb, int width, int height, const char *comment, struct error *e)
{
    static const char itxt[] = "Comment\0\0\0\0"; /* keyword, not compressed, no language, no translated keyword */
    enum { HEADER = 8 + 25, ITXT = sizeof itxt - 1 + 1 };
    const size_t   extra = comment ? strlen(comment) : 0;
    int            size  = 0;
    unsigned char *png   = stbi_write_png_to_mem(rgb, width * 3, width, height, 3, &size);
    uint8_t       *all   = png && extra < 1 << 24 ? malloc((size_t)size + extra + 64) : NULL;
    if (!all) {
        free(png);
        return gv_fail(e, GV_ERR_MEMORY, "no memory to write a PNG of %d×%d", width, height);
    }
    memcpy(all, png, HEADER);
    uint8_t *p = put_chunk(all + HEADER, "sRGB", "", 1, NULL, 0);
    if (comment)
        p = put_chunk(p, "iTXt", itxt, ITXT, comment, extra);
    memcpy(p, png + HEADER, (size_t)size - HEADER);
    *out = (struct bytes){all, (size_t)(p - all) + (size_t)size - HEADER};
    free(png);
    return GV_OK;
}

/* ---- JPEG ------------------------------------------------------------------------------------------------------------- */

/* EXIF's orientation, from the markers before the first scan. */
static int jpeg_orientation(struct bytes b)
{
    for (size_t at = 2; at + 4 <= b.size && b.at[at] == 0xff;) {
        const uint8_t *p = b.at + at;
        if (p[1] == 0xff) { /* fill byte */
            at++;
            continue;
        }
        if (p[1] == 0xda || p[1] == 0xd9)
            break;
        const size_t n = (size_t)(p[2] << 8 | p[3]);
        if (n < 2 || n > b.size - at - 2)
            break;
        if (p[1] == 0xe1 && n >= 8 && !memcmp(p + 4, "Exif\0", 6))
            return exif_orientation(p + 10, n - 8);
        at += 2 + n;
    }
    return 1;
}

#ifdef GV_HAVE_TURBOJPEG

/* Inks are stored inverted: Adobe does so, and so do all files that are met, with or without Adobe's marker. */
static void rgb_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 3; k++)
            rgb[i * 3 + k] = (uint8_t)((cmyk[i * 4 + k] * cmyk[i * 4 + 3] + 127) / 255);
}

static gv_status jpeg_fail(tjhandle h, const char *path, struct error *e)
{
    return gv_fail(e, GV_ERR_FORMAT, "%s is a JPEG that cannot be read: %s", path, tjGetErrorStr2(h));
}

/* Cameras leave a few bytes between segments; everything else that libjpeg warns of means lost pixels. */
static bool jpeg_harmless(tjhandle h)
{
    return tjGetErrorCode(h) == TJERR_WARNING && strstr(tjGetErrorStr2(h), "extraneous bytes before marker");
}

static gv_status jpeg_decode(struct image *im, tjhandle h, struct bytes b, const char *path, struct error *e)
{
    enum { FLAGS = TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS };
    const unsigned long size = (unsigned long)b.size;
    int                 width, height, sampling, space;
    if (tjDecompressHeader3(h, b.at, size, &width, &height, &sampling, &space) != 0)
        return jpeg_fail(h, path, e);
    TRY(size_check(width, height, path, e));
    TRY(gv_image_new(im, width, height, e));
    if (space != TJCS_CMYK && space != TJCS_YCCK) {
        const int r = tjDecompress2(h, b.at, size, im->rgb, width, 0, height, TJPF_RGB, FLAGS);
        return r == 0 || jpeg_harmless(h) ? GV_OK : jpeg_fail(h, path, e);
    }
    uint8_t *cmyk = malloc((size_t)width * (size_t)height * 4);
    if (!cmyk)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for %s of %d×%d", path, width, height);
    const int       r  = tjDecompress2(h, b.at, size, cmyk, width, 0, height, TJPF_CMYK, FLAGS);
    const gv_status st = r == 0 || jpeg_harmless(h) ? GV_OK : jpeg_fail(h, path, e);
    rgb_from_cmyk(im->rgb, cmyk, (int64_t)width * height);
    free(cmyk);
    return st;
}

static gv_status jpeg_pixels(struct image *im, struct bytes b, const char *path, struct error *e)
{
    tjhandle h = tjInitDecompress();
    if (!h)
        return gv_fail(e, GV_ERR_MEMORY, "no memory to read %s", path);
    const gv_status st = jpeg_decode(im, h, b, path, e);
    tjDestroy(h);
    return st;
}

/* TurboJPEG's JPEG with the comment behind its JFIF header; a comment beyond one segment is left out. */
static gv_status jpeg_encode(struct bytes *out, const uint8_t *rgb, int width, int height, const char *comment, struct error *e)
{
    enum { QUALITY = 95, HEADER = 20, COMMENT = 65533 };
    const size_t   n    = comment && strlen(comment) <= COMMENT ? strlen(comment) : 0;
    tjhandle       h    = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long  size = 0;
    const int      r    = h ? tjCompress2(h, rgb, width, 0, height, TJPF_RGB, &jpeg, &size, TJSAMP_444, QUALITY,
                                          TJFLAG_ACCURATEDCT) : -1;
    uint8_t       *all  = r == 0 && size > HEADER ? malloc(size + n + 4) : NULL;
    if (all) {
        const uint8_t mark[4] = {0xff, 0xfe, (uint8_t)((n + 2) >> 8), (uint8_t)(n + 2)};
        uint8_t      *p       = all + HEADER;
        memcpy(all, jpeg, HEADER);
        if (n) {
            memcpy(p, mark, 4);
            memcpy(p + 4, comment, n);
            p += n + 4;
        }
        memcpy(p, jpeg + HEADER, size - HEADER);
        *out = (struct bytes){all, (size_t)(p - all) + size - HEADER};
    }
    tjFree(jpeg);
    if (h)
        tjDestroy(h);
    return all ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "no memory to write a JPEG of %d×%d", width, height);
}

#else

static gv_status jpeg_pixels(struct image *im, struct bytes b, const char *path, struct error *e)
{
#ifdef GV_HAVE_FFMPEG
    return gv_media_read_still(im, MEDIA_JPEG, b.at, b.size, path, e);
#else
    (void)im, (void)b;
    return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a JPEG and this build lacks both TurboJPEG and libav; it reads PNG", path);
#endif
}

static gv_status jpeg_encode(struct bytes *out, const uint8_t *rgb, int width, int height, const char *comment, struct error *e)
{
    (void)out, (void)rgb, (void)comment;
    return gv_fail(e, GV_ERR_UNSUPPORTED, "this build lacks TurboJPEG and cannot write a JPEG of %d×%d; it writes PNG", width,
                   height);
}

#endif

static gv_status jpeg_read(struct image *im, int *orientation, struct bytes b, const char *path, struct error *e)
{
    *orientation = jpeg_orientation(b);
    return jpeg_pixels(im, b, path, e);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

/* Appends to b until it holds limit bytes or the file ends. b has room for limit. */
static gv_status fill(struct bytes *b, size_t limit, int fd, const char *path, struct error *e)
{
    while (b->size < limit) {
        const ssize_t n = read(fd, b->at + b->size, limit - b->size);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            return gv_fail_read(e, path, errno);
        b->size += n > 0 ? (size_t)n : 0;
    }
    return GV_OK;
}

/* The whole file behind its head, which b holds already; pipes too, so the size is only a guess. */
static gv_status fill_all(struct bytes *b, const struct stat *s, int fd, const char *path, struct error *e)
{
    size_t room =
        S_ISREG(s->st_mode) && s->st_size > GV_MEDIA_HEAD && s->st_size <= GV_IMAGE_BYTES ? (size_t)s->st_size : 1 << 20;
    for (;;) {
        uint8_t *more = realloc(b->at, room + 1);
        if (!more)
            return gv_fail(e, GV_ERR_MEMORY, "no memory for the %zu bytes of %s", room, path);
        b->at = more;
        TRY(fill(b, room + 1, fd, path, e));
        if (b->size <= room)
            return GV_OK;
        if (b->size > GV_IMAGE_BYTES)
            return gv_fail(e, GV_ERR_FORMAT, "%s is larger than the limit of %d bytes", path, GV_IMAGE_BYTES);
        room = room < GV_IMAGE_BYTES / 2 ? room * 2 : GV_IMAGE_BYTES;
    }
}

#ifdef GV_HAVE_FFMPEG

/* Where a still outside PNG and JPEG keeps its orientation: a TIFF in its first directory, WebP in a chunk EXIF. */
static int still_orientation(enum media_still kind, struct bytes b)
{
    if (kind == MEDIA_TIFF)
        return exif_orientation(b.at, b.size);
    for (size_t at = 12; kind == MEDIA_WEBP && at + 8 <= b.size;) {
        const size_t n = le32(b.at + at + 4);
        if (n > b.size - at - 8)
            break;
        if (!memcmp(b.at + at, "EXIF", 4)) {
            const size_t skip = n >= 6 && !memcmp(b.at + at + 8, "Exif\0", 6) ? 6 : 0;
            return exif_orientation(b.at + at + 8 + skip, n - skip);
        }
        at += 8 + n + (n & 1);
    }
    return 1;
}

/* The place behind the sub-blocks that begin at at; 0 where the file ends before. */
static size_t gif_blocks(struct bytes b, size_t at)
{
    while (at < b.size && b.at[at])
        at += 1 + (size_t)b.at[at];
    return at < b.size ? at + 1 : 0;
}

static size_t gif_table(uint8_t flags)
{
    return flags & 0x80 ? (size_t)3 << ((flags & 7) + 1) : 0;
}

/* libav's decoder is content with half a picture. */
static bool gif_whole(struct bytes b)
{
    size_t at = b.size < 13 ? 0 : 13 + gif_table(b.at[10]);
    while (at && at < b.size && b.at[at] == 0x21) /* extension: mark, label, blocks */
        at = gif_blocks(b, at + 2);
    if (!at || b.size < 10 || at >= b.size - 10 || b.at[at] != 0x2c)
        return false;
    return gif_blocks(b, at + 11 + gif_table(b.at[at + 9])) != 0;
}

static gv_status still_read(struct image *im, int *orientation, const struct media_kind *m, struct bytes b, const char *path,
                            struct error *e)
{
    if (m->detail == MEDIA_GIF && !gif_whole(b))
        return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged or truncated GIF: its first picture is not whole", path);
    *orientation = still_orientation((enum media_still)m->detail, b);
    return gv_media_read_still(im, (enum media_still)m->detail, b.at, b.size, path, e);
}

static gv_status clip_read(struct image *im, int *orientation, const struct media_kind *m, int fd, const struct stat *s,
                           const char *path, struct error *e)
{
    if (!S_ISREG(s->st_mode))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a clip in a pipe; its first frame can only be read from a file", path);
    return gv_media_read_clip(im, orientation, (enum media_clip)m->detail, fd, path, e);
}

#else

static gv_status still_read(struct image *im, int *orientation, const struct media_kind *m, struct bytes b, const char *path,
                            struct error *e)
{
    (void)im, (void)orientation, (void)b;
    return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a %s, which this build cannot read because it lacks libav", path, m->name);
}

static gv_status clip_read(struct image *im, int *orientation, const struct media_kind *m, int fd, const struct stat *s,
                           const char *path, struct error *e)
{
    (void)fd, (void)s;
    return still_read(im, orientation, m, (struct bytes){0}, path, e);
}

#endif

static gv_status refuse(const struct media_kind *m, struct bytes b, const char *path, struct error *e)
{
    if (m)
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a %s, not a picture or clip that can be read", path, m->name);
    const uint8_t *p = b.at;
    if (b.size < 4)
        return gv_fail(e, GV_ERR_FORMAT, "%s is not a picture: it has %zu bytes", path, b.size);
    return gv_fail(e, GV_ERR_FORMAT, "%s is not a picture or clip: no known kind begins with the bytes %02x %02x %02x %02x", path,
                   p[0], p[1], p[2], p[3]);
}

static gv_status read_any(struct image *im, struct bytes *b, int fd, const char *path, struct error *e)
{
    struct stat s;
    int         orientation = 1;
    if (fstat(fd, &s) != 0)
        return gv_fail_read(e, path, errno);
    if (!(b->at = malloc(GV_MEDIA_HEAD)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory to read %s", path);
    TRY(fill(b, GV_MEDIA_HEAD, fd, path, e));
    if (!b->size)
        return gv_fail(e, GV_ERR_FORMAT, "%s is empty", path);

    const struct media_kind *m = gv_media_kind(b->at, b->size);
    if (!m || m->class == KIND_REFUSED)
        return refuse(m, *b, path, e);
    if (m->class == KIND_CLIP) {
        TRY(clip_read(im, &orientation, m, fd, &s, path, e));
    } else {
        TRY(fill_all(b, &s, fd, path, e));
        if (m->class == KIND_PNG)
            TRY(png_read(im, &orientation, *b, path, e));
        else if (m->class == KIND_JPEG)
            TRY(jpeg_read(im, &orientation, *b, path, e));
        else
            TRY(still_read(im, &orientation, m, *b, path, e));
    }
    TRY(size_check(im->width, im->height, path, e));
    return gv_image_orient(im, orientation, e);
}

gv_status gv_image_read(struct image *im, const char *path, struct error *e)
{
    struct bytes b = {0};
    *im            = (struct image){0};
    const int fd   = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return gv_fail_read(e, path, errno);
    const gv_status st = read_any(im, &b, fd, path, e);
    if (st != GV_OK)
        gv_image_free(im);
    free(b.at);
    close(fd);
    return st;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

gv_status gv_image_encode(uint8_t **out, size_t *size, enum image_kind kind, const uint8_t *rgb, int width, int height,
                          const char *comment, struct error *e)
{
    struct bytes b = {0};
    if (width < 1 || height < 1 || width > GV_IMAGE_SIDE || height > GV_IMAGE_SIDE)
        return gv_fail(e, GV_ERR_ARGUMENT, "a picture of %d×%d cannot be written", width, height);
    if (kind == IMAGE_PNG)
        TRY(png_encode(&b, rgb, width, height, comment, e));
    else
        TRY(jpeg_encode(&b, rgb, width, height, comment, e));
    *out  = b.at;
    *size = b.size;
    return GV_OK;
}

gv_status gv_image_write(const char *path, const uint8_t *rgb, int width, int height, struct error *e)
{
    const char *dot  = strrchr(path, '.');
    const bool  png  = dot && !strcasecmp(dot, ".png");
    const bool  jpeg = dot && (!strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
    struct part part = {.fd = -1};
    uint8_t    *bytes;
    size_t      size;
    if (!png && !jpeg)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: a picture is written as .png, .jpg or .jpeg", path);
    TRY(gv_image_encode(&bytes, &size, png ? IMAGE_PNG : IMAGE_JPEG, rgb, width, height, NULL, e));
    gv_status st = gv_part_open(&part, path, false, e);
    if (st == GV_OK)
        st = gv_part_write(&part, bytes, size, e);
    if (st == GV_OK)
        st = gv_part_publish(&part, 1, e);
    gv_part_close(&part);
    free(bytes);
    return st;
}
