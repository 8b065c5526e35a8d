/* Logits → token: greedy, or drawn with temperature, top-k and top-p from a counter-based generator, so that the same seed gives the
 * same text whatever runs beside it. Order and meaning follow transformers generation/logits_process.py (5.23): repetition
 * penalty, temperature, top-k, top-p. */
#ifndef GV_VISION_SAMPLE_H
#define GV_VISION_SAMPLE_H

#include "io/json.h"

enum { GV_STOP_IDS = 16 };

/* What generation_config.json says. */
struct sample_config {
    int32_t stop[GV_STOP_IDS];
    int     n_stop;
    double  repetition; /* 1, or 0 where the file is absent: none */
};
gv_status gv_sample_config_read(struct sample_config *c, const struct json_view *v);
bool      gv_sample_stops(const struct sample_config *c, int32_t id);

struct sample_opts {
    double   temperature; /* 0: greedy, and the rest but repetition is not read */
    int      top_k;       /* 0: all */
    double   top_p;       /* 0 or 1: all */
    double   repetition;  /* 0 or 1: none */
    uint64_t seed;
};

/* Memory for one text. */
struct text_sampler {
    struct sample_opts opts;
    int                n;         /* vocabulary */
    float             *work;      /* [n] */
    unsigned char     *seen;      /* [n] */
    struct candidate  *candidate; /* [n] */
    uint32_t           step;
};
/* Errors: ARGUMENT (an option outside of its range), MEMORY. */
gv_status gv_text_sampler_open(struct text_sampler *s, int vocabulary, const struct sample_opts *o, struct error *e);
void      gv_text_sampler_close(struct text_sampler *s);
void      gv_text_sampler_see(struct text_sampler *s, const int32_t *ids, int64_t n); /* ids of the prompt, for the penalty */
int32_t   gv_text_sampler_next(struct text_sampler *s, const float *logits);          /* [n]; sees what it returns */

#endif
