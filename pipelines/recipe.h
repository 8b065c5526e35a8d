/* What made a clip, as JSON: in the clip's own metadata, so that it can be made again. */
#ifndef GV_PIPELINES_RECIPE_H
#define GV_PIPELINES_RECIPE_H

#include <jansson.h>

#include "pipelines/video.h"

/* {"recipe": 1, "genvid", "prompt", ..., "options": {}, "model": {"path", "parts": [...]}, "frames_sha256"[, "receipt"][, "note"]}. p NULL:
 * before the render, without the last three. NULL when memory ran out. Freed with free(). */
char *gv_recipe_json(const struct video_job *job, const gv_video_request *q, const struct video_report *p);

/* The caller's note as JSON, a new reference: what it says, or its text where that is no JSON. NULL when memory ran out. */
json_t *gv_note_json(const char *note);

/* [{"part", "bytes", "quick_sha256"[, "sha256"]}] of the model's parts; full reads every weight. */
json_t *gv_model_parts_json(const gv_model *m, bool full);

/* gv_media_probe's answer: {"path", "kind", "width", ..., "recipe": {} or null}. Errors: as gv_media_info_read. */
gv_status gv_probe_json(char **out, const char *path, struct error *e);

#endif
