/* What outlives a call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "attention/cache.h"

static struct device *device;

static struct tensor numbers(float *x, int64_t n)
{
    for (int64_t i = 0; i < 3 * n; i++)
        x[i] = (float)i;
    return gv_tensor(x, GV_F32, 2, DIMS(n, 3));
}

static void what_is_put_is_got_by_layer_stream_and_kind(void **state)
{
    struct cache *c;
    struct run    r;
    struct error  e = { 0 };
    float         x[30];

    (void)state;
    assert_int_equal(gv_cache_open(&c, device, SIZE_MAX, &e), GV_OK);
    assert_int_equal(gv_run_open(&r, device, GV_F32, 0, &e), GV_OK);
    for (int layer = 0; layer < 50; layer++)
        for (int stream = 0; stream < 2; stream++)
            for (int kind = KEPT_K; kind <= KEPT_V; kind++) {
                const struct tensor t = numbers(x, 1 + layer % 10);
                x[0] = (float)(layer * 4 + stream * 2 + kind);
                gv_cache_put(&r, c, (struct cache_key){ layer, stream, (enum kept)kind }, t);
            }
    assert_int_equal(r.err.code, GV_OK);
    for (int layer = 49; layer >= 0; layer--)
        for (int stream = 0; stream < 2; stream++)
            for (int kind = KEPT_K; kind <= KEPT_V; kind++) {
                const struct tensor t = gv_cache_get(c, (struct cache_key){ layer, stream, (enum kept)kind });
                assert_int_equal(t.dim[0], 1 + layer % 10);
                assert_true(((float *)t.data)[0] == (float)(layer * 4 + stream * 2 + kind));
                assert_true(((float *)t.data)[2] == 2);
            }
    assert_false(present(gv_cache_get(c, (struct cache_key){ 3, 0, KEPT_RESIDUAL })));
    gv_cache_drop(c, (struct cache_key){ 3, 1, KEPT_K });
    gv_cache_drop(c, (struct cache_key){ 3, 1, KEPT_K });
    assert_false(present(gv_cache_get(c, (struct cache_key){ 3, 1, KEPT_K })));
    assert_true(present(gv_cache_get(c, (struct cache_key){ 3, 0, KEPT_K })));
    gv_run_close(&r);
    gv_cache_close(&c);
    assert_null(c);
}

static void a_slot_grows_up_to_its_length_and_keeps_its_memory(void **state)
{
    const struct cache_key key = { 0, 0, KEPT_K };
    struct cache          *c;
    struct run             r;
    struct error           e = { 0 };
    float                  x[30];

    (void)state;
    assert_int_equal(gv_cache_open(&c, device, SIZE_MAX, &e), GV_OK);
    assert_int_equal(gv_run_open(&r, device, GV_F32, 0, &e), GV_OK);
    const struct tensor slot = gv_cache_slot(&r, c, key, GV_F32, 3, DIMS(1, 10, 3));
    assert_false(present(gv_cache_get(c, key))); /* nothing in it yet */
    gv_copy(&r, slice(slot, 1, 0, 4), reshape(numbers(x, 4), 3, DIMS(1, 4, 3)));
    gv_cache_set_length(c, key, 1, 4);
    assert_int_equal(gv_cache_get(c, key).dim[1], 4);
    assert_ptr_equal(gv_cache_get(c, key).data, slot.data);
    assert_ptr_equal(gv_cache_slot(&r, c, key, GV_F32, 3, DIMS(1, 10, 3)).data, slot.data);
    assert_int_equal(gv_cache_get(c, key).dim[1], 4); /* asking again empties nothing */
    const size_t before = gv_cache_bytes(c);
    gv_cache_slot(&r, c, key, GV_F32, 3, DIMS(1, 20, 3));
    assert_false(present(gv_cache_get(c, key))); /* another shape is another slot */
    assert_int_equal(gv_cache_bytes(c), 2 * before);
    gv_run_close(&r);
    gv_cache_close(&c);
}

static void budget_is_kept_and_said(void **state)
{
    struct cache *c;
    struct run    r;
    struct error  e = { 0 };
    const size_t  in_use = atomic_load(&device->in_use);

    (void)state;
    assert_int_equal(gv_cache_open(&c, device, 1000, &e), GV_OK);
    assert_int_equal(gv_run_open(&r, device, GV_F32, 0, &e), GV_OK);
    assert_true(present(gv_cache_slot(&r, c, (struct cache_key){ 0, 0, KEPT_K }, GV_F32, 1, DIMS(200))));
    assert_int_equal(r.err.code, GV_OK);
    assert_false(present(gv_cache_slot(&r, c, (struct cache_key){ 1, 0, KEPT_K }, GV_F32, 1, DIMS(51))));
    assert_int_equal(r.err.code, GV_ERR_MEMORY);
    assert_non_null(strstr(r.err.text, "1000"));
    assert_int_equal(gv_cache_bytes(c), 800);
    gv_run_close(&r);
    gv_cache_close(&c);
    assert_int_equal(atomic_load(&device->in_use), in_use);
}

static void the_null_device_counts_what_would_be_kept(void **state)
{
    struct device *null;
    struct cache  *c;
    struct run     r;
    struct error   e = { 0 };

    (void)state;
    assert_int_equal(gv_device_null(&null, device, &e), GV_OK);
    assert_int_equal(gv_cache_open(&c, null, SIZE_MAX, &e), GV_OK);
    assert_int_equal(gv_run_open(&r, null, GV_F32, 0, &e), GV_OK);
    gv_cache_put(&r, c, (struct cache_key){ 0, 0, KEPT_V }, gv_tensor(NULL, GV_F32, 2, DIMS(100, 3)));
    assert_int_equal(r.err.code, GV_OK);
    assert_int_equal(gv_cache_get(c, (struct cache_key){ 0, 0, KEPT_V }).dim[0], 100);
    assert_in_range(atomic_load(&null->in_use), 1200, 1200 + GV_ALIGN); /* as the device rounds */
    gv_run_close(&r);
    gv_cache_close(&c);
    gv_device_close(&null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_got_by_layer_stream_and_kind),
        cmocka_unit_test(a_slot_grows_up_to_its_length_and_keeps_its_memory),
        cmocka_unit_test(budget_is_kept_and_said),
        cmocka_unit_test(the_null_device_counts_what_would_be_kept),
    };
    struct error e = { 0 };
    if (gv_device_open(&device, &(struct device_params){ .name = "cpu", .threads = 1 }, &e) != GV_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gv_device_close(&device);
    return failed;
}
