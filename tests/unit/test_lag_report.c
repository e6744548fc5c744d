/* Why a replica stays behind: when a line is due, and what it says. */
#include "walsender/lag_report.h"

#include <check.h>

#include <stdlib.h>
#include <string.h>

#define LIMIT    1000UL
#define PATIENCE 15000UL
#define MINUTE   60000UL

static struct nx_lag_watch watch;
static struct nx_lag_facts facts;

static void setup_watch(void)
{
    watch = (struct nx_lag_watch){.behind = false};
}

static enum nx_lag_action look(uint64_t lag, uint64_t now_ms)
{
    return nx_lag_look(&watch, lag, LIMIT, PATIENCE, now_ms);
}

START_TEST(nothing_is_said_within_the_limit)
{
    for (uint64_t now = 1; now < 10 * MINUTE; now += 1000) {
        ck_assert_int_eq(look(LIMIT, now), NX_LAG_SILENT);
    }
}
END_TEST

START_TEST(nothing_is_said_of_a_short_while)
{
    uint64_t now = 1;

    for (int i = 0; i < 100; i++) {
        ck_assert_int_ne(look(LIMIT + 1, now), NX_LAG_TELL);
        ck_assert_int_ne(look(LIMIT + 1, now + PATIENCE - 1), NX_LAG_TELL);
        ck_assert_int_eq(look(LIMIT, now + PATIENCE), NX_LAG_SILENT);
        now += PATIENCE + 1;
    }
}
END_TEST

START_TEST(once_when_it_lasts_then_once_a_minute_then_the_end)
{
    unsigned told = 0;
    uint64_t first = 0;

    for (uint64_t now = 1; now < 1 + PATIENCE + 3 * MINUTE; now += 500) {
        if (look(5000, now) == NX_LAG_TELL) {
            told++;
            first = first == 0 ? now : first;
        }
    }
    ck_assert_uint_eq(told, 3);
    ck_assert_uint_eq(first, 1 + PATIENCE);
    ck_assert_uint_eq(watch.most, 5000);
    ck_assert_uint_eq(watch.since_ms, 1);
    ck_assert_int_eq(look(10, 5 * MINUTE), NX_LAG_OVER);
    ck_assert_int_eq(look(10, 6 * MINUTE), NX_LAG_SILENT);
}
END_TEST

/* What goes up and down around the limit makes no more lines than what lasts. */
START_TEST(at_most_two_lines_a_minute_whatever_it_does)
{
    unsigned lines = 0;

    for (uint64_t now = 1; now < 1 + 10 * MINUTE; now += 100) {
        bool behind = now % 20000 < 18000;
        enum nx_lag_action action = look(behind ? LIMIT + 1 : 0, now);

        lines += action == NX_LAG_TELL || action == NX_LAG_OVER ? 1 : 0;
    }
    ck_assert_uint_gt(lines, 4);
    ck_assert_uint_le(lines, 20);
}
END_TEST

START_TEST(a_sample_comes_before_each_line)
{
    bool sampled = false;

    for (uint64_t now = 1; now < 5 * MINUTE; now += 250) {
        enum nx_lag_action action = look(5000, now);

        if (action == NX_LAG_SAMPLE) {
            ck_assert(!sampled);
            sampled = true;
        } else if (action == NX_LAG_TELL) {
            ck_assert(sampled);
            sampled = false;
        }
    }
}
END_TEST

/* 10,000 behind: 6,000 not sent, 4,000 on their way; the line was busy all the time. */
static void setup_facts(void)
{
    facts = (struct nx_lag_facts){
        .durable = 20000,
        .queued = 14000,
        .acked = 10000,
        .applied = 10000,
        .unacked_size = 4000000,
        .backlog = 3900000,
        .max_log_size = 1000000,
        .before = {.known = true, .at_us = 1000000, .busy_us = 500000, .limited_us = 1000},
        .now = {.known = true, .at_us = 2000000, .busy_us = 1500000, .limited_us = 2000},
    };
}

static void expect(enum nx_lag_stage stage, const char *text)
{
    char line[1024];

    ck_assert_int_eq(nx_lag_judge(&facts), stage);
    nx_lag_text(&facts, 17000, line, sizeof line);
    ck_assert_msg(strstr(line, text) != NULL, "\"%s\" in \"%s\"", text, line);
}

START_TEST(a_line_that_is_busy_and_a_peer_that_would_take_more)
{
    expect(NX_LAG_LINE, "check network bandwidth");
    expect(NX_LAG_LINE,
           "lags by 10000 entries, for 17 s now (this master 20000, replica 10000): "
           "6000 not yet sent, 4000 sent and not acknowledged (4000 kB, 3900 kB of them "
           "not yet at the other end), 0 not applied");
    expect(NX_LAG_LINE, "replication.max_log_size (1000000 entries)");
}
END_TEST

START_TEST(a_peer_whose_window_is_closed)
{
    facts.now.limited_us = facts.before.limited_us + 900000;
    expect(NX_LAG_WINDOW, "takes no more");
    expect(NX_LAG_WINDOW, "reducing the write load");
}
END_TEST

START_TEST(all_has_arrived)
{
    facts.backlog = 0;
    facts.queued = 20000;
    expect(NX_LAG_DISK, "the replica's disk");
    expect(NX_LAG_DISK, "reducing the write load");
}
END_TEST

START_TEST(all_is_on_its_disk)
{
    facts.acked = 20000;
    facts.queued = 20000;
    facts.backlog = 0;
    expect(NX_LAG_APPLY, "not applied");
}
END_TEST

START_TEST(a_line_that_is_free_and_entries_that_were_not_sent)
{
    facts.now.busy_us = facts.before.busy_us + 100000;
    expect(NX_LAG_SENDER, "this master reads its log too slowly");
}
END_TEST

START_TEST(a_kernel_that_does_not_tell)
{
    facts.before.known = false;
    expect(NX_LAG_NETWORK, "check network bandwidth");
    expect(NX_LAG_NETWORK, "the replica's disk");
    setup_facts();
    facts.now.known = false;
    expect(NX_LAG_NETWORK, "check network bandwidth");
}
END_TEST

/* The longest text fits a log line. */
START_TEST(the_largest_numbers)
{
    char line[1024];

    facts = (struct nx_lag_facts){.durable = UINT64_MAX,
                                  .queued = UINT64_MAX - 1,
                                  .unacked_size = UINT64_MAX,
                                  .backlog = UINT64_MAX / 8,
                                  .max_log_size = UINT64_MAX};
    nx_lag_text(&facts, UINT64_MAX, line, sizeof line);
    ck_assert_uint_lt(strlen(line), 768);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lag_report");
    TCase *when = tcase_create("when");
    TCase *where = tcase_create("where");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(when, setup_watch, NULL);
    tcase_add_test(when, nothing_is_said_within_the_limit);
    tcase_add_test(when, nothing_is_said_of_a_short_while);
    tcase_add_test(when, once_when_it_lasts_then_once_a_minute_then_the_end);
    tcase_add_test(when, at_most_two_lines_a_minute_whatever_it_does);
    tcase_add_test(when, a_sample_comes_before_each_line);
    suite_add_tcase(suite, when);
    tcase_add_checked_fixture(where, setup_facts, NULL);
    tcase_add_test(where, a_line_that_is_busy_and_a_peer_that_would_take_more);
    tcase_add_test(where, a_peer_whose_window_is_closed);
    tcase_add_test(where, all_has_arrived);
    tcase_add_test(where, all_is_on_its_disk);
    tcase_add_test(where, a_line_that_is_free_and_entries_that_were_not_sent);
    tcase_add_test(where, a_kernel_that_does_not_tell);
    tcase_add_test(where, the_largest_numbers);
    suite_add_tcase(suite, where);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
