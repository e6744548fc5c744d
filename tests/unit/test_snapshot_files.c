/* DATA_DIR/snapshots: what is listed is whole, what a pin needs stays, and what is removed leaves
 * nothing. */
#include "common/crc32.h"
#include "storage/data_dir.h"
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
#include <unistd.h>

#define ARCHIVE "00000000000000000100-550e8400-e29b-41d4-a716-446655440001.tar.zst"
#define INFO    "00000000000000000100-550e8400-e29b-41d4-a716-446655440001.info"
#define REPLICA "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

static char top[64]; /* the data directory */
static int dir_fd;

static void setup(void)
{
    (void)snprintf(top, sizeof top, "/tmp/nexus-snapshots-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    dir_fd = nx_snapshot_dir(top);
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

static bool has(const struct nx_snapshot_info *info, const char *suffix)
{
    char name[NX_SNAPSHOT_NAME];

    nx_snapshot_name(info->position.offset, info->id, suffix, name);
    return there(name);
}

static void put_file(const char *name, const char *text)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_write_at(fd, text, strlen(text), 0), 0);
    close(fd);
}

static int count_one(void *arg, const char *name)
{
    size_t *count = arg;

    (void)name;
    (*count)++;
    return 0;
}

static size_t count_files(void)
{
    size_t count = 0;

    ck_assert_int_eq(nx_each_name(dir_fd, count_one, &count), 0);
    return count;
}

/* The n-th of a family: larger n, later offset. */
static struct nx_snapshot_info info_of(unsigned n, enum nx_snapshot_reason reason)
{
    struct nx_snapshot_info info = {
        .reason = reason,
        .created_at = 1732900000000 + n,
        .position = {.epoch = 3, .offset = 100 * (uint64_t)n, .crc = 0xfedcba98},
        .records = 10 + n,
        .files_count = 5,
        .uncompressed_size = 104857600,
        .compressed_size = 7,
        .checksum = 0x89abcdef,
    };

    (void)snprintf(info.id, sizeof info.id, "550e8400-e29b-41d4-a716-4466554400%02u", n);
    return info;
}

/* As the snapshot process does it. */
static void publish(const struct nx_snapshot_info *info)
{
    char name[NX_SNAPSHOT_NAME];

    nx_snapshot_name(info->position.offset, info->id, ".tar.zst.tmp", name);
    put_file(name, "archive");
    ck_assert_int_eq(nx_snapshot_store_info(dir_fd, info), 0);
    ck_assert_int_eq(nx_snapshot_publish(dir_fd, info), 0);
}

static struct nx_snapshot_info published(unsigned n, enum nx_snapshot_reason reason)
{
    struct nx_snapshot_info info = info_of(n, reason);

    publish(&info);
    return info;
}

static void pin(const struct nx_snapshot_info *info)
{
    struct nx_pin held = {.replica_id = REPLICA, .snapshot_offset = info->position.offset};

    memcpy(held.snapshot_id, info->id, sizeof held.snapshot_id);
    ck_assert_int_eq(nx_pin_write(dir_fd, &held), 0);
}

static size_t list_count(void)
{
    struct nx_snapshot_info *list;
    size_t count;

    ck_assert_int_eq(nx_snapshot_list(dir_fd, &list, &count), 0);
    ck_assert_int_eq(list == NULL, count == 0);
    free(list);
    return count;
}

static void assert_same(const struct nx_snapshot_info *a, const struct nx_snapshot_info *b)
{
    ck_assert_str_eq(a->id, b->id);
    ck_assert_uint_eq(a->reason, b->reason);
    ck_assert_uint_eq(a->created_at, b->created_at);
    ck_assert_uint_eq(a->position.epoch, b->position.epoch);
    ck_assert_uint_eq(a->position.offset, b->position.offset);
    ck_assert_uint_eq(a->position.crc, b->position.crc);
    ck_assert_uint_eq(a->records, b->records);
    ck_assert_uint_eq(a->files_count, b->files_count);
    ck_assert_uint_eq(a->uncompressed_size, b->uncompressed_size);
    ck_assert_uint_eq(a->compressed_size, b->compressed_size);
    ck_assert_uint_eq(a->checksum, b->checksum);
}

/* ---- the directory ---- */

START_TEST(the_directory_is_made_once)
{
    struct stat st;
    int again = nx_snapshot_dir(top);

    ck_assert_int_ge(again, 0);
    ck_assert_int_eq(fstat(again, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    close(again);
    ck_assert_int_eq(nx_snapshot_dir("/tmp/nexus-no-such-directory"), -ENOENT);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, top), 0);
    ck_assert_int_eq(mkdir(top, 0700), 0);
    (void)snprintf(top + strlen(top), 16, "/snapshots");
    ck_assert_int_eq(nx_file_replace(top, "x", 1, 0600), 0);
    *strrchr(top, '/') = '\0';
    ck_assert_int_eq(nx_snapshot_dir(top), -ENOTDIR);
}
END_TEST

START_TEST(an_empty_directory_has_none)
{
    struct nx_snapshot_info info;

    ck_assert_uint_eq(list_count(), 0);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, "last", &info), -ENOENT);
}
END_TEST

/* ---- one archive ---- */

START_TEST(what_is_known_comes_back)
{
    struct nx_snapshot_info info = published(1, NX_SNAPSHOT_SCHEDULE);
    struct nx_snapshot_info found;
    char text[8];
    int fd;

    ck_assert(there(ARCHIVE) && there(INFO));
    ck_assert_uint_eq(count_files(), 2);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, info.id, &found), 0);
    assert_same(&found, &info);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, "last", &found), 0);
    assert_same(&found, &info);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, "", &found), -ENOENT);
    fd = nx_snapshot_open(dir_fd, &found);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_read_at(fd, text, 7, 0), 0);
    ck_assert_int_eq(memcmp(text, "archive", 7), 0);
    close(fd);
}
END_TEST

START_TEST(numbers_of_any_size_come_back)
{
    struct nx_snapshot_info info = info_of(1, NX_SNAPSHOT_FULL_SYNC);
    struct nx_snapshot_info found;

    info.created_at = UINT64_MAX;
    info.position = (struct nx_position){UINT64_MAX, UINT64_MAX, UINT32_MAX};
    info.records = 0;
    info.files_count = UINT64_MAX;
    info.uncompressed_size = UINT64_MAX;
    info.compressed_size = UINT64_MAX;
    info.checksum = UINT32_MAX;
    publish(&info);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, info.id, &found), 0);
    assert_same(&found, &info);
}
END_TEST

START_TEST(what_is_known_is_text_with_a_crc)
{
    char expected[1024];
    char text[1024];
    int length;

    (void)published(1, NX_SNAPSHOT_SCHEDULE);
    length = snprintf(expected, sizeof expected,
                      "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 1\n"
                      "created_at = 1732900000001\nwal_offset = 100\nepoch = 3\ncrc = 4275878552\n"
                      "records = 11\nfiles_count = 5\nuncompressed_size = 104857600\n"
                      "compressed_size = 7\nchecksum = 2309737967\n");
    (void)snprintf(expected + length, sizeof expected - (size_t)length, "crc32 = %08" PRIx32 "\n",
                   nx_crc32(0, expected, (size_t)length));
    ck_assert_int_eq(nx_file_read_text(dir_fd, INFO, text, sizeof text), 0);
    ck_assert_str_eq(text, expected);
}
END_TEST

START_TEST(an_id_that_is_no_uuid_is_not_stored)
{
    struct nx_snapshot_info info = info_of(1, NX_SNAPSHOT_REQUEST);

    (void)snprintf(info.id, sizeof info.id, "../x");
    ck_assert_int_eq(nx_snapshot_store_info(dir_fd, &info), -EINVAL);
    ck_assert_uint_eq(count_files(), 0);
}
END_TEST

START_TEST(an_archive_counts_from_its_name_on)
{
    struct nx_snapshot_info info = info_of(1, NX_SNAPSHOT_REQUEST);

    put_file(ARCHIVE ".tmp", "archive");
    ck_assert_uint_eq(list_count(), 0);
    ck_assert_int_eq(nx_snapshot_store_info(dir_fd, &info), 0);
    ck_assert_uint_eq(list_count(), 0);
    ck_assert_int_eq(nx_snapshot_publish(dir_fd, &info), 0);
    ck_assert_uint_eq(list_count(), 1);
    ck_assert(!there(ARCHIVE ".tmp"));
    ck_assert_int_eq(nx_snapshot_publish(dir_fd, &info), -ENOENT);
}
END_TEST

START_TEST(an_archive_without_info_is_a_persons)
{
    put_file(ARCHIVE, "archive");
    ck_assert_uint_eq(list_count(), 0);
    ck_assert_int_eq(nx_snapshot_clean(dir_fd), 0);
    ck_assert_int_eq(nx_snapshot_prune(dir_fd, 0), 0);
    ck_assert(there(ARCHIVE));
}
END_TEST

static const char *const damages[] = {
    "",
    "crc32 = 00000000\n",
    "id = 550e8400-e29b-41d4-a716-446655440001\n",
    "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 1\n",
    "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 3\ncreated_at = 1\nwal_offset = 100\n"
    "epoch = 3\ncrc = 1\nrecords = 1\nfiles_count = 5\nuncompressed_size = 1\n"
    "compressed_size = 7\nchecksum = 2\n",
    "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 1\ncreated_at = 1\nwal_offset = 100\n"
    "epoch = 3\ncrc = 4294967296\nrecords = 1\nfiles_count = 5\nuncompressed_size = 1\n"
    "compressed_size = 7\nchecksum = 2\n",
    "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 1\ncreated_at = 1\nwal_offset = 100\n"
    "epoch = 18446744073709551616\ncrc = 1\nrecords = 1\nfiles_count = 5\nuncompressed_size = 1\n"
    "compressed_size = 7\nchecksum = 2\n",
    "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 1\ncreated_at = -1\nwal_offset = 100\n"
    "epoch = 3\ncrc = 1\nrecords = 1\nfiles_count = 5\nuncompressed_size = 1\n"
    "compressed_size = 7\nchecksum = 2\n",
    "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 1\ncreated_at = \nwal_offset = 100\n"
    "epoch = 3\ncrc = 1\nrecords = 1\nfiles_count = 5\nuncompressed_size = 1\n"
    "compressed_size = 7\nchecksum = 2\n",
    /* another one's */
    "id = 550e8400-e29b-41d4-a716-446655440001\nreason = 1\ncreated_at = 1\nwal_offset = 101\n"
    "epoch = 3\ncrc = 1\nrecords = 1\nfiles_count = 5\nuncompressed_size = 1\n"
    "compressed_size = 7\nchecksum = 2\n",
};

/* Each under a right CRC and without one; what stands beside it is still listed. */
START_TEST(a_damaged_info_hides_itself_alone)
{
    char text[1024];

    (void)published(1, NX_SNAPSHOT_REQUEST);
    (void)published(2, NX_SNAPSHOT_REQUEST);
    ck_assert_uint_eq(list_count(), 2);
    put_file(INFO, damages[_i]);
    ck_assert_uint_eq(list_count(), 1);
    (void)snprintf(text, sizeof text, "%scrc32 = %08" PRIx32 "\n", damages[_i],
                   nx_crc32(0, damages[_i], strlen(damages[_i])));
    put_file(INFO, text);
    ck_assert_uint_eq(list_count(), 1);
    ck_assert_int_eq(unlinkat(dir_fd, INFO, 0), 0);
    ck_assert_int_eq(mkdirat(dir_fd, INFO, 0700), 0);
    ck_assert_uint_eq(list_count(), 1);
}
END_TEST

START_TEST(each_bit_of_an_info_counts)
{
    char text[1024];
    size_t length;

    (void)published(1, NX_SNAPSHOT_REQUEST);
    ck_assert_int_eq(nx_file_read_text(dir_fd, INFO, text, sizeof text), 0);
    length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        text[i] ^= 1;
        put_file(INFO, text);
        ck_assert_uint_eq(list_count(), 0);
        text[i] ^= 1;
    }
    put_file(INFO, text);
    ck_assert_uint_eq(list_count(), 1);
}
END_TEST

START_TEST(lines_of_a_later_version_do_no_harm)
{
    char text[1024];
    size_t length;

    (void)published(1, NX_SNAPSHOT_REQUEST);
    ck_assert_int_eq(nx_file_read_text(dir_fd, INFO, text, sizeof text), 0);
    length = (size_t)(strstr(text, "crc32 = ") - text);
    length += (size_t)snprintf(text + length, sizeof text - length, "color = blue\n");
    (void)snprintf(text + length, sizeof text - length, "crc32 = %08" PRIx32 "\n",
                   nx_crc32(0, text, length));
    put_file(INFO, text);
    ck_assert_uint_eq(list_count(), 1);
}
END_TEST

START_TEST(a_link_is_no_archive)
{
    struct nx_snapshot_info info = published(1, NX_SNAPSHOT_REQUEST);

    ck_assert_int_eq(unlinkat(dir_fd, ARCHIVE, 0), 0);
    ck_assert_int_eq(nx_snapshot_open(dir_fd, &info), -ENOENT);
    ck_assert_int_eq(symlinkat("/etc/passwd", dir_fd, ARCHIVE), 0);
    ck_assert_uint_eq(list_count(), 0);
    ck_assert_int_eq(nx_snapshot_open(dir_fd, &info), -ELOOP);
}
END_TEST

/* ---- several ---- */

START_TEST(the_newest_comes_first)
{
    struct nx_snapshot_info twin = info_of(30, NX_SNAPSHOT_REQUEST);
    struct nx_snapshot_info found;
    struct nx_snapshot_info *list;
    size_t count;

    for (unsigned n = 1; n <= 40; n++) {
        (void)published(n * 7 % 41, NX_SNAPSHOT_SCHEDULE);
    }
    twin.position.offset = 4000; /* nothing was written between 40 and this one */
    twin.created_at = 1732900000041;
    (void)snprintf(twin.id, sizeof twin.id, "550e8400-e29b-41d4-a716-446655440099");
    publish(&twin);
    ck_assert_int_eq(nx_snapshot_list(dir_fd, &list, &count), 0);
    ck_assert_uint_eq(count, 41);
    assert_same(&list[0], &twin);
    for (unsigned i = 1; i < 41; i++) {
        ck_assert_uint_eq(list[i].position.offset, 100 * (41 - (uint64_t)i));
    }
    free(list);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, "last", &found), 0);
    assert_same(&found, &twin);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, "550e8400-e29b-41d4-a716-446655440007", &found), 0);
    ck_assert_uint_eq(found.position.offset, 700);
}
END_TEST

START_TEST(removed_is_removed)
{
    struct nx_snapshot_info info = published(1, NX_SNAPSHOT_REQUEST);
    struct nx_snapshot_info other = published(2, NX_SNAPSHOT_REQUEST);

    put_file(INFO ".tmp", "x");
    ck_assert_int_eq(nx_snapshot_remove(dir_fd, &info), 0);
    ck_assert(!there(ARCHIVE) && !there(INFO) && !there(INFO ".tmp"));
    ck_assert(has(&other, ".tar.zst") && has(&other, ".info"));
    ck_assert_int_eq(nx_snapshot_remove(dir_fd, &info), 0);
    ck_assert_uint_eq(count_files(), 2);
}
END_TEST

START_TEST(forgotten_is_removed)
{
    struct nx_snapshot_info info = published(1, NX_SNAPSHOT_REQUEST);
    int kept = 7;

    ck_assert_int_eq(nx_snapshot_forget(dir_fd, &info, &kept), 0);
    ck_assert_int_eq(kept, 0);
    ck_assert_uint_eq(count_files(), 0);
}
END_TEST

START_TEST(forgotten_in_a_full_sync_is_left_to_keep)
{
    struct nx_snapshot_info info = published(1, NX_SNAPSHOT_REQUEST);
    struct nx_snapshot_info found;
    int kept = 7;

    pin(&info);
    ck_assert_int_eq(nx_snapshot_forget(dir_fd, &info, &kept), 0);
    ck_assert_int_eq(kept, 1);
    ck_assert_int_eq(nx_snapshot_find(dir_fd, info.id, &found), 0);
    ck_assert_uint_eq(found.reason, NX_SNAPSHOT_FULL_SYNC);
    ck_assert_int_eq(nx_snapshot_prune(dir_fd, 0), 0);
    ck_assert_uint_eq(list_count(), 1);
    ck_assert_int_eq(nx_pin_remove(dir_fd, REPLICA), 0);
    ck_assert_int_eq(nx_snapshot_prune(dir_fd, 1), 0);
    ck_assert_uint_eq(list_count(), 1);
    ck_assert_int_eq(nx_snapshot_prune(dir_fd, 0), 0);
    ck_assert_uint_eq(count_files(), 0);
}
END_TEST

START_TEST(the_oldest_that_nobody_asked_for_go)
{
    struct nx_snapshot_info list[7] = {{.id = ""}};

    for (unsigned n = 1; n <= 6; n++) {
        list[n] = published(n, (enum nx_snapshot_reason)(n % 3)); /* 3 and 6 were asked for */
    }
    pin(&list[1]);
    ck_assert_int_eq(nx_snapshot_prune(dir_fd, 4), 0);
    ck_assert_uint_eq(list_count(), 6);
    ck_assert_int_eq(nx_snapshot_prune(dir_fd, 2), 0);
    for (unsigned n = 1; n <= 6; n++) {
        ck_assert_int_eq(has(&list[n], ".tar.zst"), n != 2);
        ck_assert_int_eq(has(&list[n], ".info"), n != 2);
    }
    ck_assert_int_eq(nx_snapshot_prune(dir_fd, 0), 0);
    for (unsigned n = 1; n <= 6; n++) {
        ck_assert_int_eq(has(&list[n], ".tar.zst"), n == 1 || n % 3 == 0);
    }
}
END_TEST

START_TEST(what_a_job_has_left_is_cleaned)
{
    struct nx_snapshot_info whole = published(2, NX_SNAPSHOT_REQUEST);
    struct nx_snapshot_info half = info_of(1, NX_SNAPSHOT_REQUEST);
    char name[NX_SNAPSHOT_NAME];

    ck_assert_int_eq(nx_snapshot_store_info(dir_fd, &half), 0);
    put_file(ARCHIVE ".tmp", "half");
    put_file(INFO ".tmp", "half");
    put_file("incoming-" REPLICA ".part", "x");
    put_file("incoming-" REPLICA ".chunks", "x");
    put_file(REPLICA ".pin.tmp", "a walsender is about to name it");
    nx_snapshot_name(whole.position.offset, whole.id, ".info.tmp", name);
    put_file(name, "an http worker is about to name it");
    ck_assert_int_eq(nx_snapshot_clean(dir_fd), 0);
    ck_assert(!there(ARCHIVE ".tmp") && !there(INFO) && !there(INFO ".tmp"));
    ck_assert(there(REPLICA ".pin.tmp") && there(name));
    ck_assert(there("incoming-" REPLICA ".part") && there("incoming-" REPLICA ".chunks"));
    ck_assert_uint_eq(list_count(), 1);
    ck_assert_uint_eq(count_files(), 6);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("snapshot_files");
    TCase *tcase = tcase_create("one");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_directory_is_made_once);
    tcase_add_test(tcase, an_empty_directory_has_none);
    tcase_add_test(tcase, what_is_known_comes_back);
    tcase_add_test(tcase, numbers_of_any_size_come_back);
    tcase_add_test(tcase, what_is_known_is_text_with_a_crc);
    tcase_add_test(tcase, an_id_that_is_no_uuid_is_not_stored);
    tcase_add_test(tcase, an_archive_counts_from_its_name_on);
    tcase_add_test(tcase, an_archive_without_info_is_a_persons);
    tcase_add_loop_test(tcase, a_damaged_info_hides_itself_alone, 0,
                        (int)(sizeof damages / sizeof damages[0]));
    tcase_add_test(tcase, each_bit_of_an_info_counts);
    tcase_add_test(tcase, lines_of_a_later_version_do_no_harm);
    tcase_add_test(tcase, a_link_is_no_archive);
    suite_add_tcase(suite, tcase);

    tcase = tcase_create("several");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_newest_comes_first);
    tcase_add_test(tcase, removed_is_removed);
    tcase_add_test(tcase, forgotten_is_removed);
    tcase_add_test(tcase, forgotten_in_a_full_sync_is_left_to_keep);
    tcase_add_test(tcase, the_oldest_that_nobody_asked_for_go);
    tcase_add_test(tcase, what_a_job_has_left_is_cleaned);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
