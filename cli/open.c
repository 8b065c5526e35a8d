/* Failures while a model loads are the model's, whatever the code; a session's follow the code. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "open.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int cli_status_exit(gv_status status)
{
    switch (status) {
    case GV_OK: return EXIT_OK;
    case GV_ERR_ARGUMENT: return EXIT_USAGE;
    case GV_ERR_UNSUPPORTED: return EXIT_USAGE; /* it is the request that has to change */
    case GV_ERR_FORMAT: return EXIT_DATA;
    case GV_ERR_MODEL: return EXIT_MODEL;
    case GV_ERR_IO: return EXIT_IO;
    case GV_ERR_MEMORY: return EXIT_RESOURCE;
    case GV_ERR_DEVICE: return EXIT_RESOURCE;
    case GV_ERR_CANCELLED: return EXIT_CANCELLED;
    case GV_ERR_INTERNAL: return EXIT_INTERNAL;
    }
    return EXIT_INTERNAL;
}

/* While a model loads, a file that is missing, broken or of an unknown family is the model's fault. */
static int load_exit(gv_status status)
{
    switch (status) {
    case GV_ERR_IO:
    case GV_ERR_FORMAT:
    case GV_ERR_UNSUPPORTED: return EXIT_MODEL;
    default: return cli_status_exit(status);
    }
}

int cli_open_engine(struct cli_open *c, const struct cli_args *a)
{
    char             why[1024] = "";
    gv_engine_params p;
    gv_engine_params_init(&p);
    p.device           = a->device;
    p.threads          = (int)a->threads;
    p.device_budget    = (uint64_t)a->budget;
    p.log_level        = c->printer.level;
    p.log              = cli_log;
    p.log_user         = &c->printer;
    p.precision        = a->precision;
    p.cpu_level        = a->cpu_level;
    const gv_status st = gv_engine_open(&p, &c->engine, why, sizeof why);
    return st == GV_OK ? EXIT_OK : cli_fail(&c->printer, cli_status_exit(st), "%s", why);
}

/* ---- the default model --------------------------------------------------------------------------------------------- */

static bool holds(const char *dir, const char *name)
{
    char        file[CLI_PATH + 32];
    struct stat st;
    snprintf(file, sizeof file, "%s/%s", dir, name);
    return stat(file, &st) == 0 && S_ISREG(st.st_mode);
}

static bool holds_video_model(const char *dir)
{
    return holds(dir, "model_index.json");
}

/* Folder of this program, without the slash; "" if the system does not say. */
static void program_dir(char *out, size_t size)
{
    const ssize_t n    = readlink("/proc/self/exe", out, size - 1);
    out[n > 0 ? n : 0] = 0;
    char *slash        = strrchr(out, '/');
    if (slash)
        *slash = 0;
}

static bool try_dir(struct cli_open *c, const char *program, const char *relative)
{
    char       dir[CLI_PATH];
    const int  n     = snprintf(dir, sizeof dir, "%s/%s", program, relative);
    char      *whole = n > 0 && (size_t)n < sizeof dir ? realpath(dir, NULL) : NULL;
    const bool fits  = whole && holds_video_model(whole) && strlen(whole) < sizeof c->dir;
    if (fits)
        strcpy(c->dir, whole);
    free(whole);
    return fits;
}

int cli_find_model(struct cli_open *c, const char *path)
{
    char        program[CLI_PATH];
    const char *wanted = path ? path : getenv("GENVID_MODEL");
    if (wanted && *wanted) {
        if (strlen(wanted) >= sizeof c->dir)
            return cli_fail(&c->printer, EXIT_MODEL, "the model's path is longer than %d bytes", CLI_PATH - 1);
        strcpy(c->dir, wanted);
        if (access(wanted, R_OK) != 0)
            return cli_fail(&c->printer, EXIT_MODEL, "the model \"%s\"%s cannot be read: %s", wanted,
                            path ? "" : " (from GENVID_MODEL)", strerror(errno));
        return EXIT_OK;
    }
    program_dir(program, sizeof program);
    if (try_dir(c, program, "../share/genvid/models") || try_dir(c, program, "../assets/models"))
        return EXIT_OK;
    return cli_fail(&c->printer, EXIT_MODEL,
                    "no model: give one with --model DIR or in GENVID_MODEL (there is none in "
                    "share/genvid/models or assets/models beside \"%s\")",
                    program);
}

/* A video model carries the captioner that knows its world in its own folder. */
static int find_captioner(struct cli_open *c, const char *path, const char *option)
{
    static const char part[] = "/captioner";
    const int         status = cli_find_model(c, path);
    const size_t      n      = strlen(c->dir);
    if (status != EXIT_OK || !holds_video_model(c->dir))
        return status;
    if (n + sizeof part <= sizeof c->dir)
        memcpy(c->dir + n, part, sizeof part);
    if (holds(c->dir, "config.json"))
        return EXIT_OK;
    c->dir[n] = 0;
    return cli_fail(&c->printer, EXIT_MODEL,
                    "no captioner: \"%s\" is a video model and has none in its folder captioner; give one with %s "
                    "(Qwen2.5-VL, Qwen2-VL or LLaVA-OneVision)",
                    c->dir, option);
}

static int load(struct cli_open *c)
{
    char            why[1024] = "";
    const gv_status st        = gv_model_load(c->engine, c->dir, &c->model, why, sizeof why);
    return st == GV_OK ? EXIT_OK : cli_fail(&c->printer, load_exit(st), "%s", why);
}

int cli_open_model(struct cli_open *c, const char *path)
{
    const int status = cli_find_model(c, path);
    return status == EXIT_OK ? load(c) : status;
}

int cli_open_captioner(struct cli_open *c, const char *path, const char *option)
{
    const int status = find_captioner(c, path, option);
    return status == EXIT_OK ? load(c) : status;
}

int cli_open_session(struct cli_open *c)
{
    const gv_status st = gv_session_open(c->engine, &c->session);
    return st == GV_OK ? EXIT_OK : cli_fail(&c->printer, cli_status_exit(st), "no session: %s", gv_status_name(st));
}

void cli_close(struct cli_open *c)
{
    gv_session_close(&c->session);
    gv_model_unload(&c->model);
    gv_engine_close(&c->engine);
}

json_t *cli_json_take(char *text)
{
    json_t *json = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    gv_free(text);
    return json;
}
