/* The arena and its index: wrap-around, giving up old entries, pins, copies that are overtaken. */
#include "common/entry.h"
#include "common/shared_log.h"
#include "shm_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

static struct nx_log_writer writer;

static void setup(void)
{
    shm_setup();
    nx_log_writer_init(&writer, shm, 1);
}

/* Appends `length` bytes that tell their offset, and publishes them. */
static bool append(size_t length)
{
    uint64_t pos;
    uint8_t *place = nx_log_reserve(&writer, length, NX_LOG_RESERVE, &pos);

    if (place == NULL) {
        return false;
    }
    memset(place, (int)((writer.newest + 1) & 0xff), length);
    nx_log_commit(&writer, pos, length);
    nx_log_publish(shm, writer.newest, 1, (uint32_t)writer.newest);
    return true;
}

/* Copies frames [from, to] into a buffer, as many as fit. */
static struct nx_log_chunk copy(uint64_t from, uint64_t to, size_t cap, int expected)
{
    static uint8_t buf[1 << 20];
    struct nx_log_chunk chunk = {.buf = buf, .cap = cap};

    ck_assert_int_eq(nx_log_read(shm, from, to, &chunk), expected);
    return chunk;
}

START_TEST(what_is_appended_is_read_back_in_order)
{
    for (int i = 0; i < 10; i++) {
        ck_assert(append(100));
    }
    struct nx_log_chunk all = copy(1, 10, 1000, 0);

    ck_assert_uint_eq(all.length, 1000);
    ck_assert_uint_eq(all.last, 10);
    for (size_t i = 0; i < 1000; i++) {
        ck_assert_uint_eq(all.buf[i], i / 100 + 1);
    }
    struct nx_log_chunk some = copy(3, 10, 250, 0);

    ck_assert_uint_eq(some.length, 200);
    ck_assert_uint_eq(some.last, 4);
}
END_TEST

START_TEST(a_frame_larger_than_the_buffer_says_how_large)
{
    ck_assert(append(5000));
    ck_assert_uint_eq(copy(1, 1, 100, -EMSGSIZE).length, 5000);
}
END_TEST

START_TEST(old_entries_are_given_up_when_the_arena_wraps)
{
    uint64_t count = shm->arena_size / 100000 * 3;
    struct nx_log_chunk chunk;

    writer.pinned_offset = UINT64_MAX; /* nothing is pinned */
    for (uint64_t i = 0; i < count; i++) {
        ck_assert(append(100000));
    }
    uint64_t oldest = atomic_load_explicit(&shm->log.oldest_offset, memory_order_relaxed);

    ck_assert_uint_gt(oldest, 1);
    (void)copy(oldest - 1, count, 1 << 20, -ERANGE);
    for (uint64_t from = oldest; from <= count; from = chunk.last + 1) {
        chunk = copy(from, count, 1 << 20, 0);
        ck_assert_uint_eq(chunk.buf[0], from & 0xff);
        ck_assert_uint_eq(chunk.buf[chunk.length - 1], chunk.last & 0xff);
    }
}
END_TEST

START_TEST(pinned_entries_stay)
{
    uint64_t appended = 0;

    writer.pinned_offset = 1;
    while (append(100000)) {
        appended++;
    }
    ck_assert_uint_ge(appended, shm->arena_size / 100000 - 2);
    ck_assert_uint_eq(atomic_load_explicit(&shm->log.oldest_offset, memory_order_relaxed), 1);
    writer.pinned_offset = 3;
    ck_assert(append(100000));
}
END_TEST

START_TEST(the_largest_entry_fits_an_empty_log_at_any_position)
{
    writer.pinned_offset = UINT64_MAX;
    for (int i = 0; i < 7; i++) {
        ck_assert(append(3000001));
        ck_assert(append(NX_ENTRY_MAX_FRAME));
    }
}
END_TEST

START_TEST(the_index_gives_up_before_it_wraps)
{
    writer.pinned_offset = UINT64_MAX;
    for (uint64_t i = 0; i < shm->index_count * 2; i++) {
        ck_assert(append(50));
    }
    uint64_t oldest = atomic_load_explicit(&shm->log.oldest_offset, memory_order_relaxed);

    ck_assert_uint_lt(writer.newest - oldest, shm->index_count);
}
END_TEST

START_TEST(runs_cover_a_group_across_the_wrap)
{
    struct iovec runs[2];

    writer.pinned_offset = UINT64_MAX;
    while (writer.next_pos % shm->arena_size + 300000 <= shm->arena_size) {
        ck_assert(append(100000));
    }
    uint64_t first = writer.newest + 1;

    for (int i = 0; i < 5; i++) {
        ck_assert(append(100000));
    }
    int count = nx_log_runs(shm, first, writer.newest, runs);

    ck_assert_int_eq(count, 2);
    ck_assert_uint_eq(runs[0].iov_len + runs[1].iov_len, 500000);
    ck_assert_uint_eq(((const uint8_t *)runs[0].iov_base)[0], first & 0xff);
}
END_TEST

START_TEST(the_position_is_of_one_moment)
{
    uint64_t offset;
    uint64_t epoch;
    uint32_t crc;

    nx_log_publish(shm, 42, 7, 99);
    nx_log_position(shm, &offset, &epoch, &crc);
    ck_assert_uint_eq(offset, 42);
    ck_assert_uint_eq(epoch, 7);
    ck_assert_uint_eq(crc, 99);
}
END_TEST

START_TEST(the_bytes_between_two_entries)
{
    for (size_t i = 1; i <= 10; i++) {
        ck_assert(append(100 * i));
    }
    ck_assert_uint_eq(nx_log_bytes_between(shm, 10, 10), 0);
    ck_assert_uint_eq(nx_log_bytes_between(shm, 12, 10), 0); /* waits for what is still to come */
    ck_assert_uint_eq(nx_log_bytes_between(shm, 9, 10), 1000);
    ck_assert_uint_eq(nx_log_bytes_between(shm, 7, 9), 800 + 900);
    ck_assert_uint_eq(nx_log_bytes_between(shm, 0, 10), 5500);
    writer.pinned_offset = UINT64_MAX;
    while (atomic_load(&shm->log.oldest_offset) < 5) {
        ck_assert(append(1 << 20));
    }
    ck_assert_uint_eq(nx_log_bytes_between(shm, 3, writer.newest), UINT64_MAX);
    ck_assert_uint_gt(nx_log_bytes_between(shm, writer.newest - 2, writer.newest), 2 << 20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shared_log");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, shm_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, what_is_appended_is_read_back_in_order);
    tcase_add_test(tcase, a_frame_larger_than_the_buffer_says_how_large);
    tcase_add_test(tcase, old_entries_are_given_up_when_the_arena_wraps);
    tcase_add_test(tcase, pinned_entries_stay);
    tcase_add_test(tcase, the_largest_entry_fits_an_empty_log_at_any_position);
    tcase_add_test(tcase, the_index_gives_up_before_it_wraps);
    tcase_add_test(tcase, runs_cover_a_group_across_the_wrap);
    tcase_add_test(tcase, the_position_is_of_one_moment);
    tcase_add_test(tcase, the_bytes_between_two_entries);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
