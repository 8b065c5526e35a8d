#include "tests/diffusion/dit_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct look {
    struct model_case *c;
    const char        *side;
    int                compared;
};

/* Our tap's name → the golden's. False where there is none. */
static bool golden_name(const struct look *l, const char *tap, char *out, size_t size)
{
    int  block;
    char part[32];
    if (sscanf(tap, "blocks.%d.%31s", &block, part) == 2)
        snprintf(out, size, strcmp(part, "out") ? "%s.block%d.%s" : "%s.block%d", l->side, block, part);
    else
        snprintf(out, size, "%s.%s", l->side, strrchr(tap, '.') ? strrchr(tap, '.') + 1 : tap);
    return golden_has(&l->c->golden, out);
}

static void compare(void *user, struct run *r, const char *tap, struct tensor x)
{
    struct look *l = user;
    char         name[64], error[96], number[128];
    if (!golden_name(l, tap, name, sizeof name))
        return;
    l->compared++;
    snprintf(error, sizeof error, "%s", name);
    if (strstr(name, "block"))
        snprintf(error, sizeof error, "whole.%s", name);
    snprintf(number, sizeof number, "bf16_error.%s", error);
    if (!case_is_f32(l->c) && !golden_has(&l->c->golden, number))
        return; /* no measure stored: only self and cross inside block 0 */
    float *ours = case_download(r, x);
    case_compare(l->c, name, ours, name, error);
    free(ours);
}

/* The distinct times and each token's place among them: what the engine is told. */
static int times_of(const struct golden *g, const char *side, int64_t tokens, float *time, int32_t *group)
{
    char    name[64];
    int64_t n;
    int     count = 0;
    snprintf(name, sizeof name, "%s.t", side);
    const float *t = golden_get(g, name, &n);
    snprintf(name, sizeof name, "%s.groups", side);
    if (golden_has(g, name)) {
        int64_t      groups;
        const float *stored = golden_get(g, name, &groups);
        for (count = 0; count < groups; count++)
            time[count] = stored[count];
    } else {
        time[count++] = t[0];
    }
    for (int64_t i = 0; i < tokens; i++)
        for (int k = 0; k < count; k++)
            if (time[k] == t[n == 1 ? 0 : i])
                group[i] = k;
    return count;
}

static void forward(struct model_case *c, const struct dit *m, const struct dit_side *s)
{
    const struct golden     *g = &c->golden;
    const struct dit_config *k = &m->config;
    char                     name[64];
    int64_t                  n, tokens = s->T * s->h / 2 * (s->w / 2);
    float                    time[8];
    int32_t                 *group = calloc((size_t)tokens, sizeof *group);
    struct look              look = { c, s->name, 0 };
    struct tap               tap = { compare, &look };
    struct run              *r = &c->run;
    struct mark              mark = arena_mark(&r->scratch);
    struct dit_condition     cond = { .text_len = s->text_len };
    snprintf(name, sizeof name, "%s.text", s->inputs);
    const float *text = golden_get(g, name, &n);
    cond.text = case_upload(c, 2, DIMS(n / k->text_dim, k->text_dim), text);
    snprintf(name, sizeof name, "%s.image", s->inputs);
    if (k->image_dim) {
        const float *image = golden_get(g, name, &n);
        cond.image = case_upload(c, 2, DIMS(n / k->image_dim, k->image_dim), image);
    }
    snprintf(name, sizeof name, "%s.x", s->inputs);
    const float *x = golden_get(g, name, &n);
    float       *last = malloc((size_t)n * sizeof *last);
    channels_last(last, x, k->in_channels, s->T, s->h, s->w);
    struct dit_call    call = { .x = case_upload(c, 5, DIMS(1, s->T, s->h, s->w, k->in_channels), last),
                                .v = gv_scratch(r, GV_F32, 5, DIMS(1, s->T, s->h, s->w, k->out_channels)),
                                .time = time,
                                .n_times = times_of(g, s->name, tokens, time, group) };
    struct attn_layout grid;
    call.group = call.n_times > 1 ? group : NULL;
    r->tap = &tap;
    assert_int_equal(gv_layout_grid(&grid, 0, (int)s->T, (int)s->h / 2, (int)s->w / 2, &c->error), GV_OK);
    struct dit_prepared *p = m->model->prepare(r, m, 1, &cond, &grid);
    assert_non_null(p);
    m->model->forward(r, m, p, &call);
    r->tap = NULL;
    float *v = case_download(r, call.v), *first = malloc((size_t)gv_tensor_count(call.v) * sizeof *first);
    channels_first(first, v, k->out_channels, s->T, s->h, s->w);
    char out[64], error[96];
    snprintf(out, sizeof out, "%s.out", s->name);
    snprintf(error, sizeof error, "whole.%s.out", s->name);
    case_compare(c, out, first, out, error);
    assert_true(look.compared > 0 || !strcmp(s->name, "c")); /* of some c only the output is stored */
    m->model->release(p);
    gv_layout_free(&grid);
    free(first);
    free(v);
    free(last);
    free(group);
    arena_release(&r->scratch, mark);
}

void dit_case_run(const char *name, const char *precision, enum dtype weights, bool stream, const struct dit_side *sides, int n)
{
    struct model_case c;
    struct dit       *m;
    case_open(&c, name, precision, weights);
    gv_dit_open(&m, c.folder, c.device, c.run.compute, &c.error);
    assert_string_equal(c.error.text, "");
    assert_int_equal(gv_weights_pin(m->weights, c.device, stream, &c.error), GV_OK);
    c.run.stream_weights = stream;
    for (int i = 0; i < n; i++)
        forward(&c, m, &sides[i]);
    gv_weights_unpin(m->weights, c.device, stream, true);
    m->model->close(m);
    case_close(&c);
}
