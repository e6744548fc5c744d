/* Which WAL segments may go: a table over the limits and positions, then every combination of small
 * ones against the rule said in another way. */
#include "checkpointer/retention.h"

#include <check.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SIZE 100 /* bytes of a segment, unless a case says otherwise */

/* Segments of 10 entries each: 1, 11, 21, ... */
static size_t expired_of(size_t count, const struct nx_retention *retention)
{
    struct nx_segment_info list[16];

    for (size_t i = 0; i < count; i++) {
        list[i] = (struct nx_segment_info){.first_offset = i * 10 + 1, .size = SIZE};
    }
    return nx_retention_expired(list, count, retention);
}

#define NONE UINT64_MAX /* pinned */

static const struct retention_case {
    const char *what;
    size_t count; /* of segments */
    struct nx_retention retention;
    size_t expired;
} cases[] = {
    {"no segments", 0, {100, 100, 101, 10, 1000, NONE}, 0},
    {"the only one is being written", 1, {10, 10, 1, 1, 1, NONE}, 0},
    {"everything fits", 5, {45, 45, 41, 1000, 1000, NONE}, 0},
    {"during recovery nothing goes", 5, {45, 0, 41, 1, 1, NONE}, 0},

    {"by count: the last 15 of 45 are in three segments", 5, {45, 45, 41, 15, 1000, NONE}, 3},
    {"by count: the last 25 of 45 begin within a segment", 5, {45, 45, 41, 25, 1000, NONE}, 2},
    {"by count: exactly from a segment's first entry", 5, {45, 45, 41, 35, 1000, NONE}, 1},
    {"by count: one more than that", 5, {45, 45, 41, 36, 1000, NONE}, 0},
    {"by count: all entries, exactly", 5, {45, 45, 41, 45, 1000, NONE}, 0},
    {"by count: a single entry", 5, {45, 45, 41, 1, 1000, NONE}, 4},

    {"by bytes: two segments", 5, {45, 45, 41, 1000, 200, NONE}, 3},
    {"by bytes: not quite two", 5, {45, 45, 41, 1000, 199, NONE}, 4},
    {"by bytes: all of them, exactly", 5, {45, 45, 41, 1000, 500, NONE}, 0},
    {"by bytes: less than one leaves the one being written", 5, {45, 45, 41, 1000, 99, NONE}, 4},
    {"bytes below count", 5, {45, 45, 41, 35, 200, NONE}, 3},
    {"count below bytes", 5, {45, 45, 41, 15, 400, NONE}, 3},

    {"a state that has nothing keeps all of it", 5, {0, 45, 41, 1, 1, NONE}, 0},
    {"recovery goes before both limits", 5, {12, 45, 41, 1, 1, NONE}, 1},
    {"the state ends where a segment ends", 5, {20, 45, 41, 1, 1, NONE}, 2},
    {"the state ends one before that", 5, {19, 45, 41, 1, 1, NONE}, 1},

    {"what is being written never goes", 3, {500, 500, 11, 1, 1, NONE}, 1},
    {"nothing goes behind a first segment that is being written", 3, {500, 500, 1, 1, 1, NONE}, 0},
    {"no segment is written yet", 3, {500, 500, 0, 1, 1, NONE}, 0},
    {"a state ahead of its log", 3, {500, 25, 21, 1000, 1000, NONE}, 0},
    {"the last one stays though nothing in it is needed", 3, {500, 500, 501, 1, 1, NONE}, 2},
    {"limits without end", 5, {45, 45, 41, UINT64_MAX, UINT64_MAX, NONE}, 0},
    {"a pin goes before both limits", 5, {45, 45, 41, 1, 1, 25}, 2},
    {"a pin at a segment's last entry", 5, {45, 45, 41, 1, 1, 30}, 3},
    {"a pin at the very beginning", 5, {45, 45, 41, 1, 1, 0}, 0},
    {"a pin that needs less than recovery", 5, {12, 45, 41, 1, 1, 40}, 1},

    {"the newest offset there can be", 5, {UINT64_MAX - 1, UINT64_MAX, 41, 1, 1000, NONE}, 4},
};

#define CASES ((int)(sizeof cases / sizeof cases[0]))

START_TEST(as_the_table_says)
{
    const struct retention_case *c = &cases[_i];
    size_t expired = expired_of(c->count, &c->retention);

    ck_assert_msg(expired == c->expired, "%s: %zu, not %zu", c->what, expired, c->expired);
}
END_TEST

START_TEST(segments_of_different_sizes_count_as_they_are)
{
    const struct nx_segment_info list[] = {{1, 100}, {11, 5000}, {21, 100}, {31, 100}};
    struct nx_retention retention = {40, 40, 31, 1000, 300, NONE};

    ck_assert_uint_eq(nx_retention_expired(list, 4, &retention), 2);
    retention.max_bytes = 5199;
    ck_assert_uint_eq(nx_retention_expired(list, 4, &retention), 2);
    retention.max_bytes = 5200;
    ck_assert_uint_eq(nx_retention_expired(list, 4, &retention), 1);
}
END_TEST

/* A segment may go if no entry of it is needed: by recovery, or by a replica within both limits. */
static bool may_go(size_t at, size_t count, const struct nx_retention *retention)
{
    uint64_t first = at * 10 + 1;
    uint64_t last = at * 10 + 10;
    uint64_t bytes_from_here = (count - at) * SIZE;
    bool recovery = last > retention->checkpoint_offset;
    bool counted = last + retention->max_entries > retention->newest;
    bool within = bytes_from_here <= retention->max_bytes;

    return !recovery && !(counted && within) && first < retention->writing && at + 1 < count;
}

static size_t may_go_all(size_t count, const struct nx_retention *retention)
{
    size_t n = 0;

    while (may_go(n, count, retention)) {
        n++;
    }
    return n;
}

START_TEST(any_combination_is_as_the_rule_says)
{
    static const uint64_t bytes[] = {0, 100, 250, 300, 400, 1000};
    const size_t count = 4;
    const uint64_t newest = 37;

    for (uint64_t checkpoint = 0; checkpoint <= newest; checkpoint++) {
        for (uint64_t most = 1; most <= newest + 2; most++) {
            for (size_t b = 0; b < sizeof bytes / sizeof bytes[0]; b++) {
                struct nx_retention retention = {checkpoint, newest, 31, most, bytes[b], NONE};

                ck_assert_msg(expired_of(count, &retention) == may_go_all(count, &retention),
                              "checkpoint %" PRIu64 ", %" PRIu64 " entries, %" PRIu64 " bytes",
                              checkpoint, most, bytes[b]);
            }
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("retention");
    TCase *tcase = tcase_create("all");

    tcase_add_loop_test(tcase, as_the_table_says, 0, CASES);
    tcase_add_test(tcase, segments_of_different_sizes_count_as_they_are);
    tcase_add_test(tcase, any_combination_is_as_the_rule_says);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
