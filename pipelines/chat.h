/* A question and its pictures as the ids that a chat model was taught to answer. */
#ifndef GV_PIPELINES_CHAT_H
#define GV_PIPELINES_CHAT_H

#include "io/tokenizer.h"
#include "vision/vlm.h"

/* A chat template that is built in: the text that a checkpoint's program writes for one question with pictures. */
struct chat_format;

/* The format of the checkpoint in dir, told from its template: chat_template.json, chat_template.jinja or tokenizer_config.json;
 * without one, that of its family. Errors: UNSUPPORTED, with file and what is missing; IO, MODEL. */
gv_status gv_chat_find(const struct chat_format **out, const struct vlm *v, const char *dir, struct error *e);

/* The prompt; *ids is malloc'd. The question is text only: a control token spelt in it stays the characters that it is made
 * of. Errors: MEMORY, ARGUMENT (a question that is too long), MODEL (a tokenizer without the control tokens). */
struct chat_question {
    const char             *text;
    const struct vlm_media *media;
    int                     n_media;
};
gv_status gv_chat_prompt(int32_t **ids, int64_t *n, const struct chat_format *f, const struct vlm *v, const struct tokenizer *t,
                         const struct chat_question *q, struct error *e);

#endif
