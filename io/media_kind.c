#include "io/media_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first that fits; so brands that libav cannot read stand before the rest of their family. */
static const struct media_kind magics[] = {
    { "PNG", 0, 8, "\x89PNG\r\n\x1a\n", 0, 0, NULL, KIND_PNG, 0 },
    { "JPEG", 0, 3, "\xff\xd8\xff", 0, 0, NULL, KIND_JPEG, 0 },
    { "WebP", 0, 4, "RIFF", 8, 4, "WEBP", KIND_STILL, MEDIA_WEBP },
    { "GIF", 0, 4, "GIF8", 0, 0, NULL, KIND_STILL, MEDIA_GIF },
    { "TIFF", 0, 4, "II*\0", 0, 0, NULL, KIND_STILL, MEDIA_TIFF },
    { "TIFF", 0, 4, "MM\0*", 0, 0, NULL, KIND_STILL, MEDIA_TIFF },
    { "BMP", 0, 2, "BM", 6, 4, "\0\0\0\0", KIND_STILL, MEDIA_BMP },
    { "HEIC picture", 4, 7, "ftyphei", 0, 0, NULL, KIND_REFUSED, 0 },
    { "HEIC picture", 4, 8, "ftypmif1", 0, 0, NULL, KIND_REFUSED, 0 },
    { "AVIF picture", 4, 7, "ftypavi", 0, 0, NULL, KIND_REFUSED, 0 },
    { "MP4", 4, 4, "ftyp", 0, 0, NULL, KIND_CLIP, MEDIA_MOV },
    { "QuickTime", 4, 4, "moov", 0, 0, NULL, KIND_CLIP, MEDIA_MOV },
    { "QuickTime", 4, 4, "mdat", 0, 0, NULL, KIND_CLIP, MEDIA_MOV },
    { "QuickTime", 4, 4, "wide", 0, 0, NULL, KIND_CLIP, MEDIA_MOV },
    { "QuickTime", 4, 4, "free", 0, 0, NULL, KIND_CLIP, MEDIA_MOV },
    { "Matroska", 0, 4, "\x1a\x45\xdf\xa3", 0, 0, NULL, KIND_CLIP, MEDIA_MATROSKA },
    { "AVI", 0, 4, "RIFF", 8, 4, "AVI ", KIND_CLIP, MEDIA_AVI },
    { "Y4M", 0, 10, "YUV4MPEG2 ", 0, 0, NULL, KIND_CLIP, MEDIA_Y4M },
    { "playlist", 0, 7, "#EXTM3U", 0, 0, NULL, KIND_REFUSED, 0 },
    { "playlist", 0, 8, "ffconcat", 0, 0, NULL, KIND_REFUSED, 0 },
    { "playlist", 0, 10, "[playlist]", 0, 0, NULL, KIND_REFUSED, 0 },
    { "PDF", 0, 5, "%PDF-", 0, 0, NULL, KIND_REFUSED, 0 },
    { "Photoshop file", 0, 4, "8BPS", 0, 0, NULL, KIND_REFUSED, 0 },
    { "JPEG XL picture", 0, 2, "\xff\x0a", 0, 0, NULL, KIND_REFUSED, 0 },
    { "JPEG XL picture", 4, 8, "JXL \r\n\x87\n", 0, 0, NULL, KIND_REFUSED, 0 },
    { "OpenEXR picture", 0, 4, "\x76\x2f\x31\x01", 0, 0, NULL, KIND_REFUSED, 0 },
    { "SVG drawing", 0, 4, "<svg", 0, 0, NULL, KIND_REFUSED, 0 },
    { "text of HTML or XML", 0, 1, "<", 0, 0, NULL, KIND_REFUSED, 0 },
};

static bool at_place(const uint8_t *head, size_t size, int at, int length, const char *bytes)
{
    return size >= (size_t)(at + length) && !memcmp(head + at, bytes, (size_t)length);
}

const struct media_kind *gv_media_kind(const uint8_t *head, size_t size)
{
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const struct media_kind *m = &magics[i];
        if (at_place(head, size, m->at, m->length, m->bytes) &&
            (!m->length2 || at_place(head, size, m->at2, m->length2, m->bytes2)))
            return m;
    }
    return NULL;
}

gv_status gv_media_open(int *fd, const struct media_kind **kind, const char *path, struct error *e)
{
    uint8_t     head[GV_MEDIA_HEAD];
    struct stat s;
    ssize_t     n;
    *kind = NULL;
    if ((*fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)) < 0 || fstat(*fd, &s) != 0)
        return gv_fail_read(e, path, errno);
    if (!S_ISREG(s.st_mode))
        return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is not a regular file", path);
    if ((n = pread(*fd, head, sizeof head, 0)) < 0)
        return gv_fail_read(e, path, errno);
    *kind = gv_media_kind(head, (size_t)n);
    return GV_OK;
}
