/* A constant latent decodes, far from the border, into a constant colour, so that a few tiny decodes show what each channel
 * does to colour. Latents of pictures vary from place to place, which the map cannot see: shapes and colours come out, detail
 * does not. Probes are drawn as latents are distributed, each channel about N(0, 1). */
#include "pipelines/preview.h"

#include <math.h>
#include <stdlib.h>

#include "core/rng.h"
#include "io/frame.h"

enum { SIDE = 4, PROBES = 3, N = GV_VAE_CHANNELS + 1 }; /* latents across; probes for each channel */

/* Sums of a least-squares problem: unknowns are the channels and a constant. */
struct sums {
    int    n;
    double a[N][N], b[N][3];
};

static void add_probe(struct sums *s, const float *channel, const double colour[3])
{
    for (int i = 0; i < s->n; i++) {
        const double x = i < s->n - 1 ? (double)channel[i] : 1;
        for (int k = 0; k < s->n; k++)
            s->a[i][k] += x * (k < s->n - 1 ? (double)channel[k] : 1);
        for (int c = 0; c < 3; c++)
            s->b[i][c] += x * colour[c];
    }
}

/* Cholesky in place. A channel that does nothing leaves its row near zero; the small ridge keeps it there. */
static void solve(struct sums *s, struct preview_map *out)
{
    for (int i = 0; i < s->n; i++) {
        s->a[i][i] += 1e-6;
        for (int k = 0; k <= i; k++) {
            double sum = s->a[i][k];
            for (int m = 0; m < k; m++)
                sum -= s->a[i][m] * s->a[k][m];
            s->a[i][k] = i == k ? sqrt(sum > 1e-12 ? sum : 1e-12) : sum / s->a[k][k];
        }
    }
    for (int c = 0; c < 3; c++) {
        double x[N];
        for (int i = 0; i < s->n; i++) {
            x[i] = s->b[i][c];
            for (int k = 0; k < i; k++)
                x[i] -= s->a[i][k] * x[k];
            x[i] /= s->a[i][i];
        }
        for (int i = s->n - 1; i >= 0; i--) {
            for (int k = i + 1; k < s->n; k++)
                x[i] -= s->a[k][i] * x[k];
            x[i] /= s->a[i][i];
            out->row[i][c] = (float)x[i];
        }
    }
    out->channels = s->n - 1;
}

/* What one probe needs. */
struct probe {
    struct tensor z, frame;         /* f32 [1, SIDE, SIDE, C], [1, px, px, 3] */
    float        *latents, *pixels; /* host */
    int           px;
};

static void decode(struct run *r, const struct vae *vae, const struct probe *p)
{
    struct vae_stream *s = gv_run_ready(r) ? vae->model->stream_open(r, vae, VAE_DECODE) : NULL;
    if (s)
        vae->model->decode(r, s, p->frame, p->z);
    vae->model->stream_close(r, s);
}

/* The mean colour of the middle, where the border's zeros do not reach as far. */
static void middle(const struct probe *p, double colour[3])
{
    const int from = p->px / 4, to = p->px - from;
    colour[0] = colour[1] = colour[2] = 0;
    for (int y = from; y < to; y++)
        for (int x = from; x < to; x++)
            for (int c = 0; c < 3; c++)
                colour[c] += (double)p->pixels[(y * p->px + x) * 3 + c] / ((to - from) * (to - from));
}

static void run_probes(struct run *r, const struct vae *vae, const struct probe *p, struct sums *s)
{
    const int C = vae->z;
    for (int i = 0; i < PROBES * C + 1 && gv_run_ready(r); i++) {
        double colour[3];
        gv_rng_normal_row(p->latents, C, &(struct noise_key){ .purpose = 2 }, i, 0, 0);
        for (int k = C; k < SIDE * SIDE * C; k++)
            p->latents[k] = p->latents[k - C];
        gv_upload(r, p->z, p->latents);
        decode(r, vae, p);
        gv_download(r, p->pixels, p->frame);
        gv_sync(r);
        if (!gv_run_ready(r))
            return;
        middle(p, colour);
        add_probe(s, p->latents, colour);
    }
}

void gv_preview_fit(struct run *r, const struct vae *vae, struct preview_map *out)
{
    const int    px = SIDE * vae->space_scale;
    struct mark  mark = arena_mark(&r->scratch);
    struct probe p = { .z = gv_scratch(r, GV_F32, 4, DIMS(1, SIDE, SIDE, vae->z)),
                       .frame = gv_scratch(r, GV_F32, 4, DIMS(1, px, px, 3)),
                       .px = px };
    *out = (struct preview_map){ 0 };
    gv_run_enter(r, "preview");
    if (gv_device_is_null(r->device)) {
        decode(r, vae, &p);
    } else if (gv_run_ready(r)) {
        struct sums *s = calloc(1, sizeof *s);
        p.latents = malloc((size_t)(SIDE * SIDE * vae->z) * sizeof *p.latents);
        p.pixels = malloc((size_t)px * (size_t)px * 3 * sizeof *p.pixels);
        if (!s || !p.latents || !p.pixels) {
            gv_run_fail(r, GV_ERR_MEMORY, "no memory to fit the colours of latents");
        } else {
            s->n = vae->z + 1;
            run_probes(r, vae, &p, s);
            solve(s, out);
        }
        free(s);
        free(p.latents);
        free(p.pixels);
    }
    gv_run_enter(r, "%s", "");
    arena_release(&r->scratch, mark);
}

void gv_preview_draw(uint8_t *rgb, const struct preview_map *m, const float *latents, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float colour[3] = { m->row[m->channels][0], m->row[m->channels][1], m->row[m->channels][2] };
        for (int k = 0; k < m->channels; k++)
            for (int c = 0; c < 3; c++)
                colour[c] += latents[i * m->channels + k] * m->row[k][c];
        gv_pixels_from_float(rgb + i * 3, colour, 3);
    }
}
