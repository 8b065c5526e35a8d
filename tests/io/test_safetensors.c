/* One safetensors file: what is written reads back, and what lies in its header is told with file and tensor. */
#include "io/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fixture.h"

static char folder[256], path[300];

static int make_folder(void **state)
{
    (void)state;
    fixture_temp(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    fixture_remove(folder);
    return 0;
}

/* A file of a header and `data` zeros behind it. claimed: what it says of its header's length. */
static void write_raw(const char *header, uint64_t claimed, size_t data)
{
    FILE         *f = fopen(path, "wb");
    unsigned char size[8];
    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)(claimed >> 8 * i);
    fwrite(size, 1, 8, f);
    fwrite(header, 1, strlen(header), f);
    for (size_t i = 0; i < data; i++)
        fputc(0, f);
    fclose(f);
}

static void refuse(gv_status status, const char *words)
{
    struct tensor_file st;
    struct error       e = { 0 };
    gv_status          got = gv_tensor_file_open(&st, path, &gv_file_safetensors, &e);
    if (got != status || e.code != status || !strstr(e.text, words) || !strstr(e.text, path))
        fail_msg("%s, \"%s\" is not in: %s", gv_status_name(got), words, e.text);
    assert_null(st.map);
    assert_null(st.entry);
    assert_int_equal(st.n, 0);
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

/* clang-format off */
static const struct {
    const char *header, *words;
    size_t      data;
} lies[] = {
    { "", "not valid JSON", 0 },
    { "{", "not valid JSON", 0 },
    { "[]", "not an object", 0 },
    { "3", "not valid JSON", 0 },
    { "{" A "}x", "not valid JSON", 8 },
    { "{" A "," A "}", "duplicate", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "duplicate", 8 },
    { "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "not valid JSON", 8 },
    { "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "not valid JSON", 8 },
    { "{" A "}", "tensor a ends at byte 8 of 7: the file is truncated", 7 },
    { "{\"a\":7}", "tensor a: type (none) is not known", 8 },
    { "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor a: type (none)", 8 },
    { "{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor a: type F31", 8 },
    { "{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor a: type f32", 8 },
    { "{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor a: type", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "tensor a: shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", "tensor a: shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", "at most 8 sizes", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", "size 0 of its shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "size 0 of its shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2,-1],\"data_offsets\":[0,8]}}", "size 0 of its shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", "size 0 of its shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", "size 1 of its shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", "size 0 of its shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,9223372036854775807],\"data_offsets\":[0,0]}}", "size 1 of its shape", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", "not valid JSON", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "data_offsets is not [begin, end]", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "data_offsets is not", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", "data_offsets is not", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0.0,8.0]}}", "data_offsets is not", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "data_offsets is not", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", "data_offsets is not", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", "tensor a ends at byte 12 of 8", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9223372036854775799,9223372036854775807]}}", "truncated", 8 },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "its shape needs 8 bytes, data_offsets give 4", 8 },
    { "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,8]}}", "its shape needs 4 bytes, data_offsets give 8", 8 },
    { "{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[7,8]}}", "tensors a and b overlap", 8 },
    { "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "overlap", 8 },
    { "{\"big\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},\"in\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", "tensors big and in overlap", 8 },
};
/* clang-format on */

static void every_lie_of_a_header_is_told_with_file_and_tensor(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        write_raw(lies[i].header, strlen(lies[i].header), lies[i].data);
        refuse(GV_ERR_MODEL, lies[i].words);
    }
}

static void a_header_longer_than_the_file_is_refused(void **state)
{
    (void)state;
    static const uint64_t claims[] = { 3, 9, GV_ST_HEADER_BYTES, UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 7 };
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        write_raw("{}", claims[i], 0);
        refuse(GV_ERR_MODEL, "its header claims");
    }
}

static void files_that_are_none_are_refused(void **state)
{
    (void)state;
    unlink(path);
    refuse(GV_ERR_IO, "No such file");
    mkdir(path, 0777);
    refuse(GV_ERR_IO, "not a regular file");
    rmdir(path);
    for (size_t n = 0; n < 8; n++) {
        FILE *f = fopen(path, "wb");
        for (size_t i = 0; i < n; i++)
            fputc(0, f);
        fclose(f);
        refuse(GV_ERR_MODEL, "too few");
    }
    write_raw("", 0, 0); /* eight zeros: a header of nothing */
    refuse(GV_ERR_MODEL, "not valid JSON");
}

/* Cut at every byte: either it is told, or what is missing belongs to nobody. */
static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    static const char header[] = "{" A ",\"__metadata__\":{\"format\":\"pt\"}}";
    size_t            full = 8 + sizeof header - 1 + 8;
    for (size_t n = 0; n < full; n++) {
        write_raw(header, sizeof header - 1, 8);
        assert_int_equal(truncate(path, (off_t)n), 0);
        refuse(GV_ERR_MODEL, n < 8 ? "too few" : n < full - 8 ? "header claims" : "truncated");
    }
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    static const float    f[] = { 1, -2.5f, 3e30f, 0, 1e-40f, 6 };
    static const uint16_t h[] = { 0x3F80, 0xC020, 0x7F80, 1 };
    const struct st_entry entry[] = {
        { .name = (char[]){ "z.weight" }, .type = GV_F32, .rank = 2, .dim = { 2, 3 }, .data = f, .bytes = sizeof f },
        { .name = (char[]){ "bf" }, .type = GV_BF16, .rank = 1, .dim = { 4 }, .data = h, .bytes = sizeof h },
        { .name = (char[]){ "half" },
          .type = GV_F16,
          .rank = 8,
          .dim = { 1, 1, 1, 1, 1, 1, 2, 2 },
          .data = h,
          .bytes = sizeof h },
        { .name = (char[]){ "empty" }, .type = GV_I64, .rank = 2, .dim = { 0, 5 }, .data = h, .bytes = 0 },
        { .name = (char[]){ "scalar" }, .type = GV_F32, .rank = 0, .data = f + 1, .bytes = 4 },
        { .name = (char[]){ "\xc3\xa9 \"quoted\"" }, .type = GV_U8, .rank = 1, .dim = { 3 }, .data = h, .bytes = 3 },
    };
    const int          n = sizeof entry / sizeof *entry;
    struct tensor_file st;
    struct error       e = { 0 };
    assert_int_equal(gv_safetensors_write(path, entry, n, &e), GV_OK);
    gv_tensor_file_open(&st, path, &gv_file_safetensors, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(st.n, n);
    for (int i = 0; i < n; i++) {
        const struct st_entry *t = gv_tensor_file_find(&st, entry[i].name);
        assert_non_null(t);
        assert_int_equal(t->type, entry[i].type);
        assert_int_equal(t->rank, entry[i].rank);
        assert_memory_equal(t->dim, entry[i].dim, sizeof t->dim);
        assert_int_equal(t->bytes, entry[i].bytes);
        assert_memory_equal(t->data, entry[i].data, t->bytes);
    }
    assert_null(gv_tensor_file_find(&st, "z"));
    assert_null(gv_tensor_file_find(&st, ""));
    assert_null(gv_tensor_file_find(&st, "zz"));
    gv_tensor_file_close(&st);
    gv_tensor_file_close(&st); /* twice is fine */
    assert_int_equal(gv_safetensors_write(path, NULL, 0, &e), GV_OK);
    assert_int_equal(gv_tensor_file_open(&st, path, &gv_file_safetensors, &e), GV_OK);
    assert_int_equal(st.n, 0);
    assert_null(gv_tensor_file_find(&st, "a"));
    gv_tensor_file_close(&st);
}

/* Other writers leave holes, add metadata, do not align, and put tensors in any order. */
static void files_of_other_writers_are_read(void **state)
{
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"a\":\"b\"},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[20,21]},"
        "\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}," A "}  ";
    struct tensor_file st;
    struct error       e = { 0 };
    write_raw(header, sizeof header - 1, 30);
    gv_tensor_file_open(&st, path, &gv_file_safetensors, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(st.n, 3);
    assert_string_equal(st.entry[0].name, "a");
    assert_string_equal(st.entry[2].name, "e");
    assert_ptr_equal((const char *)st.entry[1].data, (const char *)st.entry[0].data + 20);
    gv_tensor_file_close(&st);
}

static void what_cannot_be_written_is_told(void **state)
{
    (void)state;
    struct error e = { 0 };
    char         nowhere[320];
    snprintf(nowhere, sizeof nowhere, "%s/none/model.safetensors", folder);
    assert_int_equal(gv_safetensors_write(nowhere, NULL, 0, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, nowhere));
    assert_non_null(strstr(e.text, "No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_lie_of_a_header_is_told_with_file_and_tensor),
        cmocka_unit_test(a_header_longer_than_the_file_is_refused),
        cmocka_unit_test(files_that_are_none_are_refused),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(files_of_other_writers_are_read),
        cmocka_unit_test(what_cannot_be_written_is_told),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
