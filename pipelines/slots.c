/* A text is read from left to right; where several phrases begin, the longest is taken ("to the left" in "the camera pans to the left"
 * is the camera's). Of two values of one slot the first counts, but for two in a row: "floats to the left" floats no more than it has to.
 *
 * The first slot is who, and one clip is about one: a second one is passed over, together with what stands right before it ("next to a
 * blue bus" says nothing of the car's colour).
 *
 * Surprise: a caption that says nothing of a slot may mean something all the same: the field unsaid has it (a camera is still, it is day). */
#include "pipelines/slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 32, PHRASE = 80 /* bytes */, LONGEST = 8 /* words of a phrase */ };

struct slot {
    const char *name, *unsaid; /* unsaid NULL: silence is no value */
};

struct slots {
    json_t     *list;    /* as the file has it; holds the texts below */
    json_t     *phrases; /* object: words between single spaces → [slot, value] */
    struct slot slot[SLOTS];
    int         n;
};

/* ---- words ---- */

/* The next word of *text, in lower case, at the end of out behind a space if there is something; false at the end of the text, and
 * where it does not fit. */
static bool next_word(const char **text, char *out, size_t room)
{
    const char  *from = *text;
    const size_t used = strlen(out);
    size_t       n = 0;
    while (*from && !gv_vocabulary_letter((unsigned char)*from))
        from++;
    while (gv_vocabulary_letter((unsigned char)from[n]))
        n++;
    *text = from + n;
    if (!n || used + n + 2 > room)
        return false;
    char *to = out + used;
    if (used)
        *to++ = ' ';
    for (size_t i = 0; i < n; i++)
        to[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] + 32 : from[i]);
    to[n] = 0;
    return true;
}

/* ---- opening ---- */

static gv_status add_phrase(struct slots *s, const struct json_view *at, const char *text, const char *value)
{
    char        phrase[PHRASE] = "";
    const char *rest = text;
    int         words = 0;
    while (strlen(text) < PHRASE && next_word(&rest, phrase, sizeof phrase))
        words++;
    if (!words || words > LONGEST)
        return gv_json_fail(at, value, GV_ERR_MODEL, "holds \"%.100s\"; expected 1 to %d words in at most %d bytes", text,
                            LONGEST, PHRASE - 1);
    if (json_object_get(s->phrases, phrase)) /* of an earlier slot */
        return GV_OK;
    if (json_object_set_new(s->phrases, phrase, json_pack("[i, s]", s->n, value)))
        return gv_fail(at->e, GV_ERR_MEMORY, "no memory for the slots of %s", at->file);
    return GV_OK;
}

static gv_status add_slot(struct slots *s, const struct json_view *at)
{
    struct slot     *slot = &s->slot[s->n];
    struct json_view values = gv_json_object(at, "values", true);
    const char      *value;
    json_t          *more, *said;
    size_t           i;
    slot->name = gv_json_string(at, "slot", NULL);
    slot->unsaid = gv_json_has(at, "unsaid") ? gv_json_string(at, "unsaid", NULL) : NULL;
    TRY(gv_json_done(at));
    if (slot->unsaid && !json_object_get(values.value, slot->unsaid))
        return gv_json_fail(at, "unsaid", GV_ERR_MODEL, "is \"%s\", which is none of the values", slot->unsaid);
    json_object_foreach ((json_t *)(uintptr_t)values.value, value, more) {
        TRY(add_phrase(s, &values, value, value));
        if (!json_is_array(more))
            return gv_json_fail(&values, value, GV_ERR_MODEL, "is no array");
        json_array_foreach (more, i, said) {
            if (!json_is_string(said))
                return gv_json_fail(&values, value, GV_ERR_MODEL, "holds more than strings");
            TRY(add_phrase(s, &values, json_string_value(said), value));
        }
    }
    s->n++;
    return GV_OK;
}

static gv_status read_slots(struct slots *s, const struct json_view *list)
{
    s->list = json_incref((json_t *)(uintptr_t)list->value);
    if (!(s->phrases = json_object()))
        return gv_fail(list->e, GV_ERR_MEMORY, "no memory for the slots of %s", list->file);
    for (size_t i = 0; i < gv_json_count(list); i++) {
        const struct json_view at = gv_json_at(list, i);
        TRY(add_slot(s, &at));
    }
    return GV_OK;
}

gv_status gv_slots_open(struct slots **out, const struct json_view *sidecar)
{
    *out = NULL;
    const struct json_view list = gv_json_array(sidecar, "slots", 1, SLOTS, false);
    TRY(gv_json_done(sidecar));
    if (!list.value)
        return GV_OK;
    struct slots *s = calloc(1, sizeof *s);
    if (!s)
        return gv_fail(sidecar->e, GV_ERR_MEMORY, "no memory for the slots of %s", sidecar->file);
    const gv_status status = read_slots(s, &list);
    *out = s;
    if (status)
        gv_slots_close(out);
    return status;
}

void gv_slots_close(struct slots **s)
{
    if (!*s)
        return;
    json_decref((*s)->list);
    json_decref((*s)->phrases);
    free(*s);
    *s = NULL;
}

/* ---- reading ---- */

struct reading {
    const char *value[SLOTS]; /* NULL: nothing was said */
    int         last;         /* slot of the phrase before, -1 = none */
    bool        fresh;        /* and it gave the slot its value */
};

/* The longest phrase that text begins with, or NULL; *end: behind it. */
static const json_t *longest(const struct slots *s, const char *text, const char **end)
{
    char          phrase[PHRASE] = "";
    const json_t *best = NULL;
    for (int n = 0; n < LONGEST && next_word(&text, phrase, sizeof phrase); n++) {
        const json_t *found = json_object_get(s->phrases, phrase);
        if (!found)
            continue;
        best = found;
        *end = text;
    }
    return best;
}

/* near: nothing stands between this phrase and the last one. */
static void note(struct reading *r, int slot, const char *value, bool near)
{
    const bool free = !r->value[slot], row = slot && slot == r->last;
    if (!slot && !free && near && r->last > 0 && r->fresh)
        r->value[r->last] = NULL;
    if (free || row)
        r->value[slot] = value;
    r->last = slot;
    r->fresh = free || row;
}

static void read_text(struct reading *r, const struct slots *s, const char *text)
{
    bool near = false;
    *r = (struct reading){ .last = -1 };
    for (char word[PHRASE] = ""; *text; word[0] = 0) {
        const char   *end = NULL;
        const json_t *found = longest(s, text, &end);
        if (found)
            note(r, (int)json_integer_value(json_array_get(found, 0)), json_string_value(json_array_get(found, 1)), near);
        else
            next_word(&text, word, sizeof word);
        near = found != NULL;
        text = found ? end : text;
    }
}

/* ---- comparing ---- */

static json_t *compare(const struct slots *s, const char *asked, const char *read)
{
    struct reading a, b;
    int            n = 0, agree = 0;
    json_t        *rows = json_array();
    read_text(&a, s, asked);
    read_text(&b, s, read);
    for (int i = 0; i < s->n; i++) {
        const char *seen = b.value[i] ? b.value[i] : s->slot[i].unsaid;
        if (!a.value[i])
            continue;
        const bool agrees = seen && !strcmp(seen, a.value[i]);
        n++, agree += agrees;
        if (json_array_append_new(rows, json_pack("{ss, ss, ss?, sb}", "slot", s->slot[i].name, "asked", a.value[i], "read",
                                                  seen, "agrees", agrees))) {
            json_decref(rows);
            return NULL;
        }
    }
    return json_pack("{so, si, si}", "slots", rows, "asked", n, "agree", agree);
}

gv_status gv_slots_compare(json_t **out, const struct slots *s, const struct vocabulary *v, const char *asked, const char *read,
                           struct error *e)
{
    static const struct slots none;
    const struct log          silent = { 0 };
    char                     *a = NULL, *b = NULL;
    gv_status                 status = gv_vocabulary_read(v, "prompt", asked, &a, &silent, e);
    if (!status)
        status = gv_vocabulary_read(v, "caption", read, &b, &silent, e);
    if (!status && !(*out = compare(s ? s : &none, a, b)))
        status = gv_fail(e, GV_ERR_MEMORY, "no memory to compare two texts");
    free(a);
    free(b);
    return status;
}
