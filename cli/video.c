/* genvid video: arguments → gv_video_request → a clip, or with --dry-run what it would take.
 *
 * In the order in which things can go wrong cheaply: the prompt, the pictures' names, the output's name and format, then the
 * engine and the model, then the render. A signal cancels the session; the library then removes what it had begun. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "interrupt.h"
#include "output.h"
#include "request.h"

enum { PROMPT_BYTES = 1 << 20 };

struct video {
    struct cli_open        open;
    const struct cli_args *args; /* with the seed filled in */
    char                  *prompt;
    char                   output[CLI_PATH];
    struct cli_request     request;
    int64_t                frames; /* delivered so far, and their size */
    int                    width, height;
    bool                   preview_lost;
    struct cli_check       check;
};

/* ---- what is asked for --------------------------------------------------------------------------------------------- */

static int read_prompt_file(struct video *v, const char *name)
{
    struct cli_printer *p = &v->open.printer;
    FILE               *file = strcmp(name, "-") ? fopen(name, "rb") : stdin;
    if (!file)
        return cli_fail(p, EXIT_NO_INPUT, "the prompt file \"%s\" cannot be read: %s", name, strerror(errno));
    size_t     n = fread(v->prompt, 1, PROMPT_BYTES, file);
    const bool broken = ferror(file);
    const int  reason = errno;
    if (file != stdin)
        fclose(file);
    if (broken)
        return cli_fail(p, EXIT_NO_INPUT, "the prompt file \"%s\" cannot be read: %s", name, strerror(reason));
    if (n == PROMPT_BYTES)
        return cli_fail(p, EXIT_DATA, "the prompt file \"%s\" has more than %d bytes", name, PROMPT_BYTES - 1);
    if (memchr(v->prompt, 0, n))
        return cli_fail(p, EXIT_DATA, "the prompt file \"%s\" holds a zero byte; expected text", name);
    while (n && (v->prompt[n - 1] == '\n' || v->prompt[n - 1] == '\r'))
        n--;
    v->prompt[n] = 0;
    return EXIT_OK;
}

static int read_prompt(struct video *v)
{
    const struct cli_args *a = v->args;
    if (a->prompt_file || (a->n_words && !strcmp(a->words[0], "-")))
        return read_prompt_file(v, a->prompt_file ? a->prompt_file : "-");
    if (!a->n_words)
        return cli_fail(&v->open.printer, EXIT_USAGE,
                        "no prompt: give it in quotes, or with --prompt-file FILE; \"\" is an empty one");
    if (strlen(a->words[0]) >= PROMPT_BYTES)
        return cli_fail(&v->open.printer, EXIT_USAGE, "the prompt has more than %d bytes", PROMPT_BYTES - 1);
    strcpy(v->prompt, a->words[0]);
    return EXIT_OK;
}

static int check_file(struct video *v, const char *option, const char *path, const char *what)
{
    struct stat st;
    if (!path)
        return EXIT_OK;
    if (stat(path, &st) != 0 || access(path, R_OK) != 0)
        return cli_fail(&v->open.printer, EXIT_NO_INPUT, "%s \"%s\" cannot be read: %s", option, path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return cli_fail(&v->open.printer, EXIT_NO_INPUT, "%s \"%s\" is a folder; expected %s", option, path, what);
    return EXIT_OK;
}

static bool checks(const struct video *v)
{
    return (v->args->check || v->args->check_model) && !v->args->dry_run;
}

static int check_inputs(struct video *v)
{
    const struct cli_args *a = v->args;
    int                    status = read_prompt(v);
    if (status == EXIT_OK)
        status = check_file(v, "--image", a->image, "a picture");
    if (status == EXIT_OK)
        status = check_file(v, "--last-image", a->last_image, "a picture");
    if (status == EXIT_OK)
        status = check_file(v, "--audio", a->audio, "a clip");
    if (status == EXIT_OK)
        status = cli_output_choose(&v->open.printer, a, v->prompt, v->output);
    if (status == EXIT_OK && checks(v))
        status = cli_check_output(&v->open.printer, a, v->output);
    if (status == EXIT_OK && a->report)
        status = cli_output_writable(&v->open.printer, "--report", a->report);
    if (status == EXIT_OK && a->preview_file)
        status = cli_output_writable(&v->open.printer, "--preview-file", a->preview_file);
    return status;
}

/* ---- callbacks ----------------------------------------------------------------------------------------------------- */

static int on_progress(void *user, const gv_progress *progress)
{
    struct video *v = user;
    cli_progress(&v->open.printer, progress);
    return cli_interrupted();
}

/* Into the file, or the terminal where there is none. */
static void preview(struct video *v, const gv_frame *frame)
{
    const struct cli_pixels p = { frame->width, frame->height, frame->pixels, (size_t)frame->stride };
    const char             *path = v->args->preview_file;
    if (!path)
        cli_show(&v->open.printer, &p);
    else if (!cli_picture_write(path, &p) && !v->preview_lost) {
        v->preview_lost = true; /* a look is no reason to stop a render */
        cli_say(&v->open.printer, "--preview-file \"%s\" cannot be written: %s", path, strerror(errno));
    }
}

static int on_frame(void *user, const gv_frame *frame)
{
    struct video *v = user;
    if (frame->preview) {
        preview(v, frame);
    } else {
        v->frames = frame->index + 1;
        v->width = frame->width;
        v->height = frame->height;
    }
    return cli_interrupted();
}

static int on_made(void *user, const char *path, const char **note)
{
    struct video *v = user;
    return cli_check_made(&v->check, path, note);
}

static void fill_request(struct video *v)
{
    gv_video_request *r = &v->request.q;
    cli_request_fill(&v->request, v->args, v->open.model);
    r->prompt = v->prompt;
    r->output_path = v->output;
    r->on_frame = on_frame;
    r->on_made = checks(v) ? on_made : NULL;
    r->progress = on_progress;
    r->user = v;
}

/* ---- results ------------------------------------------------------------------------------------------------------- */

/* On stdout, unless the frames are there. */
static void put_result(struct video *v, json_t *result)
{
    if (!strcmp(v->output, "-")) {
        cli_event(&v->open.printer, result);
        return;
    }
    char *text = result ? json_dumps(result, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(result);
    if (text)
        puts(text);
    free(text);
}

static void bytes_text(char *out, size_t size, double bytes)
{
    if (bytes < 1024 * 1024)
        snprintf(out, size, "%.0f KiB", bytes / 1024);
    else if (bytes < 1024.0 * 1024 * 1024)
        snprintf(out, size, "%.0f MiB", bytes / (1024 * 1024));
    else
        snprintf(out, size, "%.2f GiB", bytes / (1024.0 * 1024 * 1024));
}

/* "text 0.10 s, denoise 5.20 s": the report's stages, in the order in which they ran. */
static void stages_text(char *out, size_t size, json_t *stages)
{
    size_t      used = 0;
    const char *name;
    json_t     *seconds;
    out[0] = 0;
    json_object_foreach (stages, name, seconds) {
        if (used < size)
            used += (size_t)snprintf(out + used, size - used, "%s %.2f s, ", name, json_number_value(seconds));
    }
}

/* Beside its name first, so that a reader never sees half of it. */
static int write_report(struct video *v, const char *text)
{
    char        temporary[CLI_PATH + 8];
    const char *path = v->args->report;
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *file = fopen(temporary, "w");
    bool  ok = file && fputs(text, file) >= 0 && fputc('\n', file) >= 0;
    if (file && fclose(file) != 0)
        ok = false;
    if (ok && rename(temporary, path) == 0)
        return EXIT_OK;
    const int status = cli_fail(&v->open.printer, EXIT_IO, "--report \"%s\" cannot be written: %s", path, strerror(errno));
    remove(temporary);
    return status;
}

static void say_result(struct video *v, const json_t *report, double seconds)
{
    char          stages[512], memory[32];
    const json_t *settings = json_object_get(report, "settings");
    stages_text(stages, sizeof stages, json_object_get(report, "stages"));
    bytes_text(memory, sizeof memory, json_number_value(json_object_get(report, "peak_bytes")));
    cli_say(&v->open.printer, "%s: %dx%d, %lld frames at %g a second, %lld steps, seed %lld",
            strcmp(v->output, "-") ? v->output : "stdout", v->width, v->height, (long long)v->frames,
            json_number_value(json_object_get(settings, "fps")),
            (long long)json_integer_value(json_object_get(settings, "steps")), (long long)v->args->seed);
    cli_say(&v->open.printer, "%s%.2f s in all, peak %s", stages, seconds, memory);
}

/* What --attention and --cache cost, in a line each. */
static void say_receipt(struct video *v, const json_t *receipt)
{
    struct cli_printer *p = &v->open.printer;
    const json_t       *attention = json_object_get(receipt, "attention"), *steps = json_object_get(receipt, "steps"),
                 *verify = json_object_get(receipt, "verify");
    const char *const random =
        json_is_true(json_object_get(receipt, "random_weights")) ? " (random weights: errors mean nothing)" : "";
    if (attention)
        cli_say(p, "receipt: %.1f%% of the pairs of tokens were computed",
                100 * json_number_value(json_object_get(attention, "density")));
    if (json_object_get(attention, "samples"))
        cli_say(p,
                "receipt: attention's relative error is %.3g, at worst %.3g; %.2f s of attention were saved, by %lld samples%s",
                json_number_value(json_object_get(attention, "relative_error")),
                json_number_value(json_object_get(attention, "worst_relative_error")),
                json_number_value(json_object_get(attention, "seconds_saved")),
                (long long)json_integer_value(json_object_get(attention, "samples")), random);
    if (steps)
        cli_say(p, "receipt: %lld of %lld steps were skipped (%s), which saved %.2f s",
                (long long)json_integer_value(json_object_get(steps, "skipped")),
                (long long)json_integer_value(json_object_get(steps, "steps")),
                json_string_value(json_object_get(steps, "schedule")),
                json_number_value(json_object_get(steps, "seconds_saved")));
    if (json_object_get(receipt, "velocity_error"))
        cli_say(p, "receipt: the velocity's relative error is %.3g; a step drifts by %.3g of the latents%s",
                json_number_value(json_object_get(receipt, "velocity_error")),
                json_number_value(json_object_get(receipt, "latent_drift")), random);
    if (verify)
        cli_say(p, "receipt: beside the exact clip, PSNR %.2f dB and SSIM %.4f (worst frame %.4f)%s",
                json_number_value(json_object_get(verify, "psnr")), json_number_value(json_object_get(verify, "ssim")),
                json_number_value(json_object_get(verify, "worst_ssim")), random);
}

static int finish(struct video *v, double seconds)
{
    const struct cli_args *a = v->args;
    char                  *text = gv_session_report(v->open.session);
    const int              status = a->report && text ? write_report(v, text) : EXIT_OK;
    json_t                *report = cli_json_take(text);
    say_result(v, report, seconds);
    say_receipt(v, json_object_get(report, "receipt"));
    cli_check_say(&v->check);
    if (a->json)
        put_result(v, json_pack("{ss, so, si, si, sI, sI, sf, sO*, so}", "event", "result", "output", cli_json_text(v->output),
                                "width", v->width, "height", v->height, "frames", (json_int_t)v->frames, "seed",
                                (json_int_t)a->seed, "seconds", seconds, "check", v->check.found, "report", report ? json_incref(report) : json_null()));
    else if (strcmp(v->output, "-"))
        puts(v->output);
    json_decref(report);
    if (fflush(stdout) != 0 && status == EXIT_OK)
        return cli_fail(&v->open.printer, EXIT_IO, "stdout: %s", strerror(errno));
    return status == EXIT_OK ? v->check.status : status;
}

/* UNSUPPORTED is a wrong request, but media of an unread kind (a playlist, HEIC) are bad media: their name begins the message. */
static bool about_file(const char *message, const char *path)
{
    return path && !strncmp(message, path, strlen(path));
}

static int fail_call(struct video *v, gv_status status)
{
    const char *why = gv_session_message(v->open.session);
    const bool  media = about_file(why, v->args->image) || about_file(why, v->args->last_image) || about_file(why, v->args->audio);
    if (status == GV_ERR_CANCELLED || cli_interrupted())
        return cli_fail(&v->open.printer, EXIT_CANCELLED, "cancelled; nothing was written");
    return cli_fail(&v->open.printer, status == GV_ERR_UNSUPPORTED && media ? EXIT_DATA : cli_status_exit(status), "%s", why);
}

static int dry_run(struct video *v)
{
    gv_estimate e;
    char        memory[32], weights[32];
    gv_estimate_init(&e);
    const gv_status st = gv_video_estimate(v->open.session, &v->request.q, &e);
    if (st != GV_OK)
        return fail_call(v, st);
    if (v->args->json) {
        strcpy(v->output, ""); /* nothing is written, so stdout is free */
        put_result(v, json_pack("{ss, si, si, si, sf, si, sI, sI, sI, sf, sI}", "event", "estimate", "width", e.width, "height",
                                e.height, "frames", e.frames, "fps", e.fps, "steps", e.steps, "tokens", (json_int_t)e.tokens,
                                "device_bytes", (json_int_t)e.device_bytes, "weight_bytes", (json_int_t)e.weight_bytes, "flops",
                                e.flops, "seed", (json_int_t)v->args->seed));
        return EXIT_OK;
    }
    bytes_text(memory, sizeof memory, (double)e.device_bytes);
    bytes_text(weights, sizeof weights, (double)e.weight_bytes);
    printf("clip      %dx%d, %d frames at %g a second (%.2f s)\n", e.width, e.height, e.frames, e.fps, e.frames / e.fps);
    printf("steps     %d over %lld tokens\n", e.steps, (long long)e.tokens);
    printf("work      %.3g TFLOP\n", e.flops / 1e12);
    printf("memory    %s, of these %s weights\n", memory, weights);
    printf("seed      %lld\n", (long long)v->args->seed);
    printf("output    %s\n", v->output);
    return EXIT_OK;
}

/* ---- the render ---------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --seconds counts in the model's own frame rate unless --fps says another. */
static int frames_from_seconds(struct video *v)
{
    gv_estimate e;
    gv_estimate_init(&e);
    double fps = v->request.q.fps;
    if (v->args->seconds <= 0)
        return EXIT_OK;
    if (fps <= 0) {
        const gv_status st = gv_video_estimate(v->open.session, &v->request.q, &e);
        if (st != GV_OK)
            return fail_call(v, st);
        fps = e.fps;
    }
    const double frames = floor(v->args->seconds * fps + 0.5);
    v->request.q.frames = frames < 1 ? 1 : frames > 1e6 ? 1000000 : (int)frames;
    return EXIT_OK;
}

static void say_start(struct video *v)
{
    struct cli_printer *p = &v->open.printer;
    if (p->json)
        cli_event(p, json_pack("{ss, sI, so, so}", "event", "start", "seed", (json_int_t)v->args->seed, "output",
                               cli_json_text(v->output), "model", cli_json_text(v->open.dir)));
    else
        fprintf(stderr, "seed %lld\n", (long long)v->args->seed);
}

/* A preview that nobody would see is not made. */
static void settle_previews(struct video *v)
{
    gv_video_request *q = &v->request.q;
    if (v->args->preview_file && !q->preview_every)
        q->preview_every = 1;
    if (!q->preview_every || v->args->preview_file || v->open.printer.graphics != GRAPHICS_NONE)
        return;
    q->preview_every = 0;
    cli_say(&v->open.printer, "no previews: stderr is no terminal that shows pictures; --preview-file FILE.png writes them");
}

static int render(struct video *v)
{
    const double begin = now();
    settle_previews(v);
    say_start(v);
    if (cli_interrupted())
        return fail_call(v, GV_ERR_CANCELLED);
    const gv_status st = gv_video_generate(v->open.session, &v->request.q);
    cli_progress_end(&v->open.printer);
    return st == GV_OK ? finish(v, now() - begin) : fail_call(v, st);
}

static int run(struct video *v)
{
    int status = check_inputs(v);
    if (status == EXIT_OK)
        status = cli_open_engine(&v->open, v->args);
    if (status == EXIT_OK)
        status = cli_open_model(&v->open, v->args->model);
    if (status == EXIT_OK)
        status = cli_open_session(&v->open);
    if (status == EXIT_OK && checks(v))
        status = cli_check_open(&v->check, &v->open, v->args, v->prompt);
    if (status != EXIT_OK)
        return status;
    cli_interrupt_session(v->open.session);
    fill_request(v);
    status = frames_from_seconds(v);
    if (status == EXIT_OK)
        status = v->args->dry_run ? dry_run(v) : render(v);
    cli_interrupt_session(NULL);
    return status;
}

int cli_video(const struct cli_args *a)
{
    struct cli_args args = *a;
    struct video   *v = calloc(1, sizeof *v);
    if (a->seed < 0)
        args.seed = cli_chance();
    if (v)
        v->prompt = malloc(PROMPT_BYTES);
    if (!v || !v->prompt) {
        fprintf(stderr, "genvid: no memory\n");
        free(v);
        return EXIT_RESOURCE;
    }
    v->args = &args;
    cli_printer_open(&v->open.printer, a);
    cli_interrupt_catch();
    const int status = run(v);
    cli_check_close(&v->check);
    cli_close(&v->open);
    free(v->prompt);
    free(v);
    return status;
}
