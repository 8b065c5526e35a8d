/* Pictures and the first frames of clips, of every kind that this build reads, and what they say of themselves. Pictures that
 * are read are resized as a render would. */
#include <stdlib.h>
#include <string.h>

#include "io/image.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

static void probe(const char *path)
{
    char           *json = NULL, why[512] = "";
    const gv_status status = gv_media_probe(path, &json, why, sizeof why);
    if (status == GV_ERR_INTERNAL || !status != !!json || !status != !why[0])
        fuzz_found("the status, the sentence and the answer disagree");
    if (json)
        fuzz_touch(json, strlen(json));
    gv_free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { SIDE = 24 };
    static float out[SIDE * SIDE * 3];
    char         path[FUZZ_PATH];
    struct image im;
    struct error e = { 0 };
    fuzz_file(path, "picture", data, size);
    probe(path);
    const gv_status status = gv_image_read(&im, path, &e);
    fuzz_check(status, &e);
    if (status)
        return 0;
    if (im.width < 1 || im.height < 1 || im.width > GV_IMAGE_SIDE || im.height > GV_IMAGE_SIDE)
        fuzz_found("a picture of an impossible size");
    fuzz_touch(im.rgb, (size_t)im.width * (size_t)im.height * 3);
    if ((int64_t)im.width * im.height < 1 << 16) {
        const enum resize_kind kind = (enum resize_kind)(size % 3);
        fuzz_check(gv_image_resize(out, SIDE, SIDE, &im, kind, &e), &e);
    }
    gv_image_free(&im);
    return 0;
}
