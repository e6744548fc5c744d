/* Reading the log for a replica: in order, over segments, beside a writer and a recycler. */
#include "wal_fixture.h"

#include <check.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define FIRST "00000000000000000001.wal"
#define CAP   ((size_t)8 << 20)

static struct wal wal;
static struct nx_wal_reader *reader;
static uint8_t *buf;

static void setup(void)
{
    wal_open(&wal);
    buf = malloc(CAP);
    ck_assert_ptr_nonnull(buf);
    ck_assert_int_eq(nx_wal_reader_open(wal.dir_fd, &reader), 0);
}

static void teardown(void)
{
    nx_wal_reader_close(reader);
    free(buf);
    wal_close(&wal);
}

/* The batch is whole frames from `from` to `to`. */
static void assert_frames(size_t length, uint64_t from, uint64_t to)
{
    struct nx_entry_header header;
    size_t used = 0;

    for (uint64_t offset = from; offset <= to; offset++) {
        ck_assert_int_eq(nx_entry_decode(buf + used, length - used, true, &header), 0);
        ck_assert_uint_eq(header.offset, offset);
        used += header.frame_length;
    }
    ck_assert_uint_eq(used, length);
}

static int copy(uint64_t from, uint64_t last, size_t cap, size_t *length, uint64_t *to)
{
    struct nx_log_chunk chunk = {.buf = buf, .cap = cap};
    int rc = nx_wal_reader_read(reader, from, last, &chunk);

    *length = chunk.length;
    *to = chunk.last;
    return rc;
}

/* Reads [from, last] in batches of at most cap bytes. Returns how many it took. */
static unsigned read_all(uint64_t from, uint64_t last, size_t cap)
{
    unsigned batches = 0;

    while (from <= last) {
        size_t length = 0;
        uint64_t to = 0;
        int rc = copy(from, last, cap, &length, &to);

        ck_assert_msg(rc == 0, "entry %" PRIu64 ": %d", from, rc);
        ck_assert_uint_ge(to, from);
        ck_assert_uint_le(to, last);
        ck_assert_uint_le(length, cap);
        assert_frames(length, from, to);
        from = to + 1;
        batches++;
    }
    return batches;
}

static int read_rc(uint64_t from, uint64_t last)
{
    size_t length;
    uint64_t to;

    return copy(from, last, CAP, &length, &to);
}

/* Five segments of 100 entries. */
static void five_segments(void)
{
    for (unsigned i = 0; i < 5; i++) {
        wal_segment(&wal);
        wal_append_n(&wal, 100);
    }
}

START_TEST(everything_is_read_in_order)
{
    five_segments();
    ck_assert_uint_eq(read_all(1, 500, CAP), 5); /* none beyond a segment */
}
END_TEST

START_TEST(small_batches_hold_whole_frames)
{
    five_segments();
    ck_assert_uint_eq(read_all(1, 500, 200), 500);
    ck_assert_uint_ge(read_all(1, 500, 1000), 500 / 6);
}
END_TEST

START_TEST(reading_begins_anywhere_and_ends_anywhere)
{
    five_segments();
    for (uint64_t from = 1; from <= 500; from += 37) {
        (void)read_all(from, from + 20 < 500 ? from + 20 : 500, CAP);
    }
    (void)read_all(500, 500, CAP);
    (void)read_all(100, 101, CAP);
    (void)read_all(1, 1, CAP);
}
END_TEST

START_TEST(reading_follows_a_writer)
{
    for (unsigned i = 0; i < 200; i++) {
        uint64_t before = wal.last.offset;

        if (i % 20 == 0) {
            wal_segment(&wal);
        }
        wal_append_n(&wal, i % 7 + 1);
        (void)read_all(before + 1, wal.last.offset, CAP);
    }
}
END_TEST

START_TEST(large_frames_are_read)
{
    size_t length = 0;
    uint64_t to;

    wal.segment_size = (uint64_t)16 << 20;
    wal_append_n(&wal, 3);
    for (unsigned i = 0; i < 5; i++) {
        wal_append(&wal, next_header(&wal), 1500000);
        wal_append_n(&wal, 1);
    }
    (void)read_all(1, 13, CAP);
    (void)read_all(1, 13, 1600000);
    ck_assert_int_eq(copy(4, 13, 1000000, &length, &to), -EMSGSIZE);
    ck_assert_uint_eq(length, 1500000 + 3 + NX_OP_HEADER + NX_ENTRY_OVERHEAD);
    ck_assert_int_eq(copy(4, 4, length, &length, &to), 0);
    assert_frames(length, 4, 4);
}
END_TEST

START_TEST(what_is_not_asked_for_may_be_anything)
{
    five_segments();
    wal_put_raw(&wal, "garbage", 7, wal.at);
    (void)read_all(450, 500, CAP);
}
END_TEST

START_TEST(entries_that_no_file_holds_are_not_there)
{
    ck_assert_int_eq(read_rc(1, 1), -ENOENT);
    wal.last.offset = 10;
    wal_append_n(&wal, 5);
    ck_assert_int_eq(read_rc(10, 15), -ENOENT);
    ck_assert_int_eq(read_rc(1, 15), -ENOENT);
    (void)read_all(11, 15, CAP);
}
END_TEST

START_TEST(entries_beyond_the_end_are_an_error)
{
    five_segments();
    ck_assert_int_eq(read_rc(501, 501), -EBADMSG);
    ck_assert_int_eq(read_rc(600, 601), -EBADMSG);
    (void)read_all(490, 500, CAP);
    wal_append_n(&wal, 1);
    (void)read_all(501, 501, CAP);
}
END_TEST

START_TEST(nonsense_is_refused)
{
    size_t length;
    uint64_t to;

    five_segments();
    ck_assert_int_eq(read_rc(0, 5), -EINVAL);
    ck_assert_int_eq(read_rc(6, 5), -EINVAL);
    ck_assert_int_eq(copy(1, 5, 40, &length, &to), -EINVAL);
}
END_TEST

START_TEST(damage_ends_a_batch_and_then_is_an_error)
{
    size_t length;
    uint64_t to = 0;
    uint64_t at;

    wal_append_n(&wal, 10);
    wal_append_n(&wal, 1);
    at = wal.frame_at;
    wal_append_n(&wal, 5);
    wal_flip(&wal, FIRST, at + 60);
    ck_assert_int_eq(copy(1, 16, CAP, &length, &to), 0);
    ck_assert_uint_eq(to, 10);
    ck_assert_int_eq(read_rc(11, 16), -EBADMSG);
    (void)read_all(12, 16, CAP); /* behind it all is well */
}
END_TEST

START_TEST(a_frame_that_does_not_follow_is_an_error)
{
    struct nx_entry_header header;
    size_t length;
    uint64_t to = 0;

    wal_append_n(&wal, 10);
    header = next_header(&wal);
    header.prev_crc ^= 1;
    wal_append(&wal, header, 10);
    ck_assert_int_eq(copy(1, 11, CAP, &length, &to), 0);
    ck_assert_uint_eq(to, 10);
    ck_assert_int_eq(read_rc(11, 11), -EBADMSG);
}
END_TEST

START_TEST(a_segment_recycled_under_the_reader_is_gone)
{
    five_segments();
    (void)read_all(1, 50, CAP);
    ck_assert_int_eq(nx_segment_recycle(wal.dir_fd, 1, 1, SEGMENT_SIZE, NULL), 0);
    ck_assert_int_eq(read_rc(51, 500), -ENOENT);
    (void)read_all(101, 500, CAP);
    /* And its file used again, for later entries. */
    (void)read_all(101, 150, CAP);
    ck_assert_int_eq(nx_segment_recycle(wal.dir_fd, 101, 2, SEGMENT_SIZE, NULL), 0);
    wal_segment(&wal);
    wal_append_n(&wal, 100);
    wal_segment(&wal);
    wal_append_n(&wal, 100);
    ck_assert_int_eq(read_rc(151, 700), -ENOENT);
    (void)read_all(201, 700, CAP);
}
END_TEST

START_TEST(a_damaged_segment_header_is_an_error)
{
    wal_append_n(&wal, 10);
    wal_flip(&wal, FIRST, 30);
    ck_assert_int_eq(read_rc(1, 10), -EBADMSG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_reader");
    TCase *tcase = tcase_create("reader");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, everything_is_read_in_order);
    tcase_add_test(tcase, small_batches_hold_whole_frames);
    tcase_add_test(tcase, reading_begins_anywhere_and_ends_anywhere);
    tcase_add_test(tcase, reading_follows_a_writer);
    tcase_add_test(tcase, large_frames_are_read);
    tcase_add_test(tcase, what_is_not_asked_for_may_be_anything);
    tcase_add_test(tcase, entries_that_no_file_holds_are_not_there);
    tcase_add_test(tcase, entries_beyond_the_end_are_an_error);
    tcase_add_test(tcase, nonsense_is_refused);
    tcase_add_test(tcase, damage_ends_a_batch_and_then_is_an_error);
    tcase_add_test(tcase, a_frame_that_does_not_follow_is_an_error);
    tcase_add_test(tcase, a_segment_recycled_under_the_reader_is_gone);
    tcase_add_test(tcase, a_damaged_segment_header_is_an_error);
    suite_add_tcase(suite, tcase);

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
