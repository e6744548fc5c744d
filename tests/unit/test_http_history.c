/* Offsets with their epoch (N@E) against a node's history: what is held, what may come, what was given up, and
 * where the fork lies. */
#include "http/history.h"

#include <check.h>

#include <stdlib.h>

static struct nx_http_history history;

/* Epochs as pairs of number and first offset. */
static void make(uint64_t durable, uint64_t epoch, const uint64_t (*epochs)[2], size_t count)
{
    history = (struct nx_http_history){.epoch = epoch, .durable = durable};
    for (size_t i = 0; i < count; i++) {
        const struct nx_epoch row = {.epoch = epochs[i][0], .first_offset = epochs[i][1]};

        ck_assert_int_eq(nx_epochs_add(&history.epochs, &row, NULL), 0);
    }
}

struct expected {
    uint64_t offset;
    uint64_t epoch;
    enum nx_http_history_verdict verdict;
    uint64_t fork; /* unless it is held */
};

static void judge_all(const struct expected *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct client_offset wanted = {cases[i].offset, cases[i].epoch};
        uint64_t fork = 0;

        ck_assert_msg(nx_http_history_judge(&history, &wanted, &fork) == cases[i].verdict,
                      "verdict of %llu@%llu", (unsigned long long)wanted.offset,
                      (unsigned long long)wanted.epoch);
        ck_assert_msg(fork == cases[i].fork, "fork of %llu@%llu: %llu",
                      (unsigned long long)wanted.offset, (unsigned long long)wanted.epoch,
                      (unsigned long long)fork);
    }
}

#define JUDGE(cases) judge_all(cases, sizeof(cases) / sizeof *(cases))

/* Epoch 1 ended at 1004, epoch 3 begins at 1005; epoch 2 was never heard of here. */
static const uint64_t forked[][2] = {{1, 1}, {3, 1005}};

START_TEST(what_the_log_holds)
{
    static const struct expected cases[] =
        {
            {0, 1, NX_HISTORY_HELD, 0}, /* an absent key */
            {0, 9, NX_HISTORY_HELD, 0}, /* of whatever epoch */
            {1, 1, NX_HISTORY_HELD, 0},    {1004, 1, NX_HISTORY_HELD, 0},
            {1005, 3, NX_HISTORY_HELD, 0}, {2000, 3, NX_HISTORY_HELD, 0},
            {1004, 3, NX_HISTORY_HELD, 0}, /* a version that was read in epoch 3 */
            {1, 3, NX_HISTORY_HELD, 0},
        };

    make(2000, 3, forked, 2);
    JUDGE(cases);
}
END_TEST

START_TEST(a_lost_entry_is_not_taken_for_the_new_one_of_its_number)
{
    static const struct expected cases[] = {
        {1005, 1, NX_HISTORY_CHANGED, 1004}, {2000, 1, NX_HISTORY_CHANGED, 1004},
        {2001, 1, NX_HISTORY_CHANGED, 1004}, /* nor will it come */
        {1005, 2, NX_HISTORY_CHANGED, 1004}, /* an epoch that isn't in this history */
        {1004, 2, NX_HISTORY_CHANGED, 1004}, {2001, 2, NX_HISTORY_CHANGED, 1004},
        {1500, 4, NX_HISTORY_CHANGED, 2000}, /* a later epoch, and another entry stands there */
    };

    make(2000, 3, forked, 2);
    JUDGE(cases);
}
END_TEST

START_TEST(what_may_still_come)
{
    static const struct expected cases[] = {
        {2001, 3, NX_HISTORY_AHEAD, 2000},
        {2001, 4, NX_HISTORY_LATER, 2000},
        {UINT64_MAX, 3, NX_HISTORY_AHEAD, 2000},
        {UINT64_MAX, UINT64_MAX, NX_HISTORY_LATER, 2000},
    };

    make(2000, 3, forked, 2);
    JUDGE(cases);
}
END_TEST

START_TEST(the_fork_is_never_behind_what_is_durable)
{
    static const struct expected cases[] = {
        {1001, 1, NX_HISTORY_CHANGED, 1000},
        {1001, 2, NX_HISTORY_CHANGED, 1000},
    };

    /* The epoch has begun, its entry isn't durable yet. */
    make(1000, 3, forked, 1);
    JUDGE(cases);
}
END_TEST

START_TEST(where_the_history_begins_later_than_the_log)
{
    static const uint64_t late[][2] = {{5, 500}, {7, 700}};
    static const struct expected cases[] = {
        {499, 1, NX_HISTORY_HELD, 0},      {499, 4, NX_HISTORY_HELD, 0}, /* can't be told */
        {499, 5, NX_HISTORY_HELD, 0},      {499, 9, NX_HISTORY_CHANGED, 800},
        {500, 4, NX_HISTORY_CHANGED, 499}, {600, 5, NX_HISTORY_HELD, 0},
        {700, 5, NX_HISTORY_CHANGED, 699}, {801, 6, NX_HISTORY_CHANGED, 699},
        {801, 2, NX_HISTORY_CHANGED, 499},
    };

    make(800, 7, late, 2);
    JUDGE(cases);
}
END_TEST

START_TEST(without_a_history)
{
    static const struct expected cases[] = {
        {5, 1, NX_HISTORY_HELD, 0},     {5, 2, NX_HISTORY_HELD, 0},
        {5, 3, NX_HISTORY_CHANGED, 10}, {11, 1, NX_HISTORY_CHANGED, 10},
        {11, 2, NX_HISTORY_AHEAD, 10},  {11, 3, NX_HISTORY_LATER, 10},
    };

    make(10, 2, NULL, 0);
    JUDGE(cases);
}
END_TEST

START_TEST(an_empty_log)
{
    static const uint64_t first[][2] = {{1, 1}};
    static const struct expected cases[] = {
        {0, 1, NX_HISTORY_HELD, 0},
        {1, 1, NX_HISTORY_AHEAD, 0},
        {1, 2, NX_HISTORY_LATER, 0},
    };

    make(0, 1, first, 0);
    JUDGE(cases);
    make(0, 1, first, 1);
    JUDGE(cases);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_history");
    TCase *tcase = tcase_create("http_history");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tcase, what_the_log_holds);
    tcase_add_test(tcase, a_lost_entry_is_not_taken_for_the_new_one_of_its_number);
    tcase_add_test(tcase, what_may_still_come);
    tcase_add_test(tcase, the_fork_is_never_behind_what_is_durable);
    tcase_add_test(tcase, where_the_history_begins_later_than_the_log);
    tcase_add_test(tcase, without_a_history);
    tcase_add_test(tcase, an_empty_log);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
