/* Views: sizes, strides, and what slicing, reshaping and permuting make of them. No memory is touched but to see where a view
 * points. */
#include "core/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static float memory[2 * 3 * 4 * 5];

static struct tensor sample(void)
{
    return gv_tensor(memory, GV_F32, 4, DIMS(2, 3, 4, 5));
}

static ptrdiff_t place(struct tensor t)
{
    return (float *)t.data - memory;
}

static void every_type_has_a_name_and_a_size(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t      bytes;
    } want[GV_DTYPES] = {
        [GV_F32] = { "F32", 4 },        [GV_BF16] = { "BF16", 2 }, [GV_F16] = { "F16", 2 }, [GV_F64] = { "F64", 8 },
        [GV_F8E4M3] = { "F8_E4M3", 1 }, [GV_I32] = { "I32", 4 },   [GV_I64] = { "I64", 8 }, [GV_U8] = { "U8", 1 },
    };
    for (int i = 0; i < GV_DTYPES; i++) {
        assert_string_equal(gv_dtype_info((enum dtype)i)->name, want[i].name);
        assert_int_equal(gv_dtype_bytes((enum dtype)i, 7), 7 * want[i].bytes);
        assert_int_equal(gv_dtype_bytes((enum dtype)i, 0), 0);
    }
    assert_int_equal(gv_dtype_bytes(GV_F64, INT64_C(1) << 40), (size_t)1 << 43);
}

static void a_new_tensor_is_contiguous(void **state)
{
    (void)state;
    struct tensor t = sample();
    const int64_t want[] = { 60, 20, 5, 1 };
    assert_memory_equal(t.stride, want, sizeof want);
    assert_true(gv_tensor_contiguous(t));
    assert_int_equal(gv_tensor_count(t), 120);
    assert_int_equal(gv_tensor_bytes(t), 480);
    assert_true(present(t));
}

static void an_absent_tensor_counts_nothing(void **state)
{
    (void)state;
    struct tensor none = { 0 };
    assert_false(present(none));
    assert_int_equal(gv_tensor_count(none), 0);
    assert_true(gv_tensor_same_shape(none, none));
    assert_false(gv_tensor_same_shape(none, sample()));
}

static void an_empty_dimension_counts_nothing(void **state)
{
    (void)state;
    assert_int_equal(gv_tensor_count(gv_tensor(NULL, GV_F32, 3, DIMS(4, 0, 5))), 0);
    assert_true(gv_tensor_contiguous(gv_tensor(NULL, GV_F32, 3, DIMS(4, 0, 5))));
}

static void a_slice_keeps_strides_and_moves_the_start(void **state)
{
    (void)state;
    struct tensor s = slice(sample(), 2, 1, 2);
    assert_int_equal(place(s), 5);
    assert_int_equal(s.dim[2], 2);
    assert_int_equal(s.stride[1], 20);
    assert_false(gv_tensor_contiguous(s));
    assert_true(gv_tensor_contiguous(slice(sample(), 0, 1, 1)));
    assert_int_equal(gv_tensor_count(slice(sample(), 1, 3, 0)), 0); /* empty, at the very end */
}

static void a_dimension_of_one_does_not_break_contiguity(void **state)
{
    (void)state;
    struct tensor s = slice(slice(sample(), 0, 0, 1), 1, 1, 1);
    assert_true(gv_tensor_contiguous(s));
    assert_int_equal(place(reshape(s, 2, DIMS(4, 5))), 20);
}

static void a_row_loses_its_first_dimension(void **state)
{
    (void)state;
    struct tensor r = row(row(sample(), 1), 2);
    assert_int_equal(r.rank, 2);
    assert_int_equal(place(r), 100);
    assert_int_equal(r.dim[0], 4);
    assert_int_equal(r.stride[0], 5);
    assert_int_equal(r.dim[1], 5);
}

static void permuting_twice_gives_the_first_back(void **state)
{
    (void)state;
    const int     there[] = { 2, 0, 3, 1 }, back[] = { 1, 3, 0, 2 };
    struct tensor p = permute(sample(), there);
    assert_int_equal(p.dim[0], 4);
    assert_int_equal(p.stride[0], 5);
    assert_int_equal(p.dim[3], 3);
    assert_false(gv_tensor_contiguous(p));
    struct tensor b = permute(p, back);
    assert_true(gv_tensor_same_shape(b, sample()));
    assert_true(gv_tensor_contiguous(b));
}

static void heads_split_the_last_dimension(void **state)
{
    (void)state;
    struct tensor all = gv_tensor(memory, GV_F32, 2, DIMS(6, 20)), q = heads(slice(all, 1, 4, 12), 3);
    assert_int_equal(q.rank, 3);
    assert_int_equal(place(q), 4);
    const int64_t dim[] = { 6, 3, 4 }, stride[] = { 20, 4, 1 };
    assert_memory_equal(q.dim, dim, sizeof dim);
    assert_memory_equal(q.stride, stride, sizeof stride);
}

/* After a failure a run hands out tensors without data: views of them stay without. */
static void views_of_nothing_stay_nothing(void **state)
{
    (void)state;
    struct tensor t = gv_tensor(NULL, GV_BF16, 2, DIMS(6, 20));
    assert_null(slice(t, 0, 3, 2).data);
    assert_null(row(t, 5).data);
    assert_null(heads(t, 4).data);
    assert_null(reshape(t, 1, DIMS(120)).data);
}

static void a_shape_is_told_and_cut_to_its_room(void **state)
{
    (void)state;
    char text[64], little[6];
    assert_string_equal(gv_tensor_shape_text(sample(), text, sizeof text), "[2, 3, 4, 5]");
    assert_string_equal(gv_tensor_shape_text((struct tensor){ 0 }, text, sizeof text), "[]");
    assert_string_equal(gv_tensor_shape_text(sample(), little, sizeof little), "[2, 3");
    for (size_t room = 1; room < 14; room++) {
        memset(text, 'x', sizeof text);
        gv_tensor_shape_text(sample(), text, room);
        assert_true(strlen(text) < room);
        assert_int_equal(text[room], 'x');
    }
    assert_string_equal(gv_tensor_shape_text(gv_tensor(NULL, GV_F32, 1, DIMS(INT64_MAX)), text, sizeof text),
                        "[9223372036854775807]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_has_a_name_and_a_size),
        cmocka_unit_test(a_new_tensor_is_contiguous),
        cmocka_unit_test(an_absent_tensor_counts_nothing),
        cmocka_unit_test(an_empty_dimension_counts_nothing),
        cmocka_unit_test(a_slice_keeps_strides_and_moves_the_start),
        cmocka_unit_test(a_dimension_of_one_does_not_break_contiguity),
        cmocka_unit_test(a_row_loses_its_first_dimension),
        cmocka_unit_test(permuting_twice_gives_the_first_back),
        cmocka_unit_test(heads_split_the_last_dimension),
        cmocka_unit_test(views_of_nothing_stay_nothing),
        cmocka_unit_test(a_shape_is_told_and_cut_to_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
