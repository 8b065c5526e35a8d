/* Why before the clip has its name: its metadata is written last, so the check can be part of the recipe. What the captioner sees is
 * the encoder's packets, as every player will.
 *
 * What would surprise you: Ctrl-C during the check stops the check and keeps the clip. A caption is a model's and the kinds of words are
 * a file's: control characters in either are printed as "?". */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "interrupt.h"

enum { LINE = 1024 };

/* ---- before the render ------------------------------------------------------------------------------------------------ */

static bool reads_clips(void)
{
    json_t *formats = cli_json_take(gv_output_formats()), *one;
    bool    yes = false;
    size_t  i;
    json_array_foreach (formats, i, one) { /* who writes MP4 reads clips: both are libav's */
        const char *extension = json_string_value(json_object_get(one, "extension"));
        yes = yes || (extension && !strcmp(extension, "mp4"));
    }
    json_decref(formats);
    return yes;
}

int cli_check_output(struct cli_printer *p, const struct cli_args *a, const char *output)
{
    const char *dot = strrchr(output, '.'), *format = a->format ? a->format : dot ? dot + 1 : "";
    const bool  picture = !strcasecmp(format, "png") || !strcasecmp(format, "jpg") || !strcasecmp(format, "jpeg");
    if (!strcmp(output, "-") || !strcasecmp(format, "rgb") || (picture && strchr(output, '%')))
        return cli_fail(p, EXIT_USAGE, "--check reads the clip back from its file, and %s is none that can be read; mp4 can",
                        !strcmp(output, "-") ? "stdout" : output);
    if (!picture && !reads_clips())
        return cli_fail(p, EXIT_USAGE, "--check has to read clips, and this build lacks libav");
    return EXIT_OK;
}

int cli_check_open(struct cli_check *k, struct cli_open *video, const struct cli_args *a, const char *prompt)
{
    k->video = video;
    k->prompt = prompt;
    k->captioner = (struct cli_open){ .printer = video->printer, .engine = video->engine };
    const int status = cli_open_captioner(&k->captioner, a->check_model ? a->check_model : a->model, "--check-model DIR");
    return status == EXIT_OK ? cli_open_session(&k->captioner) : status;
}

static void drop_findings(struct cli_check *k)
{
    json_decref(k->found);
    free(k->note);
    k->found = NULL, k->note = NULL, k->status = EXIT_OK;
}

void cli_check_close(struct cli_check *k)
{
    k->captioner.engine = NULL; /* the video's */
    cli_close(&k->captioner);
    drop_findings(k);
}

/* ---- the clip is made ------------------------------------------------------------------------------------------------- */

static int on_progress(void *user, const gv_progress *progress)
{
    struct cli_check *k = user;
    cli_progress(&k->video->printer, progress);
    return cli_interrupted();
}

static int fail_caption(struct cli_check *k, gv_status status)
{
    if (status == GV_ERR_CANCELLED || cli_interrupted())
        return cli_fail(&k->video->printer, EXIT_CANCELLED, "the check was cancelled; the clip is kept");
    return cli_fail(&k->video->printer, cli_status_exit(status), "the check failed, and the clip is kept: %s",
                    gv_session_message(k->captioner.session));
}

static int read_back(struct cli_check *k, const char *path)
{
    char              *text = NULL, *compared = NULL;
    gv_caption_request r;
    gv_caption_request_init(&r);
    r.model = k->captioner.model;
    r.media = &path;
    r.media_count = 1;
    r.progress = on_progress;
    r.user = k;
    gv_status st = gv_caption(k->captioner.session, &r, &text);
    cli_progress_end(&k->video->printer);
    if (st == GV_OK)
        st = gv_model_compare(k->video->model, k->prompt, text, &compared);
    if (st == GV_OK && (k->found = cli_json_take(compared))) {
        json_object_set_new(k->found, "captioner", cli_json_text(k->captioner.dir));
        json_object_set_new(k->found, "text", cli_json_text(text));
    }
    gv_free(text);
    return st == GV_OK ? EXIT_OK : fail_caption(k, st);
}

int cli_check_made(void *check, const char *path, const char **note)
{
    struct cli_check *k = check;
    drop_findings(k);
    cli_progress_end(&k->video->printer);
    if (!path || cli_interrupted()) /* cli_check_output refused what has none */
        return 0;
    cli_say(&k->video->printer, "check: reading the clip back");
    cli_interrupt_session(k->captioner.session);
    k->status = read_back(k, path);
    cli_interrupt_session(k->video->session);
    json_t *o = k->found ? json_pack("{sO}", "check", k->found) : NULL;
    k->note = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    *note = k->note;
    return 0;
}

/* ---- in words --------------------------------------------------------------------------------------------------------- */

struct line {
    char   text[LINE];
    size_t n;
};

static void add(struct line *l, const char *before, const char *text)
{
    const char *const parts[] = { before, text };
    for (int i = 0; i < 2; i++)
        for (const char *c = parts[i]; *c && l->n + 1 < sizeof l->text; c++)
            l->text[l->n++] = (unsigned char)*c < 32 || *c == 127 ? '?' : *c;
    l->text[l->n] = 0;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

/* "actor car, motion left", or of what was missed "colour: asked yellow, read nothing". */
static void add_slots(struct line *l, json_t *slots, bool agree)
{
    const char *before = "";
    size_t      i;
    json_t     *s;
    json_array_foreach (slots, i, s) {
        if (json_is_true(json_object_get(s, "agrees")) != agree)
            continue;
        const char *read = text_of(s, "read");
        add(l, before, text_of(s, "slot"));
        add(l, agree ? " " : ": asked ", text_of(s, "asked"));
        if (!agree)
            add(l, ", read ", *read ? read : "nothing of it");
        before = agree ? ", " : "; ";
    }
}

void cli_check_say(const struct cli_check *k)
{
    const int n = (int)json_integer_value(json_object_get(k->found, "asked")),
              agree = (int)json_integer_value(json_object_get(k->found, "agree"));
    json_t     *slots = json_object_get(k->found, "slots");
    struct line text = { .n = 0 }, right = { .n = 0 }, wrong = { .n = 0 };
    if (!k->found) /* not asked for, or it failed */
        return;
    struct cli_printer *p = &k->video->printer;
    add(&text, "", text_of(k->found, "text"));
    add_slots(&right, slots, true);
    add_slots(&wrong, slots, false);
    cli_say(p, "check: the captioner says \"%s\"", text.text);
    if (!n)
        cli_say(p, "check: no words to compare by: the model's genvid.json names no kinds (slots), or the prompt none of them");
    else
        cli_say(p, "check: %d of %d as asked%s%s%s%s", agree, n, agree ? ": " : "", right.text, agree < n ? "; not " : "",
                wrong.text);
}
