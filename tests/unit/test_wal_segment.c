/* WAL files: headers, names, the mark, and files prepared, recycled and begun, whatever a kill or a
 * power cut left behind. */
#include "common/crc32.h"
#include "storage/wal_segment.h"
#include "wal_fixture.h"

#include <check.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#define FIRST   "00000000000000000001.wal"
#define SEVENTH "00000000000000000007.wal"

static struct wal wal;

static void setup(void)
{
    wal_open(&wal);
}

static void teardown(void)
{
    wal_close(&wal);
}

static struct nx_segment_header header_of(uint64_t first_offset)
{
    struct nx_segment_header header = {.first_offset = first_offset, .epoch = 3};

    memcpy(header.cluster_id, test_cluster, sizeof test_cluster);
    return header;
}

static void put_file(const char *name, const char *text)
{
    ck_assert_int_eq(nx_file_replace_at(wal.dir_fd, name, text, strlen(text), 0600), 0);
}

static size_t free_files(bool clean, uint64_t *ret_lowest)
{
    size_t count = 99;

    ck_assert_int_eq(nx_segment_free_count(wal.dir_fd, SEGMENT_SIZE, clean, &count, ret_lowest), 0);
    return count;
}

/* All zeros from `from` on, and of this size. */
static void assert_zeros(int fd, uint64_t from, uint64_t size)
{
    struct stat st;
    uint64_t end = 1;

    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, size);
    ck_assert_int_eq(nx_content_end(fd, from, size, &end), 0);
    ck_assert_uint_eq(end, from);
}

static void assert_file_of_zeros(const char *name, uint64_t size)
{
    int fd = openat(wal.dir_fd, name, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    assert_zeros(fd, 0, size);
    close(fd);
}

/* ---- bytes ---- */

START_TEST(a_header_has_the_bytes_of_the_protocol)
{
    struct nx_segment_header header = header_of(0x0807060504030201);
    uint8_t bytes[NX_SEGMENT_HEADER];
    struct nx_segment_header read = {.epoch = 0};

    header.epoch = 0x1817161514131211;
    nx_segment_header_encode(&header, bytes);
    ck_assert_mem_eq(bytes, "NXWAL\0\0\1", 8);
    ck_assert_mem_eq(bytes + 8, test_cluster, 16);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_uint_eq(bytes[24 + i], 1 + i);
        ck_assert_uint_eq(bytes[32 + i], 0x11 + i);
    }
    ck_assert_uint_eq(nx_load_u32(bytes + 40), nx_crc32(0, bytes, 40));
    ck_assert_int_eq(nx_segment_header_decode(bytes, &read), 0);
    ck_assert_mem_eq(read.cluster_id, test_cluster, 16);
    ck_assert_uint_eq(read.first_offset, header.first_offset);
    ck_assert_uint_eq(read.epoch, header.epoch);
}
END_TEST

START_TEST(a_header_with_any_bit_turned_is_refused)
{
    struct nx_segment_header header = header_of(5);
    struct nx_segment_header read;
    uint8_t bytes[NX_SEGMENT_HEADER];

    nx_segment_header_encode(&header, bytes);
    bytes[_i / 8] ^= (uint8_t)(1 << _i % 8);
    ck_assert_int_eq(nx_segment_header_decode(bytes, &read), -EBADMSG);
}
END_TEST

START_TEST(a_mark_has_the_bytes_of_the_protocol)
{
    struct nx_mark mark = {
        .position = {.epoch = 2, .offset = 0x0102030405060708, .crc = 0xAABBCCDD},
        .mode = 1,
        .quorum_epoch = 3,
        .quorum_offset = 4};
    static const uint8_t expected[37] = {2, 0, 0, 0,    0,    0,    0,    0, 8, 7, 6, 5, 4,
                                         3, 2, 1, 0xDD, 0xCC, 0xBB, 0xAA, 1, 3, 0, 0, 0, 0,
                                         0, 0, 0, 4,    0,    0,    0,    0, 0, 0, 0};
    struct nx_mark read = {.mode = 0};
    uint8_t bytes[NX_MARK_SIZE];

    nx_mark_encode(&mark, bytes);
    ck_assert_mem_eq(bytes, expected, sizeof expected);
    ck_assert_uint_eq(nx_load_u32(bytes + 37), nx_crc32(0, bytes, 37));
    ck_assert_int_eq(nx_mark_decode(bytes, &read), 0);
    ck_assert_uint_eq(read.position.epoch, 2);
    ck_assert_uint_eq(read.position.offset, 0x0102030405060708);
    ck_assert_uint_eq(read.position.crc, 0xAABBCCDD);
    ck_assert_uint_eq(read.mode, 1);
    ck_assert_uint_eq(read.quorum_epoch, 3);
    ck_assert_uint_eq(read.quorum_offset, 4);
}
END_TEST

START_TEST(a_mark_with_any_bit_turned_is_refused)
{
    struct nx_mark mark = {.position = {.epoch = 1, .offset = 2, .crc = 3}};
    uint8_t bytes[NX_MARK_SIZE];

    nx_mark_encode(&mark, bytes);
    bytes[_i / 8] ^= (uint8_t)(1 << _i % 8);
    ck_assert_int_eq(nx_mark_decode(bytes, &mark), -EBADMSG);
    ck_assert_uint_eq(mark.position.offset, 2);
}
END_TEST

START_TEST(a_mark_of_an_unknown_mode_is_refused)
{
    struct nx_mark mark = {.mode = 2};
    uint8_t bytes[NX_MARK_SIZE];

    nx_mark_encode(&mark, bytes);
    ck_assert_int_eq(nx_mark_decode(bytes, &mark), -EBADMSG);
}
END_TEST

START_TEST(a_mark_is_created_then_overwritten)
{
    struct nx_mark mark = {.position = {.epoch = 1, .offset = 2, .crc = 3}};
    struct nx_mark read;
    int fd;

    ck_assert_int_eq(nx_mark_read(wal.dir_fd, &read), -ENOENT);
    for (unsigned i = 0; i < 2; i++) {
        mark.position.offset += 10;
        ck_assert_int_eq(nx_mark_open(wal.dir_fd, &mark, &fd), 0);
        close(fd);
        ck_assert_int_eq(nx_mark_read(wal.dir_fd, &read), 0);
        ck_assert_uint_eq(read.position.offset, mark.position.offset);
    }
    ck_assert_uint_eq(wal_size(&wal, "durable"), NX_MARK_SIZE);
    ck_assert(!wal_has(&wal, "durable.tmp"));
}
END_TEST

START_TEST(a_mark_of_another_size_is_refused)
{
    struct nx_mark read;
    uint8_t bytes[NX_MARK_SIZE + 1] = {0};
    struct nx_mark mark = {.mode = 1};

    nx_mark_encode(&mark, bytes);
    ck_assert_int_eq(nx_file_replace_at(wal.dir_fd, "durable", bytes, NX_MARK_SIZE - 1, 0600), 0);
    ck_assert_int_eq(nx_mark_read(wal.dir_fd, &read), -EBADMSG);
    ck_assert_int_eq(nx_file_replace_at(wal.dir_fd, "durable", bytes, sizeof bytes, 0600), 0);
    ck_assert_int_eq(nx_mark_read(wal.dir_fd, &read), -EBADMSG);
}
END_TEST

/* ---- lists ---- */

START_TEST(segments_are_listed_in_order_and_nothing_else)
{
    static const char *const names[] = {
        "00000000000000000100.wal",
        "00000000000000000007.wal",
        FIRST,
        "18446744073709551615.wal",
        "durable",
        "free-1",
        "00000000000000000000.wal",
        "18446744073709551616.wal",
        "99999999999999999999.wal",
        "0000000000000000010.wal",
        "000000000000000000010.wal",
        "00000000000000000010.wal.tmp",
        "0000000000000000001x.wal",
        "tmp-prepare",
        "x0000000000000000010.wal",
    };
    struct nx_segment_info *list = NULL;
    size_t count = 0;

    ck_assert_int_eq(nx_segment_list(wal.dir_fd, &list, &count), 0);
    ck_assert_uint_eq(count, 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        put_file(names[i], i == 1 ? "12345" : "x");
    }
    ck_assert_int_eq(nx_segment_list(wal.dir_fd, &list, &count), 0);
    ck_assert_uint_eq(count, 4);
    ck_assert_uint_eq(list[0].first_offset, 1);
    ck_assert_uint_eq(list[1].first_offset, 7);
    ck_assert_uint_eq(list[1].size, 5);
    ck_assert_uint_eq(list[2].first_offset, 100);
    ck_assert_uint_eq(list[3].first_offset, UINT64_MAX);
    free(list);
}
END_TEST

START_TEST(many_segments_are_listed)
{
    struct nx_segment_info *list = NULL;
    char name[NX_SEGMENT_NAME];
    size_t count = 0;

    for (uint64_t i = 300; i > 0; i--) {
        nx_segment_name(i * 3, name);
        put_file(name, "x");
    }
    ck_assert_int_eq(nx_segment_list(wal.dir_fd, &list, &count), 0);
    ck_assert_uint_eq(count, 300);
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(list[i].first_offset, (i + 1) * 3);
    }
    free(list);
}
END_TEST

/* ---- prepared and recycled ---- */

START_TEST(a_prepared_file_is_zeros_and_counts)
{
    uint64_t lowest = 99;

    ck_assert_uint_eq(free_files(false, &lowest), 0);
    ck_assert_uint_eq(lowest, 0);
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 5, SEGMENT_SIZE, NULL), 0);
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 12, SEGMENT_SIZE + 1, NULL), 0);
    ck_assert_uint_eq(free_files(false, &lowest), 2);
    ck_assert_uint_eq(lowest, 5);
    assert_file_of_zeros("free-5", SEGMENT_SIZE);
    assert_file_of_zeros("free-12", SEGMENT_SIZE + 1);
    ck_assert(!wal_has(&wal, "tmp-prepare"));
}
END_TEST

START_TEST(a_prepared_file_never_replaces_another)
{
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 5, SEGMENT_SIZE, NULL), 0);
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 5, SEGMENT_SIZE + 1, NULL), -EEXIST);
    ck_assert_uint_eq(wal_size(&wal, "free-5"), SEGMENT_SIZE);
    ck_assert(!wal_has(&wal, "tmp-prepare"));
}
END_TEST

START_TEST(short_and_half_made_files_are_cleaned_up)
{
    uint64_t lowest;

    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 3, SEGMENT_SIZE - 1, NULL), 0);
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 4, SEGMENT_SIZE, NULL), 0);
    put_file("tmp-prepare", "half");
    put_file("tmp-recycle", "half");
    put_file("free-", "not ours");
    put_file("free-07", "not ours");
    put_file("begin-new", "the walwriter's");
    ck_assert_uint_eq(free_files(false, &lowest), 1);
    ck_assert(wal_has(&wal, "free-3"));
    ck_assert(wal_has(&wal, "tmp-prepare"));
    ck_assert_uint_eq(free_files(true, &lowest), 1);
    ck_assert_uint_eq(lowest, 4);
    ck_assert(!wal_has(&wal, "free-3"));
    ck_assert(!wal_has(&wal, "tmp-prepare"));
    ck_assert(!wal_has(&wal, "tmp-recycle"));
    ck_assert(wal_has(&wal, "free-"));
    ck_assert(wal_has(&wal, "free-07"));
    ck_assert(wal_has(&wal, "begin-new"));
}
END_TEST

/* _i: shorter, as long, longer than it was. */
START_TEST(a_recycled_segment_becomes_zeros_of_the_size_asked)
{
    uint64_t size = SEGMENT_SIZE + (uint64_t)_i * 1000 - 1000;
    uint64_t lowest;

    wal_append_n(&wal, 20);
    wal_segment(&wal);
    ck_assert_int_eq(nx_segment_recycle(wal.dir_fd, 1, 9, size, NULL), 0);
    ck_assert(!wal_has(&wal, FIRST));
    assert_file_of_zeros("free-9", size);
    ck_assert_uint_eq(free_files(true, &lowest), _i == 0 ? 0 : 1);
    ck_assert_int_eq(nx_segment_recycle(wal.dir_fd, 1, 10, size, NULL), -ENOENT);
}
END_TEST

/* The disk is full: no file may grow. */
static void forbid_growth(bool forbid)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = forbid ? SEGMENT_SIZE / 2 : limit.rlim_max;
    (void)signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(a_full_disk_leaves_nothing_behind)
{
    struct nx_segment_header header = header_of(1);
    uint64_t lowest;
    int fd;

    forbid_growth(true);
    ck_assert_int_lt(nx_segment_prepare(wal.dir_fd, 1, SEGMENT_SIZE, NULL), 0);
    ck_assert_int_lt(nx_segment_begin(wal.dir_fd, &header, SEGMENT_SIZE, &fd), 0);
    forbid_growth(false);
    ck_assert(!wal_has(&wal, "tmp-prepare"));
    ck_assert(!wal_has(&wal, "begin-new"));
    ck_assert(!wal_has(&wal, FIRST));
    ck_assert_uint_eq(free_files(false, &lowest), 0);
    ck_assert_int_eq(nx_segment_begin(wal.dir_fd, &header, SEGMENT_SIZE, &fd), 0);
    close(fd);
}
END_TEST

/* ---- begun ---- */

/* Begins the segment of 7; returns whether its rest is zeros and its header right. */
static void begin_seventh(uint64_t file_size)
{
    struct nx_segment_header header = header_of(7);
    struct nx_segment_header read;
    uint8_t bytes[NX_SEGMENT_HEADER];
    struct nx_mark mark;
    int fd;

    ck_assert_int_eq(nx_segment_begin(wal.dir_fd, &header, SEGMENT_SIZE, &fd), 0);
    ck_assert_int_eq(nx_read_at(fd, bytes, sizeof bytes, 0), 0);
    ck_assert_int_eq(nx_segment_header_decode(bytes, &read), 0);
    ck_assert_uint_eq(read.first_offset, 7);
    ck_assert_uint_eq(read.epoch, 3);
    assert_zeros(fd, NX_SEGMENT_HEADER, file_size);
    ck_assert_int_eq(nx_write_at(fd, "x", 1, NX_SEGMENT_HEADER), 0); /* read-write */
    close(fd);
    ck_assert_uint_eq(wal_size(&wal, SEVENTH), file_size);
    ck_assert_int_eq(nx_mark_read(wal.dir_fd, &mark), 0);
    ck_assert(!wal_has(&wal, "begin"));
    ck_assert(!wal_has(&wal, "begin-new"));
}

START_TEST(a_segment_is_begun_from_nothing)
{
    begin_seventh(SEGMENT_SIZE);
}
END_TEST

START_TEST(a_segment_is_begun_from_the_lowest_free_file)
{
    uint64_t lowest;

    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 10, SEGMENT_SIZE, NULL), 0);
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 9, SEGMENT_SIZE + 5, NULL), 0);
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 8, SEGMENT_SIZE - 1, NULL), 0);
    begin_seventh(SEGMENT_SIZE + 5);
    ck_assert_uint_eq(free_files(false, &lowest), 1);
    ck_assert_uint_eq(lowest, 10);
    ck_assert(wal_has(&wal, "free-8"));
}
END_TEST

START_TEST(a_claimed_file_of_a_killed_walwriter_is_used)
{
    struct nx_segment_header header = header_of(6);
    uint8_t bytes[NX_SEGMENT_HEADER];
    uint64_t lowest;
    int fd;

    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 1, SEGMENT_SIZE, NULL), 0);
    ck_assert_int_eq(renameat(wal.dir_fd, "free-1", wal.dir_fd, "begin"), 0);
    fd = openat(wal.dir_fd, "begin", O_RDWR | O_CLOEXEC);
    nx_segment_header_encode(&header, bytes);
    ck_assert_int_eq(nx_write_at(fd, bytes, _i == 0 ? sizeof bytes : 20, 0), 0);
    close(fd);
    ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 2, SEGMENT_SIZE, NULL), 0);
    begin_seventh(SEGMENT_SIZE);
    ck_assert_uint_eq(free_files(false, &lowest), 1);
}
END_TEST

START_TEST(half_made_files_of_a_killed_walwriter_are_not_used)
{
    put_file("begin", "too short");
    put_file("begin-new", "half made");
    if (_i == 1) {
        ck_assert_int_eq(nx_segment_prepare(wal.dir_fd, 1, SEGMENT_SIZE, NULL), 0);
    }
    begin_seventh(SEGMENT_SIZE);
}
END_TEST

START_TEST(a_segment_begun_again_replaces_the_unused_one)
{
    begin_seventh(SEGMENT_SIZE);
    begin_seventh(SEGMENT_SIZE);
}
END_TEST

START_TEST(beginning_keeps_the_mark_there_is)
{
    struct nx_position position = {1, 6, 7};
    struct nx_mark mark;

    wal_mark(&wal, &position);
    begin_seventh(SEGMENT_SIZE);
    ck_assert_int_eq(nx_mark_read(wal.dir_fd, &mark), 0);
    ck_assert_uint_eq(mark.position.offset, 6);
}
END_TEST

static void add_bytes(Suite *suite)
{
    TCase *tcase = tcase_create("bytes");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_header_has_the_bytes_of_the_protocol);
    tcase_add_loop_test(tcase, a_header_with_any_bit_turned_is_refused, 0, NX_SEGMENT_HEADER * 8);
    tcase_add_test(tcase, a_mark_has_the_bytes_of_the_protocol);
    tcase_add_loop_test(tcase, a_mark_with_any_bit_turned_is_refused, 0, NX_MARK_SIZE * 8);
    tcase_add_test(tcase, a_mark_of_an_unknown_mode_is_refused);
    tcase_add_test(tcase, a_mark_is_created_then_overwritten);
    tcase_add_test(tcase, a_mark_of_another_size_is_refused);
    tcase_add_test(tcase, segments_are_listed_in_order_and_nothing_else);
    tcase_add_test(tcase, many_segments_are_listed);
    suite_add_tcase(suite, tcase);
}

static void add_files(Suite *suite)
{
    TCase *tcase = tcase_create("files");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_prepared_file_is_zeros_and_counts);
    tcase_add_test(tcase, a_prepared_file_never_replaces_another);
    tcase_add_test(tcase, short_and_half_made_files_are_cleaned_up);
    tcase_add_loop_test(tcase, a_recycled_segment_becomes_zeros_of_the_size_asked, 0, 3);
    tcase_add_test(tcase, a_full_disk_leaves_nothing_behind);
    tcase_add_test(tcase, a_segment_is_begun_from_nothing);
    tcase_add_test(tcase, a_segment_is_begun_from_the_lowest_free_file);
    tcase_add_loop_test(tcase, a_claimed_file_of_a_killed_walwriter_is_used, 0, 2);
    tcase_add_loop_test(tcase, half_made_files_of_a_killed_walwriter_are_not_used, 0, 2);
    tcase_add_test(tcase, a_segment_begun_again_replaces_the_unused_one);
    tcase_add_test(tcase, beginning_keeps_the_mark_there_is);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    Suite *suite = suite_create("wal_segment");
    SRunner *runner = srunner_create(suite);
    int failed;

    add_bytes(suite);
    add_files(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
