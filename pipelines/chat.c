/* Checkpoints carry their chat format as a Jinja program. This file has no Jinja; it has the formats that the programs of its
 * families write for one question with pictures,
 *
 *   Qwen2-VL, Qwen2.5-VL   <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n
 *                          <|vision_start|><|image_pad|>…<|vision_end|> question <|im_end|>\n<|im_start|>assistant\n
 *   LLaVA-OneVision        <|im_start|>user <image>…\n question <|im_end|><|im_start|>assistant\n
 *
 * and refuses a checkpoint whose program does not hold the pieces of its family's, by the name of the file.
 *
 * What would surprise you: the question is encoded by itself. Control tokens around it end every piece of text, so this gives
 * the ids of the whole; and a control token that someone writes into a question must not be read as one, so its first
 * character is encoded apart from the rest, which no merge and no match can then join. */
#include "pipelines/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH = 4096, QUESTION_IDS = 1 << 16, FRAME_IDS = 64, PIECES = 6 };

struct chat_format {
    const char *family;         /* begins the names of its models */
    const char *pieces[PIECES]; /* that its program holds */
    const char *head, *between, *tail;
    const char *image, *video; /* the placeholders' tokens */
};

static const struct chat_format formats[] = {
    { .family = "qwen",
      .pieces = { "<|im_start|>", "<|im_end|>", "system", "You are a helpful assistant.",
                  "<|vision_start|><|image_pad|><|vision_end|>", "assistant" },
      .head = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
      .between = "",
      .tail = "<|im_end|>\n<|im_start|>assistant\n",
      .image = "<|image_pad|>",
      .video = "<|video_pad|>" },
    { .family = "llava-onevision",
      .pieces = { "'<|im_start|>' + message['role'] + ' '", "'<image>'", "content['text']", "<|im_end|>",
                  "<|im_start|>assistant" },
      .head = "<|im_start|>user ",
      .between = "\n",
      .tail = "<|im_end|><|im_start|>assistant\n",
      .image = "<image>",
      .video = "<video>" },
};

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

gv_status gv_chat_find(const struct chat_format **out, const struct vlm *v, const char *dir, struct error *e)
{
    const struct chat_format *f = formats;
    char                      path[PATH];
    gv_status                 failed = GV_OK;
    while (strncmp(v->model->name, f->family, strlen(f->family)))
        f++; /* every family has one */
    char *text = template_of(dir, "chat_template.jinja", false, path, &failed, e);
    if (!text && !failed)
        text = template_of(dir, "chat_template.json", true, path, &failed, e);
    if (!text && !failed)
        text = template_of(dir, "tokenizer_config.json", true, path, &failed, e);
    for (int i = 0; text && !failed && i < PIECES && f->pieces[i]; i++)
        if (!strstr(text, f->pieces[i]))
            failed = gv_fail(e, GV_ERR_UNSUPPORTED,
                             "%s: the chat template does not hold \"%s\"; of %s only the published format is built in", path,
                             f->pieces[i], v->model->name);
    free(text);
    *out = f;
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

/* Whether a control token of the tokenizer is spelt at text, which begins with '<': it would end with one of the next '>'s. */
static bool spells_control(const struct tokenizer *t, const char *text)
{
    char piece[64];
    for (const char *end = strchr(text, '>'); end && end + 1 - text < (ptrdiff_t)sizeof piece; end = strchr(end + 1, '>')) {
        memcpy(piece, text, (size_t)(end + 1 - text));
        piece[end + 1 - text] = 0;
        if (gv_tokenizer_id(t, piece) >= 0)
            return true;
    }
    return false;
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
static gv_status check_controls(const struct chat_format *f, const struct vlm *v, const struct tokenizer *t, struct error *e)
{
    const struct {
        const char *piece;
        int32_t     id; /* -1: any */
    } want[] = { { "<|im_start|>", -1 },
                 { "<|im_end|>", -1 },
                 { f->image, v->image_id },
                 { f->video, v->video_id },
                 { "<|vision_start|>", v->start_id },
                 { "<|vision_end|>", v->end_id } };
    for (size_t i = 0; i < (v->start_id < 0 ? 4 : sizeof want / sizeof *want); i++) {
        int32_t id = gv_tokenizer_id(t, want[i].piece);
        if (id < 0 || (want[i].id >= 0 && id != want[i].id))
            return gv_fail(e, GV_ERR_MODEL, "the tokenizer has %s as id %d, config.json as %d: they do not belong together",
                           want[i].piece, id, want[i].id);
    }
    return GV_OK;
}

static gv_status write_prompt(struct writer *w, const struct chat_format *f, const struct vlm *v, const struct chat_question *q)
{
    TRY(put_text(w, f->head));
    for (int i = 0; i < q->n_media; i++) {
        TRY(put(w, v->start_id, v->start_id >= 0));
        TRY(put(w, q->media[i].video ? v->video_id : v->image_id, q->media[i].tokens));
        TRY(put(w, v->end_id, v->end_id >= 0));
    }
    TRY(put_text(w, f->between));
    TRY(put_question(w, q->text));
    return put_text(w, f->tail);
}

gv_status gv_chat_prompt(int32_t **ids, int64_t *n, const struct chat_format *f, const struct vlm *v, const struct tokenizer *t,
                         const struct chat_question *q, struct error *e)
{
    int64_t room = QUESTION_IDS + FRAME_IDS;
    TRY(check_controls(f, v, t, e));
    for (int i = 0; i < q->n_media; i++)
        room += q->media[i].tokens + 2;
    struct writer w = { t, malloc((size_t)room * sizeof *w.ids), 0, room, e };
    if (!w.ids)
        return gv_fail(e, GV_ERR_MEMORY, "no memory for a prompt of %lld tokens", (long long)room);
    gv_status status = write_prompt(&w, f, v, q);
    if (status) {
        free(w.ids);
        return status;
    }
    *ids = w.ids;
    *n = w.n;
    return GV_OK;
}
