/* Epoch histories: where two logs part, who leads, and what a claim proves. */
#include "common/epochs.h"
#include "common/shm_layout.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct nx_epochs a;
static struct nx_epochs b;

static void setup(void)
{
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
}

static struct nx_epoch epoch_of(uint64_t number, uint64_t first, uint8_t node)
{
    struct nx_epoch epoch = {.epoch = number, .first_offset = first};

    memset(epoch.node_id, node, sizeof epoch.node_id);
    epoch.crc = number == 1 ? 0 : (uint32_t)(number * 1000 + first * 10 + node);
    return epoch;
}

static void add(struct nx_epochs *epochs, uint64_t number, uint64_t first, uint8_t node)
{
    struct nx_epoch epoch = epoch_of(number, first, node);

    ck_assert_int_eq(nx_epochs_add(epochs, &epoch, NULL), 0);
}

START_TEST(who_led_since_an_epoch)
{
    static const char ours[] = "07070707-0707-0707-0707-070707070707";

    ck_assert(!nx_epochs_led_since(&a, 0, ours));
    ck_assert(!nx_epochs_led_since(&a, 1, ours));
    add(&a, 1, 1, 1);
    add(&a, 2, 10, 7);
    ck_assert(nx_epochs_led_since(&a, 2, ours));
    ck_assert(!nx_epochs_led_since(&a, 1, ours)); /* another's */
    ck_assert(!nx_epochs_led_since(&a, 3, ours)); /* not begun */
    add(&a, 5, 20, 7);
    ck_assert(nx_epochs_led_since(&a, 2, ours));
    ck_assert(nx_epochs_led_since(&a, 5, ours));
    ck_assert(!nx_epochs_led_since(&a, 4, ours));
    add(&a, 6, 30, 2);
    add(&a, 7, 40, 7);
    ck_assert(!nx_epochs_led_since(&a, 5, ours)); /* another one led between */
    ck_assert(nx_epochs_led_since(&a, 7, ours));
    ck_assert(!nx_epochs_led_since(&a, 7, "08080808-0808-0808-0808-080808080808"));
}
END_TEST

/* The frame of an epoch entry, as the walwriter makes it. */
static struct nx_slice claim_of(uint64_t number, uint64_t offset, uint8_t node)
{
    static uint8_t frame[NX_CLAIM_SIZE];
    uint8_t node_id[NX_OP_NODE_ID];
    struct nx_op op = {.kind = NX_OP_EPOCH, .key = {node_id, sizeof node_id}};
    struct nx_writer writer =
        nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, NX_OP_HEADER + NX_OP_NODE_ID);
    struct nx_entry_header header = {.offset = offset,
                                     .epoch = number,
                                     .timestamp = 5,
                                     .op_count = 1,
                                     .ops_length = NX_OP_HEADER + NX_OP_NODE_ID};

    memset(node_id, node, sizeof node_id);
    ck_assert_int_eq(nx_op_encode(&writer, &op), 0);
    (void)nx_entry_finish(frame, &header);
    return nx_slice_of(frame, sizeof frame);
}

/* Where one log of `first` and one of `second` entries part, whichever is asked of which. */
static void expect_fork(uint64_t first, uint64_t second, uint64_t fork)
{
    uint64_t found = UINT64_MAX;
    uint64_t turned = UINT64_MAX;

    ck_assert(nx_epochs_fork(&a, first, &b, second, &found));
    ck_assert(nx_epochs_fork(&b, second, &a, first, &turned));
    ck_assert_uint_eq(found, fork);
    ck_assert_uint_eq(turned, fork);
}

START_TEST(one_log_that_is_shorter)
{
    add(&a, 1, 1, 1);
    add(&b, 1, 1, 1);
    expect_fork(100, 60, 60);
    add(&a, 2, 61, 2);
    expect_fork(100, 60, 60);
    expect_fork(100, 70, 60); /* what b has beyond is not a's */
}
END_TEST

START_TEST(two_promotions_from_one_history)
{
    add(&a, 1, 1, 1);
    add(&b, 1, 1, 1);
    add(&a, 2, 61, 2);
    add(&b, 2, 51, 3);
    expect_fork(100, 100, 50);
}
END_TEST

START_TEST(a_fork_within_a_later_epoch)
{
    add(&a, 1, 1, 1);
    add(&b, 1, 1, 1);
    add(&a, 3, 41, 2);
    add(&b, 3, 41, 2);
    add(&a, 7, 90, 1);
    expect_fork(120, 100, 89);
    expect_fork(120, 80, 80);
    add(&b, 9, 101, 2);
    expect_fork(120, 130, 89);
}
END_TEST

START_TEST(nothing_in_common)
{
    uint64_t fork;

    ck_assert(!nx_epochs_fork(&a, 10, &b, 10, &fork));
    add(&a, 1, 1, 1);
    ck_assert(!nx_epochs_fork(&a, 10, &b, 10, &fork));
    add(&b, 1, 1, 2);
    ck_assert(!nx_epochs_fork(&a, 10, &b, 10, &fork));
}
END_TEST

START_TEST(an_unknown_node_is_the_same_one)
{
    add(&a, 1, 1, 0);
    add(&b, 1, 1, 7);
    expect_fork(10, 20, 10);
    ck_assert(nx_epochs_have(&b, &a.list[0]));
}
END_TEST

START_TEST(leadership_is_by_epoch_and_then_by_node)
{
    struct nx_epoch low = epoch_of(2, 50, 9);
    struct nx_epoch high = epoch_of(3, 40, 1);
    struct nx_epoch twin = epoch_of(3, 40, 2);

    ck_assert_int_lt(nx_epoch_compare(&low, &high), 0);
    ck_assert_int_lt(nx_epoch_compare(&high, &twin), 0);
    ck_assert_int_gt(nx_epoch_compare(&twin, &high), 0);
    ck_assert_int_eq(nx_epoch_compare(&high, &high), 0);
}
END_TEST

START_TEST(which_epoch_an_entry_is_of)
{
    add(&a, 2, 10, 1);
    add(&a, 5, 20, 1);
    ck_assert_uint_eq(nx_epochs_at(&a, 9), 0);
    ck_assert_uint_eq(nx_epochs_at(&a, 10), 2);
    ck_assert_uint_eq(nx_epochs_at(&a, 19), 2);
    ck_assert_uint_eq(nx_epochs_at(&a, 20), 5);
    ck_assert_uint_eq(nx_epochs_at(&a, 1000), 5);
    ck_assert_uint_eq(nx_epochs_end_of(&a, 2), 19);
    ck_assert_uint_eq(nx_epochs_end_of(&a, 5), UINT64_MAX);
    ck_assert_uint_eq(nx_epochs_end_of(&a, 3), 0);
    nx_epochs_cut(&a, 19);
    ck_assert_uint_eq(a.count, 1);
    nx_epochs_cut(&a, 9);
    ck_assert_uint_eq(a.count, 0);
}
END_TEST

START_TEST(the_oldest_go)
{
    struct nx_epoch back = epoch_of(4, 1000000, 1);

    for (uint64_t i = 1; i <= NX_WIRE_MAX_EPOCHS + 5; i++) {
        add(&a, i, i * 10, 1);
    }
    ck_assert_uint_eq(a.count, NX_WIRE_MAX_EPOCHS);
    ck_assert_uint_eq(a.list[0].epoch, 6);
    ck_assert_int_eq(nx_epochs_add(&a, &back, NULL), -EINVAL);
    back.epoch = NX_WIRE_MAX_EPOCHS + 6;
    back.first_offset = 5;
    ck_assert_int_eq(nx_epochs_add(&a, &back, NULL), -EINVAL);
}
END_TEST

START_TEST(bytes_and_back)
{
    static uint8_t bytes[NX_EPOCHS_BYTES];
    size_t n;

    add(&a, 1, 1, 1);
    add(&a, 4, 77, 3);
    n = nx_epochs_encode(&a, bytes);
    ck_assert_uint_eq(n, (size_t)2 * NX_WIRE_EPOCH_SIZE);
    ck_assert_int_eq(nx_epochs_decode(nx_slice_of(bytes, n), &b), 0);
    ck_assert_uint_eq(b.count, 2);
    ck_assert(nx_epoch_same(&a.list[1], &b.list[1]));
    ck_assert_int_eq(nx_epochs_decode(nx_slice_of(bytes, n - 1), &b), -EBADMSG);
    ck_assert_uint_eq(b.count, 0);
    ck_assert_int_eq(nx_epochs_decode(nx_slice_of(bytes, 0), &b), 0);
    memcpy(bytes + NX_WIRE_EPOCH_SIZE, bytes, NX_WIRE_EPOCH_SIZE); /* the same twice */
    ck_assert_int_eq(nx_epochs_decode(nx_slice_of(bytes, n), &b), -EBADMSG);
}
END_TEST

START_TEST(a_claim_is_a_whole_epoch_entry)
{
    struct nx_slice claim = claim_of(3, 41, 2);
    uint8_t broken[NX_CLAIM_SIZE];
    struct nx_epoch epoch;

    ck_assert_int_eq(nx_claim_decode(claim, &epoch), 0);
    ck_assert_uint_eq(epoch.epoch, 3);
    ck_assert_uint_eq(epoch.first_offset, 41);
    ck_assert_uint_eq(epoch.node_id[0], 2);
    for (size_t i = 0; i < claim.length; i++) {
        memcpy(broken, claim.data, claim.length);
        broken[i] ^= 1;
        ck_assert_int_eq(nx_claim_decode(nx_slice_of(broken, sizeof broken), &epoch), -EBADMSG);
    }
    ck_assert_int_eq(nx_claim_decode(nx_slice_of(claim.data, claim.length - 1), &epoch), -EBADMSG);
}
END_TEST

START_TEST(the_shared_table)
{
    struct nx_shm *shm = calloc(1, sizeof *shm);
    struct nx_epoch second = epoch_of(2, 50, 1);

    ck_assert_ptr_nonnull(shm);
    add(&a, 1, 1, 1);
    ck_assert_int_eq(nx_epochs_add(&a, &second, claim_of(2, 50, 1).data), 0);
    nx_epochs_publish(shm, &a);
    ck_assert_int_eq(nx_epochs_read(shm, 50, &b), 0);
    ck_assert_uint_eq(b.count, 2);
    ck_assert_uint_eq(b.claim_length, NX_CLAIM_SIZE);
    ck_assert_int_eq(nx_epochs_read(shm, 49, &b), 0); /* its entry isn't durable yet */
    ck_assert_uint_eq(b.count, 1);
    ck_assert_uint_eq(b.claim_length, 0);
    atomic_store_explicit(&shm->epochs.version, 7, memory_order_relaxed); /* stopped half-way */
    ck_assert_int_eq(nx_epochs_read(shm, 50, &b), -EAGAIN);
    ck_assert_uint_eq(b.count, 0);
    free(shm);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("epochs");
    TCase *tcase = tcase_create("epochs");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, who_led_since_an_epoch);
    tcase_add_test(tcase, one_log_that_is_shorter);
    tcase_add_test(tcase, two_promotions_from_one_history);
    tcase_add_test(tcase, a_fork_within_a_later_epoch);
    tcase_add_test(tcase, nothing_in_common);
    tcase_add_test(tcase, an_unknown_node_is_the_same_one);
    tcase_add_test(tcase, leadership_is_by_epoch_and_then_by_node);
    tcase_add_test(tcase, which_epoch_an_entry_is_of);
    tcase_add_test(tcase, the_oldest_go);
    tcase_add_test(tcase, bytes_and_back);
    tcase_add_test(tcase, a_claim_is_a_whole_epoch_entry);
    tcase_add_test(tcase, the_shared_table);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
