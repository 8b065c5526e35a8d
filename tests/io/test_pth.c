/* Files of torch.save: what tests/reference/pth.py wrote reads back to the bit, and every lie of a zip or a pickle is told.
 * Hostile files are made here: a zip writer that lies where it is asked to, around pickles written by hand. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/json.h"
#include "io/pickle.h"
#include "tests/fixture.h"

static char folder[256], path[300];

static int make_folder(void **state)
{
    (void)state;
    fixture_temp(folder);
    snprintf(path, sizeof path, "%s/model.pth", folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    fixture_remove(folder);
    return 0;
}

static void write_bytes(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* ---- good files ---- */

static const char *good_path(char *out, const char *name)
{
    snprintf(out, 512, "%s/pth/%s", GV_TEST_DATA, name);
    return out;
}

static void open_good(struct tensor_file *f, const char *name)
{
    char         text[512];
    struct error e = { 0 };
    gv_tensor_file_open(f, good_path(text, name), NULL, &e);
    assert_string_equal(e.text, "");
}

/* The tensor `name`, stored as `stored`, holds the counter's values in the file's type. */
static void check_values(const struct tensor_file *f, const char *stored, const char *name, enum dtype type, int rank,
                         const int64_t *dim)
{
    const struct st_entry *t = gv_tensor_file_find(f, stored);
    int64_t                count = 1;
    assert_non_null(t);
    assert_int_equal(t->type, type);
    assert_int_equal(t->rank, rank);
    for (int i = 0; i < rank; i++) {
        assert_int_equal(t->dim[i], dim[i]);
        count *= dim[i];
    }
    assert_int_equal(t->bytes, gv_dtype_bytes(type, count));
    float *want = malloc((size_t)count * sizeof *want + 1);
    fixture_fill(want, name, count, 1, 0);
    for (int64_t i = 0; i < count; i++) {
        const unsigned char *p = (const unsigned char *)t->data + gv_dtype_bytes(type, i);
        double               wide;
        float                single;
        uint32_t             bits;
        uint16_t             half;
        memcpy(&bits, &want[i], sizeof bits);
        switch (type) {
        case GV_F32: assert_memory_equal(p, &want[i], 4); break;
        case GV_F64:
            memcpy(&wide, p, sizeof wide);
            assert_true(wide == (double)want[i]);
            break;
        case GV_BF16:
            half = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
            assert_memory_equal(p, &half, 2);
            break;
        default: /* f16: to within half a unit of its last place */
            memcpy(&half, p, sizeof half);
            bits = (uint32_t)(half & 0x8000) << 16 | (((uint32_t)(half & 0x7FFF) << 13) + 0x38000000);
            memcpy(&single, &bits, sizeof single);
            assert_true(single - want[i] < 0x1p-11f && want[i] - single < 0x1p-11f);
        }
    }
    free(want);
}

static void check_all(const struct tensor_file *f, const char *prefix, enum dtype type)
{
    static const struct {
        const char *name;
        int         rank;
        int64_t     dim[5];
    } wanted[] = { { "head.weight", 2, { 5, 7 } },
                   { "head.bias", 1, { 5 } },
                   { "conv.weight", 5, { 4, 3, 1, 2, 2 } },
                   { "scalar", 0, { 0 } },
                   { "empty", 2, { 0, 9 } } };
    assert_int_equal(f->n, 5);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", prefix, wanted[i].name);
        check_values(f, name, wanted[i].name, type, wanted[i].rank, wanted[i].dim);
    }
}

static void what_torch_saves_reads_back(void **state)
{
    (void)state;
    static const struct {
        const char *file, *prefix;
        enum dtype  type;
    } files[] = {
        { "f32.pth", "", GV_F32 },       { "bf16.pth", "", GV_BF16 },     { "f16.pth", "", GV_F16 },
        { "f64.pth", "", GV_F64 },       { "protocol3.pth", "", GV_F32 }, { "protocol4.pth", "", GV_F32 },
        { "protocol5.pth", "", GV_F32 }, { "zip64.pth", "", GV_F32 },     { "nested.pt", "generator.model.", GV_F32 }
    };
    struct tensor_file f;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        open_good(&f, files[i].file);
        check_all(&f, files[i].prefix, files[i].type);
        gv_tensor_file_close(&f);
    }
}

static void modules_parameters_and_shared_storages_are_read(void **state)
{
    (void)state;
    struct tensor_file f;
    open_good(&f, "module.pth");
    check_values(&f, "weight", "head.weight", GV_F32, 2, DIMS(5, 7));
    check_values(&f, "bias", "head.bias", GV_F32, 1, DIMS(5));
    gv_tensor_file_close(&f);
    open_good(&f, "parameters.pth");
    check_values(&f, "head.weight", "head.weight", GV_F32, 2, DIMS(5, 7));
    gv_tensor_file_close(&f);
    open_good(&f, "shared.pth");
    assert_int_equal(f.n, 3);
    check_values(&f, "head.weight", "head.weight", GV_F32, 2, DIMS(5, 7));
    check_values(&f, "again", "head.weight", GV_F32, 2, DIMS(5, 7));
    check_values(&f, "head.bias", "head.bias", GV_F32, 1, DIMS(5));
    assert_ptr_equal(gv_tensor_file_find(&f, "again")->data, gv_tensor_file_find(&f, "head.weight")->data);
    gv_tensor_file_close(&f);
}

static void integers_are_read(void **state)
{
    (void)state;
    static const int64_t i64[] = { -3, -2, -1, 0, 1, 2 };
    static const int32_t i32[] = { 0, 1, 2, 3 };
    static const uint8_t u8[] = { 250, 251, 252, 253, 254, 255 }, flags[] = { 1, 0 };
    struct tensor_file   f;
    open_good(&f, "integers.pth");
    assert_memory_equal(gv_tensor_file_find(&f, "i64")->data, i64, sizeof i64);
    assert_memory_equal(gv_tensor_file_find(&f, "i32")->data, i32, sizeof i32);
    assert_memory_equal(gv_tensor_file_find(&f, "u8")->data, u8, sizeof u8);
    assert_memory_equal(gv_tensor_file_find(&f, "bool")->data, flags, sizeof flags);
    gv_tensor_file_close(&f);
}

/* ---- a zip writer that lies on demand ---- */

struct lie {
    const char *words;  /* what the refusal says */
    const char *field;  /* what is wrong: see write_zip */
    uint64_t    value;  /* put there */
    const char *pickle; /* NULL: one good tensor */
    size_t      pickle_bytes;
};

static unsigned char image[1 << 21];
static size_t        image_bytes;

static void put(uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        image[image_bytes++] = (unsigned char)(i < 8 ? v >> 8 * i : 0);
}

static uint64_t or_lie(const struct lie *l, const char *field, uint64_t truth)
{
    return l->field && !strcmp(l->field, field) ? l->value : truth;
}

static void put_headers(const struct lie *l, const char *name, size_t bytes, size_t local, bool central, bool lies)
{
    static const struct lie none = { 0 };
    const struct lie       *x = lies ? l : &none;
    put(central ? or_lie(x, "central magic", 0x02014b50) : or_lie(x, "local magic", 0x04034b50), 4);
    put(0, central ? 4 : 2);
    put(central ? or_lie(x, "flags", 0) : 0, 2);
    put(central ? or_lie(x, "method", 0) : 0, 2);
    put(0, 8);
    put(central ? or_lie(x, "packed", bytes) : bytes, 4);
    put(central ? or_lie(x, "size", bytes) : bytes, 4);
    put(central ? or_lie(x, "name bytes", strlen(name)) : or_lie(x, "local name bytes", strlen(name)), 2);
    put(central ? or_lie(x, "extra bytes", 0) : or_lie(x, "local extra bytes", 0), 2);
    if (central) {
        put(0, 10);
        put(or_lie(x, "local", local), 4);
    }
    memcpy(image + image_bytes, name, strlen(name));
    image_bytes += strlen(name);
}

#define TEXT(n, text) "X" n "\0\0\0" text
#define STORAGE(type, key, count)                                                                                              \
    "(" TEXT("\x07", "storage") "ctorch\n" type "\n" TEXT("\x01", key) TEXT("\x03", "cpu") count "tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define HOOKS                                                                                                                  \
    "\x89"                                                                                                                     \
    "ccollections\nOrderedDict\n)R"
#define TENSOR(storage, offset, sizes, strides) REBUILD "(" storage offset sizes strides HOOKS "tR"
#define TWO                                     STORAGE("FloatStorage", "0", "K\x02")
#define NAMED(tensor)                           "\x80\x02}(" TEXT("\x01", "a") tensor "u."
#define GOOD                                    NAMED(TENSOR(TWO, "K\0", "K\x02\x85", "K\x01\x85"))
#define P(text)                                 text, sizeof(text) - 1

static void write_zip(const struct lie *l)
{
    static const struct lie good = { .pickle = GOOD, .pickle_bytes = sizeof GOOD - 1 };
    const struct lie       *of = l->pickle ? l : &good;
    const char             *pickle =
        l->field && !strcmp(l->field, "pickle name") ? (l->value ? "x/data.pkx" : "a/b/data.pkl") : "x/data.pkl";
    const char  *data = l->field && !strcmp(l->field, "same names")    ? pickle
                        : l->field && !strcmp(l->field, "two pickles") ? "y/data.pkl"
                                                                       : "x/data/0";
    const size_t storage = 8;
    image_bytes = 0;
    put_headers(l, pickle, of->pickle_bytes, 0, false, true);
    memcpy(image + image_bytes, of->pickle, of->pickle_bytes);
    image_bytes += of->pickle_bytes;
    size_t second = image_bytes;
    put_headers(l, data, storage, 0, false, false);
    memset(image + image_bytes, 1, storage);
    image_bytes += storage;
    size_t order = image_bytes, at;
    bool   big = l->field && !strcmp(l->field, "byteorder");
    if (big) {
        put_headers(l, "x/byteorder", 3, 0, false, false);
        memcpy(image + image_bytes, "big", 3);
        image_bytes += 3;
    }
    at = image_bytes;
    put_headers(l, pickle, of->pickle_bytes, 0, true, true);
    put_headers(l, data, storage, second, true, false);
    if (big)
        put_headers(l, "x/byteorder", 3, order, true, false);
    size_t bytes = image_bytes - at, end = image_bytes;
    if (l->field && !strncmp(l->field, "64", 2)) {
        put(or_lie(l, "64 magic", 0x06064b50), 4);
        put(0, 20);
        put(0, 8);
        put(or_lie(l, "64 n", 2), 8);
        put(or_lie(l, "64 bytes", bytes), 8);
        put(or_lie(l, "64 at", at), 8);
        put(0x07064b50, 4);
        put(0, 4);
        put(or_lie(l, "64 end", end), 8);
        put(0, 4);
    }
    put(or_lie(l, "end magic", 0x06054b50), 4);
    put(0, 6);
    put(or_lie(l, "n", big ? 3 : 2), 2);
    put(or_lie(l, "directory bytes", bytes), 4);
    put(or_lie(l, "directory", at), 4);
    put(or_lie(l, "comment", 0), 2);
    write_bytes(image, image_bytes);
}

static void refuse(gv_status status, const char *words)
{
    struct tensor_file f;
    struct error       e = { 0 };
    gv_status          got = gv_tensor_file_open(&f, path, &gv_file_pth, &e);
    if (got != status || e.code != status || !strstr(e.text, words) || !strstr(e.text, path))
        fail_msg("%s, \"%s\" is not in: %s", gv_status_name(got), words, e.text);
    assert_null(f.map);
    assert_null(f.entry);
    assert_int_equal(f.n, 0);
}

static void zips_written_here_are_good(void **state)
{
    (void)state;
    static const struct lie truths[] = { { 0 }, { .field = "64" } };
    for (size_t i = 0; i < 2; i++) {
        struct tensor_file f;
        struct error       e = { 0 };
        write_zip(&truths[i]);
        gv_tensor_file_open(&f, path, NULL, &e);
        assert_string_equal(e.text, "");
        assert_int_equal(f.n, 1);
        assert_string_equal(f.entry[0].name, "a");
        assert_memory_equal(f.entry[0].data, "\1\1\1\1\1\1\1\1", 8);
        gv_tensor_file_close(&f);
    }
}

/* clang-format off */
#define ZIP(words, field, value) { words, field, value, NULL, 0 }
static const struct lie zips[] = {
    ZIP("is missing: the file is truncated", "end magic", 7),
    ZIP("is missing", "comment", 1),
    ZIP("is missing", "comment", 65535),
    ZIP("lies outside of the file", "directory", 0xfffffffe),
    ZIP("lies outside of the file", "directory bytes", 0xffffffff),
    ZIP("ends early", "directory bytes", 92),
    ZIP("ends early", "directory", 0),
    ZIP("more entries than it has room", "n", 65535),
    ZIP("more entries than it has room", "directory bytes", 0),
    ZIP("more entries than it has room", "n", 3),
    ZIP("is not there", "n", 1),
    ZIP("has no entry data.pkl", "n", 0),
    ZIP("ends early", "central magic", 0),
    ZIP("does not agree", "local magic", 0x02014b50),
    ZIP("does not agree", "local name bytes", 9),
    ZIP("does not agree", "local name bytes", 65535),
    ZIP("longer than the file", "local extra bytes", 120),
    ZIP("name that is longer than it", "name bytes", 65535),
    ZIP("does not agree", "name bytes", 9),
    ZIP("name that is none", "name bytes", 0),
    ZIP("longer than its entry", "extra bytes", 46),
    ZIP("compressed", "method", 8),
    ZIP("encrypted", "flags", 1),
    ZIP("compressed", "packed", 3),
    ZIP("outside of the file", "local", 0xfffffff0),
    ZIP("does not agree", "local", 1),
    ZIP("one name twice", "same names", 0),
    ZIP("two entries data.pkl", "two pickles", 0),
    ZIP("no entry data.pkl", "pickle name", 0),
    ZIP("no entry data.pkl", "pickle name", 1),
    ZIP("no ZIP64 end", "64 magic", 0),
    ZIP("no ZIP64 end", "64 end", UINT64_MAX),
    ZIP("no ZIP64 end", "64 end", UINT64_MAX - 60),
    ZIP("no ZIP64 end", "64 end", 0),
    ZIP("more entries than", "64 n", UINT64_MAX),
    ZIP("more entries than", "64 n", (1 << 20) + 1),
    ZIP("more entries than", "64 n", UINT64_MAX / 46 + 2),
    ZIP("outside of the file", "64 bytes", UINT64_MAX),
    ZIP("outside of the file", "64 at", UINT64_MAX - 3),
};

#define LIE(words, text) { words, NULL, 0, P(text) }
static const struct lie pickles[] = {
    LIE("asks for os.system", "\x80\x02" "cos\nsystem\n" "(" TEXT("\x04", "true") "tR."),
    LIE("asks for posix.system", "\x80\x04\x8c\x05posix\x8c\x06system\x93" "(" TEXT("\x04", "true") "tR."),
    LIE("asks for builtins.eval", "\x80\x02}(" TEXT("\x01", "a") "cbuiltins\neval\n" "(" TEXT("\x01", "1") "tRu."),
    LIE("asks for torch.load", "\x80\x02" "ctorch\nload\n."),
    LIE("asks for torch._utils.?[2J?", "\x80\x02" "ctorch._utils\n\x1b[2J\x07\n."),
    LIE("asks for torch.CharStorage", NAMED(STORAGE("CharStorage", "0", "K\x02"))),
    LIE("asks for collections.OrderedDict2", "\x80\x02" "ccollections\nOrderedDict2\n)R."),
    LIE("a name without an end", "\x80\x02" "cos"),
    LIE("a name that is not text", "\x80\x04K\1K\2\x93."),
    LIE("0x69 is not one of those", "\x80\x02(ios\nsystem\n."),
    LIE("0x81 is not one of those", "\x80\x02" "ccollections\nOrderedDict\n)\x81."),
    LIE("0x82 is not one of those", "\x80\x02\x82\1."),
    LIE("0x50 is not one of those", "P0\n."),
    LIE("0x00 is not one of those", "\0"),
    LIE("protocol", "\x80\1}."),
    LIE("protocol", "\x80\6}."),
    LIE("ends within an instruction", "\x80\x02}("),
    LIE("ends within an instruction", "\x80"),
    LIE("ends within an instruction", "\x80\x02X\x05\0\0\0abc"),
    LIE("ends within an instruction", "\x80\x02X\xff\xff\0\0"),
    LIE("ends within a text", "\x80\x02X\xff\xff\xff\xff"),
    LIE("ends within a text", "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"),
    LIE("more than 64 bits", "\x80\x02\x8a\x09" "123456789."),
    LIE("more than 64 bits", "\x80\x02\x8b\xff\xff\xff\x7f."),
    LIE("empty stack", "\x80\x02."),
    LIE("empty stack", "\x80\x02" "0."),
    LIE("empty stack", "\x80\x02" "2."),
    LIE("empty stack", "\x80\x02" "R."),
    LIE("empty stack", "\x80\x02}\x87."),
    LIE("empty stack", "\x80\x02(."),
    LIE("empty stack", "\x80\x02(2."),
    LIE("a mark inside of a tuple", "\x80\x02}(\x86."),
    LIE("a mark inside of a container", "\x80\x02}}(K\1s."),
    LIE("mark that is not there", "\x80\x02}u."),
    LIE("mark that is not there", "\x80\x02t."),
    LIE("mark that is not there", "\x80\x02" "1."),
    LIE("a key without a value", "\x80\x02}(K\1u."),
    LIE("for what is no dictionary", "\x80\x02](K\1K\2u."),
    LIE("for what is no dictionary", "\x80\x02(K\1K\2u."),
    LIE("for what is no dictionary", "\x80\x02s."),
    LIE("for what is no list", "\x80\x02}K\1a."),
    LIE("for what is no list", "\x80\x02" "a."),
    LIE("remembers what is not there", "\x80\x02q\0."),
    LIE("remembers what is not there", "\x80\x02(q\0."),
    LIE("memo is too large", "\x80\x02}r\xff\xff\xff\xff."),
    LIE("recalls what was never", "\x80\x02h\0."),
    LIE("recalls what was never", "\x80\x02}q\5h\4."),
    LIE("recalls what was never", "\x80\x02}j\xff\xff\xff\xff."),
    LIE("calls what is no function", "\x80\x02})R."),
    LIE("calls what is no function", "\x80\x02" "ccollections\nOrderedDict\n}R."),
    LIE("calls a storage type", "\x80\x02" "ctorch\nFloatStorage\n)R."),
    LIE("dictionary with arguments", "\x80\x02" "ccollections\nOrderedDict\nK\1\x85R."),
    LIE("parameter without a tensor", "\x80\x02" "ctorch._utils\n_rebuild_parameter\n}\x89}\x87R."),
    LIE("sets attributes", "\x80\x02K\1}b."),
    LIE("sets attributes", "\x80\x02}b."),
    LIE("a storage is not", "\x80\x02K\1Q."),
    LIE("a storage is not", "\x80\x02)Q."),
    LIE("a storage is not", "\x80\x02" STORAGE("FloatStorage", "0", "J\xff\xff\xff\xff") "."),
    LIE("a storage is not", "\x80\x02(" TEXT("\x07", "storage") "ccollections\nOrderedDict\n" TEXT("\x01", "0") TEXT("\x03", "cpu") "K\x02tQ."),
    LIE("a storage is not", "\x80\x02(" TEXT("\x06", "module") "ctorch\nFloatStorage\n" TEXT("\x01", "0") TEXT("\x03", "cpu") "K\x02tQ."),
    LIE("a tensor is not (storage", NAMED(REBUILD "(" TWO "K\0tR")),
    LIE("a tensor is not (storage", NAMED(REBUILD ")R")),
    LIE("a tensor is not (storage", NAMED(TENSOR("K\1", "K\0", "K\x02\x85", "K\x01\x85"))),
    LIE("a tensor is not (storage", NAMED(TENSOR(TWO, "J\xff\xff\xff\xff", "K\x02\x85", "K\x01\x85"))),
    LIE("at most 8 integers", NAMED(TENSOR(TWO, "K\0", "J\xff\xff\xff\xff\x85", "K\x01\x85"))),
    LIE("at most 8 integers", NAMED(TENSOR(TWO, "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "K\x01\x85"))),
    LIE("at most 8 integers", NAMED(TENSOR(TWO, "K\0", "]", "K\x01\x85"))),
    LIE("at most 8 integers", NAMED(TENSOR(TWO, "K\0", "N\x85", "K\x01\x85"))),
    LIE("not as many strides", NAMED(TENSOR(TWO, "K\0", "K\x02\x85", "K\x01K\x01\x86"))),
    LIE("beyond its storage", NAMED(TENSOR(TWO, "K\1", "K\x02\x85", "K\x01\x85"))),
    LIE("beyond its storage", NAMED(TENSOR(TWO, "K\0", "K\x03\x85", "K\x01\x85"))),
    LIE("beyond its storage", NAMED(TENSOR(TWO, "K\3", "K\0\x85", "K\x01\x85"))),
    LIE("beyond its storage", NAMED(TENSOR(TWO, "K\0", "\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86", "K\x01K\x01\x86"))),
    LIE("beyond its storage", NAMED(TENSOR(TWO, "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "K\x02\x85", "K\x01\x85"))),
    LIE("lies in a storage that is not there", NAMED(TENSOR(STORAGE("FloatStorage", "1", "K\x02"), "K\0", "K\x02\x85", "K\x01\x85"))),
    LIE("claims 1 elements of type F32, and has 8 bytes", NAMED(TENSOR(STORAGE("FloatStorage", "0", "K\x01"), "K\0", "K\x01\x85", "K\x01\x85"))),
    LIE("claims 2 elements of type F64", NAMED(TENSOR(STORAGE("DoubleStorage", "0", "K\x02"), "K\0", "K\x02\x85", "K\x01\x85"))),
    LIE("claims 4611686018427387904 elements", NAMED(TENSOR(STORAGE("FloatStorage", "0", "\x8a\x08\0\0\0\0\0\0\0\x40"), "K\0", "K\x02\x85", "K\x01\x85"))),
    LIE("holds no dictionary", "\x80\x02}."),
    LIE("holds no dictionary", "\x80\x02K\1."),
    LIE("holds no dictionary", "\x80\x02]q\0h\0a."),
    LIE("a tensor's name has 0 bytes", "\x80\x02}(X\0\0\0\0" TENSOR(TWO, "K\0", "K\x02\x85", "K\x01\x85") "u."),
    LIE("a tensor's name has 2 bytes", "\x80\x02}(" TEXT("\x02", "a\0") TENSOR(TWO, "K\0", "K\x02\x85", "K\x01\x85") "u."),
    LIE("tensor a twice", "\x80\x02}(" TEXT("\x01", "a") TENSOR(TWO, "K\0", "K\x02\x85", "K\x01\x85") TEXT("\x01", "a") TENSOR(TWO, "K\0", "K\x02\x85", "K\x01\x85") "u."),
};
/* clang-format on */

static void every_lie_of_a_zip_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof zips / sizeof *zips; i++) {
        write_zip(&zips[i]);
        refuse(GV_ERR_MODEL, zips[i].words);
    }
    write_zip(&(struct lie){ .field = "byteorder" });
    refuse(GV_ERR_UNSUPPORTED, "big-endian");
}

static void nothing_of_a_pickle_is_run(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        write_zip(&pickles[i]);
        refuse(GV_ERR_MODEL, pickles[i].words);
    }
}

/* A pickle of `head`, then `body` n times, then `tail`. */
static void refuse_repeated(const char *head, size_t head_bytes, const char *body, size_t body_bytes, size_t n,
                            const char *words)
{
    char *text = malloc(head_bytes + body_bytes * n + 1);
    memcpy(text, head, head_bytes);
    for (size_t i = 0; i < n; i++)
        memcpy(text + head_bytes + i * body_bytes, body, body_bytes);
    size_t bytes = head_bytes + n * body_bytes;
    text[bytes++] = '.';
    write_zip(&(struct lie){ .pickle = text, .pickle_bytes = bytes });
    refuse(GV_ERR_MODEL, words);
    free(text);
}

static void stack_containers_and_visits_are_bounded(void **state)
{
    (void)state;
    refuse_repeated(P("\x80\x02"), P("N"), GV_PICKLE_STACK + 1, "stack is too deep");
    refuse_repeated(P("\x80\x02("), P("("), GV_PICKLE_STACK, "stack is too deep");
    refuse_repeated(P("\x80\x02"), P("}0"), GV_PICKLE_NODES / 2, "empty stack"); /* a million bytes of nothing */
    refuse_repeated(P("\x80\x02]"), P("\x85"), 400000, "holds no dictionary");   /* deep, and nobody descends */
    /* a dictionary that holds itself 60000 times: as a tree, more entries than there are atoms in this machine */
    refuse_repeated(P("\x80\x02}q\0"), P(TEXT("\1", "a") "h\0s"), 60000, "too many entries");
}

static void what_torch_saves_and_we_refuse_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *file, *words;
        gv_status   status;
    } files[] = { { "strided.pth", "tensor head.weight is not contiguous", GV_ERR_UNSUPPORTED },
                  { "old.pth", "before 1.6", GV_ERR_UNSUPPORTED },
                  { "namespace.pth", "asks for argparse.Namespace", GV_ERR_MODEL } };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char               text[512];
        struct tensor_file f;
        struct error       e = { 0 };
        assert_int_equal(gv_tensor_file_open(&f, good_path(text, files[i].file), NULL, &e), files[i].status);
        if (!strstr(e.text, files[i].words))
            fail_msg("\"%s\" is not in: %s", files[i].words, e.text);
    }
}

/* Whatever is opened may be read to its last byte. */
static void open_and_read(void)
{
    struct tensor_file f;
    struct error       e = { 0 };
    volatile unsigned  sum = 0;
    if (gv_tensor_file_open(&f, path, &gv_file_pth, &e)) {
        assert_true(strstr(e.text, path));
        return;
    }
    for (int i = 0; i < f.n; i++)
        for (size_t k = 0; k < f.entry[i].bytes; k++)
            sum += ((const unsigned char *)f.entry[i].data)[k];
    gv_tensor_file_close(&f);
}

static const char *const seeds[] = { "f32.pth", "nested.pt", "zip64.pth", "protocol4.pth", "shared.pth" };
enum { N_SEEDS = sizeof seeds / sizeof *seeds };

static size_t load_seed(unsigned char **bytes, const char *name)
{
    char         text[512];
    struct error e = { 0 };
    char        *data;
    size_t       n;
    assert_int_equal(gv_read_file(good_path(text, name), 1 << 20, &data, &n, &e), GV_OK);
    *bytes = (unsigned char *)data;
    return n;
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < N_SEEDS; i++) {
        unsigned char *bytes;
        size_t         n = load_seed(&bytes, seeds[i]);
        write_bytes(bytes, n);
        for (size_t k = n - 1; k > 0; k--) {
            assert_int_equal(truncate(path, (off_t)k), 0);
            refuse(GV_ERR_MODEL, "");
        }
        free(bytes);
    }
}

static void a_file_with_any_byte_changed_is_read_or_refused(void **state)
{
    (void)state;
    uint64_t rng = 0x9E3779B97F4A7C15u;
    for (int i = 0; i < N_SEEDS; i++) {
        unsigned char *bytes;
        size_t         n = load_seed(&bytes, seeds[i]);
        write_bytes(bytes, n);
        int fd = open(path, O_WRONLY);
        assert_true(fd >= 0);
        for (size_t k = 0; k < n; k++) {
            rng = rng * 6364136223846793005u + 1442695040888963407u;
            unsigned char changed = k % 3 ? (unsigned char)(rng >> 56) : (unsigned char)~bytes[k];
            assert_int_equal(pwrite(fd, &changed, 1, (off_t)k), 1);
            open_and_read();
            assert_int_equal(pwrite(fd, &bytes[k], 1, (off_t)k), 1);
        }
        close(fd);
        free(bytes);
    }
}

/* Random programs of the machine's own instructions: most fail late enough to have built something. */
static void random_pickles_are_read_or_refused(void **state)
{
    (void)state;
    static const char *const words[] = { "}",
                                         "]",
                                         ")",
                                         "(",
                                         "t",
                                         "u",
                                         "e",
                                         "a",
                                         "s",
                                         "R",
                                         "Q",
                                         "b",
                                         "N",
                                         "K\1",
                                         "K\2",
                                         "\x85",
                                         "\x86",
                                         "\x87",
                                         "2",
                                         "0",
                                         "q\1",
                                         "h\1",
                                         "q\2",
                                         "h\2",
                                         "\x94",
                                         "\x89",
                                         "\x88",
                                         "1",
                                         "U\1a",
                                         "U\1\x30",
                                         "U\7storage",
                                         "ctorch\nFloatStorage\n",
                                         "ctorch\nHalfStorage\n",
                                         "ctorch._utils\n_rebuild_tensor_v2\n",
                                         "ctorch._utils\n_rebuild_parameter\n",
                                         "ccollections\nOrderedDict\n",
                                         "(U\7storagectorch\nFloatStorage\nU\1\x30U\3cpuK\2tQ",
                                         "K\2\x85",
                                         "K\1\x85" };
    uint64_t                 rng = 42;
    print_message("  seed 42\n");
    for (int i = 0; i < 20000; i++) {
        char          text[1024] = "\x80\x02}(U\1a";
        size_t        n = 7;
        struct pickle p;
        struct error  e = { 0 };
        for (int k = 0; k < 40; k++) {
            rng = rng * 6364136223846793005u + 1442695040888963407u;
            const char *w = words[(rng >> 33) % (sizeof words / sizeof *words)];
            if (n + strlen(w) + 2 > sizeof text)
                break;
            memcpy(text + n, w, strlen(w));
            n += strlen(w);
        }
        text[n++] = '.';
        char *exact = malloc(n); /* so that a sanitizer sees the first byte beyond */
        memcpy(exact, text, n);
        gv_pickle_read(&p, (unsigned char *)exact, n, "random", &e);
        gv_pickle_free(&p);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_torch_saves_reads_back),
        cmocka_unit_test(modules_parameters_and_shared_storages_are_read),
        cmocka_unit_test(integers_are_read),
        cmocka_unit_test(zips_written_here_are_good),
        cmocka_unit_test(every_lie_of_a_zip_is_told),
        cmocka_unit_test(nothing_of_a_pickle_is_run),
        cmocka_unit_test(stack_containers_and_visits_are_bounded),
        cmocka_unit_test(what_torch_saves_and_we_refuse_is_named),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_file_with_any_byte_changed_is_read_or_refused),
        cmocka_unit_test(random_pickles_are_read_or_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
