/* What a prompt asks and a caption says, by the shipped genvid.json: every wording of a value is known, and what belongs to another
 * thing, to the camera or to nobody is not taken for the actor's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipelines/slots.h"

struct table {
    json_t            *root;
    struct vocabulary *words;
    struct slots      *slots;
};

static void open_shipped(struct table *t)
{
    struct error e = { 0 };
    assert_int_equal(gv_json_load(GV_SOURCE_DIR "/assets/models/genvid.json", GV_JSON_CONFIG_BYTES, &t->root, &e), GV_OK);
    const struct json_view v = gv_json_view(t->root, "genvid.json", &e);
    assert_int_equal(gv_vocabulary_open(&t->words, &v), GV_OK);
    assert_int_equal(gv_slots_open(&t->slots, &v), GV_OK);
    assert_non_null(t->slots);
}

static void close_shipped(struct table *t)
{
    gv_slots_close(&t->slots);
    gv_vocabulary_close(&t->words);
    json_decref(t->root);
}

/* want: "actor car, colour red/blue, motion left/-": what was asked, and behind a slash what was read instead. */
static void compares(const struct table *t, const char *asked, const char *read, const char *want)
{
    struct error e = { 0 };
    json_t      *o, *row;
    size_t       i, used = 0;
    int          agree = 0;
    char         got[512] = "";
    assert_int_equal(gv_slots_compare(&o, t->slots, t->words, asked, read, &e), GV_OK);
    json_array_foreach (json_object_get(o, "slots"), i, row) {
        const char *found = json_string_value(json_object_get(row, "read"));
        const bool  agrees = json_is_true(json_object_get(row, "agrees"));
        agree += agrees;
        used += (size_t)snprintf(got + used, sizeof got - used, "%s%s %s%s%s", i ? ", " : "",
                                 json_string_value(json_object_get(row, "slot")),
                                 json_string_value(json_object_get(row, "asked")), agrees ? "" : "/",
                                 agrees  ? ""
                                 : found ? found
                                         : "-");
    }
    assert_string_equal(got, want);
    assert_int_equal(json_integer_value(json_object_get(o, "agree")), agree);
    assert_int_equal(json_integer_value(json_object_get(o, "asked")), json_array_size(json_object_get(o, "slots")));
    json_decref(o);
}

static void what_is_asked_is_found_in_other_words(void **state)
{
    struct table t = { 0 };
    (void)state;
    open_shipped(&t);
    compares(&t, "a crimson sedan goes from right to left downtown at night, it is snowing",
             "A red car drives to the left in the city at night. It is snowing.",
             "actor car, colour red, motion left, scene city, weather snow, time night");
    compares(&t, "two puppies, jumping", "A dog jumps in the park.", "actor dog, motion jump");
    compares(&t, "My grandmother likes it", "A dog jumps in the park.", "");
    compares(&t, "in snow a t-rex", "A t-rex stands in the snow.", "actor t-rex, scene snow");
    close_shipped(&t);
}

static void what_is_not_there_is_told(void **state)
{
    struct table t = { 0 };
    (void)state;
    open_shipped(&t);
    compares(&t, "a yellow star moves to the right in space", "A star moves to the left in space.",
             "actor star, colour yellow/-, motion right/left, scene space");
    compares(&t, "a fox. rain", "A wolf stands in the forest.", "actor fox/wolf, weather rain/-");
    compares(&t, "a fox", "", "actor fox/-");
    close_shipped(&t);
}

/* Silence means a still camera by day. */
static void silence_means_what_the_table_says(void **state)
{
    struct table t = { 0 };
    (void)state;
    open_shipped(&t);
    compares(&t, "a fox by day, static camera", "A fox stands in a field.", "actor fox, camera static, time day");
    compares(&t, "a fox by day", "A fox stands in a field at sunset.", "actor fox, time day/sunset");
    compares(&t, "a fox at night", "A fox stands in a field.", "actor fox, time night/day");
    close_shipped(&t);
}

static void what_belongs_to_others_is_not_the_actors(void **state)
{
    struct table t = { 0 };
    (void)state;
    open_shipped(&t);
    compares(&t, "a fox stands, the camera pans to the left", "A fox stands in a field. The camera pans left.",
             "actor fox, motion stand, camera pan left");
    compares(&t, "a car next to a blue bus", "A car stands on a road.", "actor car");
    compares(&t, "a dog in the snow and a cat", "A dog stands in the snow.", "actor dog, scene snow");
    compares(&t, "a boat; a sailboat floats slowly to the left", "A sailboat floats to the left on the sea.",
             "actor sailboat, motion left");
    close_shipped(&t);
}

static void models_without_the_table_compare_nothing(void **state)
{
    const struct table none = { 0 };
    (void)state;
    compares(&none, "a red fox", "a red fox", "");
}

static void broken_tables_are_refused_by_field(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        { "{\"slots\": {}}", "slots" },
        { "{\"slots\": [{\"values\": {}}]}", "slot" },
        { "{\"slots\": [{\"slot\": \"actor\"}]}", "values" },
        { "{\"slots\": [{\"slot\": \"actor\", \"values\": {\"car\": 1}}]}", "car" },
        { "{\"slots\": [{\"slot\": \"actor\", \"values\": {\"car\": [1]}}]}", "car" },
        { "{\"slots\": [{\"slot\": \"actor\", \"values\": {\"car\": [\"...\"]}}]}", "\"...\"" },
        { "{\"slots\": [{\"slot\": \"actor\", \"values\": {\"car\": [\"a b c d e f g h i\"]}}]}", "8 words" },
        { "{\"slots\": [{\"slot\": \"time\", \"unsaid\": \"day\", \"values\": {\"night\": []}}]}", "unsaid" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error  e = { 0 };
        struct slots *s = NULL;
        json_t       *root = NULL;
        char         *copy = strdup(cases[i].text);
        assert_int_equal(gv_json_parse(copy, strlen(copy), "genvid.json", &root, &e), GV_OK);
        struct json_view v = gv_json_view(root, "genvid.json", &e);
        assert_int_equal(gv_slots_open(&s, &v), GV_ERR_MODEL);
        assert_non_null(strstr(e.text, cases[i].why));
        assert_null(s);
        json_decref(root);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_asked_is_found_in_other_words),    cmocka_unit_test(what_is_not_there_is_told),
        cmocka_unit_test(silence_means_what_the_table_says),        cmocka_unit_test(what_belongs_to_others_is_not_the_actors),
        cmocka_unit_test(models_without_the_table_compare_nothing), cmocka_unit_test(broken_tables_are_refused_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
