/* What can be asked of a clip, kind by kind, as genvid.json lists it: who, in which colour, how it moves, where. A prompt and what a
 * captioner says of the clip are read by the same table, so that the two can be compared value by value and not letter by letter. */
#ifndef GV_PIPELINES_SLOTS_H
#define GV_PIPELINES_SLOTS_H

#include "io/json.h"
#include "pipelines/vocabulary.h"

struct slots;

/* From the field slots of genvid.json; *out is NULL where there is none. Errors: MODEL, MEMORY. */
gv_status gv_slots_open(struct slots **out, const struct json_view *sidecar);
void      gv_slots_close(struct slots **s);

/* {"slots": [{"slot", "asked", "read" or null, "agrees"}], "asked": n, "agree": n}: what `asked` names, in the table's order; a slot of
 * which it says nothing is free. Words outside of v are read as the nearest within first. s and v may be NULL: no slots. Errors: MEMORY. */
gv_status gv_slots_compare(json_t **out, const struct slots *s, const struct vocabulary *v, const char *asked, const char *read,
                           struct error *e);

#endif
