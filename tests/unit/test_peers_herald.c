/* A promoted master tells the others, until each has heard. */
#include "common/epochs.h"
#include "common/fence.h"
#include "peers_fixture.h"

#include <uuid.h>

/* This node was promoted at entry 100: epoch 3 is its own. */
static void setup_epoch(void)
{
    static struct nx_epochs epochs;
    struct nx_epoch epoch = {.epoch = 3, .first_offset = 100};
    uint8_t claim[NX_CLAIM_SIZE];
    uuid_t id;

    ck_assert_int_eq(uuid_parse(OURS, id), 0);
    memcpy(epoch.node_id, id, sizeof epoch.node_id);
    memset(claim, 0x33, sizeof claim);
    epochs = (struct nx_epochs){.count = 0};
    ck_assert_int_eq(nx_epochs_add(&epochs, &epoch, claim), 0);
    nx_epochs_publish(shm, &epochs);
    config.replication.heartbeat_ms = 50;
}

/* ---- replication ports ---- */

static const char *hello_line(const struct nx_msg_hello *hello)
{
    static char line[512];
    struct nx_epochs *epochs = malloc(sizeof *epochs);

    ck_assert_ptr_nonnull(epochs);
    ck_assert_int_eq(nx_epochs_decode(hello->epochs, epochs), 0);
    (void)snprintf(line, sizeof line, "hello %.36s %llu %llu %u %.36s %u epochs %zu claim\n",
                   (const char *)hello->replica_id.data, (unsigned long long)hello->last_wal_offset,
                   (unsigned long long)hello->last_epoch, hello->last_crc,
                   (const char *)hello->cluster_id.data, epochs->count, hello->claim.length);
    free(epochs);
    return line;
}

/* One connection: a Hello is heard, and answered with these bytes. */
static void serve_call(int fd, int pipe_fd, const uint8_t *answer, size_t length)
{
    static uint8_t bytes[128 << 10];
    struct nx_msg_hello hello;
    struct nx_frame frame;
    const char *line;
    size_t used = 0;
    ssize_t n;

    while ((n = recv(fd, bytes + used, sizeof bytes - used, 0)) > 0) {
        used += (size_t)n;
        if (nx_frame_peek(bytes, used, NX_WIRE_REPLICA, NX_WIRE_HANDSHAKE, &frame) == 0 &&
            nx_wire_decode_hello(frame.payload, frame.payload_length, &hello) == 0) {
            line = hello_line(&hello);
            ck_assert_int_gt(write(pipe_fd, line, strlen(line)), 0);
            send_all(fd, answer, length);
            used = 0;
        }
    }
    close(fd);
}

static void serve_wire(struct node *node, const uint8_t *answer, size_t length)
{
    int pipe_fd;

    if (node_fork(node, &pipe_fd)) {
        for (;;) {
            serve_call(accept(node->listener, NULL, NULL), pipe_fd, answer, length);
        }
    }
}

static void serve_error(struct node *node, uint32_t code)
{
    struct nx_msg_error error = {.code = code, .message = nx_slice_text("for a test")};
    uint8_t bytes[512];
    size_t length;

    ck_assert_int_eq(nx_wire_encode_error(&error, bytes, sizeof bytes, &length), 0);
    serve_wire(node, bytes, length);
}

static void serve_welcome(struct node *node, const char *id, const char *cluster, uint64_t epoch)
{
    struct nx_msg_welcome welcome = {
        .master_id = nx_slice_text(id),
        .cluster_id = nx_slice_text(cluster),
        .epoch = epoch,
        .http_addr = nx_slice_text(":15474"),
    };
    uint8_t bytes[512];
    size_t length;

    ck_assert_int_eq(nx_wire_encode_welcome(&welcome, bytes, sizeof bytes, &length), 0);
    serve_wire(node, bytes, length);
}

static void former(const struct node *node)
{
    (void)snprintf(process.peers.master_addr, NX_ADDR_TEXT, "%s", node->addr);
}

/* What a Hello of this node has in it. */
static const char *hello_text(void)
{
    static char line[256];

    (void)snprintf(line, sizeof line, "hello " OURS " 100 3 7 " CLUSTER " 1 epochs %zu claim\n",
                   (size_t)NX_CLAIM_SIZE);
    return line;
}

/* The postmaster stores the fence; the herald ends. */
static void expect_fenced(const char *text)
{
    static struct nx_fence fence = {.epoch = 4};

    ck_assert_str_eq(expect_message(NX_CONTROL_FENCE), text);
    nx_fence_publish(shm, &fence, true);
    ck_assert_int_eq(nx_control_send(channel, NX_CONTROL_DONE, 0, 0, NULL), 0);
    expect_end();
}

/* ---- tests ---- */

START_TEST(nobody_to_tell)
{
    start_job(NX_PEERS_HERALD);
    expect_end();
}
END_TEST

/* _i: the Error that ends it: fenced, or not a master. */
START_TEST(the_former_master_hears_it)
{
    struct node *master = node_listen();

    serve_error(master, _i == 0 ? NX_WIRE_ERROR_FENCED : NX_WIRE_ERROR_NOT_A_MASTER);
    former(master);
    start_job(NX_PEERS_HERALD);
    expect_asked(master, hello_text(), 1);
    expect_end();
}
END_TEST

/* _i: what it says instead of giving way. */
START_TEST(a_former_master_that_does_not_listen_is_told_again)
{
    struct node *master = node_listen();

    switch (_i) {
    case 0:
        serve_error(master, NX_WIRE_ERROR_INTERNAL);
        break;
    case 1:
        serve_welcome(master, HIGH, CLUSTER, 2);
        break;
    case 2:
        serve_welcome(master, LOW, CLUSTER, 3); /* of two equal epochs the lower id gives way */
        break;
    case 3:
        serve_welcome(master, HIGH, OTHER, 4);
        break;
    case 4:
        serve_welcome(master, HIGH, CLUSTER, 1004);
        break;
    default:
        serve_wire(master, (const uint8_t *)"HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        break;
    }
    former(master);
    start_job(NX_PEERS_HERALD);
    expect_asked(master, hello_text(), 3);
    stop();
}
END_TEST

START_TEST(a_former_master_that_comes_back)
{
    struct node *master = node_refusing();

    former(master);
    start_job(NX_PEERS_HERALD);
    (void)poll(NULL, 0, 120); /* some rounds, or none on a busy machine */
    ck_assert_int_eq(listen(master->listener, 64), 0);
    serve_error(master, NX_WIRE_ERROR_FENCED);
    expect_asked(master, hello_text(), 1);
    expect_end();
}
END_TEST

START_TEST(a_former_master_that_leads_before_us)
{
    struct node *master = node_listen();
    char text[256];

    serve_welcome(master, _i == 0 ? LOW : HIGH, CLUSTER, _i == 0 ? 4 : 3);
    former(master);
    start_job(NX_PEERS_HERALD);
    (void)snprintf(text, sizeof text, "%s %s 127.0.0.1:15474", _i == 0 ? "4 " LOW : "3 " HIGH,
                   master->addr);
    expect_fenced(text);
}
END_TEST

START_TEST(peers_that_know)
{
    struct node *a = node_listen();
    struct node *b = node_listen();
    struct node *c = node_listen();
    struct node *d = node_listen();

    ANSWERS(a, status_answer("replica", "streaming", LOW, 3, 100, ""));
    ANSWERS(b, status_answer("master", "fenced", HIGH, 2, 99, ""));
    ANSWERS(c, status_answer("master", "streaming", OURS, 3, 100, ""));
    ANSWERS(d, status_answer("standalone", "stopped", HIGH, 1, 9, ""));
    add_peer(a->addr);
    add_peer(b->addr);
    add_peer(c->addr);
    add_peer(d->addr);
    start_job(NX_PEERS_HERALD);
    expect_end();
}
END_TEST

START_TEST(a_replica_that_comes_over)
{
    struct node *replica = node_listen();

    ANSWERS(replica, status_answer("replica", "connecting", LOW, 2, 90, ""));
    add_peer(replica->addr);
    start_job(NX_PEERS_HERALD);
    expect_asked(replica, "GET", 3);
    (void)snprintf(shm->replicas[5].id, NX_UUID_TEXT, LOW);
    atomic_store_explicit(&shm->replicas[5].state, NX_REPLICA_SNAPSHOT, memory_order_release);
    expect_end();
}
END_TEST

/* _i: fenced already; perhaps by a node that it has no name of. */
START_TEST(a_peer_that_is_a_master_too)
{
    struct node *http = node_listen();
    struct node *wire = node_listen();

    ANSWERS(http,
            status_answer("master", _i == 0 ? "streaming" : "fenced", HIGH, 2, 110, wire->addr));
    serve_error(wire, NX_WIRE_ERROR_FENCED);
    add_peer(http->addr);
    start_job(NX_PEERS_HERALD);
    expect_asked(wire, hello_text(), 1);
    expect_end();
}
END_TEST

START_TEST(a_peer_that_is_no_master_any_more_is_asked_again)
{
    struct node *http = node_listen();
    struct node *wire = node_listen();

    ANSWERS(http, status_answer("master", "streaming", HIGH, 2, 110, wire->addr),
            status_answer("replica", "streaming", HIGH, 3, 110, wire->addr));
    serve_error(wire, NX_WIRE_ERROR_NOT_A_MASTER);
    add_peer(http->addr);
    start_job(NX_PEERS_HERALD);
    expect_end();
    expect_asked(http, "GET", 3);
}
END_TEST

/* It begins the same epoch itself, and its role is a moment behind its log. */
START_TEST(a_peer_that_is_just_being_promoted)
{
    struct node *http = node_listen();
    struct node *wire = node_listen();

    ANSWERS(http, status_answer("replica", "streaming", LOW, 3, 110, wire->addr),
            status_answer("master", "streaming", LOW, 3, 110, wire->addr));
    serve_error(wire, NX_WIRE_ERROR_FENCED);
    add_peer(http->addr);
    start_job(NX_PEERS_HERALD);
    expect_asked(wire, hello_text(), 1);
    expect_end();
}
END_TEST

START_TEST(a_peer_that_leads_before_us)
{
    struct node *http = node_listen();
    char text[256];

    ANSWERS(http,
            status_answer(_i == 0 ? "master" : "replica", "streaming", LOW, 4, 110, ":15475"));
    add_peer(http->addr);
    start_job(NX_PEERS_HERALD);
    (void)snprintf(text, sizeof text, "4 " LOW " 127.0.0.1:15475 %s", http->addr);
    expect_fenced(_i == 0 ? text : "4 00000000-0000-0000-0000-000000000000 - -");
}
END_TEST

START_TEST(a_fence_that_could_not_be_stored_is_asked_for_again)
{
    struct node *http = node_listen();

    ANSWERS(http, status_answer("master", "streaming", LOW, 4, 110, ":15475"));
    add_peer(http->addr);
    start_job(NX_PEERS_HERALD);
    for (unsigned i = 0; i < 2; i++) {
        expect_message(NX_CONTROL_FENCE);
        ck_assert_int_eq(nx_control_send(channel, NX_CONTROL_DONE, -EIO, 0, "no"), 0);
    }
    expect_message(NX_CONTROL_FENCE);
    ck_assert_int_eq(nx_control_send(channel, NX_CONTROL_STOP, 0, NX_STOP_FAST, NULL), 0);
    ck_assert_int_eq(waitpid(job, NULL, 0), job);
    job = 0;
}
END_TEST

START_TEST(other_peers_after_a_reload)
{
    struct node *a = node_listen();
    struct node *b = node_listen();

    ANSWERS(a, status_answer("replica", "connecting", LOW, 2, 90, ""));
    ANSWERS(b, status_answer("master", "fenced", HIGH, 2, 100, ""));
    config.replication.heartbeat_ms = 3600000;
    add_peer(a->addr);
    start_job(NX_PEERS_HERALD);
    expect_asked(a, "GET", 1);
    shm->control.config[1] = config;
    (void)snprintf(shm->control.config[1].replication.peers, NX_PATH_SIZE, "%s", b->addr);
    atomic_store_explicit(&shm->control.config_version, 1, memory_order_release);
    ck_assert_int_eq(nx_control_send(channel, NX_CONTROL_RELOAD, 0, 0, NULL), 0);
    expect_end();
    expect_asked(b, "GET", 1);
}
END_TEST

START_TEST(a_stop_is_heard_at_once)
{
    struct node *silent = node_listen();

    config.replication.heartbeat_ms = _i == 0 ? 10 : 3600000;
    if (_i == 0) {
        former(silent); /* in a call */
    } else {
        former(node_refusing()); /* asleep */
    }
    add_peer(_i == 0 ? silent->addr : nodes[1].addr);
    start_job(NX_PEERS_HERALD);
    (void)poll(NULL, 0, 50);
    stop();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_checked_fixture(tests, setup_epoch, NULL);
    tcase_add_test(tests, nobody_to_tell);
    tcase_add_loop_test(tests, the_former_master_hears_it, 0, 2);
    tcase_add_loop_test(tests, a_former_master_that_does_not_listen_is_told_again, 0, 6);
    tcase_add_test(tests, a_former_master_that_comes_back);
    tcase_add_loop_test(tests, a_former_master_that_leads_before_us, 0, 2);
    tcase_add_test(tests, peers_that_know);
    tcase_add_test(tests, a_replica_that_comes_over);
    tcase_add_loop_test(tests, a_peer_that_is_a_master_too, 0, 2);
    tcase_add_test(tests, a_peer_that_is_just_being_promoted);
    tcase_add_test(tests, a_peer_that_is_no_master_any_more_is_asked_again);
    tcase_add_loop_test(tests, a_peer_that_leads_before_us, 0, 2);
    tcase_add_test(tests, a_fence_that_could_not_be_stored_is_asked_for_again);
    tcase_add_test(tests, other_peers_after_a_reload);
    tcase_add_loop_test(tests, a_stop_is_heard_at_once, 0, 2);
}

int main(int argc, char **argv)
{
    return run_suite("peers_herald", add, argc, argv);
}
