/* What would surprise you: how many tokens the first stage leaves depends on how many cells have one to give, so the published shares
 * (.5008, .2507, .1000) are of the formula, which counts every cell. Where the first stage keeps all nothing is united either,
 * though the formula would: a budget of all the tokens is the whole prompt. Of equal scores the earlier token goes first. Rounding is
 * Python's, halves to even. */
#include "vision/prune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- settings ---- */

static const struct {
    const char       *name;
    struct prune_opts opts;
} presets[] = {
    { "50", { { 28.683047941520474, 0 }, { 0.7233201448753168, 0.748747637472693, 0.487 }, 11.756787150848968 } },
    { "25", { { 34.759552803070484, 0 }, { 0.2651026358526424, 0.9833433139039235, 0.8773258179532721 }, 15.580797034937687 } },
    { "10", { { 39.26492840997221, 0 }, { 0.11661529508161146, 1.0, 0.6011 }, 17.386981849158786 } },
};
enum { PRESETS = sizeof presets / sizeof *presets };

/* "0.3/1/0.5" or "15" at text; the end of it, or NULL. */
static const char *read_numbers(const char *text, double *out, int n)
{
    for (int i = 0; i < n; i++) {
        char *end;
        out[i] = strtod(text, &end);
        if (end == text || !isfinite(out[i]) || (i + 1 < n && *end++ != '/'))
            return NULL;
        text = end;
    }
    return *text == ',' ? text + 1 : *text ? NULL : text;
}

static gv_status check(const struct prune_opts *o, struct error *e)
{
    for (int i = 0; i <= GV_PRUNE_DROPS; i++)
        if (!(o->keep[i] > 0 && o->keep[i] <= 1))
            return gv_fail(e, GV_ERR_ARGUMENT, "prune: keep has %g; above 0 to 1 is possible", o->keep[i]);
    if (!(o->cell >= 1 && o->cell <= 1e6))
        return gv_fail(e, GV_ERR_ARGUMENT, "prune: cell is %g; 1 to 1000000 are possible", o->cell);
    if (!(o->importance.sink >= 0 && o->importance.sink <= 1e6) || !(fabs(o->importance.entropy) <= 1e3))
        return gv_fail(e, GV_ERR_ARGUMENT, "prune: sink is %g and entropy %g; 0 to 1000000 and -1000 to 1000 are possible",
                       o->importance.sink, o->importance.entropy);
    return GV_OK;
}

gv_status gv_prune_parse(struct prune_opts *o, const char *text, struct error *e)
{
    const char *at = text;
    for (int i = 0; i < PRESETS; i++)
        if (!strcmp(presets[i].name, text)) {
            *o = presets[i].opts;
            return GV_OK;
        }
    *o = presets[1].opts;
    while (at && *at) {
        const char  *value = strchr(at, '=');
        const size_t n = value ? (size_t)(value - at) : 0;
        at = n == 4 && !strncmp(at, "keep", n)      ? read_numbers(value + 1, o->keep, 3)
             : n == 4 && !strncmp(at, "cell", n)    ? read_numbers(value + 1, &o->cell, 1)
             : n == 4 && !strncmp(at, "sink", n)    ? read_numbers(value + 1, &o->importance.sink, 1)
             : n == 7 && !strncmp(at, "entropy", n) ? read_numbers(value + 1, &o->importance.entropy, 1)
                                                    : NULL;
    }
    if (!at || !*text)
        return gv_fail(e, GV_ERR_ARGUMENT, "prune is \"%s\"; 50, 25, 10 or keep=R1/R2/R3,cell=A,sink=T,entropy=W are possible",
                       text);
    return check(o, e);
}

bool gv_prune_published(const struct prune_opts *o)
{
    bool found = false;
    for (int i = 0; i < PRESETS; i++) {
        const struct prune_opts *p = &presets[i].opts;
        bool                     same = o->cell == p->cell && o->importance.sink == p->importance.sink &&
                    o->importance.entropy == p->importance.entropy;
        for (int k = 0; k <= GV_PRUNE_DROPS; k++)
            same = same && o->keep[k] == p->keep[k];
        found = found || same;
    }
    return found;
}

int gv_prune_layer(int drop, int layers)
{
    return (int)nearbyint((drop + 1) * 9.0 / 28 * layers);
}

double gv_prune_budget(const struct prune_opts *o, int layers)
{
    double share = o->keep[0], sum = 0;
    int    from = 0;
    for (int i = 0; i <= GV_PRUNE_DROPS; i++) {
        const int to = i < GV_PRUNE_DROPS ? gv_prune_layer(i, layers) : layers;
        sum += share * (to - from);
        share *= i < GV_PRUNE_DROPS ? o->keep[i + 1] : 1;
        from = to;
    }
    return sum / layers;
}

/* ---- before the decoder ---- */

struct ranked {
    float   score;
    int32_t token;
    int64_t cell;
};

static int by_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* By cell; in a cell the most important first, of equal ones the earlier. */
static int by_cell(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->cell != y->cell)
        return x->cell < y->cell ? -1 : 1;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static int64_t cell_of(const struct prune_lattice *l, double side, int64_t i)
{
    const bool    own = i >= l->base;
    const int64_t at = own ? i - l->base : i, width = own ? l->row : l->base_row;
    return (own ? INT64_C(1) << 60 : 0) + (((int64_t)(floor((double)(at / width) / side))) << 30) +
           (int64_t)floor((double)(at % width) / side);
}

/* One group becomes a new token. */
static void unite(struct pruned *p, const struct ranked *group, int64_t n, int64_t *members)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)group[i].score;
    p->place[p->n] = group[0].token;
    p->score[p->n] = group[0].score;
    p->first[p->n++] = (int32_t)*members;
    for (int64_t i = 0; i < n; i++) {
        p->member[*members] = group[i].token;
        p->weight[(*members)++] = n == 1 ? 1 : sum > 0 ? (float)((double)group[i].score / sum) : 1.0F / (float)n;
    }
}

static int by_token(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* New tokens come group by group; their order is that of their places. */
static gv_status sort_new(struct pruned *p, int64_t members, struct error *e)
{
    struct pruned  old = *p, s = { 0 };
    struct ranked *order = malloc((size_t)p->n * sizeof *order);
    s.place = malloc((size_t)p->n * sizeof *s.place);
    s.score = malloc((size_t)p->n * sizeof *s.score);
    s.first = malloc((size_t)(p->n + 1) * sizeof *s.first);
    s.member = malloc((size_t)members * sizeof *s.member);
    s.weight = malloc((size_t)members * sizeof *s.weight);
    const bool ok = order && s.place && s.score && s.first && s.member && s.weight;
    for (int64_t i = 0; ok && i < p->n; i++)
        order[i] = (struct ranked){ .token = p->place[i], .cell = i };
    if (ok)
        qsort(order, (size_t)p->n, sizeof *order, by_token);
    int64_t at = 0;
    for (int64_t i = 0; ok && i < p->n; i++) {
        const int64_t from = order[i].cell, n = old.first[from + 1] - old.first[from];
        s.place[i] = old.place[from];
        s.score[i] = old.score[from];
        s.first[i] = (int32_t)at;
        memcpy(s.member + at, old.member + old.first[from], (size_t)n * sizeof *s.member);
        memcpy(s.weight + at, old.weight + old.first[from], (size_t)n * sizeof *s.weight);
        at += n;
    }
    free(order);
    if (!ok) {
        gv_pruned_free(&s);
        return gv_fail(e, GV_ERR_MEMORY, "no memory to prune %lld tokens", (long long)p->n);
    }
    s.first[s.n = p->n] = (int32_t)at;
    gv_pruned_free(&old);
    *p = s;
    return GV_OK;
}

gv_status gv_prune(struct pruned *p, const struct prune_opts *o, const struct prune_lattice *l, const float *score, int64_t n,
                   struct error *e)
{
    const int64_t reduce = (int64_t)nearbyint((double)n * (1 - o->keep[0])),
                  budget = l->recycle && reduce ? (int64_t)floor((double)n / (o->cell * o->cell)) : 0,
                  low = reduce + budget < n ? reduce + budget : n;
    const size_t   room = (size_t)n;
    struct ranked *r = malloc(room * sizeof *r);
    int64_t        members = 0;
    *p = (struct pruned){ .place = malloc(room * sizeof *p->place),
                          .score = malloc(room * sizeof *p->score),
                          .first = malloc((room + 1) * sizeof *p->first),
                          .member = malloc(room * sizeof *p->member),
                          .weight = malloc(room * sizeof *p->weight) };
    if (!r || !p->place || !p->score || !p->first || !p->member || !p->weight) {
        free(r);
        gv_pruned_free(p);
        return gv_fail(e, GV_ERR_MEMORY, "no memory to prune %lld tokens", (long long)n);
    }
    for (int64_t i = 0; i < n; i++)
        r[i] = (struct ranked){ score ? score[i] : 0, (int32_t)i, 0 };
    qsort(r, room, sizeof *r, by_score);
    for (int64_t i = low; i < n; i++)
        unite(p, &r[i], 1, &members);
    for (int64_t i = 0; i < low && l->recycle; i++)
        r[i].cell = score ? cell_of(l, o->cell, r[i].token) : i; /* at worst as many cells as there may be */
    if (l->recycle && budget) {
        qsort(r, (size_t)low, sizeof *r, by_cell);
        for (int64_t i = 0, end; i < (score ? low : budget); i = end) {
            for (end = i + 1; end < low && r[end].cell == r[i].cell;)
                end++;
            unite(p, &r[i], end - i, &members);
        }
    }
    free(r);
    p->first[p->n] = (int32_t)members;
    const gv_status status = sort_new(p, members, e);
    if (status)
        gv_pruned_free(p);
    return status;
}

void gv_pruned_free(struct pruned *p)
{
    free(p->place);
    free(p->score);
    free(p->first);
    free(p->member);
    free(p->weight);
    *p = (struct pruned){ 0 };
}

/* ---- within the decoder ---- */

gv_status gv_prune_depth(uint8_t *depth, const struct prune_opts *o, const float *score, int64_t n, struct error *e)
{
    struct ranked *r = malloc((size_t)(n ? n : 1) * sizeof *r);
    int64_t        at = 0;
    if (!r)
        return gv_fail(e, GV_ERR_MEMORY, "no memory to prune %lld tokens", (long long)n);
    for (int64_t i = 0; i < n; i++)
        r[i] = (struct ranked){ score[i], (int32_t)i, 0 };
    qsort(r, (size_t)n, sizeof *r, by_score);
    for (uint8_t d = 0; d <= GV_PRUNE_DROPS; d++) {
        const int64_t left = n - at, go = d < GV_PRUNE_DROPS ? (int64_t)nearbyint((double)left * (1 - o->keep[d + 1])) : left;
        for (int64_t i = 0; i < go; i++)
            depth[r[at++].token] = d;
    }
    free(r);
    return GV_OK;
}
