/* Looking at a snapshot job that other processes write: whole, or not at all. */
#include "common/process.h"
#include "common/snapshot_job.h"
#include "shm_fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define JOBS 20000

static const char id[] = "550e8400-e29b-41d4-a716-446655440003";

static void setup(void)
{
    shm_setup();
}

static void teardown(void)
{
    shm_teardown();
}

static void store(nx_atomic_u64 *field, uint64_t value)
{
    atomic_store_explicit(field, value, memory_order_relaxed);
}

static void set_stage(enum nx_snapshot_stage stage)
{
    atomic_store_explicit(&shm->snapshot.stage, stage, memory_order_release);
}

/* As the postmaster begins one. */
static void begin_job(uint64_t job)
{
    struct nx_snapshot_state *state = &shm->snapshot;

    set_stage(NX_SNAPSHOT_NONE);
    atomic_thread_fence(memory_order_release);
    memcpy(state->id, id, sizeof id);
    store(&state->wal_offset, 0);
    store(&state->written, 0);
    store(&state->job, job);
    set_stage(NX_SNAPSHOT_MERGING);
}

START_TEST(before_the_first_job_there_is_nothing_to_see)
{
    struct nx_snapshot_look look;

    ck_assert(!nx_snapshot_job_look(shm, &look));
    ck_assert_uint_eq(look.job, 0);
}
END_TEST

START_TEST(all_fields_are_seen)
{
    struct nx_snapshot_state *state = &shm->snapshot;
    struct nx_snapshot_look look;

    begin_job(7);
    store(&state->wal_offset, 1001);
    store(&state->epoch, 1002);
    atomic_store_explicit(&state->crc, 1003, memory_order_relaxed);
    store(&state->written, 1004);
    store(&state->total_size, 1005);
    atomic_store_explicit(&state->checksum, 1006, memory_order_relaxed);
    store(&state->keys_done, 1007);
    store(&state->keys_total, 1008);
    ck_assert(nx_snapshot_job_look(shm, &look));
    ck_assert_uint_eq(look.job, 7);
    ck_assert_str_eq(look.id, id);
    ck_assert_uint_eq(look.wal_offset, 1001);
    ck_assert_uint_eq(look.epoch, 1002);
    ck_assert_uint_eq(look.crc, 1003);
    ck_assert_uint_eq(look.written, 1004);
    ck_assert_uint_eq(look.total_size, 1005);
    ck_assert_uint_eq(look.checksum, 1006);
    ck_assert_uint_eq(look.keys_done, 1007);
    ck_assert_uint_eq(look.keys_total, 1008);
}
END_TEST

START_TEST(each_stage_but_none_is_seen)
{
    struct nx_snapshot_look look;

    begin_job(1);
    for (uint32_t stage = NX_SNAPSHOT_MERGING; stage <= NX_SNAPSHOT_FAILED; stage++) {
        set_stage((enum nx_snapshot_stage)stage);
        ck_assert(nx_snapshot_job_look(shm, &look));
        ck_assert_uint_eq(look.stage, stage);
    }
    set_stage(NX_SNAPSHOT_NONE);
    ck_assert(!nx_snapshot_job_look(shm, &look));
}
END_TEST

START_TEST(an_id_that_is_being_written_still_ends)
{
    struct nx_snapshot_look look;

    begin_job(1);
    memset(shm->snapshot.id, 'x', sizeof shm->snapshot.id);
    ck_assert(nx_snapshot_job_look(shm, &look));
    ck_assert_uint_eq(strlen(look.id), sizeof look.id - 1);
}
END_TEST

/* Job n is at offset n, at first not known, and has written n bytes. */
static void *run_jobs(void *arg)
{
    struct nx_snapshot_state *state = &shm->snapshot;

    (void)arg;
    for (uint64_t job = 1; job <= JOBS; job++) {
        begin_job(job);
        store(&state->wal_offset, job);
        set_stage(NX_SNAPSHOT_WRITING);
        atomic_store_explicit(&state->written, job, memory_order_release);
        set_stage(NX_SNAPSHOT_DONE);
    }
    return NULL;
}

START_TEST(no_look_mixes_two_jobs)
{
    struct nx_snapshot_look look = {.job = 0};
    uint64_t before = 0;
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, run_jobs, NULL), 0);
    while (look.job < JOBS || look.stage < NX_SNAPSHOT_DONE) {
        if (!nx_snapshot_job_look(shm, &look)) {
            continue;
        }
        ck_assert_uint_ge(look.job, before);
        ck_assert_uint_ne(look.stage, NX_SNAPSHOT_NONE);
        ck_assert(look.wal_offset == 0 || look.wal_offset == look.job);
        ck_assert(look.written == 0 || look.written == look.job);
        ck_assert(look.stage < NX_SNAPSHOT_WRITING || look.wal_offset == look.job);
        ck_assert(look.stage < NX_SNAPSHOT_DONE || look.written == look.job);
        before = look.job;
    }
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

static bool rung(unsigned slot)
{
    struct pollfd doorbell = {.fd = nx_latch_fd(slot), .events = POLLIN};

    return poll(&doorbell, 1, 0) == 1;
}

START_TEST(whoever_may_wait_for_a_job_is_woken)
{
    for (unsigned slot = 0; slot < NX_MAX_SLOTS; slot++) {
        nx_latch_prepare(shm, slot, NX_WAKE_NEVER);
    }
    nx_snapshot_job_ring(shm);
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        ck_assert(rung(nx_process_slot(NX_KIND_HTTP, i)));
    }
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        ck_assert(rung(nx_process_slot(NX_KIND_WALSENDER, i)));
    }
    ck_assert(!rung(nx_process_slot(NX_KIND_CHECKPOINTER, 0)));
    for (unsigned slot = 0; slot < NX_MAX_SLOTS; slot++) {
        nx_latch_cancel(shm, slot);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_job");
    TCase *tcase = tcase_create("looks");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, before_the_first_job_there_is_nothing_to_see);
    tcase_add_test(tcase, all_fields_are_seen);
    tcase_add_test(tcase, each_stage_but_none_is_seen);
    tcase_add_test(tcase, an_id_that_is_being_written_still_ends);
    tcase_add_test(tcase, no_look_mixes_two_jobs);
    tcase_add_test(tcase, whoever_may_wait_for_a_job_is_woken);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
