/* Checkpoints carry their chat format as a Jinja program. This file has no Jinja; it has the one format that Qwen2.5-VL's
 * program writes for one question with pictures,
 *
 *   <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
 *   <|im_start|>user\n<|vision_start|><|image_pad|>…<|vision_end|> question <|im_end|>\n<|im_start|>assistant\n
 *
 * and refuses a checkpoint whose program does not hold its pieces, by the name of the file.
 *
 * What would surprise you: the question is encoded by itself. Control tokens around it end every piece of text, so this gives
 * the ids of the whole; and a control token that someone writes into a question must not be read as one, so its first
 * character is encoded apart from the rest, which no merge and no match can then join. */
#include "pipelines/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH = 4096, QUESTION_IDS = 1 << 16, FRAME_IDS = 64 };

/* ---- the checkpoint's template ---- */

/* The text of dir/name, or of its field chat_template; NULL where there is none. *failed tells a failure from that. */
static char *template_of(const char *dir, const char *name, bool json, char *path, gv_status *failed, struct error *e)
{
    struct stat info;
    char       *text = NULL;
    size_t      bytes;
    json_t     *root;
    if ((size_t)snprintf(path, PATH, "%s/%s", dir, name) >= PATH || stat(path, &info))
        return NULL;
    if (!json) {
        *failed = gv_read_file(path, GV_JSON_CONFIG_BYTES, &text, &bytes, e);
        return text;
    }
    if ((*failed = gv_json_load(path, GV_JSON_CONFIG_BYTES, &root, e)))
        return NULL;
    const char *field = json_string_value(json_object_get(root, "chat_template"));
    if (field && !(text = strdup(field)))
        *failed = gv_fail(e, GV_ERR_MEMORY, "no memory for %s", path);
    json_decref(root);
    return text;
}

gv_status gv_chat_check(const char *dir, struct error *e)
{
    static const char *const pieces[] = {
        "<|im_start|>", "<|im_end|>", "system", "You are a helpful assistant.", "<|vision_start|><|image_pad|><|vision_end|>",
        "assistant"
    };
    char      path[PATH];
    gv_status failed = GV_OK;
    char     *text = template_of(dir, "chat_template.jinja", false, path, &failed, e);
    if (!text && !failed)
        text = template_of(dir, "chat_template.json", true, path, &failed, e);
    if (!text && !failed)
        text = template_of(dir, "tokenizer_config.json", true, path, &failed, e);
    for (size_t i = 0; text && !failed && i < sizeof pieces / sizeof *pieces; i++)
        if (!strstr(text, pieces[i]))
            failed =
                gv_fail(e, GV_ERR_UNSUPPORTED,
                        "%s: the chat template does not hold \"%s\"; only Qwen2.5-VL's format is built in", path, pieces[i]);
    free(text);
    return failed;
}

/* ---- the prompt ---- */

struct writer {
    const struct tokenizer *tokenizer;
    int32_t                *ids;
    int64_t                 n, room;
    struct error           *e;
};

static gv_status put(struct writer *w, int32_t id, int64_t count)
{
    if (count > w->room - w->n)
        return gv_fail(w->e, GV_ERR_ARGUMENT, "question: more than %d tokens", QUESTION_IDS);
    for (int64_t i = 0; i < count; i++)
        w->ids[w->n++] = id;
    return GV_OK;
}

static gv_status put_text(struct writer *w, const char *text)
{
    int       n = 0, cut = 0, room = w->room - w->n > INT32_MAX ? INT32_MAX : (int)(w->room - w->n);
    gv_status status = gv_tokenizer_encode(w->tokenizer, text, false, w->ids + w->n, room, &n, &cut, w->e);
    w->n += n;
    if (!status && cut)
        return gv_fail(w->e, GV_ERR_ARGUMENT, "question: more than %d tokens", QUESTION_IDS);
    return status;
}

/* Whether a control token of the tokenizer is spelt at text, which begins with '<'. */
static bool spells_control(const struct tokenizer *t, const char *text)
{
    char        piece[64];
    const char *end = text[1] == '|' ? strstr(text + 2, "|>") : NULL;
    if (!end || end + 2 - text >= (ptrdiff_t)sizeof piece)
        return false;
    memcpy(piece, text, (size_t)(end + 2 - text));
    piece[end + 2 - text] = 0;
    return gv_tokenizer_id(t, piece) >= 0;
}

static gv_status put_question(struct writer *w, const char *question)
{
    char     *copy = strdup(question), *from = copy;
    gv_status status = copy ? GV_OK : gv_fail(w->e, GV_ERR_MEMORY, "no memory for the question");
    for (char *at = copy; at && !status && (at = strchr(at, '<'));) {
        if (!spells_control(w->tokenizer, at++))
            continue;
        char next = *at;
        *at = 0; /* "<" ends this piece, "|…" begins the next */
        status = put_text(w, from);
        *at = next;
        from = at;
    }
    if (!status)
        status = put_text(w, from);
    free(copy);
    return status;
}

/* The control tokens must be one id each, and those around pictures the ids of config.json. */
static gv_status check_controls(const struct vlm *v, const struct tokenizer *t, struct error *e)
{
    const struct {
        const char *piece;
        int32_t     id; /* -1: any */
    } want[] = { { "<|im_start|>", -1 },
                 { "<|im_end|>", -1 },
                 { "<|vision_start|>", v->start_id },
                 { "<|vision_end|>", v->end_id },
                 { "<|image_pad|>", v->image_id } };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        int32_t id = gv_tokenizer_id(t, want[i].piece);
        if (id < 0 || (want[i].id >= 0 && id != want[i].id))
            return gv_fail(e, GV_ERR_MODEL, "the tokenizer has %s as id %d, config.json as %d: they do not belong together",
                           want[i].piece, id, want[i].id);
    }
    return GV_OK;
}

static gv_status write_prompt(struct writer *w, const struct vlm *v, const char *question, const struct vlm_media *media,
                              int n_media)
{
    TRY(put_text(w, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"));
    for (int i = 0; i < n_media; i++) {
        TRY(put(w, v->start_id, 1));
        TRY(put(w, media[i].video ? v->video_id : v->image_id, media[i].tokens));
        TRY(put(w, v->end_id, 1));
    }
    TRY(put_question(w, question));
    return put_text(w, "<|im_end|>\n<|im_start|>assistant\n");
}

gv_status gv_chat_prompt(int32_t **ids, int64_t *n, const struct vlm *v, const struct tokenizer *t, const char *question,
                         const struct vlm_media *media, int n_media, struct error *e)
{
    int64_t room = QUESTION_IDS + FRAME_IDS;
    TRY(check_controls(v, t, e));
    for (int i = 0; i < n_media; i++)
        room += media[i].tokens + 2;
    struct writer w = { t, malloc((size_t)room * sizeof *w.ids), 0, room, e };
    if (!w.ids)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a prompt of %lld tokens", (long long)room);
    gv_status status = write_prompt(&w, v, question, media, n_media);
    if (status) {
        free(w.ids);
        return status;
    }
    *ids = w.ids;
    *n = w.n;
    return GV_OK;
}
