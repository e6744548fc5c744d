/* nexus-bench's command line: what is taken, what is refused and how that is said; and when requests are due. */
#include "nexus-bench/clock.h"
#include "nexus-bench/options.h"
#include "nexus-bench/schedule.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOST_WORDS 24

static struct bench_options options;
static char error[512];

/* Parses words that blanks divide. */
static int parse(const char *line)
{
    static char words[512];
    char *argv[MOST_WORDS] = {words};
    char *rest = NULL;
    int argc = 1;

    ck_assert_uint_lt(strlen(line), sizeof words);
    memcpy(words, line, strlen(line) + 1);
    for (char *word = strtok_r(words, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        ck_assert_int_lt(argc, MOST_WORDS);
        argv[argc++] = word;
    }
    error[0] = '\0';
    memset(&options, 0x55, sizeof options);
    return bench_options_parse(argc, argv, &options, error, sizeof error);
}

/* ---- what is taken ---- */

START_TEST(defaults)
{
    ck_assert_int_eq(parse(""), 0);
    ck_assert_str_eq(options.protocol->name, "http");
    ck_assert_uint_eq(options.target_count, 1);
    ck_assert_str_eq(options.targets[0].text, "127.0.0.1:15474");
    ck_assert_uint_eq(options.clients, 64);
    ck_assert_uint_eq(options.threads, 1);
    ck_assert_uint_eq(options.pipeline, 1);
    ck_assert_uint_eq(options.batch, 1000);
    ck_assert_uint_eq(options.value, 100);
    ck_assert_uint_eq(options.keys, 1000000);
    ck_assert_uint_eq(options.requests, 0);
    ck_assert_uint_eq(options.duration_ns, 10000000000);
    ck_assert_uint_eq(options.warmup_ns, 0);
    ck_assert(!(options.rate > 0));
    ck_assert_str_eq(options.mix, "put=1");
    ck_assert_int_eq(options.order, BENCH_UNIFORM);
    ck_assert(!options.json && !options.probe && !options.seeded);
}
END_TEST

START_TEST(all_that_can_be_asked_for)
{
    ck_assert_int_eq(
        parse("--protocol redis --target a:1,[::1]:2 --clients=8 --threads 2 --pipeline 4 "
              "--rate 1000.5 --duration 0.25 --warmup 1.5"),
        0);
    ck_assert_str_eq(options.protocol->name, "redis");
    ck_assert_uint_eq(options.target_count, 2);
    ck_assert_str_eq(options.targets[1].text, "[::1]:2");
    ck_assert_uint_eq(options.clients, 8);
    ck_assert_uint_eq(options.threads, 2);
    ck_assert_uint_eq(options.pipeline, 4);
    ck_assert_double_eq_tol(options.rate, 1000.5, 1e-9);
    ck_assert_uint_eq(options.duration_ns, 250000000);
    ck_assert_uint_eq(options.warmup_ns, 1500000000);

    ck_assert_int_eq(parse("--value 1KiB --batch 5 --keys 7 --order zipf:0.5 --seed 0 --json "
                           "--header A:b --header C:d --token-file t --requests 9"),
                     0);
    ck_assert_uint_eq(options.value, 1024);
    ck_assert_uint_eq(options.batch, 5);
    ck_assert_uint_eq(options.keys, 7);
    ck_assert_int_eq(options.order, BENCH_ZIPF);
    ck_assert_double_eq_tol(options.theta, 0.5, 1e-9);
    ck_assert(options.seeded && options.json);
    ck_assert_uint_eq(options.header_count, 2);
    ck_assert_str_eq(options.headers[1], "C:d");
    ck_assert_str_eq(options.token_file, "t");
}
END_TEST

START_TEST(something_ends_each_run)
{
    ck_assert_int_eq(parse("--requests 5"), 0);
    ck_assert_uint_eq(options.duration_ns, 0);
    ck_assert_int_eq(parse("--order sequential"), 0);
    ck_assert_uint_eq(options.duration_ns, 0);
    ck_assert_int_eq(parse("--order sequential --duration 3"), 0);
    ck_assert_uint_eq(options.duration_ns, 3000000000);
    ck_assert_int_eq(parse("--lag a:1 --order sequential"), 0);
    ck_assert_uint_eq(options.duration_ns, 10000000000);
}
END_TEST

START_TEST(a_probe_is_one_client)
{
    ck_assert_int_eq(parse("--lag a:1"), 0);
    ck_assert(options.probe);
    ck_assert_str_eq(options.lag.text, "a:1");
    ck_assert_uint_eq(options.clients, 1);
    ck_assert_uint_eq(options.threads, 1);
    ck_assert_uint_eq(options.pipeline, 1);
}
END_TEST

START_TEST(a_mix_is_drawn_by_its_weights)
{
    ck_assert_int_eq(parse("--mix get=95,put=0,import=5"), 0);
    ck_assert_uint_eq(options.weight, 100);
    ck_assert_int_eq(bench_options_draw(&options, 0), BENCH_GET);
    ck_assert_int_eq(bench_options_draw(&options, 94), BENCH_GET);
    ck_assert_int_eq(bench_options_draw(&options, 95), BENCH_IMPORT);
    ck_assert_int_eq(bench_options_draw(&options, 99), BENCH_IMPORT);
}
END_TEST

START_TEST(help_wins_over_what_is_wrong_behind_it)
{
    ck_assert_int_eq(parse("--help --nonsense"), 0);
    ck_assert_int_eq(options.action, BENCH_HELP);
    ck_assert_int_eq(parse("--version"), 0);
    ck_assert_int_eq(options.action, BENCH_VERSION);
}
END_TEST

/* ---- what is refused ---- */

static const struct {
    const char *line;
    const char *said; /* somewhere in the text */
} refused[] = {
    {"--clinets 5", "did you mean --clients?"},
    {"5", "unknown option \"5\""},
    {"--clients", "--clients needs a value: N"},
    {"--clients=", "--clients: \"\""},
    {"--clients 0", "a number from 1 to 65536"},
    {"--clients -1", "--clients: \"-1\""},
    {"--clients 1.5", "--clients"},
    {"--json=1", "--json takes no value"},
    {"--protocol mysql", "http, redis or etcd"},
    {"--target localhost", "HOST:PORT"},
    {"--target :80", "HOST:PORT"},
    {"--target a:1,,b:2", "HOST:PORT"},
    {"--rate 0", "above 0"},
    {"--rate nan", "above 0"},
    {"--rate 1e3", "above 0"},
    {"--rate -5", "above 0"},
    {"--duration 0", "more than 0 seconds"},
    {"--duration 5s", "a number of seconds"},
    {"--duration .", "a number of seconds"},
    {"--warmup 1.", "a number of seconds"},
    {"--mix put", "put="},
    {"--mix set=1", "put="},
    {"--mix put=", "--mix"},
    {"--mix put=0", "a weight above 0"},
    {"--mix get=1,put=1,get=2", "each operation once"},
    {"--mix put=1,", "put="},
    {"--keys 1000000000001", "1000000000000"},
    {"--order random", "sequential"},
    {"--order zipf:1", "below 1"},
    {"--order zipf:0", "above 0"},
    {"--value 2GiB", "at most 1GiB"},
    {"--header A", "'Name: value'"},
    {"--seed x", "--seed"},
    {"--lag 5", "HOST:PORT"},
    {"--protocol etcd --pipeline 2", "--pipeline"},
    {"--protocol redis --header A:b", "for http alone"},
    {"--clients 2 --threads 3", "more than --clients"},
    {"--lag a:1 --value 15", "16 to 4096"},
    {"--lag a:1 --rate 5", "no --rate"},
    {"--lag a:1 --clients 9", "one client's"},
    {"--lag a:1 --pipeline 2", "one client's"},
    {"--lag a:1 --mix get=1", "--mix"},
    {"--lag a:1 --target a:1,b:1", "one --target"},
};

START_TEST(what_is_wrong_is_said)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        ck_assert_msg(parse(refused[i].line) == -EINVAL, "taken: %s", refused[i].line);
        ck_assert_msg(strstr(error, refused[i].said) != NULL, "%s: %s", refused[i].line, error);
        ck_assert_uint_eq(options.clients, 0x5555555555555555u); /* untouched */
    }
}
END_TEST

/* ---- the schedule ---- */

#define START ((uint64_t)1000 * BENCH_SECOND_NS)

START_TEST(a_closed_loop_ends_with_its_time)
{
    struct bench_schedule schedule;
    bool counted = true;

    ck_assert_int_eq(parse("--duration 2 --warmup 1"), 0);
    schedule = bench_schedule_of(&options, 0, START);
    ck_assert(bench_schedule_take(&schedule, START, &counted));
    ck_assert(!counted);
    ck_assert(bench_schedule_take(&schedule, START + BENCH_SECOND_NS, &counted));
    ck_assert(counted);
    ck_assert(bench_schedule_take(&schedule, START + 3 * (uint64_t)BENCH_SECOND_NS - 1, &counted));
    ck_assert(!bench_schedule_take(&schedule, START + 3 * (uint64_t)BENCH_SECOND_NS, &counted));
    ck_assert(schedule.ended);
}
END_TEST

START_TEST(requests_are_shared_by_threads_and_not_by_the_warm_up)
{
    struct bench_schedule schedule;
    bool counted;
    unsigned taken = 0;

    ck_assert_int_eq(parse("--requests 7 --threads 2 --warmup 1"), 0);
    for (uint64_t thread = 0; thread < 2; thread++) {
        schedule = bench_schedule_of(&options, thread, START);
        ck_assert(bench_schedule_take(&schedule, START, &counted));
        ck_assert(!counted);
        while (bench_schedule_take(&schedule, START + BENCH_SECOND_NS, &counted)) {
            taken++;
        }
    }
    ck_assert_uint_eq(taken, 7);
}
END_TEST

START_TEST(an_open_loop_is_due_evenly_whatever_happens)
{
    struct bench_schedule schedule;
    bool counted;
    uint64_t due;
    unsigned taken = 0;

    ck_assert_int_eq(parse("--rate 1000 --threads 2 --duration 1"), 0);
    schedule = bench_schedule_of(&options, 1, START);
    ck_assert_uint_eq(bench_schedule_due(&schedule), START + 1000000);
    ck_assert_uint_eq(bench_schedule_due(&schedule), START + 1000000); /* until it is taken */
    while ((due = bench_schedule_due(&schedule)) != UINT64_MAX) {
        ck_assert_uint_eq(due, START + 1000000 + (uint64_t)taken * 2000000);
        ck_assert(bench_schedule_take(&schedule, due, &counted));
        taken++;
    }
    ck_assert_uint_eq(taken, 500);
    ck_assert(schedule.ended);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench_options");
    TCase *taken = tcase_create("taken");
    TCase *wrong = tcase_create("refused");
    TCase *schedule = tcase_create("schedule");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(taken, defaults);
    tcase_add_test(taken, all_that_can_be_asked_for);
    tcase_add_test(taken, something_ends_each_run);
    tcase_add_test(taken, a_probe_is_one_client);
    tcase_add_test(taken, a_mix_is_drawn_by_its_weights);
    tcase_add_test(taken, help_wins_over_what_is_wrong_behind_it);
    tcase_add_test(wrong, what_is_wrong_is_said);
    tcase_add_test(schedule, a_closed_loop_ends_with_its_time);
    tcase_add_test(schedule, requests_are_shared_by_threads_and_not_by_the_warm_up);
    tcase_add_test(schedule, an_open_loop_is_due_evenly_whatever_happens);
    suite_add_tcase(suite, taken);
    suite_add_tcase(suite, wrong);
    suite_add_tcase(suite, schedule);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
