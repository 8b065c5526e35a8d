/* Text to ids: the public calls, and the two lists that a text is on its way, spans and ids.
 *
 *     text ── mended to UTF-8 ── prepared into spans ───── each span through the model ──────── special ids around ── ids
 *                                tokenizer_pipeline.c       tokenizer_unigram.c                 cut to the room there is
 *                                or tokenizer_spiece.c      or tokenizer_bpe.c
 *
 * The two formats meet in struct tokenizer and in struct spans, nowhere else: everything behind them asks neither for the file
 * nor for the family. The way back, ids to text, is in tokenizer_pieces.c.
 *
 * Surprise: too many ids are cut from the end of the text, never from the special tokens around it, as the reference's
 * truncation does. */
#include "io/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/tokenizer_impl.h"

/* ---- spans ----------------------------------------------------------------------------------------------------------- */

static bool spans_push(struct spans *s, struct span span)
{
    if (s->n == s->room) {
        size_t       room = s->room * 2 + 32;
        struct span *more = realloc(s->span, room * sizeof *more);
        if (!more)
            return false;
        s->span = more;
        s->room = room;
    }
    s->span[s->n++] = span;
    return true;
}

bool gv_spans_text(struct spans *s, const char *text, size_t n, bool first)
{
    struct span span = { .at = s->text.n, .n = n, .id = -1, .first = first };
    return !n || (gv_bytes_put(&s->text, text, n) && spans_push(s, span));
}

bool gv_spans_id(struct spans *s, int32_t id)
{
    return spans_push(s, (struct span){ .at = s->text.n, .id = id });
}

void gv_spans_clear(struct spans *s)
{
    s->n = s->text.n = 0;
}

void gv_spans_free(struct spans *s)
{
    gv_bytes_free(&s->text);
    free(s->span);
    *s = (struct spans){ 0 };
}

/* ---- ids ------------------------------------------------------------------------------------------------------------- */

bool gv_ids_put(struct ids *l, int32_t id)
{
    if (l->n == l->room) {
        size_t   room = l->room * 2 + 256;
        int32_t *more = realloc(l->id, room * sizeof *more);
        if (!more)
            return false;
        l->id = more;
        l->room = room;
    }
    l->id[l->n++] = id;
    return true;
}

gv_status gv_tokenizer_no_memory(struct error *e)
{
    return gv_fail(e, GV_ERR_MEMORY, "no memory to tokenize the text");
}

/* ---- encode ---------------------------------------------------------------------------------------------------------- */

static gv_status run_model(const struct tokenizer *t, const struct spans *spans, struct ids *out, struct error *e)
{
    for (size_t i = 0; i < spans->n; i++) {
        const struct span *s = &spans->span[i];
        const char        *p = spans->text.data + s->at;
        if (s->id >= 0) {
            if (!gv_ids_put(out, s->id))
                return gv_tokenizer_no_memory(e);
        } else if (t->model == MODEL_UNIGRAM) {
            TRY(gv_unigram_run(t, p, s->n, out, e));
        } else {
            TRY(gv_bpe_run(t, p, s->n, out, e));
        }
    }
    return GV_OK;
}

static void assemble(const struct tokenizer *t, bool special, const struct ids *list, int32_t *ids, int max, int *n, int *cut)
{
    int before = special ? t->n_before : 0, after = special ? t->n_after : 0;
    int room = max - before - after, keep = list->n > (size_t)room ? room : (int)list->n;
    for (int i = 0; i < before; i++)
        ids[i] = t->before[i];
    for (int i = 0; i < keep; i++)
        ids[before + i] = list->id[i];
    for (int i = 0; i < after; i++)
        ids[before + keep + i] = t->after[i];
    *n = before + keep + after;
    if (cut)
        *cut = (int)(list->n - (size_t)keep);
}

gv_status gv_tokenizer_encode(const struct tokenizer *t, const char *text, bool add_special, int32_t *ids, int max, int *n,
                              int *cut, struct error *e)
{
    size_t length = strlen(text);
    int    special = add_special ? t->n_before + t->n_after : 0;
    *n = 0;
    if (length > GV_TEXT_BYTES)
        return gv_fail(e, GV_ERR_ARGUMENT, "the text has %zu bytes, at most %d are taken", length, GV_TEXT_BYTES);
    if (max < special)
        return gv_fail(e, GV_ERR_ARGUMENT, "room for %d ids, but the tokenizer alone adds %d", max, special);
    struct bytes clean = { 0 };
    struct spans spans = { 0 };
    struct ids   list = { 0 };
    gv_status    s = gv_utf8_repair(&clean, text, length) ? GV_OK : gv_bytes_failed(&clean, e);
    if (s == GV_OK)
        s = t->spm ? gv_spm_prepare(t, clean.data, clean.n, &spans, e) : gv_pipeline_prepare(t, clean.data, clean.n, &spans, e);
    if (s == GV_OK)
        s = run_model(t, &spans, &list, e);
    if (s == GV_OK)
        assemble(t, add_special, &list, ids, max, n, cut);
    gv_bytes_free(&clean);
    gv_spans_free(&spans);
    free(list.id);
    return s;
}

/* ---- open, close, look up -------------------------------------------------------------------------------------------- */

static gv_status find_file(const char *path, char *out, size_t room, struct error *e)
{
    static const char *const names[] = { "", "tokenizer.json", "spiece.model" };
    struct stat              st;
    bool                     folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (strlen(path) + 32 > room)
        return gv_fail(e, GV_ERR_IO, "%.200s...: the path is too long", path);
    strcpy(out, path);
    for (int i = 1; folder && i < 3; i++) {
        strcpy(out, path);
        strcat(out, "/");
        strcat(out, names[i]);
        if (stat(out, &st) == 0)
            return GV_OK;
    }
    return folder ? gv_fail(e, GV_ERR_IO, "%s: holds neither tokenizer.json nor spiece.model", path) : GV_OK;
}

gv_status gv_tokenizer_open(struct tokenizer **out, const char *path, struct error *e)
{
    char         file[4096];
    struct error own = { 0 }; /* readers look at their error to see whether they failed */
    *out = NULL;
    e = e ? e : &own;
    if (e->code != GV_OK)
        return e->code;
    TRY(find_file(path, file, sizeof file, e));
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return gv_fail(e, GV_ERR_MEMORY, "%s: no memory", file);
    size_t n = strlen(file);
    bool   spiece = n >= 6 && strcmp(file + n - 6, ".model") == 0;
    t->unk = -1;
    gv_status s = spiece ? gv_tokenizer_open_spiece(t, file, e) : gv_tokenizer_open_json(t, file, e);
    if (s != GV_OK)
        gv_tokenizer_close(&t);
    *out = t;
    return s;
}

void gv_tokenizer_close(struct tokenizer **t)
{
    struct tokenizer *x = *t;
    if (!x)
        return;
    gv_pipeline_free(&x->pipeline);
    gv_spm_free(&x->spm);
    free(x->text);
    free(x->piece);
    free(x->trie.node);
    free(x->score);
    free(x->merge_at);
    free(x->merge);
    free(x->word_prefix);
    free(x->word_suffix);
    free(x->before);
    free(x->after);
    free(x);
    *t = NULL;
}

int gv_tokenizer_size(const struct tokenizer *t)
{
    return t->n_pieces;
}

int32_t gv_tokenizer_id(const struct tokenizer *t, const char *piece)
{
    int32_t id = t->pipeline ? gv_pipeline_added(t->pipeline, piece) : -1;
    if (id < 0)
        id = gv_trie_find(&t->trie, piece, strlen(piece));
    for (int32_t i = 0; id < 0 && t->spm && i < t->n_pieces; i++) /* control and byte pieces, kept out of the trie */
        if (t->piece[i].s && t->piece[i].n == strlen(piece) && memcmp(t->piece[i].s, piece, t->piece[i].n) == 0)
            id = i;
    return id;
}
