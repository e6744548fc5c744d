/* What data-N/identity says of decisions about the role: read again as it was written, and refused in any other
 * shape. */
#include "storage/data_identity.h"
#include "storage/file_io.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLUSTER "550e8400-e29b-41d4-a716-446655440000"
#define NODE    "550e8400-e29b-41d4-a716-44665544000a"
#define OTHER   "550e8400-e29b-41d4-a716-44665544000b"

static char root[64]; /* data-N */
static int root_fd;
static struct nx_identity identity;
static struct nx_identity read_back;

static void setup(void)
{
    (void)snprintf(root, sizeof root, "/tmp/nexus-identity-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(root_fd, 0);
    memset(&identity, 0, sizeof identity);
    memset(&read_back, 0x55, sizeof read_back);
    memcpy(identity.cluster_id, CLUSTER, sizeof CLUSTER);
}

static void teardown(void)
{
    close(root_fd);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, root), 0);
}

/* ---- whole identities ---- */

enum decision {
    FIRST = 1,
    FENCE = 2,
    PROMISE = 4,
    NOTE = 8,
    FOLLOW = 16,
    REPLICAS = 32,
    GOAL = 64,
    ALL = 127
};

static struct nx_known_replica some_replica(unsigned n)
{
    struct nx_known_replica replica = {.last_seen = UINT64_MAX, .last_ack_offset = UINT64_MAX};

    (void)snprintf(replica.id, sizeof replica.id, "550e8400-e29b-41d4-a716-%012u", n);
    memset(replica.addr, 'a', sizeof replica.addr - 1);
    memset(replica.http_addr, 'b', sizeof replica.http_addr - 1);
    return replica;
}

/* All of it as long as it can be. */
static void decide(unsigned what)
{
    if ((what & FIRST) != 0) {
        memcpy(identity.first_node_id, NODE, sizeof NODE);
    }
    if ((what & FENCE) != 0) {
        identity.fence = (struct nx_fence){.epoch = UINT64_MAX, .node_id = OTHER};
        memset(identity.fence.addr, 'f', sizeof identity.fence.addr - 1);
        memset(identity.fence.http_addr, 'h', sizeof identity.fence.http_addr - 1);
    }
    if ((what & PROMISE) != 0) {
        identity.promise = (struct nx_promise){.epoch = UINT64_MAX - 1, .node_id = NODE};
    }
    if ((what & NOTE) != 0) {
        identity.note =
            (struct nx_role_note){.epoch = UINT64_MAX - 2, .configured.role = NX_ROLE_REPLICA};
        memset(identity.note.configured.master_addr, 'n', NX_ADDR_TEXT - 1);
    }
    if ((what & FOLLOW) != 0) {
        identity.follow = (struct nx_follow){.force = true, .configured.role = NX_ROLE_STANDALONE};
        memset(identity.follow.addr, 'x', NX_ADDR_TEXT - 1);
        memset(identity.follow.configured.master_addr, 'c', NX_ADDR_TEXT - 1);
    }
    if ((what & GOAL) != 0) {
        identity.goal = (struct nx_sync_goal){.offset = UINT64_MAX,
                                              .epoch = UINT64_MAX - 3,
                                              .shown = UINT64_MAX - 5,
                                              .shown_epoch = UINT64_MAX - 7};
    }
    identity.replica_count = (what & REPLICAS) != 0 ? NX_MAX_REPLICAS : 0;
    for (unsigned i = 0; i < identity.replica_count; i++) {
        identity.replicas[i] = some_replica(i);
    }
}

static void assert_same_config(const struct nx_role_config *a, const struct nx_role_config *b)
{
    ck_assert(nx_role_config_same(a, b));
}

static void assert_same(const struct nx_identity *a, const struct nx_identity *b)
{
    ck_assert_str_eq(a->cluster_id, b->cluster_id);
    ck_assert_str_eq(a->first_node_id, b->first_node_id);
    ck_assert_uint_eq(a->fence.epoch, b->fence.epoch);
    ck_assert_str_eq(a->fence.node_id, b->fence.node_id);
    ck_assert_str_eq(a->fence.addr, b->fence.addr);
    ck_assert_str_eq(a->fence.http_addr, b->fence.http_addr);
    ck_assert_uint_eq(a->promise.epoch, b->promise.epoch);
    ck_assert_str_eq(a->promise.node_id, b->promise.node_id);
    ck_assert_uint_eq(a->note.epoch, b->note.epoch);
    assert_same_config(&a->note.configured, &b->note.configured);
    ck_assert_str_eq(a->follow.addr, b->follow.addr);
    ck_assert_int_eq(a->follow.force, b->follow.force);
    assert_same_config(&a->follow.configured, &b->follow.configured);
    ck_assert_uint_eq(a->goal.offset, b->goal.offset);
    ck_assert_uint_eq(a->goal.shown, b->goal.shown);
    ck_assert_uint_eq(a->goal.epoch, b->goal.epoch);
    ck_assert_uint_eq(a->goal.shown_epoch, b->goal.shown_epoch);
    ck_assert_uint_eq(a->replica_count, b->replica_count);
    for (unsigned i = 0; i < a->replica_count; i++) {
        ck_assert_str_eq(a->replicas[i].id, b->replicas[i].id);
        ck_assert_str_eq(a->replicas[i].http_addr, b->replicas[i].http_addr);
    }
}

/* _i: enum decision, any of them. */
START_TEST(what_was_decided_is_read_again)
{
    decide((unsigned)_i);
    ck_assert_int_eq(nx_identity_write(root_fd, &identity), 0);
    ck_assert_int_eq(nx_identity_read(root_fd, &read_back), 0);
    assert_same(&identity, &read_back);
}
END_TEST

START_TEST(what_may_be_empty_is_read_again)
{
    identity.fence = (struct nx_fence){.epoch = 1, .node_id = OTHER};
    identity.promise = (struct nx_promise){.epoch = 1, .node_id = OTHER};
    identity.note = (struct nx_role_note){.epoch = 1, .configured.role = NX_ROLE_MASTER};
    identity.follow = (struct nx_follow){.addr = "a:1", .configured.role = NX_ROLE_MASTER};
    ck_assert_int_eq(nx_identity_write(root_fd, &identity), 0);
    ck_assert_int_eq(nx_identity_read(root_fd, &read_back), 0);
    assert_same(&identity, &read_back);
    /* And it all goes again. */
    memset(&identity, 0, sizeof identity);
    ck_assert_int_eq(nx_identity_write(root_fd, &identity), 0);
    ck_assert_int_eq(nx_identity_read(root_fd, &read_back), 0);
    assert_same(&identity, &read_back);
}
END_TEST

START_TEST(what_could_not_be_read_again_is_not_written)
{
    char *const lines[] = {identity.fence.addr,
                           identity.fence.http_addr,
                           identity.note.configured.master_addr,
                           identity.follow.addr,
                           identity.follow.configured.master_addr,
                           identity.first_node_id,
                           identity.fence.node_id,
                           identity.promise.node_id,
                           identity.cluster_id};

    decide(ALL);
    ck_assert_int_eq(nx_identity_write(root_fd, &identity), 0);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        for (size_t at = 0; at < 36; at += 35) { /* with more lines in it, a false one perhaps */
            char was = lines[i][at];

            lines[i][at] = '\n';
            ck_assert_int_eq(nx_identity_write(root_fd, &identity), -EINVAL);
            lines[i][at] = was;
        }
    }
    identity.fence.node_id[0] = '\0';
    ck_assert_int_eq(nx_identity_write(root_fd, &identity), -EINVAL);
    memcpy(identity.fence.node_id, OTHER, sizeof OTHER);
    identity.promise.node_id[0] = '\0';
    ck_assert_int_eq(nx_identity_write(root_fd, &identity), -EINVAL);
    /* The file is the one of before. */
    memcpy(identity.promise.node_id, NODE, sizeof NODE);
    ck_assert_int_eq(nx_identity_read(root_fd, &read_back), 0);
    assert_same(&identity, &read_back);
}
END_TEST

/* ---- texts ---- */

static const char *const whole[] = {
    "cluster_id = " CLUSTER "\n",
    "first_node_id = " NODE "\n",
    "fence_epoch = 7\n",
    "fence_node_id = " OTHER "\n",
    "fence_addr = a:1\n",
    "fence_http_addr = b:2\n",
    "promise_epoch = 8\n",
    "promise_node_id = " OTHER "\n",
    "note_epoch = 6\n",
    "note_role = replica\n",
    "note_master_addr = c:3\n",
    "follow_addr = d:4\n",
    "follow_force = 1\n",
    "follow_role = master\n",
    "follow_master_addr = \n",
    "replica = " NODE "\n",
    "connected = 0\n",
    "last_seen = 5\n",
    "last_ack_offset = 7\n",
    "addr = e:5\n",
    "http_addr = f:6\n",
};

#define LINES      (sizeof whole / sizeof whole[0])
#define TEXT_SIZE  4096
#define FENCED     2u /* the first line of each decision */
#define PROMISED   6u
#define NOTED      8u
#define FOLLOWED   11u
#define KNOWN      15u
#define NO_LINE    LINES
#define FIRST_LINE 1u

/* Not synced: there are many. */
static void write_raw(const char *text, size_t length)
{
    int fd = openat(root_fd, "identity", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
    close(fd);
}

static void write_sealed(char text[TEXT_SIZE])
{
    size_t length = nx_lines_seal(text, TEXT_SIZE);

    write_raw(text, length);
}

/* The lines with one of them replaced (NULL: left out), and another one put before it. */
static void write_edited(size_t line, const char *instead, const char *before)
{
    char text[TEXT_SIZE] = "";

    for (size_t i = 0; i < LINES; i++) {
        if (i == line && before != NULL) {
            (void)strncat(text, before, TEXT_SIZE - strlen(text) - 1);
        }
        if (i != line || instead != NULL) {
            (void)strncat(text, i == line ? instead : whole[i], TEXT_SIZE - strlen(text) - 1);
        }
    }
    write_sealed(text);
}

static int read_it(void)
{
    return nx_identity_read(root_fd, &read_back);
}

START_TEST(the_lines_are_these)
{
    write_edited(NO_LINE, NULL, NULL);
    ck_assert_int_eq(read_it(), 0);
    ck_assert_str_eq(read_back.first_node_id, NODE);
    ck_assert_uint_eq(read_back.fence.epoch, 7);
    ck_assert_str_eq(read_back.fence.http_addr, "b:2");
    ck_assert_uint_eq(read_back.promise.epoch, 8);
    ck_assert_str_eq(read_back.promise.node_id, OTHER);
    ck_assert_uint_eq(read_back.note.epoch, 6);
    ck_assert_int_eq(read_back.note.configured.role, NX_ROLE_REPLICA);
    ck_assert_str_eq(read_back.note.configured.master_addr, "c:3");
    ck_assert_str_eq(read_back.follow.addr, "d:4");
    ck_assert(read_back.follow.force);
    ck_assert_int_eq(read_back.follow.configured.role, NX_ROLE_MASTER);
    ck_assert_uint_eq(read_back.replica_count, 1);
}
END_TEST

START_TEST(a_file_from_before_decisions_is_read)
{
    char text[TEXT_SIZE];

    (void)snprintf(text, sizeof text, "%s", whole[0]);
    write_sealed(text);
    ck_assert_int_eq(read_it(), 0);
    assert_same(&identity, &read_back);
    (void)snprintf(text, sizeof text, "%s%s%s%s%s%s%s", whole[0], whole[KNOWN], whole[KNOWN + 1],
                   whole[KNOWN + 2], whole[KNOWN + 3], whole[KNOWN + 4], whole[KNOWN + 5]);
    write_sealed(text);
    ck_assert_int_eq(read_it(), 0);
    ck_assert_uint_eq(read_back.replica_count, 1);
    ck_assert_uint_eq(read_back.fence.epoch + read_back.promise.epoch + read_back.note.epoch, 0);
    ck_assert_str_eq(read_back.follow.addr, "");
}
END_TEST

/* Whether a line is the first of a decision: without it the next one is of no version that is known. */
static bool begins_decision(size_t line)
{
    return line == FENCED || line == PROMISED || line == NOTED || line == FOLLOWED || line == KNOWN;
}

START_TEST(a_missing_line_is_refused)
{
    for (size_t i = 0; i < LINES; i++) {
        write_edited(i, NULL, NULL);
        if (i == FIRST_LINE) {
            ck_assert_int_eq(read_it(), 0); /* which alone needs no other */
        } else {
            ck_assert_int_eq(read_it(), begins_decision(i) ? -ENOTSUP : -EBADMSG);
        }
    }
}
END_TEST

START_TEST(a_line_twice_is_refused)
{
    for (size_t i = 0; i < LINES; i++) {
        write_edited(i, whole[i], whole[i]);
        ck_assert_int_lt(read_it(), 0);
    }
}
END_TEST

START_TEST(lines_out_of_order_are_refused)
{
    for (size_t a = 0; a < LINES; a++) {
        for (size_t b = a + 1; b < LINES; b++) {
            char text[TEXT_SIZE] = "";

            for (size_t i = 0; i < LINES; i++) {
                const char *line = i == a ? whole[b] : (i == b ? whole[a] : whole[i]);

                (void)strncat(text, line, TEXT_SIZE - strlen(text) - 1);
            }
            write_sealed(text);
            ck_assert_int_lt(read_it(), 0);
        }
    }
}
END_TEST

START_TEST(a_decision_behind_another_is_refused)
{
    static const struct {
        size_t first, next, end;
    } swaps[] = {
        {FIRST_LINE, FENCED, PROMISED}, {FENCED, PROMISED, NOTED}, {PROMISED, NOTED, FOLLOWED},
        {NOTED, FOLLOWED, KNOWN},       {FOLLOWED, KNOWN, LINES},
    };

    for (size_t s = 0; s < sizeof swaps / sizeof swaps[0]; s++) {
        char text[TEXT_SIZE] = "";

        for (size_t i = 0; i < LINES; i++) {
            size_t count = swaps[s].end - swaps[s].next;
            size_t line = i;

            if (i >= swaps[s].first && i < swaps[s].first + count) {
                line = swaps[s].next + i - swaps[s].first;
            } else if (i >= swaps[s].first && i < swaps[s].end) {
                line = i - count;
            }
            (void)strncat(text, whole[line], TEXT_SIZE - strlen(text) - 1);
        }
        write_sealed(text);
        ck_assert_int_eq(read_it(), -ENOTSUP);
    }
}
END_TEST

START_TEST(values_that_cannot_be_are_refused)
{
    static const struct {
        size_t line;
        const char *instead;
    } cases[] = {
        {FIRST_LINE, "first_node_id = x\n"},
        {FIRST_LINE, "first_node_id = " NODE "0\n"},
        {FENCED, "fence_epoch = \n"},
        {FENCED, "fence_epoch = 0\n"},
        {FENCED, "fence_epoch = -1\n"},
        {FENCED, "fence_epoch = 18446744073709551616\n"},
        {FENCED, "fence_epoch = 7 \n"},
        {FENCED + 1, "fence_node_id = \n"},
        {FENCED + 1, "fence_node_id = 550e8400-e29b-41d4-a716-44665544000x\n"},
        {PROMISED, "promise_epoch = 0\n"},
        {PROMISED, "promise_epoch = 0x8\n"},
        {PROMISED + 1, "promise_node_id = \n"},
        {PROMISED + 1, "promise_node_id = nobody\n"},
        {NOTED, "note_epoch = six\n"},
        {NOTED + 1, "note_role = \n"},
        {NOTED + 1, "note_role = Replica\n"},
        {NOTED + 1, "note_role = a role that is longer than any\n"},
        {FOLLOWED + 1, "follow_force = 2\n"},
        {FOLLOWED + 1, "follow_force = true\n"},
        {FOLLOWED + 2, "follow_role = slave\n"},
        {FOLLOWED + 2, "follow_role=master\n"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_edited(cases[i].line, cases[i].instead, NULL);
        ck_assert_msg(read_it() == -EBADMSG, "%s", cases[i].instead);
    }
}
END_TEST

/* _i: the line of an address. */
START_TEST(an_address_that_is_too_long_is_refused)
{
    static const size_t lines[] = {FENCED + 2, FENCED + 3, NOTED + 2, FOLLOWED, FOLLOWED + 3};
    char line[NX_ADDR_TEXT + 64];
    int key = (int)(strchr(whole[lines[_i]], '=') - whole[lines[_i]]);

    for (int length = NX_ADDR_TEXT - 1; length <= NX_ADDR_TEXT; length++) {
        (void)snprintf(line, sizeof line, "%.*s= %0*d\n", key, whole[lines[_i]], length, 0);
        write_edited(lines[_i], line, NULL);
        ck_assert_int_eq(read_it(), length < NX_ADDR_TEXT ? 0 : -EBADMSG);
    }
}
END_TEST

START_TEST(any_changed_byte_is_damage)
{
    char text[TEXT_SIZE];
    size_t length;

    decide(ALL & ~(unsigned)REPLICAS);
    ck_assert_int_eq(nx_identity_write(root_fd, &identity), 0);
    ck_assert_int_eq(nx_file_read_text(root_fd, "identity", text, sizeof text), 0);
    length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        text[i] ^= 1;
        write_raw(text, length);
        ck_assert_int_eq(read_it(), -EBADMSG);
        text[i] ^= 1;
    }
    for (size_t i = 0; i < length; i++) { /* cut off */
        write_raw(text, i);
        ck_assert_int_eq(read_it(), -EBADMSG);
    }
    write_raw(text, length);
    ck_assert_int_eq(read_it(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("identity");
    TCase *tcase = tcase_create("identity");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tcase, 60); /* each file is synced */
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, what_was_decided_is_read_again, 0, ALL + 1);
    tcase_add_test(tcase, what_may_be_empty_is_read_again);
    tcase_add_test(tcase, what_could_not_be_read_again_is_not_written);
    tcase_add_test(tcase, the_lines_are_these);
    tcase_add_test(tcase, a_file_from_before_decisions_is_read);
    tcase_add_test(tcase, a_missing_line_is_refused);
    tcase_add_test(tcase, a_line_twice_is_refused);
    tcase_add_test(tcase, lines_out_of_order_are_refused);
    tcase_add_test(tcase, a_decision_behind_another_is_refused);
    tcase_add_test(tcase, values_that_cannot_be_are_refused);
    tcase_add_loop_test(tcase, an_address_that_is_too_long_is_refused, 0, 5);
    tcase_add_test(tcase, any_changed_byte_is_damage);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
