/* H.264 in MP4, looked at with libav: tags, exact colour (losslessly coded), order, padding, and that it is whole or absent.
 * What libav reads for us is compared in test_image.c. */
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
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>

#include "io/image.h"
#include "io/sink.h"
#include "tests/fixture.h"

static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    fixture_temp(folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* fails if any test left a file, hidden or not */
}

/* ---- making a clip ---------------------------------------------------------------------------------------------------- */

static void scene(uint8_t *rgb, int width, int height, int t)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t *p = rgb + 3 * (y * width + x);
            p[0]       = (uint8_t)(40 + 160 * x / width + 2 * t);
            p[1]       = (uint8_t)(128 + 90 * sin(0.05 * (x + 3 * t)) * cos(0.07 * y));
            p[2]       = (uint8_t)(200 - 150 * y / height);
        }
}

struct said {
    char text[4096];
};

static void listen(void *user, gv_log_level level, const char *message)
{
    struct said *s = user;
    (void)level;
    strncat(s->text, message, sizeof s->text - strlen(s->text) - 1);
}

struct making {
    struct sink_params p;
    char               path[400];
    struct said        said;
    struct log         log;
};

static void making(struct making *m, const char *name, int width, int height, int64_t n)
{
    *m = (struct making){.p = {.width = width, .height = height, .fps = 16, .frames = n, .crf = -1, .preset = "veryfast"}};
    snprintf(m->path, sizeof m->path, "%s/%s", folder, name);
    m->log    = (struct log){listen, &m->said, GV_LOG_DEBUG};
    m->p.path = m->path;
    m->p.log  = &m->log;
}

static gv_status make(const struct making *m, struct error *e)
{
    struct sink *s;
    uint8_t     *rgb = malloc((size_t)m->p.width * (size_t)m->p.height * 3);
    *e               = (struct error){0};
    gv_status st     = gv_sink_open(&s, &m->p, e);
    for (int i = 0; i < m->p.frames && st == GV_OK; i++) {
        scene(rgb, m->p.width, m->p.height, i);
        st = gv_sink_write(s, rgb, e);
    }
    if (st == GV_OK)
        st = gv_sink_commit(s, NULL, e);
    gv_sink_close(&s);
    free(rgb);
    return st;
}

static void make_or_fail(const struct making *m)
{
    struct error e;
    if (make(m, &e) != GV_OK)
        fail_msg("%s", e.text);
}

static int count_files(void)
{
    int            n = -2;
    DIR           *d = opendir(folder);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static uint8_t *load(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    fseek(f, 0, SEEK_END);
    *size      = (size_t)ftell(f);
    uint8_t *p = malloc(*size + 1);
    rewind(f);
    assert_int_equal(fread(p, 1, *size, f), *size);
    fclose(f);
    return p;
}

static const uint8_t *find(const uint8_t *p, size_t size, const char *what, size_t n)
{
    for (size_t i = 0; i + n <= size; i++)
        if (!memcmp(p + i, what, n))
            return p + i;
    return NULL;
}

/* ---- looking at a clip ------------------------------------------------------------------------------------------------ */

struct look {
    AVFormatContext *f;
    AVCodecContext  *c;
    AVPacket        *packet;
    AVFrame         *frame;
    int              packets, keys[64], n_keys;
};

static void look(struct look *l, const char *path)
{
    *l = (struct look){0};
    assert_int_equal(avformat_open_input(&l->f, path, NULL, NULL), 0);
    assert_true(avformat_find_stream_info(l->f, NULL) >= 0);
    assert_int_equal(l->f->nb_streams, 1);
    const AVCodec *codec = avcodec_find_decoder(l->f->streams[0]->codecpar->codec_id);
    l->c                 = avcodec_alloc_context3(codec);
    avcodec_parameters_to_context(l->c, l->f->streams[0]->codecpar);
    assert_int_equal(avcodec_open2(l->c, codec, NULL), 0);
    l->packet = av_packet_alloc();
    l->frame  = av_frame_alloc();
}

static bool next_frame(struct look *l)
{
    for (;;) {
        const int r = avcodec_receive_frame(l->c, l->frame);
        if (r != AVERROR(EAGAIN))
            return r >= 0;
        if (av_read_frame(l->f, l->packet) < 0) {
            avcodec_send_packet(l->c, NULL);
            continue;
        }
        if (l->packet->flags & AV_PKT_FLAG_KEY && l->n_keys < 64)
            l->keys[l->n_keys++] = l->packets;
        l->packets++;
        assert_int_equal(avcodec_send_packet(l->c, l->packet), 0);
        av_packet_unref(l->packet);
    }
}

static void look_away(struct look *l)
{
    avcodec_free_context(&l->c);
    avformat_close_input(&l->f);
    av_packet_free(&l->packet);
    av_frame_free(&l->frame);
}

/* ---- what is written -------------------------------------------------------------------------------------------------- */

static void the_stream_and_the_container_say_bt709_limited_left(void **state)
{
    struct making m;
    struct look   l;
    size_t        size;
    (void)state;
    making(&m, "tags.mp4", 64, 48, 5);
    m.p.preset = NULL;
    make_or_fail(&m);
    look(&l, m.path);
    const AVCodecParameters *p = l.f->streams[0]->codecpar;
    assert_int_equal(p->codec_id, AV_CODEC_ID_H264);
    assert_int_equal(p->profile, 100); /* High */
    assert_int_equal(p->format, AV_PIX_FMT_YUV420P);
    assert_int_equal(l.f->streams[0]->sample_aspect_ratio.num, l.f->streams[0]->sample_aspect_ratio.den);
    assert_true(next_frame(&l)); /* what the bitstream says */
    assert_int_equal(l.frame->color_primaries, AVCOL_PRI_BT709);
    assert_int_equal(l.frame->color_trc, AVCOL_TRC_BT709);
    assert_int_equal(l.frame->colorspace, AVCOL_SPC_BT709);
    assert_int_equal(l.frame->color_range, AVCOL_RANGE_MPEG);
    assert_int_equal(l.frame->chroma_location, AVCHROMA_LOC_LEFT);
    look_away(&l);

    uint8_t *bytes = load(m.path, &size); /* what the container says */
    assert_non_null(find(bytes, size, "colrnclx\0\1\0\1\0\1\0", 15));
    assert_true(find(bytes, size, "moov", 4) < find(bytes, size, "mdat", 4));
    free(bytes);
    unlink(m.path);
}

static void frames_arrive_in_order_with_their_times(void **state)
{
    static const struct {
        double     fps;
        int        n;
        AVRational rate;
    } cases[] = {{16, 33, {16, 1}}, {23.976, 5, {24000, 1001}}, {12.5, 3, {25, 2}}, {30, 1, {30, 1}}};
    enum { W = 64, H = 48 };
    uint8_t want[W * H], u[W * H / 4], v[W * H / 4], rgb[W * H * 3];
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct making m;
        struct look   l;
        making(&m, "order.mp4", W, H, cases[k].n);
        m.p.fps = cases[k].fps;
        make_or_fail(&m);
        look(&l, m.path);
        const AVStream *s = l.f->streams[0];
        assert_int_equal(av_cmp_q(s->avg_frame_rate, cases[k].rate), 0);
        assert_int_equal(s->nb_frames, cases[k].n);
        assert_true(fabs((double)s->duration * av_q2d(s->time_base) - cases[k].n / av_q2d(cases[k].rate)) < 1e-3);
        for (int i = 0; i < cases[k].n; i++) {
            double sum = 0;
            assert_true(next_frame(&l));
            assert_true(fabs((double)l.frame->best_effort_timestamp * av_q2d(s->time_base) - i / av_q2d(cases[k].rate)) < 1e-3);
            scene(rgb, W, H, i);
            gv_yuv_from_rgb(want, W, u, v, W / 2, rgb, W, H, YUV_420);
            for (int j = 0; j < W * H; j++)
                sum += pow(want[j] - l.frame->data[0][j / W * l.frame->linesize[0] + j % W], 2);
            assert_true(10 * log10(255.0 * 255 * W * H / (sum + 1e-9)) > 38); /* neighbours in time differ by 36 dB at the most */
        }
        assert_false(next_frame(&l));
        look_away(&l);
        unlink(m.path);
    }
}

static void a_key_frame_comes_at_least_every_two_seconds(void **state)
{
    struct making m;
    struct look   l;
    (void)state;
    making(&m, "keys.mp4", 32, 32, 40);
    m.p.fps = 8;
    make_or_fail(&m);
    look(&l, m.path);
    while (next_frame(&l))
        ;
    assert_true(l.n_keys >= 3);
    for (int i = 1; i < l.n_keys; i++)
        assert_true(l.keys[i] - l.keys[i - 1] <= 16);
    look_away(&l);
    unlink(m.path);
}

/* crf 0 is lossless: what a player decodes are our planes, so colour and siting are exact by test_frame.c. */
static void lossless_frames_hold_exactly_our_planes_padded_to_even(void **state)
{
    static const int sizes[][2] = {{64, 48}, {63, 48}, {64, 47}, {61, 43}};
    (void)state;
    for (size_t k = 0; k < 4; k++) {
        const int     w = sizes[k][0], h = sizes[k][1], ew = (w + 1) & ~1, eh = (h + 1) & ~1, cw = ew / 2, ch = eh / 2;
        struct making m;
        struct look   l;
        making(&m, "exact.mp4", w, h, 2);
        m.p.crf = 0;
        make_or_fail(&m);
        assert_non_null(strstr(m.said.text, "crf 0 is lossless"));
        assert_int_equal(strstr(m.said.text, "padded") != NULL, w != ew || h != eh);
        look(&l, m.path);
        uint8_t *rgb = malloc((size_t)(w * h * 3)), *y = malloc((size_t)(w * h)), *u = malloc((size_t)(cw * ch)),
                *v = malloc((size_t)(cw * ch));
        assert_true(next_frame(&l));
        assert_int_equal(l.frame->width, ew);
        assert_int_equal(l.frame->height, eh);
        scene(rgb, w, h, 0);
        gv_yuv_from_rgb(y, w, u, v, cw, rgb, w, h, YUV_420);
        const AVFrame *f = l.frame;
        for (int j = 0; j < eh; j++)
            for (int i = 0; i < ew; i++)
                assert_int_equal(f->data[0][j * f->linesize[0] + i], y[(j < h ? j : h - 1) * w + (i < w ? i : w - 1)]);
        for (int j = 0; j < ch; j++)
            for (int i = 0; i < cw; i++) {
                assert_int_equal(f->data[1][j * f->linesize[1] + i], u[j * cw + i]);
                assert_int_equal(f->data[2][j * f->linesize[2] + i], v[j * cw + i]);
            }
        look_away(&l);
        free(rgb);
        free(y);
        free(u);
        free(v);
        unlink(m.path);
    }
}

static void our_own_reader_shows_the_first_frame(void **state)
{
    enum { W = 96, H = 64 };
    struct making m;
    struct image  im;
    struct error  e   = {0};
    uint8_t       rgb[W * H * 3];
    double        sum = 0;
    (void)state;
    making(&m, "own.mp4", W, H, 3);
    m.p.crf = 4;
    make_or_fail(&m);
    assert_int_equal(gv_image_read(&im, m.path, &e), GV_OK);
    assert_int_equal(im.width, W);
    assert_int_equal(im.height, H);
    scene(rgb, W, H, 0);
    for (size_t i = 0; i < sizeof rgb; i++)
        sum += (rgb[i] - im.rgb[i]) * (rgb[i] - im.rgb[i]);
    const double db = 10 * log10(255.0 * 255 * sizeof rgb / sum);
    printf("first frame at crf 4: %.1f dB\n", db);
    assert_true(db > 44);
    gv_image_free(&im);
    unlink(m.path);
}

static void the_recipe_is_in_the_comment_however_long(void **state)
{
    struct making m;
    struct look   l;
    char         *recipe = malloc(100001);
    (void)state;
    for (int i = 0; i < 100000; i++)
        recipe[i] = (char)('a' + i % 26);
    recipe[100000] = '\0';
    memcpy(recipe, "{\"prompt\":\"f\xc3\xbc" "chse\"}", 20);
    making(&m, "recipe.mp4", 32, 32, 1);
    m.p.comment = recipe;
    make_or_fail(&m);
    look(&l, m.path);
    const AVDictionaryEntry *t = av_dict_get(l.f->metadata, "comment", NULL, 0);
    assert_non_null(t);
    assert_string_equal(t->value, recipe);
    look_away(&l);
    unlink(m.path);
    free(recipe);
}

/* ---- refusals and failures -------------------------------------------------------------------------------------------- */

static void bad_settings_are_refused_by_name(void **state)
{
    struct making m;
    struct error  e;
    (void)state;
    making(&m, "bad.mp4", 32, 32, 1);
    m.p.preset = "warp9";
    assert_int_equal(make(&m, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "\"warp9\""));
    m.p.preset = NULL;
    m.p.crf    = 52;
    assert_int_equal(make(&m, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "crf 52"));
    m.p.crf  = -1;
    m.p.path = "/dev/null";
    m.p.format = "mp4";
    assert_int_equal(make(&m, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "regular file"));
    m.p.path = "-";
    assert_int_equal(make(&m, &e), GV_ERR_ARGUMENT);
    assert_int_equal(count_files(), 0);
}

static void a_full_disk_at_any_moment_leaves_nothing(void **state)
{
    static const rlim_t limits[] = {0, 20, 1000, 5000};
    struct rlimit       all, small;
    size_t              size;
    struct making       m;
    (void)state;
    making(&m, "full.mp4", 128, 96, 40);
    m.p.crf = 1;
    make_or_fail(&m);
    free(load(m.path, &size));
    unlink(m.path);
    getrlimit(RLIMIT_FSIZE, &all);
    for (size_t i = 0; i < 8; i++) {
        struct error e;
        small          = all;
        small.rlim_cur = i < 4 ? limits[i] : (rlim_t)(size * (i - 3) / 5 + (i == 7 ? size / 5 - 10 : 0)); /* the last in the trailer */
        setrlimit(RLIMIT_FSIZE, &small);
        const gv_status st = make(&m, &e);
        setrlimit(RLIMIT_FSIZE, &all);
        if (st != GV_ERR_IO || !strstr(e.text, "full.mp4: File too large"))
            fail_msg("at %zu of %zu bytes: code %d, \"%s\"", (size_t)small.rlim_cur, size, st, e.text);
        assert_int_equal(count_files(), 0);
    }
}

static void closing_without_commit_leaves_nothing(void **state)
{
    struct making m;
    uint8_t       rgb[32 * 32 * 3] = {0};
    (void)state;
    for (int n = 0; n < 60; n += 29) {
        struct error e = {0};
        struct sink *s;
        making(&m, "x.mp4", 32, 32, 100);
        assert_int_equal(gv_sink_open(&s, &m.p, &e), GV_OK);
        for (int i = 0; i < n; i++)
            assert_int_equal(gv_sink_write(s, rgb, &e), GV_OK);
        gv_sink_close(&s);
        assert_int_equal(count_files(), 0);
    }
}

static void names_mean_nothing_to_libav(void **state)
{
    static const char *const names[] = {"%d.mp4", "file:x.mp4", "a|b,c'\".mp4", "concat:x.mp4", "-x.mp4"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct making m;
        struct image  im;
        struct error  e = {0};
        making(&m, names[i], 32, 32, 1);
        make_or_fail(&m);
        assert_int_equal(gv_image_read(&im, m.path, &e), GV_OK);
        gv_image_free(&im);
        assert_int_equal(unlink(m.path), 0);
    }
}

/* A demuxer that follows other files must not be reached from inside a container's first bytes either. */
static void a_playlist_behind_the_mark_of_a_clip_is_refused(void **state)
{
    static const char *const heads[] = {"\0\0\0\x18" "ftypisom\0\0\2\0isommp41", "RIFF\0\0\0\0AVI LIST", "\x1a\x45\xdf\xa3"};
    static const size_t      sizes[] = {24, 16, 4};
    char                     path[400];
    (void)state;
    snprintf(path, sizeof path, "%s/list.mp4", folder);
    for (size_t i = 0; i < 3; i++) {
        struct image im;
        struct error e = {0};
        FILE        *f = fopen(path, "wb");
        fwrite(heads[i], 1, sizes[i], f);
        fputs("#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", f);
        fclose(f);
        assert_int_equal(gv_image_read(&im, path, &e), GV_ERR_FORMAT);
        assert_non_null(strstr(e.text, "list.mp4"));
        unlink(path);
    }
}

/* ---- manners ---------------------------------------------------------------------------------------------------------- */

static void nothing_is_printed(void **state)
{
    struct making m;
    struct image  im;
    struct error  e = {0};
    char          path[400];
    (void)state;
    snprintf(path, sizeof path, "%s/printed", folder);
    making(&m, "quiet.mp4", 63, 47, 20);
    fflush(NULL);
    const int fd = open(path, O_RDWR | O_CREAT, 0600), out = dup(1), err = dup(2);
    dup2(fd, 1);
    dup2(fd, 2);
    const gv_status made = make(&m, &e), read = gv_image_read(&im, m.path, &e);
    truncate(m.path, 900); /* inside the index */
    struct image    none;
    struct error    e2    = {0};
    const gv_status again = gv_image_read(&none, m.path, &e2);
    fflush(NULL);
    dup2(out, 1);
    dup2(err, 2);
    const off_t printed = lseek(fd, 0, SEEK_END);
    close(fd);
    close(out);
    close(err);
    unlink(path);
    unlink(m.path);
    gv_image_free(&im);
    assert_int_equal(made, GV_OK);
    assert_int_equal(read, GV_OK);
    assert_int_equal(again, GV_ERR_FORMAT);
    assert_int_equal(printed, 0);
}

static void *make_in_thread(void *arg)
{
    struct error e;
    return make(arg, &e) == GV_OK ? arg : NULL;
}

/* Lossless, because x264's macroblock tree reads memory it has not written: its choices, not its colours, differ by chance. */
static void two_at_once_are_the_same_as_one_after_the_other(void **state)
{
    struct making m[3];
    uint8_t      *bytes[3];
    size_t        size[3];
    pthread_t     thread[2];
    (void)state;
    for (int i = 0; i < 3; i++) {
        making(&m[i], i == 0 ? "a.mp4" : i == 1 ? "b.mp4" : "c.mp4", 96, 64, 20);
        m[i].p.crf = 0;
    }
    make_or_fail(&m[0]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, make_in_thread, &m[i + 1]), 0);
    for (int i = 0; i < 2; i++) {
        void *r;
        pthread_join(thread[i], &r);
        assert_non_null(r);
    }
    for (int i = 0; i < 3; i++) {
        bytes[i] = load(m[i].path, &size[i]);
        assert_int_equal(size[i], size[0]);
        assert_memory_equal(bytes[i], bytes[0], size[0]);
        unlink(m[i].path);
    }
    for (int i = 0; i < 3; i++)
        free(bytes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stream_and_the_container_say_bt709_limited_left),
        cmocka_unit_test(frames_arrive_in_order_with_their_times),
        cmocka_unit_test(a_key_frame_comes_at_least_every_two_seconds),
        cmocka_unit_test(lossless_frames_hold_exactly_our_planes_padded_to_even),
        cmocka_unit_test(our_own_reader_shows_the_first_frame),
        cmocka_unit_test(the_recipe_is_in_the_comment_however_long),
        cmocka_unit_test(bad_settings_are_refused_by_name),
        cmocka_unit_test(a_full_disk_at_any_moment_leaves_nothing),
        cmocka_unit_test(closing_without_commit_leaves_nothing),
        cmocka_unit_test(names_mean_nothing_to_libav),
        cmocka_unit_test(a_playlist_behind_the_mark_of_a_clip_is_refused),
        cmocka_unit_test(nothing_is_printed),
        cmocka_unit_test(two_at_once_are_the_same_as_one_after_the_other),
    };
    struct error e = {0};
    if (gv_sink_check("x.mp4", NULL, NULL, &e) != GV_OK) {
        printf("skipped: %s\n", e.text);
        return 0;
    }
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}

#endif
