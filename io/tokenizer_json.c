/* tokenizer.json: the pipeline that Hugging Face `tokenizers` stores, read node by node into struct pipeline and struct
 * tokenizer, nothing assumed about the family. tokenizer_pipeline.c runs what is read here; the vocabularies are read in
 * tokenizer_json_model.c.
 *
 * A node type, behaviour or option that is not handled is refused by name: a guess would give wrong ids, silently. Only a
 * decoder may be unknown, for no id depends on it.
 *
 * Surprises: Sequences, which may nest, are laid flat. Added tokens are read behind the model, because an added token may name
 * one of its pieces, and may not name another's id. Of a post-processor only the ids around a single text are kept.
 *
 * Source: huggingface/tokenizers 3ba8ad0061a8 normalizers/, pre_tokenizers/, tokenizer/added_vocabulary.rs,
 * processors/template.rs. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/tokenizer_pipeline.h"

enum {
    NESTING_MAX = 16,    /* Sequences within Sequences */
    ADDED_MAX = 1 << 17, /* added tokens */
    SPECIAL_MAX = 64,    /* ids put around a text */
    PATTERN_MAX = 4096   /* bytes of a regular expression or literal */
};

/* ---- patterns and normalizers ---------------------------------------------------------------------------------------- */

void gv_tokenizer_keep(char **out, const char *s, const struct json_view *at)
{
    size_t n = strlen(s) + 1;
    *out = malloc(n);
    if (*out)
        memcpy(*out, s, n);
    else
        gv_json_fail(at, NULL, GV_ERR_MEMORY, "no memory");
}

static void read_pattern(struct pattern *p, const struct json_view *node)
{
    struct json_view v = gv_json_object(node, "pattern", true);
    bool             regex = gv_json_has(&v, "Regex");
    const char      *s = gv_json_string(&v, regex ? "Regex" : "String", NULL);
    p->n = strlen(s);
    if (p->n > PATTERN_MAX)
        gv_json_fail(&v, NULL, GV_ERR_MODEL, "has %zu bytes, at most %d are taken", p->n, PATTERN_MAX);
    else if (gv_json_done(&v) == GV_OK && regex)
        gv_pattern_compile(p, s, &v, "Regex");
    else if (gv_json_done(&v) == GV_OK)
        gv_tokenizer_keep(&p->literal, s, &v);
}

static int base64_value(char c)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char       *at = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

/* NULL when s is not base64 with its padding, or memory ran out. */
static uint8_t *base64(const char *s, size_t n, size_t *bytes)
{
    int8_t   value[256];
    uint8_t *out = malloc(n / 4 * 3 + 3);
    size_t   pad = n >= 1 && s[n - 1] == '=' ? (n >= 2 && s[n - 2] == '=' ? 2 : 1) : 0;
    bool     ok = out && n % 4 == 0;
    *bytes = 0;
    for (int i = 0; i < 256; i++)
        value[i] = (int8_t)base64_value((char)i);
    for (size_t i = 0; ok && i < n; i += 4) {
        uint32_t word = 0;
        for (size_t k = 0; ok && k < 4; k++) {
            bool is_pad = i + k >= n - pad;
            int  v = is_pad ? 0 : value[(uint8_t)s[i + k]];
            ok = v >= 0;
            word = word << 6 | (uint32_t)(ok ? v : 0);
        }
        for (int k = 16; ok && k >= 0; k -= 8)
            out[(*bytes)++] = (uint8_t)(word >> k);
    }
    if (!ok) {
        free(out);
        return NULL;
    }
    *bytes -= n ? pad : 0;
    return out;
}

static void read_charsmap(struct charsmap *m, const struct json_view *node)
{
    const char *s = gv_json_string(node, "precompiled_charsmap", NULL);
    size_t      bytes = 0;
    uint8_t    *data = base64(s, strlen(s), &bytes);
    if (!data) {
        gv_json_fail(node, "precompiled_charsmap", GV_ERR_MODEL, "is not base64");
        return;
    }
    const char *why = gv_charsmap_open(m, data, bytes);
    if (why)
        gv_json_fail(node, "precompiled_charsmap", GV_ERR_MODEL, "%s", why);
}

enum { N_SEQUENCE, N_PRECOMPILED, N_STRIP, N_REPLACE, N_LOWERCASE, N_NFC, N_NFD, N_NFKC, N_NFKD, N_NMT, N_PREPEND, N_TYPES };
static const char *const norm_types[N_TYPES] = { "Sequence", "Precompiled", "Strip", "Replace", "Lowercase", "NFC",
                                                 "NFD",      "NFKC",        "NFKD",  "Nmt",     "Prepend" };

static void read_norm(struct tokenizer *t, const struct json_view *node, int type)
{
    static const enum normal_form forms[] = { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD };
    static const enum norm_kind   kinds[] = { NORM_FORM, NORM_CHARSMAP, NORM_STRIP, NORM_REPLACE, NORM_LOWER,  NORM_FORM,
                                              NORM_FORM, NORM_FORM,     NORM_FORM,  NORM_NMT,     NORM_PREPEND };
    struct norm                  *x = &t->pipeline->norm[t->pipeline->n_norm++];
    x->kind = kinds[type];
    if (x->kind == NORM_FORM)
        x->form = forms[type - N_NFC];
    if (x->kind == NORM_CHARSMAP)
        read_charsmap(&x->map, node);
    if (x->kind == NORM_STRIP) {
        x->left = gv_json_bool(node, "strip_left", GV_JSON_MUST);
        x->right = gv_json_bool(node, "strip_right", GV_JSON_MUST);
    }
    if (x->kind == NORM_REPLACE) {
        read_pattern(&x->pattern, node);
        gv_tokenizer_keep(&x->text, gv_json_string(node, "content", NULL), node);
    }
    if (x->kind == NORM_PREPEND)
        gv_tokenizer_keep(&x->text, gv_json_string(node, "prepend", NULL), node);
}

/* ---- pre-tokenizers ----------------------------------------------------------------------------------------- */

static const char *const behaviours[] = { "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous" };

static void read_metaspace(struct cutter *x, const struct json_view *node)
{
    static const char *const schemes[] = { "always", "first", "never" };
    const char              *mark = gv_json_string(node, "replacement", NULL);
    int                      step = 0;
    x->scheme = (enum scheme)gv_json_choice(node, "prepend_scheme", schemes, 3, PREPEND_ALWAYS);
    x->split = gv_json_bool(node, "split", true);
    if (gv_json_done(node) != GV_OK)
        return;
    if (*mark)
        gv_rune(mark, &step);
    if (!*mark || mark[step])
        gv_json_fail(node, "replacement", GV_ERR_MODEL, "is \"%.20s\", expected one character", mark);
    else
        strcpy(x->mark, mark);
    if (!gv_json_bool(node, "add_prefix_space", true)) {
        if (gv_json_has(node, "prepend_scheme") && x->scheme != PREPEND_NEVER)
            gv_json_fail(node, "add_prefix_space", GV_ERR_MODEL, "is false, but prepend_scheme is \"%s\"", schemes[x->scheme]);
        x->scheme = PREPEND_NEVER;
    }
}

static void read_bytelevel(struct cutter *x, const struct json_view *node)
{
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    x->prefix_space = gv_json_bool(node, "add_prefix_space", true);
    x->use_regex = gv_json_bool(node, "use_regex", true);
    x->behaviour = ISOLATED;
    if (x->use_regex)
        gv_pattern_compile(&x->pattern, gpt2, node, NULL);
}

enum { C_SEQUENCE, C_METASPACE, C_BYTELEVEL, C_SPLIT, C_WHITESPACE_SPLIT, C_DIGITS, C_PUNCTUATION, C_TYPES };
static const char *const cut_types[C_TYPES] = { "Sequence",        "Metaspace", "ByteLevel",  "Split",
                                                "WhitespaceSplit", "Digits",    "Punctuation" };

static void read_cutter(struct tokenizer *t, const struct json_view *node, int type)
{
    static const enum cut_kind kinds[] = { CUT_SPACE, CUT_METASPACE, CUT_BYTELEVEL,  CUT_PATTERN,
                                           CUT_SPACE, CUT_DIGITS,    CUT_PUNCTUATION };
    struct cutter             *x = &t->pipeline->cutter[t->pipeline->n_cutter++];
    x->kind = kinds[type];
    if (type == C_METASPACE)
        read_metaspace(x, node);
    if (type == C_BYTELEVEL)
        read_bytelevel(x, node);
    if (type == C_SPLIT) {
        read_pattern(&x->pattern, node);
        x->behaviour = (enum behaviour)gv_json_choice(node, "behavior", behaviours, 5, GV_JSON_MUST);
        x->invert = gv_json_bool(node, "invert", GV_JSON_MUST);
    }
    if (type == C_WHITESPACE_SPLIT)
        x->behaviour = REMOVED;
    if (type == C_DIGITS)
        x->behaviour = gv_json_bool(node, "individual_digits", GV_JSON_MUST) ? ISOLATED : CONTIGUOUS;
    if (type == C_PUNCTUATION)
        x->behaviour = (enum behaviour)gv_json_choice(node, "behavior", behaviours, 5, ISOLATED);
}

/* ---- added tokens, post-processor, decoder ------------------------------------------------------------------ */

static gv_status count_ids(const struct json_view *list, int32_t *n_ids)
{
    for (size_t i = 0; gv_json_done(list) == GV_OK && i < gv_json_count(list); i++) {
        struct json_view a = gv_json_at(list, i);
        int32_t          id = (int32_t)gv_json_int(&a, "id", 0, TOK_IDS_MAX - 1, GV_JSON_REQUIRED);
        *n_ids = id + 1 > *n_ids ? id + 1 : *n_ids;
    }
    return gv_json_done(list);
}

static gv_status read_added(struct tokenizer *t, struct pipeline *p, const struct json_view *a)
{
    struct added *x = &p->added[p->n_added++];
    const char   *content = gv_json_string(a, "content", NULL);
    *x = (struct added){ .id = (int32_t)gv_json_int(a, "id", 0, TOK_IDS_MAX - 1, GV_JSON_REQUIRED),
                         .single_word = gv_json_bool(a, "single_word", false),
                         .lstrip = gv_json_bool(a, "lstrip", false),
                         .rstrip = gv_json_bool(a, "rstrip", false),
                         .normalized = gv_json_bool(a, "normalized", true),
                         .special = gv_json_bool(a, "special", false) };
    gv_tokenizer_keep(&x->content, content, a);
    TRY(gv_json_done(a));
    size_t  n = strlen(content);
    int32_t has = gv_trie_find(&t->trie, content, n);
    if (!n || n > TOK_PIECE_MAX)
        return gv_json_fail(a, "content", GV_ERR_MODEL, "has %zu bytes, expected 1 to %d", n, TOK_PIECE_MAX);
    if (has >= 0 ? has != x->id : x->id < t->n_vocab && t->piece[x->id].s)
        return gv_json_fail(a, "id", GV_ERR_MODEL, "is %d, but the vocabulary has \"%.40s\" elsewhere, or another piece there",
                            x->id, content);
    struct piece *piece = &t->piece[x->id];
    if (!piece->s)
        *piece = (struct piece){ .s = x->content, .n = (uint32_t)n };
    piece->flags |= (uint8_t)(PIECE_ADDED | (x->special ? PIECE_SPECIAL : 0));
    return GV_OK;
}

/* Tries over the tokens; the normalized ones are found by what the normalizers make of them. */
static gv_status index_added(struct pipeline *p, const struct json_view *list)
{
    struct trie_key *as_is = malloc((p->n_added + 1) * sizeof *as_is), *norm = malloc((p->n_added + 1) * sizeof *norm);
    struct bytes    *text = calloc(p->n_added + 1, sizeof *text);
    size_t           n_as_is = 0, n_norm = 0;
    gv_status        st = as_is && norm && text ? GV_OK : GV_ERR_MEMORY;
    for (size_t i = 0; st == GV_OK && i < p->n_added; i++) {
        const struct added *a = &p->added[i];
        if (!a->normalized)
            as_is[n_as_is++] = gv_trie_key(a->content, strlen(a->content), (int32_t)i);
        else if ((st = gv_pipeline_normalize(p, &text[i], a->content, strlen(a->content), list->e)) == GV_OK && text[i].n)
            norm[n_norm++] = gv_trie_key(text[i].data, text[i].n, (int32_t)i);
    }
    if (st == GV_OK && (!gv_trie_build(&p->as_is, as_is, n_as_is) || !gv_trie_build(&p->normalized, norm, n_norm)))
        st = GV_ERR_MEMORY;
    for (size_t i = 0; text && i < p->n_added; i++)
        gv_bytes_free(&text[i]);
    free(as_is);
    free(norm);
    free(text);
    return st == GV_OK ? st : gv_json_fail(list, NULL, st, "no memory for %zu added tokens", p->n_added);
}

static gv_status read_all_added(struct tokenizer *t, struct pipeline *p, const struct json_view *list)
{
    size_t n = gv_json_count(list);
    p->added = calloc(n + 1, sizeof *p->added);
    if (!p->added)
        return gv_json_fail(list, NULL, GV_ERR_MEMORY, "no memory for %zu added tokens", n);
    for (size_t i = 0; i < n; i++) {
        struct json_view a = gv_json_at(list, i);
        TRY(read_added(t, p, &a));
    }
    return index_added(p, list);
}

static void second_adder(const struct json_view *node)
{
    gv_json_fail(node, NULL, GV_ERR_MODEL, "is a second post-processor that adds ids, which is not handled");
}

/* One more special id, before or after the text, behind those that are there. */
static void put_special(struct tokenizer *t, const struct json_view *at, bool before, const int32_t *ids, int n)
{
    int32_t **list = before ? &t->before : &t->after;
    int      *have = before ? &t->n_before : &t->n_after;
    for (int i = 0; i < n; i++)
        if (ids[i] >= t->n_pieces || !t->piece[ids[i]].s) {
            gv_json_fail(at, NULL, GV_ERR_MODEL, "names id %d, which the vocabulary has not", ids[i]);
            return;
        }
    if (*have + n > SPECIAL_MAX) {
        gv_json_fail(at, NULL, GV_ERR_MODEL, "puts more than %d ids around a text", SPECIAL_MAX);
        return;
    }
    int32_t *more = realloc(*list, (size_t)(*have + n + 1) * sizeof *more);
    if (!more) {
        gv_json_fail(at, NULL, GV_ERR_MEMORY, "no memory");
        return;
    }
    memcpy(more + *have, ids, (size_t)n * sizeof *more);
    *list = more;
    *have += n;
}

static void read_template(struct tokenizer *t, const struct json_view *node)
{
    struct json_view single = gv_json_array(node, "single", 0, SPECIAL_MAX, true);
    struct json_view all = gv_json_object(node, "special_tokens", false);
    int              seen = 0;
    if (t->n_before || t->n_after)
        second_adder(node);
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&single); i++) {
        struct json_view piece = gv_json_at(&single, i);
        if (gv_json_has(&piece, "Sequence")) {
            struct json_view sequence = gv_json_object(&piece, "Sequence", true);
            if (strcmp(gv_json_string(&sequence, "id", NULL), "A") != 0 || seen++)
                gv_json_fail(&piece, NULL, GV_ERR_MODEL, "expected the sequence A, once");
            continue;
        }
        struct json_view named = gv_json_object(&piece, "SpecialToken", true);
        struct json_view token = gv_json_object(&all, gv_json_string(&named, "id", NULL), true);
        int              ids[SPECIAL_MAX];
        int              n = gv_json_ints(&token, "ids", 0, TOK_IDS_MAX - 1, ids, 0, SPECIAL_MAX, true);
        if (gv_json_done(node) == GV_OK)
            put_special(t, &token, !seen, ids, n);
    }
    if (gv_json_done(node) == GV_OK && !seen)
        gv_json_fail(&single, NULL, GV_ERR_MODEL, "has no place for the text");
}

/* Bert and Roberta: [token, id] before and after. */
static void read_bert(struct tokenizer *t, const struct json_view *node)
{
    static const char *const names[] = { "cls", "sep" };
    if (t->n_before || t->n_after) {
        second_adder(node);
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct json_view pair = gv_json_array(node, names[i], 2, 2, true);
        const json_t    *x = json_array_get(pair.value, 1);
        json_int_t       id = json_is_integer(x) ? json_integer_value(x) : -1;
        if (gv_json_done(node) != GV_OK)
            return;
        if (id < 0 || id >= TOK_IDS_MAX)
            gv_json_fail(&pair, NULL, GV_ERR_MODEL, "is no [token, id]");
        else
            put_special(t, &pair, i == 0, &(int32_t){ (int32_t)id }, 1);
    }
}

enum { P_SEQUENCE, P_TEMPLATE, P_BYTELEVEL, P_BERT, P_ROBERTA, P_TYPES };
static const char *const post_types[P_TYPES] = { "Sequence", "TemplateProcessing", "ByteLevel", "BertProcessing",
                                                 "RobertaProcessing" };

static void read_post(struct tokenizer *t, const struct json_view *node, int type)
{
    if (type == P_TEMPLATE)
        read_template(t, node);
    if (type == P_BERT || type == P_ROBERTA)
        read_bert(t, node);
}

/* How pieces become text again. A decoder that is not known leaves pieces as they are: no id depends on it. */
static void read_decoder(struct tokenizer *t, const struct json_view *node, int depth)
{
    const char *type = node->value && json_is_object(node->value) ? gv_json_string(node, "type", "") : "";
    if (depth >= NESTING_MAX)
        return;
    if (strcmp(type, "ByteLevel") == 0)
        t->byte_level = true;
    if (strcmp(type, "Metaspace") == 0) {
        struct cutter x = { .kind = CUT_METASPACE };
        read_metaspace(&x, node);
        strcpy(t->replacement, x.mark);
        t->metaspace_decode = true;
        t->keep_first_space = x.scheme == PREPEND_NEVER;
    }
    struct json_view list = { .e = node->e, .file = node->file };
    if (strcmp(type, "Sequence") == 0)
        list = gv_json_array(node, "decoders", 0, STEPS_MAX, true);
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&list); i++) {
        struct json_view child = gv_json_at(&list, i);
        read_decoder(t, &child, depth + 1);
    }
}

/* ---- stages ---------------------------------------------------------------------------------------------------------- */

struct stage {
    const char *const *types; /* types[0] is "Sequence" */
    int                n_types;
    const char        *list; /* a Sequence's field */
    const int         *n;    /* steps so far; NULL: not counted */
    void (*read)(struct tokenizer *t, const struct json_view *node, int type);
};

/* Whether one more step fits; says so when not. */
static bool room_for(const struct json_view *node, int n, int depth)
{
    if (n < STEPS_MAX && depth < NESTING_MAX)
        return true;
    gv_json_fail(node, NULL, GV_ERR_MODEL, "is one step too many: at most %d, nested at most %d deep", STEPS_MAX, NESTING_MAX);
    return false;
}

/* A stage's node, or none, step by step; Sequences are laid flat. */
static void read_stage(struct tokenizer *t, const struct stage *x, const struct json_view *node, int depth)
{
    if (!node->value || json_is_null(node->value) || !room_for(node, x->n ? *x->n : 0, depth))
        return;
    int type = gv_json_choice(node, "type", x->types, x->n_types, GV_JSON_MUST);
    if (gv_json_done(node) != GV_OK)
        return;
    if (type != 0) {
        x->read(t, node, type);
        return;
    }
    struct json_view list = gv_json_array(node, x->list, 0, STEPS_MAX, true);
    for (size_t i = 0; gv_json_done(node) == GV_OK && i < gv_json_count(&list); i++) {
        struct json_view child = gv_json_at(&list, i);
        read_stage(t, x, &child, depth + 1);
    }
}

/* ---- the file -------------------------------------------------------------------------------------------------------- */

static gv_status read_file(struct tokenizer *t, const struct json_view *root)
{
    static const char *const models[] = { "Unigram", "BPE" };
    struct pipeline         *p = t->pipeline;
    struct json_view         model = gv_json_object(root, "model", true);
    struct json_view         added = gv_json_array(root, "added_tokens", 0, ADDED_MAX, false);
    struct json_view         norm = gv_json_object(root, "normalizer", false);
    struct json_view         cut = gv_json_object(root, "pre_tokenizer", false);
    struct json_view         post = gv_json_object(root, "post_processor", false);
    struct json_view         decoder = gv_json_object(root, "decoder", false);
    const struct stage       norms = { norm_types, N_TYPES, "normalizers", &p->n_norm, read_norm };
    const struct stage       cutters = { cut_types, C_TYPES, "pretokenizers", &p->n_cutter, read_cutter };
    const struct stage       posts = { post_types, P_TYPES, "processors", NULL, read_post };
    int32_t                  n_ids = 0;
    TRY(gv_json_done(root));
    int type = gv_json_choice(&model, "type", models, 2, GV_JSON_MUST);
    TRY(gv_json_done(root));
    read_stage(t, &norms, &norm, 0);
    read_stage(t, &cutters, &cut, 0);
    TRY(gv_json_done(root));
    TRY(count_ids(&added, &n_ids));
    TRY(type == 0 ? gv_unigram_read(t, &model, n_ids) : gv_bpe_read(t, &model, n_ids));
    TRY(read_all_added(t, p, &added));
    read_stage(t, &posts, &post, 0);
    read_decoder(t, &decoder, 0);
    return gv_json_done(root);
}

gv_status gv_tokenizer_open_json(struct tokenizer *t, const char *path, struct error *e)
{
    json_t *root = NULL;
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    t->pipeline = calloc(1, sizeof *t->pipeline);
    if (!t->pipeline)
        return gv_fail(e, GV_ERR_MEMORY, "%s: no memory", path);
    TRY(gv_json_load(path, GV_JSON_TOKENIZER_BYTES, &root, e));
    struct json_view view = gv_json_view(root, path, e);
    gv_status        s = read_file(t, &view);
    json_decref(root);
    return s;
}
