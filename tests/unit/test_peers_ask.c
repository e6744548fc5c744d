/* A promotion asks the others: promises, positions, the verdict, and the withdrawal where it is no. */
#include "peers_fixture.h"

#include <errno.h>

#define BODY(epoch) " {\"epoch\": " epoch ", \"node_id\": \"" OURS "\"}\n"

static const char *refusal_answer(const char *code, uint64_t epoch)
{
    char body[256];

    (void)snprintf(body, sizeof body,
                   "{\"status\": 409, \"code\": \"%s\", \"epoch\": %llu, \"message\": \"No.\"}",
                   code, (unsigned long long)epoch);
    return http_answer(409, body);
}

static void ask(bool sync)
{
    process.peers.epoch = 4;
    process.peers.sync = sync;
    start_job(NX_PEERS_ASK);
}

static const char *expect_verdict(int32_t status, uint64_t epoch)
{
    const struct nx_control_message *message = hear();

    ck_assert_uint_eq(message->type, NX_CONTROL_VERDICT);
    ck_assert_msg(message->status == status, "status %d: %s", message->status, message->text);
    ck_assert_uint_eq(message->arg, epoch);
    if (status ==
        0) { /* the epoch has begun; who has been promised nothing may have ended already */
        int rc = nx_control_send(channel, NX_CONTROL_DONE, 0, 0, NULL);

        ck_assert_msg(rc == 0 || rc == -EPIPE, "%d", rc);
    }
    return message->text;
}

static void expect_part(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "\"%s\" in \"%s\"", part, text);
}

static void follow(const char *http_addr)
{
    struct nx_receiver_state *receiver = &shm->receiver;

    (void)snprintf(receiver->master_http, sizeof receiver->master_http, "%s", http_addr);
    (void)snprintf(process.peers.master_addr, NX_ADDR_TEXT, "10.0.0.1:15475");
    atomic_store_explicit(&receiver->master_offset, 103, memory_order_release);
    atomic_store_explicit(&receiver->last_frame_ms, nx_now_ms(), memory_order_release);
    atomic_store_explicit(&receiver->master_heard, 1, memory_order_release);
    atomic_store_explicit(&receiver->welcomed, 1, memory_order_release);
    atomic_store_explicit(&receiver->master_known, 1, memory_order_release);
}

START_TEST(nobody_to_ask)
{
    const char *text;

    (void)snprintf(process.peers.master_addr, NX_ADDR_TEXT, "%s", node_refusing()->addr);
    ask(false);
    text = expect_verdict(0, 4);
    expect_part(text, "\"missing_entries\":0,\"master_seconds_ago\":null,\"master_answers\":false,"
                      "\"unreached_peers\":[],\"sync_loss_possible\":false,\"warnings\":[");
    fprintf(stderr, "verdict after %llu us\n", (unsigned long long)(nx_now_us() - job_began_us));
    expect_end();
}
END_TEST

START_TEST(a_master_that_only_listens)
{
    (void)snprintf(process.peers.master_addr, NX_ADDR_TEXT, "%s", node_listen()->addr);
    ask(false);
    expect_part(expect_verdict(0, 4), "\"master_answers\":true");
    expect_end();
}
END_TEST

START_TEST(the_master_answers)
{
    struct node *master = node_listen();
    const char *text;

    ANSWERS(master, status_answer("master", "streaming", HIGH, 3, 105, ""));
    follow(master->addr);
    ask(false);
    text = expect_verdict(0, 4);
    expect_part(text, "\"missing_entries\":5,\"master_seconds_ago\":");
    expect_part(text, "\"master_answers\":true");
    expect_end();
}
END_TEST

START_TEST(the_master_is_one_no_longer)
{
    struct node *master = node_listen();
    const char *text;

    ANSWERS(master, status_answer("master", _i == 0 ? "fenced" : "streaming", HIGH,
                                  _i == 0 ? 3 : 5000, 105, ""));
    follow(master->addr);
    ask(false);
    text = expect_verdict(0, 4);
    expect_part(text, "\"missing_entries\":3");
    expect_part(text, "\"master_answers\":false");
    expect_end();
}
END_TEST

START_TEST(a_master_that_hangs)
{
    follow(node_listen()->addr);
    atomic_store_explicit(&shm->receiver.master_dead, 1, memory_order_release);
    ask(false);
    expect_part(expect_verdict(0, 4), "\"master_answers\":false");
    expect_end();
}
END_TEST

START_TEST(promises_are_enough)
{
    struct node *a = node_listen();

    ANSWERS(a, promise_answer(LOW, 3, 100));
    add_peer(a->addr);
    add_peer(node_refusing()->addr); /* the former master */
    atomic_store_explicit(&shm->receiver.welcomed, 1, memory_order_release);
    ask(true);
    expect_part(expect_verdict(0, 4), "\"sync_loss_possible\":false");
    expect_asked(a, "POST /replication/promise" BODY("4"), 1);
    expect_end();
}
END_TEST

START_TEST(too_few_promises_are_withdrawn)
{
    struct node *a = node_listen();
    struct node *b = node_listen();

    ANSWERS(a, promise_answer(LOW, 3, 100), http_answer(503, "{}"), http_answer(200, "{}"));
    ANSWERS(b, refusal_answer("wrong_role", 0),
            status_answer("master", "streaming", HIGH, 3, 120, ""));
    add_peer(a->addr);
    add_peer(b->addr);
    add_peer(node_refusing()->addr);
    ask(true); /* three replicas, all three positions are needed */
    expect_part(expect_verdict(-ECANCELED, 4), "quorum_not_seen In sync mode 3 positions of 3");
    expect_asked(b, "GET /replication/status ", 1); /* who is it that refuses? */
    expect_asked(a, "DELETE /replication/promise" BODY("4"), 2);
    expect_end();
    ck_assert_ptr_null(strstr(b->asked, "DELETE"));
}
END_TEST

START_TEST(a_promise_whose_answer_is_lost_is_withdrawn_too)
{
    struct node *a = node_listen();

    ANSWERS(a, "", http_answer(404, "{}"));
    add_peer(a->addr);
    add_peer(node_refusing()->addr);
    ask(true);
    expect_verdict(-ECANCELED, 4);
    expect_asked(a, "DELETE /replication/promise" BODY("4"), 1);
    expect_end();
}
END_TEST

START_TEST(another_has_more)
{
    struct node *a = node_listen();

    ANSWERS(a, promise_answer(LOW, 3, 101), http_answer(200, "{}"));
    add_peer(a->addr);
    process.peers.force = _i == 1;
    ask(false);
    if (_i == 0) {
        expect_part(expect_verdict(-ECANCELED, 4), "not_most_advanced Node " LOW " at ");
        expect_asked(a, "DELETE /replication/promise" BODY("4"), 1);
    } else {
        expect_part(expect_verdict(0, 4), "\"missing_entries\":1,");
    }
    expect_end();
}
END_TEST

START_TEST(a_higher_epoch_was_promised)
{
    struct node *a = node_listen();
    struct node *b = node_listen();

    ANSWERS(a, refusal_answer("role_change", 6),
            status_answer("replica", "streaming", LOW, 3, 100, ""), promise_answer(LOW, 3, 100));
    ANSWERS(b, promise_answer(HIGH, 3, 99));
    add_peer(a->addr);
    add_peer(b->addr);
    ask(true);
    expect_verdict(0, 7);
    expect_asked(a, "POST /replication/promise" BODY("7"), 1);
    expect_asked(b, "POST /replication/promise" BODY("7"), 1);
    expect_end();
}
END_TEST

START_TEST(whoever_outbids_us_for_ever)
{
    struct node *a = node_listen();

    ANSWERS(
        a, refusal_answer("role_change", 6), status_answer("replica", "streaming", LOW, 3, 100, ""),
        refusal_answer("role_change", 8), status_answer("replica", "streaming", LOW, 3, 100, ""),
        refusal_answer("role_change", 10), status_answer("replica", "streaming", LOW, 3, 100, ""));
    add_peer(a->addr);
    ask(false);
    expect_verdict(0, 11);
    expect_end();
}
END_TEST

START_TEST(an_epoch_that_nobody_believes)
{
    struct node *a = node_listen();

    ANSWERS(a, refusal_answer("role_change", 1004));
    add_peer(a->addr);
    ask(false);
    expect_part(expect_verdict(0, 4), "it claims epoch 1004, this node is in 3");
    expect_end();
}
END_TEST

START_TEST(a_dry_run_promises_nothing)
{
    struct node *a = node_listen();
    struct node *b = node_listen();

    ANSWERS(a, status_answer("replica", "streaming", LOW, 3, 100, ""));
    ANSWERS(b, status_answer("master", "fenced", HIGH, 9, 90, ""));
    add_peer(a->addr);
    add_peer(b->addr);
    process.peers.dry_run = true;
    process.peers.force = _i == 1;
    ask(true);
    if (_i == 0) { /* the fenced one is in a higher epoch */
        expect_part(expect_verdict(-ECANCELED, 10), "not_most_advanced Node " HIGH);
    } else {
        expect_part(expect_verdict(0, 10), "\"sync_loss_possible\":true");
    }
    expect_end();
    expect_asked(a, "GET /replication/status ", 1);
    ck_assert_ptr_null(strstr(a->asked, "promise"));
}
END_TEST

/* Its status tells the position that its promise would. */
START_TEST(a_dry_run_hears_of_a_full_sync_that_is_not_complete)
{
    static const char body[] = "{\"role\": \"replica\", \"state\": \"connecting\", \"node_id\": "
                               "\"" LOW "\", \"cluster_id\": \"" CLUSTER
                               "\", \"epoch\": 1, \"durable_offset\": 0, \"last_crc\": 0, "
                               "\"sync_goal\": {\"epoch\": 3, \"offset\": 104}}\n";
    struct node *a = node_listen();

    ANSWERS(a, http_answer(200, body));
    add_peer(a->addr);
    process.peers.dry_run = true;
    ask(true);
    expect_part(expect_verdict(-ECANCELED, 4), "has offset 104 of epoch 3, this node only ");
    expect_end();
}
END_TEST

START_TEST(this_node_and_strangers_in_the_list)
{
    struct node *a = node_listen();
    struct node *b = node_listen();
    char body[512];
    char part[128];

    (void)snprintf(body, sizeof body,
                   "{\"success\": true, \"epoch\": 9, \"offset\": 999, \"crc\": 1, \"node_id\": "
                   "\"" LOW "\", \"cluster_id\": \"" OTHER "\"}");
    ANSWERS(a, promise_answer(OURS, 3, 100));
    ANSWERS(b, http_answer(200, body));
    add_peer(a->addr);
    add_peer(b->addr);
    ask(true); /* one replica: this one */
    (void)snprintf(part, sizeof part, "\"unreached_peers\":[\"%s\"]", b->addr);
    expect_part(expect_verdict(0, 4), part);
    expect_end();
}
END_TEST

START_TEST(a_stop_is_heard_at_once)
{
    struct node *a = node_listen();

    if (_i == 0) {
        add_peer(a->addr); /* while it asks */
        ask(true);
    } else {
        ANSWERS(a, promise_answer(LOW, 3, 101), http_answer(503, "{}")); /* while it withdraws */
        add_peer(a->addr);
        ask(true);
        expect_verdict(-ECANCELED, 4);
        expect_asked(a, "DELETE", 2);
    }
    stop();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, nobody_to_ask);
    tcase_add_test(tests, a_master_that_only_listens);
    tcase_add_test(tests, the_master_answers);
    tcase_add_loop_test(tests, the_master_is_one_no_longer, 0, 2);
    tcase_add_test(tests, a_master_that_hangs);
    tcase_add_test(tests, promises_are_enough);
    tcase_add_test(tests, too_few_promises_are_withdrawn);
    tcase_add_test(tests, a_promise_whose_answer_is_lost_is_withdrawn_too);
    tcase_add_loop_test(tests, another_has_more, 0, 2);
    tcase_add_test(tests, a_higher_epoch_was_promised);
    tcase_add_test(tests, whoever_outbids_us_for_ever);
    tcase_add_test(tests, an_epoch_that_nobody_believes);
    tcase_add_loop_test(tests, a_dry_run_promises_nothing, 0, 2);
    tcase_add_test(tests, a_dry_run_hears_of_a_full_sync_that_is_not_complete);
    tcase_add_test(tests, this_node_and_strangers_in_the_list);
    tcase_add_loop_test(tests, a_stop_is_heard_at_once, 0, 2);
}

int main(int argc, char **argv)
{
    return run_suite("peers_ask", add, argc, argv);
}
