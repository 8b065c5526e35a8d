/* The model of a tokenizer.json: the vocabulary with its scores or merges, into the tables that tokenizer_unigram.c and
 * tokenizer_bpe.c search.
 *
 * A vocabulary is read twice, measured and then copied, so that every piece lies in one block and nothing is reallocated. BPE's
 * merges name their halves by text; here they become ids, ordered by left id and then by right, which makes a merge a binary
 * search.
 *
 * Surprises: merges are pairs in newer files and "a b" in older ones. Of a pair given twice the last counts. Both halves of a
 * merge and what it makes must be in the vocabulary; an id may have no piece, but no two pieces.
 * Source: huggingface/tokenizers 3ba8ad0061a8 models/unigram/{model,serialization}.rs, models/bpe/{model,serialization}.rs. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/tokenizer_pipeline.h"

/* ---- pieces ---------------------------------------------------------------------------------------------------------- */

/* Piece for an id: copied into t->text at *used. */
static void set_piece(struct tokenizer *t, int32_t id, const char *s, size_t n, size_t *used)
{
    struct piece *p = &t->piece[id];
    memcpy(t->text + *used, s, n);
    *p = (struct piece){ .s = t->text + *used, .n = (uint32_t)n };
    *used += n;
    int byte = gv_byte_piece(s, n);
    if (byte >= 0) {
        p->flags |= PIECE_BYTE;
        p->byte = (uint8_t)byte;
        t->byte_id[byte] = id;
    }
}

static gv_status index_pieces(struct tokenizer *t, const struct json_view *at)
{
    size_t           n = 0;
    struct trie_key *keys = malloc(((size_t)t->n_vocab + 1) * sizeof *keys);
    for (int32_t i = 0; keys && i < t->n_vocab; i++)
        if (t->piece[i].s)
            keys[n++] = gv_trie_key(t->piece[i].s, t->piece[i].n, i);
    bool ok = keys && gv_trie_build(&t->trie, keys, n);
    free(keys);
    return ok ? GV_OK : gv_json_fail(at, NULL, GV_ERR_MEMORY, "no memory for %d pieces", t->n_vocab);
}

/* ---- Unigram --------------------------------------------------------------------------------------------------------- */

/* Entry i of Unigram's vocab as [piece, score]. */
static const char *unigram_entry(const struct json_view *vocab, size_t i, size_t *n, double *score)
{
    const json_t *entry = json_array_get(vocab->value, i), *s = json_array_get(entry, 0), *x = json_array_get(entry, 1);
    if (json_array_size(entry) == 2 && json_is_string(s) && json_is_number(x) && json_string_length(s) <= TOK_PIECE_MAX) {
        *n = json_string_length(s);
        *score = json_number_value(x);
        return json_string_value(s);
    }
    struct json_view at = gv_json_at(vocab, i);
    gv_json_fail(&at, NULL, GV_ERR_MODEL, "is no [piece, score] with a piece of at most %d bytes", TOK_PIECE_MAX);
    return NULL;
}

gv_status gv_unigram_read(struct tokenizer *t, const struct json_view *model, int32_t n_ids)
{
    struct json_view vocab = gv_json_array(model, "vocab", 1, TOK_IDS_MAX, true);
    int32_t          n = (int32_t)gv_json_count(&vocab);
    size_t           bytes = 0, used = 0, length = 0;
    double           score = 0, low = 1e308;
    t->unk = (int32_t)gv_json_int(model, "unk_id", 0, n - 1, -1);
    t->byte_fallback = gv_json_bool(model, "byte_fallback", false);
    for (int32_t i = 0; gv_json_done(model) == GV_OK && i < n; i++, bytes += length)
        unigram_entry(&vocab, (size_t)i, &length, &score);
    TRY(gv_json_done(model));
    TRY(gv_tokenizer_reserve(t, n > n_ids ? n : n_ids, bytes, model->file, model->e));
    t->model = MODEL_UNIGRAM;
    t->n_vocab = n;
    t->score = malloc((size_t)n * sizeof *t->score);
    if (!t->score)
        return gv_json_fail(model, NULL, GV_ERR_MEMORY, "no memory for %d scores", n);
    for (int32_t i = 0; i < n; i++) {
        const char *s = unigram_entry(&vocab, (size_t)i, &length, &t->score[i]);
        set_piece(t, i, s, length, &used);
        low = t->score[i] < low ? t->score[i] : low;
    }
    t->unk_score = low - 10.0;
    return index_pieces(t, model);
}

/* ---- BPE ------------------------------------------------------------------------------------------------------------- */

struct raw_merge {
    int32_t      left;
    struct merge merge;
};

static int compare_merges(const void *a, const void *b)
{
    const struct raw_merge *x = a, *y = b;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    if (x->merge.right != y->merge.right)
        return x->merge.right < y->merge.right ? -1 : 1;
    return (x->merge.rank > y->merge.rank) - (x->merge.rank < y->merge.rank);
}

/* The two halves of merges[i]: ["a", "b"], or "a b" in older files. */
static bool merge_halves(const json_t *entry, const char *half[2], size_t n[2])
{
    if (json_is_string(entry)) {
        const char *s = json_string_value(entry), *space = memchr(s, ' ', json_string_length(entry));
        half[0] = s;
        n[0] = space ? (size_t)(space - s) : 0;
        half[1] = space ? space + 1 : s;
        n[1] = space ? json_string_length(entry) - n[0] - 1 : 0;
        return space && !memchr(half[1], ' ', n[1]);
    }
    for (size_t k = 0; k < 2; k++) {
        const json_t *s = json_array_get(entry, k);
        half[k] = json_string_value(s);
        n[k] = json_string_length(s);
    }
    return json_array_size(entry) == 2 && half[0] && half[1];
}

static void read_merge(const struct tokenizer *t, const struct json_view *merges, size_t i, struct raw_merge *out)
{
    const char *half[2];
    size_t      n[2], skip = t->word_prefix ? strlen(t->word_prefix) : 0;
    char        both[2 * TOK_PIECE_MAX];
    bool        ok = merge_halves(json_array_get(merges->value, i), half, n) && n[0] <= TOK_PIECE_MAX && n[1] <= TOK_PIECE_MAX;
    int32_t     left = ok ? gv_trie_find(&t->trie, half[0], n[0]) : -1, right = ok ? gv_trie_find(&t->trie, half[1], n[1]) : -1,
            id = -1;
    if (ok && n[1] >= skip) {
        memcpy(both, half[0], n[0]);
        memcpy(both + n[0], half[1] + skip, n[1] - skip);
        id = gv_trie_find(&t->trie, both, n[0] + n[1] - skip);
    }
    *out = (struct raw_merge){ left, { right, (int32_t)i, id } };
    if (left >= 0 && right >= 0 && id >= 0)
        return;
    struct json_view at = gv_json_at(merges, i);
    if (!ok)
        gv_json_fail(&at, NULL, GV_ERR_MODEL, "is no pair of pieces");
    else
        gv_json_fail(&at, NULL, GV_ERR_MODEL, "joins \"%.*s\" and \"%.*s\": these and the whole must be in the vocabulary",
                     n[0] > 40 ? 40 : (int)n[0], half[0], n[1] > 40 ? 40 : (int)n[1], half[1]);
}

static gv_status read_merges(struct tokenizer *t, const struct json_view *model)
{
    struct json_view  merges = gv_json_array(model, "merges", 0, TOK_IDS_MAX, true);
    size_t            n = gv_json_count(&merges), kept = 0;
    struct raw_merge *raw = malloc((n + 1) * sizeof *raw);
    t->merge = malloc((n + 1) * sizeof *t->merge);
    t->merge_at = calloc((size_t)t->n_pieces + 2, sizeof *t->merge_at);
    if (!raw || !t->merge || !t->merge_at) {
        free(raw);
        return gv_json_fail(&merges, NULL, GV_ERR_MEMORY, "no memory for %zu merges", n);
    }
    for (size_t i = 0; gv_json_done(model) == GV_OK && i < n; i++)
        read_merge(t, &merges, i, &raw[i]);
    if (gv_json_done(model) == GV_OK) {
        qsort(raw, n, sizeof *raw, compare_merges);
        for (size_t i = 0; i < n; i++) { /* of a pair given twice the last counts */
            if (i + 1 < n && raw[i].left == raw[i + 1].left && raw[i].merge.right == raw[i + 1].merge.right)
                continue;
            t->merge[kept++] = raw[i].merge;
            t->merge_at[raw[i].left + 1]++;
        }
        for (int32_t i = 0; i <= t->n_pieces; i++)
            t->merge_at[i + 1] += t->merge_at[i];
    }
    free(raw);
    return gv_json_done(model);
}

/* Largest id of BPE's vocabulary and its bytes; checks every entry. */
static gv_status measure_vocab(const struct json_view *vocab, int32_t *top, size_t *bytes)
{
    json_t     *object = (json_t *)(uintptr_t)vocab->value; /* jansson's iterators take no const */
    const char *key;
    json_t     *x;
    json_object_foreach (object, key, x) {
        json_int_t id = json_is_integer(x) ? json_integer_value(x) : -1;
        size_t     n = strlen(key);
        if (id < 0 || id >= TOK_IDS_MAX || n > TOK_PIECE_MAX)
            return gv_json_fail(vocab, n > 40 ? "(long piece)" : key, GV_ERR_MODEL,
                                "expected an id from 0 to %d, and a piece of at most %d bytes", TOK_IDS_MAX - 1, TOK_PIECE_MAX);
        *top = id > *top ? (int32_t)id : *top;
        *bytes += n;
    }
    return GV_OK;
}

static gv_status fill_vocab(struct tokenizer *t, const struct json_view *vocab)
{
    json_t     *object = (json_t *)(uintptr_t)vocab->value;
    const char *key;
    json_t     *x;
    size_t      used = 0;
    json_object_foreach (object, key, x) {
        int32_t id = (int32_t)json_integer_value(x);
        if (t->piece[id].s)
            return gv_json_fail(vocab, NULL, GV_ERR_MODEL, "gives id %d to two pieces, \"%.40s\" and \"%.*s\"", id, key,
                                t->piece[id].n > 40 ? 40 : (int)t->piece[id].n, t->piece[id].s);
        set_piece(t, id, key, strlen(key), &used);
    }
    return GV_OK;
}

static gv_status read_bpe_options(struct tokenizer *t, const struct json_view *model)
{
    const char *prefix = gv_json_string(model, "continuing_subword_prefix", ""),
               *suffix = gv_json_string(model, "end_of_word_suffix", "");
    const char *unk = gv_json_string(model, "unk_token", "");
    t->model = MODEL_BPE;
    t->fuse_unk = gv_json_bool(model, "fuse_unk", false);
    t->ignore_merges = gv_json_bool(model, "ignore_merges", false);
    t->byte_fallback = gv_json_bool(model, "byte_fallback", false);
    gv_json_number(model, "dropout", 0, 0, 0); /* anything else would make ids a matter of chance */
    if (*prefix)
        gv_tokenizer_keep(&t->word_prefix, prefix, model);
    if (*suffix)
        gv_tokenizer_keep(&t->word_suffix, suffix, model);
    if (t->byte_fallback && (*prefix || *suffix))
        gv_json_fail(model, "byte_fallback", GV_ERR_MODEL, "together with a prefix or suffix is not handled");
    if (*unk && (t->unk = gv_trie_find(&t->trie, unk, strlen(unk))) < 0)
        gv_json_fail(model, "unk_token", GV_ERR_MODEL, "is \"%.40s\", which is not in the vocabulary", unk);
    return gv_json_done(model);
}

gv_status gv_bpe_read(struct tokenizer *t, const struct json_view *model, int32_t n_ids)
{
    struct json_view vocab = gv_json_object(model, "vocab", true);
    int32_t          top = -1;
    size_t           bytes = 0;
    TRY(gv_json_done(model));
    TRY(measure_vocab(&vocab, &top, &bytes));
    TRY(gv_tokenizer_reserve(t, top + 1 > n_ids ? top + 1 : n_ids, bytes, model->file, model->e));
    t->n_vocab = top + 1;
    TRY(fill_vocab(t, &vocab));
    TRY(index_pieces(t, model));
    TRY(read_bpe_options(t, model));
    return read_merges(t, model);
}
