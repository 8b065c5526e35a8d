/* Text to ids and back: the part that both file formats share. Tables (trie, charsmap), the two models, the public calls.
 *
 * Unigram is a Viterbi search over byte positions: for every reachable position, every piece that begins there. Scores are summed
 * as the reference does, in double for tokenizer.json (huggingface/tokenizers models/unigram/model.rs) and rounded to float, before
 * they are compared, for spiece.model (google/sentencepiece unigram_model.cc, release 0.2.3): near ties decide otherwise. A better path must be strictly
 * better, so of equals the first found wins: shorter piece, earlier start.
 * BPE is a heap of possible merges over a linked list (models/bpe/word.rs): n log n, not n².
 *
 * Surprises: runs of unknown characters are one unknown; the fused string is looked up again as a piece, as the reference does.
 * A piece of BPE's alphabet that is in no vocabulary vanishes when there is no unk_token. */
#include "io/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utf8proc.h>

#include "io/tokenizer_impl.h"

/* ---- text ------------------------------------------------------------------------------------------------------------ */

static bool bytes_room(struct bytes *b, size_t more)
{
    if (more > TOK_GROWTH_MAX || b->n + more > TOK_GROWTH_MAX) {
        b->grown = true;
        return false;
    }
    if (b->n + more <= b->room)
        return true;
    size_t room = b->n + more + b->room + 64;
    char  *data = realloc(b->data, room);
    if (!data)
        return false;
    b->data = data;
    b->room = room;
    return true;
}

bool gv_bytes_put(struct bytes *b, const void *data, size_t n)
{
    if (!bytes_room(b, n + 1))
        return false;
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = 0;
    return true;
}

bool gv_bytes_rune(struct bytes *b, uint32_t rune)
{
    utf8proc_uint8_t text[4];
    return gv_bytes_put(b, text, (size_t)utf8proc_encode_char((utf8proc_int32_t)rune, text));
}

gv_status gv_bytes_failed(const struct bytes *b, struct error *e)
{
    if (b->grown)
        return gv_fail(e, GV_ERR_ARGUMENT, "the tokenizer's rules make this text longer than %d bytes", TOK_GROWTH_MAX);
    return gv_fail(e, GV_ERR_MEMORY, "no memory for %zu bytes of text", b->n);
}

void gv_bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){ 0 };
}

uint32_t gv_rune(const char *p, int *n)
{
    const uint8_t *s = (const uint8_t *)p;
    if (s[0] < 0x80) {
        *n = 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *n = 2;
        return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    }
    if (s[0] < 0xf0) {
        *n = 3;
        return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    }
    *n = 4;
    return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

bool gv_rune_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Bytes of the character at s, or minus the bytes of the longest prefix of one that it could have been (at least 1). */
static int utf8_step(const uint8_t *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return -1;
    int     want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint8_t lo   = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t hi   = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < want; i++) {
        if ((size_t)i >= n || s[i] < lo || s[i] > hi)
            return -i;
        lo = 0x80;
        hi = 0xbf;
    }
    return want;
}

bool gv_utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int step = utf8_step((const uint8_t *)s + i, n - i);
        if (step < 0)
            return false;
        i += (size_t)step;
    }
    return true;
}

bool gv_utf8_repair(struct bytes *out, const char *s, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        int step = utf8_step((const uint8_t *)s + i, n - i);
        if (step > 0) {
            i += (size_t)step;
            continue;
        }
        if (!gv_bytes_put(out, s + from, i - from) || !gv_bytes_put(out, "\xef\xbf\xbd", 3))
            return false;
        i += (size_t)-step;
        from = i;
    }
    return gv_bytes_put(out, s + from, n - from);
}

/* Stable counting sort of a run of marks by combining class. */
static void sort_marks(utf8proc_int32_t *run, size_t n, utf8proc_int32_t *spare)
{
    size_t at[257] = { 0 };
    for (size_t i = 0; i < n; i++)
        at[(utf8proc_get_property(run[i])->combining_class & 0xff) + 1]++;
    for (int c = 0; c < 256; c++)
        at[c + 1] += at[c];
    for (size_t i = 0; i < n; i++)
        spare[at[utf8proc_get_property(run[i])->combining_class & 0xff]++] = run[i];
    memcpy(run, spare, n * sizeof *run);
}

static void order_marks(utf8proc_int32_t *rune, size_t n, utf8proc_int32_t *spare)
{
    for (size_t i = 0; i < n; i++) {
        size_t end = i;
        while (end < n && utf8proc_get_property(rune[end])->combining_class)
            end++;
        if (end - i > 1)
            sort_marks(rune + i, end - i, spare);
        i = end > i ? end - 1 : i;
    }
}

bool gv_utf8_form(struct bytes *out, const char *s, size_t n, enum normal_form form)
{
    utf8proc_option_t options = UTF8PROC_STABLE | (form == FORM_NFKC || form == FORM_NFKD ? UTF8PROC_COMPAT : 0);
    size_t            ascii   = 0;
    while (ascii < n && (uint8_t)s[ascii] < 0x80)
        ascii++;
    if (ascii == n)
        return gv_bytes_put(out, s, n);
    /* The longest expansion is U+FDFA: 18 runes of 3 bytes. */
    size_t            room = 18 * (n / 3 + 1) + n;
    utf8proc_int32_t *rune = malloc(room * 2 * sizeof *rune);
    size_t            m    = 0;
    bool              ok   = rune != NULL;
    for (size_t i = 0; ok && i < n;) {
        int      step, boundary = 0;
        uint32_t c = gv_rune(s + i, &step);
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)c, rune + m, (utf8proc_ssize_t)(room - m),
                                                     options | UTF8PROC_DECOMPOSE, &boundary);
        ok = k >= 0 && (size_t)k <= room - m;
        m += ok ? (size_t)k : 0;
        i += (size_t)step;
    }
    if (ok) {
        order_marks(rune, m, rune + room);
        if (form == FORM_NFC || form == FORM_NFKC)
            m = (size_t)utf8proc_normalize_utf32(rune, (utf8proc_ssize_t)m, options | UTF8PROC_COMPOSE);
    }
    for (size_t i = 0; ok && i < m; i++)
        ok = gv_bytes_rune(out, (uint32_t)rune[i]);
    free(rune);
    return ok;
}

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

/* ---- trie ------------------------------------------------------------------------------------------------------------ */

struct trie_key gv_trie_key(const char *s, size_t n, int32_t id)
{
    struct trie_key k = { .s = s, .n = (uint32_t)n, .id = id };
    for (size_t i = 0; i < 8; i++)
        k.head = k.head << 8 | (i < n ? (uint8_t)s[i] : 0);
    return k;
}

static int compare_text(const struct trie_key *a, const struct trie_key *b)
{
    if (a->head != b->head)
        return a->head < b->head ? -1 : 1;
    int order = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

static int compare_keys(const void *a, const void *b)
{
    const struct trie_key *x = a, *y = b;
    int                    order = compare_text(x, y);
    return order ? order : (x->id > y->id) - (x->id < y->id);
}

/* Keys each node stands for while the trie grows, breadth first. */
struct trie_work {
    uint32_t lo, hi, depth;
};

/* Children of node i: one per distinct byte at its depth. */
static uint32_t grow_node(struct trie *t, struct trie_work *work, const struct trie_key *keys, uint32_t i, uint32_t end)
{
    struct trie_work w = work[i];
    if (w.lo < w.hi && keys[w.lo].n == w.depth)
        t->node[i].id = keys[w.lo++].id;
    t->node[i].child = end;
    for (uint32_t k = w.lo; k < w.hi;) {
        uint8_t  byte = (uint8_t)keys[k].s[w.depth];
        uint32_t from = k;
        while (k < w.hi && (uint8_t)keys[k].s[w.depth] == byte)
            k++;
        t->node[end] = (struct trie_node){ .id = -1, .byte = byte };
        work[end++]  = (struct trie_work){ from, k, w.depth + 1 };
        t->node[i].n++;
    }
    return end;
}

bool gv_trie_build(struct trie *t, struct trie_key *keys, size_t n_keys)
{
    size_t n = 0, room = 1;
    *t       = (struct trie){ 0 };
    if (!n_keys)
        return true;
    qsort(keys, n_keys, sizeof *keys, compare_keys);
    for (size_t i = 0; i < n_keys; i++)
        if (i + 1 == n_keys || compare_text(&keys[i], &keys[i + 1]) != 0)
            keys[n++] = keys[i];
    for (size_t i = 0; i < n; i++)
        room += keys[i].n;
    struct trie_work *work = malloc(room * sizeof *work);
    t->node                = malloc(room * sizeof *t->node);
    if (!work || !t->node) {
        free(work);
        free(t->node);
        t->node = NULL;
        return false;
    }
    t->node[0]   = (struct trie_node){ .id = -1 };
    work[0]      = (struct trie_work){ 0, (uint32_t)n, 0 };
    uint32_t end = 1;
    for (uint32_t i = 0; i < end; i++)
        end = grow_node(t, work, keys, i, end);
    free(work);
    t->n                   = end;
    struct trie_node *trim = realloc(t->node, end * sizeof *trim);
    t->node                = trim ? trim : t->node;
    return true;
}

uint32_t gv_trie_step(const struct trie *t, uint32_t node, uint8_t byte)
{
    uint32_t lo = t->node[node].child, hi = lo + t->node[node].n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->node[mid].byte == byte)
            return mid;
        if (t->node[mid].byte < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

int32_t gv_trie_find(const struct trie *t, const char *s, size_t n)
{
    uint32_t node = 0;
    if (!t->node)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (!(node = gv_trie_step(t, node, (uint8_t)s[i])))
            return -1;
    return t->node[node].id;
}

int32_t gv_trie_longest(const struct trie *t, const char *s, size_t n, size_t *length)
{
    int32_t  best = -1;
    uint32_t node = 0;
    for (size_t i = 0; t->node && i < n && (node = gv_trie_step(t, node, (uint8_t)s[i])); i++) {
        if (t->node[node].id >= 0) {
            best    = t->node[node].id;
            *length = i + 1;
        }
    }
    return best;
}

/* ---- charsmap -------------------------------------------------------------------------------------------------------- */

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

const char *gv_charsmap_open(struct charsmap *m, uint8_t *data, size_t bytes)
{
    *m = (struct charsmap){ .owned = data };
    if (bytes < 8)
        return "is too short for a table";
    size_t trie = le32(data);
    if (trie % 4 || trie < 4 || trie > bytes - 4)
        return "says its table is longer than it is";
    m->unit       = data + 4;
    m->n_units    = (uint32_t)(trie / 4);
    m->text       = (const char *)data + 4 + trie;
    m->text_bytes = bytes - 4 - trie;
    if (!gv_utf8_valid(m->text, m->text_bytes))
        return "has replacements that are not UTF-8";
    for (uint32_t i = 0; i < m->n_units; i++) {
        uint32_t unit = le32(m->unit + 4 * (size_t)i), value = unit & 0x7fffffff;
        if (unit >> 31 && (value >= m->text_bytes || ((uint8_t)m->text[value] & 0xc0) == 0x80))
            return "points outside its replacements";
    }
    return NULL;
}

const char *gv_charsmap_find(const struct charsmap *m, const char *s, size_t n, bool longest, size_t *rule_bytes, size_t *text_bytes)
{
    const char *found = NULL;
    uint32_t    at    = m->n_units ? unit_offset(le32(m->unit)) : 0;
    for (size_t i = 0; i < n && s[i]; i++) {
        at ^= (uint8_t)s[i];
        if (at >= m->n_units)
            break;
        uint32_t unit = le32(m->unit + 4 * (size_t)at);
        if ((unit & (1u << 31 | 0xff)) != (uint8_t)s[i])
            break;
        at ^= unit_offset(unit);
        if (!(unit >> 8 & 1) || at >= m->n_units)
            continue;
        uint32_t value = le32(m->unit + 4 * (size_t)at) & 0x7fffffff;
        if (value >= m->text_bytes || ((uint8_t)m->text[value] & 0xc0) == 0x80)
            continue;
        found       = m->text + value;
        *rule_bytes = i + 1;
        if (!longest)
            break;
    }
    if (found) {
        const char *end = memchr(found, 0, m->text_bytes - (size_t)(found - m->text));
        *text_bytes     = end ? (size_t)(end - found) : m->text_bytes - (size_t)(found - m->text);
    }
    return found;
}

/* ---- ids ------------------------------------------------------------------------------------------------------------- */

struct ids {
    int32_t *id;
    size_t   n, room;
};

static bool ids_put(struct ids *l, int32_t id)
{
    if (l->n == l->room) {
        size_t   room = l->room * 2 + 256;
        int32_t *more = realloc(l->id, room * sizeof *more);
        if (!more)
            return false;
        l->id   = more;
        l->room = room;
    }
    l->id[l->n++] = id;
    return true;
}

static gv_status no_memory(struct error *e)
{
    return gv_fail(e, GV_ERR_MEMORY, "no memory to tokenize the text");
}

/* Byte fallback takes a string only if every byte of it has a piece. */
static bool bytes_known(const struct tokenizer *t, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!t->byte_fallback || t->byte_id[(uint8_t)s[i]] < 0)
            return false;
    return true;
}

static bool put_bytes(const struct tokenizer *t, const char *s, size_t n, struct ids *out)
{
    for (size_t i = 0; i < n; i++)
        if (!ids_put(out, t->byte_id[(uint8_t)s[i]]))
            return false;
    return true;
}

/* ---- Unigram --------------------------------------------------------------------------------------------------------- */

/* Best way to reach a byte position. next: end of the piece that starts here, once the best path is known. */
struct best {
    double  score;
    int32_t from, id, next;
};

static void relax(const struct tokenizer *t, struct best *to, double score, size_t from, int32_t id)
{
    score = t->spm ? (double)(float)score : score;
    if (to->from >= 0 && !(score > to->score))
        return;
    to->score = score;
    to->from  = (int32_t)from;
    to->id    = id;
}

/* All pieces that begin at byte i. True if one of them is a single character. */
static bool relax_pieces(const struct tokenizer *t, const char *s, size_t n, size_t i, size_t char_bytes, struct best *best)
{
    bool     single = false;
    uint32_t node   = 0;
    for (size_t k = i; k < n && (node = gv_trie_step(&t->trie, node, (uint8_t)s[k])); k++) {
        int32_t id     = t->trie.node[node].id;
        size_t  length = k + 1 - i;
        if (id < 0 || t->piece[id].flags & PIECE_UNUSED)
            continue;
        double score = t->score[id];
        if (t->piece[id].flags & PIECE_USER) /* always wins: SentencePiece adds this bonus */
            score = (double)((float)length * (float)t->max_score) - 0.1;
        relax(t, &best[k + 1], score + best[i].score, i, id);
        single |= length == char_bytes;
    }
    return single;
}

static gv_status search(const struct tokenizer *t, const char *s, size_t n, struct best *best, struct error *e)
{
    for (size_t i = 0; i <= n; i++)
        best[i].from = -1;
    best[0].score = 0;
    for (size_t i = 0; i < n;) {
        int char_bytes;
        gv_rune(s + i, &char_bytes);
        if (!relax_pieces(t, s, n, i, (size_t)char_bytes, best)) {
            if (t->unk < 0)
                return gv_fail(e, GV_ERR_MODEL, "the tokenizer has no piece for part of the text, and no unk_id");
            relax(t, &best[i + (size_t)char_bytes], t->unk_score + best[i].score, i, t->unk);
        }
        i += (size_t)char_bytes;
    }
    for (size_t end = n; end > 0;) {
        size_t from     = (size_t)best[end].from;
        best[from].next = (int32_t)end;
        end             = from;
    }
    return GV_OK;
}

/* A run of unknown characters. */
static bool put_unknown(const struct tokenizer *t, const char *s, size_t n, struct ids *out)
{
    int32_t whole = t->spm ? -1 : gv_trie_find(&t->trie, s, n);
    if (whole >= 0)
        return ids_put(out, whole);
    return bytes_known(t, s, n) ? put_bytes(t, s, n, out) : ids_put(out, t->unk);
}

static gv_status unigram(const struct tokenizer *t, const char *s, size_t n, struct ids *out, struct error *e)
{
    struct best *best = malloc((n + 1) * sizeof *best);
    bool         ok   = best != NULL;
    gv_status    st   = ok ? search(t, s, n, best, e) : GV_OK;
    for (size_t i = 0; ok && st == GV_OK && i < n;) {
        size_t  end = (size_t)best[i].next;
        int32_t id  = best[end].id;
        while (id == t->unk && end < n && best[best[end].next].id == t->unk)
            end = (size_t)best[end].next;
        ok = id == t->unk ? put_unknown(t, s + i, end - i, out) : ids_put(out, id);
        i  = end;
    }
    free(best);
    return ok ? st : no_memory(e);
}

/* ---- BPE ------------------------------------------------------------------------------------------------------------- */

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
        i          = child;
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
        s->id   = c.id;
        s->next = r->next;
        r->id   = -1;
        if (s->next >= 0)
            w->symbol[s->next].prev = c.at;
        if (s->prev >= 0)
            consider(t, w, s->prev);
        consider(t, w, c.at);
    }
}

static void add_symbol(struct word *w, int32_t id)
{
    int32_t i    = (int32_t)w->n++;
    w->symbol[i] = (struct symbol){ id, i - 1, -1 };
    if (i)
        w->symbol[i - 1].next = i;
}

/* The letter at s with the word's prefix and suffix where they apply: looked up, or -1. */
static int32_t letter_id(const struct tokenizer *t, const char *s, size_t n, bool first, bool last, struct bytes *spare, bool *ok)
{
    if (!(t->word_prefix && !first) && !(t->word_suffix && last))
        return gv_trie_find(&t->trie, s, n);
    spare->n = 0;
    *ok      = (first || !t->word_prefix || gv_bytes_put(spare, t->word_prefix, strlen(t->word_prefix))) &&
          gv_bytes_put(spare, s, n) &&
          (!last || !t->word_suffix || gv_bytes_put(spare, t->word_suffix, strlen(t->word_suffix)));
    return *ok ? gv_trie_find(&t->trie, spare->data, spare->n) : -1;
}

/* Letters of the word as symbols. The order of unknowns and byte fallbacks is the reference's: an unknown waits until a known letter
 * or the end. */
static bool split_word(const struct tokenizer *t, const char *s, size_t n, struct word *w)
{
    struct bytes spare   = { 0 };
    bool         waiting = false, ok = true;
    for (size_t i = 0; ok && i < n;) {
        int length;
        gv_rune(s + i, &length);
        bool    last = i + (size_t)length == n;
        int32_t id   = letter_id(t, s + i, (size_t)length, i == 0, last, &spare, &ok);
        if (id >= 0) {
            if (waiting)
                add_symbol(w, t->unk);
            waiting = false;
            add_symbol(w, id);
        } else if (bytes_known(t, s + i, (size_t)length)) {
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

static gv_status bpe(const struct tokenizer *t, const char *s, size_t n, struct ids *out, struct error *e)
{
    int32_t whole = t->ignore_merges ? gv_trie_find(&t->trie, s, n) : -1;
    if (whole >= 0)
        return ids_put(out, whole) ? GV_OK : no_memory(e);
    struct word w  = { .symbol = malloc((n + 1) * sizeof *w.symbol), .heap = malloc((3 * n + 1) * sizeof *w.heap) };
    bool        ok = w.symbol && w.heap && split_word(t, s, n, &w);
    if (ok)
        merge_all(t, &w);
    for (size_t i = 0; ok && i < w.n; i++)
        ok = w.symbol[i].id < 0 || ids_put(out, w.symbol[i].id);
    free(w.symbol);
    free(w.heap);
    return ok ? GV_OK : no_memory(e);
}

/* ---- encode ---------------------------------------------------------------------------------------------------------- */

static gv_status run_model(const struct tokenizer *t, const struct spans *spans, struct ids *out, struct error *e)
{
    for (size_t i = 0; i < spans->n; i++) {
        const struct span *s = &spans->span[i];
        const char        *p = spans->text.data + s->at;
        if (s->id >= 0) {
            if (!ids_put(out, s->id))
                return no_memory(e);
        } else if (t->model == MODEL_UNIGRAM) {
            TRY(unigram(t, p, s->n, out, e));
        } else {
            TRY(bpe(t, p, s->n, out, e));
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

gv_status gv_tokenizer_encode(const struct tokenizer *t, const char *text, bool add_special, int32_t *ids, int max, int *n, int *cut,
                              struct error *e)
{
    size_t length  = strlen(text);
    int    special = add_special ? t->n_before + t->n_after : 0;
    *n             = 0;
    if (length > GV_TEXT_BYTES)
        return gv_fail(e, GV_ERR_ARGUMENT, "the text has %zu bytes, at most %d are taken", length, GV_TEXT_BYTES);
    if (max < special)
        return gv_fail(e, GV_ERR_ARGUMENT, "room for %d ids, but the tokenizer alone adds %d", max, special);
    struct bytes clean = { 0 };
    struct spans spans = { 0 };
    struct ids   list  = { 0 };
    gv_status    s     = gv_utf8_repair(&clean, text, length) ? GV_OK : gv_bytes_failed(&clean, e);
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

/* ---- decode ---------------------------------------------------------------------------------------------------------- */

/* Byte behind a letter of GPT-2's byte alphabet, or -1. */
static int letter_byte(uint32_t c)
{
    if ((c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff))
        return (int)c;
    if (c < 0x100 || c >= 0x144)
        return -1;
    int k = (int)c - 0x100; /* the 68 others in order: 0-32, 127-160, 173 */
    return k < 33 ? k : k < 67 ? k - 33 + 127 : 173;
}

static bool decode_letters(struct bytes *out, const char *s, size_t n)
{
    size_t from = out->n;
    int    length;
    for (size_t i = 0; i < n; i += (size_t)length) {
        int byte = letter_byte(gv_rune(s + i, &length));
        if (byte < 0) { /* not of the alphabet: the piece stands for itself */
            out->n = from;
            return gv_bytes_put(out, s, n);
        }
        if (!gv_bytes_put(out, &(char){ (char)byte }, 1))
            return false;
    }
    return true;
}

/* A piece in which the replacement mark stands for a space; the text's first one is dropped. */
static bool decode_marks(const struct tokenizer *t, struct bytes *out, const char *s, size_t n, bool first)
{
    size_t mark = strlen(t->replacement);
    for (size_t i = 0; i < n;) {
        bool is_mark = mark && n - i >= mark && memcmp(s + i, t->replacement, mark) == 0;
        bool drop    = is_mark && first && !t->keep_first_space && (i == 0 || !t->spm);
        if (!drop && !gv_bytes_put(out, is_mark ? " " : s + i, 1))
            return false;
        i += is_mark ? mark : 1;
    }
    return true;
}

static bool decode_piece(const struct tokenizer *t, struct bytes *out, const struct piece *p, bool first)
{
    if (t->byte_level)
        return decode_letters(out, p->s, p->n);
    if (t->metaspace_decode)
        return decode_marks(t, out, p->s, p->n, first);
    return gv_bytes_put(out, p->s, p->n);
}

/* A run of byte pieces: characters where they are some, else one U+FFFD a byte (tokenizers: for the whole run). */
static bool decode_bytes(const struct tokenizer *t, struct bytes *out, const struct bytes *run)
{
    bool whole = gv_utf8_valid(run->data ? run->data : "", run->n);
    for (size_t i = 0; i < run->n;) {
        int  step = utf8_step((const uint8_t *)run->data + i, run->n - i);
        bool good = step > 0 && (whole || t->spm);
        if (!gv_bytes_put(out, good ? run->data + i : "\xef\xbf\xbd", good ? (size_t)step : 3))
            return false;
        i += good ? (size_t)step : 1;
    }
    return true;
}

static bool decode_all(const struct tokenizer *t, const int32_t *ids, int n, struct bytes *out, struct bytes *run)
{
    bool first = true, ok = true;
    for (int i = 0; ok && i < n; i++) {
        const struct piece *p = ids[i] >= 0 && ids[i] < t->n_pieces ? &t->piece[ids[i]] : NULL;
        if (!p || !p->s || p->flags & PIECE_SPECIAL)
            continue;
        if (p->flags & PIECE_BYTE && t->byte_fallback) {
            ok = gv_bytes_put(run, &(char){ (char)p->byte }, 1);
        } else {
            ok     = decode_bytes(t, out, run) && decode_piece(t, out, p, first);
            run->n = 0;
        }
        first = false;
    }
    return ok && decode_bytes(t, out, run);
}

char *gv_tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n)
{
    struct bytes raw = { 0 }, run = { 0 }, out = { 0 };
    bool         ok = decode_all(t, ids, n, &raw, &run) && gv_utf8_repair(&out, raw.data ? raw.data : "", raw.n);
    gv_bytes_free(&raw);
    gv_bytes_free(&run);
    if (!ok)
        gv_bytes_free(&out);
    return out.data;
}

/* ---- open, close, look up -------------------------------------------------------------------------------------------- */

gv_status gv_tokenizer_reserve(struct tokenizer *t, int32_t n, size_t bytes, const char *file, struct error *e)
{
    if (bytes > TOK_BYTES_MAX)
        return gv_fail(e, GV_ERR_MODEL, "%s: pieces of %zu bytes, at most %d are taken", file, bytes, TOK_BYTES_MAX);
    t->text  = malloc(bytes + 1);
    t->piece = calloc((size_t)n + 1, sizeof *t->piece);
    if (!t->text || !t->piece)
        return gv_fail(e, GV_ERR_MEMORY, "%s: no memory for %d pieces", file, n);
    t->n_pieces = n;
    return GV_OK;
}

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
    *out             = NULL;
    e                = e ? e : &own;
    if (e->code != GV_OK)
        return e->code;
    TRY(find_file(path, file, sizeof file, e));
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return gv_fail(e, GV_ERR_MEMORY, "%s: no memory", file);
    size_t    n      = strlen(file);
    bool      spiece = n >= 6 && strcmp(file + n - 6, ".model") == 0;
    t->unk           = -1;
    gv_status s      = spiece ? gv_tokenizer_open_spiece(t, file, e) : gv_tokenizer_open_json(t, file, e);
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
