/* What the tests of this room share: the golden Qwen2.5-VL on a device, and its prompts. */
#ifndef GV_TESTS_VISION_CASE_H
#define GV_TESTS_VISION_CASE_H

#include "tests/diffusion/model_case.h"
#include "vision/models.h"

struct vision_case {
    struct model_case c;
    struct vlm       *vlm;
    const char       *side; /* "a", "picture": prefix of what is compared */
    int               compared;
};
void vision_open(struct vision_case *v, const char *name, const char *precision);
void vision_close(struct vision_case *v);

struct patch_grid vision_grid(const char *name); /* "a" */
/* Rows of the golden's patches; freed with free(). */
float *vision_patches(const struct vision_case *v, const char *grid);

/* What plan would say of it. */
struct vlm_media vision_media(const struct vision_case *v, const char *grid);
/* All its steps at once. */
void vision_encode(struct vision_case *v, struct tensor out, const struct vlm_media *m, const char *grid);

/* A prompt of the golden, its pictures encoded. */
struct vision_prompt {
    struct vlm_prompt prompt;
    int32_t           ids[128];
    struct vlm_media  media[4];
    struct tensor     features[4];
};
/* name: "picture"; ids from golden "<ids>.ids"; encode: or features are left absent. */
void vision_prompt_open(struct vision_case *v, struct vision_prompt *p, const char *name, bool encode);

#endif
