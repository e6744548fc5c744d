/* What counts towards the quorum, and what readers may see because of it. */
#include "common/latch.h"
#include "common/quorum.h"
#include "shm_fixture.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_MS 60000

static struct nx_replica_views views;

/* Puts a streaming replica that was just heard into a slot. */
static struct nx_replica_slot *connect_replica(unsigned slot, const char *id, uint64_t ack)
{
    static uint64_t sessions;
    struct nx_replica_slot *replica = &shm->replicas[slot];

    (void)snprintf(replica->id, sizeof replica->id, "%s", id);
    atomic_store_explicit(&replica->heard_ms, nx_now_ms(), memory_order_relaxed);
    atomic_store_explicit(&replica->ack_offset, ack, memory_order_relaxed);
    atomic_store_explicit(&replica->session, ++sessions, memory_order_relaxed);
    atomic_store_explicit(&replica->state, NX_REPLICA_STREAMING, memory_order_relaxed);
    return replica;
}

static uint64_t quorum_offset(unsigned quorum)
{
    nx_replicas_look(shm, LIMIT_MS, &views);
    return nx_replicas_quorum_offset(&views, quorum);
}

static void set_state(uint32_t role, uint32_t rule, uint64_t durable, uint64_t quorum)
{
    atomic_store_explicit(&shm->control.role, role, memory_order_relaxed);
    atomic_store_explicit(&shm->quorum.rule, rule, memory_order_relaxed);
    atomic_store_explicit(&shm->log.durable_offset, durable, memory_order_relaxed);
    atomic_store_explicit(&shm->quorum.offset, quorum, memory_order_relaxed);
}

START_TEST(the_quorum_has_what_its_slowest_member_has)
{
    ck_assert_uint_eq(quorum_offset(1), 0);
    connect_replica(3, "a", 10);
    connect_replica(0, "b", 30);
    connect_replica(100, "c", 20);
    ck_assert_uint_eq(quorum_offset(1), 30);
    ck_assert_uint_eq(quorum_offset(2), 20);
    ck_assert_uint_eq(quorum_offset(3), 10);
    ck_assert_uint_eq(quorum_offset(4), 0);
    ck_assert_uint_eq(quorum_offset(0), 0);
    ck_assert_uint_eq(nx_replicas_counting(&views), 3);
    ck_assert_uint_eq(nx_replicas_with(&views, 20), 2);
    ck_assert(nx_replicas_all_have(&views, 10));
    ck_assert(!nx_replicas_all_have(&views, 11));
}
END_TEST

START_TEST(a_replica_counts_once_by_its_newest_session)
{
    connect_replica(5, "a", 100);
    connect_replica(2, "a", 40); /* it came again, with less */
    ck_assert_uint_eq(quorum_offset(1), 40);
    ck_assert_uint_eq(quorum_offset(2), 0);
    connect_replica(7, "b", 50);
    ck_assert_uint_eq(quorum_offset(2), 40);
    ck_assert_uint_eq(views.count, 2);
}
END_TEST

START_TEST(only_healthy_streaming_replicas_count)
{
    struct nx_replica_slot *a = connect_replica(0, "a", 10);
    struct nx_replica_slot *b = connect_replica(1, "b", 10);

    ck_assert_uint_eq(quorum_offset(2), 10);
    atomic_store_explicit(&a->state, NX_REPLICA_CATCHING_UP, memory_order_relaxed);
    ck_assert_uint_eq(quorum_offset(2), 0);
    atomic_store_explicit(&a->state, NX_REPLICA_SNAPSHOT, memory_order_relaxed);
    ck_assert_uint_eq(quorum_offset(2), 0);
    ck_assert_uint_eq(views.count, 2);
    ck_assert_uint_eq(nx_replicas_counting(&views), 1);
    atomic_store_explicit(&a->state, NX_REPLICA_STREAMING, memory_order_relaxed);
    atomic_store_explicit(&b->heard_ms, nx_now_ms() - LIMIT_MS - 1000, memory_order_relaxed);
    ck_assert_uint_eq(quorum_offset(2), 0);
    ck_assert_uint_eq(quorum_offset(1), 10);
    ck_assert(nx_replicas_all_have(&views, 10)); /* b is none that could be waited for */
}
END_TEST

START_TEST(an_ended_session_is_not_seen)
{
    struct nx_replica_slot *a = connect_replica(0, "a", 10);

    atomic_store_explicit(&a->session, 0, memory_order_relaxed);
    ck_assert_uint_eq(quorum_offset(1), 0);
    ck_assert_uint_eq(views.count, 0);
}
END_TEST

START_TEST(a_confirmation_is_as_old_as_the_oldest_answer_needed)
{
    const char *ids[] = {"a", "b", "c"};

    for (unsigned i = 0; i < 3; i++) {
        atomic_store_explicit(&connect_replica(i, ids[i], 1)->confirmed_us, UINT64_C(100) * (i + 1),
                              memory_order_relaxed);
    }
    nx_replicas_look(shm, LIMIT_MS, &views);
    ck_assert_uint_eq(nx_replicas_confirmed_us(&views, 1), 300);
    ck_assert_uint_eq(nx_replicas_confirmed_us(&views, 2), 200);
    ck_assert_uint_eq(nx_replicas_confirmed_us(&views, 4), 0);
}
END_TEST

START_TEST(all_places_can_be_taken)
{
    char id[16];

    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        (void)snprintf(id, sizeof id, "r%u", i);
        connect_replica(i, id, 1000 + i);
    }
    ck_assert_uint_eq(quorum_offset(1), 1000 + NX_MAX_WALSENDERS - 1);
    ck_assert_uint_eq(quorum_offset(NX_MAX_REPLICAS), 1000 + NX_SPARE_WALSENDERS);
    ck_assert_uint_eq(quorum_offset(NX_MAX_WALSENDERS), 1000);
}
END_TEST

START_TEST(the_offset_only_rises)
{
    nx_quorum_raise(shm, 10);
    nx_quorum_raise(shm, 5);
    ck_assert_uint_eq(nx_quorum_offset(shm), 10);
    nx_quorum_hear(shm, NX_COMMIT_QUORUM, 0, 7);
    ck_assert_uint_eq(nx_quorum_offset(shm), 10);
    nx_quorum_raise(shm, 11);
    ck_assert_uint_eq(nx_quorum_offset(shm), 11);
}
END_TEST

START_TEST(another_epochs_offset_is_of_another_history)
{
    nx_quorum_hear(shm, NX_COMMIT_QUORUM, 1, 100);
    nx_quorum_hear(shm, NX_COMMIT_QUORUM, 2, 96);
    ck_assert_uint_eq(nx_quorum_offset(shm), 96);
    nx_quorum_hear(shm, NX_COMMIT_QUORUM, 2, 95);
    ck_assert_uint_eq(nx_quorum_offset(shm), 96);
}
END_TEST

START_TEST(committed_is_what_the_mode_says)
{
    set_state(NX_NODE_MASTER, NX_COMMIT_DURABLE, 50, 20);
    ck_assert_uint_eq(nx_committed_offset(shm), 50);
    set_state(NX_NODE_MASTER, NX_COMMIT_QUORUM, 50, 20);
    ck_assert_uint_eq(nx_committed_offset(shm), 20);
    set_state(NX_NODE_REPLICA, NX_COMMIT_QUORUM, 50, 80); /* the others are further */
    ck_assert_uint_eq(nx_committed_offset(shm), 50);
}
END_TEST

START_TEST(a_replica_starts_with_its_state_but_not_with_what_it_had_to_merge)
{
    set_state(NX_NODE_REPLICA, NX_COMMIT_QUORUM, 50, 0);
    atomic_store_explicit(&shm->log.committed_base, 30, memory_order_relaxed);
    ck_assert_uint_eq(nx_committed_offset(shm), 30);
    atomic_store_explicit(&shm->checkpoint.unconfirmed_offset, 40, memory_order_relaxed);
    ck_assert_uint_eq(nx_committed_offset(shm), 0);
    nx_quorum_raise(shm, 40);
    ck_assert_uint_eq(nx_committed_offset(shm), 40);
    /* A master has nobody's word for its state but its replicas'. */
    set_state(NX_NODE_MASTER, NX_COMMIT_QUORUM, 50, 0);
    ck_assert_uint_eq(nx_committed_offset(shm), 0);
}
END_TEST

START_TEST(a_sync_master_is_confirmed_when_the_quorum_has_what_it_found)
{
    set_state(NX_NODE_MASTER, NX_COMMIT_QUORUM, 50, 30);
    atomic_store_explicit(&shm->log.recovered_offset, 40, memory_order_relaxed);
    ck_assert(!nx_quorum_confirmed(shm));
    nx_quorum_raise(shm, 40);
    ck_assert(nx_quorum_confirmed(shm));
    set_state(NX_NODE_MASTER, NX_COMMIT_DURABLE, 50, 0);
    ck_assert(nx_quorum_confirmed(shm));
    set_state(NX_NODE_REPLICA, NX_COMMIT_QUORUM, 50, 0);
    ck_assert(nx_quorum_confirmed(shm));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quorum");
    TCase *tcase = tcase_create("quorum");
    SRunner *runner = srunner_create(suite);

    tcase_add_checked_fixture(tcase, shm_setup, shm_teardown);
    tcase_add_test(tcase, the_quorum_has_what_its_slowest_member_has);
    tcase_add_test(tcase, a_replica_counts_once_by_its_newest_session);
    tcase_add_test(tcase, only_healthy_streaming_replicas_count);
    tcase_add_test(tcase, an_ended_session_is_not_seen);
    tcase_add_test(tcase, a_confirmation_is_as_old_as_the_oldest_answer_needed);
    tcase_add_test(tcase, all_places_can_be_taken);
    tcase_add_test(tcase, the_offset_only_rises);
    tcase_add_test(tcase, another_epochs_offset_is_of_another_history);
    tcase_add_test(tcase, committed_is_what_the_mode_says);
    tcase_add_test(tcase, a_replica_starts_with_its_state_but_not_with_what_it_had_to_merge);
    tcase_add_test(tcase, a_sync_master_is_confirmed_when_the_quorum_has_what_it_found);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
