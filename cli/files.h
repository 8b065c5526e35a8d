/* The files that words of the command line name: a word that is a folder becomes the pictures and clips that lie in it, by name. */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include "progress.h"

struct cli_files {
    char **path;
    size_t n, room;
};

/* Words from number `first` on. Every one is there and can be read, or nothing begins. Folders are not entered further; files in them are known by their
 * extensions, in the order of their names. Returns an exit status and has printed the reason. */
int  cli_files_find(struct cli_files *f, struct cli_printer *p, const struct cli_args *a, int first);
void cli_files_free(struct cli_files *f);

#endif
