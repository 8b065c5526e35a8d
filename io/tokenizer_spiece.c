/* spiece.model: a SentencePiece ModelProto, read field by field from the protobuf wire, and SentencePiece's own normalizer.
 *
 * Of the format's four model types only Unigram is taken. What differs from tokenizer.json made of the same model, and
 * therefore gives other ids for rare texts: charsmap rules match as long as possible, not as short; control, unknown and byte
 * pieces never match text; a user-defined piece always wins; unknown characters become bytes when the model has them; scores
 * add up in float.
 *
 *     ModelProto: 1 pieces { 1 piece, 2 score, 3 type }
 *                 2 trainer { 3 model_type, 24 whitespace as suffix, 35 byte_fallback, 41 bos, 42 eos }
 *                 3 normalizer { 2 charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces }
 *
 * Only </s> is added as a special token, as T5 and UMT5 do: the file does not say what its users add. The 300 sentinels of UMT5
 * are not in this file; callers who want them need the tokenizer.json. Every length is checked against what is left; unknown
 * fields are skipped, groups refused.
 * Source: google/sentencepiece src/{sentencepiece_model.proto, normalizer.cc, unigram_model.cc, model_interface.cc}. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/tokenizer_impl.h"

enum { SPIECE_BYTES = 256 << 20, NO_ID = -1 };
enum piece_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

static const char MARK[] = "\xe2\x96\x81"; /* U+2581, stands for a space */

struct spm {
    struct charsmap map;
    struct trie     user; /* user-defined pieces: never rewritten */
    bool            dummy_prefix, as_suffix, trim, escape;
};

/* ---- protobuf -------------------------------------------------------------------------------------------------------- */

struct wire {
    const uint8_t *p, *end;
    bool           broken;
};
struct field {
    uint32_t       number;
    uint64_t       value; /* of varints and fixed sizes */
    const uint8_t *data;  /* of lengths; NULL otherwise */
    size_t         bytes;
};

static uint64_t varint(struct wire *w)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && w->p < w->end; shift += 7) {
        uint8_t b = *w->p++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    w->broken = true;
    return 0;
}

static uint64_t fixed(struct wire *w, size_t n)
{
    uint64_t v = 0;
    if ((size_t)(w->end - w->p) < n) {
        w->broken = true;
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)w->p[i] << 8 * i;
    w->p += n;
    return v;
}

/* The next field; false at the end, or, with w->broken, where the bytes make no sense. */
static bool next_field(struct wire *w, struct field *f)
{
    if (w->broken || w->p == w->end)
        return false;
    uint64_t tag = varint(w), kind = tag & 7;
    *f = (struct field){ .number = (uint32_t)(tag >> 3) };
    if (kind == 0)
        f->value = varint(w);
    else if (kind == 1 || kind == 5)
        f->value = fixed(w, kind == 1 ? 8 : 4);
    else if (kind == 2) {
        uint64_t n = varint(w);
        if (w->broken || n > (uint64_t)(w->end - w->p)) {
            w->broken = true;
            return false;
        }
        f->data = w->p;
        f->bytes = (size_t)n;
        w->p += n;
    } else
        w->broken = true;
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        w->broken = true;
    return !w->broken;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

struct proto_piece {
    const char     *s;
    size_t          n;
    float           score;
    enum piece_type type;
};
struct proto {
    const char         *file;
    struct error       *e;
    struct proto_piece *piece;
    int32_t             n, room;
    const uint8_t      *charsmap;
    size_t              charsmap_bytes;
    int32_t             model_type, eos;
    bool                byte_fallback, as_suffix, dummy_prefix, trim, escape;
};

static gv_status bad(const struct proto *p, const char *field, const char *why)
{
    return gv_fail(p->e, GV_ERR_MODEL, "%s: %s %s", p->file, field, why);
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static gv_status read_piece(struct proto *p, const uint8_t *data, size_t bytes)
{
    struct wire        w = { data, data + bytes, false };
    struct proto_piece out = { .s = "", .type = NORMAL };
    struct field       f;
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.data) {
            out.s = (const char *)f.data;
            out.n = f.bytes;
        } else if (f.number == 2 && !f.data)
            out.score = float_of((uint32_t)f.value);
        else if (f.number == 3 && !f.data)
            out.type = f.value >= NORMAL && f.value <= BYTE ? (enum piece_type)f.value : 0;
    }
    const char *why = w.broken                                     ? "is broken off or no protobuf"
                      : !out.type                                  ? "has an unknown type"
                      : !out.n || out.n > TOK_PIECE_MAX            ? "is empty or too long"
                      : !gv_utf8_valid(out.s, out.n)               ? "is not UTF-8"
                      : memchr(out.s, 0, out.n)                    ? "holds a NUL"
                      : !(out.score > -1e30f && out.score < 1e30f) ? "has a score that is no number"
                                                                   : NULL;
    if (why)
        return gv_fail(p->e, GV_ERR_MODEL, "%s: pieces[%d] %s", p->file, p->n, why);
    if (p->n == p->room) {
        int32_t             room = p->room * 2 + 1024;
        struct proto_piece *more = p->n < TOK_IDS_MAX ? realloc(p->piece, (size_t)room * sizeof *more) : NULL;
        if (!more)
            return gv_fail(p->e, p->n < TOK_IDS_MAX ? GV_ERR_MEMORY : GV_ERR_MODEL, "%s: too many pieces, or no memory for %d",
                           p->file, room);
        p->piece = more;
        p->room = room;
    }
    p->piece[p->n++] = out;
    return GV_OK;
}

static gv_status read_trainer(struct proto *p, const uint8_t *data, size_t bytes)
{
    struct wire  w = { data, data + bytes, false };
    struct field f;
    while (next_field(&w, &f)) {
        if (f.data)
            continue;
        switch (f.number) {
        case 3: p->model_type = f.value < 100 ? (int32_t)f.value : 100; break;
        case 24: p->as_suffix = f.value != 0; break;
        case 35: p->byte_fallback = f.value != 0; break;
        case 42: p->eos = f.value < TOK_IDS_MAX ? (int32_t)f.value : NO_ID; break;
        default: break;
        }
    }
    return w.broken ? bad(p, "trainer_spec", "is broken off or no protobuf") : GV_OK;
}

static gv_status read_normalizer(struct proto *p, const uint8_t *data, size_t bytes)
{
    struct wire  w = { data, data + bytes, false };
    struct field f;
    while (next_field(&w, &f)) {
        if (f.number == 2 && f.data) {
            p->charsmap = f.data;
            p->charsmap_bytes = f.bytes;
        }
        if (f.data)
            continue;
        switch (f.number) {
        case 3: p->dummy_prefix = f.value != 0; break;
        case 4: p->trim = f.value != 0; break;
        case 5: p->escape = f.value != 0; break;
        default: break;
        }
    }
    return w.broken ? bad(p, "normalizer_spec", "is broken off or no protobuf") : GV_OK;
}

static gv_status read_model(struct proto *p, const char *data, size_t bytes)
{
    static const char *const types[] = { "0", "UNIGRAM", "BPE", "WORD", "CHAR" };
    struct wire              w = { (const uint8_t *)data, (const uint8_t *)data + bytes, false };
    struct field             f;
    while (next_field(&w, &f)) {
        if (!f.data)
            continue;
        if (f.number == 1)
            TRY(read_piece(p, f.data, f.bytes));
        else if (f.number == 2)
            TRY(read_trainer(p, f.data, f.bytes));
        else if (f.number == 3)
            TRY(read_normalizer(p, f.data, f.bytes));
    }
    if (w.broken)
        return bad(p, "the model", "is broken off or no protobuf");
    if (!p->n)
        return bad(p, "pieces", "is empty");
    if (p->model_type != 1)
        return gv_fail(p->e, GV_ERR_MODEL, "%s: trainer_spec.model_type is %s, only UNIGRAM is handled", p->file,
                       p->model_type >= 0 && p->model_type < 5 ? types[p->model_type] : "unknown");
    return GV_OK;
}

/* ---- tables ---------------------------------------------------------------------------------------------------------- */

static gv_status set_byte(struct tokenizer *t, const struct proto *p, int32_t id)
{
    int byte = gv_byte_piece(p->piece[id].s, p->piece[id].n);
    if (byte < 0)
        return gv_fail(p->e, GV_ERR_MODEL, "%s: pieces[%d] is of type BYTE, but not written <0xHH>", p->file, id);
    t->piece[id].byte = (uint8_t)byte;
    t->byte_id[byte] = id;
    return GV_OK;
}

static gv_status set_piece(struct tokenizer *t, const struct proto *p, int32_t id, size_t *used)
{
    static const uint8_t      flags[] = { 0, 0, 0, PIECE_SPECIAL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
    const struct proto_piece *x = &p->piece[id];
    memcpy(t->text + *used, x->s, x->n);
    t->piece[id] = (struct piece){ .s = t->text + *used, .n = (uint32_t)x->n, .flags = flags[x->type] };
    *used += x->n;
    t->score[id] = x->score;
    if (x->type == BYTE)
        return set_byte(t, p, id);
    if (x->type == UNKNOWN && t->unk >= 0)
        return bad(p, "pieces", "has two of type UNKNOWN");
    if (x->type == UNKNOWN)
        t->unk = id;
    return GV_OK;
}

static gv_status fill(struct tokenizer *t, const struct proto *p)
{
    size_t bytes = 0, used = 0;
    float  low = 3.402823466e38f, high = 1.175494351e-38f; /* high starts at FLT_MIN, above every score: the reference does */
    for (int32_t i = 0; i < p->n; i++)
        bytes += p->piece[i].n;
    TRY(gv_tokenizer_reserve(t, p->n, bytes, p->file, p->e));
    t->n_vocab = p->n;
    t->score = malloc((size_t)p->n * sizeof *t->score);
    if (!t->score)
        return gv_fail(p->e, GV_ERR_MEMORY, "%s: no memory for %d scores", p->file, p->n);
    for (int32_t i = 0; i < p->n; i++) {
        TRY(set_piece(t, p, i, &used));
        if (p->piece[i].type != NORMAL)
            continue;
        low = p->piece[i].score < low ? p->piece[i].score : low;
        high = p->piece[i].score > high ? p->piece[i].score : high;
    }
    t->unk_score = (double)(low - 10.0f);
    t->max_score = (double)high;
    t->byte_fallback = p->byte_fallback;
    if (t->unk < 0)
        return bad(p, "pieces", "has none of type UNKNOWN");
    for (int i = 0; i < 256 && p->byte_fallback; i++)
        if (t->byte_id[i] < 0)
            return gv_fail(p->e, GV_ERR_MODEL, "%s: byte_fallback is set, but there is no piece <0x%02X>", p->file,
                           (unsigned)i);
    return GV_OK;
}

/* Tries of what may match text, and of what is never rewritten. The same piece twice is refused: ids would be a matter of
 * chance. */
static gv_status index_pieces(struct tokenizer *t, const struct proto *p)
{
    struct trie_key *keys = malloc((size_t)p->n * sizeof *keys), *user = malloc((size_t)p->n * sizeof *user);
    size_t           n = 0, n_user = 0, left = 0;
    for (int32_t i = 0; keys && user && i < p->n; i++) {
        const struct piece *x = &t->piece[i];
        if (p->piece[i].type == NORMAL || p->piece[i].type == USER_DEFINED || p->piece[i].type == UNUSED)
            keys[n++] = gv_trie_key(x->s, x->n, i);
        if (p->piece[i].type == USER_DEFINED)
            user[n_user++] = gv_trie_key(x->s, x->n, i);
    }
    bool ok = keys && user && gv_trie_build(&t->trie, keys, n) && gv_trie_build(&t->spm->user, user, n_user);
    free(keys);
    free(user);
    if (!ok)
        return gv_fail(p->e, GV_ERR_MEMORY, "%s: no memory for %d pieces", p->file, p->n);
    for (uint32_t i = 0; i < t->trie.n; i++)
        left += t->trie.node[i].id >= 0;
    return left == n ? GV_OK : bad(p, "pieces", "has the same piece twice");
}

static gv_status set_normalizer(struct tokenizer *t, const struct proto *p)
{
    struct spm *s = t->spm;
    s->dummy_prefix = p->dummy_prefix;
    s->as_suffix = p->as_suffix;
    s->trim = p->trim;
    s->escape = p->escape;
    if (!p->charsmap_bytes)
        return GV_OK;
    uint8_t *data = malloc(p->charsmap_bytes);
    if (!data)
        return gv_fail(p->e, GV_ERR_MEMORY, "%s: no memory for %zu bytes", p->file, p->charsmap_bytes);
    memcpy(data, p->charsmap, p->charsmap_bytes);
    const char *why = gv_charsmap_open(&s->map, data, p->charsmap_bytes);
    return why ? bad(p, "normalizer_spec.precompiled_charsmap", why) : GV_OK;
}

static gv_status set_special(struct tokenizer *t, const struct proto *p)
{
    if (p->eos < 0 || p->eos >= p->n || p->piece[p->eos].type != CONTROL)
        return GV_OK; /* a model without an end mark */
    t->after = malloc(sizeof *t->after);
    if (!t->after)
        return gv_fail(p->e, GV_ERR_MEMORY, "%s: no memory", p->file);
    t->after[0] = p->eos;
    t->n_after = 1;
    return GV_OK;
}

static gv_status build(struct tokenizer *t, const struct proto *p)
{
    t->spm = calloc(1, sizeof *t->spm);
    if (!t->spm)
        return gv_fail(p->e, GV_ERR_MEMORY, "%s: no memory", p->file);
    t->model = MODEL_UNIGRAM;
    t->metaspace_decode = true;
    t->keep_first_space = !p->dummy_prefix;
    memcpy(t->replacement, MARK, sizeof MARK);
    TRY(fill(t, p));
    TRY(index_pieces(t, p));
    TRY(set_normalizer(t, p));
    return set_special(t, p);
}

gv_status gv_tokenizer_open_spiece(struct tokenizer *t, const char *path, struct error *e)
{
    /* What proto2 says a missing field means. */
    struct proto p = { .file = path, .e = e, .model_type = 1, .eos = 2, .dummy_prefix = true, .trim = true, .escape = true };
    char        *data = NULL;
    size_t       bytes = 0;
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    TRY(gv_read_file(path, SPIECE_BYTES, &data, &bytes, e));
    gv_status s = read_model(&p, data, bytes);
    if (s == GV_OK)
        s = build(t, &p);
    free(p.piece);
    free(data);
    return s;
}

void gv_spm_free(struct spm **spm)
{
    struct spm *s = *spm;
    if (!s)
        return;
    free(s->map.owned);
    free(s->user.node);
    free(s);
    *spm = NULL;
}

/* ---- normalizing (normalizer.cc) ------------------------------------------------------------------------------------- */

/* What the next few bytes become; *used: how many of them. */
static const char *step(const struct spm *m, const char *s, size_t n, size_t *used, size_t *length)
{
    int         rune;
    const char *text = NULL;
    if (gv_trie_longest(&m->user, s, n, used) < 0)
        text = gv_charsmap_find(&m->map, s, n, true, used, length);
    else {
        *length = *used;
        return s;
    }
    if (text)
        return text;
    gv_rune(s, &rune);
    *used = *length = (size_t)rune;
    return s;
}

static bool put_escaped(const struct spm *m, struct bytes *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool mark = m->escape && s[i] == ' ';
        if (!gv_bytes_put(out, mark ? MARK : s + i, mark ? 3 : 1))
            return false;
    }
    return true;
}

static bool normalize(const struct spm *m, struct bytes *out, const char *s, size_t n)
{
    size_t used, length;
    bool   space = m->trim;
    while (m->trim && n) {
        const char *text = step(m, s, n, &used, &length);
        if (length != 1 || *text != ' ')
            break;
        s += used;
        n -= used;
    }
    if (!n)
        return true;
    if (m->dummy_prefix && !m->as_suffix && !put_escaped(m, out, " ", 1))
        return false;
    while (n) {
        const char *text = step(m, s, n, &used, &length);
        while (space && length && *text == ' ') {
            text++;
            length--;
        }
        if (!put_escaped(m, out, text, length))
            return false;
        if (length)
            space = text[length - 1] == ' ';
        space = space && m->trim;
        s += used;
        n -= used;
    }
    const char *tail = m->escape ? MARK : " ";
    size_t      tail_n = strlen(tail);
    while (m->trim && out->n >= tail_n && memcmp(out->data + out->n - tail_n, tail, tail_n) == 0)
        out->n -= tail_n;
    return !(m->dummy_prefix && m->as_suffix) || put_escaped(m, out, " ", 1);
}

gv_status gv_spm_prepare(const struct tokenizer *t, const char *text, size_t n, struct spans *out, struct error *e)
{
    struct bytes b = { 0 };
    gv_status    st = normalize(t->spm, &b, text, n) ? GV_OK : gv_bytes_failed(&b, e);
    if (st == GV_OK && !gv_spans_text(out, b.data, b.n, true))
        st = gv_bytes_failed(&out->text, e);
    gv_bytes_free(&b);
    return st;
}
