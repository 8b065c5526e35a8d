/* Unknown words of a prompt are read as the nearest known ones; the rest of the text stays as it is, byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipelines/vocabulary.h"

static const char sidecar[] =
    "{\"words\": [\"car\", \"cattle\", \"dog\", \"drives\", \"driving\", \"elephant\", \"horse\", \"hippopotamus\", \"t-rex\"],"
    " \"small_words\": [\"a\", \"the\", \"in\"], \"synonyms\": {\"sedan\": \"car\", \"pup\": \"dog\"}}";

static gv_status opened(struct vocabulary **v, const char *text, struct error *e)
{
    char            *copy = strdup(text);
    json_t          *root = NULL;
    gv_status        status = gv_json_parse(copy, strlen(copy), "genvid.json", &root, e);
    struct json_view view = gv_json_view(root, "genvid.json", e);
    if (!status)
        status = gv_vocabulary_open(v, &view);
    json_decref(root);
    free(copy);
    return status;
}

struct notes {
    int  n;
    char last[256];
};

static void keep(void *user, gv_log_level level, const char *message)
{
    struct notes *notes = user;
    (void)level;
    notes->n++;
    snprintf(notes->last, sizeof notes->last, "%s", message);
}

static void reads(const struct vocabulary *v, const char *text, const char *as, int n)
{
    struct notes notes = { 0 };
    struct log   log = { .fn = keep, .user = &notes, .level = GV_LOG_WARN };
    struct error e = { 0 };
    char        *out;
    assert_int_equal(gv_vocabulary_read(v, "prompt", text, &out, &log, &e), GV_OK);
    assert_string_equal(out, as);
    assert_int_equal(notes.n, n);
    free(out);
}

static void known_words_stay(void **state)
{
    struct vocabulary *v;
    struct error       e = { 0 };
    (void)state;
    assert_int_equal(opened(&v, sidecar, &e), GV_OK);
    reads(v, "", "", 0);
    reads(v, "A  Dog drives the T-Rex in 1950.\n", "A  Dog drives the T-Rex in 1950.\n", 0);
    reads(NULL, "zebra \xff\xc3\xa9", "zebra \xff\xc3\xa9", 0);
    gv_vocabulary_close(&v);
}

static void unknown_words_become_near_ones(void **state)
{
    struct vocabulary *v;
    struct error       e = { 0 };
    (void)state;
    assert_int_equal(opened(&v, sidecar, &e), GV_OK);
    reads(v, "a Sedan, a pup!", "a car, a dog!", 2);
    reads(v, "two sedans", "two car", 2); /* "two" is as unknown as any */
    reads(v, "dogs drive", "dog drives", 2);
    reads(v, "elefant", "elefant", 1); /* two letters away */
    reads(v, "elephamt hippopotmus", "elephant hippopotamus", 2);
    gv_vocabulary_close(&v);
}

/* One letter apart and nothing alike: a wrong actor is worse than none. */
static void short_words_are_not_mistaken(void **state)
{
    struct vocabulary *v;
    struct error       e = { 0 };
    (void)state;
    assert_int_equal(opened(&v, sidecar, &e), GV_OK);
    reads(v, "house castle fog log ca", "house castle fog log ca", 5);
    gv_vocabulary_close(&v);
}

static void many_unknown_words_are_counted(void **state)
{
    struct vocabulary *v;
    struct error       e = { 0 };
    char               long_word[200];
    (void)state;
    memset(long_word, 'q', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = 0;
    assert_int_equal(opened(&v, sidecar, &e), GV_OK);
    reads(v, "q1 q2 q3 q4 q5 q6 q7 q8 q9 qa", "q1 q2 q3 q4 q5 q6 q7 q8 q9 qa", 9);
    reads(v, long_word, long_word, 0);
    gv_vocabulary_close(&v);
}

static void broken_vocabularies_are_refused(void **state)
{
    static const char *const broken[] = { "{\"words\": \"car\"}", "{\"words\": [1]}",
                                          "{\"words\": [\"car\"], \"synonyms\": {\"sedan\": \"kar\"}}",
                                          "{\"words\": [\"car\"], \"synonyms\": [\"car\"]}",
                                          "{\"words\": [\"car\"], \"small_words\": {}}" };
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct vocabulary *v;
        struct error       e = { 0 };
        assert_int_equal(opened(&v, broken[i], &e), GV_ERR_MODEL);
        assert_null(v);
        assert_non_null(strstr(e.text, "genvid.json"));
    }
    struct vocabulary *v;
    struct error       e = { 0 };
    assert_int_equal(opened(&v, "{\"words\": []}", &e), GV_OK);
    assert_null(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_words_stay),
        cmocka_unit_test(unknown_words_become_near_ones),
        cmocka_unit_test(short_words_are_not_mistaken),
        cmocka_unit_test(many_unknown_words_are_counted),
        cmocka_unit_test(broken_vocabularies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
