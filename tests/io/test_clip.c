/* Clips read by their times: at a rate, as FFmpeg's filter `fps` gives them (by the rule always; by the ffmpeg command where it is
 * installed), turned as they say, in the same memory whatever the length, and damaged or hostile. Clips are made here with libav,
 * losslessly, each picture carrying its number. */
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

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>

#include "io/clip.h"
#include "io/sink_kind.h"
#include "tests/fixture.h"

enum { W = 8, H = 4, MAX = 4096 };

static char folder[256], path[300];
static bool have_ffmpeg;

static int make_folder(void **state)
{
    (void)state;
    av_log_set_level(AV_LOG_QUIET);
    have_ffmpeg = system("ffmpeg -version > /dev/null 2>&1") == 0;
    if (!have_ffmpeg)
        printf("the ffmpeg command is not installed: the rule alone is compared\n");
    fixture_temp(folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* ---- making clips ----------------------------------------------------------------------------------------------------- */

struct recipe {
    const char *name; /* its extension is the container */
    AVRational  base; /* of pts */
    int         n;
    int64_t     pts[MAX];
    int64_t     duration; /* of the last; 0 = not told */
    int         turn;     /* degrees, as players turn it */
    int         width, height;
    AVRational  sar;
};

static void turn_by(AVStream *st, int degrees)
{
    uint8_t          *m;
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    AVPacketSideData *d = av_packet_side_data_new(&st->codecpar->coded_side_data, &st->codecpar->nb_coded_side_data,
                                                  AV_PKT_DATA_DISPLAYMATRIX, 36, 0);
    m = d->data;
#else
    m = av_stream_new_side_data(st, AV_PKT_DATA_DISPLAYMATRIX, 36);
#endif
    av_display_rotation_set((int32_t *)(void *)m, degrees);
}

/* Pixel (0, 0) is (number & 255, number >> 8, 99); the right column is white, the lowest row black. */
static void make(const struct recipe *r)
{
    AVFormatContext *f = NULL;
    const int        w = r->width ? r->width : W, h = r->height ? r->height : H;
    snprintf(path, sizeof path, "%s/%s", folder, r->name);
    assert_true(avformat_alloc_output_context2(&f, NULL, NULL, path) >= 0);
    const AVCodec  *codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
    AVCodecContext *c = avcodec_alloc_context3(codec);
    c->width = w;
    c->height = h;
    c->pix_fmt = AV_PIX_FMT_RGB24;
    c->time_base = r->base;
    c->sample_aspect_ratio = r->sar;
    c->flags |= f->oformat->flags & AVFMT_GLOBALHEADER ? AV_CODEC_FLAG_GLOBAL_HEADER : 0;
    assert_int_equal(avcodec_open2(c, codec, NULL), 0);
    AVStream *st = avformat_new_stream(f, NULL);
    avcodec_parameters_from_context(st->codecpar, c);
    st->time_base = r->base;
    st->sample_aspect_ratio = r->sar;
    if (r->turn)
        turn_by(st, r->turn);
    assert_true(avio_open(&f->pb, path, AVIO_FLAG_WRITE) >= 0);
    assert_true(avformat_write_header(f, NULL) >= 0);
    AVFrame *frame = av_frame_alloc();
    frame->width = w;
    frame->height = h;
    frame->format = AV_PIX_FMT_RGB24;
    av_frame_get_buffer(frame, 0);
    AVPacket *k = av_packet_alloc();
    for (int i = 0; i < r->n; i++) {
        av_frame_make_writable(frame);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                uint8_t *p = frame->data[0] + y * frame->linesize[0] + 3 * x;
                p[0] = x == w - 1 ? 255 : y == h - 1 ? 0 : (uint8_t)(i & 255);
                p[1] = x == w - 1 ? 255 : y == h - 1 ? 0 : (uint8_t)(i >> 8);
                p[2] = x == w - 1 ? 255 : y == h - 1 ? 0 : 99;
            }
        frame->pts = r->pts[i];
        assert_int_equal(avcodec_send_frame(c, frame), 0);
        assert_int_equal(avcodec_receive_packet(c, k), 0);
        k->pts = k->dts = r->pts[i];
        k->duration = i + 1 < r->n ? r->pts[i + 1] - r->pts[i] : r->duration;
        k->flags |= AV_PKT_FLAG_KEY;
        k->stream_index = 0;
        av_packet_rescale_ts(k, r->base, st->time_base);
        assert_true(av_interleaved_write_frame(f, k) >= 0);
    }
    assert_int_equal(av_write_trailer(f), 0);
    avio_closep(&f->pb);
    avformat_free_context(f);
    avcodec_free_context(&c);
    av_frame_free(&frame);
    av_packet_free(&k);
}

/* ---- reading them ----------------------------------------------------------------------------------------------------- */

struct sequence {
    int     n, number[MAX * 4];
    int64_t tick[MAX * 4];
};

static void read_ours(struct sequence *s, double fps)
{
    struct clip        *c;
    struct error        e = { 0 };
    struct clip_picture p;
    bool                got = true;
    if (gv_clip_open(&c, path, fps, &e) != GV_OK)
        fail_msg("%s", e.text);
    for (s->n = 0; s->n < MAX * 4; s->n++) {
        const int before = s->n ? s->number[s->n - 1] : -1;
        if (gv_clip_next(c, &p, &got, &e) != GV_OK)
            fail_msg("%s", e.text);
        if (!got)
            break;
        s->number[s->n] = p.image->rgb[0] | p.image->rgb[1] << 8;
        s->tick[s->n] = p.index;
        assert_int_equal(p.image->rgb[2], 99);
        assert_int_equal(p.repeated, s->number[s->n] == before);
        if (fps != 0)
            assert_true(fabs(p.seconds * fps - (double)p.index) < 1e-2 * fps); /* 23.976 stands for 24000/1001 */
    }
    gv_clip_close(&c);
}

/* What the ffmpeg command gives: numbers from the pixels, ticks from framecrc. */
static void read_ffmpeg(struct sequence *s, const char *rate)
{
    char    line[1200], ticks[320];
    uint8_t frame[W * H * 3];
    snprintf(ticks, sizeof ticks, "%s/ticks", folder);
    snprintf(line, sizeof line,
             "ffmpeg -nostdin -v error -i '%s' -an -vf fps=%s -vsync passthrough -pix_fmt rgb24 -f rawvideo - "
             "-an -vf fps=%s -vsync passthrough -f framecrc '%s'",
             path, rate, rate, ticks);
    FILE *f = popen(line, "r");
    for (s->n = 0; fread(frame, 1, sizeof frame, f) == sizeof frame; s->n++)
        s->number[s->n] = frame[0] | frame[1] << 8;
    pclose(f);
    f = fopen(ticks, "r");
    for (int i = 0; f && fgets(line, sizeof line, f);) {
        long long dts, pts;
        if (line[0] != '#' && sscanf(line, "0, %lld, %lld", &dts, &pts) == 2 && i < s->n)
            s->tick[i++] = pts;
    }
    if (f)
        fclose(f);
    unlink(ticks);
}

/* Matroska keeps no duration of a last picture whose rate varies, and ffmpeg guesses one from an average: how often that picture
 * is shown is left out of the comparison. */
static void without_last(struct sequence *s, int last)
{
    while (s->n && s->number[s->n - 1] == last)
        s->n--;
}

/* The rule, told plainly: at tick k the last picture whose rounded time is not after k, from the first one's tick to the end's. */
static void read_rule(struct sequence *s, const struct recipe *r, double fps, int64_t start)
{
    int num, den;
    gv_fps_ratio(fps, &num, &den);
    const AVRational tick = { den, num };
    int64_t          end = av_rescale_q_rnd(r->pts[r->n - 1] + r->duration - start, r->base, tick, AV_ROUND_NEAR_INF);
    int64_t          at[MAX];
    for (int i = 0; i < r->n; i++)
        at[i] = av_rescale_q_rnd(r->pts[i] - start, r->base, tick, AV_ROUND_NEAR_INF);
    end += r->duration == 0;
    s->n = 0;
    for (int64_t k = at[0]; k < end || k <= at[r->n - 1]; k++) {
        int shown = 0;
        for (int i = 0; i < r->n; i++)
            shown = at[i] <= k ? i : shown;
        if (shown == r->n - 1 && k >= end)
            break;
        s->number[s->n] = shown;
        s->tick[s->n++] = k;
    }
}

static void compare(const struct sequence *a, const struct sequence *b, const char *what, const char *rate)
{
    for (int i = 0; i < a->n && i < b->n; i++)
        if (a->number[i] != b->number[i] || a->tick[i] != b->tick[i])
            fail_msg("%s at %s: picture %d is number %d at tick %lld; %s has %d at %lld", path, rate, i, a->number[i],
                     (long long)a->tick[i], what, b->number[i], (long long)b->tick[i]);
    if (a->n != b->n)
        fail_msg("%s at %s: %d pictures; %s has %d", path, rate, a->n, what, b->n);
}

static void at_every_rate(const struct recipe *r)
{
    static const struct {
        double      fps;
        const char *name;
    } rates[] = { { 16, "16" }, { 24, "24" },  { 60, "60" },    { 23.976, "24000/1001" },
                  { 10, "10" }, { 25, "25" },  { 7.5, "15/2" }, { 1, "1" },
                  { 50, "50" }, { 0.5, "1/2" } };
    static struct sequence ours, theirs;
    make(r);
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        read_ours(&ours, rates[i].fps);
        read_rule(&theirs, r, rates[i].fps, r->pts[0]);
        if (!r->duration) {
            without_last(&ours, r->n - 1);
            without_last(&theirs, r->n - 1);
        }
        compare(&ours, &theirs, "the rule", rates[i].name);
        if (have_ffmpeg) {
            read_ffmpeg(&theirs, rates[i].name);
            if (!r->duration)
                without_last(&theirs, r->n - 1);
            compare(&ours, &theirs, "ffmpeg", rates[i].name);
        }
    }
    unlink(path);
}

static void constant(struct recipe *r, const char *name, AVRational base, int64_t step, int64_t first, int n)
{
    *r = (struct recipe){ .name = name, .base = base, .n = n, .duration = step };
    for (int i = 0; i < n; i++)
        r->pts[i] = first + i * step;
}

static void constant_rates_become_any_rate(void **state)
{
    static struct recipe r;
    (void)state;
    constant(&r, "cfr30.mov", (AVRational){ 1, 30 }, 1, 0, 61);
    at_every_rate(&r);
    constant(&r, "ntsc.mov", (AVRational){ 1001, 24000 }, 1, 0, 48);
    at_every_rate(&r);
    constant(&r, "cfr8.mkv", (AVRational){ 1, 1000 }, 125, 0, 17); /* at 16 and 24 halves and wholes; at 10 and 25 none */
    at_every_rate(&r);
    constant(&r, "halves.mov", (AVRational){ 1, 48 }, 3, 0, 33); /* at 24: every other time lies on a half */
    at_every_rate(&r);
    constant(&r, "one.mov", (AVRational){ 1, 30 }, 1, 0, 1); /* at 10 it is too short to be seen */
    at_every_rate(&r);
}

static void varying_rates_become_any_rate(void **state)
{
    static struct recipe r;
    uint32_t             seed = 20261123;
    (void)state;
    for (int k = 0; k < 6; k++) {
        r = (struct recipe){ .name = k % 2 ? "vfr.mkv" : "vfr.mov",
                             .base = k % 2 ? (AVRational){ 1, 1000 } : (AVRational){ 1, 90000 },
                             .n = 60 };
        for (int i = 0; i < r.n; i++) {
            seed = seed * 1664525u + 1013904223u;
            const int64_t unit = k % 2 ? 1 : 90; /* 1 ms to 0.2 s, sometimes a second */
            r.pts[i] = i ? r.pts[i - 1] + unit * (1 + (seed >> 8) % (i % 17 ? 200 : 1000)) : 0;
        }
        r.duration = k % 2 ? 0 : 3600;
        at_every_rate(&r);
    }
}

static void a_late_start_is_the_clips_start(void **state)
{
    static struct recipe r;
    (void)state;
    constant(&r, "late.mkv", (AVRational){ 1, 1000 }, 40, 5000, 30);
    at_every_rate(&r);
    constant(&r, "late.mov", (AVRational){ 1, 600 }, 20, 1234, 30);
    at_every_rate(&r);
}

/* ---- the clip's own pictures ------------------------------------------------------------------------------------------ */

static void without_a_rate_each_picture_comes_once_with_its_time(void **state)
{
    static struct recipe   r;
    static struct sequence s;
    (void)state;
    constant(&r, "own.mov", (AVRational){ 1, 600 }, 25, 0, 20);
    r.pts[7] += 11;
    make(&r);
    struct clip        *c;
    struct clip_picture p;
    struct error        e = { 0 };
    bool                got;
    assert_int_equal(gv_clip_open(&c, path, 0, &e), GV_OK);
    for (int i = 0; i < r.n; i++) {
        assert_int_equal(gv_clip_next(c, &p, &got, &e), GV_OK);
        assert_true(got);
        assert_int_equal(p.index, i);
        assert_int_equal(p.image->rgb[0], i);
        assert_true(fabs(p.seconds - (double)r.pts[i] / 600) < 1e-9);
    }
    for (int i = 0; i < 3; i++) { /* the end stays the end */
        assert_int_equal(gv_clip_next(c, &p, &got, &e), GV_OK);
        assert_false(got);
    }
    gv_clip_close(&c);
    read_ours(&s, 0);
    assert_int_equal(s.n, r.n);
    unlink(path);
}

/* Where the marks of make() lie when the clip is shown upright. */
static void pictures_are_turned_as_players_turn_them(void **state)
{
    static struct recipe r;
    static const struct {
        int turn, x, y; /* where the stored pixel (0, 0) goes, in a picture of 8 × 4 */
    } cases[] = { { 0, 0, 0 }, { 90, 3, 0 }, { 180, 7, 3 }, { 270, 0, 7 } };
    (void)state;
    for (size_t k = 0; k < 4; k++) {
        struct clip        *c;
        struct clip_picture p;
        struct error        e = { 0 };
        bool                got;
        constant(&r, "turned.mov", (AVRational){ 1, 25 }, 1, 0, 2);
        r.turn = cases[k].turn;
        make(&r);
        assert_int_equal(gv_clip_open(&c, path, 25, &e), GV_OK);
        assert_int_equal(gv_clip_next(c, &p, &got, &e), GV_OK);
        assert_int_equal(p.image->width, cases[k].turn % 180 ? H : W);
        assert_int_equal(p.image->rgb[3 * (cases[k].y * p.image->width + cases[k].x) + 2], 99);
        gv_clip_close(&c);
        unlink(path);
    }
    constant(&r, "wide.mov", (AVRational){ 1, 25 }, 1, 0, 1);
    r.sar = (AVRational){ 2, 1 };
    make(&r);
    struct clip        *c;
    struct clip_picture p;
    struct error        e = { 0 };
    bool                got;
    assert_int_equal(gv_clip_open(&c, path, 0, &e), GV_OK);
    assert_int_equal(gv_clip_next(c, &p, &got, &e), GV_OK);
    assert_int_equal(p.image->width, 2 * W);
    assert_int_equal(p.image->height, H);
    gv_clip_close(&c);
    unlink(path);
}

static long resident(void)
{
    long  pages = 0, skip;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &skip, &pages) != 2)
        pages = 0;
    if (f)
        fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static void memory_does_not_grow_with_the_clip(void **state)
{
    static struct recipe r;
    struct clip         *c;
    struct clip_picture  p;
    struct error         e = { 0 };
    bool                 got = true;
    long                 early = 0;
    (void)state, (void)early;
    constant(&r, "long.mkv", (AVRational){ 1, 1000 }, 40, 0, 1500);
    r.width = 256;
    r.height = 128; /* 96 KiB a picture: 140 MiB in all */
    make(&r);
    assert_int_equal(gv_clip_open(&c, path, 50, &e), GV_OK);
    int n = 0;
    for (; got; n++) {
        assert_int_equal(gv_clip_next(c, &p, &got, &e), GV_OK);
        if (n == 200)
            early = resident(); /* pictures have come and gone */
    }
    assert_int_equal(n, 3001);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which keep what was freed */
    assert_true(resident() - early < 4 << 20);
#endif
    gv_clip_close(&c);
    unlink(path);
}

/* ---- what is not a clip ------------------------------------------------------------------------------------------------ */

static void expect_refusal(const char *what, double fps, gv_status code, const char *words)
{
    struct clip    *c = NULL;
    struct error    e = { 0 };
    const gv_status st = gv_clip_open(&c, what, fps, &e);
    assert_null(c);
    if (st != code || !strstr(e.text, words))
        fail_msg("%s: code %d, \"%s\"; expected %d and \"%s\"", what, st, e.text, code, words);
}

static void put_file(const char *name, const void *bytes, size_t n)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    fwrite(bytes, 1, n, f);
    fclose(f);
}

static void what_is_not_a_clip_is_refused_by_name(void **state)
{
    static struct recipe r;
    (void)state;
    expect_refusal("/nonexistent/x.mp4", 0, GV_ERR_IO, "/nonexistent/x.mp4: No such file");
    expect_refusal(folder, 0, GV_ERR_UNSUPPORTED, "not a regular file");
    put_file("empty.mp4", "", 0);
    expect_refusal(path, 0, GV_ERR_FORMAT, "empty.mp4 is not a clip");
    unlink(path);
    put_file("list.mp4", "#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n", 40);
    expect_refusal(path, 0, GV_ERR_UNSUPPORTED, "playlist");
    unlink(path);
    put_file("picture.mp4", "\x89PNG\r\n\x1a\n0123456789", 18);
    expect_refusal(path, 0, GV_ERR_FORMAT, "is not a clip");
    unlink(path);
    constant(&r, "ok.mov", (AVRational){ 1, 25 }, 1, 0, 3);
    make(&r);
    expect_refusal(path, 0.01, GV_ERR_ARGUMENT, "0.1 to 1000");
    expect_refusal(path, -5, GV_ERR_ARGUMENT, "0.1 to 1000");
    expect_refusal(path, (double)NAN, GV_ERR_ARGUMENT, "0.1 to 1000");
    unlink(path);
}

/* Cut and flipped copies end in pictures or a sentence, never in a crash; sanitizers watch. */
static void damaged_clips_end_in_words(void **state)
{
    static struct recipe r;
    static const char   *names[] = { "d.mov", "d.mkv", "d.avi" };
    uint32_t             seed = 7;
    int                  opened = 0, refused = 0;
    (void)state;
    for (int k = 0; k < 3; k++) {
        constant(&r, names[k], k == 1 ? (AVRational){ 1, 1000 } : (AVRational){ 1, 25 }, k == 1 ? 40 : 1, 0, 6);
        make(&r);
        FILE   *f = fopen(path, "rb");
        uint8_t bytes[1 << 15], bad[1 << 15];
        size_t  n = fread(bytes, 1, sizeof bytes, f);
        fclose(f);
        unlink(path);
        for (int i = 0; i < 120; i++) {
            struct clip        *c;
            struct clip_picture p;
            struct error        e = { 0 };
            bool                got = true;
            memcpy(bad, bytes, n);
            size_t size = n;
            for (int j = 0; j < 1 + i % 8; j++) {
                seed = seed * 1664525u + 1013904223u;
                bad[(seed >> 8) % n] = (uint8_t)(seed >> 3);
            }
            if (i % 3 == 0)
                size = (size_t)(seed >> 7) % n;
            put_file(names[k], bad, size);
            gv_status st = gv_clip_open(&c, path, i % 2 ? 25 : 0, &e);
            opened += st == GV_OK;
            for (int j = 0; st == GV_OK && got && j < 200; j++)
                st = gv_clip_next(c, &p, &got, &e);
            refused += st != GV_OK;
            if (st != GV_OK)
                assert_non_null(strstr(e.text, names[k]));
            gv_clip_close(&c);
            unlink(path);
        }
    }
    printf("360 damaged clips: %d opened, %d ended in a sentence\n", opened, refused);
    assert_true(opened > 30 && refused > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constant_rates_become_any_rate),
        cmocka_unit_test(varying_rates_become_any_rate),
        cmocka_unit_test(a_late_start_is_the_clips_start),
        cmocka_unit_test(without_a_rate_each_picture_comes_once_with_its_time),
        cmocka_unit_test(pictures_are_turned_as_players_turn_them),
        cmocka_unit_test(memory_does_not_grow_with_the_clip),
        cmocka_unit_test(what_is_not_a_clip_is_refused_by_name),
        cmocka_unit_test(damaged_clips_end_in_words),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}

#endif
