/* The named options of a video request beyond its fields: one table, read by the check of a request and by the listing that
 * clients get. Adding one: a row here, and the place that asks for it by name. */
#ifndef GV_PIPELINES_OPTIONS_H
#define GV_PIPELINES_OPTIONS_H

#include "core/status.h"

/* Every option has a name that is known and a value. Errors: ARGUMENT. */
gv_status gv_options_check(const gv_video_request *q, struct error *e);
/* The last value given for name; NULL where there is none. */
const char *gv_option_value(const gv_video_request *q, const char *name);
/* The same as a whole number; *out stays where there is none. Errors: ARGUMENT. */
gv_status gv_option_int(int *out, const gv_video_request *q, const char *name, int lo, int hi, struct error *e);
/* [{name, type, range, default, help}]; freed with free(), NULL when memory ran out. */
char *gv_options_json(void);

#endif
