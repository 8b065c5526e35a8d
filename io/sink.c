/* Where frames go: which kind takes them, and how a file comes to be whole or absent.
 *
 * Every file is written as ".NAME.PID-N.part" in its own folder (rename works within one file system only), synced, renamed,
 * and the folder synced. A numbered sequence does the same for each member and renames them all at commit, so that no
 * half sequence is ever seen under its names; should the process be killed in the middle, only .part files stay.
 *
 * Surprises: a rename replaces whatever has the name. If that is a link, its target is replaced; if it is a pipe or a device
 * it is written in place, where the kind can (y4m, y4m444, rgb). The number in a sequence's name counts from 0. The name is
 * never used as a format: it is parsed here. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "io/sink_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/image.h"
#ifdef GV_HAVE_FFMPEG
#include "io/media.h"
#endif

/* ---- a file that is whole or absent ----------------------------------------------------------------------------------- */

gv_status gv_part_fail(const struct part *p, int err, struct error *e)
{
    char why[128] = "unknown error";
    strerror_r(err, why, sizeof why);
    return gv_fail(e, GV_ERR_IO, "cannot write %s: %s", p->path, why);
}

static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

static gv_status part_create(struct part *p, struct error *e)
{
    const size_t folder = folder_length(p->path);
    const char  *name   = p->path + folder;
    const size_t room   = folder + 256;
    if (!(p->temp = malloc(room)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the name of %s", p->path);
    for (int n = 0; n < 1000; n++) {
        snprintf(p->temp, room, "%.*s.%.200s.%ld-%d.part", (int)folder, p->path, name, (long)getpid(), n);
        p->fd = open(p->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (p->fd >= 0 || errno != EEXIST)
            break;
    }
    if (p->fd >= 0)
        return GV_OK;
    const int err = errno;
    free(p->temp);
    p->temp = NULL;
    return gv_part_fail(p, err, e);
}

static gv_status part_open_stream(struct part *p, bool streams, struct error *e)
{
    if (!streams)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s cannot take this format, which needs a regular file; y4m and rgb can go there",
                       p->path);
    if (!strcmp(p->path, "standard output"))
        p->fd = STDOUT_FILENO;
    else if ((p->fd = open(p->path, O_WRONLY | O_CLOEXEC | O_NOCTTY)) < 0)
        return gv_part_fail(p, errno, e);
    return GV_OK;
}

gv_status gv_part_open(struct part *p, const char *path, bool streams, struct error *e)
{
    struct stat s;
    const bool  out    = !strcmp(path, "-");
    const bool  exists = !out && stat(path, &s) == 0;

    *p      = (struct part){.fd = -1};
    p->path = exists && S_ISREG(s.st_mode) ? realpath(path, NULL) : strdup(out ? "standard output" : path);
    if (!p->path)
        return gv_fail(e, GV_ERR_IO, "cannot write %s: its folder cannot be followed", path);
    if (out)
        return part_open_stream(p, streams, e);
    if ((exists && S_ISDIR(s.st_mode)) || !path[folder_length(path)])
        return gv_fail(e, GV_ERR_IO, "cannot write %s: it names a folder", path);
    if (exists && !S_ISREG(s.st_mode))
        return part_open_stream(p, streams, e);
    if (exists && access(path, W_OK) != 0)
        return gv_part_fail(p, errno, e);
    return part_create(p, e);
}

gv_status gv_part_write(struct part *p, const void *bytes, size_t size, struct error *e)
{
    const char *at = bytes;
    while (size) {
        const ssize_t n = write(p->fd, at, size);
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) { /* someone else's non-blocking standard output */
            struct pollfd ready = {.fd = p->fd, .events = POLLOUT};
            poll(&ready, 1, 1000);
        } else if (n < 0 && errno != EINTR) {
            return gv_part_fail(p, errno, e);
        }
    }
    return GV_OK;
}

gv_status gv_part_seal(struct part *p, struct error *e)
{
    if (p->fd < 0 || p->fd == STDOUT_FILENO)
        return GV_OK;
    if (p->temp && fsync(p->fd) != 0 && errno != EINVAL && errno != ENOTSUP)
        return gv_part_fail(p, errno, e);
    const int fd = p->fd;
    p->fd        = -1;
    return close(fd) == 0 || errno == EINTR ? GV_OK : gv_part_fail(p, errno, e);
}

static void sync_folder(const char *path)
{
    char         folder[4096];
    const size_t length = folder_length(path);
    if (length >= sizeof folder) /* no such path can be opened */
        return;
    snprintf(folder, sizeof folder, "%.*s", length ? (int)length : 1, length ? path : ".");
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* some file systems cannot; the rename holds all the same */
        close(fd);
    }
}

gv_status gv_part_publish(struct part *parts, size_t n, struct error *e)
{
    gv_status st   = GV_OK;
    size_t    done = 0;
    for (size_t i = 0; i < n && st == GV_OK; i++)
        st = gv_part_seal(&parts[i], e);
    for (; done < n && st == GV_OK; done++) {
        struct part *p = &parts[done];
        if (!p->temp)
            continue;
        if (rename(p->temp, p->path) != 0) {
            st = gv_part_fail(p, errno, e);
            break;
        }
        free(p->temp);
        p->temp = NULL;
        if (done + 1 == n)
            sync_folder(p->path);
    }
    if (st != GV_OK)
        for (size_t i = 0; i < done; i++)
            unlink(parts[i].path);
    return st;
}

void gv_part_close(struct part *p)
{
    if (p->path && p->fd >= 0 && p->fd != STDOUT_FILENO)
        close(p->fd);
    if (p->temp)
        unlink(p->temp);
    free(p->temp);
    free(p->path);
    *p = (struct part){.fd = -1};
}

/* ---- numbered pictures ------------------------------------------------------------------------------------------------ */

/* Where the number stands in a name: name[at, at + length) is "%d" or "%04d"; length 0 = nowhere. */
struct number {
    size_t at, length;
    int    digits;
};

static bool number_find(const char *path, struct number *out)
{
    *out = (struct number){0};
    for (const char *p = strchr(path, '%'); p; p = strchr(p, '%')) {
        const bool wide = p[1] == '0' && p[2] >= '1' && p[2] <= '9' && p[3] == 'd';
        if (!wide && p[1] != 'd')
            return false;
        if (out->length || strchr(p, '/'))
            return false;
        *out = (struct number){.at = (size_t)(p - path), .length = wide ? 4 : 2, .digits = wide ? p[2] - '0' : 1};
        p += out->length;
    }
    return true;
}

struct sequence {
    enum image_kind kind;
    int             width, height;
    int64_t         frames;
    size_t          count;
    struct number   number;
    char           *path, *comment;
    struct part    *parts; /* [frames] */
};

static gv_status member_open(struct sequence *s, struct error *e)
{
    const struct number n    = s->number;
    const size_t        room = strlen(s->path) + 32;
    char               *name = malloc(room);
    if (!name)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the name of %s", s->path);
    if (n.length)
        snprintf(name, room, "%.*s%0*zu%s", (int)n.at, s->path, n.digits, s->count, s->path + n.at + n.length);
    else
        snprintf(name, room, "%s", s->path);
    const gv_status st = gv_part_open(&s->parts[s->count], name, false, e);
    free(name);
    return st;
}

static gv_status sequence_open(void **state, const struct sink_params *p, struct error *e)
{
    struct number number;
    if (!number_find(p->path, &number))
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: a %% in the name of a sequence may only be one %%d or %%01d to %%09d in the "
                       "last part of the path", p->path);
    if (!number.length && p->frames > 1 && strcmp(p->path, "-"))
        return gv_fail(e, GV_ERR_ARGUMENT, "%s is one picture and the clip has %lld frames; put %%04d into the name for a "
                       "sequence", p->path, (long long)p->frames);

    struct sequence *s = calloc(1, sizeof *s);
    if (!(*state = s))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a sequence of pictures");
    s->kind    = strcmp(p->format, "png") ? IMAGE_JPEG : IMAGE_PNG;
    s->width   = p->width;
    s->height  = p->height;
    s->frames  = p->frames;
    s->number  = number;
    s->path    = strdup(p->path);
    s->comment = p->comment ? strdup(p->comment) : NULL;
    s->parts   = calloc((size_t)p->frames, sizeof *s->parts);
    if (!s->path || !s->parts || (p->comment && !s->comment))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a sequence of %lld pictures", (long long)p->frames);
    return member_open(s, e); /* the first now, so that an unwritable place is told before anything is computed */
}

static gv_status sequence_write(void *state, const uint8_t *rgb, struct error *e)
{
    struct sequence *s = state;
    uint8_t         *bytes;
    size_t           size;
    if (s->count > 0)
        TRY(member_open(s, e));
    TRY(gv_image_encode(&bytes, &size, s->kind, rgb, s->width, s->height, s->comment, e));
    gv_status st = gv_part_write(&s->parts[s->count], bytes, size, e);
    if (st == GV_OK)
        st = gv_part_seal(&s->parts[s->count], e);
    s->count++;
    free(bytes);
    return st;
}

static gv_status sequence_finish(void *state, const char **path, struct error *e)
{
    const struct sequence *s = state;
    (void)e;
    *path = s->count == 1 ? s->parts[0].temp : NULL;
    return GV_OK;
}

static gv_status sequence_commit(void *state, const char *comment, struct error *e)
{
    struct sequence *s = state;
    (void)comment;
    return gv_part_publish(s->parts, s->count, e);
}

static void sequence_close(void *state)
{
    struct sequence *s = state;
    for (int64_t i = 0; s->parts && i < s->frames; i++)
        gv_part_close(&s->parts[i]);
    free(s->parts);
    free(s->path);
    free(s->comment);
    free(s);
}

#define SEQUENCE .open = sequence_open, .write = sequence_write, .finish = sequence_finish, .commit = sequence_commit, .close = sequence_close
static const struct sink_kind png = {.extension = "png", .description = "PNG pictures, numbered by %d in the name", SEQUENCE};
#ifdef GV_HAVE_TURBOJPEG
static const struct sink_kind jpg  = {.extension = "jpg", .description = "JPEG pictures, numbered by %d in the name", SEQUENCE};
static const struct sink_kind jpeg = {.extension = "jpeg", .description = "the same as jpg", SEQUENCE};
#else
static const struct sink_kind jpg  = {.extension = "jpg", .needs = "TurboJPEG"};
static const struct sink_kind jpeg = {.extension = "jpeg", .needs = "TurboJPEG"};
#endif

/* ---- kinds ------------------------------------------------------------------------------------------------------------ */

#ifndef GV_HAVE_FFMPEG
static const struct sink_kind gv_sink_mp4 = { .extension = "mp4", .needs = "libav" };
static const struct sink_kind gv_sink_mov = { .extension = "mov", .needs = "libav" };
static const struct sink_kind gv_sink_mkv = { .extension = "mkv", .needs = "libav" };
static const struct sink_kind gv_sink_webm = { .extension = "webm", .needs = "libav" };
static const struct sink_kind gv_sink_gif = { .extension = "gif", .needs = "libav" };
#endif

static const struct sink_kind *const kinds[] = { &gv_sink_mp4, &gv_sink_mov,    &gv_sink_mkv, &gv_sink_webm, &gv_sink_gif,
                                                 &gv_sink_y4m, &gv_sink_y4m444, &gv_sink_rgb, &png,          &jpg,
                                                 &jpeg };
enum { KINDS = sizeof kinds / sizeof *kinds };

static void list_kinds(char *text, size_t room)
{
    size_t used = 0;
    text[0]     = '\0';
    for (int i = 0; i < KINDS && used < room; i++)
        if (!kinds[i]->needs)
            used += (size_t)snprintf(text + used, room - used, "%s%s", used ? ", " : "", kinds[i]->extension);
}

static const char *extension_of(const char *path)
{
    const char *name = path + folder_length(path), *dot = strrchr(name, '.');
    return dot && dot[1] ? dot + 1 : NULL;
}

static gv_status kind_find(const struct sink_kind **out, const char *path, const char *format, const char *codec,
                           struct error *e)
{
    char list[256];
    list_kinds(list, sizeof list);
    if (!path || !path[0])
        return gv_fail(e, GV_ERR_ARGUMENT, "the name of the output is empty");
    const char *extension = format && format[0] ? format : strcmp(path, "-") ? extension_of(path) : NULL;
    if (!extension)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s has no extension and no format is given; this build writes %s",
                       strcmp(path, "-") ? path : "standard output", list);
    for (int i = 0; i < KINDS; i++) {
        const struct sink_kind *k = kinds[i];
        if (strcasecmp(k->extension, extension))
            continue;
        if (k->needs)
            return gv_fail(e, GV_ERR_UNSUPPORTED, "%s: this build lacks %s and cannot write %s; it writes %s", path, k->needs,
                           k->extension, list);
        *out = k;
        if (k->check)
            return k->check(k, codec, e);
        if (codec && codec[0])
            return gv_fail(e, GV_ERR_ARGUMENT, "%s: %s is written in one way alone, without a codec", path, k->extension);
        return GV_OK;
    }
    return gv_fail(e, GV_ERR_ARGUMENT, "%s: cannot write the format \"%.32s\"; this build writes %s", path, extension, list);
}

gv_status gv_sink_check(const char *path, const char *format, const char *codec, struct error *e)
{
    const struct sink_kind *kind;
    return kind_find(&kind, path, format, codec, e);
}

/* "h264, hevc" → "h264","hevc". */
static size_t quote_list(char *out, size_t room, const char *list)
{
    size_t used = 0;
    for (const char *p = list; *p; p += strcspn(p, ", "), p += strspn(p, ", "))
        used += (size_t)snprintf(out + used, room - used, "%s\"%.*s\"", used ? "," : "", (int)strcspn(p, ", "), p);
    return used;
}

char *gv_sink_formats(void)
{
    enum { ROOM = 4096 };
    char  *json = malloc(ROOM), codecs[256];
    size_t used = 0;
    if (!json)
        return NULL;
    for (int i = 0; i < KINDS; i++) {
        const struct sink_kind *k = kinds[i];
        if (k->needs || (k->check && k->check(k, NULL, NULL) != GV_OK))
            continue;
        used += (size_t)snprintf(json + used, ROOM - used, "%s{\"extension\":\"%s\",\"description\":\"%s\",\"codecs\":[",
                                 used ? "," : "[", k->extension, k->description);
        codecs[0] = '\0';
        if (k->codecs)
            k->list(codecs, sizeof codecs, k->codecs);
        used += quote_list(json + used, ROOM - used, codecs);
        used += (size_t)snprintf(json + used, ROOM - used, "]}");
    }
    snprintf(json + used, ROOM - used, "]"); /* never empty: y4m needs nothing */
    return json;
}

/* ---- the sink --------------------------------------------------------------------------------------------------------- */

struct sink {
    const struct sink_kind *kind;
    void                   *state;
    int64_t                 frames, written;
    bool                    failed;
};

void gv_fps_ratio(double fps, int *num, int *den)
{
    const double ntsc = fps * 1.001;
    int          a, b;
    if (fabs(fps - round(fps)) < 1e-6) {
        *num = (int)lround(fps);
        *den = 1;
        return;
    }
    if (fabs(ntsc - round(ntsc)) < 5e-3) { /* 23.976, 23.98, 29.97, 59.94 */
        *num = (int)lround(ntsc) * 1000;
        *den = 1001;
        return;
    }
    *num = (int)lround(fps * 1000.0);
    *den = 1000;
    for (a = *num, b = *den; b;) {
        const int rest = a % b;
        a              = b;
        b              = rest;
    }
    *num /= a;
    *den /= a;
}

static gv_status params_check(const struct sink_kind *kind, const struct sink_params *p, struct error *e)
{
    if (p->width < 1 || p->height < 1 || p->width > GV_IMAGE_SIDE || p->height > GV_IMAGE_SIDE)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %d×%d is outside 1×1 to %d×%d", p->path, p->width, p->height, GV_IMAGE_SIDE,
                       GV_IMAGE_SIDE);
    if (!(p->fps >= 0.1 && p->fps <= 1000.0))
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %g frames per second is outside 0.1 to 1000", p->path, p->fps);
    if (!kind->codecs && p->bits > 8)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %s holds 8 bits; mp4, mov, mkv and webm can hold 10", p->path, kind->extension);
    if (!kind->codecs && p->audio)
        gv_log(p->log, GV_LOG_WARN, "%s: %s holds no sound; that of %s is not kept", p->path, kind->extension, p->audio);
    if (p->frames < 1 || p->frames > 1 << 24)
        return gv_fail(e, GV_ERR_ARGUMENT, "%s: %lld frames is outside 1 to %d", p->path, (long long)p->frames, 1 << 24);
    return GV_OK;
}

gv_status gv_sink_open(struct sink **out, const struct sink_params *p, struct error *e)
{
    const struct sink_kind *kind = NULL;
    *out                         = NULL;
    TRY(kind_find(&kind, p->path, p->format, p->codec, e));
    TRY(params_check(kind, p, e));

    struct sink *s = calloc(1, sizeof *s);
    if (!s)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the output");
    struct sink_params known = *p;
    known.format             = kind->extension;
    s->kind                  = kind;
    s->frames                = p->frames;
    const gv_status st       = kind->open(&s->state, &known, e);
    *out                     = s;
    if (st != GV_OK)
        gv_sink_close(out);
    return st;
}

static gv_status write_one(struct sink *s, const uint8_t *rgb8, const uint16_t *rgb16, struct error *e)
{
    if (s->written >= s->frames)
        return gv_fail(e, GV_ERR_ARGUMENT, "the output was opened for %lld frames and more came", (long long)s->frames);
    const gv_status st = rgb8 ? s->kind->write(s->state, rgb8, e) : s->kind->write16(s->state, rgb16, e);
    s->written++;
    s->failed = s->failed || st != GV_OK;
    return st;
}

gv_status gv_sink_write(struct sink *s, const uint8_t *rgb, struct error *e)
{
    return write_one(s, rgb, NULL, e);
}

bool gv_sink_deep(const struct sink *s)
{
    return s->kind->write16 && s->kind->deep(s->state);
}

gv_status gv_sink_write16(struct sink *s, const uint16_t *rgb, struct error *e)
{
    if (!gv_sink_deep(s))
        return gv_fail(e, GV_ERR_ARGUMENT, "the output holds 8 bits and 16 came");
    return write_one(s, NULL, rgb, e);
}

static gv_status complete(const struct sink *s, struct error *e)
{
    if (s->failed)
        return gv_fail(e, GV_ERR_IO, "a frame could not be written, so the output is not kept");
    return s->written ? GV_OK : gv_fail(e, GV_ERR_ARGUMENT, "no frame came, so there is no output to keep");
}

gv_status gv_sink_finish(struct sink *s, const char **path, struct error *e)
{
    *path = NULL;
    TRY(complete(s, e));
    const gv_status st = s->kind->finish ? s->kind->finish(s->state, path, e) : GV_OK;
    s->failed = st != GV_OK;
    return st;
}

gv_status gv_sink_commit(struct sink *s, const char *comment, struct error *e)
{
    TRY(complete(s, e));
    const gv_status st = s->kind->commit(s->state, comment, e);
    s->failed          = true; /* once only */
    return st;
}

void gv_sink_close(struct sink **s)
{
    if (!*s)
        return;
    if ((*s)->state)
        (*s)->kind->close((*s)->state);
    free(*s);
    *s = NULL;
}
