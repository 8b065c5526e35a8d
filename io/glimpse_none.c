/* A build without libav sees no clips: io/image.c then says of one what it is, and that this build cannot read it. */
#include "io/glimpse.h"

bool gv_glimpse_detect(const char *path)
{
    (void)path;
    return false;
}

gv_status gv_glimpse_open(struct glimpse **out, struct glimpse_info *info, const char *path, struct error *e)
{
    *out = NULL;
    *info = (struct glimpse_info){ 0 };
    return gv_fail(e, GV_ERR_UNSUPPORTED, "%s: this build reads no clips: it was made without libav", path);
}

gv_status gv_glimpse_at(struct glimpse *g, double seconds, const struct image **im, struct error *e)
{
    (void)g, (void)seconds, (void)im;
    return gv_fail(e, GV_ERR_INTERNAL, "a clip in a build without libav");
}

void gv_glimpse_close(struct glimpse **g)
{
    (void)g;
}
