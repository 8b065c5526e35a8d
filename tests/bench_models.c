/* bench_models dit DIR [rounds [TxHxW...]]   a transformer's whole forward on grids of latents; 1,560 and 4,680 tokens if none
 *                                            is given
 * bench_models vae DIR [rounds [TxHxW...]]   decoding such grids, 8H×8W pixels and 4T-3 frames each: seconds and peak of our
 *                                            allocations; 17, 81 and 161 frames of 128×128 if none is given
 *
 * On the device that GV_TEST_DEVICE names. DIR: a component's folder as the reference libraries save it
 * (tests/reference/bench_models.py makes both and times the same work there, bench_cuda.py on a GPU). Prints medians, the rate against that of one large product measured in the same run, and the checks of the
 * issue that set them. Not a test: machines differ. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "diffusion/models.h"
#include "tests/device.h"

enum { MAX_ROUNDS = 50 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_value);
    return t[n / 2];
}

static void check(gv_status status, const struct error *e)
{
    if (status || e->code) {
        fprintf(stderr, "bench_models: %s\n", e->text);
        exit(1);
    }
}

static struct tensor noise(struct run *r, int rank, const int64_t *dim)
{
    struct tensor t = gv_scratch(r, GV_F32, rank, dim);
    int64_t       n = gv_tensor_count(t);
    gv_noise(r, reshape(t, 4, DIMS(1, 1, n / dim[rank - 1], dim[rank - 1])), &(struct noise_key){ .seed = 3 });
    return t;
}

/* Rate of one large product with a weight of the model itself: the ceiling of this run. */
static double product_rate(struct run *r, const struct dit *m, int rounds)
{
    const int64_t d = m->config.width, f = m->config.ffn, n = test_on_cpu() ? 2048 : 32768;
    struct mark   mark = arena_mark(&r->scratch);
    struct tensor want = gv_tensor(NULL, r->compute, 2, DIMS(f, d)), src = gv_tensor(NULL, GV_F32, 2, DIMS(f, d)), w;
    size_t        bytes = r->device->ops->prepared_bytes(r->device, &want, WEIGHT_LINEAR);
    void         *memory;
    double        t[MAX_ROUNDS];
    float        *host = malloc(gv_tensor_bytes(src));
    for (int64_t i = 0; i < d * f; i++)
        host[i] = (float)((i * 2654435761u >> 8) % 1000) * 1e-4f - 0.05f;
    src.data = host;
    check(gv_device_alloc(r->device, bytes, "weight", &memory, &r->err), &r->err);
    check(r->device->ops->prepare(r->device, memory, src, r->compute, WEIGHT_LINEAR, &w, &r->err), &r->err);
    free(host);
    struct tensor x = gv_scratch(r, r->compute, 2, DIMS(n, d)), y = gv_scratch(r, r->compute, 2, DIMS(n, f));
    gv_copy(r, x, reshape(noise(r, 2, DIMS(n, d)), 2, DIMS(n, d)));
    gv_linear(r, y, x, w, NULL);
    for (int i = 0; i < rounds; i++) {
        double began = now();
        gv_linear(r, y, x, w, NULL);
        gv_sync(r);
        t[i] = now() - began;
    }
    gv_device_free(r->device, memory, bytes);
    arena_release(&r->scratch, mark);
    return 2.0 * (double)n * (double)d * (double)f / median(t, rounds);
}

static void bench_forward(struct run *r, const struct dit *m, int frames, int h, int w, double ceiling, int rounds)
{
    const struct dit_config *c = &m->config;
    struct mark              mark = arena_mark(&r->scratch);
    struct attn_layout       grid;
    float                    time = 500;
    double                   t[MAX_ROUNDS];
    struct dit_condition     cond = { .text = noise(r, 2, DIMS(512, c->text_dim)), .text_len = 512 };
    struct dit_call          call = { .x = noise(r, 5, DIMS(1, frames, h, w, c->in_channels)),
                                      .v = gv_scratch(r, GV_F32, 5, DIMS(1, frames, h, w, c->out_channels)),
                                      .time = &time,
                                      .n_times = 1 };
    check(gv_layout_grid(&grid, 0, frames, h / 2, w / 2, &r->err), &r->err);
    struct dit_prepared *p = m->model->prepare(r, m, 1, &cond, &grid);
    check(r->err.code, &r->err);
    double flops = r->flops;
    m->model->forward(r, m, p, &call);
    flops = r->flops - flops;
    for (int i = 0; i < rounds; i++) {
        double began = now();
        m->model->forward(r, m, p, &call);
        gv_sync(r);
        t[i] = now() - began;
    }
    check(r->err.code, &r->err);
    double middle = median(t, rounds);
    printf("dit %d layers, width %d, %lld tokens: %.4f s (%.4f to %.4f), %.0f GFLOP/s = %.1f%% of the product's %.0f\n",
           c->layers, c->width, (long long)grid.tokens, middle, t[0], t[rounds - 1], flops / middle * 1e-9,
           100 * flops / middle / ceiling, ceiling * 1e-9);
    m->model->release(p);
    gv_layout_free(&grid);
    arena_release(&r->scratch, mark);
}

/* "TxHxW", all positive. */
static void read_grid(int grid[3], const char *text)
{
    if (sscanf(text, "%dx%dx%d", &grid[0], &grid[1], &grid[2]) == 3 && grid[0] > 0 && grid[1] > 0 && grid[2] > 0)
        return;
    fprintf(stderr, "bench_models: a grid is \"%s\"; expected TxHxW, positive numbers of latents\n", text);
    exit(64);
}

static void bench_dit(struct device *d, const char *dir, int rounds, int n, char **grids)
{
    static char *usual[] = { "1x60x104", "3x60x104" };
    struct error e = { 0 };
    struct run   r;
    struct dit  *m;
    check(gv_run_open(&r, d, d->compute, (size_t)(test_on_cpu() ? 2 : 16) << 30, &e), &e);
    check(gv_dit_open(&m, dir, d, d->compute, &e), &e);
    check(gv_weights_pin(m->weights, d, false, &e), &e);
    double ceiling = product_rate(&r, m, 5 * rounds < MAX_ROUNDS ? 5 * rounds : MAX_ROUNDS);
    for (int i = 0; i < (n ? n : 2); i++) {
        int g[3];
        read_grid(g, n ? grids[i] : usual[i]);
        bench_forward(&r, m, g[0], g[1], g[2], ceiling, rounds);
    }
    gv_weights_unpin(m->weights, d, false, true);
    m->model->close(m);
    gv_run_close(&r);
}

/* Seconds of one clip of T x H x W latents. */
static double decode_clip(struct run *r, const struct vae *v, const int grid[3])
{
    double             began = now();
    struct vae_stream *s = v->model->stream_open(r, v, VAE_DECODE);
    for (int t = 0; t < grid[0]; t++) {
        struct mark   mark = arena_mark(&r->scratch);
        struct tensor z = noise(r, 4, DIMS(1, grid[1], grid[2], v->z)),
                      y = gv_scratch(r, GV_F32, 4, DIMS(t ? 4 : 1, 8 * grid[1], 8 * grid[2], 3));
        v->model->decode(r, s, y, z);
        arena_release(&r->scratch, mark);
    }
    gv_sync(r);
    v->model->stream_close(r, s);
    check(r->err.code, &r->err);
    return now() - began;
}

static void bench_vae(struct device *d, const char *dir, int rounds, int n, char **grids)
{
    static char *usual[] = { "5x16x16", "21x16x16", "41x16x16" };
    struct error e = { 0 };
    struct vae  *v;
    check(gv_vae_open(&v, dir, d, d->compute, &e), &e);
    check(gv_weights_pin(v->decoder, d, false, &e), &e);
    for (int k = 0; k < (n ? n : 3); k++) {
        struct run r;
        double     t[MAX_ROUNDS];
        int        g[3];
        read_grid(g, n ? grids[k] : usual[k]);
        check(gv_run_open(&r, d, d->compute, (size_t)1 << 30, &e), &e);
        atomic_store(&d->peak, 0);
        for (int i = 0; i < rounds; i++)
            t[i] = decode_clip(&r, v, g);
        int    frames = 4 * g[0] - 3;
        size_t peak = atomic_load(&d->peak) - r.scratch.size + r.scratch.peak;
        double middle = median(t, rounds);
        printf("vae decode %d frames of %dx%d: %.3f s (%.3f to %.3f), %.1f ms a frame, %.0f GFLOP/s, peak %.1f MiB\n", frames,
               8 * g[2], 8 * g[1], middle, t[0], t[rounds - 1], middle / frames * 1e3, r.flops / rounds / middle * 1e-9,
               (double)peak / (1 << 20));
        gv_run_close(&r);
    }
    gv_weights_unpin(v->decoder, d, false, true);
    v->model->close(v);
}

int main(int argc, char **argv)
{
    struct error               e = { 0 };
    struct device             *d;
    int                        rounds = argc > 3 ? atoi(argv[3]) : 5;
    const struct device_params p = { .name = test_device() };
    if (argc < 3 || rounds < 1 || rounds > MAX_ROUNDS || (strcmp(argv[1], "dit") && strcmp(argv[1], "vae"))) {
        fprintf(stderr, "usage: bench_models dit|vae DIR [rounds, at most %d [TxHxW...]]\n", MAX_ROUNDS);
        return 64;
    }
    check(gv_device_open(&d, &p, &e), &e);
    if (!strcmp(argv[1], "dit"))
        bench_dit(d, argv[2], rounds, argc > 4 ? argc - 4 : 0, argv + 4);
    else
        bench_vae(d, argv[2], rounds, argc > 4 ? argc - 4 : 0, argv + 4);
    gv_device_close(&d);
    return 0;
}
