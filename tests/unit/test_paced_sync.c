/* Syncs in pieces, and the pace of the checkpointer's. */
#include "checkpointer/pace.h"
#include "state_fixture.h"
#include "storage/paced_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static unsigned pauses;
static unsigned last_done;
static unsigned last_pieces;

static void note(void *arg, unsigned done, unsigned pieces)
{
    ck_assert_ptr_eq(arg, &pauses);
    pauses++;
    ck_assert_uint_eq(done, pauses);
    last_done = done;
    last_pieces = pieces;
}

static const struct nx_pause noting = {.call = note, .arg = &pauses};

static void setup(void)
{
    state_dir_make();
    pauses = 0;
}

static void teardown(void)
{
    state_dir_remove();
}

/* A file of `size` bytes; two are open at most. */
static int file_of(const char *name, off_t size)
{
    int dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    close(dir_fd);
    return fd;
}

START_TEST(a_sync_pauses_between_its_pieces)
{
    int fd = file_of("file", 5 * MIB + 1);

    ck_assert_int_eq(nx_paced_sync(fd, &noting), 0);
    ck_assert_uint_eq(pauses, 5);
    ck_assert_uint_eq(last_pieces, 6);
    ck_assert_int_eq(nx_paced_sync(fd, NULL), 0);
    ck_assert_uint_eq(pauses, 5);
    close(fd);
}
END_TEST

START_TEST(a_large_file_has_larger_pieces)
{
    int fd = file_of("file", (off_t)(5000 * MIB)); /* sparse */

    ck_assert_int_eq(nx_paced_sync(fd, &noting), 0);
    ck_assert_uint_eq(last_pieces, 256);
    ck_assert_uint_eq(last_done, 255);
    close(fd);
}
END_TEST

START_TEST(a_small_or_empty_file_has_no_pause)
{
    int empty = file_of("empty", 0);
    int small = file_of("small", MIB);

    ck_assert_int_eq(nx_paced_sync(empty, &noting), 0);
    ck_assert_int_eq(nx_paced_sync(small, &noting), 0);
    ck_assert_uint_eq(pauses, 0);
    close(empty);
    close(small);
}
END_TEST

START_TEST(an_error_is_the_sync_s)
{
    ck_assert_int_eq(nx_paced_sync(-1, &noting), -EBADF);
    ck_assert_int_eq(nx_paced_sync(-1, NULL), -EBADF);
}
END_TEST

START_TEST(who_syncs_that_file_meanwhile_pauses)
{
    int fd = file_of("file", 3 * MIB);
    int other = file_of("other", 3 * MIB);

    nx_paced_sync_begin(fd, &noting);
    ck_assert_int_eq(fdatasync(other), 0);
    ck_assert_uint_eq(pauses, 0);
    ck_assert_int_eq(fdatasync(fd), 0);
    ck_assert_uint_eq(pauses, 2);
    nx_paced_sync_end();
    ck_assert_int_eq(fdatasync(fd), 0);
    nx_paced_sync_begin(fd, NULL);
    ck_assert_int_eq(fdatasync(fd), 0);
    ck_assert_uint_eq(pauses, 2);
    close(fd);
    close(other);
}
END_TEST

/* That LMDB's own call of fdatasync is found, which nothing but this would tell. */
START_TEST(a_commit_of_the_state_pauses)
{
    static uint8_t value[100000];
    struct nx_state *state = state_open_sized(true, 64 * MIB);
    struct nx_position position = {1, 1, 1};

    memset(value, 'v', sizeof value);
    nx_state_set_pause(state, &noting);
    ck_assert_int_eq(nx_state_write_begin(state), 0);
    for (uint8_t i = 0; i < 50; i++) {
        struct nx_record record = {
            .key = &i, .key_length = 1, .offset = 1, .value = value, .value_length = sizeof value};

        ck_assert_int_eq(nx_state_put(state, &record), 0);
    }
    ck_assert_int_eq(nx_state_write_commit(state, &position), 0);
    ck_assert_uint_ge(pauses, 4);
    ck_assert_uint_eq(last_done, last_pieces - 1);
    nx_state_close(state);
}
END_TEST

START_TEST(the_spread_of_a_stage)
{
    ck_assert_uint_eq(nx_pace_spread(UINT64_MAX, 1000), 2000); /* the first one */
    ck_assert_uint_eq(nx_pace_spread(30000, 256), 2000);
    ck_assert_uint_eq(nx_pace_spread(1600, 256), 400); /* under load: a quarter */
    ck_assert_uint_eq(nx_pace_spread(30000, 10), 80);  /* little: no longer than it takes */
    ck_assert_uint_eq(nx_pace_spread(0, 256), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("paced_sync");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_sync_pauses_between_its_pieces);
    tcase_add_test(tcase, a_large_file_has_larger_pieces);
    tcase_add_test(tcase, a_small_or_empty_file_has_no_pause);
    tcase_add_test(tcase, an_error_is_the_sync_s);
    tcase_add_test(tcase, who_syncs_that_file_meanwhile_pauses);
    tcase_add_test(tcase, a_commit_of_the_state_pauses);
    tcase_add_test(tcase, the_spread_of_a_stage);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
