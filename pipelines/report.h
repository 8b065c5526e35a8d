/* JSON that the API hands out: the report of a render, a model's description. Strings are
 * freed with free(); NULL when memory ran out. */
#ifndef GV_PIPELINES_REPORT_H
#define GV_PIPELINES_REPORT_H

#include <jansson.h>

#include "pipelines/video.h"

char *gv_report_json(const struct video_job *job, const struct video_report *report);
char *gv_model_json(const gv_model *m);
/* What the shortcuts of a render cost; NULL when memory ran out. */
json_t *gv_receipt_json(const struct video_job *job, const struct receipt *p);

#endif
