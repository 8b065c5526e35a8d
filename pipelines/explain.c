/* What would surprise you: a word's map is the mean over its tokens; its colours are relative to its own strongest cell, so "the" looks
 * as sure as "cat": "picture_share" in the JSON says how much of the attention was on pictures at all. Files are made in a folder of
 * their own within the wanted one and moved up together, the JSON and the page last; files of the same names are replaced. */
#include "pipelines/explain.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/image.h"
#include "io/sink.h"

enum { PATH = 4096, NAME = 96 };

/* ---- words ---- */

static bool in_word(const char *text, size_t i)
{
    const unsigned char c = (unsigned char)text[i];
    const bool          joint = (c == '\'' || c == '-') && i > 0 && isalnum((unsigned char)text[i - 1]);
    return c >= 0x80 || isalnum(c) || (joint && isalnum((unsigned char)text[i + 1]));
}

gv_status gv_explain_words(struct explain_word **words, int *n_words, const char *text, const size_t *end, int n,
                           struct error *e)
{
    const size_t length = strlen(text);
    *n_words = 0;
    if (!(*words = malloc((length + 1) * sizeof **words)))
        return gv_fail(e, GV_ERR_MEMORY, "no memory for the words of %zu bytes", length);
    for (size_t at = 0; at < length;) {
        struct explain_word w = { .first = at };
        while (in_word(text, at + w.bytes))
            w.bytes++;
        at += w.bytes ? w.bytes : 1;
        while (w.token < n && end[w.token] <= w.first)
            w.token++;
        /* tokens that ended within the word's first character: nothing was whole after them yet */
        while (w.token > 0 && end[w.token - 1] == w.first && (w.token > 1 ? end[w.token - 2] : 0) == w.first)
            w.token--;
        for (int t = w.token; t < n && (t == w.token || end[t - 1] < w.first + w.bytes); t++)
            w.tokens++;
        if (w.bytes && w.tokens)
            (*words)[(*n_words)++] = w;
    }
    return GV_OK;
}

/* ---- maps ---- */

struct explain_grid gv_explain_grid(const struct vlm_media *m)
{
    const struct prune_lattice *l = &m->lattice;
    if (l->base && m->tokens - l->base > l->row) /* tiles behind their overview; each row ends in a newline */
        return (struct explain_grid){ l->base, 0, l->row, 1, (int)((m->tokens - l->base) / l->row), l->row - 1 };
    if (l->base)
        return (struct explain_grid){ 0, 0, l->base_row, 1, (int)(l->base / l->base_row), l->base_row };
    return (struct explain_grid){ 0, m->step_tokens, l->row, m->grid.t, (int)(m->step_tokens / l->row), l->row };
}

static int64_t token_at(const struct explain_grid *g, int t, int y, int x)
{
    return g->first + t * g->step + y * g->pitch + x;
}

/* heat [trace->n]: mean over the word's tokens; returns the share of the attention that was on pictures. */
static double word_heat(double *heat, const struct trace *t, const struct explain_word *w)
{
    double share = 0;
    memset(heat, 0, (size_t)t->n * sizeof *heat);
    for (int k = w->token; k < w->token + w->tokens && k < t->rows; k++) {
        share += t->mass[k] / w->tokens;
        for (int64_t i = 0; i < t->n; i++)
            heat[i] += (double)t->heat[k * t->n + i] / w->tokens;
    }
    return share;
}

struct peak {
    int    t, y, x;
    double heat;
};

static struct peak find_peak(const double *heat, const struct explain_grid *g)
{
    struct peak p = { .heat = -1 };
    for (int t = 0; t < g->steps; t++)
        for (int y = 0; y < g->rows; y++)
            for (int x = 0; x < g->columns; x++)
                if (heat[token_at(g, t, y, x)] > p.heat)
                    p = (struct peak){ t, y, x, heat[token_at(g, t, y, x)] };
    return p;
}

/* ---- overlays ---- */

/* viridis (van der Walt and Smith, CC0), at nine even places; v in 0..1. */
static void colour(double rgb[3], double v)
{
    static const uint8_t table[9][3] = { { 68, 1, 84 },    { 71, 44, 122 },  { 59, 81, 139 },
                                         { 44, 113, 142 }, { 33, 144, 141 }, { 39, 173, 129 },
                                         { 92, 200, 99 },  { 170, 220, 50 }, { 253, 231, 37 } };
    const int            i = v >= 1 ? 7 : (int)(v * 8);
    for (int c = 0; c < 3; c++)
        rgb[c] = table[i][c] + (v * 8 - i) * (table[i + 1][c] - table[i][c]);
}

/* Between the middles of the cells. */
static double sample(const double *heat, const struct explain_grid *g, int t, double y, double x)
{
    const double cy = fmin(fmax(y * g->rows - 0.5, 0), g->rows - 1), cx = fmin(fmax(x * g->columns - 0.5, 0), g->columns - 1);
    const int    y0 = (int)cy, x0 = (int)cx, y1 = y0 + 1 < g->rows ? y0 + 1 : y0, x1 = x0 + 1 < g->columns ? x0 + 1 : x0;
    const double fy = cy - y0, fx = cx - x0;
    return (1 - fy) * ((1 - fx) * heat[token_at(g, t, y0, x0)] + fx * heat[token_at(g, t, y0, x1)]) +
           fy * ((1 - fx) * heat[token_at(g, t, y1, x0)] + fx * heat[token_at(g, t, y1, x1)]);
}

/* The picture, the more coloured the hotter: nothing at 0, three quarters at `most`. */
static void paint_over(struct image *im, const double *heat, const struct explain_grid *g, int t, double most)
{
    for (int y = 0; y < im->height; y++)
        for (int x = 0; x < im->width; x++) {
            uint8_t     *p = im->rgb + 3 * ((size_t)y * (size_t)im->width + (size_t)x);
            const double v = most > 0 ? sample(heat, g, t, (y + 0.5) / im->height, (x + 0.5) / im->width) / most : 0;
            double       c[3];
            colour(c, v);
            for (int k = 0; k < 3; k++)
                p[k] = (uint8_t)(p[k] + 0.75 * v * (c[k] - p[k]) + 0.5);
        }
}

static gv_status write_overlay(const char *path, struct caption_media *m, const double *heat, struct error *e)
{
    const struct explain_grid g = gv_explain_grid(&m->media);
    const double              most = find_peak(heat, &g).heat;
    struct sink              *sink = NULL;
    TRY(gv_caption_media_rewind(m, e));
    const int frames = m->media.video ? m->media.frames : 1;
    gv_status status = gv_sink_open(&sink,
                                    &(struct sink_params){ .path = path,
                                                           .width = m->media.width,
                                                           .height = m->media.height,
                                                           .fps = m->media.video ? frames / m->seconds : 1,
                                                           .frames = frames,
                                                           .crf = -1 },
                                    e);
    for (int i = 0; i < frames && !status; i++) {
        struct image im = { 0 };
        status = gv_caption_media_frame(m, &im, e);
        if (!status) {
            const int t = i / m->media.step_frames;
            paint_over(&im, heat, &g, t < g.steps ? t : g.steps - 1, most);
            status = gv_sink_write(sink, im.rgb, e);
        }
        gv_image_free(&im);
    }
    if (!status)
        status = gv_sink_commit(sink, NULL, e);
    gv_sink_close(&sink);
    return status;
}

/* ---- the folder ---- */

struct work {
    const struct explain *x;
    char                  folder[PATH]; /* while it is made */
    json_t               *words;        /* and the names of their files, for moving them */
    double               *heat;
    struct explain_word  *word;
    int                   n_words;
};

static gv_status make_folders(const char *path, struct error *e)
{
    char part[PATH];
    if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part - NAME - 32)
        return gv_fail(e, GV_ERR_IO, "%.200s: the path is too long", path);
    for (char *at = part + 1; *part; at++)
        if (*at == '/' || !*at) {
            const char was = *at;
            *at = 0;
            if (mkdir(part, 0777) && errno != EEXIST)
                return gv_fail(e, GV_ERR_IO, "%s: cannot be made: %s", part, strerror(errno));
            if (!(*at = was))
                break;
        }
    return GV_OK;
}

/* "03-cat.png"; of several pictures "03-cat.2.mp4". Only letters and digits of the word. */
static void file_name(char name[NAME], const struct work *w, int word, int media)
{
    const struct explain_word *it = &w->word[word];
    char                       plain[33], which[16] = "";
    int                        n = 0;
    for (size_t i = 0; i < it->bytes && n < 32; i++)
        if (isalnum((unsigned char)w->x->text[it->first + i]) && (unsigned char)w->x->text[it->first + i] < 0x80)
            plain[n++] = w->x->text[it->first + i];
    plain[n] = 0;
    if (w->x->n_media > 1)
        snprintf(which, sizeof which, ".%d", media + 1);
    snprintf(name, NAME, "%02d%s%s%s.%s", word + 1, n ? "-" : "", plain, which, w->x->media[media].media.video ? "mp4" : "png");
}

static json_t *map_json(const double *heat, const struct explain_grid *g)
{
    json_t *steps = json_array();
    for (int t = 0; t < g->steps; t++) {
        json_t *rows = json_array();
        for (int y = 0; y < g->rows; y++) {
            json_t *values = json_array();
            for (int x = 0; x < g->columns; x++)
                json_array_append_new(values, json_real(heat[token_at(g, t, y, x)]));
            json_array_append_new(rows, values);
        }
        json_array_append_new(steps, rows);
    }
    return steps;
}

/* One word over one picture or clip: its file and what the JSON says of it. */
static json_t *place_json(const struct work *w, int word, int media, const double *heat)
{
    const struct caption_media *m = &w->x->media[media];
    const struct explain_grid   g = gv_explain_grid(&m->media);
    const struct peak           p = find_peak(heat, &g);
    char                        name[NAME];
    file_name(name, w, word, media);
    const double seconds = m->media.video ? m->start + p.t * m->media.seconds : 0;
    return json_pack("{s:i, s:s, s:{s:f, s:f, s:f, s:f}, s:o}", "media", media, "overlay", name, "peak", "x",
                     (p.x + 0.5) / g.columns, "y", (p.y + 0.5) / g.rows, "seconds", seconds, "heat", p.heat, "map",
                     map_json(heat, &g));
}

static gv_status write_word(struct work *w, int word, struct error *e)
{
    const struct explain *x = w->x;
    const double          share = word_heat(w->heat, x->trace, &w->word[word]);
    json_t               *places = json_array();
    gv_status             status = GV_OK;
    int64_t               at = 0;
    for (int i = 0; i < x->n_media && !status; at += x->media[i++].media.tokens) {
        char name[NAME], path[PATH];
        file_name(name, w, word, i);
        if ((size_t)snprintf(path, sizeof path, "%s/%s", w->folder, name) >= sizeof path)
            status = gv_fail(e, GV_ERR_IO, "%.200s: the path is too long", x->folder);
        if (!status)
            status = write_overlay(path, &x->media[i], w->heat + at, e);
        if (!status && json_array_append_new(places, place_json(w, word, i, w->heat + at)))
            status = gv_fail(e, GV_ERR_MEMORY, "no memory for the map of a word");
    }
    const struct explain_word *it = &w->word[word];
    json_t *o = json_pack("{s:s%, s:I, s:i, s:f, s:o}", "word", x->text + it->first, it->bytes, "at", (json_int_t)it->first,
                          "tokens", it->tokens, "picture_share", share, "places", places);
    if (json_array_append_new(w->words, o) && !status)
        status = gv_fail(e, GV_ERR_MEMORY, "no memory for the map of a word");
    if (!status && x->step && !x->step(x->user, word + 1, w->n_words))
        status = gv_fail(e, GV_ERR_CANCELLED, "cancelled by the progress callback");
    return status;
}

static gv_status write_json(const struct work *w, struct error *e)
{
    const struct explain *x = w->x;
    json_t               *media = json_array();
    char                  path[PATH + 16];
    for (int i = 0; i < x->n_media; i++) {
        const struct caption_media *m = &x->media[i];
        const struct explain_grid   g = gv_explain_grid(&m->media);
        json_array_append_new(media,
                              json_pack("{s:o, s:i, s:i, s:i, s:f, s:f, s:[i,i,i]}", "path", json_string_nocheck(m->path),
                                        "width", m->media.width, "height", m->media.height, "frames", m->media.frames, "start",
                                        m->start, "seconds", m->seconds, "grid", g.steps, g.rows, g.columns));
    }
    json_t *o = json_pack("{s:s, s:o, s:i, s:f, s:i, s:o, s:O}", "genvid", "explain", "text", json_string_nocheck(x->text),
                          "strongest_looks", x->trace->opts.best, "subset_share", x->trace->opts.share, "subsets",
                          x->trace->opts.subsets, "media", media, "words", w->words);
    snprintf(path, sizeof path, "%s/explain.json", w->folder);
    gv_status status = o ? GV_OK : gv_fail(e, GV_ERR_MEMORY, "no memory for explain.json");
    if (o && json_dump_file(o, path, JSON_COMPACT | JSON_REAL_PRECISION(9)))
        status = gv_fail(e, GV_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    snprintf(path, sizeof path, "%s/index.html", w->folder);
    if (!status)
        status = gv_explain_page(o, path, e);
    json_decref(o);
    return status;
}

/* fn for every file, those of all words last. */
static gv_status each_file(const struct work *w, gv_status (*fn)(const struct work *w, const char *name, struct error *e),
                           struct error      *e)
{
    for (int i = 0; i < w->n_words; i++)
        for (int k = 0; k < w->x->n_media; k++) {
            char name[NAME];
            file_name(name, w, i, k);
            TRY(fn(w, name, e));
        }
    TRY(fn(w, "explain.json", e));
    return fn(w, "index.html", e);
}

static gv_status move_up(const struct work *w, const char *name, struct error *e)
{
    char from[PATH + NAME], to[PATH + NAME];
    snprintf(from, sizeof from, "%s/%s", w->folder, name);
    snprintf(to, sizeof to, "%s/%s", w->x->folder, name);
    return rename(from, to) ? gv_fail(e, GV_ERR_IO, "%s: cannot be written: %s", to, strerror(errno)) : GV_OK;
}

static gv_status throw_away(const struct work *w, const char *name, struct error *e)
{
    char path[PATH + NAME];
    (void)e;
    snprintf(path, sizeof path, "%s/%s", w->folder, name);
    remove(path);
    return GV_OK;
}

static gv_status write_all(struct work *w, struct error *e)
{
    gv_status status = GV_OK;
    for (int i = 0; i < w->n_words && !status; i++)
        status = write_word(w, i, e);
    if (!status)
        status = write_json(w, e);
    if (!status)
        status = each_file(w, move_up, e);
    if (status)
        each_file(w, throw_away, NULL);
    return status;
}

gv_status gv_explain_write(const struct explain *x, struct error *e)
{
    struct work w = { .x = x };
    TRY(gv_explain_words(&w.word, &w.n_words, x->text, x->end, x->tokens, e));
    w.heat = malloc((size_t)(x->trace->n + 1) * sizeof *w.heat);
    w.words = json_array();
    gv_status status = w.heat && w.words ? make_folders(x->folder, e) : gv_fail(e, GV_ERR_MEMORY, "no memory for heat maps");
    if (!status) {
        snprintf(w.folder, sizeof w.folder, "%s/.explain-XXXXXX", x->folder);
        if (!mkdtemp(w.folder))
            status = gv_fail(e, GV_ERR_IO, "%s: cannot be written: %s", x->folder, strerror(errno));
        else
            status = write_all(&w, e);
        rmdir(w.folder);
        if (status)
            rmdir(x->folder); /* goes only if it is empty */
    }
    json_decref(w.words);
    free(w.heat);
    free(w.word);
    return status;
}
