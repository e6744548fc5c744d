/* A starting master asks who leads by now. */
#include "common/known_replicas.h"
#include "peers_fixture.h"
#include "storage/data_dir.h"

static const char *expect_fence(void)
{
    static char text[NX_CONTROL_TEXT];

    (void)snprintf(text, sizeof text, "%s", expect_message(NX_CONTROL_FENCE));
    ck_assert_int_eq(nx_control_send(channel, NX_CONTROL_DONE, 0, 0, NULL), 0);
    return text;
}

START_TEST(nobody_to_ask)
{
    atomic_store_explicit(&shm->log.epoch, 0, memory_order_release); /* not recovered */
    start_job(NX_PEERS_LOOK);
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
}
END_TEST

START_TEST(nobody_leads)
{
    struct node *replica = node_listen();

    ANSWERS(replica, status_answer("replica", "streaming", HIGH, 3, 100, ""));
    add_peer(replica->addr);
    add_peer(node_refusing()->addr);
    start_job(NX_PEERS_LOOK);
    expect_message(NX_CONTROL_LOOKED);
    expect_asked(replica, "GET /replication/status ", 1);
    expect_end();
}
END_TEST

START_TEST(another_master_leads)
{
    struct node *master = node_listen();
    char expected[512];

    ANSWERS(master, status_answer("master", "streaming", LOW, 4, 50, "10.0.0.1:15475"));
    add_peer(node_listen()->addr); /* it doesn't answer */
    add_peer(master->addr);
    start_job(NX_PEERS_LOOK);
    (void)snprintf(expected, sizeof expected, "4 " LOW " 10.0.0.1:15475 %s", master->addr);
    ck_assert_str_eq(expect_fence(), expected);
    expect_message(NX_CONTROL_LOOKED);
    ck_assert_uint_lt(nx_now_us() - job_began_us, 20000000);
    expect_end();
}
END_TEST

START_TEST(a_replica_that_was_here_knows_more)
{
    static struct nx_known_replica known = {.id = HIGH};
    struct node *replica = node_listen();

    ANSWERS(replica, status_answer("replica", "streaming", HIGH, 4, 100, ""));
    (void)snprintf(known.http_addr, sizeof known.http_addr, "%s", replica->addr);
    nx_known_replicas_publish(shm, &known, 1);
    add_peer(replica->addr); /* asked once all the same */
    start_job(NX_PEERS_LOOK);
    ck_assert_str_eq(expect_fence(), "4 00000000-0000-0000-0000-000000000000 - -");
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
    expect_asked(replica, "GET", 1);
    ck_assert_ptr_null(strstr(strstr(replica->asked, "GET") + 1, "GET"));
}
END_TEST

/* ---- a replica that was here, and is no peer ---- */

#define EPOCH(epoch, first, id) \
    "{\"epoch\": " epoch ", \"first_offset\": " first ", \"node_id\": \"" id "\", \"crc\": 9}"
#define OUR_EPOCH EPOCH("3", "40", OURS)

/* Our history is OUR_EPOCH alone. */
static void know_replica(const struct node *node)
{
    static struct nx_known_replica known = {.id = HIGH};
    static struct nx_epochs epochs;
    struct nx_epoch ours = {.epoch = 3, .first_offset = 40, .crc = 9};

    ck_assert_int_eq(nx_uuid_parse(OURS, ours.node_id), 0);
    epochs.count = 0;
    ck_assert_int_eq(nx_epochs_add(&epochs, &ours, NULL), 0);
    nx_epochs_publish(shm, &epochs);
    (void)snprintf(known.http_addr, sizeof known.http_addr, "%s", node->addr);
    nx_known_replicas_publish(shm, &known, 1);
}

START_TEST(a_replica_that_was_here_proves_that_it_leads)
{
    struct node *master = node_listen();
    char expected[512];

    ANSWERS(master,
            status_with_history("master", HIGH, 4, "[" OUR_EPOCH ", " EPOCH("4", "51", HIGH) "]"));
    know_replica(master);
    start_job(NX_PEERS_LOOK);
    (void)snprintf(expected, sizeof expected, "4 " HIGH " 127.0.0.1:15475 %s", master->addr);
    ck_assert_str_eq(expect_fence(), expected);
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
}
END_TEST

static const struct {
    const char *role;
    const char *id;
    uint64_t epoch;
    const char *epochs;
} unproven[] = {
    {"master", HIGH, 903, "[" OUR_EPOCH "]"},
    {"master", HIGH, 903, "null"},
    {"master", HIGH, 4, "[" EPOCH("3", "41", OURS) ", " EPOCH("4", "51", HIGH) "]"},
    {"replica", HIGH, 4, "[" OUR_EPOCH "]"},
    {"master", OURS, 3, "[" OUR_EPOCH "]"},
    {"master", OURS, 903, "[" OUR_EPOCH "]"},
};

START_TEST(what_is_not_proven_keeps_nobody_from_starting)
{
    struct node *stranger = node_listen();

    ANSWERS(stranger, status_with_history(unproven[_i].role, unproven[_i].id, unproven[_i].epoch,
                                          unproven[_i].epochs));
    know_replica(stranger);
    start_job(NX_PEERS_LOOK);
    expect_message(NX_CONTROL_LOOKED);
    expect_asked(stranger, "GET", 1);
    expect_end();
}
END_TEST

START_TEST(a_peer_with_our_own_id)
{
    struct node *copy = node_listen();

    ANSWERS(copy, status_answer("master", "streaming", OURS, 3, 100, ""));
    add_peer(copy->addr);
    start_job(NX_PEERS_LOOK);
    ck_assert_ptr_nonnull(strstr(expect_message(NX_CONTROL_FATAL), copy->addr));
    expect_end();
}
END_TEST

START_TEST(a_peer_with_our_own_id_in_another_cluster)
{
    struct node *copy = node_listen();

    (void)snprintf(shm->control.cluster_id, NX_UUID_TEXT, OTHER);
    ANSWERS(copy, status_answer("master", "streaming", OURS, 3, 100, ""));
    add_peer(copy->addr);
    start_job(NX_PEERS_LOOK);
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
}
END_TEST

START_TEST(it_waits_for_recovery)
{
    struct node *master = node_listen();
    struct pollfd pollfd = {.fd = channel, .events = POLLIN};
    struct nx_control_message message;

    atomic_store_explicit(&shm->log.epoch, 0, memory_order_release);
    ANSWERS(master, status_answer("master", "streaming", LOW, 4, 50, ""));
    add_peer(master->addr);
    start_job(NX_PEERS_LOOK);
    expect_asked(master, "GET", 1);
    ck_assert_int_eq(poll(&pollfd, 1, WAIT_MS), 1);
    ck_assert_int_eq(nx_control_receive(channel, &message), 0);
    ck_assert_uint_eq(message.type, NX_CONTROL_READY);
    ck_assert_int_eq(poll(&pollfd, 1, 100), 0);
    atomic_store_explicit(&shm->log.epoch, 4, memory_order_release); /* its id is the lower one */
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
}
END_TEST

static const char *const nonsense[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 No\r\n\r\n",
    "SSH-2.0-OpenSSH\r\n",
    "\r\n\r\n\r\n",
    "",
};

START_TEST(what_is_no_answer)
{
    struct node *stranger = node_listen();

    ANSWERS(stranger, nonsense[_i]);
    add_peer(stranger->addr);
    start_job(NX_PEERS_LOOK);
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
}
END_TEST

START_TEST(an_answer_without_an_end)
{
    static char endless[1 << 20];
    struct node *stranger = node_listen();
    size_t used = (size_t)snprintf(endless, sizeof endless, "HTTP/1.1 200 OK\r\n\r\n");

    memset(endless + used, ' ', sizeof endless - 1 - used);
    ANSWERS(stranger, endless);
    add_peer(stranger->addr);
    start_job(NX_PEERS_LOOK);
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
}
END_TEST

START_TEST(by_a_name)
{
    struct node *master = node_listen();
    char addr[64];

    ANSWERS(master, status_answer("master", "streaming", LOW, 4, 50, ":15475"));
    (void)snprintf(addr, sizeof addr, "localhost%s", strchr(master->addr, ':'));
    add_peer(addr);
    add_peer("no-such-host.invalid:15474");
    start_job(NX_PEERS_LOOK);
    ck_assert_ptr_nonnull(strstr(expect_fence(), "4 " LOW " localhost:15475 localhost:"));
    expect_message(NX_CONTROL_LOOKED);
    expect_end();
}
END_TEST

START_TEST(a_stop_is_heard_at_once)
{
    add_peer(node_listen()->addr);
    if (_i == 1) {
        add_peer("no-such-host.invalid:15474");
    }
    start_job(NX_PEERS_LOOK);
    stop();
}
END_TEST

START_TEST(a_stop_while_it_waits_for_the_fence)
{
    struct node *master = node_listen();

    ANSWERS(master, status_answer("master", "streaming", LOW, 4, 50, ":15475"));
    add_peer(master->addr);
    start_job(NX_PEERS_LOOK);
    expect_message(NX_CONTROL_FENCE);
    ck_assert_int_eq(nx_control_send(channel, NX_CONTROL_STOP, 0, NX_STOP_FAST, NULL), 0);
    ck_assert_int_eq(waitpid(job, NULL, 0), job);
    job = 0;
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, nobody_to_ask);
    tcase_add_test(tests, nobody_leads);
    tcase_add_test(tests, another_master_leads);
    tcase_add_test(tests, a_replica_that_was_here_knows_more);
    tcase_add_test(tests, a_replica_that_was_here_proves_that_it_leads);
    tcase_add_loop_test(tests, what_is_not_proven_keeps_nobody_from_starting, 0,
                        (int)(sizeof unproven / sizeof unproven[0]));
    tcase_add_test(tests, a_peer_with_our_own_id);
    tcase_add_test(tests, a_peer_with_our_own_id_in_another_cluster);
    tcase_add_test(tests, it_waits_for_recovery);
    tcase_add_loop_test(tests, what_is_no_answer, 0, (int)(sizeof nonsense / sizeof nonsense[0]));
    tcase_add_test(tests, an_answer_without_an_end);
    tcase_add_test(tests, by_a_name);
    tcase_add_loop_test(tests, a_stop_is_heard_at_once, 0, 2);
    tcase_add_test(tests, a_stop_while_it_waits_for_the_fence);
}

int main(int argc, char **argv)
{
    return run_suite("peers_look", add, argc, argv);
}
