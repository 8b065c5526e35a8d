/* bench_shortcuts MODEL SUITE [PROMPTS [ATTENTION+CACHE...]]
 *
 * What shortcuts cost the pictures of a trained model, and what they save: every row's clips against the exact clips of the same
 * seeds (the first PROMPTS of eight fixed ones, 4 if not given), as --verify measures them. PSNR of a row: the mean over its
 * clips, and the worst clip's; SSIM likewise. Work is processor time up to the last latents, as a share of the exact clip's, which
 * other programs on the machine disturb less than the clock; decoding is the same for both. A line a clip as they come, then the
 * table.
 *
 *   clip      65 frames of 256x256 (4,352 tokens), the model's 8 steps    attention policies, the complement
 *   clip50    the same in 50 steps                                        the fast recipe: 10 exact steps, thinned, half of them skipped
 *   steps     the model's own size in 50 steps                            step caches
 *   few       the model's own size and steps                              step caches
 *   causal    69 frames of 256x256 by blocks, with a history              FlashBlock
 *
 * Further arguments are rows to measure in place of the suite's: "pooled:share=0.25+easycache", "+magcache". Not a test: it takes from a
 * minute to an hour. Rows that need a calibration are refused where MODEL has none (genvid calibrate). */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "genvid.h"
#include "pipelines/verify.h"

static const char *const prompts[] = {
    "a red car drives to the left in the city",
    "a dog runs to the right in the park",
    "a t-rex walks to the left in the forest",
    "a ufo hovers over a calm lake at night",
    "a penguin jumps in the snow",
    "a sailboat on the sea, the camera pans right",
    "a blue butterfly flies in circles in a meadow",
    "a robot stands in the factory",
};
enum { MOST_PROMPTS = sizeof prompts / sizeof *prompts, MOST_ROWS = 64 };

static const struct suite {
    const char *name;
    int         side, frames, steps; /* 0 = the model's own */
    const char *causal;
    const char *row[MOST_ROWS];
} suites[] = {
    { "clip",
      256,
      65,
      0,
      NULL,
      { "window:back=1024,ahead=1024",
        "window:back=512,ahead=512",
        "strided:stride=2",
        "strided:stride=4",
        "radial",
        "radial:decay=0.1",
        "bands:keep=0.5",
        "bands:keep=0.3",
        "tiles:tt=1,th=8,tw=16,wt=9,wh=2,ww=1",
        "block_causal:frames=4",
        "pooled:share=0.5",
        "pooled:share=0.25",
        "pooled:share=0.1",
        "pooled:share=0.25,dense_steps=1",
        "pooled:share=0.25,dense_steps=2",
        "pooled:share=0.25,order=1",
        "pooled:share=0.5,same=0.3",
        "antidiagonal:mass=0.9",
        "antidiagonal:mass=0.7",
        "pooled:share=0.25,every=2",
        "pooled:share=0.25,every=2+complement",
        "pooled:share=0.25,every=4+complement" } },
    { "clip50",
      256,
      65,
      50,
      NULL,
      { "pooled:share=0.25,dense_steps=10+easycache:thr=0.05", "pooled:share=0.25,dense_steps=10", "+easycache:thr=0.05" } },
    { "steps",
      0,
      0,
      50,
      NULL,
      { "+easycache:thr=0.02", "+easycache:thr=0.05", "+easycache:thr=0.1", "+firstblock:thr=0.03", "+firstblock:thr=0.06",
        "+firstblock:thr=0.12", "+magcache:thr=0.06,k=1", "+magcache:thr=0.12,k=2", "+magcache:thr=0.24,k=6" } },
    { "few",
      0,
      0,
      0,
      NULL,
      { "+easycache:warm=3,thr=0.05", "+easycache:warm=3,thr=0.2", "+firstblock:warm=3,thr=0.1",
        "+firstblock:warm=3,thr=0.2" } },
    { "causal",
      256,
      69,
      0,
      "on",
      { "+flashblock", "+flashblock:commit=1", "pooled:share=0.5", "pooled:share=0.25", "pooled:share=0.5+flashblock",
        "pooled:share=0.25+flashblock" } },
};

struct clip {
    uint8_t *rgb; /* frames one after the other */
    size_t   bytes, room;
    int      width, height, frames;
    double   began, denoised; /* processor seconds */
    double   density;         /* from here on of the receipt; 0 where it says nothing */
    char     note[200];
};

static double processor_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int take_frame(void *user, const gv_frame *f)
{
    struct clip *c = user;
    const size_t row = (size_t)f->width * 3, need = row * (size_t)f->height;

    if (c->bytes + need > c->room) {
        c->room = 2 * (c->bytes + need);
        uint8_t *more = realloc(c->rgb, c->room);
        if (!more)
            return 1;
        c->rgb = more;
    }
    for (int y = 0; y < f->height; y++, c->bytes += row)
        memcpy(c->rgb + c->bytes, (const uint8_t *)f->pixels + y * f->stride, row);
    c->width = f->width;
    c->height = f->height;
    c->frames++;
    return 0;
}

static int watch(void *user, const gv_progress *p)
{
    struct clip *c = user;

    if (!strcmp(p->stage, "denoise")) /* in causal generation decoding lies between blocks: the last one counts it */
        c->denoised = processor_seconds() - c->began;
    return 0;
}

static void read_receipt(struct clip *c, const gv_session *s)
{
    char         *text = gv_session_report(s);
    json_t       *report = text ? json_loads(text, 0, NULL) : NULL;
    const json_t *receipt = json_object_get(report, "receipt"), *a = json_object_get(receipt, "attention"),
                 *steps = json_object_get(receipt, "steps");
    size_t used = 0;

    c->density = json_number_value(json_object_get(a, "density"));
    if (json_object_get(a, "reused"))
        used += (size_t)snprintf(c->note, sizeof c->note, "%lld calls made, %lld reused; %lld of %lld heads fresh ",
                                 (long long)json_integer_value(json_object_get(a, "refreshed")),
                                 (long long)json_integer_value(json_object_get(a, "reused")),
                                 (long long)json_integer_value(json_object_get(a, "fresh_heads")),
                                 (long long)json_integer_value(json_object_get(a, "heads")));
    if (steps)
        snprintf(c->note + used, sizeof c->note - used, "%s", json_string_value(json_object_get(steps, "schedule")));
    json_decref(report);
    free(text);
}

/* row: "ATTENTION+CACHE", either may be empty; NULL = exact. */
static bool render(struct clip *c, gv_session *s, const gv_model *m, const struct suite *suite, int prompt, const char *row)
{
    char             attention[200] = "";
    const char      *cache = row ? strchr(row, '+') : NULL;
    gv_option        option[4] = { { "receipt", "0" } };
    gv_video_request q;

    while (cache && cache[1] >= '0' && cache[1] <= '9') /* the plus of a list of steps */
        cache = strchr(cache + 1, '+');
    *c = (struct clip){ 0 };
    gv_video_request_init(&q);
    q.model = m;
    q.prompt = prompts[prompt];
    q.seed = (uint64_t)prompt;
    q.width = q.height = suite->side;
    q.frames = suite->frames;
    q.steps = suite->steps;
    q.on_frame = take_frame;
    q.progress = watch;
    q.user = c;
    q.options = option;
    q.option_count = 1;
    if (suite->causal)
        option[q.option_count++] = (gv_option){ "causal", suite->causal };
    snprintf(attention, sizeof attention, "%.*s", row ? (int)(cache ? cache - row : (ptrdiff_t)strlen(row)) : 0,
             row ? row : "");
    if (*attention)
        option[q.option_count++] = (gv_option){ "attention", attention };
    if (cache)
        option[q.option_count++] = (gv_option){ "cache", cache + 1 };
    c->began = processor_seconds();
    if (gv_video_generate(s, &q)) {
        fprintf(stderr, "%s: %s\n", row ? row : "exact", gv_session_message(s));
        return false;
    }
    read_receipt(c, s);
    return true;
}

/* ---- a row's sums over its clips ---- */

struct sums {
    int    clips;
    double psnr, worst_psnr, ssim, worst_ssim, work, density;
    char   note[200];
};

static void compare(struct sums *s, const char *row, int prompt, const struct clip *c, const struct clip *exact)
{
    const size_t frame = (size_t)c->width * (size_t)c->height * 3;
    double       similar = 0;

    if (c->bytes != exact->bytes)
        return;
    for (size_t at = 0; at < c->bytes; at += frame)
        similar += gv_ssim(c->rgb + at, exact->rgb + at, c->width, c->height) / c->frames;
    const double mean = gv_squared_error(c->rgb, exact->rgb, (int64_t)c->bytes) / (double)c->bytes;
    const double psnr = mean > 0 ? 10 * log10(255 * 255 / mean) : 99, work = c->denoised / exact->denoised;
    s->psnr += psnr;
    s->ssim += similar;
    s->work += work;
    s->density += c->density;
    s->worst_psnr = s->clips && s->worst_psnr < psnr ? s->worst_psnr : psnr;
    s->worst_ssim = s->clips && s->worst_ssim < similar ? s->worst_ssim : similar;
    s->clips++;
    memcpy(s->note, c->note, sizeof s->note);
    printf("%d %-50s %5.1f dB %.4f work %.2f density %.3f %s\n", prompt, row, psnr, similar, work, c->density, c->note);
    fflush(stdout);
}

static void print_table(const struct suite *suite, const char *const *rows, const struct sums *sums)
{
    printf("\n| %s | pairs | work | PSNR, dB: mean, worst | SSIM: mean, worst | last clip |\n|---|---|---|---|---|---|\n",
           suite->name);
    for (int i = 0; rows[i]; i++) {
        const struct sums *s = &sums[i];
        char               pairs[16] = "-";
        if (!s->clips)
            continue;
        if (s->density > 0)
            snprintf(pairs, sizeof pairs, "%.1f%%", 100 * s->density / s->clips);
        printf("| `%s` | %s | %.2f | %.1f, %.1f | %.3f, %.3f | %s |\n", rows[i], pairs, s->work / s->clips, s->psnr / s->clips,
               s->worst_psnr, s->ssim / s->clips, s->worst_ssim, s->note);
    }
}

static void measure(gv_session *s, const gv_model *m, const struct suite *suite, int n, const char *const *rows)
{
    static struct sums sums[MOST_ROWS];

    for (int prompt = 0; prompt < n; prompt++) {
        struct clip exact, c;
        if (!render(&exact, s, m, suite, prompt, NULL))
            return;
        printf("%d exact: %d frames of %dx%d, %.1f s of processor up to the latents\n", prompt, exact.frames, exact.width,
               exact.height, exact.denoised);
        for (int i = 0; rows[i]; i++) {
            if (render(&c, s, m, suite, prompt, rows[i]))
                compare(&sums[i], rows[i], prompt, &c, &exact);
            free(c.rgb);
        }
        free(exact.rgb);
    }
    print_table(suite, rows, sums);
}

static const struct suite *find(const char *name)
{
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
        if (!strcmp(suites[i].name, name))
            return &suites[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const struct suite *suite = argc > 2 ? find(argv[2]) : NULL;
    const char         *rows[MOST_ROWS + 1] = { 0 };
    const int           n = argc > 3 ? atoi(argv[3]) : 4;
    gv_engine          *e = NULL;
    gv_model           *m = NULL;
    gv_session         *s = NULL;
    char                why[512] = "";

    if (!suite || n < 1 || n > MOST_PROMPTS || argc > MOST_ROWS) {
        fprintf(stderr, "bench_shortcuts MODEL clip|clip50|steps|few|causal [PROMPTS 1..%d [ATTENTION+CACHE...]]\n",
                MOST_PROMPTS);
        return 2;
    }
    for (int i = 4; i < argc; i++)
        rows[i - 4] = argv[i];
    gv_status st = gv_engine_open(NULL, &e, why, sizeof why);
    if (!st)
        st = gv_model_load(e, argv[1], &m, why, sizeof why);
    if (!st)
        st = gv_session_open(e, &s);
    if (st)
        fprintf(stderr, "bench_shortcuts: %s\n", why);
    else
        measure(s, m, suite, n, rows[0] ? rows : suite->row);
    gv_session_close(&s);
    gv_engine_close(&e);
    return st ? 1 : 0;
}
