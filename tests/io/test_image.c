/* Pictures in and out: against Pillow and plain arithmetic (tests/golden/media), and against files that mean harm. */
#define _XOPEN_SOURCE 700
#include "io/image.h"
#include "tests/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MEDIA GV_TEST_DATA "/media/"

static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    fixture_temp(folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* ---- helpers ---------------------------------------------------------------------------------------------------------- */

struct blob {
    uint8_t *at;
    size_t   size;
};

static struct blob load(const char *path)
{
    struct blob b = {0};
    FILE       *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    fseek(f, 0, SEEK_END);
    b.size = (size_t)ftell(f);
    rewind(f);
    b.at = malloc(b.size + 1);
    assert_int_equal(fread(b.at, 1, b.size, f), b.size);
    fclose(f);
    return b;
}

static struct blob load_media(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, MEDIA "%s", name);
    return load(path);
}

/* Reads bytes as a file of that name in the test's folder; the file is gone afterwards. */
static gv_status read_as(struct image *im, const char *name, const void *bytes, size_t size, struct error *e)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
    *e                 = (struct error){0};
    const gv_status st = gv_image_read(im, path, e);
    unlink(path);
    if (st != GV_OK) {
        assert_int_equal(st, e->code);
        assert_null(im->rgb);
        if (!strstr(e->text, name))
            fail_msg("does not name the file: %s", e->text);
        assert_null(strchr(e->text, '\n'));
    }
    return st;
}

static void expect_refusal(const char *name, const void *bytes, size_t size, gv_status code, const char *words)
{
    struct image    im;
    struct error    e;
    const gv_status st = read_as(&im, name, bytes, size, &e);
    gv_image_free(&im);
    if (st != code || !strstr(e.text, words))
        fail_msg("%s: code %d, \"%s\"; expected %d and \"%s\"", name, st, e.text, code, words);
}

static bool lacking(gv_status st, const struct error *e)
{
    return st == GV_ERR_UNSUPPORTED && strstr(e->text, "lacks");
}

static uint32_t next(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* A PNG's checksum the slow way. */
static void png_seal(uint8_t *chunk, size_t n)
{
    uint32_t c = ~0u;
    for (size_t i = 4; i < n + 8; i++) {
        c ^= chunk[i];
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
    }
    put32(chunk + 8 + n, ~c);
}

/* ---- what is read ----------------------------------------------------------------------------------------------------- */

static void compare_with_reference(const char *name, int width, int height, int tolerance, int *skipped)
{
    char         path[512];
    struct image im;
    struct error e = {0};
    snprintf(path, sizeof path, MEDIA "%s", name);
    const gv_status st = gv_image_read(&im, path, &e);
    if (lacking(st, &e)) {
        printf("skipped: %s\n", e.text);
        ++*skipped;
        return;
    }
    if (st != GV_OK)
        fail_msg("%s", e.text);
    if (im.width != width || im.height != height)
        fail_msg("%s is %d×%d, expected %d×%d", name, im.width, im.height, width, height);
    snprintf(path, sizeof path, "%s.rgb", name);
    struct blob want = load_media(path);
    assert_int_equal(want.size, (size_t)width * (size_t)height * 3);
    int worst = 0;
    for (size_t i = 0; i < want.size; i++) {
        const int d = abs(im.rgb[i] - want.at[i]);
        worst       = d > worst ? d : worst;
    }
    if (worst > tolerance)
        fail_msg("%s is off by %d codes, allowed %d", name, worst, tolerance);
    free(want.at);
    gv_image_free(&im);
}

static void each_kind_of_picture_reads_as_the_reference_reads_it(void **state)
{
    char name[64];
    int  width, height, tolerance, n = 0, skipped = 0;
    (void)state;
    FILE *f = fopen(MEDIA "pictures.tsv", "r");
    assert_non_null(f);
    for (; fscanf(f, "%63s %d %d %d", name, &width, &height, &tolerance) == 4; n++)
        compare_with_reference(name, width, height, tolerance, &skipped);
    fclose(f);
    assert_true(n >= 50);
    printf("%d pictures compared, %d skipped\n", n - skipped, skipped);
}

static void the_first_bytes_count_and_not_the_name(void **state)
{
    struct blob  png = load_media("rgb.png");
    struct image a, b;
    struct error e;
    (void)state;
    assert_int_equal(read_as(&a, "a.png", png.at, png.size, &e), GV_OK);
    assert_int_equal(read_as(&b, "looks-like.jpg", png.at, png.size, &e), GV_OK);
    assert_memory_equal(a.rgb, b.rgb, 24 * 16 * 3);
    gv_image_free(&a);
    gv_image_free(&b);
    assert_int_equal(read_as(&b, "%d.mp4", png.at, png.size, &e), GV_OK);
    gv_image_free(&b);
    free(png.at);
}

static void reading_a_pipe_works_for_stills(void **state)
{
    struct blob  png = load_media("rgb.png");
    struct image im;
    struct error e = {0};
    int          ends[2];
    char         path[64];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], png.at, png.size), (ssize_t)png.size);
    close(ends[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    assert_int_equal(gv_image_read(&im, path, &e), GV_OK);
    assert_int_equal(im.width, 24);
    gv_image_free(&im);
    close(ends[0]);
    free(png.at);
}

/* ---- what is refused -------------------------------------------------------------------------------------------------- */

static void missing_and_unreadable_files_are_io_errors_with_the_reason(void **state)
{
    struct image im;
    struct error e = {0};
    (void)state;
    assert_int_equal(gv_image_read(&im, "/nowhere/x.png", &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "/nowhere/x.png: No such file"));
    e = (struct error){0};
    assert_int_equal(gv_image_read(&im, folder, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "Is a directory"));
}

static void empty_and_unknown_files_are_refused(void **state)
{
    (void)state;
    expect_refusal("empty.png", "", 0, GV_ERR_FORMAT, "empty");
    expect_refusal("one.jpg", "\xff", 1, GV_ERR_FORMAT, "1 bytes");
    expect_refusal("text.png", "hello, world, this is not a picture", 35, GV_ERR_FORMAT, "68 65 6c 6c");
    expect_refusal("page.jpg", "<html><body>404</body></html>", 29, GV_ERR_UNSUPPORTED, "HTML");
    expect_refusal("doc.jpg", "%PDF-1.7 ............", 20, GV_ERR_UNSUPPORTED, "PDF");
    expect_refusal("phone.jpg", "\0\0\0\x18" "ftypheic\0\0\0\0mif1heic", 24, GV_ERR_UNSUPPORTED, "HEIC");
}

static void playlists_dressed_as_media_are_refused(void **state)
{
    static const char hls[]    = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    static const char concat[] = "ffconcat version 1.0\nfile /etc/passwd\n";
    (void)state;
    expect_refusal("list.mp4", hls, sizeof hls - 1, GV_ERR_UNSUPPORTED, "playlist");
    expect_refusal("list.png", hls, sizeof hls - 1, GV_ERR_UNSUPPORTED, "playlist");
    expect_refusal("concat.mp4", concat, sizeof concat - 1, GV_ERR_UNSUPPORTED, "playlist");
}

static void a_png_that_claims_too_much_is_refused_before_it_is_decoded(void **state)
{
    static const struct {
        uint32_t    width, height;
        const char *words;
    } cases[] = {{65535, 65535, "limit"}, {0x7fffffff, 0x7fffffff, "limit"}, {16384, 16384, "limit"}, {16385, 1, "limit"},
                 {0, 16, "limit"},        {0xffffffff, 16, "limit"},         {16000, 6000, "damaged PNG"}};
    struct blob png = load_media("rgb.png");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put32(png.at + 16, cases[i].width);
        put32(png.at + 20, cases[i].height);
        png_seal(png.at + 8, 13);
        expect_refusal("bomb.png", png.at, png.size, GV_ERR_FORMAT, cases[i].words);
    }
    free(png.at);
}

static void a_png_with_far_too_much_inside_is_refused(void **state)
{
    struct blob    png   = load_media("rgb.png");
    const size_t   waste = 1 << 20;
    uint8_t       *big   = calloc(png.size + waste + 12, 1);
    uint8_t       *idat  = big + 33;
    (void)state;
    memcpy(big, png.at, 33);
    put32(idat, (uint32_t)waste);
    memcpy(idat + 4, "IDAT", 4);
    png_seal(idat, waste);
    memcpy(idat + 12 + waste, png.at + 33, png.size - 33);
    expect_refusal("fat.png", big, png.size + waste + 12, GV_ERR_FORMAT, "compressed bytes");
    free(big);
    free(png.at);
}

static void a_png_with_a_wrong_checksum_is_refused(void **state)
{
    struct blob png = load_media("rgb.png");
    (void)state;
    png.at[50] ^= 1;
    expect_refusal("flip.png", png.at, png.size, GV_ERR_FORMAT, "checksum");
    free(png.at);
}

static void a_jpeg_that_claims_too_much_is_refused(void **state)
{
    struct blob jpeg = load_media("rgb.jpg");
    (void)state;
    for (size_t i = 2; i + 9 < jpeg.size; i++)
        if (jpeg.at[i] == 0xff && jpeg.at[i + 1] == 0xc0) {
            memset(jpeg.at + i + 5, 0xff, 4);
            break;
        }
    struct image    im;
    struct error    e;
    const gv_status st = read_as(&im, "bomb.jpg", jpeg.at, jpeg.size, &e);
    if (!lacking(st, &e))
        assert_int_equal(st, GV_ERR_FORMAT);
    free(jpeg.at);
}

static void truncated_stills_are_refused(void **state)
{
    static const char *const names[] = {"rgb.png",  "rgb16.png", "rgb.jpg",  "progressive.jpg", "ycck.jpg", "lossless.webp",
                                        "lossy.webp", "rgb.bmp",  "rgb.tiff", "lzw.tiff",        "rgb.gif"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct blob b = load_media(names[i]);
        for (int part = 1; part < 10; part++) {
            struct image    im;
            struct error    e;
            const gv_status st = read_as(&im, names[i], b.at, b.size * (size_t)part / 10, &e);
            if (st != GV_ERR_FORMAT && !lacking(st, &e))
                fail_msg("%d tenths of %s: code %d, \"%s\"", part, names[i], st, e.text);
        }
        free(b.at);
    }
}

static void truncated_clips_never_crash(void **state)
{
    static const char *const names[] = {"left.mp4", "left.mkv", "lossless.webm", "untagged_range.avi"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct blob b = load_media(names[i]);
        for (size_t n = 0; n < b.size; n += 1 + b.size / 40) {
            struct image im;
            struct error e;
            read_as(&im, names[i], b.at, n, &e);
            gv_image_free(&im);
        }
        free(b.at);
    }
}

static void damaged_files_never_crash(void **state)
{
    uint32_t seed = 20240611;
    char     name[64];
    int      width, height, tolerance;
    (void)state;
    printf("seed %u\n", (unsigned)seed);
    FILE *f = fopen(MEDIA "pictures.tsv", "r");
    assert_non_null(f);
    while (fscanf(f, "%63s %d %d %d", name, &width, &height, &tolerance) == 4) {
        struct blob b = load_media(name);
        for (int round = 0; round < 24; round++) {
            uint8_t *copy = malloc(b.size);
            memcpy(copy, b.at, b.size);
            for (uint32_t k = 1 + next(&seed) % 6; k; k--) {
                const size_t at = next(&seed) % (round & 1 ? b.size : b.size < 64 ? b.size : 64);
                copy[at]        = (uint8_t)next(&seed);
            }
            struct image im;
            struct error e;
            read_as(&im, name, copy, b.size, &e);
            gv_image_free(&im);
            free(copy);
        }
        free(b.at);
    }
    fclose(f);
}

/* The directory of an EXIF block may point anywhere and claim any number of entries. */
static void a_lying_exif_directory_means_upright(void **state)
{
    struct blob jpeg = load_media("exif6.jpg");
    (void)state;
    size_t at = 0;
    while (at + 6 < jpeg.size && memcmp(jpeg.at + at, "Exif\0", 6))
        at++;
    assert_true(at + 32 < jpeg.size);
    static const uint8_t lies[][6] = {{4, 0xff, 0xff, 0xff, 0xff, 0}, {4, 0x7f, 0xff, 0xff, 0xff, 0}, {8, 0xff, 0xff, 0, 0, 0}};
    for (size_t i = 0; i < 3; i++) {
        struct image im;
        struct error e;
        uint8_t     *copy = malloc(jpeg.size);
        memcpy(copy, jpeg.at, jpeg.size);
        memcpy(copy + at + 6 + lies[i][0], lies[i] + 1, lies[i][0] == 4 ? 4 : 2);
        if (lies[i][0] == 8)
            memset(copy + at + 6 + 10, 0, 2); /* and the tag is another */
        const gv_status st = read_as(&im, "lie.jpg", copy, jpeg.size, &e);
        if (!lacking(st, &e)) {
            assert_int_equal(st, GV_OK);
            assert_int_equal(im.width, 24);
        }
        gv_image_free(&im);
        free(copy);
    }
    free(jpeg.at);
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

static void fill_picture(uint8_t *rgb, int width, int height)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            rgb[(y * width + x) * 3]     = (uint8_t)(x * 3);
            rgb[(y * width + x) * 3 + 1] = (uint8_t)(y * 5);
            rgb[(y * width + x) * 3 + 2] = (uint8_t)(x + y);
        }
}

static void a_written_png_reads_back_bit_for_bit(void **state)
{
    enum { W = 53, H = 31 };
    uint8_t      rgb[W * H * 3];
    char         path[400];
    struct image im;
    struct error e = {0};
    (void)state;
    fill_picture(rgb, W, H);
    snprintf(path, sizeof path, "%s/out.PNG", folder);
    assert_int_equal(gv_image_write(path, rgb, W, H, &e), GV_OK);
    assert_int_equal(gv_image_read(&im, path, &e), GV_OK);
    assert_int_equal(im.width, W);
    assert_memory_equal(im.rgb, rgb, sizeof rgb);
    gv_image_free(&im);
    unlink(path);
}

static void a_written_jpeg_reads_back_closely(void **state)
{
    enum { W = 53, H = 31 };
    uint8_t      rgb[W * H * 3];
    char         path[400];
    struct image im;
    struct error e = {0};
    (void)state;
    fill_picture(rgb, W, H);
    snprintf(path, sizeof path, "%s/out.jpeg", folder);
    gv_status st = gv_image_write(path, rgb, W, H, &e);
    if (lacking(st, &e)) {
        printf("skipped: %s\n", e.text);
        return;
    }
    assert_int_equal(st, GV_OK);
    assert_int_equal(gv_image_read(&im, path, &e), GV_OK);
    for (size_t i = 0; i < sizeof rgb; i++)
        assert_in_range(abs(im.rgb[i] - rgb[i]), 0, 12);
    gv_image_free(&im);
    unlink(path);
}

static void the_comment_is_in_the_file(void **state)
{
    static const char comment[] = "{\"prompt\":\"fox\"}";
    uint8_t           rgb[12]   = {0}, *bytes;
    size_t            size;
    struct error      e = {0};
    (void)state;
    for (int kind = IMAGE_PNG; kind <= IMAGE_JPEG; kind++) {
        const gv_status st = gv_image_encode(&bytes, &size, (enum image_kind)kind, rgb, 2, 2, comment, &e);
        if (lacking(st, &e))
            break;
        assert_int_equal(st, GV_OK);
        size_t at = 0;
        while (at + sizeof comment - 1 < size && memcmp(bytes + at, comment, sizeof comment - 1))
            at++;
        assert_true(at + sizeof comment - 1 < size);
        struct image im;
        assert_int_equal(read_as(&im, "comment", bytes, size, &e), GV_OK);
        gv_image_free(&im);
        free(bytes);
    }
}

static void an_unwritable_picture_leaves_nothing(void **state)
{
    uint8_t      rgb[3] = {0};
    struct error e      = {0};
    (void)state;
    assert_int_equal(gv_image_write("/nowhere/x.png", rgb, 1, 1, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "/nowhere/x.png"));
    e = (struct error){0};
    assert_int_equal(gv_image_write("x.webp", rgb, 1, 1, &e), GV_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_picture_reads_as_the_reference_reads_it),
        cmocka_unit_test(the_first_bytes_count_and_not_the_name),
        cmocka_unit_test(reading_a_pipe_works_for_stills),
        cmocka_unit_test(missing_and_unreadable_files_are_io_errors_with_the_reason),
        cmocka_unit_test(empty_and_unknown_files_are_refused),
        cmocka_unit_test(playlists_dressed_as_media_are_refused),
        cmocka_unit_test(a_png_that_claims_too_much_is_refused_before_it_is_decoded),
        cmocka_unit_test(a_png_with_far_too_much_inside_is_refused),
        cmocka_unit_test(a_png_with_a_wrong_checksum_is_refused),
        cmocka_unit_test(a_jpeg_that_claims_too_much_is_refused),
        cmocka_unit_test(truncated_stills_are_refused),
        cmocka_unit_test(truncated_clips_never_crash),
        cmocka_unit_test(damaged_files_never_crash),
        cmocka_unit_test(a_lying_exif_directory_means_upright),
        cmocka_unit_test(a_written_png_reads_back_bit_for_bit),
        cmocka_unit_test(a_written_jpeg_reads_back_closely),
        cmocka_unit_test(the_comment_is_in_the_file),
        cmocka_unit_test(an_unwritable_picture_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
