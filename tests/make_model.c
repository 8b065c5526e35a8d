/* make_model CONFIGS OUT [MANIFESTS]: a checkpoint of seeded random weights in the shipped configuration, for `make demo` and the tests
 * while assets/models holds no trained weights; with MANIFESTS, of a golden folder, in f32. Names and shapes: tests/golden/shipped, made by the reference libraries. */
#include <stdio.h>

#include "tests/fixture.h"

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: make_model CONFIGS OUT [MANIFESTS]\n");
        return 64;
    }
    if (argc == 4)
        fixture_model(argv[2], argv[1], argv[3], GV_F32, 0);
    else
        fixture_model(argv[2], argv[1], GV_TEST_DATA "/shipped", GV_BF16, (size_t)16 << 20);
    return 0;
}
