/* Pins: one a replica, replaced as a whole, aged by the file's time, and never half believed. */
#include "checkpointer/pins.h"
#include "common/crc32.h"
#include "shm_fixture.h"
#include "storage/file_io.h"
#include "storage/pin.h"
#include "storage/snapshot_files.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FIRST    "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
#define SECOND   "6ba7b811-9dad-41d1-80b4-00c04fd430c8"
#define THIRD    "550e8400-e29b-41d4-a716-4466554400ff"
#define SNAPSHOT "550e8400-e29b-41d4-a716-446655440003"

static char top[64];
static int dir_fd;

static void setup(void)
{
    (void)snprintf(top, sizeof top, "/tmp/nexus-pins-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    dir_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(dir_fd, 0);
}

static void teardown(void)
{
    close(dir_fd);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, top), 0);
}

static bool there(const char *name)
{
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void put_file(const char *name, const char *text)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_write_at(fd, text, strlen(text), 0), 0);
    close(fd);
}

/* Under a right CRC. */
static void put_lines(const char *name, const char *lines)
{
    char text[1024];

    (void)snprintf(text, sizeof text, "%scrc32 = %08" PRIx32 "\n", lines,
                   nx_crc32(0, lines, strlen(lines)));
    put_file(name, text);
}

static struct nx_pin pin_of(const char *replica_id, uint64_t offset)
{
    struct nx_pin pin = {
        .snapshot_id = SNAPSHOT,
        .snapshot_offset = 100,
        .chunk_size = 1048576,
        .offset = offset,
    };

    (void)snprintf(pin.replica_id, sizeof pin.replica_id, "%s", replica_id);
    return pin;
}

static void write_pin(const char *replica_id, uint64_t offset)
{
    struct nx_pin pin = pin_of(replica_id, offset);

    ck_assert_int_eq(nx_pin_write(dir_fd, &pin), 0);
}

/* Sets the time of the last progress to so many seconds before now. */
static void age(const char *name, time_t seconds)
{
    struct timespec times[2];

    ck_assert_int_eq(clock_gettime(CLOCK_REALTIME, &times[0]), 0);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    ck_assert_int_eq(utimensat(dir_fd, name, times, 0), 0);
}

/* ---- one ---- */

START_TEST(a_pin_comes_back)
{
    struct nx_pin pin;

    write_pin(FIRST, 100);
    ck_assert(there(FIRST ".pin") && !there(FIRST ".pin.tmp"));
    ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), 0);
    ck_assert_str_eq(pin.replica_id, FIRST);
    ck_assert_str_eq(pin.snapshot_id, SNAPSHOT);
    ck_assert_uint_eq(pin.snapshot_offset, 100);
    ck_assert_uint_eq(pin.chunk_size, 1048576);
    ck_assert_uint_eq(pin.offset, 100);
    ck_assert_uint_lt(pin.age_ms, 60000);
    write_pin(FIRST, UINT64_MAX);
    ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), 0);
    ck_assert_uint_eq(pin.offset, UINT64_MAX);
    ck_assert_int_eq(nx_pin_read(dir_fd, SECOND, &pin), -ENOENT);
}
END_TEST

START_TEST(a_pin_is_text_with_a_crc)
{
    static const char lines[] =
        "replica_id = " FIRST "\nsnapshot_id = " SNAPSHOT "\n"
        "snapshot_offset = 100\nchunk_size = 1048576\nsent = 0\noffset = 102\n";
    char expected[1024];
    char text[1024];

    write_pin(FIRST, 102);
    (void)snprintf(expected, sizeof expected, "%scrc32 = %08" PRIx32 "\n", lines,
                   nx_crc32(0, lines, strlen(lines)));
    ck_assert_int_eq(nx_file_read_text(dir_fd, FIRST ".pin", text, sizeof text), 0);
    ck_assert_str_eq(text, expected);
}
END_TEST

START_TEST(its_time_is_that_of_the_last_progress)
{
    struct nx_pin pin;

    write_pin(FIRST, 100);
    age(FIRST ".pin", 1000);
    ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), 0);
    ck_assert_uint_ge(pin.age_ms, 1000000);
    ck_assert_uint_lt(pin.age_ms, 1060000);
    ck_assert_int_eq(nx_pin_touch(dir_fd, FIRST), 0);
    ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), 0);
    ck_assert_uint_lt(pin.age_ms, 60000);
    age(FIRST ".pin", -1000); /* the clock was set back */
    ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), 0);
    ck_assert_uint_eq(pin.age_ms, 0);
    ck_assert_int_eq(nx_pin_touch(dir_fd, SECOND), -ENOENT);
}
END_TEST

START_TEST(a_name_that_is_no_uuid_is_refused)
{
    struct nx_pin pin = pin_of("../../etc/passwd", 1);

    ck_assert_int_eq(nx_pin_write(dir_fd, &pin), -EINVAL);
    ck_assert_int_eq(nx_pin_read(dir_fd, "", &pin), -EINVAL);
    ck_assert_int_eq(nx_pin_touch(dir_fd, ".."), -EINVAL);
    ck_assert_int_eq(nx_pin_remove(dir_fd, "last"), -EINVAL);
    pin = pin_of(FIRST, 1);
    pin.snapshot_id[0] = 'x';
    ck_assert_int_eq(nx_pin_write(dir_fd, &pin), -EINVAL);
}
END_TEST

START_TEST(removed_is_removed)
{
    write_pin(FIRST, 1);
    write_pin(SECOND, 1);
    put_file(FIRST ".pin.tmp", "left by one that was killed");
    ck_assert_int_eq(nx_pin_remove(dir_fd, FIRST), 0);
    ck_assert(!there(FIRST ".pin") && !there(FIRST ".pin.tmp") && there(SECOND ".pin"));
    ck_assert_int_eq(nx_pin_remove(dir_fd, FIRST), 0);
}
END_TEST

/* ---- damage ---- */

static const char *const damages[] = {
    "",
    "replica_id = " FIRST "\n",
    "replica_id = " FIRST
    "\nsnapshot_id = \nsnapshot_offset = 1\nchunk_size = 1\nsent = 0\noffset = 1\n",
    "replica_id = " FIRST "\nsnapshot_id = " SNAPSHOT
    "\nsnapshot_offset = 1\nchunk_size = 1\nsent = 0\n"
    "offset = 0x1\n",
    "replica_id = " FIRST "\nsnapshot_id = " SNAPSHOT
    "\nsnapshot_offset = 1\nchunk_size = 1\nsent = 0\n"
    "offset = 1\nmore = 1\n",
    "replica_id = " SECOND "\nsnapshot_id = " SNAPSHOT
    "\nsnapshot_offset = 1\nchunk_size = 1\nsent = 0\n"
    "offset = 1\n",
};

START_TEST(a_damaged_pin_is_refused)
{
    struct nx_pin pin;

    put_file(FIRST ".pin", damages[_i]);
    ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), -EBADMSG);
    put_lines(FIRST ".pin", damages[_i]);
    ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), -EBADMSG);
}
END_TEST

START_TEST(each_bit_of_a_pin_counts)
{
    char text[1024];
    struct nx_pin pin;

    write_pin(FIRST, 100);
    ck_assert_int_eq(nx_file_read_text(dir_fd, FIRST ".pin", text, sizeof text), 0);
    for (size_t i = 0; text[i] != '\0'; i++) {
        text[i] ^= 1;
        put_file(FIRST ".pin", text);
        ck_assert_int_eq(nx_pin_read(dir_fd, FIRST, &pin), -EBADMSG);
        text[i] ^= 1;
    }
}
END_TEST

/* ---- all ---- */

struct seen {
    unsigned count;
    uint64_t offsets;
    int answer;
};

static int see(void *arg, const struct nx_pin *pin)
{
    struct seen *seen = arg;

    seen->count++;
    seen->offsets += pin->offset;
    return seen->answer;
}

START_TEST(all_that_can_be_read_are_seen)
{
    struct seen seen = {.count = 0};

    ck_assert_int_eq(nx_pin_each(dir_fd, see, &seen), 0);
    ck_assert_uint_eq(seen.count, 0);
    write_pin(FIRST, 1);
    write_pin(SECOND, 20);
    put_file("6ba7b812-9dad-41d1-80b4-00c04fd430c8.pin", "damaged");
    put_file("6ba7b813-9dad-41d1-80b4-00c04fd430c8.pin.tmp", "being written");
    put_file("x.pin", "a person's");
    put_file(".pin", "a person's");
    ck_assert_int_eq(nx_pin_each(dir_fd, see, &seen), 0);
    ck_assert_uint_eq(seen.count, 2);
    ck_assert_uint_eq(seen.offsets, 21);
    ck_assert(!there("6ba7b812-9dad-41d1-80b4-00c04fd430c8.pin"));
    ck_assert(there("6ba7b813-9dad-41d1-80b4-00c04fd430c8.pin.tmp"));
    ck_assert(there("x.pin") && there(".pin"));
}
END_TEST

START_TEST(what_is_answered_ends_it)
{
    struct seen seen = {.answer = 5};

    write_pin(FIRST, 1);
    write_pin(SECOND, 20);
    ck_assert_int_eq(nx_pin_each(dir_fd, see, &seen), 5);
    ck_assert_uint_eq(seen.count, 1);
    seen.answer = -EIO;
    ck_assert_int_eq(nx_pin_each(dir_fd, see, &seen), -EIO);
}
END_TEST

START_TEST(what_is_no_file_is_no_pin)
{
    struct seen seen = {.count = 0};

    write_pin(SECOND, 20);
    ck_assert_int_eq(mkdirat(dir_fd, FIRST ".pin", 0700), 0);
    ck_assert_int_eq(mkfifoat(dir_fd, THIRD ".pin", 0600), 0);
    ck_assert_int_eq(nx_pin_each(dir_fd, see, &seen), 0);
    ck_assert_uint_eq(seen.count, 1);
    ck_assert(there(FIRST ".pin"));
}
END_TEST

/* ---- how many there are ---- */

/* So many strangers have begun a full sync and have gone; who is here keeps his, however old it is. */
START_TEST(of_those_that_are_away_the_latest_are_kept)
{
    const unsigned count = NX_MAX_REPLICAS + 20;
    char name[NX_UUID_TEXT + 8];
    char id[NX_UUID_TEXT];
    struct nx_pin pin;
    uint64_t due;

    shm_setup();
    close(dir_fd);
    dir_fd = nx_snapshot_dir(top);
    ck_assert_int_ge(dir_fd, 0);
    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(id, sizeof id, "550e8400-e29b-41d4-a716-%012u", i);
        (void)snprintf(name, sizeof name, "%s.pin", id);
        write_pin(id, 1000 + i);
        age(name, 10 * (time_t)(count - i)); /* the first is the oldest */
    }
    (void)snprintf(shm->replicas[3].id, sizeof shm->replicas[3].id, "550e8400-e29b-41d4-a716-%012u",
                   0u);
    atomic_store(&shm->replicas[3].state, NX_REPLICA_SNAPSHOT);
    atomic_store(&shm->snapshot.hold_offset, NX_UNPINNED);
    ck_assert_uint_eq(nx_pins_look(shm, top, false, &due), 1000);
    for (unsigned i = 0; i < count; i++) {
        bool kept = i == 0 || i >= count - NX_MAX_REPLICAS;

        (void)snprintf(id, sizeof id, "550e8400-e29b-41d4-a716-%012u", i);
        ck_assert_int_eq(nx_pin_read(dir_fd, id, &pin), kept ? 0 : -ENOENT);
    }
    atomic_store(&shm->replicas[3].state, NX_REPLICA_NONE);
    ck_assert_uint_eq(nx_pins_look(shm, top, false, &due), 1000 + count - NX_MAX_REPLICAS);
    shm_teardown();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pin");
    TCase *tcase = tcase_create("pins");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_pin_comes_back);
    tcase_add_test(tcase, a_pin_is_text_with_a_crc);
    tcase_add_test(tcase, its_time_is_that_of_the_last_progress);
    tcase_add_test(tcase, a_name_that_is_no_uuid_is_refused);
    tcase_add_test(tcase, removed_is_removed);
    tcase_add_loop_test(tcase, a_damaged_pin_is_refused, 0,
                        (int)(sizeof damages / sizeof damages[0]));
    tcase_add_test(tcase, each_bit_of_a_pin_counts);
    tcase_add_test(tcase, all_that_can_be_read_are_seen);
    tcase_add_test(tcase, what_is_answered_ends_it);
    tcase_add_test(tcase, what_is_no_file_is_no_pin);
    tcase_add_test(tcase, of_those_that_are_away_the_latest_are_kept);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
