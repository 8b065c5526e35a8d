#include "request.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void cli_request_fill(struct cli_request *r, const struct cli_args *a, const gv_model *m)
{
    gv_video_request *q = &r->q;
    const gv_option   named[CLI_NAMED] = {
          { "format", a->format }, { "codec", a->codec },     { "crf", a->crf },
          { "bits", a->bits },     { "causal", a->causal },   { "attention", a->attention },
          { "cache", a->cache },   { "receipt", a->receipt }, { "verify", a->verify ? "on" : NULL },
          { "compat", a->compat }, { "audio", a->audio }
    };
    gv_video_request_init(q);
    memcpy(r->options, a->options, a->n_options * sizeof *r->options);
    q->option_count = a->n_options;
    for (int i = 0; i < CLI_NAMED; i++)
        if (named[i].value)
            r->options[q->option_count++] = named[i];
    q->options = r->options;
    q->model = m;
    q->negative_prompt = a->negative;
    q->first_image = a->image;
    q->last_image = a->last_image;
    q->width = (int)a->width;
    q->height = (int)a->height;
    q->frames = (int)a->frames;
    q->fps = a->fps;
    q->steps = (int)a->steps;
    q->guidance = a->guidance;
    q->shift = a->shift;
    q->seed = (uint64_t)a->seed;
    q->solver = a->solver;
    q->noise = a->noise;
    q->preview_every = (int)a->preview_every;
}

int64_t cli_chance(void)
{
    uint32_t n = 0;
    FILE    *file = fopen("/dev/urandom", "rb");
    if (!file || fread(&n, sizeof n, 1, file) != 1)
        n = (uint32_t)time(NULL) * 2654435761u ^ (uint32_t)getpid();
    if (file)
        fclose(file);
    return n;
}
