/* Nearest, in this order: a synonym that the model's files name; another form of a known word (runs, running, run); a slip of the
 * finger. Why so strict about the last: "house" is one letter from "horse" and means nothing of the kind, so a letter in place of
 * another counts in long words alone, where two different words are rarely that close.
 *
 * What would surprise you: words are cut at everything that is not a letter, a digit, a hyphen or part of UTF-8; only ASCII is folded
 * to lower case; numbers are never unknown. */
#include "pipelines/vocabulary.h"

#include <stdlib.h>
#include <string.h>

enum { WORD = 32, SAID = 8 /* warnings a text; a novel need not be listed */ };

struct vocabulary {
    json_t *listed;   /* array: the words to draw with, as the file has them */
    json_t *known;    /* object: every word that needs no note */
    json_t *synonyms; /* object: word → known word */
};

/* ---- opening ---- */

static gv_status add_words(struct vocabulary *v, const struct json_view *sidecar, const char *field, struct json_view *list)
{
    *list = gv_json_array(sidecar, field, 0, 100000, false);
    for (size_t i = 0; i < gv_json_count(list); i++) {
        const json_t *word = gv_json_at(list, i).value;
        if (!json_is_string(word))
            return gv_json_fail(list, NULL, GV_ERR_MODEL, "holds more than strings");
        if (json_object_set_new(v->known, json_string_value(word), json_true()))
            return gv_fail(sidecar->e, GV_ERR_MEMORY, "no memory for the vocabulary of %s", sidecar->file);
    }
    return gv_json_done(sidecar);
}

static gv_status read_fields(struct vocabulary *v, const struct json_view *sidecar)
{
    struct json_view list, small;
    const char      *word;
    json_t          *as;
    if (!(v->known = json_object()))
        return gv_fail(sidecar->e, GV_ERR_MEMORY, "no memory for the vocabulary of %s", sidecar->file);
    TRY(add_words(v, sidecar, "words", &list));
    TRY(add_words(v, sidecar, "small_words", &small));
    v->listed = json_incref((json_t *)(uintptr_t)list.value);
    struct json_view synonyms = gv_json_object(sidecar, "synonyms", false);
    v->synonyms = json_incref((json_t *)(uintptr_t)synonyms.value);
    json_object_foreach (v->synonyms, word, as)
        if (!json_is_string(as) || !json_object_get(v->known, json_string_value(as)))
            return gv_json_fail(&synonyms, word, GV_ERR_MODEL, "is not one of the words");
    return gv_json_done(sidecar);
}

gv_status gv_vocabulary_open(struct vocabulary **out, const struct json_view *sidecar)
{
    *out = NULL;
    if (!gv_json_has(sidecar, "words"))
        return GV_OK;
    struct vocabulary *v = calloc(1, sizeof *v);
    if (!v)
        return gv_fail(sidecar->e, GV_ERR_MEMORY, "no memory for the vocabulary of %s", sidecar->file);
    gv_status status = read_fields(v, sidecar);
    if (!status && json_array_size(v->listed))
        *out = v;
    else
        gv_vocabulary_close(&v);
    return status;
}

void gv_vocabulary_close(struct vocabulary **v)
{
    if (!*v)
        return;
    json_decref((*v)->listed);
    json_decref((*v)->known);
    json_decref((*v)->synonyms);
    free(*v);
    *v = NULL;
}

json_t *gv_vocabulary_json(const struct vocabulary *v)
{
    return v ? json_incref(v->listed) : json_array();
}

/* ---- nearest ---- */

static bool ends(const char *word, size_t n, const char *tail)
{
    const size_t t = strlen(tail);
    return n >= t + 3 && !memcmp(word + n - t, tail, t);
}

/* The word without its ending: "running", "runs" and "run" have one stem. Not a linguist's: it has to be the same for forms of a
 * word, and seldom the same for others. out has WORD bytes. */
static void stem(const char *word, char *out)
{
    static const char *const tails[] = { "'s", "ies", "ing", "ed", "es", "s", "ly", "y", "e" };
    size_t                   n = strlen(word);
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
        if (ends(word, n, tails[i])) {
            n -= strlen(tails[i]);
            break;
        }
    if (n > 3 && word[n - 1] == word[n - 2]) /* runn(ing) */
        n--;
    memcpy(out, word, n);
    out[n] = 0;
}

static int lesser(int a, int b)
{
    return a < b ? a : b;
}

/* 1: one letter more, one less or two swapped in words of five letters and up; one letter for another in words of eight. Else 0. */
static bool one_slip(const char *a, const char *b)
{
    const int na = (int)strlen(a), nb = (int)strlen(b), shorter = lesser(na, nb);
    int       head = 0, tail = 0;
    if (shorter < 4 || na + nb < 10 || abs(na - nb) > 1 || a[0] != b[0])
        return false;
    while (head < shorter && a[head] == b[head])
        head++;
    while (tail < shorter - head && a[na - 1 - tail] == b[nb - 1 - tail])
        tail++;
    if (na != nb)
        return head + tail == shorter;
    const int apart = na - head - tail;
    return (apart == 1 && na >= 8) || (apart == 2 && a[head] == b[head + 1] && a[head + 1] == b[head]);
}

static bool is_number(const char *word)
{
    return word[strspn(word, "0123456789-.")] == 0;
}

/* The known word nearest to an unknown one, or NULL. Ties: the shortest, then the first in the list. */
static const char *nearest(const struct vocabulary *v, const char *word)
{
    const char *best = json_string_value(json_object_get(v->synonyms, word));
    char        mine[WORD], other[WORD];
    int         best_rank = 3;
    size_t      i;
    json_t     *known;
    if (best)
        return best;
    stem(word, mine);
    json_array_foreach (v->listed, i, known) {
        const char *k = json_string_value(known);
        if (strlen(k) >= WORD)
            continue;
        stem(k, other);
        const int rank = !strcmp(mine, other) ? 1 : one_slip(word, k) ? 2 : 3;
        if (rank < best_rank || (rank == best_rank && best && strlen(k) < strlen(best)))
            best = k, best_rank = rank;
    }
    if (best) /* found by its form or its letters */
        return best;
    const char *through = json_string_value(json_object_get(v->synonyms, mine)); /* "sedans" by way of "sedan" */
    return through;
}

/* ---- a text ---- */

bool gv_vocabulary_letter(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '\'' || c >= 0x80;
}

struct reading {
    char  *text;
    size_t n, room;
    int    said;
};

static bool append(struct reading *r, const char *from, size_t n)
{
    if (r->n + n + 1 > r->room) {
        const size_t room = 2 * (r->n + n + 1);
        char        *more = realloc(r->text, room);
        if (!more)
            return false;
        r->text = more, r->room = room;
    }
    memcpy(r->text + r->n, from, n);
    r->text[r->n += n] = 0;
    return true;
}

/* The word at from, n bytes: what stands for it in the text that the model reads. */
static const char *read_word(const struct vocabulary *v, const char *field, const char *from, size_t n, struct reading *r,
                             const struct log *log)
{
    char word[WORD];
    if (n >= WORD)
        return NULL;
    for (size_t i = 0; i < n; i++)
        word[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] + 32 : from[i]);
    word[n] = 0;
    if (json_object_get(v->known, word) || is_number(word))
        return NULL;
    const char *as = nearest(v, word);
    if (++r->said > SAID)
        return as;
    if (as)
        gv_log(log, GV_LOG_WARN, "%s: the model was not taught \"%s\"; it is read as \"%s\"", field, word, as);
    else
        gv_log(log, GV_LOG_WARN, "%s: the model was not taught \"%s\", nor a word near it: it may do nothing", field, word);
    return as;
}

gv_status gv_vocabulary_read(const struct vocabulary *v, const char *field, const char *text, char **out, const struct log *log,
                             struct error *e)
{
    struct reading r = { 0 };
    bool           good = append(&r, "", 0);
    for (size_t n; good && *text; text += n) {
        const char *as = NULL;
        for (n = 0; text[n] && gv_vocabulary_letter((unsigned char)text[n]) == gv_vocabulary_letter((unsigned char)text[0]); n++)
            ;
        if (v && gv_vocabulary_letter((unsigned char)text[0]))
            as = read_word(v, field, text, n, &r, log);
        good = append(&r, as ? as : text, as ? strlen(as) : n);
    }
    if (good && r.said > SAID)
        gv_log(log, GV_LOG_WARN, "%s: %d more words were not taught", field, r.said - SAID);
    *out = r.text;
    if (good)
        return GV_OK;
    free(r.text);
    *out = NULL;
    return gv_fail(e, GV_ERR_MEMORY, "no memory for the words of %s", field);
}
