/* What every family does alike: where the tokens of a prompt stand, the prompt with features in place of its placeholders through
 * the decoder, one token more. */
#include "vision/vlm.h"

#include <stdlib.h>

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

void gv_vlm_prefill(struct run *r, const struct vlm *v, struct vlm_state *s, const struct vlm_prompt *p, struct tensor logits)
{
    struct token_place *place = malloc((size_t)p->n * sizeof *place);
    gv_run_enter(r, "prompt");
    if (!place)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the positions of %lld tokens", (long long)p->n);
    else if (gv_run_ready(r))
        gv_vlm_places(v, p, place, &s->next, &r->err);
    for (int64_t at = 0, n; at < p->n && gv_run_ready(r); at += n) {
        n = p->n - at < GV_PREFILL ? p->n - at : GV_PREFILL;
        struct mark   mark = arena_mark(&r->scratch);
        struct tensor x = gv_scratch(r, GV_F32, 2, DIMS(n, v->width));
        fill_rows(r, v, p, at, x);
        gv_lm_forward(r, v->lm, &s->lm, x, place + at, at + n == p->n ? logits : (struct tensor){ 0 });
        arena_release(&r->scratch, mark);
    }
    free(place);
}

void gv_vlm_step(struct run *r, const struct vlm *v, struct vlm_state *s, int32_t id, struct tensor logits)
{
    const struct token_place place = { s->next, s->next, s->next };
    struct mark              mark = arena_mark(&r->scratch);
    struct tensor            x = gv_scratch(r, GV_F32, 2, DIMS(1, v->width));
    gv_lm_embed(r, v->lm, x, &id, 1);
    gv_lm_forward(r, v->lm, &s->lm, x, &place, logits);
    if (gv_run_ready(r))
        s->next++;
    arena_release(&r->scratch, mark);
}
