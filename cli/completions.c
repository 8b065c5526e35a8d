/* genvid completions SHELL: a script for bash or zsh, printed from the tables in args.c. A value is completed by its placeholder:
 * FILE and DIR by what is there, a list with bars by its entries, all else not at all. */
#include <stdio.h>
#include <string.h>

#include "args.h"

static bool is_place(const struct cli_option *o)
{
    return o->value && (strstr(o->value, "FILE") || strstr(o->value, "DIR"));
}

static bool is_list(const struct cli_option *o)
{
    return o->value && strchr(o->value, '|');
}

static void put_list(const char *value)
{
    for (; *value; value++)
        putchar(*value == '|' ? ' ' : *value);
}

static void put_names(const struct cli_option *o, const char *between)
{
    if (o->letter)
        printf("-%c%s", o->letter, between);
    printf("--%s", o->name);
}

/* ---- bash ---- */

static void bash_value(const struct cli_option *o)
{
    if (o->type == ARG_FLAG)
        return;
    printf("        ");
    put_names(o, "|");
    printf(") ");
    if (is_place(o)) {
        printf("mapfile -t COMPREPLY < <(compgen -%c -- \"$cur\"); ", strstr(o->value, "DIR") ? 'd' : 'f');
    } else if (is_list(o)) {
        printf("mapfile -t COMPREPLY < <(compgen -W '");
        put_list(o->value);
        printf("' -- \"$cur\"); ");
    }
    printf("return ;;\n");
}

static void bash_command(const struct cli_command *c)
{
    printf("    %s)\n      case $prev in\n", c->name);
    for (size_t i = 0; i < cli_n_options; i++)
        if (cli_options[i].commands & c->bit)
            bash_value(&cli_options[i]);
    printf("      esac\n      words='");
    for (size_t i = 0; i < cli_n_options; i++)
        if (cli_options[i].commands & c->bit)
            printf("--%s ", cli_options[i].name);
    printf("' ;;\n");
}

static void bash_commands(void)
{
    for (size_t i = 0; i < cli_n_commands; i++)
        printf("%s%s", i ? " " : "", cli_commands[i].name);
}

static int bash(void)
{
    printf("# genvid completions bash: source this, or put it into bash-completion's folder as \"genvid\".\n_genvid()\n{\n"
           "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=\n  COMPREPLY=()\n"
           "  if [ \"$COMP_CWORD\" = 1 ]; then\n    mapfile -t COMPREPLY < <(compgen -W '");
    bash_commands();
    printf("' -- \"$cur\")\n    return\n  fi\n  case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < cli_n_commands; i++)
        bash_command(&cli_commands[i]);
    printf("  esac\n  case ${COMP_WORDS[1]},$cur in\n    help,*) mapfile -t COMPREPLY < <(compgen -W '");
    bash_commands();
    printf(" output exit files session config' -- \"$cur\") ;;\n"
           "    completions,*) mapfile -t COMPREPLY < <(compgen -W 'bash zsh' -- \"$cur\") ;;\n"
           "    *,-*) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\") ;;\n"
           "    *) mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n  esac\n}\ncomplete -o filenames -F _genvid genvid\n");
    return EXIT_OK;
}

/* ---- zsh ---- */

/* Inside of '...[help]...': brackets and colons have a meaning there, a quote ends the string. */
static void zsh_text(const char *text)
{
    for (; *text; text++) {
        if (strchr("[]:\\", *text))
            putchar('\\');
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*text);
    }
}

static void zsh_option(const struct cli_option *o)
{
    const char *repeat = o->type == ARG_PAIR ? "*" : "";
    printf("        '");
    if (o->letter)
        printf("(-%c --%s)'{-%c,--%s}'", o->letter, o->name, o->letter, o->name);
    else
        printf("%s--%s", repeat, o->name);
    printf("[");
    zsh_text(o->help);
    printf("]");
    if (o->type != ARG_FLAG) {
        printf(":");
        zsh_text(is_list(o) ? "value" : o->value);
        printf(":");
        if (is_place(o)) {
            printf("%s", strstr(o->value, "DIR") ? "_files -/" : "_files");
        } else if (is_list(o)) {
            printf("(");
            put_list(o->value);
            printf(")");
        }
    }
    printf("' \\\n");
}

static int zsh(void)
{
    printf("#compdef genvid\n# genvid completions zsh: put this into a folder of $fpath as \"_genvid\".\n_genvid()\n{\n"
           "  local -a commands\n  commands=(\n");
    for (size_t i = 0; i < cli_n_commands; i++) {
        printf("    '%s:", cli_commands[i].name);
        zsh_text(cli_commands[i].summary);
        printf("'\n");
    }
    printf("  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n  local command=$words[2]\n"
           "  shift words\n  (( CURRENT-- ))\n  case $command in\n    completions) _values shell bash zsh ;;\n");
    for (size_t i = 0; i < cli_n_commands; i++) {
        const struct cli_command *c = &cli_commands[i];
        if (c->bit == CLI_COMPLETIONS)
            continue;
        printf("    %s)\n      _arguments -s \\\n", c->name);
        for (size_t k = 0; k < cli_n_options; k++)
            if (cli_options[k].commands & c->bit)
                zsh_option(&cli_options[k]);
        printf("        '*:: :%s' ;;\n", c->bit == CLI_HELP ? "( )" : "_files");
    }
    printf("  esac\n}\n_genvid \"$@\"\n");
    return EXIT_OK;
}

int cli_completions(const struct cli_args *a)
{
    const char *shell = a->n_words ? a->words[0] : "";
    if (!strcmp(shell, "bash"))
        return bash();
    if (!strcmp(shell, "zsh"))
        return zsh();
    fprintf(stderr, "genvid: completions are for bash or zsh; genvid completions bash\n");
    return EXIT_USAGE;
}
