/* A page's score is the largest bound over its parts of 16 keys and over the query heads that share its keys; each such group of heads
 * chooses for itself. The first page and the newest are always read, and those that come between two choices.
 *
 * What would surprise you: bounds are kept on the host, so a choice waits for the device; between choices nothing does but the upload
 * of the lists. Only full pages have bounds, and only the newest page may not be full: so each key is looked at once. */
#include "vision/pages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = GV_PAGE / GV_PAGE_CHUNK, AT_ONCE = 16, CHECK_EVERY = 16 };

struct page_layer {
    float   *low, *high; /* [pages, A_kv, PARTS, D] */
    uint8_t *chosen;     /* [A_kv, room] */
    int64_t  full, room; /* pages that have bounds, and may have */
    int64_t  known;      /* pages at the last choice; later ones are read */
};

gv_status gv_pages_open(struct pages *p, int64_t keep, int64_t every, int layers, struct error *e)
{
    *p = (struct pages){ .keep = keep, .every = every > 0 ? every : 1, .layers = layers };
    if (keep && !(p->layer = calloc((size_t)layers, sizeof *p->layer)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the pages of %d layers", layers);
    return GV_OK;
}

void gv_pages_close(struct pages *p)
{
    for (int i = 0; p->layer && i < p->layers; i++) {
        free(p->layer[i].low);
        free(p->layer[i].high);
        free(p->layer[i].chosen);
    }
    free(p->layer);
    *p = (struct pages){ 0 };
}

double gv_page_bound(const float *q, const float *low, const float *high, int64_t D)
{
    double sum = 0;
    for (int64_t c = 0; c < D; c++)
        sum += fmax((double)q[c] * (double)low[c], (double)q[c] * (double)high[c]);
    return sum;
}

/* ---- bounds ---- */

static bool grow(struct page_layer *l, int64_t pages, int64_t heads, int64_t D)
{
    if (pages <= l->room)
        return true;
    const int64_t room = pages + pages / 2 + 8;
    const size_t  bytes = (size_t)(room * heads * PARTS * D) * sizeof(float);
    float        *low = realloc(l->low, bytes);
    l->low = low ? low : l->low;
    float *high = low ? realloc(l->high, bytes) : NULL;
    l->high = high ? high : l->high;
    uint8_t *chosen = high ? calloc((size_t)(room * heads), 1) : NULL;
    if (!chosen)
        return false;
    for (int64_t h = 0; h < heads && l->chosen; h++)
        memcpy(chosen + h * room, l->chosen + h * l->room, (size_t)l->room);
    free(l->chosen);
    l->chosen = chosen;
    l->room = room;
    return true;
}

/* keys [GV_PAGE, A_kv, D] */
static void bound_page(struct page_layer *l, int64_t page, const float *keys, int64_t heads, int64_t D)
{
    for (int64_t i = 0; i < GV_PAGE; i++)
        for (int64_t h = 0; h < heads; h++) {
            const float  *key = keys + (i * heads + h) * D;
            const int64_t at = ((page * heads + h) * PARTS + i / GV_PAGE_CHUNK) * D;
            for (int64_t c = 0; c < D; c++) {
                const bool first = i % GV_PAGE_CHUNK == 0;
                l->low[at + c] = first || key[c] < l->low[at + c] ? key[c] : l->low[at + c];
                l->high[at + c] = first || key[c] > l->high[at + c] ? key[c] : l->high[at + c];
            }
        }
}

/* Some pages at a time, so that scratch does not grow with the text. */
static void bound_new(struct run *r, struct page_layer *l, struct tensor k)
{
    const int64_t full = k.dim[1] / GV_PAGE, heads = k.dim[2], D = k.dim[3], keys = AT_ONCE * GV_PAGE;
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor part = gv_scratch(r, GV_F32, 4, DIMS(1, keys, heads, D));
    float        *host = malloc((size_t)(keys * heads * D) * sizeof *host);
    if (!host || !grow(l, full + 1, heads, D))
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the bounds of %lld pages", (long long)full);
    while (l->full < full && gv_run_ready(r) && !gv_device_is_null(r->device)) {
        const int64_t n = full - l->full < AT_ONCE ? full - l->full : AT_ONCE;
        struct tensor some = slice(part, 1, 0, n * GV_PAGE);
        gv_copy(r, some, slice(k, 1, l->full * GV_PAGE, n * GV_PAGE));
        gv_download(r, host, some);
        for (int64_t i = 0; i < n && gv_run_ready(r); i++)
            bound_page(l, l->full++, host + i * GV_PAGE * heads * D, heads, D);
    }
    free(host);
    arena_release(&r->scratch, mark);
}

/* ---- choice ---- */

struct ranked {
    double  score;
    int64_t page;
};

static int by_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->page < y->page ? -1 : x->page > y->page;
}

/* q [group, D]: the heads that read these keys. */
static double score(const struct page_layer *l, int64_t page, int64_t h, int64_t heads, const float *q, int64_t group,
                    int64_t D)
{
    double most = -INFINITY;
    for (int64_t g = 0; g < group; g++)
        for (int64_t part = 0; part < PARTS; part++) {
            const int64_t at = ((page * heads + h) * PARTS + part) * D;
            most = fmax(most, gv_page_bound(q + g * D, l->low + at, l->high + at, D));
        }
    return most;
}

static void choose(struct run *r, struct pages *p, struct page_layer *l, const struct page_read *a)
{
    const int64_t pages = (a->k.dim[1] + GV_PAGE - 1) / GV_PAGE, heads = a->k.dim[2], D = a->k.dim[3],
                  group = a->q.dim[2] / heads, want = p->keep / GV_PAGE > 2 ? p->keep / GV_PAGE : 2, inner = pages - 2;
    struct mark    mark = arena_mark(&r->scratch);
    struct tensor  copy = gv_scratch(r, GV_F32, 4, a->q.dim);
    float         *q = malloc((size_t)(heads * group * D) * sizeof *q);
    struct ranked *order = malloc((size_t)pages * sizeof *order);
    if (!q || !order)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory to choose among %lld pages", (long long)pages);
    gv_copy(r, copy, a->q);
    if (gv_run_ready(r) && !gv_device_is_null(r->device)) {
        gv_download(r, q, copy);
        l->known = pages;
        for (int64_t h = 0; h < heads; h++) {
            uint8_t *chosen = l->chosen + h * l->room;
            memset(chosen, pages <= want, (size_t)pages);
            chosen[0] = chosen[pages - 1] = 1;
            for (int64_t i = 0; i < inner && pages > want; i++)
                order[i] = (struct ranked){ score(l, i + 1, h, heads, q + h * group * D, group, D), i + 1 };
            if (pages > want) {
                qsort(order, (size_t)inner, sizeof *order, by_score);
                for (int64_t i = 0; i < want - 2; i++)
                    chosen[order[i].page] = 1;
            }
        }
    }
    free(q);
    free(order);
    arena_release(&r->scratch, mark);
}

/* What the plan's keys hold of the attention, mean over heads. */
static void measure(struct run *r, struct pages *p, const struct page_read *a, const struct attn_plan *plan)
{
    const int64_t heads = a->q.dim[2];
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor o = gv_scratch(r, r->compute, 4, a->q.dim), lse = gv_scratch(r, GV_F32, 3, DIMS(1, heads, 1));
    float        *some = malloc(2 * (size_t)heads * sizeof *some), *all = some + heads;
    if (!some)
        gv_run_fail(r, GV_ERR_MEMORY, "no memory for the shares of %lld heads", (long long)heads);
    for (int i = 0; i < 2 && gv_run_ready(r); i++) {
        gv_attention(r, &(struct attn_call){ .q = a->q,
                                             .n_sources = 1,
                                             .source[0] = { .k = a->k, .v = a->v },
                                             .out = { .o = o, .lse = lse },
                                             .plan = i ? NULL : plan });
        if (!gv_device_is_null(r->device))
            gv_download(r, i ? all : some, lse);
    }
    for (int64_t h = 0; h < heads && gv_run_ready(r) && !gv_device_is_null(r->device); h++)
        p->mass += exp((double)some[h] - (double)all[h]) / (double)heads;
    p->checks++;
    free(some);
    arena_release(&r->scratch, mark);
}

/* ---- plan ---- */

static enum block_verdict verdict(const void *arg, const struct plan_block *b)
{
    const struct page_layer *l = arg;
    const int64_t            page = b->k0 / GV_PAGE;
    return page >= l->known || l->chosen[b->head * l->room + page] ? BLOCK_ALL : BLOCK_NONE;
}

void gv_pages_plan(struct run *r, struct pages *p, const struct page_read *a, struct attn_plan *out)
{
    struct page_layer *l = &p->layer[a->layer];
    const int64_t      n = a->k.dim[1];
    const bool         anew = p->steps % p->every == 0;
    *out = (struct attn_plan){ 0 };
    bound_new(r, l, a->k);
    if (anew)
        choose(r, p, l, a);
    const struct plan_shape shape = { (int)a->k.dim[2], 1, n, { .kind = MASK_NONE } };
    if (!gv_run_ready(r) || gv_plan_from_blocks(out, &shape, verdict, l, &r->err))
        return;
    p->read += out->density * (double)n;
    p->all += (double)n;
    if (anew && p->steps / p->every % CHECK_EVERY == 0)
        measure(r, p, a, out);
}
