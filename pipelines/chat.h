/* A question and its pictures as the ids that a chat model was taught to answer. */
#ifndef GV_PIPELINES_CHAT_H
#define GV_PIPELINES_CHAT_H

#include "io/tokenizer.h"
#include "vision/vlm.h"

/* Whether the checkpoint in dir carries a template of the format that is built in (or none): chat_template.json,
 * chat_template.jinja or tokenizer_config.json. Errors: UNSUPPORTED, with file and what is missing; IO, MODEL. */
gv_status gv_chat_check(const char *dir, struct error *e);

/* The prompt; *ids is malloc'd. The question is text only: a control token spelt in it stays the characters that it is made
 * of. Errors: MEMORY, ARGUMENT (a question that is too long), MODEL (a tokenizer without the control tokens). */
gv_status gv_chat_prompt(int32_t **ids, int64_t *n, const struct vlm *v, const struct tokenizer *t, const char *question,
                         const struct vlm_media *media, int n_media, struct error *e);

#endif
