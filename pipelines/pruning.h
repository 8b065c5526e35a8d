/* VFlowOpt's settings for one model (vision/prune.h): the search for them, and what it found, in genvid.pruning.json in the model's
 * folder. */
#ifndef GV_PIPELINES_PRUNING_H
#define GV_PIPELINES_PRUNING_H

#include "genvid.h"
#include "vision/prune.h"

/* What "25" or another text means for the model in the folder: its own settings of that name, or what gv_prune_parse says.
 * *own: the former. Errors: ARGUMENT; IO, MODEL (the file), MEMORY. */
gv_status gv_pruning_find(struct prune_opts *o, bool *own, const char *model, const char *text, struct error *e);

/* Searches and writes; the job behind gv_calibrate_pruning. */
gv_status gv_pruning_calibrate(gv_session *s, const gv_pruning_request *q, char **json);

#endif
