/* The table of known replicas: one moment of it, whoever changes it meanwhile. */
#include "common/known_replicas.h"
#include "shm_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANGES 3000

static struct nx_known_replica list[NX_MAX_REPLICAS];
static struct nx_known_replica copy[NX_MAX_REPLICAS];

static void setup(void)
{
    shm_setup();
}

static void teardown(void)
{
    shm_teardown();
}

/* `count` replicas that all bear the same number. */
static void fill(struct nx_known_replica *to, unsigned count, unsigned number)
{
    for (unsigned i = 0; i < count; i++) {
        to[i].last_seen = number;
        to[i].last_ack_offset = number;
        (void)snprintf(to[i].id, sizeof to[i].id, "%u", number);
        (void)snprintf(to[i].addr, sizeof to[i].addr, "%u", number);
        (void)snprintf(to[i].http_addr, sizeof to[i].http_addr, "%u", number);
    }
}

START_TEST(at_first_nobody_is_known)
{
    ck_assert_uint_eq(nx_known_replicas(shm, copy), 0);
}
END_TEST

START_TEST(all_of_them_are_copied)
{
    for (unsigned count = 0; count <= NX_MAX_REPLICAS; count++) {
        fill(list, count, count + 1000);
        nx_known_replicas_publish(shm, list, count);
        memset(copy, 0, sizeof copy);
        ck_assert_uint_eq(nx_known_replicas(shm, copy), count);
        for (unsigned i = 0; i < count; i++) {
            ck_assert_mem_eq(&copy[i], &list[i], sizeof copy[i]);
        }
    }
    nx_known_replicas_publish(shm, list, 1);
    ck_assert_uint_eq(nx_known_replicas(shm, copy), 1);
}
END_TEST

/* Its writer was stopped in the middle, or the table is nonsense: a reader gives up in the end. */
START_TEST(nobody_waits_for_ever)
{
    fill(list, 2, 1);
    nx_known_replicas_publish(shm, list, 2);
    atomic_fetch_add_explicit(&shm->known.version, 1, memory_order_relaxed);
    ck_assert_uint_eq(nx_known_replicas(shm, copy), 0);
    atomic_fetch_add_explicit(&shm->known.version, 1, memory_order_relaxed);
    ck_assert_uint_eq(nx_known_replicas(shm, copy), 2);
    atomic_store_explicit(&shm->known.count, NX_MAX_REPLICAS + 1, memory_order_relaxed);
    ck_assert_uint_eq(nx_known_replicas(shm, copy), 0);
}
END_TEST

/* Number n has (n % 5) * 30 replicas. */
static unsigned count_of(unsigned number)
{
    return number % 5 * 30;
}

static void *change(void *arg)
{
    (void)arg;
    for (unsigned number = 1; number <= CHANGES; number++) {
        fill(list, count_of(number), number);
        nx_known_replicas_publish(shm, list, count_of(number));
    }
    fill(list, 1, CHANGES + 1);
    nx_known_replicas_publish(shm, list, 1);
    return NULL;
}

START_TEST(no_copy_mixes_two_moments)
{
    uint64_t number = 0;
    uint64_t before = 0;
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, change, NULL), 0);
    while (number <= CHANGES) {
        unsigned count = nx_known_replicas(shm, copy);
        char text[NX_UUID_TEXT];

        if (count == 0) {
            continue;
        }
        number = copy[0].last_seen;
        (void)snprintf(text, sizeof text, "%u", (unsigned)number);
        ck_assert_uint_ge(number, before);
        ck_assert_uint_eq(count, number > CHANGES ? 1 : count_of((unsigned)number));
        for (unsigned i = 0; i < count; i++) {
            ck_assert_uint_eq(copy[i].last_ack_offset, number);
            ck_assert_str_eq(copy[i].id, text);
            ck_assert_str_eq(copy[i].addr, text);
            ck_assert_str_eq(copy[i].http_addr, text);
        }
        before = number;
    }
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("known_replicas");
    TCase *tcase = tcase_create("table");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, at_first_nobody_is_known);
    tcase_add_test(tcase, all_of_them_are_copied);
    tcase_add_test(tcase, nobody_waits_for_ever);
    tcase_add_test(tcase, no_copy_mixes_two_moments);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
