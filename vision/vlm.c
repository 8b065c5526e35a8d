/* What every family does alike: where the tokens of a prompt stand, a prompt with fewer picture tokens, the prompt with features in
 * place of its placeholders through the decoder, one token more. */
#include "vision/vlm.h"

#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"

static bool is_placeholder(const struct vlm *v, int32_t id)
{
    return id == v->image_id || id == v->video_id;
}

gv_status gv_vlm_places(const struct vlm *v, const struct vlm_prompt *p, struct token_place *place, int32_t *next,
                        struct error *e)
{
    int media = 0;
    *next = 0;
    for (int64_t i = 0; i < p->n;) {
        if (!is_placeholder(v, p->ids[i])) {
            place[i++] = (struct token_place){ *next, *next, *next };
            (*next)++;
            continue;
        }
        int64_t run = i, want = media < p->n_media ? p->media[media].tokens : 0;
        while (run < p->n && run - i < want && p->ids[run] == (p->media[media].video ? v->video_id : v->image_id))
            run++;
        if (!want || run - i != want)
            return gv_fail(e, GV_ERR_INTERNAL, "the prompt has %lld placeholders for picture %d, which has %lld tokens",
                           (long long)(run - i), media + 1, (long long)want);
        *next = v->model->place(v, &p->media[media++], *next, place + i) + 1;
        i = run;
    }
    if (media != p->n_media)
        return gv_fail(e, GV_ERR_INTERNAL, "the prompt has places for %d of %d pictures", media, p->n_media);
    return GV_OK;
}

/* Rows [from, from + n of x) of the prompt: of the embedding, or of the features where placeholders stand. */
static void fill_rows(struct run *r, const struct vlm *v, const struct vlm_prompt *p, int64_t from, struct tensor x)
{
    const int64_t to = from + x.dim[0];
    int64_t       at = 0;
    gv_lm_embed(r, v->lm, x, p->ids + from, x.dim[0]);
    for (int i = 0; i < p->n_media && gv_run_ready(r); i++) {
        while (!is_placeholder(v, p->ids[at]))
            at++;
        const int64_t end = at + p->features[i].dim[0], lo = at > from ? at : from, hi = end < to ? end : to;
        if (lo < hi)
            gv_copy(r, slice(x, 0, lo - from, hi - lo), slice(p->features[i], 0, lo - at, hi - lo));
        at = end;
    }
}

/* Places, and how much the layers behind each drop will have. */
static void begin(struct run *r, const struct vlm *v, struct vlm_state *s, const struct vlm_prompt *p,
                  struct token_place *place)
{
    if (!p->place) {
        gv_vlm_places(v, p, place, &s->next, &r->err);
        return;
    }
    memcpy(place, p->place, (size_t)p->n * sizeof *place);
    s->next = p->next;
    s->lm.n_drops = GV_LM_DROPS;
    for (int d = 0; d < GV_LM_DROPS; d++) {
        s->lm.drop[d].layer = gv_prune_layer(d, gv_lm_config(v->lm)->layers);
        for (int64_t i = 0; i < p->n; i++)
            s->lm.drop[d].total += p->depth[i] == d;
    }
}

void gv_vlm_prefill(struct run *r, const struct vlm *v, struct vlm_state *s, const struct vlm_prompt *p, struct tensor logits)
{
    struct token_place *place = malloc((size_t)p->n * sizeof *place);
    bool               *picture = malloc((size_t)p->n * sizeof *picture);
    gv_run_enter(r, "prompt");
    for (int64_t i = 0; picture && i < p->n; i++)
        picture[i] = is_placeholder(v, p->ids[i]);
    if (!place || !picture)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the positions of %lld tokens", (long long)p->n);
    else if (gv_run_ready(r))
        begin(r, v, s, p, place);
    for (int64_t at = 0, n; at < p->n && gv_run_ready(r); at += n) {
        n = p->n - at < GV_PREFILL ? p->n - at : GV_PREFILL;
        struct mark            mark = arena_mark(&r->scratch);
        const struct lm_tokens t = { gv_scratch(r, GV_F32, 2, DIMS(n, v->width)), place + at, p->depth ? p->depth + at : NULL,
                                     picture + at };
        fill_rows(r, v, p, at, t.x);
        gv_lm_forward(r, v->lm, &s->lm, t, at + n == p->n ? logits : (struct tensor){ 0 });
        arena_release(&r->scratch, mark);
    }
    free(place);
    free(picture);
}

void gv_vlm_step(struct run *r, const struct vlm *v, struct vlm_state *s, int32_t id, struct tensor logits)
{
    const struct token_place place = { s->next, s->next, s->next };
    struct mark              mark = arena_mark(&r->scratch);
    const struct lm_tokens   t = { gv_scratch(r, GV_F32, 2, DIMS(1, v->width)), &place, NULL, NULL };
    gv_lm_embed(r, v->lm, t.x, &id, 1);
    gv_lm_forward(r, v->lm, &s->lm, t, logits);
    if (gv_run_ready(r))
        s->next++;
    arena_release(&r->scratch, mark);
}

/* ---- pruning ---- */

/* The features of what is left: sums of the old ones. */
static struct tensor fewer_features(struct run *r, const struct pruned *p, struct tensor old)
{
    const int64_t D = old.dim[1];
    struct tensor made = gv_scratch(r, GV_F32, 2, DIMS(p->n, D));
    if (!gv_run_ready(r) || gv_device_is_null(r->device))
        return made;
    float *from = malloc((size_t)((old.dim[0] + p->n) * D) * sizeof *from), *to = from + old.dim[0] * D;
    if (!from) {
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for %lld features", (long long)old.dim[0]);
        return made;
    }
    gv_download(r, from, old);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t k = 0; k < D; k++) {
            const int32_t first = p->first[i];
            float         sum = p->weight[first] * from[p->member[first] * D + k];
            for (int32_t m = first + 1; m < p->first[i + 1]; m++)
                sum += p->weight[m] * from[p->member[m] * D + k];
            to[i * D + k] = sum;
        }
    gv_upload(r, made, to);
    gv_sync(r);
    free(from);
    return made;
}

/* Where the whole prompt's tokens stand, and room for what will be left of them. */
static bool take_room(struct run *r, const struct vlm *v, struct vlm_pruned *out, const struct vlm_prompt *p,
                      struct token_place **place, float **score)
{
    const size_t n = (size_t)p->n;
    out->ids = malloc(n * sizeof *out->ids);
    out->place = malloc(n * sizeof *out->place);
    out->depth = malloc(n);
    out->features = calloc((size_t)p->n_media, sizeof *out->features);
    out->media = calloc((size_t)p->n_media, sizeof *out->media);
    *place = malloc(n * sizeof **place);
    *score = malloc(n * sizeof **score);
    if (out->ids && out->place && out->depth && out->features && out->media && *place && *score)
        return !gv_vlm_places(v, p, *place, &out->prompt.next, &r->err);
    gv_run_fail(r, GV_ERR_MEMORY, "no memory to prune %lld tokens", (long long)p->n);
    return false;
}

/* score, depth: of picture tokens, at their places in the new prompt. */
static void set_depths(struct run *r, struct vlm_pruned *out, const struct vlm *v, const struct prune_opts *o,
                       const float *score)
{
    const int64_t n = out->prompt.n, pictures = out->tokens[1];
    float        *of = malloc((size_t)(pictures + 1) * sizeof *of);
    uint8_t      *depth = malloc((size_t)(pictures + 1));
    int64_t       k = 0;
    for (int64_t i = 0; of && i < n; i++)
        if (is_placeholder(v, out->ids[i]))
            of[k++] = score[i];
    if (!of || !depth)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory to prune %lld tokens", (long long)n);
    else if (!gv_prune_depth(depth, o, of, pictures, &r->err))
        for (int64_t i = k = 0; i < n; i++)
            out->depth[i] = is_placeholder(v, out->ids[i]) ? depth[k++] : GV_LM_DROPS;
    for (int d = 0; depth && d < GV_PRUNE_DROPS; d++) {
        out->tokens[2 + d] = out->tokens[1 + d];
        for (int64_t i = 0; i < pictures && gv_run_ready(r); i++)
            out->tokens[2 + d] -= depth[i] == d;
    }
    free(of);
    free(depth);
}

void gv_vlm_prune(struct run *r, const struct vlm *v, struct vlm_pruned *out, const struct vlm_prompt *p,
                  const struct prune_opts *o, const float *const *score)
{
    struct token_place *place = NULL;
    float              *new_score = NULL;
    int64_t             n = 0;
    *out = (struct vlm_pruned){ 0 };
    if (gv_run_ready(r) && take_room(r, v, out, p, &place, &new_score)) {
        int media = 0;
        for (int64_t i = 0; i < p->n && gv_run_ready(r);) {
            struct pruned left = { 0 };
            if (!is_placeholder(v, p->ids[i])) {
                out->ids[n] = p->ids[i];
                out->place[n++] = place[i++];
                continue;
            }
            out->media[media] = p->media[media];
            const int64_t all = p->media[media].tokens;
            if (!gv_prune(&left, o, &p->media[media].lattice, score ? score[media] : NULL, all, &r->err)) {
                out->features[media] = fewer_features(r, &left, p->features[media]);
                for (int64_t k = 0; k < left.n; k++) {
                    out->ids[n] = p->ids[i];
                    new_score[n] = left.score[k];
                    out->place[n++] = place[i + left.place[k]];
                }
                out->tokens[0] += all;
                out->tokens[1] += left.n;
                out->media[media++].tokens = left.n;
            }
            gv_pruned_free(&left);
            i += all;
        }
        const int32_t next = out->prompt.next;
        out->prompt = (struct vlm_prompt){ out->ids, n, out->media, out->features, p->n_media, out->place, out->depth, next };
        if (gv_run_ready(r))
            set_depths(r, out, v, o, new_score);
    }
    free(place);
    free(new_score);
}

void gv_vlm_pruned_free(struct vlm_pruned *p)
{
    free(p->ids);
    free(p->place);
    free(p->depth);
    free(p->features);
    free(p->media);
    *p = (struct vlm_pruned){ 0 };
}
