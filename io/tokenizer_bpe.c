/* BPE: a word's letters, joined pair by pair in the order of the merges' ranks, the leftmost first among equals.
 *
 * Symbols are a linked list in an array, the pairs that could be joined next a heap: n log n, not n². A pair that one of its
 * sides has left in the meantime stays in the heap and is recognised when it comes up, because the merge found there now is
 * another.
 *
 * Surprises: a letter that is in no vocabulary vanishes when there is neither byte fallback nor unk_token. An unknown is
 * written when the next known letter comes, so bytes of a fallback that stand behind it come out before it, as in the
 * reference. No word is kept from one call to the next: a tokenizer does not change once it is open.
 * Source: huggingface/tokenizers 3ba8ad0061a8 models/bpe/{model,word}.rs; the reference caches words and can drop merges, not
 * here. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer_impl.h"

struct symbol {
    int32_t id, prev, next; /* -1: none; id -1: merged away */
};
struct candidate {
    int32_t rank, at, id; /* of the merge, where its left symbol sits, what it makes */
};
struct word {
    struct symbol    *symbol;
    size_t            n;
    struct candidate *heap;
    size_t            n_heap;
};

static const struct merge *find_merge(const struct tokenizer *t, int32_t left, int32_t right)
{
    uint32_t lo = t->merge_at[left], hi = t->merge_at[left + 1];
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->merge[mid].right == right)
            return &t->merge[mid];
        if (t->merge[mid].right < right)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static bool sooner(struct candidate a, struct candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(struct word *w, struct candidate c)
{
    size_t i = w->n_heap++;
    for (; i && sooner(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static struct candidate heap_pop(struct word *w)
{
    struct candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t           i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap)
            break;
        if (child + 1 < w->n_heap && sooner(w->heap[child + 1], w->heap[child]))
            child++;
        if (!sooner(w->heap[child], last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static void consider(const struct tokenizer *t, struct word *w, int32_t at)
{
    const struct symbol *s = &w->symbol[at];
    if (s->next < 0)
        return;
    const struct merge *m = find_merge(t, s->id, w->symbol[s->next].id);
    if (m)
        heap_push(w, (struct candidate){ m->rank, at, m->id });
}

/* The heap holds at most n - 1 starting pairs and two more for each of at most n - 1 merges. */
static void merge_all(const struct tokenizer *t, struct word *w)
{
    for (size_t i = 0; i + 1 < w->n; i++)
        consider(t, w, (int32_t)i);
    while (w->n_heap) {
        struct candidate c = heap_pop(w);
        struct symbol   *s = &w->symbol[c.at];
        if (s->id < 0 || s->next < 0)
            continue;
        struct symbol      *r = &w->symbol[s->next];
        const struct merge *m = find_merge(t, s->id, r->id);
        if (!m || m->id != c.id)
            continue;
        s->id = c.id;
        s->next = r->next;
        r->id = -1;
        if (s->next >= 0)
            w->symbol[s->next].prev = c.at;
        if (s->prev >= 0)
            consider(t, w, s->prev);
        consider(t, w, c.at);
    }
}

static void add_symbol(struct word *w, int32_t id)
{
    int32_t i = (int32_t)w->n++;
    w->symbol[i] = (struct symbol){ id, i - 1, -1 };
    if (i)
        w->symbol[i - 1].next = i;
}

/* The letter at s with the word's prefix and suffix where they apply: looked up, or -1. */
static int32_t letter_id(const struct tokenizer *t, const char *s, size_t n, bool first, bool last, struct bytes *spare,
                         bool *ok)
{
    if (!(t->word_prefix && !first) && !(t->word_suffix && last))
        return gv_trie_find(&t->trie, s, n);
    spare->n = 0;
    *ok = (first || !t->word_prefix || gv_bytes_put(spare, t->word_prefix, strlen(t->word_prefix))) &&
          gv_bytes_put(spare, s, n) &&
          (!last || !t->word_suffix || gv_bytes_put(spare, t->word_suffix, strlen(t->word_suffix)));
    return *ok ? gv_trie_find(&t->trie, spare->data, spare->n) : -1;
}

/* Letters of the word as symbols. The order of unknowns and byte fallbacks is the reference's: an unknown waits until a known
 * letter or the end. */
static bool split_word(const struct tokenizer *t, const char *s, size_t n, struct word *w)
{
    struct bytes spare = { 0 };
    bool         waiting = false, ok = true;
    for (size_t i = 0; ok && i < n;) {
        int length;
        gv_rune(s + i, &length);
        bool    last = i + (size_t)length == n;
        int32_t id = letter_id(t, s + i, (size_t)length, i == 0, last, &spare, &ok);
        if (id >= 0) {
            if (waiting)
                add_symbol(w, t->unk);
            waiting = false;
            add_symbol(w, id);
        } else if (gv_bytes_known(t, s + i, (size_t)length)) {
            for (int k = 0; k < length; k++)
                add_symbol(w, t->byte_id[(uint8_t)s[i + (size_t)k]]);
        } else if (t->unk >= 0) {
            if (waiting && !t->fuse_unk)
                add_symbol(w, t->unk);
            waiting = true;
        }
        i += (size_t)length;
    }
    if (waiting)
        add_symbol(w, t->unk);
    gv_bytes_free(&spare);
    return ok;
}

gv_status gv_bpe_run(const struct tokenizer *t, const char *s, size_t n, struct ids *out, struct error *e)
{
    int32_t whole = t->ignore_merges ? gv_trie_find(&t->trie, s, n) : -1;
    if (whole >= 0)
        return gv_ids_put(out, whole) ? GV_OK : gv_tokenizer_no_memory(e);
    struct word w = { .symbol = malloc((n + 1) * sizeof *w.symbol), .heap = malloc((3 * n + 1) * sizeof *w.heap) };
    bool        ok = w.symbol && w.heap && split_word(t, s, n, &w);
    if (ok)
        merge_all(t, &w);
    for (size_t i = 0; ok && i < w.n; i++)
        ok = w.symbol[i].id < 0 || gv_ids_put(out, w.symbol[i].id);
    free(w.symbol);
    free(w.heap);
    return ok ? GV_OK : gv_tokenizer_no_memory(e);
}
