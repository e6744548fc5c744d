/* timeout: 300 */
/* Recovery of the log: what is never taken for its end, but refused with the place named. */
#include "recovery_fixture.h"

/* ---- corruption ---- */

START_TEST(corruption_below_the_mark_is_refused)
{
    struct run run;
    char byte[64];

    wal_append_n(&wal, 3);
    wal_append_n(&wal, 1);
    (void)snprintf(byte, sizeof byte, "byte %" PRIu64 ":", wal.frame_at);
    wal_flip(&wal, FIRST, wal.frame_at + 50);
    wal_append_n(&wal, 6);
    wal_mark(&wal, &wal.last);
    run = recover();
    ASSERT_REFUSED(&run, FIRST, "entry 4", "6 readable", "replica", "snapshot", "wrong CRC",
                   "up to 10");
    ck_assert_ptr_nonnull(strstr(run.error, byte));
}
END_TEST

START_TEST(corruption_of_the_last_entry_at_the_mark_is_refused)
{
    struct run run;

    wal_append_n(&wal, 10);
    wal_mark(&wal, &wal.last);
    wal_flip(&wal, FIRST, wal.frame_at + 50);
    run = recover();
    ASSERT_REFUSED(&run, "entry 10", "0 readable");
}
END_TEST

START_TEST(corruption_far_before_valid_entries_is_refused)
{
    uint64_t damaged;
    struct run run;

    wal.segment_size = (uint64_t)40 << 20;
    good_log();
    wal_append_n(&wal, 1);
    damaged = wal.frame_at;
    while (wal.at < damaged + GROUP + 2000000) {
        wal_append(&wal, next_header(&wal), 1000000);
    }
    wal_append_n(&wal, 2);
    wal_flip(&wal, FIRST, damaged + 50);
    run = recover();
    ASSERT_REFUSED(&run, FIRST, "entry 11", " 21 readable", "too far behind");
}
END_TEST

/* The chain that proves it stands alone, far behind, at an odd place. */
START_TEST(corruption_of_all_but_a_far_chain_is_refused)
{
    struct run run;

    wal.segment_size = (uint64_t)40 << 20;
    good_log();
    wal.last.offset += 500;
    wal.at += GROUP + 12345;
    wal_append_n(&wal, 2);
    run = recover();
    ASSERT_REFUSED(&run, "entry 11", "2 readable", "zeros");
}
END_TEST

START_TEST(corruption_in_a_segment_that_is_not_the_last_is_refused)
{
    struct run run;

    wal_append_n(&wal, 5);
    wal_flip(&wal, FIRST, wal.frame_at + 50);
    wal_segment(&wal);
    wal_append_n(&wal, 5);
    run = recover();
    ASSERT_REFUSED(&run, FIRST, "entry 5", "5 readable", "next segment begins at offset 6");
}
END_TEST

START_TEST(corruption_of_what_the_state_has_is_refused)
{
    struct run run;

    wal_append_n(&wal, 5);
    wal_flip(&wal, FIRST, wal.frame_at + 50);
    wal_append_n(&wal, 5);
    run = recover_from(&wal.last);
    ASSERT_REFUSED(&run, "entry 5", "5 readable");
}
END_TEST

START_TEST(unknown_operations_are_refused_and_not_cut)
{
    struct nx_entry_header header;
    uint8_t *frame;
    struct run run;

    good_log();
    header = next_header(&wal);
    frame = make_frame(&header, 100, 1);
    frame[NX_ENTRY_HEADER_SIZE] = 99; /* kind */
    header.crc = nx_entry_finish(frame, &header);
    wal_put_raw(&wal, frame, header.frame_length, wal.at);
    free(frame);
    run = recover();
    ASSERT_REFUSED(&run, "entry 11", "unknown");
}
END_TEST

START_TEST(a_refusal_changes_nothing)
{
    uint8_t *before = malloc(SEGMENT_SIZE);
    uint8_t *after = malloc(SEGMENT_SIZE);
    struct run run;

    ck_assert(before != NULL && after != NULL);
    wal_append_n(&wal, 10);
    wal_flip(&wal, FIRST, wal.frame_at + 50);
    wal_mark(&wal, &wal.last);
    ck_assert_int_eq(nx_read_at(wal.fd, before, SEGMENT_SIZE, 0), 0);
    run = recover();
    ck_assert_int_eq(run.rc, -EBADMSG);
    ck_assert_int_eq(nx_read_at(wal.fd, after, SEGMENT_SIZE, 0), 0);
    ck_assert_int_eq(memcmp(before, after, SEGMENT_SIZE), 0);
    free(before);
    free(after);
}
END_TEST

/* ---- missing and exchanged pieces ---- */

#define SECOND "00000000000000000006.wal"
#define THIRD  "00000000000000000011.wal"
#define FOURTH "00000000000000000016.wal"

static struct nx_position ends[4]; /* of the segments */

static void four_segments(void)
{
    for (size_t i = 0; i < 4; i++) {
        wal_segment(&wal);
        wal_append_n(&wal, 5);
        ends[i] = wal.last;
    }
    wal_mark(&wal, &wal.last);
}

static void remove_name(const char *name)
{
    ck_assert_int_eq(unlinkat(wal.dir_fd, name, 0), 0);
}

static void rename_to(const char *from, const char *to)
{
    ck_assert_int_eq(renameat(wal.dir_fd, from, wal.dir_fd, to), 0);
}

START_TEST(a_missing_first_segment_is_refused)
{
    struct run run;

    four_segments();
    remove_name(FIRST);
    run = recover();
    ASSERT_REFUSED(&run, SECOND, "entries 1 to 5 are missing");
    run = recover_from(&ends[0]); /* all of it is in the state */
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.result.oldest_offset, 6);
}
END_TEST

START_TEST(a_missing_segment_in_the_middle_is_refused)
{
    struct run run;

    four_segments();
    remove_name(THIRD);
    run = recover();
    ASSERT_REFUSED(&run, SECOND, "entry 11", "next segment begins at offset 16");
    /* Also where nothing behind it was known to be durable. */
    wal_mark(&wal, &ends[0]);
    run = recover();
    ASSERT_REFUSED(&run, SECOND, "entry 11", "5 readable");
}
END_TEST

START_TEST(a_missing_segment_below_the_state_is_refused)
{
    struct run run;

    four_segments();
    run = recover_from(&ends[3]);
    assert_end(&run, &ends[3]);
    remove_name(SECOND);
    run = recover_from(&ends[3]);
    ASSERT_REFUSED(&run, "hole", FIRST, THIRD);
}
END_TEST

START_TEST(damage_where_two_old_segments_meet_is_refused)
{
    struct run run;

    four_segments();
    wal_flip(&wal, SECOND, NX_SEGMENT_HEADER + 26); /* prev_crc of its first entry */
    run = recover_from(&ends[3]);
    ASSERT_REFUSED(&run, "hole", FIRST, SECOND);
}
END_TEST

START_TEST(a_missing_last_segment_is_refused)
{
    struct run run;

    four_segments();
    remove_name(FOURTH);
    run = recover();
    ASSERT_REFUSED(&run, THIRD, "entry 16", "up to 20");
}
END_TEST

START_TEST(a_missing_log_is_refused)
{
    struct run run;

    four_segments();
    remove_name(FIRST);
    remove_name(SECOND);
    remove_name(THIRD);
    remove_name(FOURTH);
    run = recover();
    ASSERT_REFUSED(&run, "entries 1 to 20", "missing");
    run = recover_from(&ends[1]);
    ASSERT_REFUSED(&run, "entries 11 to 20", "missing");
    run = recover_from(&ends[3]); /* the state has all of it */
    assert_end(&run, &ends[3]);
    ck_assert_uint_eq(run.result.oldest_offset, 21);
}
END_TEST

START_TEST(a_log_that_ends_before_the_state_is_refused)
{
    struct nx_position base;
    struct run run;

    four_segments();
    wal_mark(&wal, &ends[0]); /* an old mark */
    base = ends[3];
    remove_name(FOURTH);
    run = recover_from(&base);
    ASSERT_REFUSED(&run, "entry 16", "up to 20");
}
END_TEST

START_TEST(exchanged_segments_are_refused)
{
    struct run run;

    four_segments();
    rename_to(SECOND, "x");
    rename_to(THIRD, SECOND);
    rename_to("x", THIRD);
    run = recover();
    ASSERT_REFUSED(&run, SECOND, "another first offset");
    run = recover_from(&ends[3]);
    ASSERT_REFUSED(&run, SECOND, "another first offset");
}
END_TEST

/* A copy under another name, its header corrected by somebody who knows how. */
static void copy_segment(uint64_t from, uint64_t to)
{
    struct nx_segment_header header = {.first_offset = to, .epoch = 1};
    uint8_t *bytes = malloc(SEGMENT_SIZE);
    char name[NX_SEGMENT_NAME];
    int fd;

    ck_assert_ptr_nonnull(bytes);
    nx_segment_name(from, name);
    fd = openat(wal.dir_fd, name, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(nx_read_at(fd, bytes, SEGMENT_SIZE, 0), 0);
    close(fd);
    memcpy(header.cluster_id, test_cluster, sizeof test_cluster);
    nx_segment_header_encode(&header, bytes);
    nx_segment_name(to, name);
    ck_assert_int_eq(nx_file_replace_at(wal.dir_fd, name, bytes, SEGMENT_SIZE, 0600), 0);
    free(bytes);
}

START_TEST(a_duplicated_segment_is_refused)
{
    struct run run;

    four_segments();
    copy_segment(11, 13);
    run = recover();
    ASSERT_REFUSED(&run, "twice", "entry 13", THIRD, "00000000000000000013.wal");
    remove_name("00000000000000000013.wal");
    copy_segment(16, 21); /* behind the end: it doesn't begin with entry 21 */
    run = recover();
    assert_end(&run, &ends[3]);
    ck_assert_uint_eq(run.result.segment_first, 21);
    ck_assert_uint_gt(run.result.cut_bytes, 0);
    copy_segment(16, 30);
    run = recover();
    ASSERT_REFUSED(&run, "entry 21", "next segment begins at offset 30");
}
END_TEST

START_TEST(a_segment_of_another_cluster_is_refused)
{
    struct nx_segment_header header = {.first_offset = 6, .epoch = 1, .cluster_id = {9}};
    uint8_t bytes[NX_SEGMENT_HEADER];
    struct run run;

    wal_append_n(&wal, 5);
    wal_segment(&wal);
    wal_append_n(&wal, 5);
    nx_segment_header_encode(&header, bytes);
    wal_put_raw(&wal, bytes, sizeof bytes, 0);
    run = recover();
    ASSERT_REFUSED(&run, SECOND, "another cluster");
}
END_TEST

START_TEST(a_damaged_segment_header_is_refused)
{
    struct run run;

    wal_append_n(&wal, 5);
    wal_flip(&wal, FIRST, (uint64_t)_i);
    run = recover();
    ASSERT_REFUSED(&run, FIRST, "header is damaged");
}
END_TEST

START_TEST(a_segment_shorter_than_its_header_is_refused)
{
    struct run run;

    wal_append_n(&wal, 5);
    ck_assert_int_eq(ftruncate(wal.fd, _i), 0);
    run = recover();
    ASSERT_REFUSED(&run, FIRST, "shorter than its header");
}
END_TEST

START_TEST(a_missing_mark_is_refused)
{
    struct run run;

    wal_append_n(&wal, 5);
    remove_name("durable");
    run = recover();
    ASSERT_REFUSED(&run, "wal/durable is missing", "replica");
    remove_name(FIRST);
    run = recover_from(&wal.last);
    ASSERT_REFUSED(&run, "wal/durable is missing", "offset 5");
}
END_TEST

START_TEST(a_damaged_mark_is_refused)
{
    struct run run;

    wal_append_n(&wal, 5);
    wal_mark(&wal, &wal.last);
    wal_flip(&wal, "durable", (uint64_t)_i);
    run = recover();
    ASSERT_REFUSED(&run, "wal/durable is damaged");
}
END_TEST

START_TEST(a_mark_ahead_of_the_log_is_refused)
{
    struct nx_position ahead = {1, 11, 99};
    struct run run;

    wal_append_n(&wal, 10);
    wal_mark(&wal, &ahead);
    run = recover();
    ASSERT_REFUSED(&run, "entry 11", "up to 11", "zeros", "0 readable");
}
END_TEST

START_TEST(a_mark_of_another_history_is_refused)
{
    struct nx_position other;
    struct run run;

    wal_append_n(&wal, 10);
    other = wal.last;
    other.crc ^= 1;
    wal_mark(&wal, &other);
    run = recover();
    ASSERT_REFUSED(&run, "wal/durable and log", "offset 10", FIRST);
    run = recover_from(&wal.last);
    ASSERT_REFUSED(&run, "state and wal/durable", "offset 10");
}
END_TEST

START_TEST(a_state_of_another_history_is_refused)
{
    struct nx_position base;
    struct nx_position behind;
    struct run run;

    wal_append_n(&wal, 5);
    base = wal.last;
    base.crc ^= 1;
    wal_append_n(&wal, 5);
    run = recover_from(&base);
    ASSERT_REFUSED(&run, "state and log don't belong together", "offset 5", FIRST);
    base.crc ^= 1;
    base.epoch = 2;
    run = recover_from(&base);
    ASSERT_REFUSED(&run, "state and log don't belong together", "epoch 2", "epoch 1");

    /* Also where the entry of the state itself is no longer there. */
    behind = wal.last;
    wal_segment(&wal);
    wal_append_n(&wal, 2);
    remove_name(FIRST);
    behind.crc ^= 1;
    run = recover_from(&behind);
    ASSERT_REFUSED(&run, "state and log don't belong together", "offset 10", THIRD);
}
END_TEST

static void add_refusals(Suite *suite)
{
    TCase *tcase = tcase_create("corruption");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, corruption_below_the_mark_is_refused);
    tcase_add_test(tcase, corruption_of_the_last_entry_at_the_mark_is_refused);
    tcase_add_test(tcase, corruption_far_before_valid_entries_is_refused);
    tcase_add_test(tcase, corruption_of_all_but_a_far_chain_is_refused);
    tcase_add_test(tcase, corruption_in_a_segment_that_is_not_the_last_is_refused);
    tcase_add_test(tcase, corruption_of_what_the_state_has_is_refused);
    tcase_add_test(tcase, unknown_operations_are_refused_and_not_cut);
    tcase_add_test(tcase, a_refusal_changes_nothing);
    suite_add_tcase(suite, tcase);

    tcase = tcase_create("missing and exchanged pieces");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_missing_first_segment_is_refused);
    tcase_add_test(tcase, a_missing_segment_in_the_middle_is_refused);
    tcase_add_test(tcase, a_missing_segment_below_the_state_is_refused);
    tcase_add_test(tcase, damage_where_two_old_segments_meet_is_refused);
    tcase_add_test(tcase, a_missing_last_segment_is_refused);
    tcase_add_test(tcase, a_missing_log_is_refused);
    tcase_add_test(tcase, a_log_that_ends_before_the_state_is_refused);
    tcase_add_test(tcase, exchanged_segments_are_refused);
    tcase_add_test(tcase, a_duplicated_segment_is_refused);
    tcase_add_test(tcase, a_segment_of_another_cluster_is_refused);
    tcase_add_loop_test(tcase, a_damaged_segment_header_is_refused, 0, NX_SEGMENT_HEADER);
    tcase_add_loop_test(tcase, a_segment_shorter_than_its_header_is_refused, 0, NX_SEGMENT_HEADER);
    tcase_add_test(tcase, a_missing_mark_is_refused);
    tcase_add_loop_test(tcase, a_damaged_mark_is_refused, 0, NX_MARK_SIZE);
    tcase_add_test(tcase, a_mark_ahead_of_the_log_is_refused);
    tcase_add_test(tcase, a_mark_of_another_history_is_refused);
    tcase_add_test(tcase, a_state_of_another_history_is_refused);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    Suite *suite = suite_create("wal_damage");
    SRunner *runner = srunner_create(suite);
    int failed;

    add_refusals(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
