/* What happens when a child dies, as a table: the decision is a pure function. */
#include "common/process.h"
#include "postmaster/restart_policy.h"

#include <check.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define EXITED(status) ((status) << 8) /* as waitpid has it */
#define KILLED(signal) (signal)

static const struct {
    enum nx_restart_rule rule;
    int wait_status;
    enum nx_restart_action action;
} first_deaths[] = {
    {RESTART_ALONE, EXITED(0), NX_RESTART_CHILD},
    {RESTART_ALONE, EXITED(NX_EXIT_FAILURE), NX_RESTART_CHILD},
    {RESTART_ALONE, KILLED(SIGKILL), NX_RESTART_CHILD},
    {RESTART_ALONE, KILLED(SIGTERM), NX_RESTART_CHILD},
    {RESTART_ALONE, KILLED(SIGSEGV), NX_RESTART_SERVER},
    {RESTART_ALONE, KILLED(SIGBUS), NX_RESTART_SERVER},
    {RESTART_ALONE, KILLED(SIGILL), NX_RESTART_SERVER},
    {RESTART_ALONE, KILLED(SIGFPE), NX_RESTART_SERVER},
    {RESTART_ALONE, KILLED(SIGABRT), NX_RESTART_SERVER},
    {RESTART_ALONE, EXITED(NX_EXIT_PERSON), NX_RESTART_STOP},
    {RESTART_ALL, EXITED(NX_EXIT_FAILURE), NX_RESTART_SERVER},
    {RESTART_ALL, KILLED(SIGKILL), NX_RESTART_SERVER},
    {RESTART_ALL, KILLED(SIGSEGV), NX_RESTART_SERVER},
    {RESTART_ALL, EXITED(NX_EXIT_PERSON), NX_RESTART_STOP},
    {RESTART_NEVER, EXITED(0), NX_RESTART_FORGET},
    {RESTART_NEVER, KILLED(SIGKILL), NX_RESTART_FORGET},
    {RESTART_NEVER, KILLED(SIGSEGV), NX_RESTART_SERVER},
};

START_TEST(a_first_death_is_answered_at_once)
{
    struct nx_child_history history = {0};
    struct nx_child_death death = {.rule = first_deaths[_i].rule,
                                   .wait_status = first_deaths[_i].wait_status,
                                   .was_ready = true,
                                   .lived_ms = 1000,
                                   .now_ms = 5000};
    struct nx_restart_decision decision = nx_restart_decide(&death, &history);

    ck_assert_int_eq(decision.action, first_deaths[_i].action);
    ck_assert_uint_eq(decision.delay_ms, 0);
}
END_TEST

static uint64_t delay_after(struct nx_child_history *history, uint64_t lived_ms)
{
    struct nx_child_death death = {.rule = RESTART_ALONE,
                                   .wait_status = KILLED(SIGKILL),
                                   .was_ready = true,
                                   .lived_ms = lived_ms};

    return nx_restart_decide(&death, history).delay_ms;
}

START_TEST(short_lives_are_ever_longer_apart_up_to_a_bound)
{
    static const uint64_t expected[] = {0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    struct nx_child_history history = {0};

    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        ck_assert_uint_eq(delay_after(&history, 10), expected[i]);
    }
    ck_assert_uint_eq(delay_after(&history, NX_LONG_LIFE_MS), 0);
    ck_assert_uint_eq(delay_after(&history, 10), 100);
}
END_TEST

START_TEST(crashes_of_connections_are_ever_longer_apart_too)
{
    struct nx_child_history history = {0};
    struct nx_child_death death = {
        .rule = RESTART_NEVER, .wait_status = KILLED(SIGSEGV), .was_ready = true, .lived_ms = 10};

    ck_assert_uint_eq(nx_restart_decide(&death, &history).delay_ms, 0);
    ck_assert_uint_eq(nx_restart_decide(&death, &history).delay_ms, NX_BACKOFF_FIRST_MS);
    ck_assert_int_eq(nx_restart_decide(&death, &history).action, NX_RESTART_SERVER);
}
END_TEST

static enum nx_restart_action dies_in_startup(struct nx_child_history *history, uint64_t now_ms)
{
    struct nx_child_death death = {
        .rule = RESTART_ALL, .wait_status = EXITED(NX_EXIT_FAILURE), .now_ms = now_ms};

    return nx_restart_decide(&death, history).action;
}

START_TEST(one_that_keeps_dying_in_startup_is_given_up)
{
    struct nx_child_history history = {0};

    for (uint64_t i = 0; i < NX_STARTUP_DEATHS - 1; i++) {
        ck_assert_int_eq(dies_in_startup(&history, 1000 + i), NX_RESTART_SERVER);
    }
    ck_assert_int_eq(dies_in_startup(&history, 2000), NX_RESTART_GIVE_UP);
}
END_TEST

START_TEST(rare_deaths_in_startup_are_not)
{
    struct nx_child_history history = {0};

    for (uint64_t i = 0; i < 50; i++) {
        ck_assert_int_eq(dies_in_startup(&history, i * NX_STARTUP_WINDOW_MS / 2),
                         NX_RESTART_SERVER);
    }
}
END_TEST

START_TEST(a_start_that_succeeds_forgets_the_ones_before)
{
    struct nx_child_history history = {0};

    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < NX_STARTUP_DEATHS - 1; i++) {
            ck_assert_int_eq(dies_in_startup(&history, i), NX_RESTART_SERVER);
        }
        (void)delay_after(&history, 10);
    }
}
END_TEST

START_TEST(deaths_are_described)
{
    char text[64];

    nx_restart_describe(KILLED(SIGKILL), text, sizeof text);
    ck_assert_str_eq(text, "was ended by signal 9 (Killed)");
    nx_restart_describe(EXITED(2), text, sizeof text);
    ck_assert_str_eq(text, "exited with status 2");
    nx_restart_describe(KILLED(SIGSEGV), text, 8);
    ck_assert_uint_eq(strlen(text), 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("restart_policy");
    TCase *tcase = tcase_create("all");

    tcase_add_loop_test(tcase, a_first_death_is_answered_at_once, 0,
                        (int)(sizeof first_deaths / sizeof first_deaths[0]));
    tcase_add_test(tcase, short_lives_are_ever_longer_apart_up_to_a_bound);
    tcase_add_test(tcase, crashes_of_connections_are_ever_longer_apart_too);
    tcase_add_test(tcase, one_that_keeps_dying_in_startup_is_given_up);
    tcase_add_test(tcase, rare_deaths_in_startup_are_not);
    tcase_add_test(tcase, a_start_that_succeeds_forgets_the_ones_before);
    tcase_add_test(tcase, deaths_are_described);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
