/* Help and the manual page, both printed from the tables in args.c. `genvid help --man` writes the page that is installed. */
#include <stdio.h>
#include <string.h>

#include "args.h"

enum { COLUMNS = 100, INDENT = 27 };

static const char OUTPUT_TEXT[] =
    "The extension of -o chooses the format; `genvid info --formats` lists those of this build. An unknown extension is "
    "refused "
    "before anything loads.\n"
    "Without -o the clip is named after its prompt and seed, in the current folder: a-red-fox-in-snow-42.mp4, and "
    "a-red-fox-in-snow-42-2.mp4 if that exists; nothing is replaced. A name given with -o that exists is refused, unless -y "
    "says to replace it.\n"
    "Files are written under a temporary name and renamed when they are whole: a failed or cancelled render leaves none. "
    "Should "
    "the machine fail, what was finished of a clip plays from the hidden file .NAME.PID-N.part beside it.\n"
    "`-o frames/%04d.png` writes numbered pictures. `-o - --format y4m` writes the clip to stdout, for a pipe; so does "
    "`--format rgb`, as bytes without a header.\n"
    "mp4, mov, mkv and webm carry their recipe as metadata (comment): prompt, every setting, hashes of the model and of the "
    "frames; "
    "png and jpg pictures carry it without the last; gif, y4m and rgb carry none. `genvid probe FILE` shows it, `genvid rerun "
    "FILE` "
    "renders it again and says whether the frames are the same. `--option hash=full` hashes every byte of the model.\n"
    "stdout carries the frames, or else the name of the file that was made and nothing more. Everything said to a reader, the "
    "seed included, goes to stderr. With --json, stdout carries one JSON object (the result; on stderr if stdout carries "
    "frames), and each line of stderr is one JSON object with a field \"event\": start, progress, log, error.\n";

static const char EXIT_TEXT[] =
    "0: done. What --check reads does not count; that it cannot read does, and the clip is kept.\n"
    "1: rerun made other frames than the file says.\n"
    "64: an option, a value or a request that cannot be; the message names it and its range.\n"
    "65: a picture or a prompt file that is broken or not what it claims to be.\n"
    "66: a file named on the command line that is not there.\n"
    "69: a model that cannot be used; the message names file and tensor or field.\n"
    "70: a bug in genvid.\n"
    "71: not enough memory, or the device failed.\n"
    "74: something could not be read or written.\n"
    "130: stopped by Ctrl-C or SIGTERM. The first Ctrl-C stops within one block and leaves no file; a second one stops at "
    "once.\n";

static const char FILES_TEXT[] =
    "The model is the folder given with --model, else the one in $GENVID_MODEL, else the installed share/genvid/models, else "
    "assets/models beside the build folder. It has the diffusers layout (model_index.json and a folder for each part), with "
    "genvid.json for what that layout cannot say. genvid caption takes the folder of a captioning model in the layout of "
    "transformers, or that of a video model with one in its folder captioner, as the shipped one has.\n";

static const char SESSION_TEXT[] =
    "`genvid` with no arguments, on a terminal, keeps the model loaded and reads lines. A line is a prompt and becomes a clip; "
    "an "
    "empty line makes it again with another seed. What begins with a colon is a command: `:set steps 8` changes a setting (the "
    "options of genvid video), `:unset` takes it back, `:again 7` repeats with seed 7, `:show` shows a frame in the terminal, "
    "`:save fox.mp4` keeps the clip, `:help` lists the rest. A clip that is not saved is gone with the session.\n"
    "Ctrl-C stops a render; Ctrl-D leaves. Lines are kept in the file named by $GENVID_HISTORY, else genvid_history in "
    "$XDG_STATE_HOME or ~/.local/state.\n"
    "While a clip is made, its middle frame is shown as it will be, in Kitty's or iTerm2's protocol or in half-blocks; "
    "$GENVID_GRAPHICS chooses: none, blocks, iterm, kitty. --preview-every N does so in genvid video.\n";

static const char CONFIG_TEXT[] =
    "--config FILE.json reads options from a JSON object. Keys are the options' long names; \"prompt\" is the prompt of a "
    "video, "
    "\"files\" are those of a caption; \"option\" is an object. Flags are true or false, sizes \"WxH\", all else a number or a "
    "text: "
    "{\"prompt\": \"a red fox\", \"steps\": 4, \"size\": \"256x144\", \"output\": \"fox.mp4\"}\n"
    "Options given on the command line win. --print-config prints all that was asked for in that form and stops.\n";

static const struct {
    const char *name, *heading, *text;
} subjects[] = {
    { "output", "OUTPUT", OUTPUT_TEXT },       { "exit", "EXIT STATUS", EXIT_TEXT },
    { "files", "FILES", FILES_TEXT },          { "session", "INTERACTIVE SESSION", SESSION_TEXT },
    { "config", "CONFIG FILES", CONFIG_TEXT },
};
enum { N_SUBJECTS = sizeof subjects / sizeof subjects[0] };

/* Words of text, broken before COLUMNS; at: the column the cursor is in. A newline in text begins a line. */
static void wrap(const char *text, int at, int indent)
{
    while (*text) {
        const int length = (int)strcspn(text, " \n");
        if (at > indent && at + 1 + length > COLUMNS) {
            printf("\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            putchar(' ');
            at++;
        }
        printf("%.*s", length, text);
        at += length;
        text += length;
        if (*text == '\n' && text[1]) {
            printf("\n%*s", indent, "");
            at = indent;
        }
        if (*text)
            text++;
    }
    putchar('\n');
}

static void range_text(const struct cli_option *o, char *out, size_t size)
{
    out[0] = 0;
    if (o->type == ARG_SIZE)
        snprintf(out, size, " (each %.0f to %.0f)", o->min, o->max);
    else if (o->type == ARG_COUNT && o->max < 9e18)
        snprintf(out, size, " (%.0f to %.0f)", o->min, o->max);
    else if (o->type == ARG_COUNT)
        snprintf(out, size, " (%.0f to 9223372036854775807)", o->min);
    else if (o->type == ARG_REAL)
        snprintf(out, size, " (%g to %g)", o->min, o->max);
}

static void print_option(const struct cli_option *o)
{
    char       left[64], text[320], range[64];
    const char letter[] = { '-', o->letter, ',', ' ', 0 };
    range_text(o, range, sizeof range);
    snprintf(left, sizeof left, "  %s--%s%s%s", o->letter ? letter : "    ", o->name, o->value ? " " : "",
             o->value ? o->value : "");
    snprintf(text, sizeof text, "%s%s", o->help, range);
    printf("%-*s", INDENT, left);
    if ((int)strlen(left) >= INDENT)
        printf("\n%*s", INDENT, "");
    wrap(text, INDENT, INDENT);
}

int cli_help_command(const struct cli_command *c)
{
    const char *topic = "";
    printf("genvid %s %s\n  %s\n", c->name, c->synopsis, c->summary);
    for (size_t i = 0; i < cli_n_options; i++) {
        const struct cli_option *o = &cli_options[i];
        if (!(o->commands & c->bit))
            continue;
        if (strcmp(topic, o->topic))
            printf("\n%s\n", topic = o->topic);
        print_option(o);
    }
    if (c->bit == CLI_VIDEO)
        printf("\nWhat is left out is the model's own. See also: genvid help output, exit, files, session, config\n");
    return EXIT_OK;
}

int cli_help_all(void)
{
    printf("genvid %s: video from text and pictures, text from pictures\n\n", gv_version());
    for (size_t i = 0; i < cli_n_commands; i++)
        printf("  genvid %-7s %s\n", cli_commands[i].name, cli_commands[i].summary);
    printf("\n  genvid video \"a red fox in snow\" -o fox.mp4\n\n"
           "Without arguments, on a terminal, it converses. More: genvid help COMMAND or OPTION; genvid help output, exit, "
           "files,\n"
           "session, config; genvid help --man; genvid completions bash\n");
    return EXIT_OK;
}

/* ---- the manual page ----------------------------------------------------------------------------------------------- */

/* troff reads "-" as a hyphen, "\" as its own escape, and "." or "'" at the start of a line as a request. */
static void troff(const char *text)
{
    for (const char *p = text; *p; p++) {
        const bool starts = p == text || p[-1] == '\n';
        if (starts && (*p == '.' || *p == '\''))
            fputs("\\&", stdout);
        if (*p == '-')
            fputs("\\-", stdout);
        else if (*p == '\\')
            fputs("\\e", stdout);
        else if (*p == '\n' && p[1])
            fputs("\n.PP\n", stdout);
        else
            putchar(*p);
    }
}

static void man_option(const struct cli_option *o)
{
    char range[64];
    range_text(o, range, sizeof range);
    printf(".TP\n\\fB");
    if (o->letter)
        printf("\\-%c\\fR, \\fB", o->letter);
    printf("\\-\\-");
    troff(o->name);
    printf("\\fR");
    if (o->value) {
        printf(" \\fI");
        troff(o->value);
        printf("\\fR");
    }
    putchar('\n');
    troff(o->help);
    troff(range);
    putchar('\n');
}

static void man_command(const struct cli_command *c)
{
    printf(".SS genvid %s ", c->name);
    troff(c->synopsis);
    putchar('\n');
    troff(c->summary);
    putchar('\n');
    for (size_t i = 0; i < cli_n_options; i++)
        if (cli_options[i].commands & c->bit)
            man_option(&cli_options[i]);
}

static int man_page(void)
{
    printf(".TH GENVID 1 \"\" \"genvid %s\" \"User Commands\"\n", gv_version());
    printf(".SH NAME\ngenvid \\- video from text and pictures\n.SH SYNOPSIS\n");
    for (size_t i = 0; i < cli_n_commands; i++) {
        printf(".B genvid %s\n", cli_commands[i].name);
        troff(cli_commands[i].synopsis);
        printf("\n.br\n");
    }
    printf(".SH DESCRIPTION\nRenders clips with video diffusion models of the Wan kind, in one process and without Python.\n"
           "Settings that are left out are the model's own.\n.SH COMMANDS\n");
    for (size_t i = 0; i < cli_n_commands; i++)
        man_command(&cli_commands[i]);
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        printf(".SH %s\n", subjects[i].heading);
        troff(subjects[i].text);
    }
    printf(".SH ENVIRONMENT\n.TP\n.B GENVID_MODEL\nFolder of the model that is used when \\fB\\-\\-model\\fR is left out.\n"
           ".SH EXAMPLES\n.nf\n"
           "genvid video \"a red fox in snow\" \\-o fox.mp4\n"
           "genvid video \"the boat sails away\" \\-\\-image boat.jpg \\-\\-seconds 3\n"
           "genvid video \\-f prompt.txt \\-o \\- \\-\\-format y4m | ffmpeg \\-i \\- fox.webm\n.fi\n");
    return EXIT_OK;
}

/* An option of whatever commands have one of that name, or of that letter. */
static bool help_option(const char *word)
{
    const char *name = word + (word[0] == '-') + (word[0] == '-' && word[1] == '-');
    const bool  letter = name == word + 1 && name[0] && !name[1];
    bool found = false;
    for (size_t i = 0; i < cli_n_options; i++) {
        const char *between = "";
        if (letter ? cli_options[i].letter != name[0] : strcmp(cli_options[i].name, name) != 0)
            continue;
        for (size_t k = 0; k < cli_n_commands; k++)
            if (cli_options[i].commands & cli_commands[k].bit) {
                printf("%sgenvid %s", between, cli_commands[k].name);
                between = ", ";
            }
        putchar('\n');
        print_option(&cli_options[i]);
        found = true;
    }
    return found;
}

int cli_help(const struct cli_args *a)
{
    if (a->man)
        return man_page();
    if (!a->n_words)
        return cli_help_all();
    const char               *word = a->words[0];
    const struct cli_command *c    = cli_command_find(word);
    if (c)
        return cli_help_command(c);
    for (size_t i = 0; i < N_SUBJECTS; i++)
        if (!strcmp(subjects[i].name, word)) {
            wrap(subjects[i].text, 0, 0);
            return EXIT_OK;
        }
    if (help_option(word))
        return EXIT_OK;
    const char *near = cli_nearest(word, 0);
    fprintf(stderr, "genvid: no help on \"%s\"%s%s%s\n", word, near ? "; did you mean " : "", near ? near : "",
            near ? "?" : "");
    return EXIT_USAGE;
}
