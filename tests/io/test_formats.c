/* Every container and codec that this libav has: written, decoded, compared with what came; tags, times, recipe; ten bits that are
 * ten bits; sound of a source kept; and a process that is killed in the middle. */
#define _XOPEN_SOURCE 700
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#ifndef GV_HAVE_FFMPEG

int main(void)
{
    printf("skipped: this build has no libav\n");
    return 0;
}

#else

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>

#include "io/clip.h"
#include "io/sink.h"
#include "tests/fixture.h"

enum { W = 96, H = 64, N = 12 };

static char folder[256], path[300];

static int make_folder(void **state)
{
    (void)state;
    av_log_set_level(AV_LOG_QUIET);
    fixture_temp(folder);
    return 0;
}

#ifdef __SANITIZE_ADDRESS__
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) /* 2 KiB an encoder, never seen again by x265 3.5 itself */
{
    return "leak:libx265";
}
#endif

static int drop_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* fails if any test left a file, hidden or not */
}

static void place(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
}

/* Smooth and moving; value in 0..1 of channel c. */
static double scene(int x, int y, int t, int c, int w, int h)
{
    if (c == 0)
        return 0.15 + 0.6 * x / w + 0.01 * t;
    if (c == 1)
        return 0.5 + 0.3 * sin(0.05 * (x + 3 * t)) * cos(0.07 * y);
    return 0.8 - 0.6 * y / h;
}

static void scene8(uint8_t *rgb, int t, int w, int h)
{
    for (int i = 0; i < w * h * 3; i++)
        rgb[i] = (uint8_t)(scene(i / 3 % w, i / 3 / w, t, i % 3, w, h) * 255 + 0.5);
}

static void scene16(uint16_t *rgb, int t, int w, int h)
{
    for (int i = 0; i < w * h * 3; i++)
        rgb[i] = (uint16_t)(scene(i / 3 % w, i / 3 / w, t, i % 3, w, h) * 65535 + 0.5);
}

static struct sink_params params(const char *codec, int bits)
{
    return (struct sink_params){
        .path = path, .width = W, .height = H, .fps = 16, .frames = N, .crf = -1, .codec = codec, .bits = bits
    };
}

/* Deep sinks are given 16 bits, others 8. */
static gv_status make(const struct sink_params *p, const char *comment, struct error *e)
{
    struct sink *s;
    uint8_t     *rgb = malloc((size_t)(p->width * p->height * 3));
    uint16_t    *wide = malloc((size_t)(p->width * p->height * 6));
    *e = (struct error){ 0 };
    gv_status st = gv_sink_open(&s, p, e);
    for (int i = 0; i < p->frames && st == GV_OK; i++) {
        scene8(rgb, i, p->width, p->height);
        scene16(wide, i, p->width, p->height);
        st = gv_sink_deep(s) ? gv_sink_write16(s, wide, e) : gv_sink_write(s, rgb, e);
    }
    if (st == GV_OK)
        st = gv_sink_commit(s, comment, e);
    gv_sink_close(&s);
    free(rgb);
    free(wide);
    return st;
}

/* ---- every way to write ----------------------------------------------------------------------------------------------- */

struct way {
    const char        *extension, *codec;
    int                bits;
    enum AVCodecID     id;
    enum AVPixelFormat format;
    double             psnr; /* of RGB at the least, at the codec's own quality; 100: every bit */
    unsigned           tag;
};
static const struct way ways[] = {
    { "mp4", "h264", 8, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 40, MKTAG('a', 'v', 'c', '1') },
    { "mp4", "h264", 10, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P10, 40, MKTAG('a', 'v', 'c', '1') },
    { "mp4", "hevc", 8, AV_CODEC_ID_HEVC, AV_PIX_FMT_YUV420P, 38, MKTAG('h', 'v', 'c', '1') },
    { "mp4", "hevc", 10, AV_CODEC_ID_HEVC, AV_PIX_FMT_YUV420P10, 38, MKTAG('h', 'v', 'c', '1') },
    { "mp4", "av1", 8, AV_CODEC_ID_AV1, AV_PIX_FMT_YUV420P, 38, MKTAG('a', 'v', '0', '1') },
    { "mp4", "av1", 10, AV_CODEC_ID_AV1, AV_PIX_FMT_YUV420P10, 38, MKTAG('a', 'v', '0', '1') },
    { "mp4", "vp9", 8, AV_CODEC_ID_VP9, AV_PIX_FMT_YUV420P, 38, MKTAG('v', 'p', '0', '9') },
    { "mov", NULL, 0, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 40, MKTAG('a', 'v', 'c', '1') },
    { "mov", "hevc", 0, AV_CODEC_ID_HEVC, AV_PIX_FMT_YUV420P, 38, MKTAG('h', 'v', 'c', '1') },
    { "mov", "prores", 0, AV_CODEC_ID_PRORES, AV_PIX_FMT_YUV422P10, 46, MKTAG('a', 'p', 'c', 'h') },
    { "mkv", "h264", 0, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 40, 0 },
    { "mkv", "hevc", 10, AV_CODEC_ID_HEVC, AV_PIX_FMT_YUV420P10, 38, 0 },
    { "mkv", "av1", 0, AV_CODEC_ID_AV1, AV_PIX_FMT_YUV420P, 38, 0 },
    { "mkv", "prores", 10, AV_CODEC_ID_PRORES, AV_PIX_FMT_YUV422P10, 46, 0 },
    { "mkv", "ffv1", 8, AV_CODEC_ID_FFV1, AV_PIX_FMT_0RGB32, 100, 0 },
    { "mkv", "ffv1", 10, AV_CODEC_ID_FFV1, AV_PIX_FMT_GBRP10, 52, 0 },
    { "webm", NULL, 0, AV_CODEC_ID_VP9, AV_PIX_FMT_YUV420P, 38, 0 },
    { "webm", "vp9", 10, AV_CODEC_ID_VP9, AV_PIX_FMT_YUV420P10, 38, 0 },
    { "webm", "av1", 0, AV_CODEC_ID_AV1, AV_PIX_FMT_YUV420P, 38, 0 },
    { "gif", NULL, 0, AV_CODEC_ID_GIF, AV_PIX_FMT_BGRA, 30, 0 },
};

/* What a player is told: by the container, and by the stream once a frame is decoded. */
static void check_tags(const struct way *w, const char *comment)
{
    AVFormatContext *f = NULL;
    assert_int_equal(avformat_open_input(&f, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(f, NULL) >= 0);
    assert_int_equal(f->nb_streams, 1);
    const AVStream          *st = f->streams[0];
    const AVCodecParameters *p = st->codecpar;
    assert_int_equal(p->codec_id, w->id);
    assert_int_equal(p->format, w->format);
    if (w->tag)
        assert_int_equal(p->codec_tag, w->tag);
    const bool rgb = av_pix_fmt_desc_get(w->format)->flags & AV_PIX_FMT_FLAG_RGB;
    if (w->id != AV_CODEC_ID_GIF) {
        if (!rgb) {
            assert_int_equal(p->color_range, AVCOL_RANGE_MPEG);
            assert_int_equal(p->color_space, AVCOL_SPC_BT709);
        }
        assert_int_equal(p->color_primaries, AVCOL_PRI_BT709);
        assert_int_equal(p->color_trc, AVCOL_TRC_BT709);
        const AVDictionaryEntry *t = av_dict_get(f->metadata, "comment", NULL, 0);
        assert_non_null(t);
        assert_string_equal(t->value, comment);
        assert_int_equal(av_cmp_q(st->avg_frame_rate, (AVRational){ 16, 1 }), 0);
    }
    avformat_close_input(&f);
}

/* Bias shows a shift of colour or range that PSNR alone would hide: quantisers round to half a code on such a small picture, a
 * wrong matrix or range shifts by five and more. */
static void check_pixels(const struct way *w)
{
    struct clip        *c;
    struct clip_picture p;
    struct error        e = { 0 };
    uint8_t             rgb[W * H * 3];
    double              sum = 0, bias[3] = { 0 };
    bool                got;
    if (gv_clip_open(&c, path, 0, &e) != GV_OK)
        fail_msg("%s", e.text);
    for (int t = 0; t < N; t++) {
        if (gv_clip_next(c, &p, &got, &e) != GV_OK || !got)
            fail_msg("%s: frame %d: %s", path, t, e.text);
        assert_int_equal(p.image->width, W);
        assert_true(fabs(p.seconds - t / 16.0) < (w->id == AV_CODEC_ID_GIF ? 0.0051 : 0.0011));
        scene8(rgb, t, W, H);
        for (int i = 0; i < W * H * 3; i++) {
            const double d = p.image->rgb[i] - rgb[i];
            sum += d * d;
            bias[i % 3] += d / (W * H * N);
        }
    }
    assert_int_equal(gv_clip_next(c, &p, &got, &e), GV_OK);
    assert_false(got);
    gv_clip_close(&c);
    const double db = sum > 0 ? 10 * log10(255.0 * 255 * W * H * 3 * N / sum) : 100;
    printf("%-4s %-7s %2d bits: %5.1f dB, bias %+.2f %+.2f %+.2f\n", w->extension, w->codec ? w->codec : "", w->bits, db,
           bias[0], bias[1], bias[2]);
    if (db < w->psnr || fabs(bias[0]) > 1 || fabs(bias[1]) > 1 || fabs(bias[2]) > 1)
        fail_msg("%s with %s: %.1f dB, expected %.0f; bias %.2f %.2f %.2f", path, w->codec, db, w->psnr, bias[0], bias[1],
                 bias[2]);
}

static void what_is_written_is_what_is_shown(void **state)
{
    int done = 0;
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct error e = { 0 };
        char         name[32];
        snprintf(name, sizeof name, "x.%s", ways[i].extension);
        place(name);
        const struct sink_params p = params(ways[i].codec, ways[i].bits);
        if (gv_sink_check(path, NULL, ways[i].codec, &e) == GV_ERR_UNSUPPORTED) {
            printf("skipped: %s\n", e.text);
            continue;
        }
        if (make(&p, "{\"a\":1}", &e) != GV_OK)
            fail_msg("%s %s %d: %s", name, ways[i].codec, ways[i].bits, e.text);
        check_tags(&ways[i], "{\"a\":1}");
        check_pixels(&ways[i]);
        unlink(path);
        done++;
    }
    assert_true(done > 0);
}

/* A ramp of 1024 steps over 8 of 8 bits: in ten bits the steps are there. */
static void ten_bits_are_ten(void **state)
{
    enum { RAMP = 512, ROWS = 16 };
    struct error       e = { 0 };
    struct sink_params p = { .width = RAMP, .height = ROWS, .fps = 1, .frames = 1, .crf = -1, .codec = "ffv1", .bits = 10 };
    uint16_t           rgb[RAMP * ROWS * 3];
    struct sink       *s;
    (void)state;
    place("ramp.mkv");
    p.path = path;
    for (int i = 0; i < RAMP * ROWS * 3; i++)
        rgb[i] = (uint16_t)((256 + i / 3 % RAMP / 16) * 65535 / 1023); /* 32 codes of ten bits, 8 of eight */
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_OK);
    assert_true(gv_sink_deep(s));
    assert_int_equal(gv_sink_write16(s, rgb, &e), GV_OK);
    assert_int_equal(gv_sink_commit(s, NULL, &e), GV_OK);
    gv_sink_close(&s);
    AVFormatContext *f = NULL;
    assert_int_equal(avformat_open_input(&f, path, NULL, NULL), 0);
    avformat_find_stream_info(f, NULL);
    const AVCodec  *codec = avcodec_find_decoder(AV_CODEC_ID_FFV1);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    avcodec_parameters_to_context(c, f->streams[0]->codecpar);
    assert_int_equal(avcodec_open2(c, codec, NULL), 0);
    AVPacket *k = av_packet_alloc();
    AVFrame  *v = av_frame_alloc();
    assert_int_equal(av_read_frame(f, k), 0);
    assert_int_equal(avcodec_send_packet(c, k), 0);
    assert_int_equal(avcodec_receive_frame(c, v), 0);
    for (int x = 0; x < RAMP; x++)
        for (int plane = 0; plane < 3; plane++)
            assert_int_equal(((uint16_t *)(void *)v->data[plane])[x], 256 + x / 16);
    av_packet_free(&k);
    av_frame_free(&v);
    avcodec_free_context(&c);
    avformat_close_input(&f);
    unlink(path);
}

static void odd_sizes_are_padded_where_chroma_is_halved(void **state)
{
    static const struct {
        const char *name, *codec;
        int         w, h;
    } cases[] = {
        { "o.mkv", "ffv1", 33, 21 }, { "o.mov", "prores", 34, 21 }, { "o.webm", "vp9", 34, 22 }, { "o.gif", NULL, 33, 21 }
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct clip        *c;
        struct clip_picture shown;
        struct error        e = { 0 };
        bool                got;
        place(cases[i].name);
        struct sink_params p = params(cases[i].codec, 0);
        p.width = 33;
        p.height = 21;
        p.frames = 2;
        if (gv_sink_check(path, NULL, cases[i].codec, &e) == GV_ERR_UNSUPPORTED)
            continue;
        if (make(&p, NULL, &e) != GV_OK || gv_clip_open(&c, path, 0, &e) != GV_OK)
            fail_msg("%s", e.text);
        assert_int_equal(gv_clip_next(c, &shown, &got, &e), GV_OK);
        assert_int_equal(shown.image->width, cases[i].w);
        assert_int_equal(shown.image->height, cases[i].h);
        gv_clip_close(&c);
        unlink(path);
    }
}

static void what_cannot_be_is_said_before_a_file_exists(void **state)
{
    static const struct {
        const char        *name;
        struct sink_params p;
        gv_status          code;
        const char        *words;
    } cases[] = {
        { "x.mp4", { .codec = "prores", .crf = -1 }, GV_ERR_ARGUMENT, "does not take ProRes; it takes h264" },
        { "x.mp4", { .codec = "divx", .crf = -1 }, GV_ERR_ARGUMENT, "no codec called \"divx\"" },
        { "x.webm", { .codec = "h264", .crf = -1 }, GV_ERR_ARGUMENT, "it takes vp9, av1" },
        { "x.gif", { .codec = "vp9", .crf = -1 }, GV_ERR_ARGUMENT, "it takes gif" },
        { "x.y4m", { .codec = "h264", .crf = -1 }, GV_ERR_ARGUMENT, "without a codec" },
        { "x.y4m", { .bits = 10, .crf = -1 }, GV_ERR_ARGUMENT, "holds 8 bits" },
        { "x.mp4", { .bits = 12, .crf = -1 }, GV_ERR_ARGUMENT, "12 bits" },
        { "x.gif", { .bits = 10, .crf = -1 }, GV_ERR_ARGUMENT, "in 8 bits alone" },
        { "x.mov", { .codec = "prores", .bits = 8, .crf = -1 }, GV_ERR_ARGUMENT, "in 10 bits alone" },
        { "x.mov", { .codec = "prores", .crf = 20 }, GV_ERR_ARGUMENT, "has no crf" },
        { "x.mkv", { .codec = "ffv1", .crf = 0 }, GV_ERR_ARGUMENT, "has no crf" },
        { "x.webm", { .crf = 64 }, GV_ERR_ARGUMENT, "crf 64 is outside 0 to 63" },
        { "x.webm", { .crf = -1, .preset = "slow" }, GV_ERR_ARGUMENT, "has no presets" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sink_params p = cases[i].p;
        struct sink       *s;
        struct error       e = { 0 };
        place(cases[i].name);
        p.path = path, p.width = W, p.height = H, p.fps = 16, p.frames = 1;
        const gv_status st = gv_sink_open(&s, &p, &e);
        assert_null(s);
        if (st == GV_ERR_UNSUPPORTED)
            continue; /* a libav without that encoder says so */
        if (st != cases[i].code || !strstr(e.text, cases[i].words))
            fail_msg("%s: code %d, \"%s\"; expected \"%s\"", cases[i].name, st, e.text, cases[i].words);
    }
}

/* ---- a recipe that is known last --------------------------------------------------------------------------------------- */

static void the_last_word_is_the_recipe_of_commit(void **state)
{
    static const char *const names[] = { "c.mp4", "c.mov", "c.mkv", "c.webm" };
    (void)state;
    for (size_t i = 0; i < 4; i++)
        for (int later = 0; later < 2; later++) {
            struct error e = { 0 };
            place(names[i]);
            struct sink_params p = params(NULL, 0);
            p.frames = 2;
            p.comment = "at first";
            if (gv_sink_check(path, NULL, NULL, &e) == GV_ERR_UNSUPPORTED)
                continue;
            assert_int_equal(make(&p, later ? "at last" : NULL, &e), GV_OK);
            AVFormatContext *f = NULL;
            assert_int_equal(avformat_open_input(&f, path, NULL, NULL), 0);
            assert_string_equal(av_dict_get(f->metadata, "comment", NULL, 0)->value, later ? "at last" : "at first");
            avformat_close_input(&f);
            unlink(path);
        }
}

/* ---- killed in the middle ---------------------------------------------------------------------------------------------- */

static bool part_name(char *out, size_t size)
{
    DIR           *d = opendir(folder);
    struct dirent *f;
    bool           found = false;
    while ((f = readdir(d)))
        if (strstr(f->d_name, ".part")) {
            snprintf(out, size, "%s/%s", folder, f->d_name);
            found = true;
        }
    closedir(d);
    return found;
}

static int playable(const char *name)
{
    struct clip        *c;
    struct clip_picture p;
    struct error        e = { 0 };
    bool                got = true;
    int                 n = 0;
    if (gv_clip_open(&c, name, 0, &e) != GV_OK)
        return -1;
    while (gv_clip_next(c, &p, &got, &e) == GV_OK && got)
        n++;
    gv_clip_close(&c);
    return n;
}

static void a_killed_process_leaves_a_part_that_plays(void **state)
{
    static const struct {
        const char *name, *codec;
        int         least; /* of the 200 pictures that were handed over */
    } cases[] = { { "k.mp4", "h264", 100 },
                  { "k.mov", "prores", 160 },
                  { "k.mkv", "ffv1", 160 },
                  { "k.mkv", "h264", 100 },
                  { "k.gif", "gif", 160 } };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error e = { 0 };
        char         part[512];
        int          ready[2], status;
        place(cases[i].name);
        if (gv_sink_check(path, NULL, cases[i].codec, &e) == GV_ERR_UNSUPPORTED || pipe(ready) != 0)
            continue;
        const pid_t pid = fork();
        if (pid == 0) {
            struct sink_params p = params(cases[i].codec, 0);
            struct sink       *s;
            uint8_t            rgb[W * H * 3];
            p.frames = 400;
            p.preset = strcmp(cases[i].codec, "h264") ? NULL : "veryfast";
            if (gv_sink_open(&s, &p, &e) != GV_OK)
                _exit(1);
            for (int t = 0; t < 200; t++) {
                scene8(rgb, t, W, H);
                if (gv_sink_write(s, rgb, &e) != GV_OK)
                    _exit(2);
            }
            if (write(ready[1], "x", 1) != 1)
                _exit(3);
            for (;;)
                pause();
        }
        char x;
        close(ready[1]);
        assert_int_equal(read(ready[0], &x, 1), 1);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        close(ready[0]);
        assert_true(access(path, F_OK) != 0); /* nothing under the final name */
        assert_true(part_name(part, sizeof part));
        const int n = playable(part);
        printf("%s with %s, killed after 200 pictures: %d play\n", cases[i].name, cases[i].codec, n);
        assert_true(n >= cases[i].least && n <= 200);
        unlink(part);
    }
}

/* ---- sound of a source ------------------------------------------------------------------------------------------------- */

enum { RATE = 48000, TONE = 3 }; /* seconds of sound */

/* A clip of `codec` sound and a few pictures, made with libav alone. */
static void make_source(const char *name, enum AVCodecID id)
{
    AVFormatContext *f = NULL;
    place(name);
    assert_true(avformat_alloc_output_context2(&f, NULL, NULL, path) >= 0);
    const AVCodec  *codec = avcodec_find_encoder(id);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    c->sample_rate = RATE;
    c->sample_fmt = id == AV_CODEC_ID_AAC ? AV_SAMPLE_FMT_FLTP : AV_SAMPLE_FMT_S16;
    av_channel_layout_default(&c->ch_layout, 1);
    c->time_base = (AVRational){ 1, RATE };
    c->flags |= f->oformat->flags & AVFMT_GLOBALHEADER ? AV_CODEC_FLAG_GLOBAL_HEADER : 0;
    assert_int_equal(avcodec_open2(c, codec, NULL), 0);
    AVStream *st = avformat_new_stream(f, NULL);
    avcodec_parameters_from_context(st->codecpar, c);
    st->time_base = c->time_base;
    assert_true(avio_open(&f->pb, path, AVIO_FLAG_WRITE) >= 0);
    assert_true(avformat_write_header(f, NULL) >= 0);
    AVFrame *a = av_frame_alloc();
    a->nb_samples = c->frame_size ? c->frame_size : 1024;
    a->format = c->sample_fmt;
    a->sample_rate = RATE;
    av_channel_layout_copy(&a->ch_layout, &c->ch_layout);
    av_frame_get_buffer(a, 0);
    AVPacket *k = av_packet_alloc();
    for (int64_t at = 0; at < RATE * TONE + 1; at += a->nb_samples) {
        const bool end = at + a->nb_samples > RATE * TONE;
        av_frame_make_writable(a);
        for (int i = 0; i < a->nb_samples; i++) {
            const double v = 0.5 * sin(0.05 * (double)(at + i) + 1e-7 * (double)((at + i) * (at + i)));
            if (c->sample_fmt == AV_SAMPLE_FMT_S16)
                ((int16_t *)(void *)a->data[0])[i] = (int16_t)(v * 32767);
            else
                ((float *)(void *)a->data[0])[i] = (float)v;
        }
        a->pts = at;
        assert_int_equal(avcodec_send_frame(c, end ? NULL : a), 0);
        while (avcodec_receive_packet(c, k) == 0) {
            k->stream_index = 0;
            av_packet_rescale_ts(k, c->time_base, st->time_base);
            assert_true(av_interleaved_write_frame(f, k) >= 0);
        }
        if (end)
            break;
    }
    assert_int_equal(av_write_trailer(f), 0);
    avio_closep(&f->pb);
    avformat_free_context(f);
    avcodec_free_context(&c);
    av_frame_free(&a);
    av_packet_free(&k);
}

struct sound {
    int      n;
    double   at[512]; /* seconds */
    uint64_t sum[512];
    double   video_end;
};

static void listen(struct sound *s, const char *name)
{
    AVFormatContext *f = NULL;
    AVPacket        *k = av_packet_alloc();
    *s = (struct sound){ 0 };
    assert_int_equal(avformat_open_input(&f, name, NULL, NULL), 0);
    avformat_find_stream_info(f, NULL);
    while (av_read_frame(f, k) >= 0) {
        const AVStream *st = f->streams[k->stream_index];
        const double    at = (double)k->pts * av_q2d(st->time_base);
        if (st->codecpar->codec_type == AVMEDIA_TYPE_AUDIO && s->n < 512) {
            uint64_t h = 14695981039346656037u;
            for (int i = 0; i < k->size; i++)
                h = (h ^ k->data[i]) * 1099511628211u;
            s->at[s->n] = at;
            s->sum[s->n++] = h;
        } else if (at > s->video_end) {
            s->video_end = at;
        }
        av_packet_unref(k);
    }
    av_packet_free(&k);
    avformat_close_input(&f);
}

struct said {
    char text[2048];
};

static void hear(void *user, gv_log_level level, const char *message)
{
    struct said *s = user;
    (void)level;
    strncat(s->text, message, sizeof s->text - strlen(s->text) - 1);
}

/* Packets of the source, byte by byte, at their times less the start; none beyond the pictures. */
static void the_sound_of_a_source_goes_along(void **state)
{
    static const struct {
        const char    *source, *out;
        enum AVCodecID id;
        double         start;
    } cases[] = { { "s.mp4", "o.mp4", AV_CODEC_ID_AAC, 0 },          { "s.mp4", "o.mkv", AV_CODEC_ID_AAC, 1.25 },
                  { "s.mp4", "o.mov", AV_CODEC_ID_AAC, 0.5 },        { "s.mkv", "o.mkv", AV_CODEC_ID_PCM_S16LE, 0 },
                  { "s.mkv", "o.mov", AV_CODEC_ID_PCM_S16LE, 0.75 }, { "s.avi", "o.mkv", AV_CODEC_ID_PCM_S16LE, 0 } };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct sound a, b;
        struct error        e = { 0 };
        char                source[300];
        make_source(cases[i].source, cases[i].id);
        strcpy(source, path);
        listen(&a, source);
        place(cases[i].out);
        struct sink_params p = params(NULL, 0);
        p.frames = 24; /* 1.5 s */
        p.audio = source;
        p.audio_start = cases[i].start;
        if (gv_sink_check(path, NULL, NULL, &e) == GV_OK) {
            if (make(&p, NULL, &e) != GV_OK)
                fail_msg("%s", e.text);
            listen(&b, path);
            assert_true(b.n > 20);
            int first = 0;
            while (first < a.n && a.sum[first] != b.sum[0])
                first++;
            const double shift = b.at[0] - (a.at[first] - cases[i].start);
            for (int j = 0; j < b.n; j++) {
                assert_true(first + j < a.n && a.sum[first + j] == b.sum[j]);
                assert_true(fabs(b.at[j] - (a.at[first + j] - cases[i].start) - shift) < 2e-3);
            }
            assert_true(fabs(shift) < 0.03); /* Matroska moves all by the first packet's negative time */
            assert_true(b.at[0] < 0.03 && b.at[b.n - 1] < 1.53 && b.at[b.n - 1] > 1.4);
            assert_true(fabs(b.video_end - 23 / 16.0) < 0.03);
            unlink(path);
        }
        unlink(source);
    }
}

static void sound_that_does_not_fit_is_said(void **state)
{
    struct said  said = { "" };
    struct log   log = { hear, &said, GV_LOG_DEBUG };
    struct sound s;
    struct error e = { 0 };
    char         source[300];
    (void)state;
    make_source("pcm.mkv", AV_CODEC_ID_PCM_S16LE);
    strcpy(source, path);
    place("no.mp4");
    struct sink_params p = params(NULL, 0);
    p.audio = source;
    p.log = &log;
    p.frames = 2;
    if (gv_sink_check(path, NULL, NULL, &e) == GV_OK) {
        assert_int_equal(make(&p, NULL, &e), GV_OK);
        assert_non_null(strstr(said.text, "does not hold sound in pcm_s16le"));
        listen(&s, path);
        assert_int_equal(s.n, 0);
        unlink(path);
        p.audio = "/nonexistent.mp4";
        assert_int_equal(make(&p, NULL, &e), GV_ERR_IO);
        assert_non_null(strstr(e.text, "/nonexistent.mp4"));
    }
    unlink(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_what_is_shown),
        cmocka_unit_test(ten_bits_are_ten),
        cmocka_unit_test(odd_sizes_are_padded_where_chroma_is_halved),
        cmocka_unit_test(what_cannot_be_is_said_before_a_file_exists),
        cmocka_unit_test(the_last_word_is_the_recipe_of_commit),
        cmocka_unit_test(a_killed_process_leaves_a_part_that_plays),
        cmocka_unit_test(the_sound_of_a_source_goes_along),
        cmocka_unit_test(sound_that_does_not_fit_is_said),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}

#endif
