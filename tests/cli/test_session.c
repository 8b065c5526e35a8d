/* The interactive session in a pseudo-terminal: what a person types, and what has to be on the screen soon after. In the three
 * manners in which a terminal shows pictures.
 *   test_session GENVID MODEL CAPTION_MODEL */
#define _XOPEN_SOURCE 700 /* posix_openpt */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fixture.h"

static const char *genvid, *model, *captioner;
static char        folder[256]; /* where the session runs and keeps its temporary clip */

enum { PATIENCE = 120 }; /* seconds, for machines that are shared */

struct terminal {
    int    fd;
    pid_t  child;
    char  *seen; /* all that came, zeros left out: megabytes where previews are drawn as blocks */
    size_t n, room, from;
};

static void be_genvid(const char *tty, const char *graphics)
{
    setsid();
    const int fd = open(tty, O_RDWR); /* which makes it the controlling terminal */
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    if (chdir(folder))
        _exit(3);
    setenv("TERM", "xterm-256color", 1);
    setenv("GENVID_GRAPHICS", graphics, 1);
    setenv("GENVID_MODEL", model, 1);
    setenv("GENVID_HISTORY", "", 1);
    setenv("TMPDIR", folder, 1);
    execl(genvid, genvid, (char *)NULL);
    _exit(3);
}

static struct terminal start(const char *graphics)
{
    struct terminal t = { .fd = posix_openpt(O_RDWR | O_NOCTTY), .seen = calloc(1, 1 << 16), .room = 1 << 16 };
    assert_true(t.seen && t.fd >= 0 && grantpt(t.fd) == 0 && unlockpt(t.fd) == 0);
    fcntl(t.fd, F_SETFD, FD_CLOEXEC); /* a child that held it would never see it closed */
    char tty[128];
    snprintf(tty, sizeof tty, "%s", ptsname(t.fd));
    ioctl(t.fd, TIOCSWINSZ, &(struct winsize){ .ws_row = 40, .ws_col = 100 });
    t.child = fork();
    assert_true(t.child >= 0);
    if (!t.child)
        be_genvid(tty, graphics);
    return t;
}

/* What comes within a while. False: nothing more will. */
static bool listen_to(struct terminal *t)
{
    struct pollfd p = { .fd = t->fd, .events = POLLIN };
    char          block[4096];
    if (poll(&p, 1, PATIENCE * 1000) <= 0)
        return false;
    const ssize_t n = read(t->fd, block, sizeof block);
    if (t->n + sizeof block >= t->room)
        assert_non_null(t->seen = realloc(t->seen, t->room *= 2));
    for (ssize_t i = 0; i < n; i++)
        if (block[i])
            t->seen[t->n++] = block[i];
    t->seen[t->n] = 0;
    return n > 0;
}

static void give_up(struct terminal *t, const char *words)
{
    kill(t->child, SIGKILL);
    waitpid(t->child, NULL, 0);
    fail_msg("\"%s\" did not come; the end of what did: %s", words, t->seen + (t->n > 600 ? t->n - 600 : 0));
}

/* Waits for words that were not there at the last call. */
static void expect(struct terminal *t, const char *words)
{
    const size_t n = strlen(words);
    const char  *at;
    while (!(at = strstr(t->seen + t->from, words))) {
        t->from = t->n > t->from + n ? t->n - n : t->from; /* seen, and not these */
        if (!listen_to(t))
            give_up(t, words);
    }
    t->from = (size_t)(at - t->seen) + n;
}

static void type(struct terminal *t, const char *line)
{
    assert_int_equal(write(t->fd, line, strlen(line)), (ssize_t)strlen(line));
    assert_int_equal(write(t->fd, "\r", 1), 1);
}

static void finish_with(struct terminal *t, int exit_status)
{
    const struct timespec moment = { 0, 20000000 };
    int                   status, ended = 0;
    while (listen_to(t))
        ;
    /* the terminal is let go shortly before the process is gone */
    for (int i = 0; i < PATIENCE * 50 && !ended; i++) {
        ended = waitpid(t->child, &status, WNOHANG);
        nanosleep(&moment, NULL);
    }
    if (!ended)
        give_up(t, "the end");
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), exit_status);
    assert_null(strstr(t->seen, "Sanitizer"));
    close(t->fd);
    free(t->seen);
}

static void finish(struct terminal *t)
{
    finish_with(t, 0);
}

/* Ctrl-D until it is heard: what is typed while the line editor takes the terminal over is lost. */
static void leave(struct terminal *t)
{
    struct pollfd p = { .fd = t->fd, .events = POLLIN };
    for (int i = 0; i < PATIENCE; i++) {
        assert_int_equal(write(t->fd, "\004", 1), 1);
        if (poll(&p, 1, 1000) > 0 && (p.revents & POLLHUP || !listen_to(t)))
            break;
    }
    finish(t);
}

static int count_files(const char *begin)
{
    int            n = 0;
    DIR           *d = opendir(folder);
    struct dirent *f;
    while ((f = readdir(d)))
        n += !strncmp(f->d_name, begin, strlen(begin));
    closedir(d);
    return n;
}

static void small(struct terminal *t)
{
    expect(t, ":help lists");
    expect(t, "genvid> ");
    type(t, ":set size 64x48");
    expect(t, "genvid> ");
    type(t, ":set frames 5");
    expect(t, "genvid> ");
    type(t, ":set steps=2");
    expect(t, "genvid> ");
    type(t, ":set format y4m");
    expect(t, "genvid> ");
}

static void a_prompt_becomes_a_clip_that_can_be_shown_saved_and_made_again(void **state)
{
    (void)state;
    struct stat     first, second;
    char            path[400];
    struct terminal t = start("blocks");
    small(&t);
    type(&t, ":set seed 7");
    expect(&t, "genvid> ");
    type(&t, "a red fox");
    expect(&t, "\xe2\x96\x80"); /* a preview */
    expect(&t, "64x48, 5 frames, 2 steps, seed 7");
    expect(&t, "genvid> ");
    type(&t, ":show 4");
    expect(&t, "\033[38;2;");
    expect(&t, "genvid> ");
    type(&t, ":save");
    expect(&t, "saved: a-red-fox-7.y4m");
    type(&t, ":again 8");
    expect(&t, "seed 8");
    type(&t, ":save other.y4m");
    expect(&t, "saved: other.y4m");
    type(&t, ":save other.y4m");
    expect(&t, "exists");
    type(&t, ":save other.mp4");
    expect(&t, "the clip is a .y4m");
    type(&t, ":quit");
    finish(&t);
    snprintf(path, sizeof path, "%s/a-red-fox-7.y4m", folder);
    assert_int_equal(stat(path, &first), 0);
    snprintf(path, sizeof path, "%s/other.y4m", folder);
    assert_int_equal(stat(path, &second), 0);
    assert_int_equal(first.st_size, second.st_size);
    assert_int_equal(count_files("genvid-"), 0); /* the temporary clip is gone with its folder */
}

static void an_empty_line_takes_another_seed(void **state)
{
    (void)state;
    struct terminal t = start("none");
    char            seed[32] = "";
    small(&t);
    type(&t, "a boat");
    expect(&t, "seed ");
    sscanf(t.seen + t.from, "%20[0-9]", seed);
    expect(&t, "genvid> ");
    type(&t, "");
    expect(&t, "seed ");
    while (!strchr(t.seen + t.from, ':'))
        assert_true(listen_to(&t));
    assert_int_not_equal(atoll(seed), atoll(t.seen + t.from));
    type(&t, ":show");
    expect(&t, "shows no pictures");
    expect(&t, "genvid> ");
    leave(&t);
}

/* The captioner is one of random weights: it is what is asked and told that matters, clip by clip. */
static void a_clip_is_checked_where_that_is_set(void **state)
{
    (void)state;
    char            line[600];
    struct terminal t = start("none");
    small(&t);
    type(&t, ":set check");
    expect(&t, "genvid> ");
    type(&t, "a red fox");
#ifdef GV_HAVE_FFMPEG
    expect(&t, "no captioner: "); /* the model has none, and nothing is made */
    expect(&t, "genvid> ");
    snprintf(line, sizeof line, ":set check-model %s", captioner);
    type(&t, line);
    expect(&t, "genvid> ");
    for (int i = 0; i < 2; i++) {
        type(&t, i ? ":again 8" : "a red fox runs to the left");
        expect(&t, "check: reading the clip back");
        expect(&t, "64x48, 5 frames, 2 steps, seed ");
        expect(&t, "check: the captioner says \"");
        expect(&t, "check: 0 of 3 as asked; not actor: asked fox");
        expect(&t, "genvid> ");
    }
    type(&t, ":set format rgb");
    expect(&t, "genvid> ");
    type(&t, ":again 8");
    expect(&t, "is none that can be read");
    type(&t, ":unset format");
    expect(&t, "genvid> ");
    type(&t, ":unset check-model");
    expect(&t, "genvid> ");
#else
    snprintf(line, sizeof line, "this build lacks libav");
    expect(&t, line);
    expect(&t, "genvid> ");
#endif
    type(&t, ":unset check");
    expect(&t, "genvid> ");
    type(&t, ":again 8");
    expect(&t, "seed 8");
    const size_t from = t.from;
    type(&t, ":info");
    expect(&t, "clip    made");
    assert_null(strstr(t.seen + from, "check:"));
    type(&t, ":quit");
    finish(&t);
}

static void mistakes_are_told_and_the_session_goes_on(void **state)
{
    (void)state;
    struct terminal t = start("blocks");
    expect(&t, "genvid> ");
    type(&t, ":set stesp 4");
    expect(&t, "did you mean steps?");
    type(&t, ":set steps 0");
    expect(&t, "--steps is \"0\"; expected a whole number from 1 to 1000");
    type(&t, ":frobnicate");
    expect(&t, "there is no command \":frobnicate\"");
    type(&t, ":save");
    expect(&t, "there is no clip to save");
    type(&t, ":show");
    expect(&t, "there is no clip yet");
    type(&t, ":set steps 3");
    expect(&t, "genvid> ");
    type(&t, ":set");
    expect(&t, "steps=3");
    type(&t, ":unset steps");
    expect(&t, "genvid> ");
    type(&t, ":set");
    expect(&t, "nothing is set");
    type(&t, ":help set");
    expect(&t, ":set guidance");
    type(&t, ":set solver nonsense");
    expect(&t, "genvid> ");
    type(&t, "a fox");
    expect(&t, "solver is \"nonsense\"");
    type(&t, ":quit");
    finish(&t);
}

static void control_c_stops_the_render_and_leaves_the_session(void **state)
{
    (void)state;
    struct terminal t = start("blocks");
    expect(&t, "genvid> ");
    type(&t, ":set steps 200");
    expect(&t, "genvid> ");
    type(&t, "a fox");
    expect(&t, "denoise");
    expect(&t, "denoise");
    assert_int_equal(write(t.fd, "\003", 1), 1);
    expect(&t, "stopped");
    expect(&t, "genvid> ");
    assert_int_equal(write(t.fd, "half a line", 11), 11);
    expect(&t, "half a line"); /* it is being read */
    assert_int_equal(write(t.fd, "\003", 1), 1);
    expect(&t, "genvid> ");
    type(&t, ":info");
    expect(&t, "clip    none");
    type(&t, ":quit");
    finish(&t);
}

/* The prompt is printed before the line editor has the terminal and before it reads: a Ctrl-C in between is heard as well. */
static void control_c_is_heard_at_every_moment_of_the_prompt(void **state)
{
    (void)state;
    struct terminal t = start("none");
    for (int i = 0; i < 100; i++) {
        expect(&t, "genvid> ");
        assert_int_equal(write(t.fd, "\003", 1), 1);
    }
    expect(&t, "genvid> ");
    type(&t, ":quit");
    finish(&t);
}

static void a_signal_to_end_is_obeyed_at_the_prompt_and_in_a_render(void **state)
{
    static const int signals[] = { SIGTERM, SIGHUP };
    (void)state;
    for (size_t i = 0; i < 2 * sizeof signals / sizeof *signals; i++) {
        struct terminal t = start("none");
        expect(&t, "genvid> ");
        if (i & 1) {
            type(&t, ":set steps 200");
            expect(&t, "genvid> ");
            type(&t, "a fox");
            expect(&t, "denoise");
        }
        assert_int_equal(kill(t.child, signals[i / 2]), 0);
        finish_with(&t, 130);
    }
    assert_int_equal(count_files("genvid-"), 0);
}

static void pictures_come_in_the_terminals_own_protocol(void **state)
{
    static const struct {
        const char *graphics, *sign, *end;
    } kinds[] = { { "kitty", "\033_Ga=T,f=24,s=", "\033\\" }, { "iterm", "\033]1337;File=inline=1;size=", "\a" } };
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct terminal t = start(kinds[i].graphics);
        small(&t);
        type(&t, "a red fox");
        expect(&t, kinds[i].sign);
        expect(&t, kinds[i].end);
        expect(&t, "seed ");
        type(&t, ":quit");
        finish(&t);
    }
}

static int set_up(void **state)
{
    (void)state;
    fixture_temp(folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_remove(folder);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_becomes_a_clip_that_can_be_shown_saved_and_made_again),
        cmocka_unit_test(an_empty_line_takes_another_seed),
        cmocka_unit_test(a_clip_is_checked_where_that_is_set),
        cmocka_unit_test(mistakes_are_told_and_the_session_goes_on),
        cmocka_unit_test(control_c_stops_the_render_and_leaves_the_session),
        cmocka_unit_test(control_c_is_heard_at_every_moment_of_the_prompt),
        cmocka_unit_test(a_signal_to_end_is_obeyed_at_the_prompt_and_in_a_render),
        cmocka_unit_test(pictures_come_in_the_terminals_own_protocol),
    };
    if (argc != 4)
        return 2;
    genvid = argv[1], model = argv[2], captioner = argv[3];
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
