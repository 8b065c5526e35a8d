/* Scratch memory: marks, alignment, the end of the room, counting without memory, poison under ASan. */
#include "core/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

enum { SIZE = 1024 };

static _Alignas(GV_ALIGN) unsigned char room[SIZE];

static struct arena fresh(void)
{
    return (struct arena){ .base = room, .size = SIZE };
}

static void *take(struct arena *a, size_t bytes)
{
    void *p;
    assert_true(gv_arena_take(a, bytes, &p));
    return p;
}

static void what_is_taken_is_aligned_and_apart(void **state)
{
    (void)state;
    struct arena   a = fresh();
    unsigned char *end = room;
    for (size_t bytes = 1; bytes < 100; bytes += 33) {
        unsigned char *p = take(&a, bytes);
        assert_int_equal((uintptr_t)p % GV_ALIGN, 0);
        assert_true(p >= end);
        memset(p, 1, bytes);
        end = p + bytes;
    }
    arena_release(&a, (struct mark){ 0 });
}

static void a_mark_gives_back_all_that_came_after(void **state)
{
    (void)state;
    struct arena a = fresh();
    void        *first = take(&a, 64);
    struct mark  outer = arena_mark(&a);
    void        *second = take(&a, 200);
    struct mark  inner = arena_mark(&a);
    take(&a, 64);
    arena_release(&a, inner);
    arena_release(&a, outer);
    assert_ptr_equal(take(&a, 8), second);
    arena_release(&a, (struct mark){ 0 });
    assert_ptr_equal(take(&a, 8), first);
    assert_int_equal(a.peak, 64 + 256 + 64);
    arena_release(&a, (struct mark){ 0 });
}

static void a_full_arena_refuses_and_stays_as_it_was(void **state)
{
    (void)state;
    struct arena a = fresh();
    void        *p = room;
    take(&a, SIZE - GV_ALIGN);
    assert_false(gv_arena_take(&a, GV_ALIGN + 1, &p));
    assert_null(p);
    assert_non_null(take(&a, GV_ALIGN));
    assert_false(gv_arena_take(&a, 1, &p));
    assert_int_equal(a.used, SIZE);
    assert_non_null(take(&a, 0)); /* nothing fits always */
    arena_release(&a, (struct mark){ 0 });
}

static void sizes_that_wrap_around_are_refused(void **state)
{
    (void)state;
    struct arena a = fresh(), counting = { .size = SIZE_MAX };
    void        *p;
    for (size_t less = 0; less < GV_ALIGN; less++) {
        assert_false(gv_arena_take(&a, SIZE_MAX - less, &p));
        if (less < GV_ALIGN - 1)
            assert_false(gv_arena_take(&counting, SIZE_MAX - less, &p));
    }
    take(&counting, 64);
    assert_false(gv_arena_take(&counting, SIZE_MAX / GV_ALIGN * GV_ALIGN, &p));
}

static void without_memory_it_counts(void **state)
{
    (void)state;
    struct arena a = { .size = SIZE_MAX };
    assert_null(take(&a, (size_t)1 << 50));
    arena_release(&a, (struct mark){ 0 });
    assert_null(take(&a, 1));
    assert_int_equal(a.used, GV_ALIGN);
    assert_int_equal(a.peak, (size_t)1 << 50);
}

static void released_memory_is_poisoned(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    struct arena   a = fresh();
    unsigned char *p = take(&a, 128);
    assert_false(__asan_address_is_poisoned(p));
    arena_release(&a, (struct mark){ 0 });
    assert_true(__asan_address_is_poisoned(p));
    assert_true(__asan_address_is_poisoned(p + 127));
    assert_ptr_equal(take(&a, 8), p);
    assert_false(__asan_address_is_poisoned(p + 7));
    assert_true(__asan_address_is_poisoned(p + 8));
    ASAN_UNPOISON_MEMORY_REGION(room, SIZE);
#else
    print_message("  skipped: only a build with ASan poisons\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken_is_aligned_and_apart),
        cmocka_unit_test(a_mark_gives_back_all_that_came_after),
        cmocka_unit_test(a_full_arena_refuses_and_stays_as_it_was),
        cmocka_unit_test(sizes_that_wrap_around_are_refused),
        cmocka_unit_test(without_memory_it_counts),
        cmocka_unit_test(released_memory_is_poisoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
