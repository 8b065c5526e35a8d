/* Texts with their times, as players read them: SubRip (SRT) and WebVTT. */
#ifndef CLI_SUBTITLE_H
#define CLI_SUBTITLE_H

#include <stdio.h>

enum cli_subtitle { SUBTITLE_SRT, SUBTITLE_VTT };

struct cli_cue {
    double start, end; /* seconds */
    char  *text;
};

/* The i-th cue, from 0; VTT's first brings the file's head. Blank lines in a text, which would end its cue, are left out, control
 * characters are printed as "?", and what VTT reads as markup is escaped. */
void cli_subtitle_put(FILE *out, enum cli_subtitle kind, int i, const struct cli_cue *cue);

#endif
