/* Estimates of the time to go are of the stage that runs, from its own pace: stages count in units that do not compare. */
#include "progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 1200, BAR = 24 };
static const double SECONDS_BETWEEN_LINES = 2; /* of plain progress, so that a log stays readable */

void cli_printer_open(struct cli_printer *p, const struct cli_args *a)
{
    const char *term = getenv("TERM");
    *p               = (struct cli_printer){ .json = a->json, .quiet = a->quiet };
    p->terminal      = !a->json && isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
    p->level         = a->verbose ? GV_LOG_DEBUG : a->quiet ? GV_LOG_WARN : GV_LOG_INFO;
    p->shown         = -SECONDS_BETWEEN_LINES;
    p->graphics = p->terminal && !a->quiet ? cli_graphics_of(STDERR_FILENO) : GRAPHICS_NONE;
}

/* ---- lines --------------------------------------------------------------------------------------------------------- */

/* With stderr locked: what is about to be printed begins on a line of its own. */
static void clear_line(struct cli_printer *p)
{
    if (p->line_open)
        fputs("\r\033[K", stderr);
    p->line_open = false;
}

static void put_line(struct cli_printer *p, const char *before, const char *text)
{
    flockfile(stderr);
    clear_line(p);
    fprintf(stderr, "%s%s\n", before, text);
    p->picture_rows = 0;
    funlockfile(stderr);
}

void cli_show(struct cli_printer *p, const struct cli_pixels *pixels)
{
    flockfile(stderr);
    clear_line(p);
    if (p->picture_rows)
        fprintf(stderr, "\033[%dA", p->picture_rows);
    p->picture_rows = cli_picture_draw(stderr, p->graphics, pixels);
    fflush(stderr);
    funlockfile(stderr);
}

void cli_event(struct cli_printer *p, json_t *event)
{
    char *line = event ? json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(event);
    if (line)
        put_line(p, "", line);
    free(line);
}

void cli_log(void *printer, gv_log_level level, const char *message)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };
    struct cli_printer      *p       = printer;
    if (level > p->level)
        return;
    if (p->json)
        cli_event(p, json_pack("{ss, ss, so}", "event", "log", "level", names[level], "message", cli_json_text(message)));
    else
        put_line(p, level == GV_LOG_WARN ? "genvid: warning: " : "genvid: ", message);
}

void cli_say(struct cli_printer *p, const char *fmt, ...)
{
    char    line[LINE];
    va_list args;
    if (p->quiet || p->json)
        return;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    put_line(p, "", line);
}

int cli_fail(struct cli_printer *p, int status, const char *fmt, ...)
{
    char    line[LINE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (p->json)
        cli_event(p, json_pack("{ss, si, so}", "event", "error", "exit", status, "message", cli_json_text(line)));
    else
        put_line(p, "genvid: ", line);
    return status;
}

/* ---- progress ------------------------------------------------------------------------------------------------------ */

static void clock_text(char *out, size_t size, double seconds)
{
    const long s = seconds > 0 ? (long)(seconds + 0.5) : 0;
    if (s < 3600)
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

static void draw(struct cli_printer *p, const gv_progress *g, double eta)
{
    char      bar[BAR + 1], left[32];
    const int full = g->total > 0 ? (int)(g->done * BAR / g->total) : 0;
    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '-';
    bar[BAR] = 0;
    clock_text(left, sizeof left, eta);
    clear_line(p);
    fprintf(stderr, "%-8s [%s] %lld/%lld", g->stage, bar, (long long)g->done, (long long)g->total);
    if (eta >= 0)
        fprintf(stderr, "  %s to go", left);
    fflush(stderr);
    p->line_open = true;
}

static void write_plain(struct cli_printer *p, const gv_progress *g, double eta, bool first)
{
    if (!first && g->done < g->total && g->seconds - p->shown < SECONDS_BETWEEN_LINES)
        return;
    fprintf(stderr, "%s %lld/%lld, %.1f s", g->stage, (long long)g->done, (long long)g->total, g->seconds);
    if (eta >= 0 && g->done < g->total)
        fprintf(stderr, ", about %.0f s to go", eta);
    fputc('\n', stderr);
    p->shown = g->seconds;
}

static json_t *progress_event(const gv_progress *g, double eta)
{
    json_t *event = json_pack("{ss, so, sI, sI, sf}", "event", "progress", "stage", cli_json_text(g->stage), "done",
                              (json_int_t)g->done, "total", (json_int_t)g->total, "seconds", g->seconds);
    if (event && eta >= 0)
        json_object_set_new(event, "eta", json_real(eta));
    return event;
}

void cli_progress(struct cli_printer *p, const gv_progress *g)
{
    const bool first = strcmp(p->stage, g->stage) != 0;
    if (first) {
        snprintf(p->stage, sizeof p->stage, "%s", g->stage);
        p->stage_start = g->done ? p->seen : g->seconds;
    }
    p->seen          = g->seconds;
    const double eta = g->done ? (g->seconds - p->stage_start) / (double)g->done * (double)(g->total - g->done) : -1;
    if (p->quiet)
        return;
    if (p->json) {
        cli_event(p, progress_event(g, eta));
        return;
    }
    flockfile(stderr);
    if (p->terminal)
        draw(p, g, eta);
    else
        write_plain(p, g, eta, first);
    funlockfile(stderr);
}

void cli_progress_end(struct cli_printer *p)
{
    flockfile(stderr);
    clear_line(p);
    fflush(stderr);
    funlockfile(stderr);
}

/* ---- text that may be anything ------------------------------------------------------------------------------------- */

size_t cli_utf8_length(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    const size_t         n = s[0] < 0x80                   ? 1
                             : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                             : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
                             : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                                           : 0;
    if (!s[0] || !n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    const bool too_long = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    const bool too_far  = (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF4 && s[1] > 0x8F);
    return too_long || too_far ? 0 : n;
}

json_t *cli_json_text(const char *text)
{
    if (!text)
        return json_null();
    char *clean = malloc(strlen(text) * 3 + 1), *out = clean;
    if (!clean)
        return json_null();
    while (*text) {
        const size_t n = cli_utf8_length(text);
        memcpy(out, n ? text : "\xEF\xBF\xBD", n ? n : 3);
        out += n ? n : 3;
        text += n ? n : 1;
    }
    *out           = 0;
    json_t *string = json_string(clean);
    free(clean);
    return string;
}
