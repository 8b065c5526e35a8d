/* The table of pieces, how a piece spells bytes, and from there the way back from ids to text.
 *
 *     <0xE2>   one byte, where the model has byte fallback
 *     ĠâĢĵ     GPT-2's alphabet: a letter for each of the 256 bytes. Both directions stand here, so that they stay inverse
 *     ▁a       a mark that stands for a space
 *
 * Surprises: what comes back from ids is shown to people, so it is mended to valid UTF-8; a run of byte pieces that is no UTF-8
 * is wholly U+FFFD for tokenizer.json, and byte by byte for spiece.model. A piece with a letter outside GPT-2's alphabet stands
 * for itself.
 * Source: huggingface/tokenizers 3ba8ad0061a8 decoders/, pre_tokenizers/byte_level.rs; google/sentencepiece
 * sentencepiece_processor.cc. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer_impl.h"

/* ---- table ----------------------------------------------------------------------------------------------------------- */

gv_status gv_tokenizer_reserve(struct tokenizer *t, int32_t n, size_t bytes, const char *file, struct error *e)
{
    if (bytes > TOK_BYTES_MAX)
        return gv_fail(e, GV_ERR_MODEL, "%s: pieces of %zu bytes, at most %d are taken", file, bytes, TOK_BYTES_MAX);
    t->text = malloc(bytes + 1);
    t->piece = calloc((size_t)n + 1, sizeof *t->piece);
    if (!t->text || !t->piece)
        return gv_fail(e, GV_ERR_MEMORY, "%s: no memory for %d pieces", file, n);
    t->n_pieces = n;
    return GV_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int gv_byte_piece(const char *s, size_t n)
{
    bool ok = n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>';
    int  hi = ok ? hex_digit(s[3]) : -1, lo = ok ? hex_digit(s[4]) : -1;
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

bool gv_bytes_known(const struct tokenizer *t, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!t->byte_fallback || t->byte_id[(uint8_t)s[i]] < 0)
            return false;
    return true;
}

/* ---- GPT-2's alphabet ------------------------------------------------------------------------------------------------- */

uint32_t gv_byte_letter(uint8_t b)
{
    if ((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
        return b;
    return 0x100u + (b < 33 ? b : b == 173 ? 67u : b - 127u + 33u);
}

int gv_letter_byte(uint32_t c)
{
    if ((c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff))
        return (int)c;
    if (c < 0x100 || c >= 0x144)
        return -1;
    int k = (int)c - 0x100; /* the 68 others in order: 0-32, 127-160, 173 */
    return k < 33 ? k : k < 67 ? k - 33 + 127 : 173;
}

/* ---- ids to text ----------------------------------------------------------------------------------------------------- */

static bool decode_letters(struct bytes *out, const char *s, size_t n)
{
    size_t from = out->n;
    int    length;
    for (size_t i = 0; i < n; i += (size_t)length) {
        int byte = gv_letter_byte(gv_rune(s + i, &length));
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
        bool drop = is_mark && first && !t->keep_first_space && (i == 0 || !t->spm);
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
        int  step = gv_utf8_step((const uint8_t *)run->data + i, run->n - i);
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
            ok = decode_bytes(t, out, run) && decode_piece(t, out, p, first);
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
