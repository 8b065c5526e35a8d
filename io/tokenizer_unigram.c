/* Unigram: the cut of a text into pieces whose scores add up highest, by a Viterbi search over byte positions. From every
 * position that can be reached, every piece that begins there; where none is a single character, the unknown piece takes that
 * character.
 *
 *     best[i]   score of the best way to byte i, the piece that ends there, where it began; .next: the path forwards, in the end
 *
 * Time is the length of the text times the longest piece that matches, memory 24 bytes a byte of text.
 *
 * Surprises: a better path must be strictly better, so of equals the first found wins: shorter piece, earlier start. Scores are
 * summed as the reference does, in double for tokenizer.json and rounded to float, before they are compared, for spiece.model:
 * near ties decide otherwise. A run of unknown characters is one unknown; for tokenizer.json the fused string is looked up
 * again as a piece.
 * Source: huggingface/tokenizers 3ba8ad0061a8 models/unigram/model.rs; google/sentencepiece 0.2.3 unigram_model.cc. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer_impl.h"

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
    to->from = (int32_t)from;
    to->id = id;
}

/* All pieces that begin at byte i. True if one of them is a single character. */
static bool relax_pieces(const struct tokenizer *t, const char *s, size_t n, size_t i, size_t char_bytes, struct best *best)
{
    bool     single = false;
    uint32_t node = 0;
    for (size_t k = i; k < n && (node = gv_trie_step(&t->trie, node, (uint8_t)s[k])); k++) {
        int32_t id = t->trie.node[node].id;
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
        size_t from = (size_t)best[end].from;
        best[from].next = (int32_t)end;
        end = from;
    }
    return GV_OK;
}

static bool put_bytes(const struct tokenizer *t, const char *s, size_t n, struct ids *out)
{
    for (size_t i = 0; i < n; i++)
        if (!gv_ids_put(out, t->byte_id[(uint8_t)s[i]]))
            return false;
    return true;
}

/* A run of unknown characters. */
static bool put_unknown(const struct tokenizer *t, const char *s, size_t n, struct ids *out)
{
    int32_t whole = t->spm ? -1 : gv_trie_find(&t->trie, s, n);
    if (whole >= 0)
        return gv_ids_put(out, whole);
    return gv_bytes_known(t, s, n) ? put_bytes(t, s, n, out) : gv_ids_put(out, t->unk);
}

gv_status gv_unigram_run(const struct tokenizer *t, const char *s, size_t n, struct ids *out, struct error *e)
{
    struct best *best = malloc((n + 1) * sizeof *best);
    bool         ok = best != NULL;
    gv_status    st = ok ? search(t, s, n, best, e) : GV_OK;
    for (size_t i = 0; ok && st == GV_OK && i < n;) {
        size_t  end = (size_t)best[i].next;
        int32_t id = best[end].id;
        while (id == t->unk && end < n && best[best[end].next].id == t->unk)
            end = (size_t)best[end].next;
        ok = id == t->unk ? put_unknown(t, s + i, end - i, out) : gv_ids_put(out, id);
        i = end;
    }
    free(best);
    return ok ? st : gv_tokenizer_no_memory(e);
}
