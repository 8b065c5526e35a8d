/* The table of options, and the parser that it drives.
 *
 * Accepted: --name value, --name=value, -x value, -xvalue, flags side by side (-qy), "--" before words that begin with a
 * dash. The last of two wins, as in most commands. What would surprise you: names are never abbreviated, so that a script
 * written today means the same when a longer option is born; a value is whatever follows, even when it begins with a dash. */
#include "config.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(f) offsetof(struct cli_args, f)

static const char WHAT[] = "What to make", HOW[] = "How to make it", OUT[] = "Output", MACHINE[] = "Machine",
                  SAY[] = "What to say", SHOW[] = "What to show";

enum {
    ALL = CLI_VIDEO | CLI_CAPTION | CLI_INFO | CLI_BENCH | CLI_RERUN | CLI_CALIBRATE,
    RUNS = CLI_VIDEO | CLI_BENCH,
    RENDERS = CLI_VIDEO | CLI_CALIBRATE
};

const struct cli_option cli_options[] = {
    { "prompt-file", 'f', ARG_TEXT, CLI_VIDEO, FIELD(prompt_file), 0, 0, "FILE", WHAT,
      "read the prompt from FILE; - is stdin" },
    { "negative", 'n', ARG_TEXT, CLI_VIDEO, FIELD(negative), 0, 0, "TEXT", WHAT,
      "what the clip should not show; read only where guidance is not 1" },
    { "image", 'i', ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(image), 0, 0, "FILE", WHAT, "picture that the clip begins with" },
    { "last-image", 0, ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(last_image), 0, 0, "FILE", WHAT,
      "picture that the clip ends with" },
    { "size", 0, ARG_SIZE, RENDERS, FIELD(width), 16, 16384, "WxH", WHAT, "width and height in pixels" },
    { "width", 0, ARG_COUNT, RENDERS, FIELD(width), 16, 16384, "N", WHAT,
      "width alone; with --image the height follows the picture" },
    { "height", 0, ARG_COUNT, RENDERS, FIELD(height), 16, 16384, "N", WHAT,
      "height alone; with --image the width follows the picture" },
    { "frames", 0, ARG_COUNT, RENDERS, FIELD(frames), 1, 100000, "N", WHAT,
      "length in frames; rounded to what the model can make, and said" },
    { "seconds", 0, ARG_REAL, RUNS, FIELD(seconds), 0.01, 3600, "S", WHAT,
      "video: length in seconds instead of --frames; bench: how long to measure (default 5; attention 60)" },
    { "fps", 0, ARG_REAL, CLI_VIDEO, FIELD(fps), 0.1, 240, "N", WHAT, "frames a second" },

    { "fps", 0, ARG_REAL, CLI_CAPTION, FIELD(fps), 0.01, 240, "N", WHAT, "frames of a clip to look at a second" },
    { "frames", 0, ARG_COUNT, CLI_CAPTION, FIELD(frames), 1, 100000, "N", WHAT, "frames of a clip to look at, at most" },
    { "picture-tokens", 0, ARG_COUNT, CLI_CAPTION, FIELD(picture_tokens), 1, 1048576, "N", WHAT,
      "tokens that a picture or clip may become: it is made smaller for it" },
    { "start", 0, ARG_REAL, CLI_CAPTION, FIELD(start), 0, 1e6, "S", WHAT, "second of a clip to begin at" },
    { "end", 0, ARG_REAL, CLI_CAPTION, FIELD(end), 0.01, 1e6, "S", WHAT, "second of a clip to end at" },
    { "section", 0, ARG_REAL, CLI_CAPTION, FIELD(section), 0.1, 1e6, "S", WHAT,
      "cut clips into sections of about S seconds and tell each (10 with --srt and --vtt)" },
    { "together", 0, ARG_FLAG, CLI_CAPTION, FIELD(together), 0, 0, NULL, WHAT, "one text about all files" },
    { "question", 0, ARG_TEXT, CLI_CAPTION, FIELD(question), 0, 0, "TEXT", WHAT,
      "what to ask about each file; a description when left out" },
    { "tokens", 0, ARG_COUNT, CLI_CAPTION, FIELD(tokens), 1, 1048576, "N", WHAT, "longest text in tokens (default 256)" },

    { "model", 'm', ARG_TEXT, CLI_CAPTION, FIELD(model), 0, 0, "DIR", HOW,
      "directory of a vision-language model (Qwen2.5-VL, Qwen2-VL, LLaVA-OneVision)" },
    { "prune", 0, ARG_TEXT, CLI_CAPTION, FIELD(prune), 0, 0, "P", HOW,
      "run with 50, 25 or 10 per cent of the picture tokens (approximate, VFlowOpt; as `genvid calibrate --pruning` chose for "
      "the model, if it did), or keep=R1/R2/R3,cell=A,sink=T,entropy=W" },
    { "prune-receipt", 0, ARG_FLAG, CLI_CAPTION, FIELD(prune_receipt), 0, 0, NULL, HOW,
      "run the whole prompt too and say how near the pruned one came" },
    { "recycle", 0, ARG_COUNT, CLI_CAPTION, FIELD(recycle), 1, 1048576, "N", HOW,
      "most steps of the text read only N keys and newer ones (approximate, Recycled Attention)" },
    { "recycle-every", 0, ARG_COUNT, CLI_CAPTION, FIELD(recycle_every), 1, 1048576, "N", HOW,
      "steps from one that reads all keys to the next (default 50)" },
    { "pages", 0, ARG_COUNT, CLI_CAPTION, FIELD(pages), 1, 1048576, "N", HOW,
      "steps of the text read only N keys, in the pages whose bounds are largest (approximate, LServe)" },
    { "pages-every", 0, ARG_COUNT, CLI_CAPTION, FIELD(pages_every), 1, 1048576, "N", HOW,
      "steps from one choice of pages to the next (default 4)" },
    { "explain", 0, ARG_TEXT, CLI_CAPTION, FIELD(explain), 0, 0, "DIR", HOW,
      "write a heat map of where each word was read into DIR/FILE: PNG over pictures, MP4 over clips, explain.json, and "
      "index.html "
      "to look at them all" },
    { "paint", 0, ARG_REAL, CLI_CAPTION, FIELD(paint), 0, 10, "X", HOW,
      "raise the scores of the quarter of each picture that matters most by this share of their size (PAINT; its authors' is "
      "0.7), against things said that are not there; another text" },
    { "paint-summary", 0, ARG_REAL, CLI_CAPTION, FIELD(paint_summary), 0.001, 10, "X", HOW,
      "with --paint: the share for parts that stand out among all (default 0.4)" },
    { "picture-factor", 0, ARG_REAL, CLI_CAPTION, FIELD(picture_factor), 0.01, 100, "X", HOW,
      "scores of pictures times X in the first layer of the decoder (DARA); another text; 1 is off" },
    { "picture-factor-layers", 0, ARG_COUNT, CLI_CAPTION, FIELD(picture_factor_layers), 1, 1024, "N", HOW,
      "with --picture-factor: in so many of the first layers (default 1)" },
    { "temperature", 0, ARG_REAL, CLI_CAPTION, FIELD(temperature), 0, 100, "X", HOW,
      "draw tokens instead of taking the likeliest; 0 is off" },
    { "top-k", 0, ARG_COUNT, CLI_CAPTION, FIELD(top_k), 1, 1048576, "N", HOW, "draw among the N likeliest tokens" },
    { "top-p", 0, ARG_REAL, CLI_CAPTION, FIELD(top_p), 0.001, 1, "X", HOW,
      "draw among the likeliest tokens that together reach this share" },
    { "repetition-penalty", 0, ARG_REAL, CLI_CAPTION, FIELD(repetition), 0.01, 100, "X", HOW,
      "make tokens that were there less likely; 1 is off, the model's own when left out" },
    { "seed", 's', ARG_COUNT, CLI_CAPTION, FIELD(seed), 0, 9223372036854775807.0, "N", HOW, "start of the draw (default 0)" },

    { "model", 'm', ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(model), 0, 0, "DIR", HOW,
      "model directory in the diffusers layout" },
    { "steps", 0, ARG_COUNT, RENDERS, FIELD(steps), 1, 1000, "N", HOW, "denoising steps" },
    { "guidance", 0, ARG_REAL, RENDERS, FIELD(guidance), 0, 100, "X", HOW,
      "weight of the prompt against the negative prompt; 1 is off and twice as fast" },
    { "shift", 0, ARG_REAL, RENDERS, FIELD(shift), 0.01, 100, "X", HOW,
      "sigma shift: higher spends more steps on the large shapes" },
    { "solver", 0, ARG_TEXT, RENDERS, FIELD(solver), 0, 0, "unipc|euler|dpm++", HOW,
      "how a step is taken; the model's own when left out" },
    { "compat", 0, ARG_TEXT, CLI_VIDEO, FIELD(compat), 0, 0, "wan|diffusers", HOW,
      "whose rules: resizing, CLIP's crop, grid of noise levels; the layout's own when left out" },
    { "causal", 0, ARG_TEXT, RENDERS, FIELD(causal), 0, 0, "on|self-forcing|causvid|longlive", HOW,
      "a few frames after another, of any length in the same memory; on is as the model says" },
    { "attention", 0, ARG_TEXT, CLI_VIDEO, FIELD(attention), 0, 0, "POLICY[:NAME=VALUE,...]", HOW,
      "leave pairs of tokens out of self-attention, as `genvid info --shortcuts` lists; faster, and not the same clip" },
    { "cache", 0, ARG_TEXT, CLI_VIDEO, FIELD(cache), 0, 0, "METHOD[:NAME=VALUE,...][+METHOD...]", HOW,
      "use what earlier steps computed again, as `genvid info --shortcuts` lists; faster, and not the same clip" },
    { "receipt", 0, ARG_TEXT, CLI_VIDEO, FIELD(receipt), 0, 0, "N", HOW,
      "steps computed a second time, exactly, to say what --attention and --cache cost (default 2)" },
    { "verify", 0, ARG_FLAG, CLI_VIDEO, FIELD(verify), 0, 0, NULL, HOW,
      "make the exact clip too, and say how far this one is from it: PSNR and SSIM" },
    { "seed", 's', ARG_COUNT, RENDERS, FIELD(seed), 0, 9223372036854775807.0, "N", HOW,
      "start of the noise; chosen by chance when left out, always printed" },
    { "noise", 0, ARG_TEXT, CLI_VIDEO, FIELD(noise), 0, 0, "NAME", HOW,
      "where the noise comes from: genvid, or as torch.randn draws it: torch-cpu, torch-cuda[:SMSxTHREADS]" },
    { "option", 0, ARG_PAIR, RENDERS, FIELD(options), 0, 0, "NAME=VALUE", HOW,
      "an option of the model, as `genvid info --options` lists them; may be repeated" },

    { "pruning", 0, ARG_REAL, CLI_CALIBRATE, FIELD(pruning), 1, 99, "P", HOW,
      "choose what `genvid caption --prune P` does with this model, by the pictures and clips that follow it (VFlowOpt)" },
    { "trials", 0, ARG_COUNT, CLI_CALIBRATE, FIELD(trials), 2, 1000, "N", HOW,
      "with --pruning: settings that are tried (default 50)" },
    { "entropy", 0, ARG_FLAG, CLI_CALIBRATE, FIELD(entropy), 0, 0, NULL, HOW,
      "with --pruning: choose how much detail counts too (more like the whole prompt by the first word; not always the better "
      "text)" },
    { "mass", 0, ARG_REAL, CLI_CALIBRATE, FIELD(mass), 0.01, 1, "X", HOW,
      "share of the softmax that the chosen blocks hold (default 0.9)" },
    { "cosine", 0, ARG_REAL, CLI_CALIBRATE, FIELD(cosine), 0.01, 1, "X", HOW,
      "with --causal: heads whose history's output keeps less cosine read it anew (default 0.85)" },
    { "lse", 0, ARG_REAL, CLI_CALIBRATE, FIELD(lse), 0.001, 1000, "X", HOW,
      "with --causal: and those whose log-sum-exp moves by more (default 0.05)" },

    { "output", 'o', ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(output), 0, 0, "FILE", OUT,
      "where the clip goes; its extension is the format, %04d makes a sequence of pictures, - is stdout" },
    { "format", 0, ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(format), 0, 0, "NAME", OUT,
      "format, whatever the extension; needed for stdout: y4m or rgb" },
    { "codec", 0, ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(codec), 0, 0, "NAME", OUT,
      "h264, hevc, av1, vp9, ffv1 (every bit) or prores, where the container takes it" },
    { "bits", 0, ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(bits), 0, 0, "8|10", OUT, "bits of each sample" },
    { "crf", 0, ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(crf), 0, 0, "N", OUT,
      "quality of the encoder, 0 to 51 (av1, vp9: 63); less is better and larger" },
    { "audio", 0, ARG_TEXT, CLI_VIDEO | CLI_RERUN, FIELD(audio), 0, 0, "FILE", OUT,
      "a clip whose sound goes along as it is, where the container takes it" },
    { "overwrite", 'y', ARG_FLAG, CLI_VIDEO | CLI_RERUN, FIELD(overwrite), 0, 0, NULL, OUT,
      "replace the file given with -o if it exists; refused without" },
    { "report", 0, ARG_TEXT, CLI_VIDEO, FIELD(report), 0, 0, "FILE", OUT,
      "write stages, seconds, peak bytes, tokens, FLOPs and settings to FILE as JSON" },
    { "preview-every", 0, ARG_COUNT, CLI_VIDEO, FIELD(preview_every), 1, 1000, "N", OUT,
      "show every N steps what the middle frame will be, in the terminal or with --preview-file" },
    { "preview-file", 0, ARG_TEXT, CLI_VIDEO, FIELD(preview_file), 0, 0, "FILE", OUT,
      "write previews to FILE, a small PNG that every new one replaces" },
    { "check", 0, ARG_FLAG, CLI_VIDEO, FIELD(check), 0, 0, NULL, OUT,
      "have a captioner read the clip back and say what came of the prompt: who, colour, motion, scene; it may err, so the "
      "exit "
      "status stays the same" },
    { "check-model", 0, ARG_TEXT, CLI_VIDEO, FIELD(check_model), 0, 0, "DIR", OUT,
      "--check with this captioner; the one that comes with the model when left out" },
    { "dry-run", 0, ARG_FLAG, CLI_VIDEO, FIELD(dry_run), 0, 0, NULL, OUT, "say what the render would take and stop" },

    { "srt", 0, ARG_FLAG, CLI_CAPTION, FIELD(srt), 0, 0, NULL, OUT, "SubRip subtitles: a text for each section of a clip" },
    { "vtt", 0, ARG_FLAG, CLI_CAPTION, FIELD(vtt), 0, 0, NULL, OUT, "the same as WebVTT" },
    { "sidecar", 0, ARG_FLAG, CLI_CAPTION, FIELD(sidecar), 0, 0, NULL, OUT,
      "write beside each file (.txt, .json, .srt, .vtt) what stdout would get; files that have theirs are passed over" },
    { "overwrite", 'y', ARG_FLAG, CLI_CAPTION, FIELD(overwrite), 0, 0, NULL, OUT, "write sidecars anew" },
    { "dry-run", 0, ARG_FLAG, CLI_CAPTION, FIELD(dry_run), 0, 0, NULL, OUT,
      "say frames, tokens and memory of each file and stop" },

    { "device", 0, ARG_TEXT, ALL, FIELD(device), 0, 0, "NAME", MACHINE,
      "device to compute on, as `genvid info --devices` lists them" },
    { "threads", 't', ARG_COUNT, ALL, FIELD(threads), 1, 256, "N", MACHINE,
      "threads; one a core when left out. The frames do not depend on it" },
    { "precision", 0, ARG_TEXT, ALL, FIELD(precision), 0, 0, "f32|bf16", MACHINE,
      "of weights and activations; what the device does fast when left out" },
    { "cpu-level", 0, ARG_TEXT, ALL, FIELD(cpu_level), 0, 0, "c|avx2|avx512|avx512bf16", MACHINE,
      "no instructions above these" },
    { "budget", 0, ARG_BYTES, ALL, FIELD(budget), 1048576, 9223372036854775807.0, "BYTES", MACHINE,
      "memory to stay under: 800M, 6G; what is free when left out" },
    { "max-vram", 0, ARG_BYTES, ALL, FIELD(budget), 1048576, 9223372036854775807.0, "BYTES", MACHINE,
      "--budget, as others call it on a GPU" },

    { "devices", 0, ARG_FLAG, CLI_INFO, FIELD(list_devices), 0, 0, NULL, SHOW, "devices of this machine, one a line" },
    { "formats", 0, ARG_FLAG, CLI_INFO, FIELD(list_formats), 0, 0, NULL, SHOW, "output formats of this build, one a line" },
    { "options", 0, ARG_FLAG, CLI_INFO, FIELD(list_options), 0, 0, NULL, SHOW, "options of the model, one a line" },
    { "shortcuts", 0, ARG_FLAG, CLI_INFO, FIELD(list_shortcuts), 0, 0, NULL, SHOW,
      "values of --attention and --cache with their options and ranges, one a line" },
    { "words", 0, ARG_FLAG, CLI_INFO, FIELD(list_words), 0, 0, NULL, SHOW, "words that the model was taught, one a line" },
    { "man", 0, ARG_FLAG, CLI_HELP, FIELD(man), 0, 0, NULL, SHOW, "the manual page, for man -l -" },

    { "config", 0, ARG_TEXT, ALL, FIELD(config), 0, 0, "FILE.json", SAY,
      "options from a JSON object with these names as keys, and \"prompt\"; options given here win; - is stdin" },
    { "print-config", 0, ARG_FLAG, ALL, FIELD(print_config), 0, 0, NULL, SAY,
      "what was asked for as --config reads it, and stop" },
    { "json", 0, ARG_FLAG, ALL | CLI_PROBE, FIELD(json), 0, 0, NULL, SAY,
      "JSON: the result on stdout, one event a line on stderr" },
    { "quiet", 'q', ARG_FLAG, ALL | CLI_PROBE, FIELD(quiet), 0, 0, NULL, SAY, "only the seed, warnings and failures" },
    { "verbose", 'v', ARG_FLAG, ALL | CLI_PROBE, FIELD(verbose), 0, 0, NULL, SAY, "what the library does, in detail" },
    { "help", 'h', ARG_FLAG, ALL | CLI_PROBE | CLI_HELP, FIELD(help), 0, 0, NULL, SAY, "this text" },
    { "version", 0, ARG_FLAG, ALL | CLI_PROBE | CLI_HELP, FIELD(version), 0, 0, NULL, SAY, "name and version" },
};
const size_t cli_n_options = sizeof cli_options / sizeof cli_options[0];

const struct cli_command cli_commands[] = {
    { "video", "[PROMPT] [options]", "make a clip from a prompt, and from a picture if one is given", CLI_VIDEO, 1 },
    { "caption", "FILE|FOLDER... [options]", "say what is in pictures and clips", CLI_CAPTION, CLI_MAX_WORDS },
    { "info", "[MODEL] [options]", "say what is here: model, devices, formats, options, words", CLI_INFO, 1 },
    { "probe", "FILE [options]", "say what a picture or clip is and what made it", CLI_PROBE, 1 },
    { "rerun", "FILE [options]", "render a clip again and say whether the frames are the same", CLI_RERUN, 1 },
    { "calibrate", "[MODEL [PROMPT...|FILE|FOLDER...]] [options]",
      "measure what --attention and --cache, or --prune of captions, may leave out of a model", CLI_CALIBRATE, CLI_MAX_WORDS },
    { "bench", "[attention] [options]", "measure the operations that a render is made of, or masks x lengths", CLI_BENCH, 1 },
    { "completions", "bash|zsh", "a script that completes commands, options and values", CLI_COMPLETIONS, 1 },
    { "help", "[COMMAND|OPTION|SUBJECT]", "explain a command, an option or a subject", CLI_HELP, 1 },
};
const size_t cli_n_commands = sizeof cli_commands / sizeof cli_commands[0];

const struct cli_command *cli_command_find(const char *name)
{
    for (size_t i = 0; i < cli_n_commands; i++)
        if (!strcmp(cli_commands[i].name, name))
            return &cli_commands[i];
    return NULL;
}

static const struct cli_option *find(const char *name, size_t length, unsigned commands)
{
    for (size_t i = 0; i < cli_n_options; i++)
        if (cli_options[i].commands & commands && strlen(cli_options[i].name) == length &&
            !strncmp(cli_options[i].name, name, length))
            return &cli_options[i];
    return NULL;
}

const struct cli_option *cli_option_find(const char *name, unsigned commands)
{
    return find(name, strlen(name), commands);
}

/* ---- the nearest name ---------------------------------------------------------------------------------------------- */

static int min3(int a, int b, int c)
{
    const int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edit distance with neighbours swapped counted as one, on words of up to 31 bytes; longer ones are far from everything. */
static int distance(const char *a, const char *b)
{
    enum { MAX = 32 };
    const int na = (int)strlen(a), nb = (int)strlen(b);
    int       d[MAX][MAX];
    if (na >= MAX || nb >= MAX)
        return MAX;
    for (int i = 0; i <= na; i++)
        d[i][0] = i;
    for (int j = 0; j <= nb; j++)
        d[0][j] = j;
    for (int i = 1; i <= na; i++)
        for (int j = 1; j <= nb; j++) {
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    return d[na][nb];
}

static void nearer(const char *word, const char *candidate, const char **best, int *least)
{
    const bool begins = strlen(word) >= 2 && !strncmp(word, candidate, strlen(word));
    const int  d      = begins ? 1 : distance(word, candidate);
    if (d < *least) {
        *least = d;
        *best  = candidate;
    }
}

const char *cli_nearest(const char *word, unsigned of)
{
    const char *best  = NULL;
    int         least = strlen(word) < 5 ? 2 : 4; /* a distance has to be below this */
    for (size_t i = 0; !of && i < cli_n_commands; i++)
        nearer(word, cli_commands[i].name, &best, &least);
    for (size_t i = 0; of && i < cli_n_options; i++)
        if (cli_options[i].commands & of)
            nearer(word, cli_options[i].name, &best, &least);
    return best;
}

/* ---- parsing ------------------------------------------------------------------------------------------------------- */

/* The words still to come, and where the reason of a failure goes. */
struct reader {
    struct cli_args *a;
    char           **argv;
    int              argc, at;
    char            *message;
    size_t           size;
};

static bool fail(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct reader *r, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->message, r->size, fmt, args);
    va_end(args);
    return false;
}

static void *field(struct reader *r, const struct cli_option *o)
{
    return (char *)r->a + o->offset;
}

/* A whole number that fills text from *end's start on; *end is left at the first byte behind it. */
static bool whole(const char *text, const char **end, int64_t *out)
{
    char *stop = NULL;
    if (*text < '0' || *text > '9')
        if (*text != '-' || text[1] < '0' || text[1] > '9')
            return false;
    errno             = 0;
    const long long n = strtoll(text, &stop, 10);
    *end              = stop;
    *out              = n;
    return errno == 0;
}

static bool in_range(const struct cli_option *o, int64_t n)
{
    return n >= (int64_t)o->min && (o->max >= 9e18 || n <= (int64_t)o->max);
}

static bool refuse_count(struct reader *r, const struct cli_option *o, const char *text, const char *kind)
{
    if (o->max >= 9e18)
        return fail(r, "--%s is \"%s\"; expected %s from %.0f to 9223372036854775807", o->name, text, kind, o->min);
    return fail(r, "--%s is \"%s\"; expected %s from %.0f to %.0f", o->name, text, kind, o->min, o->max);
}

static bool read_count(struct reader *r, const struct cli_option *o, const char *text)
{
    const char *end = text;
    int64_t     n   = 0;
    if (!whole(text, &end, &n) || *end || !in_range(o, n))
        return refuse_count(r, o, text, "a whole number");
    *(int64_t *)field(r, o) = n;
    return true;
}

static bool read_size(struct reader *r, const struct cli_option *o, const char *text)
{
    const char *end = text;
    int64_t     w = 0, h = 0;
    const bool  ok = whole(text, &end, &w) && (*end == 'x' || *end == 'X') && whole(end + 1, &end, &h) && !*end;
    if (!ok || !in_range(o, w) || !in_range(o, h))
        return refuse_count(r, o, text, "WIDTHxHEIGHT, each");
    int64_t *size = field(r, o);
    size[0]       = w;
    size[1]       = h;
    return true;
}

static bool read_real(struct reader *r, const struct cli_option *o, const char *text)
{
    char        *end = NULL;
    const double x   = strtod(text, &end);
    /* strtod also takes "inf", "nan" and hexadecimal; nobody means those */
    if (end == text || *end || text[strspn(text, "+-.0123456789eE")] || !isfinite(x) || x < o->min || x > o->max)
        return fail(r, "--%s is \"%s\"; expected a number from %g to %g", o->name, text, o->min, o->max);
    *(double *)field(r, o) = x;
    return true;
}

static bool read_bytes(struct reader *r, const struct cli_option *o, const char *text)
{
    static const char letters[] = "KMGT";
    char             *end       = NULL;
    double            x         = strtod(text, &end);
    const char       *unit      = end != text && *end ? strchr(letters, *end & ~0x20) : NULL;
    if (unit) {
        for (const char *u = letters; u <= unit; u++)
            x *= 1024;
        end++;
        if (*end == 'i')
            end++;
    }
    if (end != text && *end == 'B')
        end++;
    if (end == text || *end || *text < '0' || *text > '9' || !(x >= o->min) || x >= 9e18)
        return fail(r, "--%s is \"%s\"; expected bytes from 1M up, such as 800M or 6G", o->name, text);
    *(int64_t *)field(r, o) = (int64_t)x;
    return true;
}

static bool read_pair(struct reader *r, const struct cli_option *o, const char *text)
{
    struct cli_args *a      = r->a;
    const char      *equals = strchr(text, '=');
    if (!equals || equals == text)
        return fail(r, "--%s is \"%s\"; expected NAME=VALUE", o->name, text);
    if (a->n_options == CLI_MAX_PAIRS)
        return fail(r, "--%s was given more than %d times", o->name, CLI_MAX_PAIRS);
    char *name = strndup(text, (size_t)(equals - text));
    if (!name)
        return fail(r, "no memory for --%s", o->name);
    a->names[a->n_options]     = name;
    a->options[a->n_options++] = (gv_option){ name, equals + 1 };
    return true;
}

static bool read_value(struct reader *r, const struct cli_option *o, const char *text)
{
    switch (o->type) {
    case ARG_FLAG: break;
    case ARG_COUNT: return read_count(r, o, text);
    case ARG_REAL: return read_real(r, o, text);
    case ARG_BYTES: return read_bytes(r, o, text);
    case ARG_SIZE: return read_size(r, o, text);
    case ARG_PAIR: return read_pair(r, o, text);
    case ARG_TEXT: *(const char **)field(r, o) = text; break;
    }
    return true;
}

static bool take(struct reader *r, const struct cli_option *o, const char *attached)
{
    if (o->type == ARG_FLAG) {
        if (attached)
            return fail(r, "--%s takes no value", o->name);
        *(bool *)field(r, o) = true;
        return true;
    }
    if (!attached && r->at == r->argc)
        return fail(r, "--%s needs a value: %s", o->name, o->value);
    return read_value(r, o, attached ? attached : r->argv[r->at++]);
}

static bool unknown(struct reader *r, const char *name, size_t length)
{
    char word[64];
    snprintf(word, sizeof word, "%.*s", length < 63 ? (int)length : 63, name);
    const char *near = cli_nearest(word, r->a->command->bit);
    if (near)
        return fail(r, "unknown option --%s; did you mean --%s?", word, near);
    return fail(r, "unknown option --%s", word);
}

static bool read_long(struct reader *r, const char *word)
{
    const char  *equals = strchr(word, '=');
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const struct cli_option *o = find(word, length, r->a->command->bit);
    return o ? take(r, o, equals ? equals + 1 : NULL) : unknown(r, word, length);
}

static const struct cli_option *by_letter(unsigned command, char letter)
{
    for (size_t i = 0; i < cli_n_options; i++)
        if (cli_options[i].letter == letter && cli_options[i].commands & command)
            return &cli_options[i];
    return NULL;
}

static bool read_letters(struct reader *r, const char *letters)
{
    for (const char *p = letters; *p; p++) {
        const struct cli_option *o = by_letter(r->a->command->bit, *p);
        if (!o)
            return fail(r, "unknown option -%c", *p);
        if (o->type != ARG_FLAG)
            return take(r, o, p[1] ? p + 1 : NULL);
        if (!take(r, o, NULL))
            return false;
    }
    return true;
}

static bool read_word(struct reader *r, const char *word)
{
    struct cli_args *a = r->a;
    if (a->n_words >= a->command->words) {
        if (a->command->bit == CLI_VIDEO)
            return fail(r, "\"%s\" is one word too many; put the prompt into quotes", word);
        return fail(r, "\"%s\" is one word too many", word);
    }
    a->words[a->n_words++] = word;
    return true;
}

/* What no single option can see. */
static bool agree(struct reader *r)
{
    const struct cli_args *a = r->a;
    if (a->help || a->version)
        return true;
    if (a->frames && a->seconds > 0)
        return fail(r, "give --frames or --seconds, not both");
    if (a->quiet && a->verbose)
        return fail(r, "give --quiet or --verbose, not both");
    if (a->n_words && a->prompt_file)
        return fail(r, "give the prompt as an argument or with --prompt-file, not both");
    if (a->list_devices + a->list_formats + a->list_options + a->list_words > 1)
        return fail(r, "give one of --devices, --formats, --options and --words");
    return true;
}

void cli_args_init(struct cli_args *a, const struct cli_command *command)
{
    *a = (struct cli_args){ .command = command, .seed = -1, .guidance = -1 };
}

/* `genvid help --steps` asks about an option as well as `genvid help steps` does. */
static bool is_question(const struct reader *r, const char *word)
{
    if (r->a->command->bit != CLI_HELP)
        return false;
    return word[1] == '-' ? word[2] && !find(word + 2, strlen(word + 2), CLI_HELP) : !by_letter(CLI_HELP, word[1]);
}

static bool read_argv(struct reader *r)
{
    bool ok = true, only_words = false;
    r->at = 0;
    while (ok && r->at < r->argc) {
        const char *word = r->argv[r->at++];
        if (only_words || word[0] != '-' || !word[1] || is_question(r, word))
            ok = read_word(r, word);
        else if (!strcmp(word, "--"))
            only_words = true;
        else if (word[1] == '-')
            ok = read_long(r, word + 2);
        else
            ok = read_letters(r, word + 1);
    }
    return ok;
}

/* Where argv has the one, the file's other is not meant. */
static void give_way(struct cli_args *a, const struct cli_args *flags)
{
    if (flags->n_words || flags->prompt_file)
        a->n_words = 0;
    if (flags->n_words)
        a->prompt_file = NULL;
    if (flags->frames)
        a->seconds = 0;
    if (flags->seconds > 0)
        a->frames = 0;
    if (flags->quiet)
        a->verbose = false;
    if (flags->verbose)
        a->quiet = false;
}

/* The file, and then argv once more over it. */
static bool read_config(struct reader *r)
{
    struct cli_args *a = r->a, *flags = malloc(sizeof *flags);
    if (!flags)
        return fail(r, "no memory for --config");
    *flags = *a;
    cli_args_free(a);
    cli_args_init(a, flags->command);
    bool ok = cli_config_read(a, flags->config, r->message, r->size);
    give_way(a, flags);
    free(flags);
    return ok && read_argv(r);
}

bool cli_args_parse(struct cli_args *a, int argc, char **argv, char *message, size_t size)
{
    struct reader r = { .a = a, .argv = argv, .argc = argc, .message = message, .size = size };
    return read_argv(&r) && (!a->config || read_config(&r)) && agree(&r);
}

bool cli_args_take(struct cli_args *a, const char *name, const char *text, char *message, size_t size)
{
    struct reader            r = { .a = a, .message = message, .size = size };
    const struct cli_option *o = cli_option_find(name, a->command->bit);
    return o ? take(&r, o, text) : unknown(&r, name, strlen(name));
}

void cli_args_free(struct cli_args *a)
{
    for (size_t i = 0; i < a->n_options; i++)
        free(a->names[i]);
    a->n_options = 0;
    json_decref(a->texts);
    a->texts = NULL;
}
