/* How every use of libav here behaves: it prints nothing, and it never opens a name.
 *
 * libav prints to stderr by default, through process-wide state that a library may not set. A codec context has its own
 * log_level_offset. A format context has none, but its AVClass may name one: we give it a copy of its class that points at the
 * unused upper bits of `debug`. GV_AV_QUIET is above every level. What libav logs without a context (broken code tables,
 * impossible sizes) still appears when a file is damaged; a program that minds calls av_log_set_level itself.
 *
 * Source: FFmpeg 5.1 to 9 headers and doc/APIchanges. */
#include "io/libav.h"

#include <errno.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavutil/opt.h>

enum { IO_BUFFER = 1 << 16 };

#if LIBAVFORMAT_VERSION_MAJOR >= 61
typedef const uint8_t avio_byte;
#else
typedef uint8_t avio_byte;
#endif

gv_status gv_av_fail(struct error *e, gv_status code, const char *path, const char *what, int err)
{
    char why[AV_ERROR_MAX_STRING_SIZE] = "unknown error";
    av_strerror(err, why, sizeof why);
    return gv_fail(e, err == AVERROR(ENOMEM) ? GV_ERR_MEMORY : code, "%s: %s: %s", path, what, why);
}

gv_status gv_av_no_memory(struct error *e, const char *path)
{
    return gv_fail(e, GV_ERR_MEMORY, "no memory for libav to handle %s", path);
}

/* quiet must outlive f. Its version is that of the headers we were built with: no field beyond them is copied. */
void gv_av_quieten(AVFormatContext *f, AVClass *quiet)
{
    *quiet = *f->av_class;
    quiet->version = LIBAVUTIL_VERSION_INT;
    quiet->log_level_offset_offset = (int)offsetof(AVFormatContext, debug);
    f->debug = GV_AV_QUIET;
    f->av_class = quiet;
}

/* The size is not told when reading: knowing it, libav only cuts packets off, and says so on stderr, where it would
 * otherwise find the end. */
static int file_read(void *opaque, uint8_t *buf, int size)
{
    struct av_file *f = opaque;
    ssize_t         n;
    do
        n = pread(f->fd, buf, (size_t)size, (off_t)f->at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return AVERROR(f->err = errno);
    f->at += n;
    return n ? (int)n : AVERROR_EOF;
}

static int file_write(void *opaque, avio_byte *buf, int size)
{
    struct av_file *f = opaque;
    for (int done = 0; done < size;) {
        const ssize_t n = pwrite(f->fd, buf + done, (size_t)(size - done), (off_t)f->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            f->err = f->err ? f->err : errno;
            return AVERROR(errno);
        }
        done += (int)n;
        f->at += n;
    }
    return size;
}

static int64_t file_seek(void *opaque, int64_t offset, int whence)
{
    struct av_file *f = opaque;
    struct stat     s;
    if (whence == SEEK_SET || whence == SEEK_CUR) {
        offset += whence == SEEK_CUR ? f->at : 0;
        return offset < 0 ? AVERROR(EINVAL) : (f->at = offset);
    }
    if (whence & AVSEEK_SIZE && f->writes)
        return fstat(f->fd, &s) == 0 ? (int64_t)s.st_size : AVERROR(errno);
    return AVERROR(ENOSYS);
}

AVIOContext *gv_av_file_open(struct av_file *f)
{
    unsigned char *buffer = av_malloc(IO_BUFFER);
    AVIOContext   *io =
        buffer ? avio_alloc_context(buffer, IO_BUFFER, f->writes, f, file_read, f->writes ? file_write : NULL, file_seek)
                 : NULL;
    if (!io)
        av_free(buffer);
    return io;
}

void gv_av_file_close(AVIOContext **io)
{
    if (*io)
        av_freep(&(*io)->buffer);
    avio_context_free(io);
}
