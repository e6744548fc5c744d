/* The heap of what expires: whatever the order they come in, the earliest is on top. */
#include "walwriter/expiry_heap.h"

#include <check.h>

#include <stdlib.h>

static struct expiry_heap heap;

static void push(uint64_t expires_at, uint64_t op_pos)
{
    struct expiry_item item = {expires_at, op_pos};

    ck_assert_int_eq(nx_expiry_heap_push(&heap, &item), 0);
}

static void teardown(void)
{
    nx_expiry_heap_free(&heap);
}

START_TEST(an_empty_one_has_no_top)
{
    ck_assert_ptr_null(nx_expiry_heap_top(&heap));
    push(5, 50);
    nx_expiry_heap_pop(&heap);
    ck_assert_ptr_null(nx_expiry_heap_top(&heap));
}
END_TEST

START_TEST(the_earliest_is_on_top)
{
    push(30, 1);
    push(10, 2);
    push(20, 3);
    ck_assert_uint_eq(nx_expiry_heap_top(&heap)->op_pos, 2);
    nx_expiry_heap_pop(&heap);
    ck_assert_uint_eq(nx_expiry_heap_top(&heap)->op_pos, 3);
    push(15, 4);
    ck_assert_uint_eq(nx_expiry_heap_top(&heap)->op_pos, 4);
    nx_expiry_heap_pop(&heap);
    nx_expiry_heap_pop(&heap);
    ck_assert_uint_eq(nx_expiry_heap_top(&heap)->op_pos, 1);
}
END_TEST

START_TEST(many_come_out_in_order)
{
    uint64_t sum = 0;
    uint64_t last = 0;

    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t expires_at = i * 2654435761u % 1009; /* in no order */

        push(expires_at, i);
        sum += expires_at;
    }
    for (unsigned i = 0; i < 10000; i++) {
        const struct expiry_item *top = nx_expiry_heap_top(&heap);

        ck_assert_uint_ge(top->expires_at, last);
        last = top->expires_at;
        sum -= last;
        nx_expiry_heap_pop(&heap);
    }
    ck_assert_uint_eq(sum, 0);
    ck_assert_uint_eq(heap.count, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("expiry_heap");
    TCase *tests = tcase_create("order");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, NULL, teardown);
    tcase_add_test(tests, an_empty_one_has_no_top);
    tcase_add_test(tests, the_earliest_is_on_top);
    tcase_add_test(tests, many_come_out_in_order);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
