/* make_model CONFIGS OUT: a checkpoint of seeded random weights in the shipped configuration, for `make demo` and the tests
 * while assets/models holds no trained weights. Names and shapes: tests/golden/shipped, made by the reference libraries. */
#include <stdio.h>

#include "tests/fixture.h"

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: make_model CONFIGS OUT\n");
        return 64;
    }
    fixture_model(argv[2], argv[1], GV_TEST_DATA "/shipped", GV_BF16, (size_t)16 << 20);
    return 0;
}
