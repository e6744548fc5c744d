/* Deleting what has expired, step by step in this process: only the version that expired, wherever it stands, and each
 * once. The log has no file here: a group is taken for committed when the test says so. */
#include "checkpointer/merge.h"
#include "common/log_clock.h"
#include "common/quorum.h"
#include "state_fixture.h"
#include "walwriter/walwriter.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define NOW_MS 1000000000000ull /* of the log clock as each test begins, and for an hour */
#define HOUR   3600000ull

static struct walwriter w;
static struct nx_process process;
static struct nx_state *writer; /* the checkpointer's */

static void setup(void)
{
    shm_setup();
    state_dir_make();
    writer = state_open(true);
    w = (struct walwriter){.process = &process, .shm = shm, .epoch = 1};
    w.state = state_open(false);
    w.answers = calloc(NX_GROUP_MAX_ANSWERS, sizeof *w.answers);
    w.file.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    w.file.size = UINT64_MAX / 2;
    nx_log_writer_init(&w.log, shm, 1);
    nx_room_start(&w);
    w.group_first = 1;
    nx_log_clock_set(shm, NOW_MS * 1000);
    atomic_store(&shm->control.role, NX_NODE_STANDALONE);
    atomic_store(&shm->control.phase, NX_PHASE_SERVING);
}

static void teardown(void)
{
    nx_lookup_end(&w);
    nx_expire_end(&w);
    nx_state_close(w.state);
    nx_state_close(writer);
    close(w.file.fd);
    free(w.answers);
    state_dir_remove();
    shm_teardown();
}

/* The group is durable. */
static void commit(void)
{
    nx_log_publish(shm, w.last.offset, w.last.epoch, w.last.crc);
    atomic_store(&shm->log.synced_offset, w.last.offset);
    w.group_first = w.log.newest + 1;
    w.group_bytes = 0;
    w.group_timestamp = 0;
    w.answer_count = 0;
}

static void append(const struct nx_op *op)
{
    size_t size = nx_op_encoded_size(op);
    uint64_t pos;
    uint8_t *frame = nx_room_make(&w, nx_entry_frame_size(size), 1, &pos);
    struct nx_writer out;

    ck_assert_ptr_nonnull(frame);
    out = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, size);
    ck_assert_int_eq(nx_op_encode(&out, op), 0);
    nx_group_append_ops(&w, frame, pos, size, 1);
    commit();
}

static void put(const char *key, uint64_t expires_at)
{
    struct nx_op op = put_op(key, "v");

    op.flags = expires_at != 0 ? NX_OP_HAS_EXPIRY : 0;
    op.expires_at = expires_at;
    append(&op);
}

static void erase(const char *key)
{
    struct nx_op op = delete_op(key);

    append(&op);
}

/* Seals the running generation, merges it, and frees it. */
static void merge(void)
{
    uint64_t number = w.generation;
    struct nx_merge_result result;

    atomic_store(&shm->checkpoint.seal_wanted, w.log.newest);
    nx_room_seal_if_due(&w);
    ck_assert_uint_eq(w.generation, number + 1);
    ck_assert_int_eq(nx_merge_generation(shm, writer, number, w.log.newest, &result), 0);
    atomic_store(&shm->checkpoint.merged_generation, number);
    atomic_store(&shm->checkpoint.seal_wanted, 0);
}

static void merge_and_free(void)
{
    merge();
    /* Freed when its place is needed. */
    for (unsigned i = 0; i < NX_GENERATIONS - 1; i++) {
        erase("filler");
        merge();
    }
    ck_assert_uint_ge(w.oldest_generation, 2);
}

/* One step; the keys that it deletes, separated by spaces. */
static const char *step(void)
{
    static char keys[4096];
    uint64_t before = w.log.newest;
    struct nx_entry_header header;
    struct nx_op_iter iter;
    struct iovec runs[2];
    struct nx_op op;

    keys[0] = '\0';
    w.expire.not_before_us = 0;
    ck_assert_int_eq(nx_expire_step(&w), 0);
    if (w.log.newest == before) {
        return keys;
    }
    commit();
    ck_assert_uint_eq(w.log.newest, before + 1);
    ck_assert_int_eq(nx_log_runs(shm, w.log.newest, w.log.newest, runs), 1);
    ck_assert_int_eq(nx_entry_decode(runs[0].iov_base, runs[0].iov_len, true, &header), 0);
    nx_op_iter_init(&iter, header.ops, header.ops_length, header.op_count);
    while (nx_op_next(&iter, &op) > 0) {
        size_t used = strlen(keys);

        ck_assert_int_eq(op.kind, NX_OP_DELETE);
        ck_assert_int_eq(op.flags, NX_OP_EXPIRED);
        (void)snprintf(keys + used, sizeof keys - used, "%s%.*s", used > 0 ? " " : "",
                       (int)op.key.length, (const char *)op.key.data);
    }
    return keys;
}

START_TEST(nothing_is_due_before_its_time)
{
    put("a", NOW_MS + HOUR);
    put("b", 0);
    ck_assert_str_eq(step(), "");
    ck_assert(!nx_expire_due(&w));
    ck_assert_int_gt(nx_expire_wait(&w), 0);
    ck_assert_int_le(nx_expire_wait(&w), (int)HOUR + 100);
}
END_TEST

START_TEST(without_expiries_nobody_is_woken)
{
    put("a", 0);
    ck_assert_str_eq(step(), "");
    ck_assert_int_eq(nx_expire_wait(&w), -1);
}
END_TEST

START_TEST(what_is_due_goes_in_the_order_of_its_time)
{
    put("late", NOW_MS - 101);
    put("early", NOW_MS - 103);
    put("middle", NOW_MS - 102);
    put("not yet", NOW_MS + HOUR);
    ck_assert_str_eq(step(), "early middle late");
    ck_assert_str_eq(step(), "");
}
END_TEST

START_TEST(only_the_version_that_expired_goes)
{
    put("written again", NOW_MS - 109);
    put("kept", NOW_MS - 109);
    put("gone", NOW_MS - 109);
    put("sooner", NOW_MS + HOUR);
    put("written again", NOW_MS + HOUR);
    put("kept", 0);
    erase("gone");
    put("sooner", NOW_MS - 101);
    ck_assert_str_eq(step(), "sooner");
}
END_TEST

START_TEST(what_is_merged_is_found_in_the_state)
{
    put("a", NOW_MS - 102);
    put("b", NOW_MS - 101);
    put("c", NOW_MS + HOUR);
    merge_and_free();
    ck_assert_uint_eq(w.expire.heaps[0].count + w.expire.heaps[1].count + w.expire.heaps[2].count,
                      0);
    ck_assert_str_eq(step(), "a b");
    ck_assert_str_eq(step(), "");
    ck_assert(!nx_expire_due(&w));
    ck_assert_int_gt(nx_expire_wait(&w), 0);
}
END_TEST

START_TEST(a_row_of_a_version_that_was_replaced_since_is_passed)
{
    put("a", NOW_MS - 102);
    put("b", NOW_MS - 101);
    merge_and_free();
    put("a", 0);
    ck_assert_str_eq(step(), "b");
    ck_assert_str_eq(step(), "");
}
END_TEST

START_TEST(nothing_is_deleted_twice_while_the_deletion_is_not_merged)
{
    put("a", NOW_MS - 102);
    merge_and_free();
    ck_assert_str_eq(step(), "a");
    w.expire.passed = (struct nx_expiring){.expires_at = 0}; /* as after a restart */
    w.expire.state_due_ms = 0;
    ck_assert_str_eq(step(), "");
    merge_and_free();
    w.expire.passed = (struct nx_expiring){.expires_at = 0};
    ck_assert_str_eq(step(), "");
}
END_TEST

/* Rows come to the state's index behind the place that it was looked at, when their generation was freed before its
 * heap was through. */
START_TEST(what_a_freed_generation_left_is_found_behind)
{
    put("a", NOW_MS - 101);
    merge_and_free();
    ck_assert_str_eq(step(), "a");
    put("b", NOW_MS - 105);
    merge_and_free();
    ck_assert_str_eq(step(), "b");
}
END_TEST

START_TEST(without_memory_for_the_heap_the_state_is_gone_through_anew)
{
    put("a", NOW_MS - 101);
    merge_and_free();
    ck_assert_str_eq(step(), "a");
    put("b", NOW_MS - 105);
    nx_expiry_heap_free(&w.expire.heaps[w.generation % NX_GENERATIONS]);
    w.expire.lost[w.generation % NX_GENERATIONS] = true;
    ck_assert_str_eq(step(), "");
    merge_and_free();
    ck_assert_str_eq(step(), "b");
}
END_TEST

START_TEST(a_generation_that_is_merged_but_not_free_counts_once)
{
    put("a", NOW_MS - 101);
    put("b", NOW_MS + HOUR);
    merge();
    ck_assert_str_eq(step(), "a");
    merge();
    ck_assert_str_eq(step(), "");
}
END_TEST

static unsigned count_words(const char *text)
{
    unsigned count = text[0] == '\0' ? 0 : 1;

    for (; *text != '\0'; text++) {
        count += *text == ' ' ? 1 : 0;
    }
    return count;
}

static void put_many(unsigned count, uint64_t late_ms)
{
    char key[16];

    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "k%u", i);
        put(key, nx_log_clock_ms(shm) - late_ms);
    }
}

/* Lateness counts: one key more for each 4 ms. Tests may be held up, so bounds are wide. */
START_TEST(a_step_takes_few_beside_clients_writes_and_more_alone)
{
    ck_assert_str_eq(step(), "");
    put_many(2000, 20);
    w.answer_count = 1;
    unsigned riding = count_words(step());
    unsigned alone = count_words(step());

    ck_assert_uint_ge(riding, 16);
    ck_assert_uint_gt(alone, riding);
    ck_assert_uint_le(alone, 256);
}
END_TEST

START_TEST(what_is_late_goes_faster_but_not_without_bound)
{
    ck_assert_str_eq(step(), ""); /* the state is known to hold nothing */
    put_many(2000, 60000);
    w.answer_count = 1;
    ck_assert_uint_eq(count_words(step()), 256);
    ck_assert_uint_eq(count_words(step()), 256);
}
END_TEST

/* Versions that were replaced cost a look each, and there may be any number of them. */
START_TEST(replaced_versions_are_passed_a_thousand_at_a_time)
{
    for (unsigned i = 0; i < 3000; i++) {
        put("often", NOW_MS - 500);
    }
    put("often", 0);
    ck_assert_str_eq(step(), "");
    w.expire.not_before_us = 0;
    ck_assert(nx_expire_due(&w));
    ck_assert_str_eq(step(), "");
    ck_assert_str_eq(step(), "");
    ck_assert_str_eq(step(), "");
    ck_assert_uint_eq(w.expire.heaps[0].count + w.expire.heaps[1].count + w.expire.heaps[2].count,
                      0);
}
END_TEST

START_TEST(a_group_that_is_full_takes_no_deletion)
{
    put("a", NOW_MS - 101);
    w.group_bytes = NX_GROUP_MAX_BYTES - 100;
    ck_assert_str_eq(step(), "");
    w.group_bytes = 0;
    ck_assert_str_eq(step(), "a");
}
END_TEST

START_TEST(a_moment_that_never_comes_is_never_due)
{
    put("a", UINT64_MAX);
    put("b", UINT64_MAX - 3);
    ck_assert_str_eq(step(), "");
    ck_assert(!nx_expire_due(&w));
}
END_TEST

static const enum nx_node_role no_masters[] = {NX_NODE_REPLICA, NX_NODE_MASTER, NX_NODE_MASTER};

START_TEST(who_does_not_lead_deletes_nothing)
{
    put("a", NOW_MS - 101);
    atomic_store(&shm->control.role, (uint32_t)no_masters[_i]);
    atomic_store(&shm->fence.fenced, _i == 1 ? 1 : 0);
    atomic_store(&shm->control.phase, _i == 2 ? NX_PHASE_DRAINING : NX_PHASE_SERVING);
    ck_assert_str_eq(step(), "");
    ck_assert_int_eq(nx_expire_wait(&w), -1);
    atomic_store(&shm->control.role, NX_NODE_MASTER);
    atomic_store(&shm->control.phase, NX_PHASE_SERVING);
    atomic_store(&shm->fence.fenced, 0);
    ck_assert_str_eq(step(), "a");
}
END_TEST

START_TEST(a_quorum_that_is_far_behind_must_catch_up_first)
{
    put("a", NOW_MS - 101);
    for (unsigned i = 0; i < 20000; i++) {
        put("b", 0);
    }
    atomic_store(&shm->control.role, NX_NODE_MASTER);
    atomic_store(&shm->quorum.rule, NX_COMMIT_QUORUM);
    nx_quorum_raise(shm, 100);
    ck_assert_str_eq(step(), "");
    nx_quorum_raise(shm, w.log.newest);
    ck_assert_str_eq(step(), "a");
}
END_TEST

START_TEST(an_expired_key_is_absent_to_writers)
{
    bool exists = true;
    struct nx_slice value;

    put("a", NOW_MS - 101);
    put("b", NOW_MS + HOUR);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(nx_lookup_exists(&w, nx_slice_text("a"), &exists), 0);
        ck_assert(!exists);
        ck_assert_int_eq(nx_lookup_value(&w, nx_slice_text("a"), &value), -ENOENT);
        ck_assert_int_eq(nx_lookup_exists(&w, nx_slice_text("b"), &exists), 0);
        ck_assert(exists);
        ck_assert_int_eq(nx_lookup_value(&w, nx_slice_text("b"), &value), 0);
        ck_assert(nx_slice_equal(value, nx_slice_text("v")));
        nx_lookup_end(&w);
        if (i == 0) {
            merge_and_free();
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("expire");
    TCase *tests = tcase_create("steps");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, nothing_is_due_before_its_time);
    tcase_add_test(tests, without_expiries_nobody_is_woken);
    tcase_add_test(tests, what_is_due_goes_in_the_order_of_its_time);
    tcase_add_test(tests, only_the_version_that_expired_goes);
    tcase_add_test(tests, what_is_merged_is_found_in_the_state);
    tcase_add_test(tests, a_row_of_a_version_that_was_replaced_since_is_passed);
    tcase_add_test(tests, nothing_is_deleted_twice_while_the_deletion_is_not_merged);
    tcase_add_test(tests, what_a_freed_generation_left_is_found_behind);
    tcase_add_test(tests, without_memory_for_the_heap_the_state_is_gone_through_anew);
    tcase_add_test(tests, a_generation_that_is_merged_but_not_free_counts_once);
    tcase_add_test(tests, a_step_takes_few_beside_clients_writes_and_more_alone);
    tcase_add_test(tests, what_is_late_goes_faster_but_not_without_bound);
    tcase_add_test(tests, replaced_versions_are_passed_a_thousand_at_a_time);
    tcase_add_test(tests, a_group_that_is_full_takes_no_deletion);
    tcase_add_test(tests, a_moment_that_never_comes_is_never_due);
    tcase_add_loop_test(tests, who_does_not_lead_deletes_nothing, 0, 3);
    tcase_add_test(tests, a_quorum_that_is_far_behind_must_catch_up_first);
    tcase_add_test(tests, an_expired_key_is_absent_to_writers);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
