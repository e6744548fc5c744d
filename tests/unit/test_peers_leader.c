/* Who leads, by what other nodes say: one row a rule. */
#include "peers/leader.h"
#include "storage/data_dir.h"

#include <check.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOW     "10000000-0000-4000-8000-000000000000"
#define OURS    "20000000-0000-4000-8000-000000000000"
#define HIGH    "30000000-0000-4000-8000-000000000000"
#define CLUSTER "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
#define OTHER   "6ba7b811-9dad-11d1-80b4-00c04fd430c8"

static struct nx_self self;
static struct nx_peer_seen seen[4];
static char text[1024];

static void setup(void)
{
    self = (struct nx_self){.node_id = OURS, .cluster_id = CLUSTER, .epoch = 5};
}

static struct nx_peer_status status_of(enum nx_node_role role, const char *id, uint64_t epoch)
{
    struct nx_peer_status status = {
        .role = role, .cluster_id = CLUSTER, .epoch = epoch, .replication_addr = "10.0.0.1:15475"};

    (void)snprintf(status.node_id, sizeof status.node_id, "%s", id);
    return status;
}

static bool leads(struct nx_peer_status status)
{
    return nx_peer_leads_instead(&status, &self);
}

START_TEST(by_epoch_then_by_id)
{
    ck_assert(leads(status_of(NX_NODE_MASTER, LOW, 6)));
    ck_assert(leads(status_of(NX_NODE_MASTER, HIGH, 5)));
    ck_assert(!leads(status_of(NX_NODE_MASTER, LOW, 5)));
    ck_assert(!leads(status_of(NX_NODE_MASTER, HIGH, 4)));
    ck_assert(!leads(status_of(NX_NODE_MASTER, OURS, 6)));
}
END_TEST

START_TEST(who_has_yet_to_begin_an_epoch_yields)
{
    self.yields = true;
    ck_assert(leads(status_of(NX_NODE_MASTER, LOW, 5)));
    ck_assert(leads(status_of(NX_NODE_MASTER, HIGH, 5)));
    ck_assert(!leads(status_of(NX_NODE_MASTER, HIGH, 4)));
    ck_assert(!leads(status_of(NX_NODE_MASTER, OURS, 5)));
    ck_assert(!leads(status_of(NX_NODE_REPLICA, HIGH, 5)));
}
END_TEST

START_TEST(of_two_that_have_yet_to_begin_one_the_id_decides)
{
    struct nx_peer_status status = status_of(NX_NODE_MASTER, LOW, 5);

    self.yields = true;
    status.starting = true;
    ck_assert(!leads(status));
    (void)snprintf(self.led_by, sizeof self.led_by, LOW); /* it led before, and will again */
    ck_assert(leads(status));
    status = status_of(NX_NODE_MASTER, HIGH, 5);
    status.starting = true;
    ck_assert(leads(status));
}
END_TEST

START_TEST(a_replica_leads_nobody_but_may_know_more)
{
    ck_assert(!leads(status_of(NX_NODE_REPLICA, HIGH, 5)));
    ck_assert(leads(status_of(NX_NODE_REPLICA, LOW, 6)));
}
END_TEST

START_TEST(a_fenced_master_leads_no_longer)
{
    struct nx_peer_status status = status_of(NX_NODE_MASTER, HIGH, 5);

    status.fenced = true;
    ck_assert(!leads(status));
    status.epoch = 6;
    ck_assert(leads(status));
}
END_TEST

START_TEST(another_cluster_is_nothing_to_us)
{
    struct nx_peer_status status = status_of(NX_NODE_MASTER, HIGH, 6);

    (void)snprintf(status.cluster_id, sizeof status.cluster_id, OTHER);
    ck_assert(!leads(status));
    status.cluster_id[0] = '\0';
    self.cluster_id[0] = '\0';
    ck_assert(!leads(status));
}
END_TEST

START_TEST(an_epoch_that_cannot_be)
{
    ck_assert(leads(status_of(NX_NODE_MASTER, LOW, 1005)));
    ck_assert(!leads(status_of(NX_NODE_MASTER, LOW, 1006)));
    ck_assert(!leads(status_of(NX_NODE_REPLICA, LOW, INT64_MAX)));
}
END_TEST

static const char *chosen(unsigned count)
{
    return nx_leader_choose(seen, count, &self, text, sizeof text) ? text : "nobody";
}

START_TEST(the_highest_master)
{
    seen[0] = (struct nx_peer_seen){"10.0.0.1:15474", true, status_of(NX_NODE_MASTER, HIGH, 6)};
    seen[1] = (struct nx_peer_seen){"10.0.0.2:15474", true, status_of(NX_NODE_MASTER, LOW, 7)};
    seen[2] = (struct nx_peer_seen){"10.0.0.3:15474", true, status_of(NX_NODE_REPLICA, HIGH, 9)};
    seen[1].status.replication_addr[0] = '\0';
    ck_assert_str_eq(chosen(3), "7 " LOW " - 10.0.0.2:15474");
    ck_assert_str_eq(chosen(1), "6 " HIGH " 10.0.0.1:15475 10.0.0.1:15474");
}
END_TEST

START_TEST(somebody_leads)
{
    seen[0] = (struct nx_peer_seen){"10.0.0.3:15474", true, status_of(NX_NODE_REPLICA, HIGH, 6)};
    seen[1] = (struct nx_peer_seen){"10.0.0.4:15474", true, status_of(NX_NODE_MASTER, LOW, 8)};
    seen[1].status.fenced = true;
    ck_assert_str_eq(chosen(2), "8 " NX_NODE_NOBODY " - -");
}
END_TEST

START_TEST(whoever_is_not_believed_does_not_lead)
{
    seen[0] = (struct nx_peer_seen){"10.0.0.1:15474", false, status_of(NX_NODE_MASTER, HIGH, 7)};
    seen[1] = (struct nx_peer_seen){"10.0.0.3:15474", false, status_of(NX_NODE_REPLICA, HIGH, 8)};
    ck_assert_str_eq(chosen(2), "nobody");
    seen[2] = (struct nx_peer_seen){"10.0.0.2:15474", true, status_of(NX_NODE_MASTER, LOW, 6)};
    ck_assert_str_eq(chosen(3), "6 " LOW " 10.0.0.1:15475 10.0.0.2:15474");
}
END_TEST

/* ---- what a history proves ---- */

static struct nx_epochs ours;
static struct nx_epochs theirs;

static void lead(struct nx_epochs *epochs, uint64_t epoch, uint64_t first_offset, const char *id)
{
    struct nx_epoch added = {.epoch = epoch, .first_offset = first_offset, .crc = (uint32_t)epoch};

    ck_assert_int_eq(nx_uuid_parse(id, added.node_id), 0);
    ck_assert_int_eq(nx_epochs_add(epochs, &added, NULL), 0);
}

/* Ours ends with our epoch 5, theirs is the same. */
static void histories(void)
{
    ours.count = 0;
    lead(&ours, 1, 1, LOW);
    lead(&ours, 5, 10, OURS);
    theirs = ours;
}

static bool proves(struct nx_peer_status status)
{
    return nx_peer_proves(&status, &theirs, &ours);
}

START_TEST(a_history_that_goes_on_from_ours)
{
    histories();
    lead(&theirs, 6, 20, HIGH);
    ck_assert(proves(status_of(NX_NODE_MASTER, HIGH, 6)));
    ck_assert(proves(status_of(NX_NODE_REPLICA, LOW, 6)));
    lead(&theirs, 9, 30, LOW);
    ck_assert(proves(status_of(NX_NODE_MASTER, LOW, 9)));
}
END_TEST

START_TEST(a_history_that_parted_from_ours)
{
    histories();
    theirs.count = 1;
    lead(&theirs, 5, 10, HIGH); /* both were promoted to it */
    ck_assert(proves(status_of(NX_NODE_MASTER, HIGH, 5)));
}
END_TEST

START_TEST(no_more_than_it_shows)
{
    histories();
    ck_assert(!proves(status_of(NX_NODE_MASTER, HIGH, 905))); /* our own, told back to us */
    ck_assert(!proves(status_of(NX_NODE_MASTER, HIGH, 5)));
    lead(&theirs, 6, 20, HIGH);
    ck_assert(!proves(status_of(NX_NODE_MASTER, HIGH, 7)));
    ck_assert(!proves(status_of(NX_NODE_MASTER, LOW, 6)));
    ck_assert(!proves(status_of(NX_NODE_REPLICA, LOW, 7)));
}
END_TEST

START_TEST(a_history_of_somebody_else)
{
    histories();
    theirs.count = 0;
    ck_assert(!proves(status_of(NX_NODE_MASTER, HIGH, 6)));
    lead(&theirs, 1, 1, HIGH);
    lead(&theirs, 6, 20, HIGH);
    ck_assert(!proves(status_of(NX_NODE_MASTER, HIGH, 6)));
    ours.count = 0; /* not known */
    ck_assert(!proves(status_of(NX_NODE_MASTER, HIGH, 6)));
}
END_TEST

START_TEST(an_empty_log_begins_any_history)
{
    struct nx_peer_status status = status_of(NX_NODE_MASTER, HIGH, 6);

    theirs.count = 0;
    ck_assert(!nx_peer_proves(&status, &theirs, NULL));
    lead(&theirs, 6, 1, HIGH);
    ck_assert(nx_peer_proves(&status, &theirs, NULL));
}
END_TEST

START_TEST(nobody_else)
{
    seen[0] = (struct nx_peer_seen){"10.0.0.3:15474", true, status_of(NX_NODE_REPLICA, HIGH, 5)};
    ck_assert_str_eq(chosen(1), "nobody");
    ck_assert_str_eq(chosen(0), "nobody");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peers_leader");
    TCase *tests = tcase_create("leaders");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, by_epoch_then_by_id);
    tcase_add_test(tests, who_has_yet_to_begin_an_epoch_yields);
    tcase_add_test(tests, of_two_that_have_yet_to_begin_one_the_id_decides);
    tcase_add_test(tests, a_replica_leads_nobody_but_may_know_more);
    tcase_add_test(tests, a_fenced_master_leads_no_longer);
    tcase_add_test(tests, another_cluster_is_nothing_to_us);
    tcase_add_test(tests, an_epoch_that_cannot_be);
    tcase_add_test(tests, the_highest_master);
    tcase_add_test(tests, somebody_leads);
    tcase_add_test(tests, whoever_is_not_believed_does_not_lead);
    tcase_add_test(tests, a_history_that_goes_on_from_ours);
    tcase_add_test(tests, a_history_that_parted_from_ours);
    tcase_add_test(tests, no_more_than_it_shows);
    tcase_add_test(tests, a_history_of_somebody_else);
    tcase_add_test(tests, an_empty_log_begins_any_history);
    tcase_add_test(tests, nobody_else);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
