/* The loop state as a safetensors file: latents, the solver's tensors, and a row of numbers that must equal the job's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "pipelines/video.h"

enum { VERSION = 1, N_TENSORS = 2 + GV_SAMPLER_HISTORY, N_NUMBERS = 10 };

static const char *const names[N_TENSORS + 1] = { "x", "last", "data.0", "data.1", "data.2", "numbers" };

static struct tensor *tensor_of(struct loop_state *s, int i)
{
    return i == 0 ? &s->x : i == 1 ? &s->sampler.last : &s->sampler.data[i - 2];
}

/* What has to be the same, and, last, where the loop stands. */
static void numbers(int64_t out[N_NUMBERS], const struct loop_state *s, const struct video_job *job)
{
    int64_t seed;
    memcpy(&seed, &job->seed, sizeof seed);
    const int64_t values[N_NUMBERS] = { VERSION,
                                        job->frames,
                                        job->width,
                                        job->height,
                                        job->steps,
                                        (int64_t)(job->shift * 1e6),
                                        (int64_t)(job->guidance * 1e6),
                                        seed,
                                        s->sampler.step,
                                        s->sampler.last_order };
    memcpy(out, values, sizeof values);
}
enum { N_MUST_AGREE = 8 };

gv_status gv_loop_state_write(struct run *r, const struct loop_state *state, const struct video_job *job, const char *path)
{
    struct loop_state s = *state;
    struct st_entry   entry[N_TENSORS + 1];
    float            *host = NULL, *at;
    int64_t           number[N_NUMBERS], count = gv_tensor_count(s.x);
    int               n = 0;
    if (!gv_run_ready(r) || !(at = host = malloc((size_t)count * N_TENSORS * sizeof *host)))
        return gv_fail(&r->err, GV_ERR_MEMORY, "no memory to write down the render");
    for (int i = 0; i < N_TENSORS; i++) {
        struct tensor *t = tensor_of(&s, i);
        if (!present(*t))
            continue;
        gv_download(r, at, *t);
        entry[n] = (struct st_entry){
            .name = (char *)(uintptr_t)names[i], .type = GV_F32, .rank = t->rank, .data = at, .bytes = gv_tensor_bytes(*t)
        };
        memcpy(entry[n++].dim, t->dim, sizeof t->dim);
        at += count;
    }
    numbers(number, state, job);
    entry[n++] = (struct st_entry){ .name = (char *)(uintptr_t)names[N_TENSORS],
                                    .type = GV_I64,
                                    .rank = 1,
                                    .dim = { N_NUMBERS },
                                    .data = number,
                                    .bytes = sizeof number };
    if (gv_run_ready(r))
        gv_safetensors_write(path, entry, n, &r->err);
    free(host);
    return r->err.code;
}

static gv_status take(struct run *r, struct loop_state *s, const struct tensor_file *st, const struct video_job *job)
{
    const struct st_entry *t = gv_tensor_file_find(st, names[N_TENSORS]);
    int64_t                want[N_NUMBERS], found[N_NUMBERS];
    numbers(want, s, job);
    if (!t || t->type != GV_I64 || t->bytes != sizeof found)
        return gv_fail(&r->err, GV_ERR_FORMAT, "%s does not hold a render", st->path);
    memcpy(found, t->data, sizeof found);
    if (memcmp(found, want, N_MUST_AGREE * sizeof *want) || found[8] < 0 || found[8] > job->steps || found[9] < 0 ||
        found[9] > 2)
        return gv_fail(&r->err, GV_ERR_FORMAT, "%s holds a render with other settings", st->path);
    for (int i = 0; i < N_TENSORS; i++) {
        struct tensor *dst = tensor_of(s, i);
        t = gv_tensor_file_find(st, names[i]);
        if (!present(*dst))
            continue;
        if (!t || t->type != GV_F32 || t->bytes != gv_tensor_bytes(*dst))
            return gv_fail(&r->err, GV_ERR_FORMAT, "%s: tensor %s does not fit this render", st->path, names[i]);
        gv_upload(r, *dst, t->data);
    }
    gv_sync(r);
    s->sampler.step = (int)found[8];
    s->sampler.last_order = (int)found[9];
    return r->err.code;
}

gv_status gv_loop_state_read(struct run *r, struct loop_state *s, const struct video_job *job, const char *path)
{
    struct tensor_file st;
    if (!gv_run_ready(r) || gv_tensor_file_open(&st, path, &gv_file_safetensors, &r->err))
        return r->err.code;
    take(r, s, &st, job);
    gv_tensor_file_close(&st);
    return r->err.code;
}
