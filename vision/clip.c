/* What would surprise you: the reference's processor does not sample unless asked to, and then wants a rate; 2 frames a second is
 * what Qwen's own utilities ask for and what the models were trained with. Below `least` frames a short clip is looked at more
 * often than that. A clip of one frame is one that is repeated; the reference fails. */
#include "vision/clip.h"

#include <math.h>

enum { MOST_FRAMES = 1 << 16 };
static const int64_t MOST_PIXELS = 1 << 27;

gv_status gv_clip_config_read(struct clip_config *c, const struct json_view *v)
{
    struct json_view size = gv_json_object(v, "size", false);
    c->pixels_least = gv_json_int(&size, "shortest_edge", 1, MOST_PIXELS, c->pixels_least);
    c->pixels_most = gv_json_int(&size, "longest_edge", 1, MOST_PIXELS, c->pixels_most);
    c->pixels_least = gv_json_int(v, "min_pixels", 1, MOST_PIXELS, c->pixels_least);
    c->pixels_most = gv_json_int(v, "max_pixels", 1, MOST_PIXELS, c->pixels_most);
    c->fps = gv_json_number(v, "fps", 0.001, 1000, c->fps);
    c->least = (int)gv_json_int(v, "min_frames", 1, MOST_FRAMES, c->least);
    c->most = (int)gv_json_int(v, "max_frames", 1, MOST_FRAMES, c->most);
    c->tokens = gv_json_int(v, "max_video_tokens", 1, 1 << 24, c->tokens);
    TRY(gv_json_done(v));
    if (c->pixels_least > c->pixels_most)
        return gv_json_fail(v, "size", GV_ERR_MODEL, "asks for at least %lld and at most %lld pixels",
                            (long long)c->pixels_least, (long long)c->pixels_most);
    if (c->least > c->most)
        return gv_json_fail(v, "min_frames", GV_ERR_MODEL, "is %d, more than max_frames, %d", c->least, c->most);
    return GV_OK;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

int gv_clip_frames(const struct clip_config *c, const struct clip_wish *w, int64_t total, double duration, int step)
{
    const double most = floor(smaller(w->frames > 0 ? w->frames : c->most, (double)total) / step) * step;
    double       n = duration * (w->fps > 0 ? w->fps : c->fps);
    n = n < c->least ? c->least : n;
    n = floor(smaller(n, most) / step) * step;
    return n >= step ? (int)n : total < step ? 1 : step;
}
