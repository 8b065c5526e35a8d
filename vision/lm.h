/* The decoder of the Qwen family: Qwen2 with grouped queries and multi-axis rotary positions. Tokens in, logits out; keys and
 * values stay in a cache, so that a prompt may come in pieces and text one token at a time. */
#ifndef GV_VISION_LM_H
#define GV_VISION_LM_H

#include "attention/cache.h"
#include "io/json.h"
#include "io/weights.h"
#include "vision/pages.h"
#include "vision/paint.h"
#include "vision/recycle.h"
#include "vision/trace.h"

struct lm_config {
    int    layers, width, heads, kv_heads, head, ffn, vocabulary, longest; /* longest: max_position_embeddings */
    int    section[3];                                                     /* of a head's pairs: turned by t, by h, by w */
    double eps, theta;
    bool   tied; /* logits are products with the embedding */
};

/* Where a token stands. Text has t = h = w. */
struct token_place {
    int32_t t, h, w;
};

struct lm;
/* body: prefix of the decoder's tensors ("model."); head: name of the output matrix, which is not there where tied.
 * tied: what the model's own config says. Errors: MODEL, UNSUPPORTED, MEMORY. */
struct lm_names {
    const char *body, *head;
};
gv_status gv_lm_open(struct lm **out, const struct json_view *config, bool tied, struct checkpoint *c, struct lm_names names,
                     struct device *d, enum dtype compute, struct error *e);
void      gv_lm_close(struct lm **m);

const struct lm_config *gv_lm_config(const struct lm *m);
struct weights         *gv_lm_weights(const struct lm *m);

/* Keys and values of one conversation. Layers behind a drop were given fewer tokens, and keep fewer. */
enum { GV_LM_DROPS = 2 };
struct lm_state {
    struct cache *cache;
    int64_t       length, capacity; /* tokens */
    struct {
        int     layer;       /* the drop takes place before it */
        int64_t total, gone; /* tokens that it will take, and has taken */
    } drop[GV_LM_DROPS];
    int            n_drops; /* in the order of their layers */
    struct recycle recycle; /* for steps of one token; off unless opened, and one of the two at most */
    struct pages   pages;
    /* Attention to pictures (DARA, Chen et al. 2025, arXiv 2507.15807): in the first layers every query's scores of picture tokens
     * times a factor. 0: as 1, not a bit differs */
    double         factor;
    int            factor_layers;
    struct trace  *trace; /* watches the rows that give logits; the caller's, or NULL. Not with drops, recycled keys or pages */
    struct paint  *paint; /* raises scores of those rows; the same holds. */
};
gv_status gv_lm_state_open(struct lm_state *s, struct device *d, int64_t capacity, struct error *e);
void      gv_lm_state_close(struct lm_state *s);
size_t    gv_lm_state_bytes(const struct lm_config *c, int64_t tokens, enum dtype type); /* keys and values of all layers */

/* x f32 [n, width] = rows of the embedding. Fails the run with MODEL on an id outside the vocabulary. */
void gv_lm_embed(struct run *r, const struct lm *m, struct tensor x, const int32_t *ids, int64_t n);
/* Run n more tokens, x [n, width], which is changed, at their places. picture [n]: which are a picture's; NULL: none. logits f32 [1, vocabulary] of the last one, or absent.
 * depth [n]: how many of the state's drops each token outlives, the last one all; NULL: all do.
 * Fails the run with INTERNAL where they do not fit the state's capacity. */
struct lm_tokens {
    struct tensor             x;
    const struct token_place *place;
    const uint8_t            *depth;
    const bool               *picture;
};
void gv_lm_forward(struct run *r, const struct lm *m, struct lm_state *s, struct lm_tokens t, struct tensor logits);

#endif
