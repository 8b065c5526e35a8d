/* The two tables that are looked up by the bytes of a text: a trie of pieces, and SentencePiece's charsmap of rewriting rules.
 *
 *     trie       built here. Nodes lie breadth first in one array, so the children of a node are neighbours, ordered by byte,
 *                and a step is a binary search among at most 256
 *     charsmap   comes ready from the file, a Darts double array: unit = offset:22 | shift:1 | leaf:1 | label:8, and a child
 *                at offset ^ byte
 *
 * Surprises: of equal keys the trie keeps the largest id, as a hash map filled in order would. A charsmap is a stranger's:
 * every index is checked on every step, and its strings once, when it is opened.
 * Source: google/sentencepiece src/normalizer.cc and third_party/darts_clone/darts.h; huggingface/spm_precompiled
 * src/lib.rs. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer_impl.h"

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
        work[end++] = (struct trie_work){ from, k, w.depth + 1 };
        t->node[i].n++;
    }
    return end;
}

bool gv_trie_build(struct trie *t, struct trie_key *keys, size_t n_keys)
{
    size_t n = 0, room = 1;
    *t = (struct trie){ 0 }; /* even of no keys it has a root: walks begin there */
    qsort(keys, n_keys, sizeof *keys, compare_keys);
    for (size_t i = 0; i < n_keys; i++)
        if (i + 1 == n_keys || compare_text(&keys[i], &keys[i + 1]) != 0)
            keys[n++] = keys[i];
    for (size_t i = 0; i < n; i++)
        room += keys[i].n;
    struct trie_work *work = malloc(room * sizeof *work);
    t->node = malloc(room * sizeof *t->node);
    if (!work || !t->node) {
        free(work);
        free(t->node);
        t->node = NULL;
        return false;
    }
    t->node[0] = (struct trie_node){ .id = -1 };
    work[0] = (struct trie_work){ 0, (uint32_t)n, 0 };
    uint32_t end = 1;
    for (uint32_t i = 0; i < end; i++)
        end = grow_node(t, work, keys, i, end);
    free(work);
    t->n = end;
    struct trie_node *trim = realloc(t->node, end * sizeof *trim);
    t->node = trim ? trim : t->node;
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
            best = t->node[node].id;
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
    m->unit = data + 4;
    m->n_units = (uint32_t)(trie / 4);
    m->text = (const char *)data + 4 + trie;
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

const char *gv_charsmap_find(const struct charsmap *m, const char *s, size_t n, bool longest, size_t *rule_bytes,
                             size_t *text_bytes)
{
    const char *found = NULL;
    uint32_t    at = m->n_units ? unit_offset(le32(m->unit)) : 0;
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
        found = m->text + value;
        *rule_bytes = i + 1;
        if (!longest)
            break;
    }
    if (found) {
        const char *end = memchr(found, 0, m->text_bytes - (size_t)(found - m->text));
        *text_bytes = end ? (size_t)(end - found) : m->text_bytes - (size_t)(found - m->text);
    }
    return found;
}
