/* genvid without arguments on a terminal: the model stays loaded, a line is a prompt, and what begins with a colon is a command.
 *
 * Settings are the options of `genvid video`, read by the same table. A clip is made in a temporary folder and is gone with the session
 * unless it is saved. Prompts that come again are not encoded again: the library's session keeps them. Ctrl-C stops a render and
 * goes on with the session; Ctrl-D leaves it, and so do SIGTERM and SIGHUP. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "interrupt.h"
#include "line.h"
#include "output.h"
#include "request.h"

enum { MAX_SETTINGS = 128, THUMB_SIDE = 256, MAX_THUMBS = 600, PROMPT_LINE = 1 << 16 };

/* Frames of the last clip, small enough to keep. */
struct thumbs {
    int      width, height, n, room;
    uint8_t *rgb; /* [n, height, width, 3] */
};

struct session {
    struct cli_open    open;
    struct cli_args    args;
    char              *setting[MAX_SETTINGS]; /* "--name=value": args points into them; owned */
    int                n_settings;
    struct cli_request request;
    char               prompt[PROMPT_LINE], said[PROMPT_LINE]; /* to be made; of the clip that is there */
    char               folder[256], clip[CLI_PATH];            /* clip "": none */
    const char        *extension;
    int64_t            seed; /* of the clip */
    struct thumbs      thumbs;
    struct cli_check   check;             /* loaded for the first clip that is to be checked; stays */
    char               checker[CLI_PATH]; /* its --check-model; "": none was named */
    bool               leave;
};

/* Options of `genvid video` that mean nothing here, or belong to the start of the program. */
static bool is_setting(const struct cli_option *o)
{
    static const char *const others[] = { "prompt-file",  "output",  "overwrite",    "report",    "dry-run",
                                          "json",         "quiet",   "verbose",      "help",      "version",
                                          "device",       "threads", "precision",    "cpu-level", "budget",
                                          "print-config", "config",  "preview-file", "model" };
    if (!(o->commands & CLI_VIDEO))
        return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!strcmp(o->name, others[i]))
            return false;
    return true;
}

static const struct cli_option *setting_called(const char *name, size_t n)
{
    for (size_t i = 0; i < cli_n_options; i++)
        if (is_setting(&cli_options[i]) && strlen(cli_options[i].name) == n && !strncmp(cli_options[i].name, name, n))
            return &cli_options[i];
    return NULL;
}

/* ---- settings: the words of a command line, read anew whenever one changes ---- */

static bool read_settings(struct session *s, char *why, size_t size)
{
    cli_args_free(&s->args);
    cli_args_init(&s->args, cli_command_find("video"));
    return cli_args_parse(&s->args, s->n_settings, s->setting, why, size);
}

/* The name of a setting as "--name=value". */
static bool is_named(const char *setting, const char *name)
{
    const size_t n = strlen(name);
    return !strncmp(setting + 2, name, n) && (setting[2 + n] == '=' || !setting[2 + n]);
}

static void forget(struct session *s, const char *name)
{
    int kept = 0;
    for (int i = 0; i < s->n_settings; i++) {
        if (is_named(s->setting[i], name))
            free(s->setting[i]);
        else
            s->setting[kept++] = s->setting[i];
    }
    s->n_settings = kept;
}

/* --option may be there several times; of the others the last stays alone, and of those that exclude each other too. */
static void make_way(struct session *s, const struct cli_option *o)
{
    if (o->type != ARG_PAIR)
        forget(s, o->name);
    if (!strcmp(o->name, "frames"))
        forget(s, "seconds");
    if (!strcmp(o->name, "seconds"))
        forget(s, "frames");
}

static void add_setting(struct session *s, const struct cli_option *o, const char *value)
{
    char         why[512];
    const size_t room = strlen(o->name) + strlen(value) + 4;
    char        *word = malloc(room);
    if (word)
        snprintf(word, room, "--%s%s%s", o->name, o->type == ARG_FLAG ? "" : "=", value);
    char *alone[] = { word };
    cli_args_free(&s->args);
    cli_args_init(&s->args, cli_command_find("video"));
    if (word && s->n_settings < MAX_SETTINGS && cli_args_parse(&s->args, 1, alone, why, sizeof why)) {
        make_way(s, o);
        s->setting[s->n_settings++] = word;
    } else {
        cli_fail(&s->open.printer, EXIT_USAGE, "%s",
                 word && s->n_settings < MAX_SETTINGS ? why : "no room for another setting");
        free(word);
    }
    if (!read_settings(s, why, sizeof why))
        cli_fail(&s->open.printer, EXIT_USAGE, "%s", why);
}

static void list_settings(struct session *s)
{
    for (int i = 0; i < s->n_settings; i++)
        printf("  %s\n", s->setting[i] + 2);
    if (!s->n_settings)
        printf("  nothing is set: all is the model's own. :help set lists what there is\n");
}

/* ":set steps 8", ":set size=64x48", ":set verify" */
static void set(struct session *s, const char *text)
{
    const size_t             n = strcspn(text, " =");
    const char              *value = text + n + (text[n] != 0);
    const struct cli_option *o = setting_called(text, n);
    char                     word[64];
    value += strspn(value, " ");
    snprintf(word, sizeof word, "%.*s", (int)(n < 60 ? n : 60), text);
    if (!*text)
        list_settings(s);
    else if (!o) {
        const char *near = cli_nearest(word, CLI_VIDEO);
        cli_fail(&s->open.printer, EXIT_USAGE, "there is no setting \"%s\"%s%s%s; :help set lists them", word,
                 near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    } else if (o->type != ARG_FLAG && !*value)
        cli_fail(&s->open.printer, EXIT_USAGE, ":set %s needs a value: %s", o->name, o->value);
    else
        add_setting(s, o, o->type == ARG_FLAG ? "" : value);
}

static void unset(struct session *s, const char *name)
{
    char why[512];
    if (!setting_called(name, strlen(name)))
        cli_fail(&s->open.printer, EXIT_USAGE, "there is no setting \"%s\"; :set lists what is set", name);
    forget(s, name);
    read_settings(s, why, sizeof why);
}

/* ---- pictures ---- */

static void drop_thumbs(struct thumbs *t)
{
    free(t->rgb);
    *t = (struct thumbs){ 0 };
}

/* Every k-th pixel of every k-th row, which is enough for a terminal. */
static void keep_thumb(struct thumbs *t, const gv_frame *f)
{
    const int most = f->width > f->height ? f->width : f->height, k = (most + THUMB_SIDE - 1) / THUMB_SIDE;
    const int w = (f->width + k - 1) / k, h = (f->height + k - 1) / k;
    if (t->n == MAX_THUMBS)
        return;
    if (t->n == t->room) {
        const int room = t->room ? t->room * 2 : 32;
        uint8_t  *more = realloc(t->rgb, (size_t)room * (size_t)w * (size_t)h * 3);
        if (!more)
            return;
        t->rgb = more;
        t->room = room;
    }
    uint8_t *out = t->rgb + (size_t)t->n * (size_t)w * (size_t)h * 3;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, out += 3)
            memcpy(out, (const uint8_t *)f->pixels + (ptrdiff_t)y * k * f->stride + (ptrdiff_t)x * k * 3, 3);
    t->width = w, t->height = h;
    t->n++;
}

static void show(struct session *s, int frame)
{
    const struct thumbs *t = &s->thumbs;
    const size_t         row = (size_t)t->width * 3;
    if (!t->n) {
        cli_fail(&s->open.printer, EXIT_USAGE, "there is no clip yet: type a prompt");
        return;
    }
    if (frame < 0 || frame >= t->n) {
        cli_fail(&s->open.printer, EXIT_USAGE, "frame %d is not there; 0 to %d are", frame, t->n - 1);
        return;
    }
    if (s->open.printer.graphics == GRAPHICS_NONE) {
        cli_fail(&s->open.printer, EXIT_USAGE, "this terminal shows no pictures; :save writes the clip");
        return;
    }
    s->open.printer.picture_rows = 0;
    cli_show(&s->open.printer,
             &(struct cli_pixels){ t->width, t->height, t->rgb + (size_t)frame * row * (size_t)t->height, row });
    s->open.printer.picture_rows = 0;
}

/* ---- the render ---- */

static int on_progress(void *user, const gv_progress *progress)
{
    struct session *s = user;
    cli_progress(&s->open.printer, progress);
    return cli_interrupted();
}

static int on_frame(void *user, const gv_frame *f)
{
    struct session *s = user;
    if (f->preview)
        cli_show(&s->open.printer, &(struct cli_pixels){ f->width, f->height, f->pixels, (size_t)f->stride });
    else
        keep_thumb(&s->thumbs, f);
    return cli_interrupted();
}

static int on_made(void *user, const char *path, const char **note)
{
    struct session *s = user;
    return cli_check_made(&s->check, path, note);
}

static void remove_clip(struct session *s)
{
    if (*s->clip)
        remove(s->clip);
    *s->clip = 0;
    drop_thumbs(&s->thumbs);
}

static const char *can_write(const char *extension)
{
    json_t     *formats = cli_json_take(gv_output_formats());
    const char *found = NULL;
    for (size_t i = 0; i < json_array_size(formats); i++) {
        const char *e = json_string_value(json_object_get(json_array_get(formats, i), "extension"));
        if (e && !strcmp(*e == '.' ? e + 1 : e, extension))
            found = extension;
    }
    json_decref(formats);
    return found;
}

/* --seconds counts in the model's own frame rate unless fps is set. */
static gv_status settle_seconds(struct session *s)
{
    gv_video_request *q = &s->request.q;
    gv_estimate       e;
    gv_estimate_init(&e);
    if (s->args.seconds <= 0)
        return GV_OK;
    const gv_status st = gv_video_estimate(s->open.session, q, &e);
    if (st == GV_OK)
        q->frames = (int)(s->args.seconds * e.fps + 0.5) > 0 ? (int)(s->args.seconds * e.fps + 0.5) : 1;
    return st;
}

static void say_clip(struct session *s)
{
    char         *text = gv_session_report(s->open.session);
    json_t       *report = cli_json_take(text);
    const json_t *settings = json_object_get(report, "settings");
    cli_say(&s->open.printer,
            "%lldx%lld, %lld frames, %lld steps, seed %lld: %.1f s. :save keeps it; an empty line makes another",
            (long long)json_integer_value(json_object_get(settings, "width")),
            (long long)json_integer_value(json_object_get(settings, "height")),
            (long long)json_integer_value(json_object_get(settings, "frames")),
            (long long)json_integer_value(json_object_get(settings, "steps")), (long long)s->seed,
            json_number_value(json_object_get(report, "seconds")));
    json_decref(report);
}

static bool checks(const struct session *s)
{
    return s->args.check || s->args.check_model;
}

static int ready_check(struct session *s)
{
    const char *dir = s->args.check_model ? s->args.check_model : "";
    int         status = cli_check_output(&s->open.printer, &s->args, s->clip);
    if (status != EXIT_OK || (s->check.captioner.session && !strcmp(dir, s->checker)))
        return status;
    cli_check_close(&s->check);
    s->check = (struct cli_check){ 0 };
    status = cli_check_open(&s->check, &s->open, &s->args, s->prompt);
    snprintf(s->checker, sizeof s->checker, "%s", dir); /* a longer one was refused */
    return status;
}

static void render(struct session *s, int64_t seed)
{
    gv_video_request *q = &s->request.q;
    remove_clip(s);
    s->extension = s->args.format ? s->args.format : can_write("mp4") ? "mp4" : "y4m";
    snprintf(s->clip, sizeof s->clip, "%s/clip.%s", s->folder, s->extension);
    s->args.seed = s->seed = seed;
    if (checks(s) && ready_check(s) != EXIT_OK) {
        *s->clip = 0;
        return;
    }
    cli_request_fill(&s->request, &s->args, s->open.model);
    q->prompt = s->prompt;
    q->output_path = s->clip;
    q->on_frame = on_frame;
    q->on_made = checks(s) ? on_made : NULL;
    q->progress = on_progress;
    q->user = s;
    if (s->open.printer.graphics == GRAPHICS_NONE)
        q->preview_every = 0;
    else if (!q->preview_every)
        q->preview_every = 1;
    cli_interrupt_session(s->open.session);
    gv_status st = settle_seconds(s);
    if (st == GV_OK)
        st = gv_video_generate(s->open.session, q);
    cli_interrupt_session(NULL);
    cli_progress_end(&s->open.printer);
    if (st == GV_OK) {
        strcpy(s->said, s->prompt);
        if (s->open.printer.picture_rows && s->thumbs.n) /* over the last preview */
            cli_show(&s->open.printer,
                     &(struct cli_pixels){ s->thumbs.width, s->thumbs.height,
                                           s->thumbs.rgb + (size_t)(s->thumbs.n / 2) * (size_t)s->thumbs.width *
                                                               (size_t)s->thumbs.height * 3,
                                           (size_t)s->thumbs.width * 3 });
        say_clip(s);
        if (checks(s))
            cli_check_say(&s->check);
    } else {
        *s->clip = 0;
        drop_thumbs(&s->thumbs);
        cli_fail(&s->open.printer, cli_status_exit(st), "%s",
                 st == GV_ERR_CANCELLED ? "stopped" : gv_session_message(s->open.session));
    }
}

/* The seed that is set, or another one each time. */
static void make(struct session *s)
{
    char why[512];
    read_settings(s, why, sizeof why); /* forgets the seed of the last clip */
    render(s, s->args.seed >= 0 ? s->args.seed : cli_chance());
}

static void again(struct session *s, const char *seed)
{
    char           *end = NULL;
    const long long n = *seed ? strtoll(seed, &end, 10) : cli_chance();
    if (!*s->prompt)
        cli_fail(&s->open.printer, EXIT_USAGE, "there is no prompt yet: type one");
    else if (*seed && (*end || n < 0))
        cli_fail(&s->open.printer, EXIT_USAGE, ":again is \"%s\"; expected a seed, a whole number from 0", seed);
    else
        render(s, n);
}

/* ---- saving ---- */

static bool copy_bytes(FILE *in, FILE *out)
{
    char   block[1 << 16];
    size_t n;
    while ((n = fread(block, 1, sizeof block, in)) > 0)
        if (fwrite(block, 1, n, out) != n)
            return false;
    return !ferror(in);
}

/* Under a temporary name in its folder first, because the clip lies on another disk perhaps. */
static bool copy_file(const char *from, const char *to)
{
    char  temporary[CLI_PATH + 8];
    FILE *in = fopen(from, "rb"), *out = NULL;
    snprintf(temporary, sizeof temporary, "%s.tmp", to);
    bool ok = in && (out = fopen(temporary, "wb")) && copy_bytes(in, out);
    if (out && fclose(out) != 0)
        ok = false;
    if (in)
        fclose(in);
    ok = ok && rename(temporary, to) == 0;
    if (!ok && out) {
        const int reason = errno;
        remove(temporary);
        errno = reason;
    }
    return ok;
}

static void save(struct session *s, const char *name)
{
    char                path[CLI_PATH];
    struct cli_args     a = { .output = *name ? name : NULL, .format = s->extension, .seed = s->seed };
    const char         *dot = strrchr(name, '.');
    struct cli_printer *p = &s->open.printer;
    if (!*s->clip) {
        cli_fail(p, EXIT_USAGE, "there is no clip to save: type a prompt");
        return;
    }
    if (*name && (!dot || strcmp(dot + 1, s->extension))) {
        cli_fail(p, EXIT_USAGE, "the clip is a .%s; a name for it ends in that (:set format makes others)", s->extension);
        return;
    }
    if (cli_output_choose(p, &a, s->said, path) != EXIT_OK)
        return;
    if (copy_file(s->clip, path))
        cli_say(p, "saved: %s", path);
    else
        cli_fail(p, EXIT_IO, "\"%s\" cannot be written: %s", path, strerror(errno));
}

/* ---- commands ---- */

static void leave(struct session *s, const char *text)
{
    (void)text;
    s->leave = true;
}

static void show_command(struct session *s, const char *text)
{
    show(s, *text ? atoi(text) : s->thumbs.n / 2);
}

static void info(struct session *s, const char *text)
{
    (void)text;
    printf("  model   %s\n  prompt  %s\n  clip    %s\n", s->open.dir, *s->prompt ? s->prompt : "none yet",
           *s->clip ? "made, not saved unless :save was said" : "none");
    list_settings(s);
}

static void help(struct session *s, const char *text);

static const struct command {
    const char *name, *value, *help;
    void (*run)(struct session *s, const char *text);
} commands[] = {
    { "set", "[NAME [VALUE]]", "what is set; or a setting, as `genvid help video` has them: :set steps 8", set },
    { "unset", "NAME", "back to the model's own", unset },
    { "again", "[SEED]", "the same prompt with another seed, or with this one; an empty line is :again", again },
    { "show", "[FRAME]", "a frame of the clip, the middle one when left out", show_command },
    { "save", "[FILE]", "keep the clip; its name is made of prompt and seed when left out", save },
    { "info", "", "model, prompt, settings", info },
    { "help", "[set]", "this text; :help set lists the settings", help },
    { "quit", "", "leave, as Ctrl-D does", leave },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void help(struct session *s, const char *text)
{
    (void)s;
    if (!strcmp(text, "set")) {
        for (size_t i = 0; i < cli_n_options; i++)
            if (is_setting(&cli_options[i]))
                printf("  :set %-16s %-12s %s\n", cli_options[i].name, cli_options[i].value ? cli_options[i].value : "",
                       cli_options[i].help);
        return;
    }
    printf("  A line is a prompt: it is made into a clip. Ctrl-C stops a render.\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  :%-5s %-15s %s\n", commands[i].name, commands[i].value, commands[i].help);
}

static void obey(struct session *s, const char *line)
{
    const size_t n = strcspn(line, " ");
    const char  *rest = line + n + strspn(line + n, " ");
    for (int i = 0; i < N_COMMANDS; i++)
        if (strlen(commands[i].name) == n && !strncmp(commands[i].name, line, n)) {
            commands[i].run(s, rest);
            return;
        }
    cli_fail(&s->open.printer, EXIT_USAGE, "there is no command \":%.*s\"; :help lists them", (int)(n < 40 ? n : 40), line);
}

static void take_line(struct session *s, char *line)
{
    size_t n = strlen(line);
    while (n && (line[n - 1] == ' ' || line[n - 1] == '\t' || line[n - 1] == '\r'))
        line[--n] = 0;
    line += strspn(line, " \t");
    if (*line == ':')
        obey(s, line + 1);
    else if (strlen(line) >= sizeof s->prompt)
        cli_fail(&s->open.printer, EXIT_USAGE, "the prompt has more than %d bytes", PROMPT_LINE - 1);
    else if (*line) {
        strcpy(s->prompt, line);
        make(s);
    } else if (*s->prompt)
        again(s, "");
}

/* ---- begin and end ---- */

/* ":set NAME " of every setting, and the commands: what Tab completes. Freed with free(), text and all. */
static char **completions(void)
{
    const size_t room = (size_t)N_COMMANDS + cli_n_options + 1, each = 40;
    char       **words = malloc(room * (sizeof *words + each));
    char        *text = words ? (char *)(words + room) : NULL;
    size_t       n = 0;
    for (int i = 0; words && i < N_COMMANDS; i++, text += each) {
        snprintf(text, each, ":%s%s", commands[i].name, *commands[i].value ? " " : "");
        words[n++] = text;
    }
    for (size_t i = 0; words && i < cli_n_options; i++)
        if (is_setting(&cli_options[i])) {
            snprintf(text, each, ":set %.30s ", cli_options[i].name);
            words[n++] = text;
            text += each;
        }
    if (words)
        words[n] = NULL;
    return words;
}

static void converse(struct session *s)
{
    char **words = completions();
    cli_line_open((const char *const *)words);
    cli_say(&s->open.printer, "genvid %s, %s\nA line is a prompt; :help lists what else there is.", gv_version(), s->open.dir);
    while (!s->leave) {
        fflush(stdout);
        cli_interrupt_asking(true);
        char *line = cli_line_read("genvid> ");
        cli_interrupt_asking(false);
        if (cli_interrupted_for_good()) {
            free(line);
            break;
        }
        if (!line && cli_interrupted()) { /* Ctrl-C throws the line away */
            putchar('\n');
            cli_interrupt_forget();
            continue;
        }
        if (!line)
            break;
        cli_interrupt_forget();
        take_line(s, line);
        free(line);
        if (cli_interrupted_for_good())
            break;
        cli_interrupt_forget();
    }
    if (!s->leave)
        putchar('\n');
    cli_line_close();
    free(words);
}

static int open_all(struct session *s)
{
    const char *base = getenv("TMPDIR");
    int         status = cli_open_engine(&s->open, &s->args);
    if (status == EXIT_OK)
        status = cli_open_model(&s->open, NULL);
    if (status == EXIT_OK)
        status = cli_open_session(&s->open);
    if (status != EXIT_OK)
        return status;
    snprintf(s->folder, sizeof s->folder, "%.200s/genvid-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(s->folder)) {
        *s->folder = 0;
        return cli_fail(&s->open.printer, EXIT_IO, "no folder for clips in %s: %s", base && *base ? base : "/tmp",
                        strerror(errno));
    }
    return EXIT_OK;
}

int cli_session(void)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s) {
        fprintf(stderr, "genvid: no memory\n");
        return EXIT_RESOURCE;
    }
    cli_args_init(&s->args, cli_command_find("video"));
    cli_printer_open(&s->open.printer, &s->args);
    cli_interrupt_catch();
    int status = open_all(s);
    if (status == EXIT_OK) {
        converse(s);
        status = cli_interrupted_for_good() ? EXIT_CANCELLED : EXIT_OK;
    }
    remove_clip(s);
    if (*s->folder)
        rmdir(s->folder);
    for (int i = 0; i < s->n_settings; i++)
        free(s->setting[i]);
    cli_args_free(&s->args);
    cli_check_close(&s->check);
    cli_close(&s->open);
    free(s);
    return status;
}
