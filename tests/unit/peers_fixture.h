/* A peers process at work, for tests: the test is its postmaster and has its shared memory, and other nodes are small
 * processes that answer what they were told to. Everything here fails the test when it can't do its work. */
#ifndef NX_TESTS_PEERS_FIXTURE_H
#define NX_TESTS_PEERS_FIXTURE_H

#include "common/log.h"
#include "common/net.h"
#include "common/process.h"
#include "common/shared_log.h"
#include "common/wire.h"
#include "shm_fixture.h"

#include <check.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOW     "10000000-0000-4000-8000-000000000000"
#define OURS    "20000000-0000-4000-8000-000000000000"
#define HIGH    "30000000-0000-4000-8000-000000000000"
#define CLUSTER "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
#define OTHER   "6ba7b811-9dad-11d1-80b4-00c04fd430c8"

#define WAIT_MS      30000
#define MOST_NODES   8
#define MOST_ANSWERS 128 /* of all nodes together */

static struct nx_config config;
static struct nx_process process;
static int channel; /* the postmaster's end */
static pid_t job;
static uint64_t job_began_us;

struct node {
    pid_t pid;
    int listener; /* until it answers */
    int heard;    /* what it was asked, a line each */
    char addr[64];
    char asked[4096]; /* read so far */
};

static struct node nodes[MOST_NODES];
static unsigned node_count;

/* ---- other nodes ---- */

/* A place where nothing listens yet. */
static inline struct node *node_refusing(void)
{
    struct node *node = &nodes[node_count++];
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof addr;

    ck_assert_uint_le(node_count, MOST_NODES);
    *node = (struct node){.heard = -1};
    node->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(node->listener, 0);
    ck_assert_int_eq(bind(node->listener, (struct sockaddr *)&addr, sizeof addr), 0);
    ck_assert_int_eq(getsockname(node->listener, (struct sockaddr *)&addr, &length), 0);
    (void)snprintf(node->addr, sizeof node->addr, "127.0.0.1:%u", (unsigned)ntohs(addr.sin_port));
    return node;
}

/* A place where nobody answers yet: connections to it wait. */
static inline struct node *node_listen(void)
{
    struct node *node = node_refusing();

    ck_assert_int_eq(listen(node->listener, 64), 0);
    return node;
}

static inline void send_all(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;

    while (length > 0) {
        ssize_t n = send(fd, at, length, MSG_NOSIGNAL);

        if (n <= 0) {
            return;
        }
        at += n;
        length -= (size_t)n;
    }
}

/* Reads a request to its end; tells "GET /path body" on the pipe. */
static inline void hear_http(int fd, int pipe_fd)
{
    char request[8192] = "";
    char line[8192];
    size_t used = 0;
    size_t body = 0;
    char *end = NULL;
    const char *header;
    ssize_t n;

    while ((end == NULL || strlen(end + 4) < body) &&
           (n = recv(fd, request + used, sizeof request - 1 - used, 0)) > 0) {
        used += (size_t)n;
        request[used] = '\0';
        end = strstr(request, "\r\n\r\n");
        header = strstr(request, "Content-Length: ");
        body = header == NULL ? 0 : strtoul(header + strlen("Content-Length: "), NULL, 10);
    }
    if (end != NULL) {
        char *space = strchr(request, ' ');

        *strstr(space + 1, " HTTP") = '\0';
        n = snprintf(line, sizeof line, "%.4000s %.4000s\n", request, end + 4);
        ck_assert_int_eq(write(pipe_fd, line, (size_t)n), n);
    }
}

/* Begins a process that serves the node's connections, and tells on a pipe what it was asked. True in it. */
static inline bool node_fork(struct node *node, int *ret_pipe)
{
    int pair[2];

    ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
    node->pid = fork();
    ck_assert_int_ge(node->pid, 0);
    if (node->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(process.control.fd); /* whoever holds it keeps the channel open */
        *ret_pipe = pair[1];
        return true;
    }
    close(pair[1]);
    close(node->listener);
    node->listener = -1;
    node->heard = pair[0];
    return false;
}

/* Answers each connection with the next of the answers, the last one for ever. */
static inline void node_answer(struct node *node, const char *const *answers)
{
    int pipe_fd;

    if (node_fork(node, &pipe_fd)) {
        for (;;) {
            int fd = accept(node->listener, NULL, NULL);

            hear_http(fd, pipe_fd);
            send_all(fd, *answers, strlen(*answers));
            close(fd);
            answers += answers[1] == NULL ? 0 : 1;
        }
    }
}

/* Waits until it was asked this, as often as it says. */
static inline void expect_asked(struct node *node, const char *line, unsigned times)
{
    for (;;) {
        struct pollfd pollfd = {.fd = node->heard, .events = POLLIN};
        size_t used = strlen(node->asked);
        unsigned found = 0;
        ssize_t n;

        for (const char *at = node->asked; (at = strstr(at, line)) != NULL; at++) {
            found++;
        }
        if (found >= times) {
            return;
        }
        ck_assert_msg(poll(&pollfd, 1, WAIT_MS) == 1, "\"%s\" not in \"%s\"", line, node->asked);
        n = read(node->heard, node->asked + used, sizeof node->asked - 1 - used);
        ck_assert_int_gt(n, 0);
        node->asked[used + (size_t)n] = '\0';
    }
}

/* A whole HTTP answer; static. */
static inline const char *http_answer(int status, const char *body)
{
    static char texts[MOST_ANSWERS][4096];
    static unsigned used;
    char *text = texts[used++];

    ck_assert_uint_le(used, MOST_ANSWERS);
    (void)snprintf(
        text, sizeof texts[0],
        "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nContent-Type: application/json\r\n\r\n%s", status,
        strlen(body), body);
    return text;
}

/* epochs: the history that it shows, a JSON array. */
static inline const char *status_with_history(const char *role,
                                              const char *id,
                                              uint64_t epoch,
                                              const char *epochs)
{
    char body[2048];

    (void)snprintf(
        body, sizeof body,
        "{\"role\": \"%s\", \"state\": \"streaming\", \"node_id\": \"%s\", \"cluster_id\": "
        "\"" CLUSTER "\", \"epoch\": %llu, \"durable_offset\": 50, \"last_crc\": 1, "
        "\"replication_addr\": \":15475\", \"epochs\": %s}\n",
        role, id, (unsigned long long)epoch, epochs);
    return http_answer(200, body);
}

static inline const char *status_answer(const char *role,
                                        const char *state,
                                        const char *id,
                                        uint64_t epoch,
                                        uint64_t offset,
                                        const char *replication_addr)
{
    char body[1024];

    (void)snprintf(body, sizeof body,
                   "{\"role\": \"%s\", \"state\": \"%s\", \"node_id\": \"%s\", \"cluster_id\": "
                   "\"" CLUSTER "\", \"epoch\": %llu, \"durable_offset\": %llu, \"last_crc\": 1, "
                   "\"replication_addr\": \"%s\"}\n",
                   role, state, id, (unsigned long long)epoch, (unsigned long long)offset,
                   replication_addr);
    return http_answer(200, body);
}

static inline const char *promise_answer(const char *id, uint64_t epoch, uint64_t offset)
{
    char body[512];

    (void)snprintf(
        body, sizeof body,
        "{\"success\": true, \"epoch\": %llu, \"offset\": %llu, \"crc\": 1, \"node_id\": "
        "\"%s\", \"cluster_id\": \"" CLUSTER "\"}\n",
        (unsigned long long)epoch, (unsigned long long)offset, id);
    return http_answer(200, body);
}

#define ANSWERS(node, ...) node_answer(node, (const char *const[]){__VA_ARGS__, NULL, NULL})

/* ---- the process ---- */

/* A node at offset 100 of epoch 3. */
static inline void peers_setup(void)
{
    int pair[2];

    shm_setup();
    node_count = 0;
    nx_config_defaults(&config);
    (void)snprintf(shm->control.node_id, NX_UUID_TEXT, OURS);
    (void)snprintf(shm->control.cluster_id, NX_UUID_TEXT, CLUSTER);
    atomic_store_explicit(&shm->control.cluster_known, 1, memory_order_release);
    atomic_store_explicit(&shm->log.epoch, 3, memory_order_release);
    atomic_store_explicit(&shm->quorum.size, 1, memory_order_release);
    nx_log_publish(shm, 100, 3, 7);
    ck_assert_int_eq(nx_control_pair(pair), 0);
    channel = pair[0];
    process = (struct nx_process){
        .kind = NX_KIND_PEERS,
        .slot = nx_process_slot(NX_KIND_PEERS, 0),
        .shm = shm,
        .config = &config,
        .control = {.fd = pair[1]},
    };
    job = 0;
}

static inline void end_process(pid_t pid)
{
    if (pid > 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
}

static inline void peers_teardown(void)
{
    end_process(job);
    for (unsigned i = 0; i < node_count; i++) {
        end_process(nodes[i].pid);
        if (nodes[i].listener >= 0) {
            close(nodes[i].listener);
        }
        if (nodes[i].heard >= 0) {
            close(nodes[i].heard);
        }
    }
    close(channel);
    close(process.control.fd);
    shm_teardown();
}

static inline void add_peer(const char *addr)
{
    size_t used = strlen(config.replication.peers);

    (void)snprintf(config.replication.peers + used, sizeof config.replication.peers - used, "%s%s",
                   used > 0 ? "," : "", addr);
}

static inline void start_job(enum nx_peers_job which)
{
    process.peers.job = which;
    job_began_us = nx_now_us();
    job = fork();
    ck_assert_int_ge(job, 0);
    if (job == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(channel);
        nx_log_set_process("peers");
        exit(nx_peers_main(&process));
    }
    close(process.control.fd);
    process.control.fd = -1;
}

/* The next message that isn't READY. */
static inline const struct nx_control_message *hear(void)
{
    static struct nx_control_message message;
    int rc;

    do {
        struct pollfd pollfd = {.fd = channel, .events = POLLIN};

        ck_assert_int_eq(poll(&pollfd, 1, WAIT_MS), 1);
        rc = nx_control_receive(channel, &message);
        ck_assert_msg(rc == 0, "the process has ended");
    } while (message.type == NX_CONTROL_READY);
    return &message;
}

static inline const char *expect_message(enum nx_control_type type)
{
    const struct nx_control_message *message = hear();

    ck_assert_msg(message->type == (uint32_t)type, "message %u: %s", message->type, message->text);
    return message->text;
}

/* It ends by itself, and has nothing more to say. */
static inline void expect_end(void)
{
    struct nx_control_message message;
    int status = -1;
    int rc;

    ck_assert_int_eq(waitpid(job, &status, 0), job);
    job = 0;
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == NX_EXIT_OK, "status %x",
                  (unsigned)status);
    while ((rc = nx_control_receive(channel, &message)) == 0) {
        ck_assert_uint_eq(message.type, NX_CONTROL_READY);
    }
    ck_assert_int_eq(rc, -EPIPE);
}

/* Check's main, with the title of a process to be set. */
static inline int run_suite(const char *name, void (*add)(TCase *tests), int argc, char **argv)
{
    Suite *suite = suite_create(name);
    TCase *tests = tcase_create("jobs");
    SRunner *runner = srunner_create(suite);
    int failed;

    nx_process_title_init(argc, argv);
    (void)signal(SIGPIPE, SIG_IGN); /* as the postmaster's children have it */
    tcase_add_checked_fixture(tests, peers_setup, peers_teardown);
    add(tests);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static inline void stop(void)
{
    ck_assert_int_eq(nx_control_send(channel, NX_CONTROL_STOP, 0, NX_STOP_FAST, NULL), 0);
    expect_end();
}

#endif
