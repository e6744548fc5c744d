/* Whether a replica may be promoted: one row a rule, each a change to a cluster where it may. */
#include "peers/verdict.h"

#include <check.h>
#include <json-c/json.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nx_promotion promotion;
static struct nx_promotion_verdict verdict;
static struct json_object *answer;

/* Five nodes, sync_quorum 2: of four replicas three positions are needed. The master is gone; this node and two others
 * are at 100 of epoch 3, the last replica is not reached. */
static void setup(void)
{
    promotion = (struct nx_promotion){
        .sync = true,
        .epoch = 4,
        .quorum = 2,
        .ours = {.epoch = 3, .offset = 100},
        .master_addr = "10.0.0.1:15475",
        .master_heard = true,
        .welcomed = true,
        .master_silent_ms = 15042,
        .master_offset = 100,
        .count = 4,
    };
    for (unsigned i = 0; i < promotion.count; i++) {
        struct nx_peer_fact *peer = &promotion.peers[i];

        (void)snprintf(peer->addr, sizeof peer->addr, "10.0.0.%u:15474", i + 1);
        peer->answer = i == 0 || i == 3 ? NX_PEER_UNREACHED : NX_PEER_PROMISES;
        (void)snprintf(peer->why, sizeof peer->why, "no connection");
        if (peer->answer == NX_PEER_PROMISES) {
            peer->placed = true;
            peer->position = promotion.ours;
            peer->epoch = 3;
        }
    }
}

static void teardown(void)
{
    json_object_put(answer);
    answer = NULL;
}

/* Judges; the members of the answer are read. */
static int judged(void)
{
    static char whole[NX_CONTROL_TEXT + 2];

    teardown();
    memset(&verdict, 0xA5, sizeof verdict);
    nx_promotion_judge(&promotion, &verdict);
    ck_assert_uint_lt(strlen(verdict.text), NX_CONTROL_TEXT);
    if (verdict.status == 0) {
        ck_assert_uint_le(strlen(verdict.text), 3900);
        (void)snprintf(whole, sizeof whole, "{%s}", verdict.text);
        answer = json_tokener_parse(whole);
        ck_assert_msg(answer != NULL, "no JSON: %s", whole);
        ck_assert_int_eq(json_object_object_length(answer), 6);
    }
    return verdict.status;
}

static const char *member(const char *name)
{
    struct json_object *value = NULL;

    ck_assert_msg(json_object_object_get_ex(answer, name, &value), "%s is missing", name);
    return value == NULL ? "null" : json_object_to_json_string(value);
}

static void expect_refused(const char *code, const char *part)
{
    ck_assert_int_eq(judged(), -ECANCELED);
    ck_assert_msg(strncmp(verdict.text, code, strlen(code)) == 0, "%s", verdict.text);
    ck_assert_msg(strstr(verdict.text, part) != NULL, "\"%s\" in \"%s\"", part, verdict.text);
    ck_assert_msg(strstr(verdict.text, "?force=1") != NULL, "%s", verdict.text);
}

static void expect_warned(const char *part)
{
    ck_assert_int_eq(judged(), 0);
    ck_assert_msg(strstr(member("warnings"), part) != NULL, "\"%s\" in %s", part,
                  member("warnings"));
}

START_TEST(it_may)
{
    ck_assert_int_eq(judged(), 0);
    ck_assert(!verdict.forced);
    ck_assert_str_eq(verdict.broken, "");
    ck_assert_str_eq(member("missing_entries"), "0");
    ck_assert_str_eq(member("master_seconds_ago"), "15.042");
    ck_assert_str_eq(member("master_answers"), "false");
    ck_assert_str_eq(member("sync_loss_possible"), "false");
    ck_assert_str_eq(member("unreached_peers"), "[ \"10.0.0.1:15474\", \"10.0.0.4:15474\" ]");
    ck_assert_ptr_nonnull(
        strstr(member("warnings"), "Not reached: 10.0.0.1:15474 (no connection)"));
}
END_TEST

START_TEST(one_position_too_few)
{
    promotion.peers[2].answer = NX_PEER_UNREACHED;
    expect_refused("quorum_not_seen ", "3 positions of 4 replicas");
    expect_refused("quorum_not_seen ", "only 2 are.");
    expect_refused("quorum_not_seen ", "10.0.0.4:15474 (no connection)");
    promotion.force = true;
    expect_warned("By force although");
    ck_assert(verdict.forced);
    ck_assert_str_eq(member("sync_loss_possible"), "true");
}
END_TEST

START_TEST(a_refusal_is_no_position)
{
    promotion.peers[2].answer = NX_PEER_REFUSES;
    (void)snprintf(promotion.peers[2].why, sizeof promotion.peers[2].why, "wrong_role: No.");
    expect_refused("quorum_not_seen ", "Not promised: 10.0.0.3:15474 (wrong_role: No.)");
    promotion.sync = false;
    expect_warned("Not promised: 10.0.0.3:15474 (wrong_role: No.)");
    ck_assert_str_eq(member("sync_loss_possible"), "false");
}
END_TEST

START_TEST(all_replicas_are_the_quorum)
{
    promotion.quorum = 4;
    for (unsigned i = 0; i < promotion.count; i++) {
        promotion.peers[i].answer = NX_PEER_UNREACHED;
    }
    ck_assert_int_eq(judged(), 0); /* this one has all that was confirmed */
    ck_assert_str_eq(member("sync_loss_possible"), "false");
    promotion.quorum = 9;
    ck_assert_int_eq(judged(), 0);
}
END_TEST

START_TEST(this_node_in_its_own_list)
{
    promotion.peers[0].answer = NX_PEER_SELF;
    promotion.peers[2].answer = NX_PEER_UNREACHED;
    ck_assert_int_eq(judged(), 0); /* two of three replicas */
    ck_assert_str_eq(member("unreached_peers"), "[ \"10.0.0.3:15474\", \"10.0.0.4:15474\" ]");
    promotion.count = 1;
    expect_warned("replication.peers is empty");
    ck_assert_str_eq(member("sync_loss_possible"), "true");
}
END_TEST

START_TEST(another_is_further)
{
    promotion.peers[1].position.offset = 103;
    (void)snprintf(promotion.peers[1].node_id, NX_UUID_TEXT,
                   "550e8400-e29b-41d4-a716-446655440000");
    expect_refused("not_most_advanced ",
                   "Node 550e8400-e29b-41d4-a716-446655440000 at 10.0.0.2:15474 has offset 103 of "
                   "epoch 3, this node only 100 of epoch 3.");
    promotion.sync = false;
    expect_refused("not_most_advanced ", "10.0.0.2:15474");
    promotion.force = true;
    expect_warned("3 entries are missing here: offset 103");
    ck_assert_str_eq(member("missing_entries"), "3");
    ck_assert_str_eq(member("sync_loss_possible"), "false");
    promotion.sync = true;
    ck_assert_int_eq(judged(), 0);
    ck_assert_str_eq(member("sync_loss_possible"), "true");
}
END_TEST

START_TEST(a_higher_epoch_is_further_whatever_its_offset)
{
    promotion.peers[1].position = (struct nx_position){.epoch = 4, .offset = 5};
    expect_refused("not_most_advanced ", "offset 5 of epoch 4");
    promotion.peers[1].position = (struct nx_position){.epoch = 2, .offset = 500};
    ck_assert_int_eq(judged(), 0);
    ck_assert_str_eq(member("missing_entries"), "0"); /* those are of another history */
}
END_TEST

START_TEST(a_refusing_replica_may_be_further_too)
{
    promotion.peers[2].answer = NX_PEER_REFUSES;
    promotion.peers[2].position.offset = 101;
    expect_refused("not_most_advanced ", "10.0.0.3:15474");
    promotion.peers[2].leads = true; /* the master: it has more, and is no candidate */
    promotion.sync = false;
    ck_assert_int_eq(judged(), 0);
    ck_assert_str_eq(member("missing_entries"), "1");
    promotion.peers[2]
        .position.epoch++; /* promoted meanwhile: this promotion would undo that one */
    expect_refused("not_most_advanced ", "10.0.0.3:15474");
}
END_TEST

START_TEST(a_master_that_answers)
{
    promotion.master_answers = true;
    promotion.master_offset = 117;
    expect_warned("The master at 10.0.0.1:15475 still answers: stop it first");
    ck_assert_str_eq(member("missing_entries"), "17");
    ck_assert_str_eq(member("master_answers"), "true");
}
END_TEST

START_TEST(a_master_that_was_never_heard)
{
    promotion.master_heard = false;
    promotion.master_offset = 0;
    ck_assert_int_eq(judged(), 0);
    ck_assert_str_eq(member("master_seconds_ago"), "null");
}
END_TEST

START_TEST(nobody_to_ask)
{
    promotion.count = 0;
    expect_warned("replication.peers is empty");
    ck_assert_str_eq(member("sync_loss_possible"), "true");
    ck_assert_str_eq(member("unreached_peers"), "[ ]");
    promotion.sync = false;
    ck_assert_int_eq(judged(), 0);
    ck_assert_str_eq(member("sync_loss_possible"), "false");
}
END_TEST

START_TEST(the_mode_is_lost)
{
    promotion.becomes_async = true;
    expect_warned("replication.mode is async");
}
END_TEST

START_TEST(a_master_that_was_not_heard_may_have_confirmed_by_itself)
{
    promotion.sync = true;
    promotion.welcomed = true;
    ck_assert_int_eq(judged(), 0);
    ck_assert_str_eq(member("sync_loss_possible"), "false");
    promotion.welcomed = false;
    expect_warned("The master was not heard since this node's start");
    ck_assert_str_eq(member("sync_loss_possible"), "true");
    for (unsigned i = 0; i < promotion.count; i++) {
        promotion.peers[i].answer = NX_PEER_PROMISES; /* the former master's too */
    }
    ck_assert_int_eq(judged(), 0);
    ck_assert_str_eq(member("sync_loss_possible"), "false");
}
END_TEST

START_TEST(a_full_sync_that_is_not_complete)
{
    promotion.sync_goal = 120;
    expect_refused("not_most_advanced", "it has offset 100, and had 120 of this history before");
    promotion.sync = false;
    expect_refused("not_most_advanced", "Let it follow a master");
    promotion.sync = true;
    promotion.force = true;
    expect_warned("By force although a rule forbids it: This node's last full sync");
    ck_assert_str_eq(member("sync_loss_possible"), "true");
    ck_assert_str_eq(member("missing_entries"), "20");
}
END_TEST

/* That comes so far by force alone. */
START_TEST(a_node_that_was_never_synced)
{
    promotion.first_goal = 130;
    promotion.force = true;
    expect_warned("By force although a rule forbids it: This replica was never synced");
    ck_assert_str_eq(member("sync_loss_possible"), "true");
    ck_assert_str_eq(member("missing_entries"), "30");
}
END_TEST

START_TEST(writes_wait_for_replicas)
{
    promotion.confirms = true;
    promotion.quorum = 2;
    expect_warned("writes wait until 2 replicas follow this node");
}
END_TEST

START_TEST(the_highest_epoch_spoken_of)
{
    ck_assert_uint_eq(nx_promotion_highest_epoch(&promotion), 3);
    promotion.peers[3].epoch = 99; /* not reached: it counts for nothing */
    ck_assert_uint_eq(nx_promotion_highest_epoch(&promotion), 3);
    promotion.peers[1].answer = NX_PEER_REFUSES;
    promotion.peers[1].epoch = 8;
    ck_assert_uint_eq(nx_promotion_highest_epoch(&promotion), 8);
    promotion.master_epoch = 9;
    ck_assert_uint_eq(nx_promotion_highest_epoch(&promotion), 9);
}
END_TEST

/* _i: 0: forced, 1: refused. Every text is as long as it can be. */
START_TEST(lists_are_cut_where_they_are_too_long)
{
    promotion.count = NX_MOST_PEERS;
    promotion.force = _i == 0;
    promotion.master_answers = true;
    promotion.becomes_async = true;
    promotion.confirms = true;
    memset(promotion.master_addr, 'm', sizeof promotion.master_addr - 1);
    for (unsigned i = 0; i < promotion.count; i++) {
        struct nx_peer_fact *peer = &promotion.peers[i];

        *peer = (struct nx_peer_fact){.answer = i < 16 ? NX_PEER_UNREACHED : NX_PEER_REFUSES};
        memset(peer->addr, 'a', sizeof peer->addr - 1);
        memset(peer->why, '"', sizeof peer->why - 1);
    }
    if (_i == 0) {
        ck_assert_int_eq(judged(), 0);
        ck_assert_ptr_nonnull(strstr(member("warnings"), "still answers"));
    } else {
        expect_refused("quorum_not_seen ", "31 positions of 32");
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peers_verdict");
    TCase *tests = tcase_create("promotions");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, it_may);
    tcase_add_test(tests, one_position_too_few);
    tcase_add_test(tests, a_refusal_is_no_position);
    tcase_add_test(tests, all_replicas_are_the_quorum);
    tcase_add_test(tests, this_node_in_its_own_list);
    tcase_add_test(tests, another_is_further);
    tcase_add_test(tests, a_higher_epoch_is_further_whatever_its_offset);
    tcase_add_test(tests, a_refusing_replica_may_be_further_too);
    tcase_add_test(tests, a_master_that_answers);
    tcase_add_test(tests, a_master_that_was_never_heard);
    tcase_add_test(tests, nobody_to_ask);
    tcase_add_test(tests, the_mode_is_lost);
    tcase_add_test(tests, a_full_sync_that_is_not_complete);
    tcase_add_test(tests, a_node_that_was_never_synced);
    tcase_add_test(tests, writes_wait_for_replicas);
    tcase_add_test(tests, a_master_that_was_not_heard_may_have_confirmed_by_itself);
    tcase_add_test(tests, the_highest_epoch_spoken_of);
    tcase_add_loop_test(tests, lists_are_cut_where_they_are_too_long, 0, 2);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
