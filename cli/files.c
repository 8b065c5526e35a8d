#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_media(const char *name)
{
    static const char *const known[] = { ".png", ".jpg", ".jpeg", ".webp", ".bmp",  ".tif", ".tiff", ".gif",
                                         ".mp4", ".m4v", ".mov",  ".mkv",  ".webm", ".avi", ".y4m" };
    const char              *dot = strrchr(name, '.');
    for (size_t i = 0; dot && dot != name && i < sizeof known / sizeof *known; i++)
        if (!strcasecmp(dot, known[i]))
            return true;
    return false;
}

static bool add(struct cli_files *f, const char *folder, const char *name)
{
    if (f->n == f->room) {
        const size_t room = f->room ? 2 * f->room : 64;
        char       **path = realloc(f->path, room * sizeof *path);
        if (!path)
            return false;
        f->path = path;
        f->room = room;
    }
    const size_t size = (folder ? strlen(folder) : 0) + strlen(name) + 2;
    if (!(f->path[f->n] = malloc(size)))
        return false;
    const bool slash = folder && folder[0] && folder[strlen(folder) - 1] != '/';
    snprintf(f->path[f->n++], size, "%s%s%s", folder ? folder : "", slash ? "/" : "", name);
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int no_memory(struct cli_printer *p)
{
    return cli_fail(p, EXIT_RESOURCE, "no memory for the names of the files");
}

static int add_folder(struct cli_files *f, struct cli_printer *p, const char *folder)
{
    const size_t   first = f->n;
    DIR           *dir = opendir(folder);
    struct dirent *d;
    bool           ok = true;
    if (!dir)
        return cli_fail(p, EXIT_NO_INPUT, "\"%s\" cannot be read: %s", folder, strerror(errno));
    while (ok && (d = readdir(dir)))
        if (is_media(d->d_name))
            ok = add(f, folder, d->d_name);
    closedir(dir);
    if (!ok)
        return no_memory(p);
    if (f->n == first)
        return cli_fail(p, EXIT_NO_INPUT, "\"%s\" is a folder without pictures or clips", folder);
    qsort(f->path + first, f->n - first, sizeof *f->path, by_name);
    return EXIT_OK;
}

int cli_files_find(struct cli_files *f, struct cli_printer *p, const struct cli_args *a, int first)
{
    for (int i = first; i < a->n_words; i++) {
        struct stat st;
        int         status = EXIT_OK;
        if (stat(a->words[i], &st) != 0 || access(a->words[i], R_OK) != 0)
            return cli_fail(p, EXIT_NO_INPUT, "\"%s\" cannot be read: %s", a->words[i], strerror(errno));
        if (S_ISDIR(st.st_mode))
            status = add_folder(f, p, a->words[i]);
        else if (!add(f, NULL, a->words[i]))
            status = no_memory(p);
        if (status != EXIT_OK)
            return status;
    }
    return EXIT_OK;
}

void cli_files_free(struct cli_files *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->path[i]);
    free(f->path);
    *f = (struct cli_files){ 0 };
}
