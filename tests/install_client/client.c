/* A client of the installed library: opens an engine, is told that a model is not there, closes. */
#include <genvid.h>
#include <stdio.h>

int main(void)
{
    char       why[512] = "";
    gv_engine *engine   = NULL;
    gv_model  *model    = NULL;
    if (gv_api_version() != GV_API_VERSION)
        return 1;
    if (gv_engine_open(NULL, &engine, why, sizeof why) != GV_OK) {
        printf("no engine: %s\n", why);
        return 1;
    }
    const gv_status st = gv_model_load(engine, "no-such-model", &model, why, sizeof why);
    gv_engine_close(&engine);
    printf("genvid %s: %s: %s\n", gv_version(), gv_status_name(st), why);
    return st == GV_OK || !*why;
}
