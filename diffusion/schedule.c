#include "diffusion/schedule.h"

#include <math.h>
#include <string.h>

/* numpy's and torch's linspace(a, b, n)[i], in double. */
static double linspace(double a, double b, int n, int i)
{
    return n == 1 ? a : i == n - 1 ? b : a + (b - a) / (n - 1) * i;
}

static double shifted(double sigma, double k)
{
    return k * sigma / (1 + (k - 1) * sigma);
}

/* σ before the shift, of step i of n. */
typedef double (*grid_fn)(int i, int n);

static double grid_wan_unipc(int i, int n)
{
    return linspace(0.9990000128746033, 0, n + 1, i); /* f32(1 - 1/1000): its constructor's largest σ */
}
static double grid_to_zero(int i, int n)
{
    return linspace(1, 0, n + 1, i);
}
static double grid_diffusers(int i, int n)
{
    return linspace(1, 1.0 / 1000, n + 1, i);
}
static double grid_alphas(int i, int n)
{
    return 1 - linspace(1, 1.0 / 1000, n + 1, n - i);
}

struct grid {
    const char *name;
    grid_fn     sigma;
    int         whole_times; /* times are truncated to integers */
    int         below_one;   /* σ = 1 is moved by 1e-6, so that its λ is finite */
};

static const struct grid grids[] = {
    { "diffusers-unipc", grid_diffusers, 1, 1 }, { "diffusers-unipc-0.36", grid_alphas, 1, 0 },
    { "diffusers-dpm", grid_alphas, 1, 0 },      { "wan-unipc", grid_wan_unipc, 1, 0 },
    { "wan-dpm", grid_to_zero, 1, 0 },           { "self-forcing", grid_to_zero, 0, 0 },
};

static void fill(struct schedule *s, const struct grid *g, double shift)
{
    for (int i = 0; i < s->steps; i++) {
        double sigma = shifted(g->sigma(i, s->steps), shift);
        if (g->below_one && fabs(sigma - 1) < 1e-6)
            sigma -= 1e-6;
        s->sigma[i] = (float)sigma;
        s->time[i] = g->whole_times ? (float)(int64_t)(sigma * 1000) : (float)(sigma * 1000);
    }
}

/* The largest and smallest σ are shifted when the scheduler is made, in f32; the grid between them when the steps are set. */
static void fill_flow_match_euler(struct schedule *s, double shift)
{
    float k = (float)shift, least = k * 0.001f / (1 + (k - 1) * 0.001f);
    for (int i = 0; i < s->steps; i++) {
        double sigma = shifted(linspace(1, (double)least, s->steps, i), shift);
        s->sigma[i] = (float)sigma;
        s->time[i] = (float)(sigma * 1000);
    }
}

/* CausVid's three times, as trained; their σ is that of the nearest of 1,000 shifted levels. */
static gv_status fill_causvid(struct schedule *s, double shift, struct error *e)
{
    static const float times[] = { 1000, 757, 522 };
    if (s->steps != 3)
        return gv_fail(e, GV_ERR_ARGUMENT, "steps is %d; the causvid schedule has 3", s->steps);
    for (int i = 0; i < 3; i++) {
        double nearest = 2;
        for (int k = 0; k < 1000; k++) {
            double sigma = shifted(linspace(1, 0, 1001, k), shift);
            if (fabs(sigma * 1000 - (double)times[i]) < fabs(nearest * 1000 - (double)times[i]))
                nearest = sigma;
        }
        s->time[i] = times[i];
        s->sigma[i] = (float)nearest;
    }
    return GV_OK;
}

gv_status gv_schedule_build(struct schedule *s, const char *name, int steps, double shift, struct error *e)
{
    if (steps < 1 || steps > GV_MAX_STEPS)
        return gv_fail(e, GV_ERR_ARGUMENT, "steps is %d; 1 to %d are possible", steps, GV_MAX_STEPS);
    if (!(shift > 0) || shift > 1000)
        return gv_fail(e, GV_ERR_ARGUMENT, "shift is %g; it must be above 0 and at most 1000", shift);
    memset(s, 0, sizeof *s);
    s->steps = steps;
    if (!strcmp(name, "flow-match-euler")) {
        fill_flow_match_euler(s, shift);
        return GV_OK;
    }
    if (!strcmp(name, "causvid"))
        return fill_causvid(s, shift, e);
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++)
        if (!strcmp(name, grids[i].name)) {
            fill(s, &grids[i], shift);
            return GV_OK;
        }
    return gv_fail(e, GV_ERR_ARGUMENT, "no schedule is called \"%s\"", name);
}
