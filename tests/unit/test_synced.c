/* When a replica is synced, and when its last full sync is complete. */
#include "common/quorum.h"
#include "common/synced.h"
#include "shm_fixture.h"

static void set_log(uint64_t offset, uint64_t epoch)
{
    atomic_store_explicit(&shm->log.durable_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&shm->log.epoch, epoch, memory_order_relaxed);
}

/* A replica, of a cluster, whose data went to 30 of epoch 2 before a full sync gave it 14 of epoch 1. */
static void setup(void)
{
    shm_setup();
    atomic_store_explicit(&shm->control.role, NX_NODE_REPLICA, memory_order_relaxed);
    atomic_store_explicit(&shm->control.cluster_known, 1, memory_order_relaxed);
    atomic_store_explicit(&shm->control.replaced_offset, 30, memory_order_relaxed);
    atomic_store_explicit(&shm->control.replaced_epoch, 2, memory_order_relaxed);
    set_log(14, 1);
}

START_TEST(it_is_complete_when_the_log_is_that_far_again)
{
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 30);
    ck_assert_uint_eq(nx_sync_goal(shm).epoch, 2);
    ck_assert(nx_not_synced(shm));
    ck_assert(!nx_never_synced(shm));
    set_log(29, 2);
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 30);
    set_log(30, 2);
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 0);
    ck_assert(!nx_not_synced(shm));
}
END_TEST

START_TEST(a_later_epoch_has_left_that_history)
{
    set_log(23, 3);
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 0);
    ck_assert(!nx_not_synced(shm));
}
END_TEST

START_TEST(nobody_asks_for_more_than_the_master_has)
{
    atomic_store_explicit(&shm->receiver.welcome_offset, 20, memory_order_relaxed);
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 30); /* of one that isn't followed any more */
    atomic_store_explicit(&shm->receiver.master_known, 1, memory_order_relaxed);
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 20);
    set_log(20, 1);
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 0);
}
END_TEST

START_TEST(a_master_owes_nothing)
{
    atomic_store_explicit(&shm->control.role, NX_NODE_MASTER, memory_order_relaxed);
    ck_assert_uint_eq(nx_sync_goal(shm).offset, 0);
    ck_assert(!nx_not_synced(shm));
    ck_assert(!nx_shows_less(shm));
}
END_TEST

START_TEST(without_data_and_cluster_it_was_never_synced)
{
    atomic_store_explicit(&shm->control.replaced_offset, 0, memory_order_relaxed);
    set_log(0, 1);
    ck_assert(!nx_not_synced(shm)); /* it belongs to one, whose log is empty */
    atomic_store_explicit(&shm->control.cluster_known, 0, memory_order_relaxed);
    ck_assert(nx_never_synced(shm));
    ck_assert(nx_not_synced(shm));
}
END_TEST

START_TEST(it_shows_no_less_than_before)
{
    set_log(34, 3);
    ck_assert(!nx_shows_less(shm)); /* async: all that is durable */
    atomic_store_explicit(&shm->quorum.rule, NX_COMMIT_QUORUM, memory_order_relaxed);
    ck_assert(nx_shows_less(shm));
    nx_quorum_raise(shm, 29);
    ck_assert(nx_shows_less(shm));
    nx_quorum_raise(shm, 30);
    ck_assert(!nx_shows_less(shm));
}
END_TEST

START_TEST(what_a_later_epoch_has_left_is_not_shown_again)
{
    atomic_store_explicit(&shm->quorum.rule, NX_COMMIT_QUORUM, memory_order_relaxed);
    set_log(23, 3);
    nx_quorum_raise(shm, 22);
    ck_assert(nx_shows_less(shm));
    nx_quorum_raise(shm, 23);
    ck_assert(!nx_shows_less(shm));
}
END_TEST

/* Its master, of 25 entries, may have less when it comes back. */
START_TEST(one_that_began_with_nothing_shows_what_its_master_had)
{
    atomic_store_explicit(&shm->control.replaced_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&shm->quorum.rule, NX_COMMIT_QUORUM, memory_order_relaxed);
    atomic_store_explicit(&shm->receiver.first_offset, 25, memory_order_relaxed);
    atomic_store_explicit(&shm->receiver.welcome_offset, 25, memory_order_relaxed);
    set_log(25, 1);
    ck_assert(!nx_shows_less(shm));
    atomic_store_explicit(&shm->receiver.master_known, 1, memory_order_relaxed);
    ck_assert(!nx_never_synced(shm));
    ck_assert(nx_shows_less(shm));
    nx_quorum_raise(shm, 25);
    ck_assert(!nx_shows_less(shm));
    atomic_store_explicit(&shm->receiver.first_offset, 40, memory_order_relaxed);
    ck_assert(!nx_never_synced(shm));
    ck_assert(!nx_shows_less(shm));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("synced");
    TCase *tcase = tcase_create("synced");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, shm_teardown);
    tcase_add_test(tcase, it_is_complete_when_the_log_is_that_far_again);
    tcase_add_test(tcase, a_later_epoch_has_left_that_history);
    tcase_add_test(tcase, nobody_asks_for_more_than_the_master_has);
    tcase_add_test(tcase, a_master_owes_nothing);
    tcase_add_test(tcase, without_data_and_cluster_it_was_never_synced);
    tcase_add_test(tcase, it_shows_no_less_than_before);
    tcase_add_test(tcase, what_a_later_epoch_has_left_is_not_shown_again);
    tcase_add_test(tcase, one_that_began_with_nothing_shows_what_its_master_had);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
