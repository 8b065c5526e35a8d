/* A diffusion transformer: latents, a time and conditions in, velocity out. One file a family; models.c lists them.
 *
 *   open      config and weights bound and checked, nothing uploaded
 *   prepare   everything that stays the same over the steps of a block of frames: rotary tables, embedded text and image, and
 *             every layer's cross-attention keys and values. Lives in the run's scratch
 *   forward   one evaluation of all rows together. Rows are the paths that run side by side: one, or conditional and
 *             unconditional; each has its own text
 *
 * Every token has a time: call->group maps it to an entry of call->time, so that known tokens (t = 0), causal blocks and
 * paths at different times are the same call.
 *
 * Block-causal generation hands the same forward a history: keys and values of the frames before, read by every token, and
 * written by the forward that commits a finished block. */
#ifndef GV_DIFFUSION_DIT_H
#define GV_DIFFUSION_DIT_H

#include "attention/approx.h"
#include "attention/rope.h"
#include "io/json.h"
#include "io/weights.h"

enum { GV_DIT_ROWS = 4 };

struct dit;

struct dit_config {
    int    patch[3];
    int    in_channels, out_channels;
    int    text_dim, image_dim; /* width of text and image features; image_dim 0 = takes no image features */
    int    image_tokens;        /* > 0: so many, with learned positions (FLF2V); 0: any number */
    int    layers, heads, head, width, ffn, freq;
    double eps;
};

/* Features of one row, on the device. */
struct dit_condition {
    struct tensor text;     /* f32 [n, text_dim]: the real rows */
    int           text_len; /* rows after zero padding; n <= text_len. The zero rows are attended too, as Wan does */
    struct tensor image;    /* f32 [m, image_dim] or absent */
};

struct dit_prepared; /* of one family */

/* Keys and values of earlier frames: in cache by (layer, row, KEPT_K and KEPT_V). */
struct dit_history {
    struct cache *cache;
    int64_t       capacity, sink; /* tokens: kept at most; of these never overwritten */
};

/* Keys and values that one forward hands to another, in some layers: context enrichment (ContextFlow, arXiv 2509.17818, which
 * does it in 4 layers of the first half of the steps). The giver's row leaves them behind; every row of the taker reads them
 * beside its own. A step without them passes NULL. Not together with a history. */
struct dit_kv {
    struct cache  *cache;  /* by (layer, 0, KEPT_K and KEPT_V) */
    const uint8_t *layers; /* host [layers]: 1 = in this one; NULL = in all */
    int            row;    /* of the giver's batch */
};

struct dit_call {
    struct tensor             x;    /* f32 [rows, T, H, W, in_channels]: latents with their condition channels */
    struct tensor             v;    /* f32 [rows, T, H, W, out_channels]: written; absent: not wanted */
    const float              *time; /* host [n_times], 0..1000 */
    int                       n_times;
    const int32_t            *group;   /* host [rows * tokens] → time, in the layout's order; NULL = all of time 0 */
    struct attn_approx       *approx;  /* of the self-attention; NULL = exact */
    struct step_cache        *steps;   /* may stand for the blocks (step_cache.h); NULL = they are computed */
    const struct dit_history *history; /* read where given; NULL = none */
    const struct dit_kv      *kv_write, *kv_read; /* NULL: none */
    bool                      commit;  /* keep this forward's own keys and values in the history */
};

struct dit_model {
    const char *name;       /* "wan" */
    const char *class_name; /* what _class_name says in a diffusers config */
    /* config: parsed config.json. Shares the checkpoint. */
    gv_status (*open)(struct dit **out, const struct json_view *config, struct checkpoint *c, struct device *d,
                      enum dtype compute, struct error *e);
    void (*close)(struct dit *m);
    /* Tensors in scratch, below whatever mark the caller sets next; the struct itself is freed by release. NULL on failure. */
    struct dit_prepared *(*prepare)(struct run *r, const struct dit *m, int rows, const struct dit_condition *c,
                                    const struct attn_layout *layout);
    void (*release)(struct dit_prepared *p);
    void (*forward)(struct run *r, const struct dit *m, const struct dit_prepared *p, const struct dit_call *call);
};

/* The common head of every family's struct. */
struct dit {
    const struct dit_model *model;
    struct dit_config       config;
    struct weights         *weights;
};

extern const struct dit_model gv_dit_wan;

#endif
