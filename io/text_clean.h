/* Prompt cleaning as Wan and diffusers do it: ftfy.fix_text, html.unescape twice, strip, runs of white space to one space.
 * The mojibake repair of ftfy is left out (its badness test almost never fires on prompts). Sources: rspeer/python-ftfy
 * 6.3, diffusers pipeline_wan.py prompt_clean. */
#ifndef GV_IO_TEXT_CLEAN_H
#define GV_IO_TEXT_CLEAN_H

#include "core/status.h"

/* The cleaned text, freed with free(). Bytes that are not UTF-8 become U+FFFD. Errors: MEMORY, ARGUMENT (too long). */
gv_status gv_text_clean(const char *text, char **out, struct error *e);

#endif
