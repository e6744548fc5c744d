/* When a replica is synced, and when its last full sync is complete. */
#include "common/epochs.h"
#include "common/quorum.h"
#include "common/synced.h"
#include "shm_fixture.h"

static void set_log(uint64_t offset, uint64_t epoch)
{
    atomic_store_explicit(&shm->log.durable_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&shm->log.epoch, epoch, memory_order_relaxed);
}

/* Of these epochs, the first from entry 1 on. */
static void set_history(uint64_t epoch, uint64_t later, uint64_t first_of_later)
{
    static struct nx_epochs epochs;
    struct nx_epoch list[] = {{.epoch = epoch, .first_offset = 1},
                              {.epoch = later, .first_offset = first_of_later}};

    epochs.count = 0;
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(nx_epochs_add(&epochs, &list[i], NULL), 0);
    }
    nx_epochs_publish(shm, &epochs);
}

static void set_goal(uint64_t offset, uint64_t shown, uint64_t epoch)
{
    struct nx_sync_goal goal = {
        .offset = offset, .epoch = epoch, .shown = shown, .shown_epoch = epoch};

    nx_sync_goal_publish(&shm->control.goal, &goal);
}

static void set_quorum(uint64_t offset)
{
    atomic_store_explicit(&shm->quorum.rule, NX_COMMIT_QUORUM, memory_order_relaxed);
    nx_quorum_raise(shm, offset);
}

static void set_master(uint64_t offset)
{
    atomic_store_explicit(&shm->receiver.welcome_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&shm->receiver.master_known, 1, memory_order_relaxed);
}

static void assert_owes(uint64_t offset, uint64_t shown)
{
    struct nx_sync_goal goal = nx_sync_goal(shm);

    ck_assert_uint_eq(goal.offset, offset);
    ck_assert_uint_eq(goal.shown, shown);
    ck_assert(nx_not_synced(shm) == (offset != 0));
    ck_assert(!nx_never_synced(shm));
}

/* A replica, of a cluster, whose data went to 30 of epoch 2, of which readers had seen 27, before a full sync gave it 14
 * of epoch 1. */
static void setup(void)
{
    shm_setup();
    atomic_store_explicit(&shm->control.role, NX_NODE_REPLICA, memory_order_relaxed);
    atomic_store_explicit(&shm->control.cluster_known, 1, memory_order_relaxed);
    set_goal(30, 27, 2);
    set_log(14, 1);
}

START_TEST(it_is_complete_when_the_log_is_that_far_again)
{
    assert_owes(30, 27);
    ck_assert_uint_eq(nx_sync_goal(shm).epoch, 2);
    set_log(27, 2);
    assert_owes(30, 0); /* async: what is durable is shown */
    set_log(29, 2);
    assert_owes(30, 0);
    set_log(30, 2);
    assert_owes(0, 0);
}
END_TEST

START_TEST(in_sync_mode_it_shows_no_less_than_before)
{
    set_quorum(0);
    set_log(34, 2);
    assert_owes(0, 27);
    set_quorum(26);
    assert_owes(0, 27);
    set_quorum(27);
    assert_owes(0, 0);
}
END_TEST

START_TEST(a_later_epoch_has_left_that_history)
{
    set_quorum(0);
    set_history(1, 3, 21);
    set_log(23, 3);
    assert_owes(0, 20); /* what is left of it stays owed to readers */
    set_quorum(20);
    assert_owes(0, 0);
}
END_TEST

START_TEST(a_later_epoch_goes_on_with_all_of_it)
{
    set_quorum(0);
    set_history(2, 3, 31);
    set_log(31, 3);
    assert_owes(0, 27);
}
END_TEST

START_TEST(nobody_asks_for_more_than_the_master_has)
{
    atomic_store_explicit(&shm->receiver.welcome_offset, 20, memory_order_relaxed);
    assert_owes(30, 27); /* of one that isn't followed any more */
    set_master(20);
    assert_owes(20, 20);
    set_log(20, 1);
    assert_owes(0, 0);
}
END_TEST

START_TEST(a_master_owes_nothing)
{
    atomic_store_explicit(&shm->control.role, NX_NODE_MASTER, memory_order_relaxed);
    assert_owes(0, 0);
}
END_TEST

START_TEST(without_data_and_cluster_it_was_never_synced)
{
    set_goal(0, 0, 0);
    set_log(0, 1);
    assert_owes(0, 0); /* it belongs to one, whose log is empty */
    atomic_store_explicit(&shm->control.cluster_known, 0, memory_order_relaxed);
    ck_assert(nx_never_synced(shm));
    ck_assert(nx_not_synced(shm));
}
END_TEST

/* Whether its log came whole, or a part of it by a full sync; also after a restart, without a master. */
START_TEST(one_that_began_with_nothing_needs_what_its_master_had)
{
    set_goal(_i == 0 ? 0 : 10, 25, 1);
    set_quorum(0);
    set_log(24, 1);
    ck_assert(nx_never_synced(shm));
    ck_assert(nx_not_synced(shm));
    ck_assert_uint_eq(nx_sync_goal(shm).shown, 25);
    set_log(25, 1);
    assert_owes(0, 25);
    set_quorum(25);
    assert_owes(0, 0);
    set_goal(0, 40, 1);
    ck_assert(nx_never_synced(shm));
    set_master(25); /* another one, of less */
    assert_owes(0, 0);
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
    tcase_add_test(tcase, in_sync_mode_it_shows_no_less_than_before);
    tcase_add_test(tcase, a_later_epoch_has_left_that_history);
    tcase_add_test(tcase, a_later_epoch_goes_on_with_all_of_it);
    tcase_add_test(tcase, nobody_asks_for_more_than_the_master_has);
    tcase_add_test(tcase, a_master_owes_nothing);
    tcase_add_test(tcase, without_data_and_cluster_it_was_never_synced);
    tcase_add_loop_test(tcase, one_that_began_with_nothing_needs_what_its_master_had, 0, 2);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
