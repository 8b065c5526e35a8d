/* Tokenizers: ids equal to tokenizers and sentencepiece on the prompts of tests/golden/tokenizer (made by tests/reference/
 * tokenizer.py, which says what each file is), and files that mean harm. The published ids of UMT5 are checked where
 * GV_UMT5_TOKENIZER names a folder with the real files. */
#include "io/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/json.h"

#define GOLDEN GV_TEST_DATA "/tokenizer/"
enum { IDS = 1 << 21, CELLS = 7 };

/* ---- helpers --------------------------------------------------------------------------------------------------------- */

struct lines {
    char  *text, *next;
    size_t bytes;
};

static struct lines read_lines(const char *path)
{
    struct lines l = { 0 };
    struct error e = { 0 };
    if (gv_read_file(path, 64 << 20, &l.text, &l.bytes, &e) != GV_OK)
        fail_msg("%s", e.text);
    l.next = l.text;
    return l;
}

/* The next line cut at its tabs; false at the end. */
static bool next_line(struct lines *l, char **cell, int n)
{
    char *end = strchr(l->next, '\n');
    if (!end)
        return false;
    *end = 0;
    for (int i = 0; i < n; i++) {
        cell[i]   = l->next;
        char *tab = strchr(l->next, '\t');
        l->next   = tab ? tab + 1 : end;
        if (tab)
            *tab = 0;
    }
    l->next = end + 1;
    return true;
}

static int hex(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static char *unhex(const char *s)
{
    size_t n   = strlen(s) / 2;
    char  *out = malloc(n + 1);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(hex(s[2 * i]) << 4 | hex(s[2 * i + 1]));
    out[n] = 0;
    return out;
}

static struct tokenizer *open_it(const char *path)
{
    struct tokenizer *t = NULL;
    struct error      e = { 0 };
    if (gv_tokenizer_open(&t, path, &e) != GV_OK)
        fail_msg("%s", e.text);
    return t;
}

/* Whether text gives the ids packed in want, three hex digits each; says where not. */
static bool same_ids(const struct tokenizer *t, const char *text, const char *want, const char *name)
{
    static int32_t ids[IDS];
    int            n = 0, cut = -1, expected = (int)(strlen(want) / 3);
    struct error   e = { 0 };
    bool           ok = gv_tokenizer_encode(t, text, true, ids, IDS, &n, &cut, &e) == GV_OK && cut == 0 && n == expected;
    for (int i = 0; ok && i < n; i++)
        ok = ids[i] == (hex(want[3 * i]) << 8 | hex(want[3 * i + 1]) << 4 | hex(want[3 * i + 2]));
    if (!ok)
        print_error("%s: \"%.60s\": %d ids, expected %d %s\n", name, text, n, expected, e.text);
    return ok;
}

static bool same_text(const struct tokenizer *t, const char *ids_hex, const char *want_hex)
{
    int      n   = (int)(strlen(ids_hex) / 3);
    int32_t *ids = malloc(((size_t)n + 1) * sizeof *ids);
    assert_non_null(ids);
    for (int i = 0; i < n; i++)
        ids[i] = hex(ids_hex[3 * i]) << 8 | hex(ids_hex[3 * i + 1]) << 4 | hex(ids_hex[3 * i + 2]);
    char *text = gv_tokenizer_decode(t, ids, n), *want = unhex(want_hex);
    bool  same = text && strcmp(text, want) == 0;
    if (!same)
        print_error("decoded \"%s\", expected \"%s\"\n", text ? text : "", want);
    free(ids);
    free(text);
    free(want);
    return same;
}

/* A file of the given bytes; the name ends in .json or .model. Valid until the next call. */
static const char *temporary(const char *suffix, const void *data, size_t n)
{
    static char path[256];
    const char *folder = getenv("TMPDIR");
    static int  count;
    snprintf(path, sizeof path, "%s/gv_tokenizer_%ld_%d%s", folder ? folder : "/tmp", (long)getpid(), count++, suffix);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* Opening must fail with MODEL and a sentence that names the file and holds `says`. */
static void refused(const char *suffix, const void *data, size_t n, const char *says)
{
    const char       *path = temporary(suffix, data, n);
    struct tokenizer *t    = NULL;
    struct error      e    = { 0 };
    gv_status         s    = gv_tokenizer_open(&t, path, &e);
    unlink(path);
    gv_tokenizer_close(&t);
    if (s != GV_ERR_MODEL || !strstr(e.text, path) || !strstr(e.text, says))
        fail_msg("expected a refusal saying \"%s\", got %d: %s", says, s, e.text);
}

static void refused_json(const char *text, const char *says)
{
    refused(".json", text, strlen(text), says);
}

static struct tokenizer *open_text(const char *text)
{
    const char       *path = temporary(".json", text, strlen(text));
    struct tokenizer *t    = open_it(path);
    unlink(path);
    return t;
}

/* ---- ids ------------------------------------------------------------------------------------------------------------- */

/* tokenizer.json with "byte_fallback":true, which the conversion leaves out. */
static struct tokenizer *open_with_bytes(void)
{
    static const char was[] = "\"byte_fallback\":false", now[] = "\"byte_fallback\":true ";
    struct lines      l     = read_lines(GOLDEN "tokenizer.json");
    char             *at    = strstr(l.text, was);
    assert_non_null(at);
    memcpy(at, now, sizeof now - 1);
    struct tokenizer *t = open_text(l.text);
    free(l.text);
    return t;
}

static void ids_equal_the_libraries(void **state)
{
    (void)state;
    static const char *const names[] = { "tokenizer.json", "with bytes", "spiece.model", "qwen.json" };
    struct tokenizer        *t[]     = { open_it(GOLDEN), open_with_bytes(), open_it(GOLDEN "spiece.model"), open_it(GOLDEN "qwen.json") };
    struct lines             l       = read_lines(GOLDEN "prompts.tsv");
    char                    *cell[CELLS];
    int                      n = 0, bad = 0, texts = 0;
    for (; next_line(&l, cell, CELLS); n++) {
        char *text = unhex(cell[0]);
        for (int k = 0; k < 4; k++) {
            if (k && strcmp(cell[k + 1], "=") == 0)
                cell[k + 1] = cell[k];
            bad += !same_ids(t[k], text, cell[k + 1], names[k]);
        }
        if (*cell[5] || *cell[6]) {
            bad += !same_text(t[0], cell[1], cell[5]) + !same_text(t[3], cell[4], cell[6]);
            texts += 2;
        }
        free(text);
    }
    for (int k = 0; k < 4; k++)
        gv_tokenizer_close(&t[k]);
    free(l.text);
    print_message("%d prompts by 4 tokenizers, %d texts of ids\n", n, texts);
    assert_true(n >= 500);
    assert_int_equal(bad, 0);
}

static void every_node_type_does_as_the_library(void **state)
{
    (void)state;
    struct lines      l = read_lines(GOLDEN "nodes.tsv");
    struct tokenizer *t = NULL;
    char             *cell[3], name[64] = "", path[512];
    int               n = 0, bad = 0;
    for (; next_line(&l, cell, 3); n++) {
        if (strcmp(name, cell[0]) != 0) {
            gv_tokenizer_close(&t);
            snprintf(name, sizeof name, "%s", cell[0]);
            snprintf(path, sizeof path, GOLDEN "nodes/%s.json", name);
            t = open_it(path);
        }
        char *text = unhex(cell[1]);
        bad += !same_ids(t, text, cell[2], name);
        free(text);
    }
    gv_tokenizer_close(&t);
    free(l.text);
    assert_true(n > 500);
    assert_int_equal(bad, 0);
}

static void cutting_keeps_the_special_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = open_it(GOLDEN "tokenizer.json");
    struct error      e = { 0 };
    int32_t           all[64], some[8];
    int               n, m, cut;
    assert_int_equal(gv_tokenizer_encode(t, "a red car drives to the left through a city", true, all, 64, &n, &cut, &e), GV_OK);
    assert_int_equal(cut, 0);
    assert_int_equal(gv_tokenizer_encode(t, "a red car drives to the left through a city", true, some, 4, &m, &cut, &e), GV_OK);
    assert_int_equal(m, 4);
    assert_int_equal(cut, n - 4);
    assert_memory_equal(all, some, 3 * sizeof *all);
    assert_int_equal(some[3], 1);
    assert_int_equal(gv_tokenizer_encode(t, "a", true, some, 0, &m, NULL, &e), GV_ERR_ARGUMENT);
    e.code = GV_OK;
    assert_int_equal(gv_tokenizer_encode(t, "a", false, some, 0, &m, &cut, &e), GV_OK);
    assert_int_equal(m, 0);
    assert_int_equal(gv_tokenizer_encode(t, "", true, some, 8, &m, &cut, &e), GV_OK);
    assert_int_equal(m, 1); /* an empty text has no mark of its own */
    gv_tokenizer_close(&t);
}

static void pieces_are_found_by_name(void **state)
{
    (void)state;
    struct tokenizer *t = open_it(GOLDEN "tokenizer.json"), *s = open_it(GOLDEN "spiece.model"), *q = open_it(GOLDEN "qwen.json");
    assert_int_equal(gv_tokenizer_id(t, "</s>"), 1);
    assert_int_equal(gv_tokenizer_id(t, "<extra_id_0>"), gv_tokenizer_size(t) - 1);
    assert_int_equal(gv_tokenizer_id(t, "no such piece"), -1);
    assert_int_equal(gv_tokenizer_id(s, "</s>"), 1);
    assert_int_equal(gv_tokenizer_id(s, "<0x00>") + 255, gv_tokenizer_id(s, "<0xFF>"));
    assert_int_equal(gv_tokenizer_id(q, "<|image_pad|>") + 3, gv_tokenizer_size(q));
    gv_tokenizer_close(&t);
    gv_tokenizer_close(&s);
    gv_tokenizer_close(&q);
}

static void published_umt5_ids_are_met(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int32_t     ids[24];
    } rows[] = {
        { "Bonjour monsieur <extra_id_0> bien <extra_id_1>.", { 38530, 210703, 256299, 1410, 256298, 274, 1 } },
        { "No se como puedo <extra_id_0>.", { 826, 321, 671, 25922, 256299, 274, 1 } },
        { "This is the reason why we <extra_id_0> them.", { 1460, 339, 312, 19014, 10620, 758, 256299, 2355, 274, 1 } },
        { "The <extra_id_0> walks in <extra_id_1>, seats", { 517, 256299, 14869, 281, 301, 256298, 275, 119983, 1 } },
        { "A <extra_id_0> walks into a bar and orders a <extra_id_1> with <extra_id_2> pinch of <extra_id_3>.",
          { 320, 256299, 14869, 281, 2234, 289, 2275, 333, 61391, 289, 256298, 543, 256297, 168714, 329, 256296, 274, 1 } },
    };
    const char *folder = getenv("GV_UMT5_TOKENIZER");
    if (!folder) {
        print_message("skipped: GV_UMT5_TOKENIZER names no folder with UMT5's tokenizer.json\n");
        skip();
        return;
    }
    struct tokenizer *t = open_it(folder);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        int32_t      ids[64];
        int          n;
        struct error e = { 0 };
        assert_int_equal(gv_tokenizer_encode(t, rows[r].text, true, ids, 64, &n, NULL, &e), GV_OK);
        for (int i = 0; i < n; i++)
            assert_int_equal(ids[i], rows[r].ids[i]);
        assert_int_equal(rows[r].ids[n - 1], 1);
    }
    gv_tokenizer_close(&t);
}

/* ---- large and long -------------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Linear or n log n: a quadratic step on a megabyte would take hours, so the bound here can be wide. */
static void a_megabyte_of_anything_is_not_quadratic(void **state)
{
    (void)state;
    static const char *const units[] = { "a", " ", "\n", "a ", "!", "1", "\xcc\x81\xcc\xa3", "\xff", "</s>", "\xe2\x96\x81", "<", "\t\n", "ab" };
    static const char *const files[] = { "tokenizer.json", "spiece.model", "qwen.json" };
    static int32_t           ids[IDS];
    static char              text[GV_TEXT_BYTES + 2];
    for (size_t f = 0; f < 3; f++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s", files[f]);
        struct tokenizer *t = open_it(path);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t n = strlen(units[u]);
            for (size_t i = 0; i < GV_TEXT_BYTES; i++)
                text[i] = units[u][i % n];
            text[GV_TEXT_BYTES / n * n / 4] = 0; /* a quarter is enough, and keeps sanitizers quick */
            struct error e     = { 0 };
            int          got   = 0;
            double       began = seconds();
            if (gv_tokenizer_encode(t, text, true, ids, IDS, &got, NULL, &e) != GV_OK)
                fail_msg("%s: %s", files[f], e.text);
            assert_true(seconds() - began < 60);
        }
        gv_tokenizer_close(&t);
    }
    struct tokenizer *t = open_it(GOLDEN "qwen.json");
    struct error      e = { 0 };
    int               n;
    memset(text, 'a', GV_TEXT_BYTES + 1);
    text[GV_TEXT_BYTES + 1] = 0;
    assert_int_equal(gv_tokenizer_encode(t, text, true, ids, IDS, &n, NULL, &e), GV_ERR_ARGUMENT);
    gv_tokenizer_close(&t);
}

static void a_quarter_million_pieces_open_quickly(void **state)
{
    (void)state;
    size_t n = 0, room = 16 << 20;
    char  *text = malloc(room);
    assert_non_null(text);
    n += (size_t)snprintf(text, room, "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0]");
    for (int i = 0; i < 256000; i++)
        n += (size_t)snprintf(text + n, room - n, ",\n[\"\\u2581piece%x\",-%d.%d]", i * 7919 % 1048573, i % 15, i);
    n += (size_t)snprintf(text + n, room - n, "]}}");
    const char       *path  = temporary(".json", text, n);
    double            began = seconds();
    struct tokenizer *t     = open_it(path);
    print_message("%zu bytes, %d pieces: %.2f s\n", n, gv_tokenizer_size(t), seconds() - began);
    assert_int_equal(gv_tokenizer_size(t), 256001);
    unlink(path);
    gv_tokenizer_close(&t);
    free(text);
}

/* ---- hostile tokenizer.json ------------------------------------------------------------------------------------------ */

#define UNIGRAM "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1]]}"
#define BPE(merges) "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":" merges "}"

static void broken_json_is_refused_by_field(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "", "not valid JSON" },
        { "{\"model\":", "not valid JSON" },
        { "[]", "expected an object" },
        { "{}", "model is missing" },
        { "{\"model\":{}}", "model.type is missing" },
        { "{\"model\":{\"type\":\"WordPiece\"}}", "model.type is \"WordPiece\", expected one of: Unigram, BPE" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0}}", "model.vocab is missing" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":{}}}", "model.vocab is an object" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[]}}", "model.vocab has 0 entries" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":[[\"a\",0]]}}", "model.unk_id is 2" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",0],[\"b\"]]}}", "model.vocab[1]" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",\"0\"]]}}", "model.vocab[0]" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[7,0]]}}", "model.vocab[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"vocab\":{\"a\":1}}}", "duplicate" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "model.vocab.a" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}}", "model.vocab.a" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1.5},\"merges\":[]}}", "model.vocab.a" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", "id 1 to two pieces" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[],\"unk_token\":\"u\"}}", "model.unk_token" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[],\"dropout\":0.1}}", "model.dropout" },
        { "{" BPE("[\"a\"]") "}", "model.merges[0]" },
        { "{" BPE("[\"a b\",\"a c\"]") "}", "model.merges[1]" },
        { "{" BPE("[[\"a\",\"b\",\"c\"]]") "}", "model.merges[0]" },
        { "{" BPE("[[\"b\",\"a\"]]") "}", "model.merges[0] joins \"b\" and \"a\"" },
        { "{" BPE("[7]") "}", "model.merges[0]" },
        { "{" BPE("{}") "}", "model.merges is an object" },
        { "{\"added_tokens\":[{\"id\":5}]," UNIGRAM "}", "added_tokens[0].content is missing" },
        { "{\"added_tokens\":[{\"id\":-5,\"content\":\"x\"}]," UNIGRAM "}", "added_tokens[0].id is -5" },
        { "{\"added_tokens\":[{\"id\":99999999,\"content\":\"x\"}]," UNIGRAM "}", "added_tokens[0].id is 99999999" },
        { "{\"added_tokens\":[{\"id\":0,\"content\":\"a\"}]," UNIGRAM "}", "added_tokens[0].id is 0" },
        { "{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," UNIGRAM "}", "added_tokens[0].id is 1" },
        { "{\"added_tokens\":[{\"id\":9,\"content\":\"\"}]," UNIGRAM "}", "added_tokens[0].content" },
        { "{\"normalizer\":{\"type\":\"BertNormalizer\"}," UNIGRAM "}", "normalizer.type is \"BertNormalizer\"" },
        { "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Odd\"}]}," UNIGRAM "}", "normalizer.normalizers[1].type is \"Odd\"" },
        { "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}," UNIGRAM "}", "normalizer.pattern.Regex is no regular" },
        { "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\h+\"},\"content\":\"\"}," UNIGRAM "}", "not handled" },
        { "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}," UNIGRAM "}", "normalizer.content is missing" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!!!!\"}," UNIGRAM "}", "is not base64" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}," UNIGRAM "}", "too short" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/P///wAAAAAAAAAA\"}," UNIGRAM "}", "longer than it is" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAP///4BhAAAA\"}," UNIGRAM "}", "points outside" },
        { "{\"pre_tokenizer\":{\"type\":\"Whitespace\"}," UNIGRAM "}", "pre_tokenizer.type is \"Whitespace\"" },
        { "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}," UNIGRAM "}", "expected one character" },
        { "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"add_prefix_space\":false}," UNIGRAM "}", "add_prefix_space is false" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\",\"invert\":false}," UNIGRAM "}", "behavior is \"Sideways\"" },
        { "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{}}," UNIGRAM "}", "special_tokens.x is missing" },
        { "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}]}," UNIGRAM "}", "expected the sequence A" },
        { "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}," UNIGRAM "}", "no place for the text" },
        { "{\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"BertProcessing\",\"cls\":[\"a\",1],\"sep\":[\"b\",0]},"
          "{\"type\":\"BertProcessing\",\"cls\":[\"a\",1],\"sep\":[\"b\",0]}]}," UNIGRAM "}",
          "second post-processor" },
        { "{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",77],\"sep\":[\"x\",0]}," UNIGRAM "}", "names id 77" },
        { "{\"post_processor\":{\"type\":\"Odd\"}," UNIGRAM "}", "post_processor.type is \"Odd\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused_json(cases[i][0], cases[i][1]);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct lines l = read_lines(GOLDEN "nodes/added.json");
    for (size_t n = 0; n + 1 < l.bytes; n += 97)
        refused(".json", l.text, n, "not valid JSON");
    free(l.text);
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    enum { DEPTH = 10000 };
    static char text[64 * 100 + 2 * DEPTH + 200];
    memset(text, '[', DEPTH);
    refused(".json", text, DEPTH, "not valid JSON");
    size_t n = (size_t)sprintf(text, "{" UNIGRAM ",\"normalizer\":");
    for (int i = 0; i < 64; i++)
        n += (size_t)sprintf(text + n, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 64; i++)
        n += (size_t)sprintf(text + n, "]}");
    sprintf(text + n, "}");
    refused_json(text, "nested at most");
}

static void regex_bombs_give_up(void **state)
{
    (void)state;
    static const char *const bombs[] = { "(a+)+$b", "(a|aa)+$b", "(.*.*.*.*.*.*)x", "(?:a?){60}a{60}b", "([a-z]+)*[0-9]x", "a*a*a*a*a*a*b" };
    static char              text[20001];
    memset(text, 'a', sizeof text - 1);
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        char file[512];
        snprintf(file, sizeof file, "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\",\"invert\":false}," UNIGRAM "}",
                 bombs[i]);
        struct tokenizer *t = open_text(file);
        static int32_t    ids[32768];
        int               n;
        struct error      e     = { 0 };
        double            began = seconds();
        gv_status         s     = gv_tokenizer_encode(t, text, false, ids, 32768, &n, NULL, &e);
        if (s != GV_OK && (s != GV_ERR_MODEL || !strstr(e.text, "gave up")))
            fail_msg("%s: %d %s", bombs[i], s, e.text);
        assert_true(seconds() - began < 60);
        gv_tokenizer_close(&t);
    }
}

static void a_text_may_not_grow_without_end(void **state)
{
    (void)state;
    static char file[20000], text[300001];
    static int32_t ids[16];
    size_t      n = (size_t)sprintf(file, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 20; i++)
        n += (size_t)sprintf(file + n, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaaaaaaaa\"}", i ? "," : "");
    sprintf(file + n, "]}," UNIGRAM "}");
    struct tokenizer *t = open_text(file);
    struct error      e = { 0 };
    int               got;
    memset(text, 'a', sizeof text - 1);
    assert_int_equal(gv_tokenizer_encode(t, text, false, ids, 16, &got, NULL, &e), GV_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "longer than"));
    gv_tokenizer_close(&t);
}

static void merges_that_go_in_circles_end(void **state)
{
    (void)state;
    struct tokenizer *t = open_text("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\":0,\"a\":1,\"aa\":2,\"aaa\":3},\"merges\":[[\"a\",\"\"],[\"\",\"a\"],"
                                    "[\"a\",\"a\"],[\"a\",\"a\"],[\"aa\",\"a\"],[\"a\",\"aa\"]]}}");
    int32_t           ids[16];
    int               n;
    struct error      e = { 0 };
    assert_int_equal(gv_tokenizer_encode(t, "aaaaaaa", false, ids, 16, &n, NULL, &e), GV_OK);
    assert_true(n > 0 && n < 7);
    gv_tokenizer_close(&t);
}

/* ---- hostile spiece.model -------------------------------------------------------------------------------------------- */

/* UNK, then the given bytes; piece 1 is "<unk>" of type UNKNOWN. */
#define UNK "\x0a\x09\x0a\x05<unk>\x18\x02"

static void broken_spiece_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t      n;
        const char *says;
    } cases[] = {
#define CASE(s, says) { s, sizeof s - 1, says }
        CASE("", "pieces is empty"),
        CASE("\x0a\x7f", "broken off"),
        CASE("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" "abc", "broken off"),
        CASE("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "broken off"),
        CASE("\x0b", "broken off"),
        CASE("\x00\x00", "broken off"),
        CASE("\x0a\x03\x0a\x7f" "a", "pieces[0]"),
        CASE("\x0a\x03\x0a\x01" "a", "none of type UNKNOWN"),
        CASE(UNK UNK, "two of type UNKNOWN"),
        CASE(UNK "\x0a\x03\x0a\x01" "a" "\x0a\x03\x0a\x01" "a", "the same piece twice"),
        CASE(UNK "\x0a\x03\x0a\x01\xff", "not UTF-8"),
        CASE(UNK "\x0a\x02\x0a\x00", "pieces[1] is empty"),
        CASE(UNK "\x0a\x05\x0a\x01" "a" "\x18\x09", "unknown type"),
        CASE(UNK "\x0a\x05\x0a\x01" "a" "\x18\x06", "not written <0xHH>"),
        CASE(UNK "\x0a\x08\x0a\x01" "a" "\x15\x00\x00\xc0\x7f", "no number"),
        CASE(UNK "\x12\x02\x18\x02", "model_type is BPE"),
        CASE(UNK "\x12\x02\x18\x7f", "only UNIGRAM"),
        CASE(UNK "\x12\x03\x98\x02\x01", "no piece <0x00>"),
        CASE(UNK "\x12\x02\x18", "broken off"),
        CASE(UNK "\x1a\x04\x12\x02\x01\x02", "precompiled_charsmap is too short"),
        CASE(UNK "\x1a\x0e\x12\x0c\xff\xff\xff\x7f\x00\x00\x00\x00\x00\x00\x00\x00", "longer than it is"),
        CASE(UNK "\x1a\x0e\x12\x0c\x04\x00\x00\x00\xff\xff\xff\x80\x61\x00\x00\x00", "points outside"),
        CASE(UNK "\x1a\x0e\x12\x0c\x04\x00\x00\x00\x00\x00\x00\x00\xff\x00\x00\x00", "not UTF-8"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(".model", cases[i].data, cases[i].n, cases[i].says);
}

/* Bytes changed at random in both formats: whatever opens must also encode and decode without harm. */
static void changed_bytes_do_no_harm(void **state)
{
    (void)state;
    static const char *const files[] = { "spiece.model", "nodes/added.json", "nodes/bytes.json", "nodes/split_isolated.json" };
    uint32_t                 seed    = 12345;
    int                      opened  = 0;
    print_message("seed %u\n", seed);
    for (int round = 0; round < 400; round++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s", files[round % 4]);
        struct lines l = read_lines(path);
        for (int k = 0; k < 1 + round % 5; k++) {
            seed = seed * 1664525u + 1013904223u;
            size_t at = (seed >> 4) % (round % 8 == 0 ? l.bytes : l.bytes < 3000 ? l.bytes : 3000);
            l.text[at] = (char)(seed >> 24);
        }
        struct tokenizer *t   = NULL;
        struct error      e   = { 0 };
        const char       *tmp = temporary(round % 4 ? ".json" : ".model", l.text, l.bytes);
        if (gv_tokenizer_open(&t, tmp, &e) == GV_OK) {
            int32_t ids[512];
            int     n;
            opened++;
            if (gv_tokenizer_encode(t, "A caf\xc3\xa9, <L> 12 \xef\xbc\xa1\xe3\x80\x80\xf0\x9f\x98\x80 e\xcc\x81 <user>", true, ids, 512, &n, NULL, &e) == GV_OK)
                free(gv_tokenizer_decode(t, ids, n));
        } else {
            assert_int_not_equal(e.text[0], 0);
        }
        unlink(tmp);
        gv_tokenizer_close(&t);
        free(l.text);
    }
    print_message("%d of 400 opened\n", opened);
}

static void missing_files_are_an_io_error(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    struct error      e = { 0 };
    assert_int_equal(gv_tokenizer_open(&t, GOLDEN "nothing.json", &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "nothing.json"));
    e.code = GV_OK;
    assert_int_equal(gv_tokenizer_open(&t, GOLDEN "nodes", &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "neither tokenizer.json nor spiece.model"));
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_the_libraries),
        cmocka_unit_test(every_node_type_does_as_the_library),
        cmocka_unit_test(cutting_keeps_the_special_tokens),
        cmocka_unit_test(pieces_are_found_by_name),
        cmocka_unit_test(published_umt5_ids_are_met),
        cmocka_unit_test(a_megabyte_of_anything_is_not_quadratic),
        cmocka_unit_test(a_quarter_million_pieces_open_quickly),
        cmocka_unit_test(broken_json_is_refused_by_field),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(regex_bombs_give_up),
        cmocka_unit_test(a_text_may_not_grow_without_end),
        cmocka_unit_test(merges_that_go_in_circles_end),
        cmocka_unit_test(broken_spiece_is_refused),
        cmocka_unit_test(changed_bytes_do_no_harm),
        cmocka_unit_test(missing_files_are_an_io_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
