/* What a master answers to a Hello: one row a rule of protocol.md, each a change to a Hello that is
 * welcome. */
#include "storage/data_dir.h"
#include "walsender/handshake.h"

#include <check.h>

#include <stdlib.h>
#include <string.h>

#define MASTER  "550e8400-e29b-41d4-a716-446655440000"
#define REPLICA "550e8400-e29b-41d4-a716-446655440001"
#define CLUSTER "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
#define OTHER   "6ba7b811-9dad-11d1-80b4-00c04fd430c8"

static struct nx_hello_facts facts;
static struct nx_msg_hello hello;
static struct nx_verdict verdict;

/* A master at 100 of epoch 3 that keeps 41 to 100, and a replica of its history at 60. */
static void setup_welcome(void)
{
    facts = (struct nx_hello_facts){
        .role = NX_NODE_MASTER,
        .token = "",
        .master_addr = "10.0.0.1:15475",
        .node_id = MASTER,
        .cluster_id = CLUSTER,
        .position = {.epoch = 3, .offset = 100, .crc = 0xABCD},
        .epoch = 3,
        .oldest_kept = 41,
        .max_log_size = 1000,
        .replicas = 1,
        .max_replicas = 2,
        .frame_known = true,
        .frame_epoch = 2,
        .frame_crc = 0x1234,
    };
    hello = (struct nx_msg_hello){
        .replica_id = nx_slice_text(REPLICA),
        .last_wal_offset = 60,
        .protocol_version = 1,
        .cluster_id = nx_slice_text(CLUSTER),
        .last_epoch = 2,
        .last_crc = 0x1234,
    };
}

static uint32_t judged(void)
{
    nx_handshake_judge(&facts, &hello, &verdict);
    return verdict.code;
}

static void expect(uint32_t code, const char *text)
{
    ck_assert_uint_eq(judged(), code);
    ck_assert_msg(strstr(verdict.text, text) != NULL, "\"%s\" in \"%s\"", text, verdict.text);
}

static void expect_full_sync(const char *text)
{
    ck_assert_uint_eq(judged(), 0);
    ck_assert(verdict.full_sync);
    ck_assert_msg(strstr(verdict.text, text) != NULL, "\"%s\" in \"%s\"", text, verdict.text);
}

START_TEST(a_replica_of_this_history_is_welcome)
{
    ck_assert_uint_eq(judged(), 0);
}
END_TEST

START_TEST(an_empty_replica_is_welcome_while_all_entries_are_kept)
{
    facts.oldest_kept = 1;
    facts.frame_known = false;
    hello.last_wal_offset = 0;
    hello.last_epoch = 0;
    hello.last_crc = 0;
    hello.cluster_id = nx_slice_text("");
    ck_assert_uint_eq(judged(), 0);
    ck_assert(!verdict.full_sync);
    hello.cluster_id = nx_slice_text(OTHER); /* it may have been another cluster's */
    ck_assert_uint_eq(judged(), 0);
    facts.checkpoint = 1;
    expect_full_sync("it is new, and this master's state is at offset 1");
}
END_TEST

START_TEST(the_oldest_kept_entry_may_still_be_asked_for)
{
    facts.frame_known = false; /* 40 itself is gone: the history alone decides */
    hello.last_wal_offset = 40;
    ck_assert_uint_eq(judged(), 0);
    ck_assert(!verdict.full_sync);
    facts.crc_known = true; /* and 41, which has the CRC of 40 */
    ck_assert_uint_eq(judged(), 0);
    ck_assert(!verdict.full_sync);
    hello.last_crc = 0x1235;
    expect_full_sync("their histories differ");
    hello.last_crc = 0x1234;
    facts.crc_known = false;
    hello.last_wal_offset = 39;
    expect_full_sync("asks for entry 40, the oldest kept here is 41");
}
END_TEST

START_TEST(another_protocol_version)
{
    hello.protocol_version = 2;
    expect(NX_WIRE_ERROR_PROTOCOL_VERSION, "version 1, the Hello version 2");
}
END_TEST

START_TEST(a_token)
{
    static const char token[NX_TOKEN_SIZE] = "secret";

    hello.token = nx_slice_text("secret");
    ck_assert_uint_eq(judged(), 0); /* none is wanted: it does no harm */
    facts.token = token;
    ck_assert_uint_eq(judged(), 0);
    hello.token = nx_slice_text("secrets");
    expect(NX_WIRE_ERROR_NOT_AUTHORISED, "the Hello's token is wrong: set replication.token_file");
    hello.token = nx_slice_text("");
    expect(NX_WIRE_ERROR_NOT_AUTHORISED, "this master wants a token, and the Hello has none");
    facts.role = NX_NODE_REPLICA; /* who shows none is told nothing else */
    expect(NX_WIRE_ERROR_NOT_AUTHORISED, "wants a token");
}
END_TEST

START_TEST(no_uuid)
{
    hello.replica_id = nx_slice_text("550e8400-e29b-41d4-a716-44665544000\n");
    expect(NX_WIRE_ERROR_BAD_FRAME, "not a UUID");
}
END_TEST

START_TEST(a_master_whose_replication_was_stopped)
{
    facts.stopped = true;
    expect(NX_WIRE_ERROR_SHUTTING_DOWN, "replication was stopped on this master by POST "
                                        "/replication/stop");
}
END_TEST

START_TEST(a_replica_names_its_master)
{
    facts.role = NX_NODE_REPLICA;
    expect(NX_WIRE_ERROR_NOT_A_MASTER, "10.0.0.1:15475");
}
END_TEST

START_TEST(a_node_that_stops)
{
    facts.draining = true;
    expect(NX_WIRE_ERROR_SHUTTING_DOWN, "shutting down");
}
END_TEST

START_TEST(its_own_replica)
{
    hello.replica_id = nx_slice_text(MASTER);
    expect(NX_WIRE_ERROR_NOT_AUTHORISED, MASTER);
}
END_TEST

START_TEST(another_cluster)
{
    hello.cluster_id = nx_slice_text(OTHER);
    expect(NX_WIRE_ERROR_OTHER_CLUSTER, OTHER);
    hello.cluster_id = nx_slice_text("x\n");
    expect(NX_WIRE_ERROR_OTHER_CLUSTER, "(unreadable)");
}
END_TEST

START_TEST(too_many)
{
    facts.replicas = 2;
    expect(NX_WIRE_ERROR_TOO_MANY_REPLICAS, "max_replicas is 2");
}
END_TEST

START_TEST(data_of_no_cluster)
{
    hello.cluster_id = nx_slice_text("");
    expect_full_sync("knows no cluster id");
    hello.last_wal_offset = 101;
    expect_full_sync("their histories differ");
    hello.last_epoch = 3;
    expect(NX_WIRE_ERROR_BEHIND_REPLICA, "it keeps its data");
}
END_TEST

START_TEST(another_history_at_the_same_offset)
{
    hello.last_crc = 0x1235;
    expect_full_sync("histories differ");
    hello.last_crc = 0x1234;
    hello.last_epoch = 1;
    expect_full_sync("of epoch 1 with CRC 00001234, this master's of epoch 2");
}
END_TEST

START_TEST(an_epoch_that_cannot_be_where_the_frame_is_gone)
{
    facts.frame_known = false;
    hello.last_wal_offset = 40;
    hello.last_epoch = 4; /* it gives up nothing for a master of a lower epoch */
    expect(NX_WIRE_ERROR_BEHIND_REPLICA, "keeps its data");
    hello.last_epoch = 0;
    expect_full_sync("histories differ");
}
END_TEST

START_TEST(a_replica_beyond_the_master_keeps_its_data)
{
    hello.last_wal_offset = 101;
    hello.last_epoch = 3;
    expect(NX_WIRE_ERROR_BEHIND_REPLICA,
           "stands at offset 100 of epoch 3, the replica already at 101");
    hello.last_epoch = 9;
    expect(NX_WIRE_ERROR_BEHIND_REPLICA, "epoch 9");
    hello.last_wal_offset = UINT64_MAX;
    expect(NX_WIRE_ERROR_BEHIND_REPLICA, "18446744073709551615");
    hello.last_epoch =
        2; /* our epoch began at or before 100: its entry 101 is of another history */
    expect_full_sync("histories differ");
}
END_TEST

START_TEST(an_empty_master_never_replaces_data)
{
    facts.position = (struct nx_position){.offset = 0};
    facts.epoch = 1;
    facts.oldest_kept = 1;
    facts.frame_known = false;
    expect(NX_WIRE_ERROR_BEHIND_REPLICA, "offset 0");
}
END_TEST

/* ---- histories ---- */

static struct nx_epochs ours;
static struct nx_epochs theirs;

static void begin(struct nx_epochs *epochs, uint64_t epoch, uint64_t first, const char *node_id)
{
    struct nx_epoch record = {.epoch = epoch, .first_offset = first, .crc = (uint32_t)first};

    ck_assert_int_eq(nx_uuid_parse(node_id, record.node_id), 0);
    ck_assert_int_eq(nx_epochs_add(epochs, &record, NULL), 0);
}

/* The replica's last epoch, with the entry that begins it; the Hello's claim. */
static void claim(uint64_t epoch, uint64_t first, const char *node_id)
{
    static uint8_t frame[NX_CLAIM_SIZE];
    uint8_t id[NX_OP_NODE_ID];
    struct nx_op op = {.kind = NX_OP_EPOCH, .key = {id, sizeof id}};
    struct nx_writer writer =
        nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, NX_OP_HEADER + NX_OP_NODE_ID);
    struct nx_entry_header header = {
        .offset = first,
        .epoch = epoch,
        .timestamp = 1,
        .op_count = 1,
        .ops_length = NX_OP_HEADER + NX_OP_NODE_ID,
    };
    struct nx_epoch record;

    ck_assert_int_eq(nx_uuid_parse(node_id, id), 0);
    ck_assert_int_eq(nx_op_encode(&writer, &op), 0);
    (void)nx_entry_finish(frame, &header);
    hello.claim = nx_slice_of(frame, sizeof frame);
    ck_assert_int_eq(nx_claim_decode(hello.claim, &record), 0);
    ck_assert_int_eq(nx_epochs_add(&theirs, &record, frame), 0);
    hello.last_epoch = epoch;
}

/* Epoch 3 began here at 81; the replica has epoch 2, of the same history. */
static void setup_histories(void)
{
    setup_welcome();
    memset(&ours, 0, sizeof ours);
    memset(&theirs, 0, sizeof theirs);
    facts.epochs = &ours;
    facts.theirs = &theirs;
    begin(&ours, 1, 1, OTHER);
    begin(&ours, 2, 31, REPLICA);
    begin(&ours, 3, 81, MASTER);
    begin(&theirs, 1, 1, OTHER);
    begin(&theirs, 2, 31, REPLICA);
}

START_TEST(a_history_that_is_a_part_of_ours)
{
    ck_assert_uint_eq(judged(), 0);
    ck_assert(!verdict.full_sync);
    facts.frame_epoch = 3;
    facts.frame_crc = 0x99;
    begin(&theirs, 3, 81, MASTER);
    hello.last_wal_offset = 90;
    hello.last_epoch = 3;
    hello.last_crc = 0x99;
    ck_assert_uint_eq(judged(), 0);
    ck_assert(!verdict.full_sync);
}
END_TEST

START_TEST(a_fork_before_the_position)
{
    hello.last_wal_offset = 85; /* of epoch 2, which ended with 80 */
    expect_full_sync("fork behind offset 80");
    hello.last_wal_offset = 150;
    expect_full_sync("fork behind offset 80");
    hello.last_wal_offset = 81;
    expect_full_sync("fork behind offset 80");
}
END_TEST

START_TEST(merely_further_in_the_same_epoch)
{
    begin(&theirs, 3, 81, MASTER);
    hello.last_wal_offset = 101;
    hello.last_epoch = 3;
    expect(NX_WIRE_ERROR_BEHIND_REPLICA, "it keeps its data");
}
END_TEST

START_TEST(a_proven_claim)
{
    begin(&theirs, 3, 81, MASTER);
    claim(4, 95, REPLICA);
    hello.last_wal_offset = 120;
    expect(NX_WIRE_ERROR_FENCED, "node " REPLICA " leads in epoch 4");
    ck_assert(verdict.claims);
    ck_assert_uint_eq(verdict.claim.epoch, 4);
    facts.draining = true; /* whatever this node is busy with */
    expect(NX_WIRE_ERROR_FENCED, "leads in epoch 4");
}
END_TEST

START_TEST(a_claim_of_an_epoch_beside_ours)
{
    claim(4, 90, REPLICA); /* promoted without having heard of our epoch 3 */
    expect(NX_WIRE_ERROR_FENCED, "leads in epoch 4");
    ck_assert(verdict.claims);
}
END_TEST

START_TEST(of_two_equal_epochs_the_lower_id_gives_way)
{
    claim(3, 88, REPLICA); /* REPLICA is the higher id */
    expect(NX_WIRE_ERROR_FENCED, "leads in epoch 3");
    ck_assert(verdict.claims);
    theirs.count--;
    claim(3, 88, "00000000-e29b-41d4-a716-446655440001");
    hello.last_wal_offset = 100;
    expect_full_sync("fork behind offset 80");
    ck_assert(!verdict.claims);
}
END_TEST

static void expect_unproven(void)
{
    expect(NX_WIRE_ERROR_BEHIND_REPLICA, "doesn't prove");
    ck_assert(!verdict.claims);
}

START_TEST(forged_claims)
{
    uint8_t broken[NX_CLAIM_SIZE];

    begin(&theirs, 3, 81, MASTER);
    claim(1004, 95, REPLICA); /* too far ahead */
    expect_unproven();
    theirs.count--;
    claim(4, 95, REPLICA);
    memcpy(broken, hello.claim.data, sizeof broken);
    broken[NX_CLAIM_SIZE - 1] ^= 1;
    hello.claim = nx_slice_of(broken, sizeof broken);
    expect_unproven(); /* no sound entry */
    hello.claim = nx_slice_text("");
    expect_unproven(); /* none */
    theirs.count--;
    begin(&theirs, 4, 96, REPLICA);
    theirs.count--;
    claim(4, 95, REPLICA);
    theirs.list[theirs.count - 1].first_offset = 96;
    expect_unproven(); /* not the entry that its history tells of */
    memset(&theirs, 0, sizeof theirs);
    begin(&theirs, 1, 1, REPLICA);
    claim(4, 95, REPLICA);
    expect_unproven(); /* another history */
    memset(&theirs, 0, sizeof theirs);
    claim(4, 95, REPLICA);
    expect_unproven(); /* no history */
}
END_TEST

START_TEST(a_claim_of_another_cluster)
{
    begin(&theirs, 3, 81, MASTER);
    claim(4, 95, REPLICA);
    hello.cluster_id = nx_slice_text(OTHER);
    expect(NX_WIRE_ERROR_OTHER_CLUSTER, "belongs to cluster");
    ck_assert(!verdict.claims);
    hello.last_wal_offset = 0;
    (void)judged();
    ck_assert(!verdict.claims);
}
END_TEST

START_TEST(a_master_without_an_entry)
{
    memset(&ours, 0, sizeof ours);
    memset(&theirs, 0, sizeof theirs);
    facts.position = (struct nx_position){.offset = 0};
    facts.epoch = 1;
    claim(2, 1, REPLICA);
    hello.last_wal_offset = 3;
    expect(NX_WIRE_ERROR_FENCED, "leads in epoch 2");
    ck_assert(verdict.claims);
}
END_TEST

START_TEST(a_fenced_master_says_who_leads)
{
    static const struct nx_fence fence = {.epoch = 7, .node_id = REPLICA, .addr = "10.0.0.2:15475"};

    facts.fence = &fence;
    expect(NX_WIRE_ERROR_FENCED, "node " REPLICA " leads in epoch 7");
    expect(NX_WIRE_ERROR_FENCED, "10.0.0.2:15475");
    ck_assert(!verdict.claims);
}
END_TEST

/* Both were promoted over this master, to the same epoch. */
START_TEST(a_twin_hears_of_the_higher_one)
{
    static struct nx_fence fence = {.epoch = 4, .node_id = "650e8400-e29b-41d4-a716-446655440001"};

    begin(&theirs, 3, 81, MASTER);
    claim(4, 95, REPLICA);
    facts.fence = &fence;
    expect(NX_WIRE_ERROR_FENCED, "node 650e8400-e29b-41d4-a716-446655440001 leads in epoch 4");
    ck_assert(!verdict.claims);
    fence.node_id[0] = '4';
    expect(NX_WIRE_ERROR_FENCED, "node " REPLICA " leads in epoch 4");
    ck_assert(verdict.claims);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("handshake");
    TCase *tcase = tcase_create("handshake");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tcase, setup_welcome, NULL);
    tcase_add_test(tcase, a_replica_of_this_history_is_welcome);
    tcase_add_test(tcase, an_empty_replica_is_welcome_while_all_entries_are_kept);
    tcase_add_test(tcase, the_oldest_kept_entry_may_still_be_asked_for);
    tcase_add_test(tcase, another_protocol_version);
    tcase_add_test(tcase, a_token);
    tcase_add_test(tcase, no_uuid);
    tcase_add_test(tcase, a_master_whose_replication_was_stopped);
    tcase_add_test(tcase, a_replica_names_its_master);
    tcase_add_test(tcase, a_node_that_stops);
    tcase_add_test(tcase, its_own_replica);
    tcase_add_test(tcase, another_cluster);
    tcase_add_test(tcase, too_many);
    tcase_add_test(tcase, data_of_no_cluster);
    tcase_add_test(tcase, another_history_at_the_same_offset);
    tcase_add_test(tcase, an_epoch_that_cannot_be_where_the_frame_is_gone);
    tcase_add_test(tcase, a_replica_beyond_the_master_keeps_its_data);
    tcase_add_test(tcase, an_empty_master_never_replaces_data);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("histories");
    tcase_add_checked_fixture(tcase, setup_histories, NULL);
    tcase_add_test(tcase, a_history_that_is_a_part_of_ours);
    tcase_add_test(tcase, a_fork_before_the_position);
    tcase_add_test(tcase, merely_further_in_the_same_epoch);
    tcase_add_test(tcase, a_proven_claim);
    tcase_add_test(tcase, a_claim_of_an_epoch_beside_ours);
    tcase_add_test(tcase, of_two_equal_epochs_the_lower_id_gives_way);
    tcase_add_test(tcase, forged_claims);
    tcase_add_test(tcase, a_claim_of_another_cluster);
    tcase_add_test(tcase, a_master_without_an_entry);
    tcase_add_test(tcase, a_fenced_master_says_who_leads);
    tcase_add_test(tcase, a_twin_hears_of_the_higher_one);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
