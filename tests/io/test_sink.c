/* Where frames go: exact bytes of the simple kinds, and that a result is whole or absent whatever happens. */
#define _XOPEN_SOURCE 700
#include "io/sink_kind.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/image.h"
#include "tests/fixture.h"

enum { W = 21, H = 13, FRAMES = 3, BYTES = W * H * 3 };

static char    folder[256];
static uint8_t frames[FRAMES][BYTES];

static int make_folder(void **state)
{
    uint32_t seed = 5;
    (void)state;
    for (int i = 0; i < FRAMES * BYTES; i++)
        frames[i / BYTES][i % BYTES] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    fixture_temp(folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* fails if any test left a file, hidden or not */
}

/* ---- helpers ---------------------------------------------------------------------------------------------------------- */

static const char *in_folder(const char *name)
{
    static char path[2][512];
    static int  turn;
    char       *p = path[turn ^= 1];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static int count_files(bool hidden)
{
    int            n = 0;
    DIR           *d = opendir(folder);
    struct dirent *f;
    assert_non_null(d);
    while ((f = readdir(d)))
        n += strcmp(f->d_name, ".") && strcmp(f->d_name, "..") && (f->d_name[0] == '.') == hidden;
    closedir(d);
    return n;
}

static void assert_empty(void)
{
    assert_int_equal(count_files(true), 0);
    assert_int_equal(count_files(false), 0);
}

static struct sink_params params(const char *path, int64_t n)
{
    return (struct sink_params){.path = path, .width = W, .height = H, .fps = 16, .frames = n, .crf = -1};
}

static gv_status write_all(const struct sink_params *p, struct error *e)
{
    struct sink *s;
    *e           = (struct error){0};
    gv_status st = gv_sink_open(&s, p, e);
    for (int i = 0; i < p->frames && st == GV_OK; i++)
        st = gv_sink_write(s, frames[i % FRAMES], e);
    if (st == GV_OK)
        st = gv_sink_commit(s, NULL, e);
    gv_sink_close(&s);
    assert_int_equal(st, e->code);
    return st;
}

static void expect_open_fails(struct sink_params p, gv_status code, const char *words)
{
    struct error    e = {0};
    struct sink    *s = NULL;
    const gv_status st = gv_sink_open(&s, &p, &e);
    assert_null(s);
    if (st != code || !strstr(e.text, words))
        fail_msg("%s: code %d, \"%s\"; expected %d and \"%s\"", p.path, st, e.text, code, words);
    assert_empty();
}

static size_t load(const char *path, uint8_t *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    const size_t n = fread(bytes, 1, room, f);
    fclose(f);
    return n;
}

/* ---- kinds ------------------------------------------------------------------------------------------------------------ */

static void an_unknown_extension_is_refused_and_the_known_are_named(void **state)
{
    static const struct {
        const char *path, *format, *words;
    } bad[] = {{"clip.avi", NULL, "\"avi\""},  {"clip", NULL, "no extension"},      {"clip.", NULL, "no extension"},
               {"a.png/clip", NULL, "no extension"}, {"-", NULL, "standard output has no extension"},
               {"", NULL, "empty"},            {"clip.mp4", "exe", "\"exe\""},     {"clip.m\np4", NULL, "cannot write"}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error e = {0};
        assert_int_equal(gv_sink_check(bad[i].path, bad[i].format, NULL, &e), GV_ERR_ARGUMENT);
        if (!strstr(e.text, bad[i].words))
            fail_msg("%s: \"%s\"", bad[i].path, e.text);
        if (bad[i].path[0])
            assert_non_null(strstr(e.text, "y4m, y4m444, rgb, png"));
    }
}

static void known_extensions_pass_in_any_case(void **state)
{
    static const char *const good[] = {"a.y4m", "a.Y4M", "a/b.c/d.png", "x.rgb", "%04d.PNG"};
    struct error             e      = {0};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(gv_sink_check(good[i], NULL, NULL, &e), GV_OK);
    assert_int_equal(gv_sink_check("-", "y4m", NULL, &e), GV_OK);
    assert_int_equal(gv_sink_check("/dev/null", "rgb", NULL, &e), GV_OK);
}

static void a_kind_without_its_library_says_what_it_lacks(void **state)
{
    static const char *const kinds[] = {"mp4", "jpg", "jpeg"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct error    e  = {0};
        const gv_status st = gv_sink_check("x", kinds[i], NULL, &e);
        if (st != GV_OK) {
            assert_int_equal(st, GV_ERR_UNSUPPORTED);
            assert_non_null(strstr(e.text, "y4m"));
            printf("%s\n", e.text);
        }
    }
}

static void the_list_of_formats_is_json(void **state)
{
    char *json = gv_sink_formats();
    (void)state;
    assert_non_null(json);
    assert_int_equal(json[0], '[');
    assert_int_equal(json[strlen(json) - 1], ']');
    assert_non_null(strstr(json, "{\"extension\":\"y4m\",\"description\":\""));
    free(json);
}

static void values_out_of_range_are_refused(void **state)
{
    const char        *path = in_folder("x.y4m");
    struct sink_params p    = params(path, 1);
    (void)state;
    p.width = 0;
    expect_open_fails(p, GV_ERR_ARGUMENT, "0×13");
    p       = params(path, 1);
    p.height = GV_IMAGE_SIDE + 1;
    expect_open_fails(p, GV_ERR_ARGUMENT, "outside");
    p     = params(path, 1);
    p.fps = NAN;
    expect_open_fails(p, GV_ERR_ARGUMENT, "frames per second");
    p.fps = 0;
    expect_open_fails(p, GV_ERR_ARGUMENT, "frames per second");
    expect_open_fails(params(path, 0), GV_ERR_ARGUMENT, "0 frames");
}

static void rates_become_the_ratios_that_players_know(void **state)
{
    static const struct {
        double fps;
        int    num, den;
    } cases[] = {{16, 16, 1},         {23.976, 24000, 1001}, {23.98, 24000, 1001}, {24000 / 1001.0, 24000, 1001},
                 {29.97, 30000, 1001}, {59.94, 60000, 1001},  {12.5, 25, 2},        {0.1, 1, 10},
                 {1000, 1000, 1},      {7.333, 7333, 1000},   {24, 24, 1},          {25, 25, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int num, den;
        gv_fps_ratio(cases[i].fps, &num, &den);
        if (num != cases[i].num || den != cases[i].den)
            fail_msg("%g became %d/%d", cases[i].fps, num, den);
    }
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

static void y4m_holds_the_header_and_the_planes(void **state)
{
    static const char header[] = "YUV4MPEG2 W21 H13 F16:1 Ip A1:1 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED\n";
    enum { CW = (W + 1) / 2, CH = (H + 1) / 2, FRAME = W * H + 2 * CW * CH };
    static uint8_t     got[65536];
    uint8_t            want[FRAME];
    const char        *path = in_folder("x.y4m");
    struct sink_params p    = params(path, FRAMES);
    struct error       e;
    (void)state;
    assert_int_equal(write_all(&p, &e), GV_OK);
    assert_int_equal(load(path, got, sizeof got), sizeof header - 1 + FRAMES * (6 + FRAME));
    assert_memory_equal(got, header, sizeof header - 1);
    for (int i = 0; i < FRAMES; i++) {
        const uint8_t *at = got + sizeof header - 1 + i * (6 + FRAME);
        assert_memory_equal(at, "FRAME\n", 6);
        gv_yuv_from_rgb(want, W, want + W * H, want + W * H + CW * CH, CW, frames[i], W, H, YUV_420);
        assert_memory_equal(at + 6, want, FRAME);
    }
    unlink(path);
}

static void y4m444_and_rgb_have_their_sizes_and_pixels(void **state)
{
    static uint8_t     got[65536];
    const char        *path = in_folder("x.out");
    struct sink_params p    = params(path, FRAMES);
    struct error       e;
    (void)state;
    p.format = "rgb";
    assert_int_equal(write_all(&p, &e), GV_OK);
    assert_int_equal(load(path, got, sizeof got), FRAMES * BYTES);
    assert_memory_equal(got, frames, FRAMES * BYTES);
    p.format = "y4m444";
    assert_int_equal(write_all(&p, &e), GV_OK); /* and it replaces */
    const size_t n = load(path, got, sizeof got);
    got[n]         = 0;
    assert_non_null(strstr((char *)got, " C444 "));
    assert_int_equal(n, (size_t)(strchr((char *)got, '\n') - (char *)got) + 1 + FRAMES * (6 + BYTES));
    unlink(path);
}

static void standard_output_gets_the_same_bytes_and_stays_open(void **state)
{
    static uint8_t     got[65536];
    const char        *path = in_folder("stdout");
    struct sink_params p    = params("-", FRAMES);
    struct error       e;
    (void)state;
    p.format = "rgb";
    fflush(stdout);
    const int kept = dup(STDOUT_FILENO), fd = open(path, O_RDWR | O_CREAT, 0600);
    dup2(fd, STDOUT_FILENO);
    const gv_status st   = write_all(&p, &e);
    const bool      open = fcntl(STDOUT_FILENO, F_GETFD) >= 0;
    dup2(kept, STDOUT_FILENO);
    close(kept);
    close(fd);
    assert_int_equal(st, GV_OK);
    assert_true(open);
    assert_int_equal(load(path, got, sizeof got), FRAMES * BYTES);
    assert_memory_equal(got, frames, FRAMES * BYTES);
    unlink(path);
    p.format = "png";
    expect_open_fails(p, GV_ERR_ARGUMENT, "standard output cannot take this format");
}

/* ---- sequences -------------------------------------------------------------------------------------------------------- */

static void a_sequence_is_numbered_from_zero_and_appears_at_commit(void **state)
{
    struct sink_params p = params(in_folder("f_%03d.png"), FRAMES);
    struct error       e = {0};
    struct sink       *s;
    char               path[400];
    (void)state;
    p.comment = "{}";
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_OK);
    for (int i = 0; i < FRAMES; i++) {
        assert_int_equal(gv_sink_write(s, frames[i], &e), GV_OK);
        assert_int_equal(count_files(false), 0);
    }
    assert_int_equal(gv_sink_commit(s, NULL, &e), GV_OK);
    gv_sink_close(&s);
    assert_int_equal(count_files(true), 0);
    assert_int_equal(count_files(false), FRAMES);
    for (int i = 0; i < FRAMES; i++) {
        struct image im;
        snprintf(path, sizeof path, "%s/f_%03d.png", folder, i);
        assert_int_equal(gv_image_read(&im, path, &e), GV_OK);
        assert_memory_equal(im.rgb, frames[i], BYTES);
        gv_image_free(&im);
        unlink(path);
    }
}

static void a_sequence_that_cannot_be_committed_leaves_nothing(void **state)
{
    struct sink_params p = params(in_folder("f%d.png"), FRAMES);
    struct error       e = {0};
    struct sink       *s;
    (void)state;
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_OK);
    for (int i = 0; i < FRAMES; i++)
        assert_int_equal(gv_sink_write(s, frames[i], &e), GV_OK);
    const char *blocked = in_folder("f2.png"); /* a folder has taken the last name */
    assert_int_equal(mkdir(blocked, 0700), 0);
    assert_int_equal(gv_sink_commit(s, NULL, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "f2.png"));
    gv_sink_close(&s);
    rmdir(blocked);
    assert_empty();
}

static void a_single_picture_needs_no_number(void **state)
{
    const char        *path = in_folder("one.png");
    struct sink_params p    = params(path, 1);
    struct error       e;
    (void)state;
    assert_int_equal(write_all(&p, &e), GV_OK);
    assert_int_equal(unlink(path), 0);
    expect_open_fails(params(path, 2), GV_ERR_ARGUMENT, "put %04d into the name");
}

static void a_percent_sign_means_a_number_or_nothing(void **state)
{
    static const char *const bad[] = {"%s.png", "%n%n.png", "%d%d.png", "%4d.png", "%00d.png", "%", "%%d.png", "%010d.png",
                                      "%d/x.png"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sink_params p = params(in_folder(bad[i]), FRAMES);
        p.format             = "png";
        expect_open_fails(p, GV_ERR_ARGUMENT, "may only be one %d");
    }
}

/* ---- whole or absent -------------------------------------------------------------------------------------------------- */

static void nothing_is_seen_before_commit_and_nothing_stays_without_it(void **state)
{
    static const char *const names[] = {"x.y4m", "x.rgb", "x%d.png"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct sink_params p = params(in_folder(names[i]), FRAMES);
        struct error       e = {0};
        struct sink       *s;
        assert_int_equal(gv_sink_open(&s, &p, &e), GV_OK);
        assert_int_equal(gv_sink_write(s, frames[0], &e), GV_OK);
        assert_int_equal(count_files(false), 0);
        gv_sink_close(&s);
        assert_null(s);
        assert_empty();
    }
}

static void an_older_file_stays_until_commit(void **state)
{
    const char        *path = in_folder("x.rgb");
    struct sink_params p    = params(path, 1);
    struct error       e    = {0};
    struct sink       *s;
    uint8_t            got[BYTES + 1];
    (void)state;
    FILE *f = fopen(path, "wb");
    fputs("old", f);
    fclose(f);
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_OK);
    assert_int_equal(gv_sink_write(s, frames[0], &e), GV_OK);
    assert_int_equal(load(path, got, sizeof got), 3);
    assert_int_equal(gv_sink_commit(s, NULL, &e), GV_OK);
    gv_sink_close(&s);
    assert_int_equal(load(path, got, sizeof got), BYTES);
    unlink(path);
}

static void a_link_stays_a_link(void **state)
{
    const char        *target = in_folder("target.rgb"), *link = in_folder("link.rgb");
    struct sink_params p = params(link, 1);
    struct error       e;
    struct stat        s;
    (void)state;
    fclose(fopen(target, "wb"));
    assert_int_equal(symlink(target, link), 0);
    assert_int_equal(write_all(&p, &e), GV_OK);
    assert_int_equal(lstat(link, &s), 0);
    assert_true(S_ISLNK(s.st_mode));
    assert_int_equal(stat(target, &s), 0);
    assert_int_equal(s.st_size, BYTES);
    unlink(link);
    unlink(target);
}

static void a_killed_process_leaves_no_result(void **state)
{
    const char *path = in_folder("x.rgb");
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        struct sink_params p = params(path, FRAMES);
        struct error       e = {0};
        struct sink       *s;
        if (gv_sink_open(&s, &p, &e) == GV_OK && gv_sink_write(s, frames[0], &e) == GV_OK)
            raise(SIGKILL);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(count_files(false), 0);
    char part[400];
    snprintf(part, sizeof part, "%s/.x.rgb.%ld-0.part", folder, (long)child);
    assert_int_equal(unlink(part), 0);
}

static void places_that_cannot_be_written_are_told_at_open(void **state)
{
    const char *file = in_folder("file");
    (void)state;
    expect_open_fails(params("/nowhere/x.y4m", 1), GV_ERR_IO, "/nowhere/x.y4m: No such file");
    expect_open_fails(params("/nowhere/%d.png", 1), GV_ERR_IO, "/nowhere/0.png: No such file");
    struct sink_params p = params(folder, 1);
    p.format             = "y4m";
    struct error e       = {0};
    struct sink *s;
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "it names a folder"));
    fclose(fopen(file, "wb"));
    char below[300];
    snprintf(below, sizeof below, "%s/x.y4m", file);
    p = params(below, 1);
    e = (struct error){0};
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "Not a directory"));
    unlink(file);
    if (geteuid() == 0) {
        printf("skipped: a folder without write permission, because root may write anywhere\n");
        return;
    }
    assert_int_equal(chmod(folder, 0500), 0);
    expect_open_fails(params(in_folder("x.y4m"), 1), GV_ERR_IO, "Permission denied");
    assert_int_equal(chmod(folder, 0700), 0);
}

static void a_full_disk_is_an_io_error_and_leaves_nothing(void **state)
{
    static const char *const names[] = {"x.y4m", "x.rgb", "x%d.png"};
    struct rlimit            all, small;
    (void)state;
    getrlimit(RLIMIT_FSIZE, &all);
    for (size_t i = 0; i < 3; i++) {
        struct sink_params p = params(in_folder(names[i]), FRAMES);
        struct error       e;
        small          = all;
        small.rlim_cur = 500;
        setrlimit(RLIMIT_FSIZE, &small);
        const gv_status st = write_all(&p, &e);
        setrlimit(RLIMIT_FSIZE, &all);
        assert_int_equal(st, GV_ERR_IO);
        assert_non_null(strstr(e.text, "File too large"));
        assert_empty();
    }
    struct sink_params p = params("/dev/full", 1);
    struct error       e;
    p.format = "rgb";
    assert_int_equal(write_all(&p, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "/dev/full: No space left"));
    assert_int_equal(access("/dev/full", F_OK), 0);
    p.format = "png";
    expect_open_fails(p, GV_ERR_ARGUMENT, "regular file");
}

static void a_closed_pipe_is_an_io_error(void **state)
{
    int  ends[2];
    char path[64];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
    struct sink_params p = params(path, FRAMES);
    struct error       e = {0};
    struct sink       *s;
    p.format = "y4m";
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_OK);
    close(ends[0]);
    assert_int_equal(gv_sink_write(s, frames[0], &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "Broken pipe"));
    e = (struct error){0};
    assert_int_equal(gv_sink_commit(s, NULL, &e), GV_ERR_IO);
    gv_sink_close(&s);
    close(ends[1]);
}

static void counts_of_frames_are_held_to(void **state)
{
    struct sink_params p = params(in_folder("x.rgb"), 1);
    struct error       e = {0};
    struct sink       *s;
    (void)state;
    assert_int_equal(gv_sink_open(&s, &p, &e), GV_OK);
    assert_int_equal(gv_sink_commit(s, NULL, &e), GV_ERR_ARGUMENT);
    e = (struct error){0};
    assert_int_equal(gv_sink_write(s, frames[0], &e), GV_OK);
    assert_int_equal(gv_sink_write(s, frames[1], &e), GV_ERR_ARGUMENT);
    gv_sink_close(&s);
    gv_sink_close(&s); /* twice is fine */
    assert_empty();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_extension_is_refused_and_the_known_are_named),
        cmocka_unit_test(known_extensions_pass_in_any_case),
        cmocka_unit_test(a_kind_without_its_library_says_what_it_lacks),
        cmocka_unit_test(the_list_of_formats_is_json),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(rates_become_the_ratios_that_players_know),
        cmocka_unit_test(y4m_holds_the_header_and_the_planes),
        cmocka_unit_test(y4m444_and_rgb_have_their_sizes_and_pixels),
        cmocka_unit_test(standard_output_gets_the_same_bytes_and_stays_open),
        cmocka_unit_test(a_sequence_is_numbered_from_zero_and_appears_at_commit),
        cmocka_unit_test(a_sequence_that_cannot_be_committed_leaves_nothing),
        cmocka_unit_test(a_single_picture_needs_no_number),
        cmocka_unit_test(a_percent_sign_means_a_number_or_nothing),
        cmocka_unit_test(nothing_is_seen_before_commit_and_nothing_stays_without_it),
        cmocka_unit_test(an_older_file_stays_until_commit),
        cmocka_unit_test(a_link_stays_a_link),
        cmocka_unit_test(a_killed_process_leaves_no_result),
        cmocka_unit_test(places_that_cannot_be_written_are_told_at_open),
        cmocka_unit_test(a_full_disk_is_an_io_error_and_leaves_nothing),
        cmocka_unit_test(a_closed_pipe_is_an_io_error),
        cmocka_unit_test(counts_of_frames_are_held_to),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
