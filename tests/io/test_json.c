/* JSON that nobody vouches for: limits of loading, typed and ranged reads, and sentences that name file and field. */
#include "io/json.h"

#include <math.h>
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
    snprintf(path, sizeof path, "%s/config.json", folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    fixture_remove(folder);
    return 0;
}

static json_t *parse(const char *text, struct error *e)
{
    json_t *root;
    char   *copy = strdup(text);
    gv_json_parse(copy, strlen(copy), "c.json", &root, e);
    free(copy);
    return root;
}

static json_t *parsed(const char *text)
{
    struct error e = { 0 };
    json_t      *root = parse(text, &e);
    assert_string_equal(e.text, "");
    return root;
}

/* ---- loading ---- */

static void text_that_is_not_json_is_told_with_line_and_column(void **state)
{
    (void)state;
    static const char *const bad[] = { "",
                                       "{",
                                       "7",
                                       "{\"a\": NaN}",
                                       "{\"a\": nan}",
                                       "{\"a\": 1,}",
                                       "{\"a\": 1} x",
                                       "{\"a\": \"\xff\"}",
                                       "{'a': 1}",
                                       "{\"a\": 1e999}",
                                       "{\"a\": -InfinityX}" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error e = { 0 };
        assert_null(parse(bad[i], &e));
        if (e.code != GV_ERR_MODEL || !strstr(e.text, "c.json: not valid JSON at line 1, column"))
            fail_msg("%s: %s", bad[i], e.text);
    }
    struct error e = { 0 };
    assert_null(parse("{\"a\": 1,\n \"a\": 2}", &e));
    assert_non_null(strstr(e.text, "line 2"));
    assert_non_null(strstr(e.text, "duplicate"));
}

static void nesting_has_an_end(void **state)
{
    (void)state;
    enum { DEEP = 1 << 20 };
    char        *text = malloc(DEEP);
    json_t      *root;
    struct error e = { 0 };
    memset(text, '[', DEEP);
    assert_int_equal(gv_json_parse(text, DEEP, "c.json", &root, &e), GV_ERR_MODEL);
    assert_non_null(strstr(e.text, "depth"));
    free(text);
}

static void python_s_infinity_is_a_large_number(void **state)
{
    (void)state;
    json_t *root = parsed("{\"a\": -Infinity, \"b\": Infinity, \"c\": \"Infinity \\\" Infinity\", \"Infinity\": 1}");
    assert_true(json_real_value(json_object_get(root, "a")) == -1e308);
    assert_true(json_real_value(json_object_get(root, "b")) == 1e308);
    assert_string_equal(json_string_value(json_object_get(root, "c")), "Infinity \" Infinity");
    assert_non_null(json_object_get(root, "Infinity"));
    json_decref(root);
}

static void files_are_read_whole_or_refused(void **state)
{
    (void)state;
    char        *data = NULL;
    size_t       n;
    json_t      *root;
    struct error e = { 0 };
    assert_int_equal(gv_json_load(path, 100, &root, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, path));
    assert_non_null(strstr(e.text, "No such file"));
    e = (struct error){ 0 };
    assert_int_equal(gv_json_load(folder, 100, &root, &e), GV_ERR_IO);
    assert_non_null(strstr(e.text, "directory"));
    FILE *f = fopen(path, "w");
    fputs("{\"a\": [1, 2, 3]}", f);
    fclose(f);
    e = (struct error){ 0 };
    assert_int_equal(gv_read_file(path, 16, &data, &n, &e), GV_OK); /* just fits */
    assert_int_equal(n, 16);
    assert_int_equal(data[16], 0);
    free(data);
    assert_int_equal(gv_read_file(path, 15, &data, &n, &e), GV_ERR_MODEL);
    assert_non_null(strstr(e.text, "16 bytes, at most 15"));
    e = (struct error){ 0 };
    assert_int_equal(gv_json_load(path, 100, &root, &e), GV_OK);
    json_decref(root);
    unlink(path);
}

/* ---- views ---- */

#define SAMPLE                                                                                                                 \
    "{\"i\": 5, \"r\": 5.0, \"f\": 0.25, \"big\": 1e300, \"s\": \"word\", \"nul\": \"a\\u0000b\", \"t\": true, \"n\": null, "  \
    "\"a\": [1, 2, 300], "                                                                                                     \
    "\"o\": {\"deep\": [{\"x\": -1}]}}"

static void fields_are_read_and_missing_ones_fall_back(void **state)
{
    (void)state;
    struct error             e = { 0 };
    json_t                  *root = parsed(SAMPLE);
    struct json_view         v = gv_json_view(root, "c.json", &e);
    int                      ints[3];
    double                   numbers[3];
    static const char *const words[] = { "other", "word" };
    assert_int_equal(gv_json_int(&v, "i", 5, 5, 0), 5);
    assert_int_equal(gv_json_int(&v, "r", 0, 9, 0), 5); /* whole is whole */
    assert_int_equal(gv_json_int(&v, "none", 0, 9, 77), 77);
    assert_int_equal(gv_json_int(&v, "n", 0, 9, 77), 77); /* null is missing */
    assert_true(gv_json_number(&v, "f", 0, 1, 9) == 0.25);
    assert_true(gv_json_number(&v, "i", 0, 9, 0) == 5);
    assert_true(gv_json_bool(&v, "t", false));
    assert_true(gv_json_bool(&v, "none", true));
    assert_string_equal(gv_json_string(&v, "s", NULL), "word");
    assert_string_equal(gv_json_string(&v, "none", "fallback"), "fallback");
    assert_int_equal(gv_json_choice(&v, "s", words, 2, 0), 1);
    assert_int_equal(gv_json_choice(&v, "none", words, 2, 0), 0);
    assert_int_equal(gv_json_ints(&v, "a", 1, 300, ints, 3, 3, true), 3);
    assert_int_equal(ints[2], 300);
    assert_int_equal(gv_json_numbers(&v, "a", 1, 300, numbers, 1, 3, true), 3);
    assert_int_equal(gv_json_ints(&v, "none", 1, 3, ints, 3, 3, false), 0);
    struct json_view o = gv_json_object(&v, "o", true), deep = gv_json_array(&o, "deep", 1, 1, true), at = gv_json_at(&deep, 0);
    assert_int_equal(gv_json_int(&at, "x", -1, 1, 0), -1);
    assert_string_equal(at.where, "o.deep[0]");
    struct json_view absent = gv_json_object(&v, "none", false);
    assert_int_equal(gv_json_int(&absent, "x", 0, 9, 7), 7); /* every read of what is not there falls back */
    assert_true(gv_json_has(&v, "i") && !gv_json_has(&v, "n") && !gv_json_has(&v, "none") && !gv_json_has(&absent, "x"));
    assert_int_equal(gv_json_done(&v), GV_OK);
    assert_string_equal(e.text, "");
    json_decref(root);
}

enum reader { INT, NUMBER, BOOL, STRING, CHOICE, OBJECT, ARRAY, INTS };

/* The read fails with the words, and gives a value that can be used all the same. */
static void wrong_fields_are_told(void **state)
{
    (void)state;
    static const struct {
        enum reader how;
        const char *field, *words;
    } wrong[] = {
        { INT, "none", "c.json: none is missing" },
        { INT, "n", "c.json: n is null" },
        { INT, "s", "c.json: s is a string, expected an integer" },
        { INT, "f", "c.json: f is a number, expected an integer" },
        { INT, "big", "c.json: big is a number, expected an integer" },
        { INT, "i", "c.json: i is 5, expected 6 to 9" },
        { INT, "t", "c.json: t is true, expected an integer" },
        { NUMBER, "none", "c.json: none is missing" },
        { NUMBER, "big", "c.json: big is 1e+300, expected 6 to 9" },
        { NUMBER, "s", "c.json: s is a string, expected a number" },
        { BOOL, "none", "c.json: none is missing" },
        { BOOL, "i", "c.json: i is an integer, expected true or false" },
        { STRING, "none", "c.json: none is missing" },
        { STRING, "a", "c.json: a is an array, expected a string" },
        { STRING, "nul", "c.json: nul holds a NUL" },
        { CHOICE, "s", "c.json: s is \"word\", expected one of: one, two" },
        { CHOICE, "none", "c.json: none is missing" },
        { OBJECT, "a", "c.json: a is an array, expected an object" },
        { OBJECT, "none", "c.json: none is missing" },
        { ARRAY, "o", "c.json: o is an object, expected an array" },
        { ARRAY, "a", "c.json: a has 3 entries, expected 1 to 2" },
        { INTS, "a", "c.json: a[0] is 1, expected 6 to 9" },
    };
    static const char *const words[] = { "one", "two" };
    json_t                  *root = parsed(SAMPLE);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct error     e = { 0 };
        struct json_view v = gv_json_view(root, "c.json", &e);
        const char      *field = wrong[i].field;
        int              ints[3];
        double           number;
        switch (wrong[i].how) {
        case INT: assert_in_range(gv_json_int(&v, field, 6, 9, GV_JSON_REQUIRED), 6, 9); break;
        case NUMBER:
            number = gv_json_number(&v, field, 6, 9, GV_JSON_NUMBER_REQUIRED);
            assert_true(number >= 6 && number <= 9);
            break;
        case BOOL: gv_json_bool(&v, field, GV_JSON_MUST); break;
        case STRING: assert_non_null(gv_json_string(&v, field, NULL)); break;
        case CHOICE: assert_in_range(gv_json_choice(&v, field, words, 2, GV_JSON_MUST), 0, 1); break;
        case OBJECT: assert_null(gv_json_object(&v, field, true).value); break;
        case ARRAY: assert_null(gv_json_array(&v, field, 1, 2, true).value); break;
        case INTS:
            assert_int_equal(gv_json_ints(&v, field, 6, 9, ints, 1, 3, true), 3);
            assert_in_range(ints[0], 6, 9);
            break;
        }
        assert_int_equal(gv_json_done(&v), GV_ERR_MODEL);
        assert_string_equal(e.text, wrong[i].words);
    }
    json_decref(root);
}

static void the_first_failure_wins(void **state)
{
    (void)state;
    struct error     e = { 0 };
    json_t          *root = parsed(SAMPLE);
    struct json_view v = gv_json_view(root, "c.json", &e);
    gv_json_int(&v, "first", 0, 1, GV_JSON_REQUIRED);
    gv_json_string(&v, "second", NULL);
    assert_int_equal(gv_json_fail(&v, "third", GV_ERR_UNSUPPORTED, "is wrong"), GV_ERR_UNSUPPORTED);
    assert_string_equal(e.text, "c.json: first is missing");
    json_decref(root);
}

static void a_field_of_what_is_no_object_is_told(void **state)
{
    (void)state;
    struct error     e = { 0 };
    json_t          *root = parsed("[1]");
    struct json_view v = gv_json_view(root, "c.json", &e);
    assert_false(gv_json_has(&v, "x"));
    assert_int_equal(gv_json_int(&v, "x", 0, 1, 0), 0);
    assert_string_equal(e.text, "c.json: is an array, expected an object with \"x\"");
    json_decref(root);
}

/* The end of a place says more than its beginning. */
static void a_long_place_loses_its_head(void **state)
{
    (void)state;
    struct error     e = { 0 };
    char             name[200];
    json_t          *root = json_object();
    struct json_view v = gv_json_view(root, "c.json", &e);
    memset(name, 'k', sizeof name - 1);
    name[sizeof name - 1] = 0;
    struct json_view o = gv_json_object(&v, name, false);
    for (int i = 0; i < 50; i++)
        o = gv_json_at(&o, 12345);
    assert_true(strlen(o.where) < GV_JSON_WHERE);
    assert_string_equal(o.where + strlen(o.where) - 7, "[12345]");
    gv_json_fail(&o, "x", GV_ERR_MODEL, "is wrong");
    assert_string_equal(e.text + strlen(e.text) - 17, "[12345].x is wrong" + 1);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_that_is_not_json_is_told_with_line_and_column),
        cmocka_unit_test(nesting_has_an_end),
        cmocka_unit_test(python_s_infinity_is_a_large_number),
        cmocka_unit_test(files_are_read_whole_or_refused),
        cmocka_unit_test(fields_are_read_and_missing_ones_fall_back),
        cmocka_unit_test(wrong_fields_are_told),
        cmocka_unit_test(the_first_failure_wins),
        cmocka_unit_test(a_field_of_what_is_no_object_is_told),
        cmocka_unit_test(a_long_place_loses_its_head),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
