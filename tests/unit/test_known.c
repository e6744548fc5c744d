/* What the postmaster does with known replicas: who comes, goes, is forgotten, and when the file is
 * written. No process is forked; the slots are written as walsenders do. */
#include "common/known_replicas.h"
#include "postmaster/postmaster.h"
#include "shm_fixture.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLUSTER "550e8400-e29b-41d4-a716-446655440000"
#define WEEK_MS (7ull * 24 * 3600 * 1000)

static char top[64];
static struct nx_postmaster pm;
static struct nx_known_replica seen[NX_MAX_REPLICAS]; /* what readers see */

static void open_directory(void)
{
    char error[512] = "";
    char path[128];

    (void)snprintf(path, sizeof path, "%s/data", top);
    ck_assert_msg(nx_data_dir_open(path, &pm.dir, error, sizeof error) == 0, "%s", error);
}

static void setup(void)
{
    struct nx_identity identity = {.cluster_id = CLUSTER};

    shm_setup();
    (void)snprintf(top, sizeof top, "/tmp/nexus-known-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    memset(&pm, 0, sizeof pm);
    pm.shm = shm;
    pm.config.replication.role = NX_ROLE_MASTER;
    open_directory();
    ck_assert_int_eq(nx_identity_store(&pm.dir, &identity), 0);
    nx_known_load(&pm);
}

static void teardown(void)
{
    nx_data_dir_close(&pm.dir);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, top), 0);
    shm_teardown();
}

/* The node's next start. */
static void restart(void)
{
    nx_data_dir_close(&pm.dir);
    memset(&pm.dir, 0, sizeof pm.dir);
    open_directory();
    nx_known_load(&pm);
    nx_known_publish(&pm);
}

static const char *id_of(unsigned n)
{
    static char id[NX_UUID_TEXT];

    (void)snprintf(id, sizeof id, "550e8400-e29b-41d4-a716-44665544%04x", n);
    return id;
}

static void come(unsigned sender, unsigned n, uint64_t ack)
{
    struct nx_replica_slot *slot = &shm->replicas[sender];

    (void)snprintf(slot->id, sizeof slot->id, "%s", id_of(n));
    (void)snprintf(slot->addr, sizeof slot->addr, "replica:%u", n + 1);
    atomic_store_explicit(&slot->ack_offset, ack, memory_order_relaxed);
    atomic_store_explicit(&slot->state, NX_REPLICA_CATCHING_UP, memory_order_release);
    nx_known_here(&pm, sender, id_of(n));
}

static void go(unsigned sender)
{
    nx_known_gone(&pm, sender);
    nx_shared_end_replica(&pm, sender);
}

/* As readers see it, or NULL. */
static const struct nx_known_replica *known(unsigned n)
{
    unsigned count = nx_known_replicas(shm, seen);

    for (unsigned i = 0; i < count; i++) {
        if (strcmp(seen[i].id, id_of(n)) == 0) {
            return &seen[i];
        }
    }
    return NULL;
}

static ino_t file(void)
{
    char path[NX_PATH_SIZE + 16];
    struct stat st;

    (void)snprintf(path, sizeof path, "%s/identity", pm.dir.root);
    ck_assert_int_eq(stat(path, &st), 0);
    return st.st_ino;
}

/* Stores what there is, however short the time since the last one. */
static void run(void)
{
    pm.known.write_due_ms = 0;
    nx_known_run_due(&pm);
    ck_assert(!pm.known.dirty);
}

START_TEST(one_that_comes_and_goes)
{
    const struct nx_known_replica *replica;

    come(3, 1, 5);
    replica = known(1);
    ck_assert(replica->connected);
    ck_assert_str_eq(replica->addr, "replica:2");
    ck_assert_str_eq(replica->http_addr, "");
    ck_assert_uint_eq(replica->last_ack_offset, 5);
    ck_assert_uint_le(nx_wall_ms() - replica->last_seen, 60000);
    atomic_store_explicit(&shm->replicas[3].ack_offset, 9, memory_order_release);
    go(3);
    replica = known(1);
    ck_assert(!replica->connected);
    ck_assert_uint_eq(replica->last_ack_offset, 9);
    ck_assert_str_eq(replica->addr, "replica:2");
    come(4, 1, 9);
    ck_assert(known(1)->connected);
    ck_assert_uint_eq(nx_known_replicas(shm, seen), 1);
}
END_TEST

START_TEST(a_connection_that_was_replaced_ends_nothing)
{
    come(3, 1, 5);
    come(4, 1, 6);
    go(3);
    ck_assert(known(1)->connected);
    ck_assert_uint_eq(known(1)->last_ack_offset, 6);
    go(4);
    ck_assert(!known(1)->connected);
}
END_TEST

START_TEST(a_walsender_without_a_replica_leaves_nothing)
{
    go(0);
    nx_known_here(&pm, 0, "no uuid");
    nx_known_here(&pm, 0, "");
    ck_assert_uint_eq(nx_known_replicas(shm, seen), 0);
    ck_assert_uint_eq(nx_known_due_ms(&pm), 0);
}
END_TEST

START_TEST(the_file_is_written_once_for_all_that_came)
{
    ino_t before = file();

    come(0, 0, 0);
    come(1, 1, 0);
    come(2, 2, 0);
    go(1);
    ck_assert_uint_eq(pm.dir.identity.replica_count, 0);
    run();
    ck_assert_uint_ne(file(), before);
    ck_assert_uint_eq(pm.dir.identity.replica_count, 3);
    before = file();
    atomic_store_explicit(&shm->replicas[0].ack_offset, 7, memory_order_release);
    nx_known_run_due(&pm);
    nx_known_end(&pm);
    ck_assert_uint_eq(file(), before);
}
END_TEST

START_TEST(writing_takes_a_small_part_of_the_time)
{
    come(0, 0, 0);
    run();
    pm.known.write_due_ms = nx_now_ms() + 60000;
    go(0);
    nx_known_run_due(&pm);
    ck_assert(pm.known.dirty);
    ck_assert_uint_eq(nx_known_due_ms(&pm), pm.known.write_due_ms);
    nx_known_end(&pm);
    ck_assert(!pm.known.dirty);
}
END_TEST

START_TEST(connected_ones_need_no_timer)
{
    come(0, 0, 0);
    run();
    ck_assert_uint_eq(nx_known_due_ms(&pm), 0);
    go(0);
    run();
    ck_assert_uint_gt(nx_known_due_ms(&pm), nx_now_ms() + WEEK_MS - 60000);
    ck_assert_uint_le(nx_known_due_ms(&pm), nx_now_ms() + WEEK_MS);
}
END_TEST

START_TEST(a_restart_brings_them_back)
{
    uint64_t last_seen;

    come(0, 0, 3);
    come(1, 1, 4);
    go(0);
    run();
    last_seen = known(0)->last_seen;
    atomic_store_explicit(&shm->replicas[1].ack_offset, 8, memory_order_release);
    come(2, 2, 0); /* something is to be written, and with it the acks of others */
    run();
    restart();
    ck_assert_uint_eq(nx_known_replicas(shm, seen), 3);
    ck_assert_uint_eq(known(0)->last_seen, last_seen);
    ck_assert_uint_eq(known(0)->last_ack_offset, 3);
    ck_assert_uint_eq(known(1)->last_ack_offset, 8);
    ck_assert(!known(0)->connected && !known(1)->connected && !known(2)->connected);
}
END_TEST

/* Puts one into the file. */
static void store_one(bool connected, uint64_t last_seen)
{
    static struct nx_identity identity;

    identity = (struct nx_identity){.cluster_id = CLUSTER, .replica_count = 1};
    identity.replicas[0].connected = connected;
    identity.replicas[0].last_seen = last_seen;
    (void)snprintf(identity.replicas[0].id, NX_UUID_TEXT, "%s", id_of(0));
    ck_assert_int_eq(nx_identity_store(&pm.dir, &identity), 0);
    restart();
}

START_TEST(a_week_without_it)
{
    uint64_t now = nx_wall_ms();

    store_one(false, now - WEEK_MS + 600000);
    nx_known_run_due(&pm);
    ck_assert_ptr_nonnull(known(0));
    ck_assert_uint_le(nx_known_due_ms(&pm), nx_now_ms() + 600000);
    ck_assert_uint_gt(nx_known_due_ms(&pm), nx_now_ms());
    store_one(false, now - WEEK_MS);
    ck_assert_uint_le(nx_known_due_ms(&pm), nx_now_ms());
    run();
    ck_assert_ptr_null(known(0));
    ck_assert_uint_eq(pm.dir.identity.replica_count, 0);
}
END_TEST

START_TEST(one_that_was_connected_as_the_node_was_killed)
{
    store_one(true, nx_wall_ms() - 10 * WEEK_MS);
    run();
    ck_assert_uint_le(nx_wall_ms() - known(0)->last_seen, 60000);
    ck_assert(!pm.dir.identity.replicas[0].connected);
}
END_TEST

/* _i: as the clock was set back by an hour, or by ages. */
START_TEST(one_seen_in_the_future)
{
    uint64_t then = _i == 0 ? nx_wall_ms() + 3600000 : UINT64_MAX;

    store_one(false, then);
    nx_known_run_due(&pm);
    ck_assert_uint_eq(known(0)->last_seen, then);
    ck_assert_uint_gt(nx_known_due_ms(&pm), nx_now_ms() + WEEK_MS - 60000);
    ck_assert_uint_le(nx_known_due_ms(&pm), nx_now_ms() + WEEK_MS);
}
END_TEST

START_TEST(forgetting_one)
{
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), -ENOENT);
    come(0, 0, 0);
    come(1, 1, 0);
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), -EBUSY);
    go(0);
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), 0);
    ck_assert_ptr_null(known(0));
    ck_assert_ptr_nonnull(known(1));
    ck_assert_uint_eq(pm.dir.identity.replica_count, 1);
    ck_assert(!pm.known.dirty);
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), -ENOENT);
    ck_assert_int_eq(nx_known_forget(&pm, ""), -ENOENT);
}
END_TEST

/* Its walsender has said that it is over and has not been reaped. */
START_TEST(forgetting_one_that_is_just_going)
{
    come(0, 0, 0);
    atomic_store_explicit(&shm->replicas[0].state, NX_REPLICA_NONE, memory_order_release);
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), 0);
    go(0);
    ck_assert_ptr_null(known(0));
    ck_assert_uint_eq(nx_known_due_ms(&pm), 0);
}
END_TEST

START_TEST(what_cannot_be_stored_is_not_forgotten)
{
    char blocked[NX_PATH_SIZE + 16];
    char root[NX_PATH_SIZE];

    come(0, 0, 0);
    go(0);
    run();
    (void)snprintf(blocked, sizeof blocked, "%s/identity.tmp", pm.dir.root);
    ck_assert_int_eq(mkdir(blocked, 0700), 0);
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), -EISDIR);
    ck_assert_ptr_nonnull(known(0));
    ck_assert_uint_gt(nx_known_due_ms(&pm), nx_now_ms()); /* tried again, not at once */
    ck_assert_uint_le(nx_known_due_ms(&pm), nx_now_ms() + 5000);
    ck_assert_int_eq(rmdir(blocked), 0);
    memcpy(root, pm.dir.root, sizeof root);
    (void)snprintf(pm.dir.root, sizeof pm.dir.root, "%s/gone", top);
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), -EIO);
    memcpy(pm.dir.root, root, sizeof root);
    run();
    ck_assert_int_eq(nx_known_forget(&pm, id_of(0)), 0);
}
END_TEST

START_TEST(beyond_the_most_the_one_seen_longest_ago_goes)
{
    for (unsigned i = 0; i < NX_MAX_REPLICAS; i++) {
        come(i, i, 0);
    }
    come(NX_MAX_REPLICAS, 1000, 0); /* all are connected */
    ck_assert_ptr_null(known(1000));
    go(7);
    go(5);
    for (unsigned i = 0; i < pm.known.count; i++) {
        if (strcmp(pm.known.list[i].id, id_of(5)) == 0) {
            pm.known.lives[i].forget_due_ms--; /* both may have gone in one millisecond */
        }
    }
    nx_known_here(&pm, NX_MAX_REPLICAS, id_of(1000));
    ck_assert(known(1000)->connected);
    ck_assert_ptr_null(known(5));
    ck_assert_ptr_nonnull(known(7));
    ck_assert_uint_eq(nx_known_replicas(shm, seen), NX_MAX_REPLICAS);
    come(5, 1001, 0);
    ck_assert_ptr_null(known(7));
    run();
    restart();
    ck_assert_uint_eq(nx_known_replicas(shm, seen), NX_MAX_REPLICAS);
}
END_TEST

START_TEST(off_a_master_the_file_keeps_them)
{
    come(0, 0, 0);
    go(0);
    run();
    pm.config.replication.role = NX_ROLE_REPLICA;
    restart();
    come(0, 1, 0);
    go(0);
    nx_known_run_due(&pm);
    nx_known_end(&pm);
    ck_assert_uint_eq(nx_known_replicas(shm, seen), 0);
    ck_assert_uint_eq(nx_known_due_ms(&pm), 0);
    pm.config.replication.role = NX_ROLE_MASTER;
    restart();
    ck_assert_ptr_nonnull(known(0));
    ck_assert_ptr_null(known(1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("known");
    TCase *tcase = tcase_create("postmaster");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, one_that_comes_and_goes);
    tcase_add_test(tcase, a_connection_that_was_replaced_ends_nothing);
    tcase_add_test(tcase, a_walsender_without_a_replica_leaves_nothing);
    tcase_add_test(tcase, the_file_is_written_once_for_all_that_came);
    tcase_add_test(tcase, writing_takes_a_small_part_of_the_time);
    tcase_add_test(tcase, connected_ones_need_no_timer);
    tcase_add_test(tcase, a_restart_brings_them_back);
    tcase_add_test(tcase, a_week_without_it);
    tcase_add_test(tcase, one_that_was_connected_as_the_node_was_killed);
    tcase_add_loop_test(tcase, one_seen_in_the_future, 0, 2);
    tcase_add_test(tcase, forgetting_one);
    tcase_add_test(tcase, forgetting_one_that_is_just_going);
    tcase_add_test(tcase, what_cannot_be_stored_is_not_forgotten);
    tcase_add_test(tcase, beyond_the_most_the_one_seen_longest_ago_goes);
    tcase_add_test(tcase, off_a_master_the_file_keeps_them);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
