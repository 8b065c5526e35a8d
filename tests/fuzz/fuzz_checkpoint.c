/* One file with a part of a model in Wan's own names: which part it is and every size of it are told from the tensors. What
 * opens is counted, as a plan does. */
#include <jansson.h>

#include "diffusion/layout_wan.h"
#include "diffusion/models.h"
#include "io/weights.h"
#include "tests/fuzz/fuzz.h"

static struct {
    struct device *device;
    json_t        *config; /* of the transformer and the image encoder: what tensors cannot say */
} world;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    struct error e = { 0 };
    world.config = json_pack("{s:i}", "num_heads", 1);
    return !world.config ||
           gv_device_open(&world.device, &(struct device_params){ .name = "cpu", .threads = 1, .cpu_level = "c" }, &e);
}

static gv_status open_dit(struct checkpoint *c, struct error *e)
{
    struct dit *m = NULL;
    TRY(gv_wan_dit_open(&m, c, world.config, world.device, GV_F32, e));
    gv_weights_bytes(m->weights);
    m->model->close(m);
    return GV_OK;
}

static gv_status open_vae(struct checkpoint *c, struct error *e)
{
    struct vae *m = NULL;
    TRY(gv_wan_vae_open(&m, c, world.device, GV_F32, e));
    gv_weights_bytes(m->decoder);
    m->model->close(m);
    return GV_OK;
}

static gv_status open_text(struct checkpoint *c, struct error *e)
{
    struct text_encoder *m = NULL;
    TRY(gv_wan_text_open(&m, c, world.device, GV_F32, e));
    gv_weights_bytes(m->weights);
    m->model->close(m);
    return GV_OK;
}

static gv_status open_image(struct checkpoint *c, struct error *e)
{
    struct image_encoder *m = NULL;
    TRY(gv_wan_image_open(&m, c, world.config, world.device, GV_F32, e));
    gv_weights_bytes(m->weights);
    m->model->close(m);
    return GV_OK;
}

static gv_status open_part(struct checkpoint *c, struct error *e)
{
    enum wan_part part;
    TRY(gv_wan_part(c, &part, e));
    return part == WAN_DIT    ? open_dit(c, e)
           : part == WAN_VAE  ? open_vae(c, e)
           : part == WAN_TEXT ? open_text(c, e)
           : part == WAN_NONE ? GV_OK
                              : open_image(c, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char               path[FUZZ_PATH];
    struct checkpoint *c = NULL;
    struct error       e = { 0 };
    fuzz_file(path, "part.safetensors", data, size);
    gv_status status = gv_checkpoint_open_file(&c, path, &e);
    if (!status)
        status = open_part(c, &e);
    gv_checkpoint_close(&c);
    fuzz_check(status, &e);
    return 0;
}
