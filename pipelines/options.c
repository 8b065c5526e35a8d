#include "pipelines/options.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct option_row {
    const char *name, *type, *range, *fallback, *help;
};
static const struct option_row rows[] = {
    { "causal", "string", "off, on, self-forcing, causvid, longlive", "off",
      "make the clip a block of frames after another: any length in the same memory; on: as the model's genvid.json says" },
    { "schedule", "string",
      "diffusers-unipc, diffusers-unipc-0.36, diffusers-dpm, wan-unipc, wan-dpm, flow-match-euler, self-forcing",
      "the solver's own", "grid of noise levels, by the name of its reference" },
    { "attention", "string", "off, POLICY or POLICY:name=value,...: genvid info --shortcuts", "off",
      "leave out pairs of tokens in self-attention; what it cost is in the report" },
    { "cache", "string", "off, METHOD or METHOD:name=value,..., or two with + between: genvid info --shortcuts", "off",
      "keep what was computed and use it again in later steps; what it cost is in the report" },
    { "receipt", "integer", "0 to 1000", "2", "forwards that are computed a second time, exactly, to say what shortcuts cost" },
    { "verify", "string", "off, on", "off", "make the exact clip too and say how far this one is from it: PSNR and SSIM" },
    { "compat", "string", "wan, diffusers", "the layout's own",
      "whose rules hold: how pictures are resized, whether CLIP sees all of them, the grid of noise levels" },
    { "codec", "string", "see gv_output_formats", "the container's usual", "h264, hevc, av1, vp9, ffv1 (every bit) or prores" },
    { "bits", "integer", "8, 10", "8; prores: 10", "bits of each sample in the output" },
    { "crf", "integer", "0 to 51; av1, vp9: 63", "the codec's own", "quality of the output: less is better and larger" },
    { "preset", "string", "ultrafast to veryslow", "medium", "how hard h264 and hevc try to make the file small" },
    { "audio", "string", "a clip's path", "none", "a clip whose sound goes along as it is, from its beginning to the last picture" },
    { "hash", "string", "quick, full", "quick",
      "what the recipe says of the model: a hash of each part's names, shapes and samples, or also of every byte" },
    { "format", "string", "see gv_output_formats", "the output's extension", "container of the output; needed for stdout" },
};
enum { N_OPTIONS = sizeof rows / sizeof *rows };

static const struct option_row *find(const char *name)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (!strcmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

gv_status gv_options_check(const gv_video_request *q, struct error *e)
{
    if (q->option_count && !q->options)
        return gv_fail(e, GV_ERR_ARGUMENT, "option_count is %zu and options is missing", q->option_count);
    for (size_t i = 0; i < q->option_count; i++) {
        const gv_option *o = &q->options[i];
        if (!o->name)
            return gv_fail(e, GV_ERR_ARGUMENT, "options[%zu] has no name", i);
        if (!find(o->name))
            return gv_fail(e, GV_ERR_ARGUMENT, "this model has no option called \"%s\"", o->name);
        if (!o->value)
            return gv_fail(e, GV_ERR_ARGUMENT, "option \"%s\" has no value", o->name);
    }
    return GV_OK;
}

const char *gv_option_value(const gv_video_request *q, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < q->option_count; i++)
        if (!strcmp(q->options[i].name, name))
            value = q->options[i].value;
    return value;
}

gv_status gv_option_int(int *out, const gv_video_request *q, const char *name, int lo, int hi, struct error *e)
{
    const char *value = gv_option_value(q, name);
    char       *end;
    if (!value)
        return GV_OK;
    errno = 0;
    const long n = strtol(value, &end, 10);
    if (errno || end == value || *end || n < lo || n > hi)
        return gv_fail(e, GV_ERR_ARGUMENT, "option \"%s\" is \"%.64s\"; %d to %d are possible", name, value, lo, hi);
    *out = (int)n;
    return GV_OK;
}

char *gv_options_json(void)
{
    json_t *list = json_array();
    int     failed = 0;
    for (size_t i = 0; i < N_OPTIONS; i++)
        failed |=
            json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", rows[i].name, "type", rows[i].type,
                                                  "range", rows[i].range, "default", rows[i].fallback, "help", rows[i].help));
    char *text = failed ? NULL : json_dumps(list, JSON_INDENT(2));
    json_decref(list);
    return text;
}
