#include "diffusion/sampler.h"

#include <math.h>
#include <string.h>

/* λ = ln α - ln σ, α = 1 - σ. */
static double lambda(double sigma)
{
    return log(1 - sigma) - log(sigma);
}

static struct tensor data(const struct sampler *s, int steps_ago)
{
    return s->data[(s->step - steps_ago + GV_SAMPLER_HISTORY) % GV_SAMPLER_HISTORY];
}

static struct lincomb_term term(double factor, struct tensor x)
{
    return (struct lincomb_term){ (float)factor, x };
}

/* ---- euler ---- */

static void euler(struct run *r, struct sampler *s, struct tensor x, struct tensor v)
{
    const float *sigma = s->schedule.sigma;
    gv_lincomb(r, x, 2, (struct lincomb_term[]){ term(1, x), term((double)sigma[s->step + 1] - sigma[s->step], v) });
}

/* ---- the two multistep solvers share the step from σs to σt in terms of data predictions ----
 *   x(t) = σt/σs · x(s) - αt φ1 · m0 - αt B · (Σ ρk Dk),   Dk = (mk - m0) / rk,   φ1 = B = expm1(-h) */

static bool last_step(const struct sampler *s)
{
    return s->step == s->schedule.steps - 1;
}

/* Coefficients ρ of UniPC's corrector of order 2 (multistep_uni_c_bh_update). */
static void corrector_rho(double rho[2], double h, double r)
{
    double hh = -h, phi1 = expm1(hh), phi2 = phi1 / hh - 1, phi3 = phi2 / hh - 0.5;
    double b1 = phi2 / phi1, b2 = 2 * phi3 / phi1;
    rho[0] = (b1 - b2) / (1 - r);
    rho[1] = b1 - rho[0];
}

/* Correct x(σ_i) with the model's answer there: m is data(0), the predictor before it used data(1), data(2). */
static void unipc_correct(struct run *r, struct sampler *s, struct tensor x)
{
    const float *sigma = s->schedule.sigma;
    int          i = s->step;
    double       st = sigma[i], ss = sigma[i - 1], at = 1 - st, h = lambda(st) - lambda(ss), B = expm1(-h);
    if (s->last_order == 1) {
        gv_lincomb(r, x, 3,
                   (struct lincomb_term[]){ term(st / ss, s->last), term(-at * B * 0.5, data(s, 1)),
                                            term(-at * B * 0.5, data(s, 0)) });
        return;
    }
    double rk = (lambda(sigma[i - 2]) - lambda(ss)) / h, rho[2];
    corrector_rho(rho, h, rk);
    gv_lincomb(r, x, 4,
               (struct lincomb_term[]){ term(st / ss, s->last), term(-at * B * (1 - rho[0] / rk - rho[1]), data(s, 1)),
                                        term(-at * B * rho[0] / rk, data(s, 2)), term(-at * B * rho[1], data(s, 0)) });
}

/* One step of order p from x(σ_i): factor 1/2 on the first difference in both solvers. */
static void predict(struct run *r, struct sampler *s, struct tensor x, int p)
{
    const float *sigma = s->schedule.sigma;
    int          i = s->step;
    double       st = sigma[i + 1], ss = sigma[i], at = 1 - st;
    if (last_step(s)) {
        gv_lincomb(r, x, 1, (struct lincomb_term[]){ term(1, data(s, 0)) });
        return;
    }
    double h = lambda(st) - lambda(ss), B = ss >= 1 ? -1 : expm1(-h);
    if (p == 1) {
        gv_lincomb(r, x, 2, (struct lincomb_term[]){ term(st / ss, x), term(-at * B, data(s, 0)) });
        return;
    }
    double half = 0.5 / ((lambda(sigma[i - 1]) - lambda(ss)) / h);
    gv_lincomb(
        r, x, 3,
        (struct lincomb_term[]){ term(st / ss, x), term(-at * B * (1 - half), data(s, 0)), term(-at * B * half, data(s, 1)) });
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

static void unipc(struct run *r, struct sampler *s, struct tensor x, struct tensor v)
{
    int i = s->step, p = least(s->config.order, least(s->schedule.steps - i, i + 1));
    gv_lincomb(r, data(s, 0), 2, (struct lincomb_term[]){ term(1, x), term(-(double)s->schedule.sigma[i], v) });
    if (i > 0 && !last_step(s) && !s->config.no_corrector[i - 1])
        unipc_correct(r, s, x);
    if (!last_step(s))
        gv_copy(r, s->last, x);
    predict(r, s, x, p);
    s->last_order = p;
}

static void dpm(struct run *r, struct sampler *s, struct tensor x, struct tensor v)
{
    const float *sigma = s->schedule.sigma;
    int          i = s->step;
    bool         first = i == 0 || last_step(s) || sigma[i - 1] >= 1; /* from σ = 1 the second-order term is 0 · ∞ */
    gv_lincomb(r, data(s, 0), 2, (struct lincomb_term[]){ term(1, x), term(-(double)sigma[i], v) });
    predict(r, s, x, first ? 1 : s->config.order);
}

/* ---- renoise ---- */

static void renoise(struct run *r, struct sampler *s, struct tensor x, struct tensor v)
{
    const float *sigma = s->schedule.sigma;
    int          i = s->step;
    gv_lincomb(r, x, 2, (struct lincomb_term[]){ term(1, x), term(-(double)sigma[i], v) });
    if (last_step(s))
        return;
    struct tensor    fresh = data(s, 0);
    struct noise_key key = s->noise;
    key.purpose = 1;
    key.step = (uint32_t)i + 1;
    gv_noise(r, fresh, &key);
    gv_lincomb(r, x, 2, (struct lincomb_term[]){ term(1 - (double)sigma[i + 1], x), term(sigma[i + 1], fresh) });
}

/* ---- public ---- */

struct solver {
    const char *name;
    void (*step)(struct run *r, struct sampler *s, struct tensor x, struct tensor v);
    bool history;
};
static const struct solver solvers[] = {
    { "unipc", unipc, true }, { "dpm++", dpm, true }, { "euler", euler, false }, { "renoise", renoise, true }
};

static const struct solver *find(const char *name)
{
    for (size_t i = 0; i < sizeof solvers / sizeof *solvers; i++)
        if (!strcmp(name, solvers[i].name))
            return &solvers[i];
    return NULL;
}

gv_status gv_sampler_open(struct sampler *s, struct run *r, const struct sampler_config *config,
                          const struct schedule *schedule, struct tensor x)
{
    const struct solver *solver = find(config->solver);
    *s = (struct sampler){ .config = *config, .schedule = *schedule };
    if (!solver)
        return gv_fail(&r->err, GV_ERR_ARGUMENT, "solver is \"%s\"; unipc, dpm++, euler and renoise are known", config->solver);
    if (config->order < 1 || config->order > 2)
        return gv_fail(&r->err, GV_ERR_UNSUPPORTED, "solver_order %d is not supported; 1 and 2 are", config->order);
    if (!solver->history)
        return GV_OK;
    for (int i = 0; i < GV_SAMPLER_HISTORY; i++)
        s->data[i] = gv_scratch(r, GV_F32, x.rank, x.dim);
    s->last = gv_scratch(r, GV_F32, x.rank, x.dim);
    return r->err.code;
}

void gv_sampler_step(struct run *r, struct sampler *s, struct tensor x, struct tensor v)
{
    find(s->config.solver)->step(r, s, x, v);
    s->step++;
}
