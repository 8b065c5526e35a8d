/* Prompt cleaning: equal to ftfy, html.unescape and white-space collapsing on the prompts of tests/golden/tokenizer, but for those
 * that ftfy's repair of mojibake would change. */
#include "io/text_clean.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/json.h"
#include "io/tokenizer.h"

static int hex(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static char *unhex(const char *s, size_t digits)
{
    char *out = malloc(digits / 2 + 1);
    assert_non_null(out);
    for (size_t i = 0; i < digits / 2; i++)
        out[i] = (char)(hex(s[2 * i]) << 4 | hex(s[2 * i + 1]));
    out[digits / 2] = 0;
    return out;
}

static void cleans_to(const char *text, const char *want)
{
    char        *got = NULL;
    struct error e   = { 0 };
    assert_int_equal(gv_text_clean(text, &got, &e), GV_OK);
    assert_string_equal(got, want);
    free(got);
}

static void prompts_equal_the_reference(void **state)
{
    (void)state;
    char        *prompts = NULL, *clean = NULL;
    size_t       n_prompts, n_clean;
    struct error e = { 0 };
    assert_int_equal(gv_read_file(GV_TEST_DATA "/tokenizer/prompts.tsv", 64 << 20, &prompts, &n_prompts, &e), GV_OK);
    assert_int_equal(gv_read_file(GV_TEST_DATA "/tokenizer/clean.txt", 64 << 20, &clean, &n_clean, &e), GV_OK);
    int equal = 0, mojibake = 0;
    for (char *p = prompts, *c = clean; *p && *c; p = strchr(p, '\n') + 1, c = strchr(c, '\n') + 1) {
        if (*c == '-') {
            mojibake++;
            continue;
        }
        char *text = unhex(p, strcspn(p, "\t")), *want = *c == '=' ? unhex(p, strcspn(p, "\t")) : unhex(c, strcspn(c, "\n"));
        cleans_to(text, want);
        equal++;
        free(text);
        free(want);
    }
    free(prompts);
    free(clean);
    print_message("%d prompts equal; %d left out, which ftfy's repair of mojibake would change\n", equal, mojibake);
    assert_true(equal >= 500);
    assert_true(mojibake < 20);
}

static void rules_hold_one_by_one(void **state)
{
    (void)state;
    cleans_to("", "");
    cleans_to("a  b\tc\n\nd", "a b c d");
    cleans_to("<b>hi</b> &amp; bye", "<b>hi</b> & bye");
    cleans_to("&amp;lt;", "<");
    cleans_to("&notit;", "\xc2\xac" "it;");
    cleans_to("P&EACUTE;REZ &SZLIG;", "P\xc3\x89REZ SS");
    cleans_to("\xef\xbc\xac\xef\xbc\xaf\xe3\x80\x80\xef\xbc\x8c", "LO ,");
    cleans_to("don\xe2\x80\x99t", "don't");
    cleans_to("\xef\xbb\xbfhi", "hi");
    cleans_to("\xe2\x80\x8b", "\xe2\x80\x8b");
    cleans_to("e\xcc\x81", "\xc3\xa9");
    cleans_to("\xff", "\xef\xbf\xbd");
    cleans_to("\x1b[1;31mred\x1b[0m", "red");
}

static void long_prompts_are_linear_or_refused(void **state)
{
    (void)state;
    static char  text[GV_TEXT_BYTES + 2];
    char        *out = NULL;
    struct error e   = { 0 };
    for (int k = 0; k < 4; k++) {
        static const char *const units[] = { "&", "\xcc\x81\xcc\xa3", "\x1b[1", "amp;" };
        size_t                   n       = strlen(units[k]);
        for (size_t i = 0; i < GV_TEXT_BYTES / 8; i++)
            text[i] = units[k][i % n];
        text[GV_TEXT_BYTES / 8] = 0;
        if (k == 3)
            text[0] = '&';
        assert_int_equal(gv_text_clean(text, &out, &e), GV_OK);
        free(out);
    }
    memset(text, 'a', GV_TEXT_BYTES + 1);
    assert_int_equal(gv_text_clean(text, &out, &e), GV_ERR_ARGUMENT);
    assert_null(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_equal_the_reference),
        cmocka_unit_test(rules_hold_one_by_one),
        cmocka_unit_test(long_prompts_are_linear_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
