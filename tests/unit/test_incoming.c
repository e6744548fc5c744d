/* What has come of a snapshot: taken up again as far as each chunk is what it should be. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "storage/file_io.h"
#include "storage/incoming.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID     "550e8400-e29b-41d4-a716-446655440003"
#define OTHER  "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
#define PART   "incoming-" ID ".part"
#define LIST   "incoming-" ID ".chunks"
#define OFFSET 1000
#define EPOCH  3
#define HEAD   20 /* bytes of the list before its first entry */
#define ENTRY  8
#define CHUNKS 3
#define LARGE  100000 /* of a chunk: it is read in pieces */

static char top[64];
static int dir_fd;
static struct nx_incoming incoming;
static const struct nx_position elsewhere = {.epoch = EPOCH, .offset = OFFSET - 1};
static uint8_t chunk[LARGE];
static const size_t lengths[CHUNKS] = {10, LARGE, 1};
static const size_t ends[CHUNKS + 1] = {0, 10, 10 + LARGE, 11 + LARGE};

static void setup(void)
{
    (void)snprintf(top, sizeof top, "/tmp/nexus-incoming-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    dir_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(dir_fd, 0);
    incoming = NX_INCOMING_NONE;
    for (size_t i = 0; i < sizeof chunk; i++) {
        chunk[i] = (uint8_t)(i * 7 + i / 251);
    }
}

static void teardown(void)
{
    nx_incoming_close(&incoming);
    close(dir_fd);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, top), 0);
}

static bool there(const char *name)
{
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void put_file(const char *name)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_write_at(fd, "x", 1, 0), 0);
    close(fd);
}

static void flip(const char *name, size_t at)
{
    uint8_t byte;
    int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_read_at(fd, &byte, 1, at), 0);
    byte ^= 1;
    ck_assert_int_eq(nx_write_at(fd, &byte, 1, at), 0);
    close(fd);
}

static void cut(const char *name, size_t length)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)length), 0);
    close(fd);
}

static void begin(void)
{
    ck_assert_int_eq(nx_incoming_begin(dir_fd, ID, OFFSET, EPOCH, &incoming), 0);
}

static void add(size_t length)
{
    ck_assert_int_eq(nx_incoming_add(&incoming, chunk, length, nx_crc32(0, chunk, length)), 0);
}

/* All chunks have come, and the process has ended. */
static void received(void)
{
    begin();
    for (size_t i = 0; i < CHUNKS; i++) {
        add(lengths[i]);
    }
    nx_incoming_close(&incoming);
}

static int resume(void)
{
    nx_incoming_close(&incoming);
    return nx_incoming_resume(dir_fd, &elsewhere, NULL, NULL, &incoming);
}

static uint32_t crc_of(size_t chunks)
{
    uint32_t crc = 0;

    for (size_t i = 0; i < chunks && i < CHUNKS; i++) {
        crc = nx_crc32(crc, chunk, lengths[i]);
    }
    return crc;
}

/* So many chunks are taken up; where it is none, nothing is left. */
static void resumed_at(size_t chunks)
{
    int rc = resume();

    if (chunks == 0) {
        ck_assert_int_eq(rc, -ENOENT);
        ck_assert_int_eq(incoming.part_fd, -1);
        ck_assert(!there(PART) && !there(LIST));
        return;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_str_eq(incoming.id, ID);
    ck_assert_uint_eq(incoming.wal_offset, OFFSET);
    ck_assert_uint_eq(incoming.epoch, EPOCH);
    ck_assert_uint_eq(incoming.chunks, chunks);
    ck_assert_uint_eq(incoming.bytes, ends[chunks]);
    ck_assert_uint_eq(incoming.crc, crc_of(chunks));
}

/* ---- what comes ---- */

START_TEST(chunks_add_up)
{
    uint8_t *bytes = malloc(ends[CHUNKS]);
    size_t n;
    int fd;

    begin();
    ck_assert_uint_eq(incoming.chunks, 0);
    ck_assert_uint_eq(incoming.bytes, 0);
    ck_assert_uint_eq(incoming.crc, 0);
    for (size_t i = 0; i < CHUNKS; i++) {
        add(lengths[i]);
        ck_assert_uint_eq(incoming.chunks, i + 1);
        ck_assert_uint_eq(incoming.bytes, ends[i + 1]);
        ck_assert_uint_eq(incoming.crc, crc_of(i + 1));
    }
    fd = nx_incoming_open(dir_fd, ID);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_read_some(fd, bytes, ends[CHUNKS], 0, &n), 0);
    ck_assert_uint_eq(n, ends[CHUNKS]);
    ck_assert_uint_eq(nx_crc32(0, bytes, n), incoming.crc);
    close(fd);
    free(bytes);
}
END_TEST

START_TEST(its_list_is_these_bytes)
{
    static const uint8_t expected[] = {
        0xe8, 0x03, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
    };
    uint8_t bytes[HEAD + ENTRY + 1];
    size_t n;

    begin();
    add(10);
    ck_assert_int_eq(nx_read_some(incoming.chunks_fd, bytes, sizeof bytes, 0, &n), 0);
    ck_assert_uint_eq(n, HEAD + ENTRY);
    ck_assert_mem_eq(bytes, expected, sizeof expected);
    ck_assert_uint_eq(nx_load_u32(bytes + 16), nx_crc32(0, bytes, 16));
    ck_assert_uint_eq(nx_load_u32(bytes + HEAD), 10);
    ck_assert_uint_eq(nx_load_u32(bytes + HEAD + 4), nx_crc32(0, chunk, 10));
}
END_TEST

START_TEST(only_its_owner_can_read_it)
{
    struct stat st;

    begin();
    ck_assert_int_eq(fstat(incoming.part_fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(a_beginning_removes_what_there_was)
{
    received();
    put_file("incoming-" OTHER ".part");
    put_file("incoming-" OTHER ".chunks");
    put_file("incoming-x");
    put_file("00000000000000001000-" ID ".tar.zst");
    ck_assert_int_eq(nx_incoming_begin(dir_fd, OTHER, 5, 6, &incoming), 0);
    ck_assert(!there(PART) && !there(LIST) && !there("incoming-x"));
    ck_assert(there("00000000000000001000-" ID ".tar.zst"));
    ck_assert_int_eq(nx_incoming_open(dir_fd, ID), -ENOENT);
    add(10);
    ck_assert_int_eq(resume(), 0);
    ck_assert_str_eq(incoming.id, OTHER);
    ck_assert_uint_eq(incoming.wal_offset, 5);
    ck_assert_uint_eq(incoming.epoch, 6);
}
END_TEST

START_TEST(the_same_one_begins_anew)
{
    received();
    begin();
    add(1);
    ck_assert_int_eq(resume(), 0);
    ck_assert_uint_eq(incoming.chunks, 1);
    ck_assert_uint_eq(incoming.bytes, 1);
}
END_TEST

START_TEST(removed_is_removed)
{
    received();
    put_file("x.part");
    ck_assert_int_eq(nx_incoming_remove(dir_fd), 0);
    ck_assert(!there(PART) && !there(LIST) && there("x.part"));
    ck_assert_int_eq(nx_incoming_remove(dir_fd), 0);
    resumed_at(0);
}
END_TEST

/* ---- going on ---- */

START_TEST(it_goes_on_where_it_was)
{
    begin();
    for (size_t i = 0; i < CHUNKS; i++) {
        add(lengths[i]);
        resumed_at(i + 1);
    }
}
END_TEST

START_TEST(nothing_goes_on_where_nothing_was)
{
    resumed_at(0);
    begin(); /* and no chunk has come */
    resumed_at(0);
}
END_TEST

/* _i: the chunk that is damaged, in its first byte or its last. */
START_TEST(a_damaged_chunk_ends_it)
{
    for (int last = 0; last < 2; last++) {
        received();
        flip(PART, last > 0 ? ends[_i + 1] - 1 : ends[_i]);
        resumed_at((size_t)_i);
    }
}
END_TEST

/* _i: the entry of the list, in each of its bytes. */
START_TEST(a_damaged_entry_ends_it)
{
    for (size_t byte = 0; byte < ENTRY; byte++) {
        received();
        flip(LIST, HEAD + (size_t)_i * ENTRY + byte);
        resumed_at((size_t)_i);
    }
}
END_TEST

START_TEST(a_damaged_head_ends_all)
{
    for (size_t byte = 0; byte < HEAD; byte++) {
        received();
        flip(LIST, byte);
        resumed_at(0);
    }
}
END_TEST

START_TEST(bytes_that_are_missing_end_it)
{
    static const size_t cuts[] = {0, 1, 9, 10, 11, 9 + LARGE, 10 + LARGE, 11 + LARGE};
    static const size_t left[] = {0, 0, 0, 1, 1, 1, 2, 3};

    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        received();
        cut(PART, cuts[i]);
        resumed_at(left[i]);
    }
}
END_TEST

START_TEST(entries_that_are_missing_end_it)
{
    for (size_t n = 0; n <= HEAD + CHUNKS * ENTRY; n++) {
        received();
        cut(LIST, n);
        resumed_at(n < HEAD ? 0 : (n - HEAD) / ENTRY);
    }
}
END_TEST

/* A power cut: the file has its length, its bytes never came to the disk. */
START_TEST(zeros_are_no_chunks)
{
    received();
    cut(LIST, HEAD + ENTRY);
    cut(LIST, HEAD + ENTRY * CHUNKS);
    resumed_at(1);
    received();
    cut(LIST, 0);
    cut(LIST, HEAD + ENTRY * CHUNKS);
    resumed_at(0);
}
END_TEST

START_TEST(one_file_without_the_other_is_nothing)
{
    received();
    ck_assert_int_eq(unlinkat(dir_fd, _i == 0 ? PART : LIST, 0), 0);
    resumed_at(0);
}
END_TEST

START_TEST(names_that_are_no_list_are_not_taken)
{
    put_file("incoming-x.chunks");
    put_file("incoming-x.part");
    put_file("x.chunks");
    ck_assert_int_eq(resume(), -ENOENT);
    ck_assert(!there("incoming-x.chunks") && there("x.chunks"));
}
END_TEST

/* After damage, the same chunks come again. */
START_TEST(what_comes_after_damage_replaces_it)
{
    received();
    flip(PART, ends[1]);
    resumed_at(1);
    add(lengths[1]);
    resumed_at(3); /* the third was right all the time */
    received();
    flip(PART, ends[1]);
    resumed_at(1);
    add(5); /* in other pieces now */
    ck_assert_int_eq(resume(), 0);
    ck_assert_uint_eq(incoming.chunks, 2);
    ck_assert_uint_eq(incoming.bytes, ends[1] + 5);
}
END_TEST

START_TEST(one_that_has_done_its_work_is_not_taken_up_again)
{
    struct nx_position restored = {.epoch = EPOCH, .offset = OFFSET, .crc = 77};

    received(); /* and a crash came before it was retired */
    ck_assert_int_eq(nx_incoming_resume(dir_fd, &restored, NULL, NULL, &incoming), -ENOENT);
    ck_assert(!there(PART) && !there(LIST));
    received(); /* of another history */
    restored.epoch++;
    ck_assert_int_eq(nx_incoming_resume(dir_fd, &restored, NULL, NULL, &incoming), 0);
}
END_TEST

START_TEST(one_that_was_retired_is_dropped_beside_the_next)
{
    received();
    ck_assert_int_eq(nx_incoming_retire(dir_fd), 0);
    ck_assert(!there(PART) && !there(LIST));
    ck_assert(there("restored-" ID ".part") && there("restored-" ID ".chunks"));
    ck_assert_int_eq(resume(), -ENOENT);
    received();
    ck_assert_int_eq(nx_incoming_drop(dir_fd), 0);
    ck_assert(!there("restored-" ID ".part") && !there("restored-" ID ".chunks"));
    ck_assert(there(PART) && there(LIST));
    ck_assert_int_eq(nx_incoming_drop(dir_fd), 0);
}
END_TEST

static bool stop_at(void *arg)
{
    unsigned *left = arg;

    return (*left)-- == 0;
}

START_TEST(reading_ends_when_it_is_asked_to)
{
    for (unsigned left = 0; left < CHUNKS; left++) {
        unsigned until = left;

        received();
        ck_assert_int_eq(nx_incoming_resume(dir_fd, &elsewhere, stop_at, &until, &incoming),
                         -ECANCELED);
        ck_assert_int_eq(incoming.part_fd, -1);
        ck_assert_int_eq(incoming.chunks_fd, -1);
        ck_assert(there(PART) && there(LIST));
        resumed_at(CHUNKS);
        nx_incoming_close(&incoming);
    }
}
END_TEST

START_TEST(a_link_is_not_followed)
{
    ck_assert_int_eq(symlinkat("/etc/passwd", dir_fd, PART), 0);
    ck_assert_int_eq(nx_incoming_open(dir_fd, ID), -ELOOP);
    begin(); /* removes it */
    add(10);
    resumed_at(1);
    ck_assert_int_eq(access("/etc/passwd", F_OK), 0);
}
END_TEST

START_TEST(what_cannot_be_written_is_not_added)
{
    begin();
    add(10);
    close(incoming.part_fd);
    incoming.part_fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(incoming.part_fd, 0);
    ck_assert_int_eq(nx_incoming_add(&incoming, chunk, 10, nx_crc32(0, chunk, 10)), -ENOSPC);
    ck_assert_uint_eq(incoming.chunks, 1);
    ck_assert_uint_eq(incoming.bytes, 10);
    ck_assert_uint_eq(incoming.crc, crc_of(1));
    resumed_at(1);
}
END_TEST

static void add_going_on(TCase *tcase)
{
    tcase_add_test(tcase, it_goes_on_where_it_was);
    tcase_add_test(tcase, nothing_goes_on_where_nothing_was);
    tcase_add_loop_test(tcase, a_damaged_chunk_ends_it, 0, CHUNKS);
    tcase_add_loop_test(tcase, a_damaged_entry_ends_it, 0, CHUNKS);
    tcase_add_test(tcase, a_damaged_head_ends_all);
    tcase_add_test(tcase, bytes_that_are_missing_end_it);
    tcase_add_test(tcase, entries_that_are_missing_end_it);
    tcase_add_test(tcase, zeros_are_no_chunks);
    tcase_add_loop_test(tcase, one_file_without_the_other_is_nothing, 0, 2);
    tcase_add_test(tcase, names_that_are_no_list_are_not_taken);
    tcase_add_test(tcase, what_comes_after_damage_replaces_it);
    tcase_add_test(tcase, one_that_has_done_its_work_is_not_taken_up_again);
    tcase_add_test(tcase, one_that_was_retired_is_dropped_beside_the_next);
    tcase_add_test(tcase, reading_ends_when_it_is_asked_to);
}

int main(void)
{
    Suite *suite = suite_create("incoming");
    TCase *tcase = tcase_create("incoming");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, chunks_add_up);
    tcase_add_test(tcase, its_list_is_these_bytes);
    tcase_add_test(tcase, only_its_owner_can_read_it);
    tcase_add_test(tcase, a_beginning_removes_what_there_was);
    tcase_add_test(tcase, the_same_one_begins_anew);
    tcase_add_test(tcase, removed_is_removed);
    add_going_on(tcase);
    tcase_add_test(tcase, a_link_is_not_followed);
    tcase_add_test(tcase, what_cannot_be_written_is_not_added);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
