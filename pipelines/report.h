/* JSON that the API hands out: the report of a render, its recipe for the file's metadata, a model's description. Strings are
 * freed with free(); NULL when memory ran out. */
#ifndef GV_PIPELINES_REPORT_H
#define GV_PIPELINES_REPORT_H

#include "pipelines/video.h"

char *gv_report_json(const struct video_job *job, const struct video_report *report);
char *gv_recipe_json(const struct video_job *job, const struct receipt *p); /* p: what its shortcuts cost, or NULL */
char *gv_model_json(const gv_model *m);

#endif
