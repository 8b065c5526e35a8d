/* Memory that runs out, at every place where it is asked for: a whole visit of a client (open, load, describe, estimate, render
 * into a file, report, close) is repeated, and each time one more allocation succeeds before one fails. Every time there has
 * to be an error with words, nothing left in the output folder, and not a byte that is not given back.
 *
 * The linker turns the library's own calls of malloc and its relatives into those below (--wrap); jansson's are taken by its own
 * hook. Reading and writing JSON fails as a whole, because jansson 2.14 itself does not survive less: its lexer runs over a buffer
 * that could not grow, its writer leaves out a key. What libav, PCRE2 and utf8proc ask for is out of reach. */
#include <dirent.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "genvid.h"
#include "tests/fixture.h"

/* ---- the allocator: counts calls, fails some, knows what is out ---- */

enum { SLOTS = 1 << 16 };

static struct {
    pthread_mutex_t lock;
    bool            watching, in_json;
    long            calls, fail_from, fail_to; /* calls [from, to) fail; counted from 1 */
    bool            failed;
    void           *first_site; /* who asked for what was refused first */
    struct {
        void *p, *site;
    } out[SLOTS];
    long n_out;
} heap = { .lock = PTHREAD_MUTEX_INITIALIZER };

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
int   __real_posix_memalign(void **out, size_t align, size_t n);
void  __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
int   __wrap_posix_memalign(void **out, size_t align, size_t n);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);
void  __wrap_free(void *p);

static size_t home(const void *p)
{
    return (size_t)((uint64_t)(uintptr_t)p * 0x9E3779B97F4A7C15u >> 32) % SLOTS;
}

static void note(void *p, void *site)
{
    size_t i = home(p);
    while (heap.out[i].p)
        i = (i + 1) % SLOTS;
    heap.out[i].p = p;
    heap.out[i].site = site;
    if (++heap.n_out > SLOTS / 2)
        abort();
}

/* Later entries of the same run move up, so that a search may stop at the first hole. */
static void forget(const void *p)
{
    size_t i = home(p);
    while (heap.out[i].p && heap.out[i].p != p)
        i = (i + 1) % SLOTS;
    if (!heap.out[i].p)
        return; /* from before, or from a library */
    heap.n_out--;
    for (size_t k = (i + 1) % SLOTS; heap.out[k].p; k = (k + 1) % SLOTS)
        if ((k - home(heap.out[k].p)) % SLOTS >= (k - i) % SLOTS) {
            heap.out[i] = heap.out[k];
            i = k;
        }
    heap.out[i].p = NULL;
}

static bool refused(void *site)
{
    if (!heap.watching || heap.in_json)
        return false;
    heap.calls++;
    const bool refuse = heap.calls >= heap.fail_from && heap.calls < heap.fail_to;
    if (refuse && !heap.failed)
        heap.first_site = site;
    heap.failed = heap.failed || refuse;
    return refuse;
}

/* p replaces old, which may be NULL. */
static void *kept(void *p, const void *old, void *site)
{
    if (p && old)
        forget(old);
    if (p && heap.watching)
        note(p, site);
    return p;
}

#define SITE __builtin_return_address(0)

void *__wrap_malloc(size_t n)
{
    pthread_mutex_lock(&heap.lock);
    void *p = refused(SITE) ? NULL : kept(__real_malloc(n), NULL, SITE);
    pthread_mutex_unlock(&heap.lock);
    return p;
}

void *__wrap_calloc(size_t n, size_t size)
{
    pthread_mutex_lock(&heap.lock);
    void *p = refused(SITE) ? NULL : kept(__real_calloc(n, size), NULL, SITE);
    pthread_mutex_unlock(&heap.lock);
    return p;
}

void *__wrap_realloc(void *old, size_t n)
{
    pthread_mutex_lock(&heap.lock);
    const bool shrinks = old && n <= malloc_usable_size(old); /* which no allocator refuses */
    void      *p = !shrinks && refused(SITE) ? NULL : kept(__real_realloc(old, n), old, SITE);
    pthread_mutex_unlock(&heap.lock);
    return p;
}

int __wrap_posix_memalign(void **out, size_t align, size_t n)
{
    pthread_mutex_lock(&heap.lock);
    void     *p = NULL;
    const int status = refused(SITE) ? 12 : __real_posix_memalign(&p, align, n);
    if (!status)
        *out = kept(p, NULL, SITE);
    pthread_mutex_unlock(&heap.lock);
    return status;
}

static char *copy(const char *text, size_t n, void *site)
{
    pthread_mutex_lock(&heap.lock);
    char *p = refused(site) ? NULL : kept(__real_malloc(n + 1), NULL, site);
    pthread_mutex_unlock(&heap.lock);
    if (p) {
        memcpy(p, text, n);
        p[n] = 0;
    }
    return p;
}

char *__wrap_strdup(const char *text)
{
    return copy(text, strlen(text), SITE);
}

char *__wrap_strndup(const char *text, size_t n)
{
    return copy(text, strnlen(text, n), SITE);
}

void __wrap_free(void *p)
{
    pthread_mutex_lock(&heap.lock);
    if (p)
        forget(p);
    __real_free(p);
    pthread_mutex_unlock(&heap.lock);
}

json_t *__real_json_loadb(const char *text, size_t n, size_t flags, json_error_t *e);
json_t *__wrap_json_loadb(const char *text, size_t n, size_t flags, json_error_t *e);
char   *__real_json_dumps(const json_t *root, size_t flags);
char   *__wrap_json_dumps(const json_t *root, size_t flags);

json_t *__wrap_json_loadb(const char *text, size_t n, size_t flags, json_error_t *e)
{
    pthread_mutex_lock(&heap.lock);
    const bool no = refused(SITE);
    heap.in_json = !no;
    pthread_mutex_unlock(&heap.lock);
    json_t *root = no ? NULL : __real_json_loadb(text, n, flags, e);
    if (no) {
        *e = (json_error_t){ .text = "out of memory" };
        e->text[JSON_ERROR_TEXT_LENGTH - 1] = json_error_out_of_memory; /* where json_error_code looks */
    }
    heap.in_json = false;
    return root;
}

char *__wrap_json_dumps(const json_t *root, size_t flags)
{
    pthread_mutex_lock(&heap.lock);
    const bool no = refused(SITE);
    heap.in_json = !no;
    pthread_mutex_unlock(&heap.lock);
    char *text = no ? NULL : __real_json_dumps(root, flags);
    heap.in_json = false;
    return text;
}

/* ---- a visit ---- */

static char folder[256], model[300], out[300], answering[300];

enum kind { VIDEO, CAPTION };

struct visit {
    enum kind kind;
    char      words[512]; /* of the failure */
    gv_status status;
    bool told; /* something said that it failed: a code, a text that is missing, or a warning that a smaller plan is tried */
};

static void text_or_failure(struct visit *v, char *text)
{
    v->told = v->told || !text;
    gv_free(text);
}

static void render(struct visit *v, gv_session *s, const gv_model *m)
{
    gv_video_request q;
    gv_estimate      e;
    char             path[400];
    gv_video_request_init(&q);
    gv_estimate_init(&e);
    snprintf(path, sizeof path, "%s/clip.y4m", out);
    q.model = m, q.prompt = "a red fox, in snow", q.negative_prompt = "grey", q.first_image = GV_TEST_DATA "/media/rgb.png";
    q.width = q.height = 32, q.frames = 5, q.steps = 2, q.guidance = 2, q.output_path = path;
    v->status = gv_video_estimate(s, &q, &e);
    if (!v->status)
        v->status = gv_video_generate(s, &q);
}

static void answer(struct visit *v, gv_session *s, const gv_model *m)
{
    const char        *media[] = { GV_TEST_DATA "/media/rgb.png" };
    gv_caption_request q;
    char              *text;
    gv_caption_request_init(&q);
    q.model = m, q.media = media, q.media_count = 1, q.question = "what is it?", q.max_tokens = 3;
    v->status = gv_caption(s, &q, &text);
    gv_free(text);
}

static void in_session(struct visit *v, gv_engine *e, const gv_model *m)
{
    gv_session *s = NULL;
    v->status = gv_session_open(e, &s);
    if (v->status) {
        snprintf(v->words, sizeof v->words, "%s", gv_status_name(v->status));
        return;
    }
    if (v->kind == VIDEO)
        render(v, s, m);
    else
        answer(v, s, m);
    snprintf(v->words, sizeof v->words, "%s", gv_session_message(s));
    if (!v->status)
        text_or_failure(v, gv_session_report(s));
    gv_session_close(&s);
}

static void hear(void *user, gv_log_level level, const char *message)
{
    struct visit *v = user;
    v->told = v->told || (level == GV_LOG_WARN && strstr(message, "starting again"));
}

static struct visit visit(enum kind kind)
{
    struct visit     v = { .kind = kind };
    gv_engine       *e = NULL;
    gv_model        *m = NULL;
    gv_engine_params p;
    gv_engine_params_init(&p);
    p.threads = 2, p.log = hear, p.log_user = &v, p.log_level = GV_LOG_WARN;
    v.status = gv_engine_open(&p, &e, v.words, sizeof v.words);
    if (!v.status)
        v.status = gv_model_load(e, kind == VIDEO ? model : answering, &m, v.words, sizeof v.words);
    if (!v.status) {
        text_or_failure(&v, gv_model_describe(m));
        text_or_failure(&v, gv_model_options_json(m));
        in_session(&v, e, m);
    }
    gv_engine_close(&e);
    v.told = v.told || v.status;
    return v;
}

static int files_in(const char *path)
{
    int            n = 0;
    DIR           *d = opendir(path);
    struct dirent *f;
    while (d && (f = readdir(d)))
        n += f->d_name[0] != '.' || strlen(f->d_name) > 2;
    if (d)
        closedir(d);
    return n;
}

static void tell_leaks(long n)
{
    print_message("  call %ld (asked at %p): %ld blocks were not given back:", n, heap.first_site, heap.n_out);
    for (size_t i = 0, shown = 0; i < SLOTS && shown < 8; i++)
        if (heap.out[i].p)
            shown++, print_message(" %p", heap.out[i].site);
    print_message("\n");
}

/* Calls [from, to) fail. False: the visit asked less often than that. */
static bool fail_at(enum kind kind, long from, long to, int *wrong)
{
    char clip[400];
    heap.calls = 0, heap.fail_from = from, heap.fail_to = to, heap.failed = false, heap.n_out = 0;
    memset(heap.out, 0, sizeof heap.out);
    heap.watching = true;
    const struct visit v = visit(kind);
    heap.watching = false;
    const bool words = !v.status || v.words[0], silent = heap.failed && !v.told, left = v.status && files_in(out);
    const bool told = heap.failed || !v.told;
    if (!words || silent || left || !told || heap.n_out) {
        print_message("  call %ld, asked at %p: status %d \"%s\"%s%s%s\n", from, heap.first_site, v.status, v.words,
                      silent ? ", and nothing is said" : "", left ? ", and a file is left" : "", told ? "" : ", for no reason");
        if (heap.n_out)
            tell_leaks(from);
        ++*wrong;
    }
    snprintf(clip, sizeof clip, "%s/clip.y4m", out);
    remove(clip);
    return heap.failed;
}

#if defined(__SANITIZE_ADDRESS__)
enum { STRIDE = 7 }; /* a pass over all takes minutes there */
#else
enum { STRIDE = 1 };
#endif

/* A single failure; and, at every fourth, one after which nothing succeeds any more: clean-up may not need memory. */
static void try_all(enum kind kind)
{
    int  wrong = 0;
    long n = 1;
    while (fail_at(kind, n, n + 1, &wrong) && (n % 4 || fail_at(kind, n, LONG_MAX, &wrong)) && wrong < 40)
        n += STRIDE;
    print_message("  %ld calls, one in %d failed\n", n - 1, STRIDE);
    assert_int_equal(wrong, 0);
    assert_true(n > 100);
}

static void a_render_survives_every_failed_allocation(void **state)
{
    (void)state;
    try_all(VIDEO);
}

static void a_caption_survives_every_failed_allocation(void **state)
{
    (void)state;
    try_all(CAPTION);
}

static void open_model(const char *name, char *path, const char *sidecar)
{
    char source[300];
    snprintf(path, 300, "%s/%s", folder, name);
    snprintf(source, sizeof source, "%s/%s", GV_TEST_DATA, name);
    fixture_model(path, source, NULL, GV_F32, 0);
    fixture_sidecar(path, sidecar);
}

static int set_up(void **state)
{
    (void)state;
    fixture_temp(folder);
    fixture_temp(out);
    open_model("pipeline_i2v_known", model, "{\"text_length\": 32, \"words\": [\"fox\"]}");
    open_model("qwen2_5_vl_caption", answering, "{}");
    json_set_alloc_funcs(__wrap_malloc, __wrap_free);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_remove(folder);
    fixture_remove(out);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_render_survives_every_failed_allocation),
        cmocka_unit_test(a_caption_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
