/* Hashes against the standard's examples, and what files say of themselves: comments of pictures, sizes, and files that lie. */
#define _XOPEN_SOURCE 700
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/image.h"
#include "io/media_info.h"
#include "io/sha256.h"
#include "tests/fixture.h"

static char folder[256], path[300];

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

static void put_file(const void *bytes, size_t n)
{
    snprintf(path, sizeof path, "%s/x", folder);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* ---- SHA-256 ----------------------------------------------------------------------------------------------------------- */

/* FIPS 180-2, appendix B, and the empty message. */
static void hashes_are_those_of_the_standard(void **state)
{
    static const struct {
        const char *text;
        int         times;
        const char *hash;
    } cases[] = {
        { "", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
        { "a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sha256 h;
        char          hex[65];
        gv_sha256_open(&h);
        for (int k = 0; k < cases[i].times; k++)
            gv_sha256_add(&h, cases[i].text, strlen(cases[i].text));
        gv_sha256_hex(&h, hex);
        assert_string_equal(hex, cases[i].hash);
    }
}

static void pieces_of_any_size_have_the_hash_of_the_whole(void **state)
{
    uint8_t  bytes[1000];
    uint32_t seed = 3;
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    for (int k = 0; k < 50; k++) {
        struct sha256 a, b;
        char          x[65], y[65];
        const size_t  n = 1 + (seed = seed * 1664525u + 1013904223u) % sizeof bytes;
        gv_sha256_open(&a);
        gv_sha256_open(&b);
        gv_sha256_add(&a, bytes, n);
        for (size_t at = 0; at < n;) {
            size_t part = 1 + ((seed = seed * 1664525u + 1013904223u) >> 8) % 130;
            part = part < n - at ? part : n - at;
            gv_sha256_add(&b, bytes + at, part);
            at += part;
        }
        gv_sha256_hex(&a, x);
        gv_sha256_hex(&b, y);
        assert_string_equal(x, y);
    }
}

/* ---- pictures ---------------------------------------------------------------------------------------------------------- */

static void pictures_keep_their_words_and_size(void **state)
{
    static const char comment[] = "{\"recipe\":1,\"prompt\":\"f\xc3\xbc"
                                  "chse\"}";
    uint8_t           rgb[5 * 3 * 3] = { 1, 2, 3 };
    (void)state;
    for (int kind = IMAGE_PNG; kind <= IMAGE_JPEG; kind++) {
        struct media_info m;
        struct error      e = { 0 };
        uint8_t          *bytes;
        size_t            n;
        if (gv_image_encode(&bytes, &n, (enum image_kind)kind, rgb, 5, 3, comment, &e) == GV_ERR_UNSUPPORTED)
            continue;
        put_file(bytes, n);
        if (gv_media_info_read(&m, path, &e) != GV_OK)
            fail_msg("%s", e.text);
        assert_string_equal(m.kind, kind == IMAGE_PNG ? "PNG" : "JPEG");
        assert_int_equal(m.width, 5);
        assert_int_equal(m.height, 3);
        assert_string_equal(m.comment, comment);
        gv_media_info_close(&m);
        gv_media_info_close(&m); /* twice is fine */
        free(bytes);
    }
    unlink(path);
}

/* Cut anywhere and with any byte changed: words, or a sentence; sanitizers watch. */
static void broken_pictures_end_in_words(void **state)
{
    uint8_t  rgb[8 * 8 * 3] = { 0 };
    uint32_t seed = 11;
    int      refused = 0;
    (void)state;
    for (int kind = IMAGE_PNG; kind <= IMAGE_JPEG; kind++) {
        struct error e = { 0 };
        uint8_t     *bytes;
        size_t       n;
        if (gv_image_encode(&bytes, &n, (enum image_kind)kind, rgb, 8, 8, "words", &e) == GV_ERR_UNSUPPORTED)
            continue;
        for (size_t i = 0; i < n + 300; i++) {
            struct media_info m;
            struct error      why = { 0 };
            const size_t      at = (seed = seed * 1664525u + 1013904223u) >> 8;
            const uint8_t     was = bytes[at % n];
            if (i >= n)
                bytes[at % n] = (uint8_t)(seed >> 2);
            put_file(bytes, i < n ? i : n);
            const gv_status st = gv_media_info_read(&m, path, &why);
            if (st != GV_OK) {
                assert_non_null(strstr(why.text, path));
                assert_null(m.comment);
                refused++;
            }
            gv_media_info_close(&m);
            bytes[at % n] = was;
        }
        free(bytes);
    }
    assert_true(refused > 50);
    unlink(path);
}

static void what_is_no_medium_is_refused(void **state)
{
    struct media_info m;
    struct error      e = { 0 };
    (void)state;
    assert_int_equal(gv_media_info_read(&m, "/nonexistent.png", &e), GV_ERR_IO);
    e = (struct error){ 0 };
    assert_int_equal(gv_media_info_read(&m, folder, &e), GV_ERR_UNSUPPORTED);
    put_file("hello", 5);
    e = (struct error){ 0 };
    assert_int_equal(gv_media_info_read(&m, path, &e), GV_ERR_FORMAT);
    put_file("\x89PNG\r\n\x1a\n\x7f\xff\xff\xffiTXt", 16); /* a chunk larger than the file */
    e = (struct error){ 0 };
    assert_int_equal(gv_media_info_read(&m, path, &e), GV_ERR_FORMAT);
    assert_non_null(strstr(e.text, "claims 2147483647 bytes"));
    put_file("\x89PNG\r\n\x1a\n\0\0\0\x09iTXtComment\0\0crc.\0\0\0\0IEND", 37); /* a text that ends before its fields */
    e = (struct error){ 0 };
    assert_int_equal(gv_media_info_read(&m, path, &e), GV_OK);
    assert_null(m.comment);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_those_of_the_standard),   cmocka_unit_test(pieces_of_any_size_have_the_hash_of_the_whole),
        cmocka_unit_test(pictures_keep_their_words_and_size), cmocka_unit_test(broken_pictures_end_in_words),
        cmocka_unit_test(what_is_no_medium_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
