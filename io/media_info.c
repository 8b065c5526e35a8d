/* PNG and JPEG are walked here, chunk by chunk and marker by marker, up to their pixels; clips are asked through libav. Every
 * length is checked against the file's before it is followed.
 *
 * Sources: PNG 3rd edition §11.3.3 (iTXt); ITU-T T.81 §B.2 (COM, SOF). */
#include "io/media_info.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file, and where the walk stands in it. */
struct walk {
    int         fd;
    int64_t     at, size;
    const char *path;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* n bytes from the walk's place on; false where the file ends before. */
static bool peek(const struct walk *w, void *out, size_t n)
{
    return w->size - w->at >= (int64_t)n && pread(w->fd, out, n, (off_t)w->at) == (ssize_t)n;
}

static gv_status keep(struct media_info *m, const char *text, size_t n, const char *path, struct error *e)
{
    if (!m->comment && !(m->comment = strndup(text, n)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the comment of %s", path);
    return GV_OK;
}

/* The body of the chunk or segment at the walk's place, n bytes. */
static gv_status body(struct walk *w, size_t n, char **out, struct error *e)
{
    if (!(*out = malloc(n + 1)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the comment of %s", w->path);
    if (!peek(w, *out, n)) {
        free(*out);
        *out = NULL;
        return gv_fail(e, GV_ERR_FORMAT, "%s is truncated", w->path);
    }
    (*out)[n] = '\0';
    return GV_OK;
}

/* keyword \0 flag method language \0 keyword \0 text, of which we read what is not compressed. */
static gv_status png_text(struct media_info *m, struct walk *w, size_t n, struct error *e)
{
    static const char keyword[] = "Comment";
    char             *text = NULL;
    TRY(body(w, n, &text, e));
    gv_status   st = GV_OK;
    const char *end = text + n, *p = text + sizeof keyword + 2;
    if (n > sizeof keyword + 4 && !memcmp(text, keyword, sizeof keyword) && !text[sizeof keyword]) {
        for (int i = 0; i < 2 && p; i++) {
            p = memchr(p, 0, (size_t)(end - p));
            p = p ? p + 1 : NULL;
        }
        if (p)
            st = keep(m, p, (size_t)(end - p), w->path, e);
    }
    free(text);
    return st;
}

static gv_status png_walk(struct media_info *m, struct walk *w, struct error *e)
{
    uint8_t head[8], size[8];
    for (w->at = 8;; w->at += 4) {
        if (!peek(w, head, sizeof head))
            return gv_fail(e, GV_ERR_FORMAT, "%s is a truncated PNG", w->path);
        const uint32_t n = be32(head);
        if (n > INT32_MAX || (int64_t)n > w->size - w->at - 8)
            return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged PNG: a chunk claims %u bytes", w->path, n);
        w->at += 8;
        if (!memcmp(head + 4, "IDAT", 4) || !memcmp(head + 4, "IEND", 4))
            return GV_OK;
        if (!memcmp(head + 4, "IHDR", 4) && n >= 8 && peek(w, size, sizeof size)) {
            m->width = (int)(be32(size) & INT32_MAX);
            m->height = (int)(be32(size + 4) & INT32_MAX);
        }
        if (!memcmp(head + 4, "iTXt", 4) && n <= GV_COMMENT_BYTES)
            TRY(png_text(m, w, n, e));
        w->at += n;
    }
}

static bool is_frame_header(uint8_t marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

static gv_status jpeg_walk(struct media_info *m, struct walk *w, struct error *e)
{
    uint8_t p[9];
    for (w->at = 2; peek(w, p, 4) && p[0] == 0xff;) {
        const int64_t n = (int64_t)p[2] << 8 | p[3];
        if (p[1] == 0xff) { /* fill byte */
            w->at++;
            continue;
        }
        if (p[1] == 0xda || p[1] == 0xd9)
            return GV_OK;
        if (n < 2 || n > w->size - w->at - 2)
            break;
        if (is_frame_header(p[1]) && peek(w, p, 9)) {
            m->height = p[5] << 8 | p[6];
            m->width = p[7] << 8 | p[8];
        }
        w->at += 4;
        if (p[1] == 0xfe) {
            char *text = NULL;
            TRY(body(w, (size_t)(n - 2), &text, e));
            const gv_status st = keep(m, text, (size_t)(n - 2), w->path, e);
            free(text);
            TRY(st);
        }
        w->at += n - 2;
    }
    return gv_fail(e, GV_ERR_FORMAT, "%s is a damaged or truncated JPEG", w->path);
}

#ifndef GV_HAVE_FFMPEG
gv_status gv_media_clip_info(struct media_info *out, enum media_clip kind, int fd, const char *path, struct error *e)
{
    (void)kind, (void)fd;
    return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a %s, which this build cannot read because it lacks libav", path, out->kind);
}
#endif

static gv_status read_file(struct media_info *m, struct walk *w, struct error *e)
{
    const struct media_kind *k;
    struct stat              s;
    TRY(gv_media_open(&w->fd, &k, w->path, e));
    if (fstat(w->fd, &s) != 0)
        return gv_fail_read(e, w->path, errno);
    w->size = s.st_size;
    if (!k)
        return gv_fail(e, GV_ERR_FORMAT, "%s is not a picture or clip that is known", w->path);
    m->kind = k->name;
    switch (k->class) {
    case KIND_PNG: return png_walk(m, w, e);
    case KIND_JPEG: return jpeg_walk(m, w, e);
    case KIND_CLIP: return gv_media_clip_info(m, (enum media_clip)k->detail, w->fd, w->path, e);
    case KIND_STILL:
        return k->detail == MEDIA_GIF ? gv_media_clip_info(m, MEDIA_GIF_CLIP, w->fd, w->path, e) : GV_OK; /* no words of ours */
    case KIND_REFUSED: break;
    }
    return gv_fail(e, GV_ERR_UNSUPPORTED, "%s is a %s, which is not read", w->path, k->name);
}

gv_status gv_media_info_read(struct media_info *out, const char *path, struct error *e)
{
    *out = (struct media_info){ 0 };
    struct walk     w = { .fd = -1, .path = path };
    const gv_status st = read_file(out, &w, e);
    if (w.fd >= 0)
        close(w.fd);
    if (st != GV_OK)
        gv_media_info_close(out);
    return st;
}

void gv_media_info_close(struct media_info *m)
{
    free(m->comment);
    *m = (struct media_info){ 0 };
}
