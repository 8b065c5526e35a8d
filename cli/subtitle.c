/* Sources: WebVTT (W3C), sections 4 and 6; SubRip as players have it: a comma before the milliseconds, CRLF is not needed. */
#include "subtitle.h"

static void put_time(FILE *out, enum cli_subtitle kind, double seconds)
{
    const long long ms = (long long)(seconds * 1000 + 0.5);
    fprintf(out, "%02lld:%02lld:%02lld%c%03lld", ms / 3600000, ms / 60000 % 60, ms / 1000 % 60,
            kind == SUBTITLE_SRT ? ',' : '.', ms % 1000);
}

static void put_text(FILE *out, enum cli_subtitle kind, const char *text)
{
    char last = '\n';
    for (const char *at = text; *at; at++) {
        const unsigned char b = (unsigned char)*at;
        if (b == '\n' && last == '\n')
            continue;
        last = *at;
        if (kind == SUBTITLE_VTT && (b == '&' || b == '<' || b == '>'))
            fputs(b == '&' ? "&amp;" : b == '<' ? "&lt;" : "&gt;", out);
        else if (kind == SUBTITLE_SRT && b == '>' && at > text + 1 && at[-1] == '-' && at[-2] == '-')
            fputs(" >", out); /* "-->" would be read as times */
        else
            fputc((b < 32 && b != '\n' && b != '\t') || b == 127 ? '?' : b, out);
    }
    fputs(last == '\n' ? "\n" : "\n\n", out);
}

void cli_subtitle_put(FILE *out, enum cli_subtitle kind, int i, const struct cli_cue *cue)
{
    if (kind == SUBTITLE_VTT && i == 0)
        fputs("WEBVTT\n\n", out);
    if (kind == SUBTITLE_SRT)
        fprintf(out, "%d\n", i + 1);
    put_time(out, kind, cue->start);
    fputs(" --> ", out);
    put_time(out, kind, cue->end);
    fputc('\n', out);
    put_text(out, kind, cue->text);
}
