/* timeout: 300 */
/* Recovery of the log: where it goes on behind the state, each way a log can end, and what it writes. */
#include "recovery_fixture.h"

#include <signal.h>
#include <sys/resource.h>

/* ---- logs that are whole ---- */

START_TEST(a_fresh_directory_is_an_empty_log)
{
    static const struct nx_position nothing;
    struct run run = recover();

    assert_end(&run, &nothing);
    ck_assert_uint_eq(run.result.oldest_offset, 1);
    ck_assert_int_eq(run.result.segment_fd, -1);
    ck_assert_uint_eq(run.last, 0);
}
END_TEST

START_TEST(a_log_is_replayed_from_its_first_entry)
{
    struct run run;

    wal_append_n(&wal, 50);
    wal_mark(&wal, &wal.last);
    run = recover();
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.first, 1);
    ck_assert_uint_eq(run.last, 50);
    ck_assert_uint_eq(run.progress, 50);
    ck_assert_uint_eq(run.result.replayed, 50);
    ck_assert_uint_eq(run.result.oldest_offset, 1);
    ck_assert_uint_eq(run.result.cut_bytes, 0);
    ck_assert_uint_eq(run.result.segment_first, 1);
    ck_assert_uint_eq(run.result.segment_at, wal.at);
    ck_assert_uint_eq(run.result.segment_size, SEGMENT_SIZE);
    ck_assert_uint_eq(run.result.end_timestamp, 1700000000000000 + 50);
    ck_assert_uint_eq(run.result.mark.position.offset, 50);
}
END_TEST

START_TEST(only_what_follows_the_state_is_replayed)
{
    struct nx_position base;
    struct run run;

    wal_append_n(&wal, 20);
    base = wal.last;
    wal_append_n(&wal, 5);
    wal_segment(&wal);
    wal_append_n(&wal, 5);
    run = recover_from(&base);
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.first, 21);
    ck_assert_uint_eq(run.last, 30);
    ck_assert_uint_eq(run.result.oldest_offset, 1);
}
END_TEST

START_TEST(a_state_at_the_end_of_the_log_leaves_nothing_to_replay)
{
    struct run run;

    wal_append_n(&wal, 20);
    run = recover_from(&wal.last);
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.result.replayed, 0);
    ck_assert_uint_eq(run.result.segment_at, wal.at);
}
END_TEST

START_TEST(a_log_that_begins_right_behind_the_state_is_taken)
{
    struct nx_position base = {3, 100, 0xABCDEF01};
    struct run run;

    wal.last = base;
    wal_mark(&wal, &base);
    run = recover_from(&base);
    assert_end(&run, &base);
    ck_assert_uint_eq(run.result.oldest_offset, 101);
    ck_assert_int_eq(run.result.segment_fd, -1);
    wal_append_n(&wal, 5);
    run = recover_from(&base);
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.first, 101);
    ck_assert_uint_eq(run.result.oldest_offset, 101);
}
END_TEST

START_TEST(an_entry_larger_than_a_segment_is_read)
{
    struct run run;

    wal_append_n(&wal, 3);
    wal.segment_size = (uint64_t)15 << 20;
    wal_segment(&wal);
    wal_append(&wal, next_header(&wal), ((size_t)15 << 20) - 200);
    wal.segment_size = SEGMENT_SIZE;
    wal_segment(&wal);
    wal_append_n(&wal, 3);
    run = recover();
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.last, 7);
}
END_TEST

START_TEST(epochs_may_rise_in_the_log)
{
    struct nx_entry_header header;
    struct run run;

    wal_append_n(&wal, 5);
    header = next_header(&wal);
    header.epoch = 7;
    wal_append(&wal, header, 10);
    wal_append_n(&wal, 5);
    run = recover();
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.result.end.epoch, 7);
}
END_TEST

START_TEST(a_last_segment_without_entries_is_prepared_but_unused)
{
    struct nx_position base;
    struct run run;

    wal_append_n(&wal, 10);
    base = wal.last;
    wal_mark(&wal, &base);
    wal_segment(&wal);
    run = recover();
    assert_end(&run, &base);
    ck_assert_uint_eq(run.result.segment_first, 11);
    ck_assert_uint_eq(run.result.segment_at, NX_SEGMENT_HEADER);
    run = recover_from(&base);
    assert_end(&run, &base);
    ck_assert_uint_eq(run.result.replayed, 0);
    /* Begun again: the same name. */
    wal_segment(&wal);
    wal_append_n(&wal, 1);
    run = recover();
    assert_end(&run, &wal.last);
}
END_TEST

START_TEST(an_unused_segment_with_a_torn_first_entry_is_cut)
{
    struct nx_position end;
    uint64_t at;

    wal_append_n(&wal, 10);
    wal_segment(&wal);
    end = wal.last;
    at = wal.at;
    wal_append_n(&wal, 1);
    wal_flip(&wal, "00000000000000000011.wal", wal.frame_at + 60);
    assert_cut_to(&end, at);
}
END_TEST

START_TEST(an_error_of_the_callback_ends_it)
{
    struct run run = {.stop_at = 5, .stop_rc = -ECANCELED};

    wal_append_n(&wal, 10);
    recover_with(&run);
    ck_assert_int_eq(run.rc, -ECANCELED);
    ck_assert_uint_eq(run.last, 5);
    ck_assert_ptr_nonnull(strstr(run.error, "entry 5"));
}
END_TEST

/* ---- forged ends: ten good entries, then something ---- */

START_TEST(zeros_end_the_log)
{
    struct run run;

    good_log();
    run = recover();
    assert_end(&run, &good_end);
    ck_assert_uint_eq(run.result.cut_bytes, 0);
    ck_assert_uint_eq(run.result.segment_at, good_at);
}
END_TEST

START_TEST(a_stale_frame_of_a_recycled_segment_ends_the_log)
{
    good_log();
    /* Entries 4 and 5 of an older use, whole and linked. */
    wal.last = (struct nx_position){1, 3, 77};
    wal_append_n(&wal, 2);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_frame_of_a_wrong_offset_ends_the_log)
{
    struct nx_entry_header header;

    good_log();
    header = next_header(&wal);
    header.offset++;
    wal_append(&wal, header, 100);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_frame_of_a_lower_epoch_ends_the_log)
{
    struct nx_entry_header header;

    wal_append_n(&wal, 5);
    header = next_header(&wal);
    header.epoch = 4;
    wal_append(&wal, header, 10);
    good_end = wal.last;
    good_at = wal.at;
    header = next_header(&wal);
    header.epoch = 3;
    wal_append(&wal, header, 10);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_frame_with_a_wrong_crc_ends_the_log)
{
    good_log();
    wal_append_n(&wal, 1);
    wal_flip(&wal, FIRST, wal.frame_at + NX_ENTRY_HEADER_SIZE + 20);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_frame_that_does_not_link_to_the_one_before_ends_the_log)
{
    struct nx_entry_header header;

    good_log();
    header = next_header(&wal);
    header.prev_crc ^= 1;
    wal_append(&wal, header, 100);
    wal_append_n(&wal, 3); /* these link to the foreign one */
    assert_cut_to(&good_end, good_at);
}
END_TEST

/* _i: bytes of the next frame that reached the disk. */
START_TEST(a_frame_cut_short_ends_the_log)
{
    struct nx_entry_header header;
    uint8_t *frame;

    good_log();
    header = next_header(&wal);
    frame = make_frame(&header, 100, 1);
    ck_assert_uint_gt(header.frame_length, (size_t)_i);
    wal_put_raw(&wal, frame, (size_t)_i, wal.at);
    free(frame);
    assert_cut_to(&good_end, good_at);
}
END_TEST

/* _i: 0 to 40, bytes of the header before the border of a sector (512) or a page (4096); the rest
 * didn't get there. */
static void split_header(uint64_t border, size_t before)
{
    struct nx_entry_header header;
    uint8_t *frame;
    size_t room;

    wal_append_n(&wal, 1);
    room = (size_t)(border - before - wal.at);
    wal_append(&wal, next_header(&wal), room - (NX_ENTRY_OVERHEAD + NX_OP_HEADER + 3));
    ck_assert_uint_eq(wal.at, border - before);
    good_end = wal.last;
    good_at = wal.at;
    header = next_header(&wal);
    frame = make_frame(&header, 100, 1);
    wal_put_raw(&wal, frame, before, wal.at);
    free(frame);
    assert_cut_to(&good_end, good_at);
}

START_TEST(a_header_split_over_a_sector_ends_the_log)
{
    split_header(1024, (size_t)_i);
}
END_TEST

START_TEST(a_header_split_over_a_page_ends_the_log)
{
    split_header(4096, (size_t)_i);
}
END_TEST

START_TEST(the_other_half_of_a_split_header_ends_the_log)
{
    struct nx_entry_header header;
    uint8_t *frame;

    good_log();
    header = next_header(&wal);
    frame = make_frame(&header, 100, 1);
    wal_put_raw(&wal, frame + 20, header.frame_length - 20, wal.at + 20);
    free(frame);
    assert_cut_to(&good_end, good_at);
}
END_TEST

static const uint32_t absurd_lengths[] = {0, 1, 35, 0x00FFFFF8, 0x01000000, 0x7FFFFFFF, 0xFFFFFFFF};

START_TEST(a_frame_of_absurd_length_ends_the_log)
{
    uint8_t length[4];

    good_log();
    wal_append_n(&wal, 1);
    nx_store_u32(length, absurd_lengths[_i]);
    wal_put_raw(&wal, length, sizeof length, wal.frame_at + 1);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_frame_of_another_type_or_variant_ends_the_log)
{
    good_log();
    wal_append_n(&wal, 1);
    wal_flip(&wal, FIRST, wal.frame_at + (_i == 0 ? 0 : 5));
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_page_of_zeros_inside_the_last_frame_ends_the_log)
{
    static const uint8_t zeros[4096];
    uint64_t page;

    good_log();
    wal_append(&wal, next_header(&wal), 20000);
    page = (wal.frame_at / 4096 + 2) * 4096;
    wal_put_raw(&wal, zeros, sizeof zeros, page);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_page_of_zeros_before_the_rest_of_a_group_ends_the_log)
{
    static const uint8_t zeros[4096];

    good_log();
    wal_append(&wal, next_header(&wal), 8192);
    wal_append_n(&wal, 20);
    wal_put_raw(&wal, zeros, sizeof zeros, 4096);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(garbage_ends_the_log)
{
    uint8_t garbage[3000];

    good_log();
    srandom(1);
    for (size_t i = 0; i < sizeof garbage; i++) {
        garbage[i] = (uint8_t)random();
    }
    wal_put_raw(&wal, garbage, sizeof garbage, wal.at);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(a_group_torn_in_its_first_frame_is_cut_as_a_whole)
{
    good_log();
    wal_append_n(&wal, 1);
    wal_flip(&wal, FIRST, wal.frame_at + 50);
    wal_append_n(&wal, 1); /* whole and linked, but behind the torn one */
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(the_largest_group_torn_at_its_beginning_is_cut)
{
    uint64_t first;

    wal.segment_size = (uint64_t)40 << 20;
    good_log();
    wal_append(&wal, next_header(&wal), 100);
    first = wal.frame_at;
    while (wal.at < first + GROUP - 1100000) {
        wal_append(&wal, next_header(&wal), 1000000);
    }
    wal_append_n(&wal, 2);
    wal_flip(&wal, FIRST, first + 50);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(frames_that_a_client_put_into_a_value_are_not_the_log)
{
    struct nx_entry_header fake = {.epoch = 1};
    size_t used = 0;
    uint8_t *value = malloc(4000);
    uint64_t at;

    ck_assert_ptr_nonnull(value);
    good_log();
    /* The next entry is torn; its value is a chain of frames that continue the log. */
    wal_append(&wal, next_header(&wal), 4000);
    at = wal.frame_at;
    fake = next_header(&wal);
    fake.prev_crc = good_end.crc;
    fake.offset = good_end.offset + 1;
    while (used < 3000) {
        uint8_t *frame = make_frame(&fake, 100, 1);

        memcpy(value + used, frame, fake.frame_length);
        used += fake.frame_length;
        fake.prev_crc = fake.crc;
        fake.offset++;
        free(frame);
    }
    wal_put_raw(&wal, value, used, at + NX_ENTRY_HEADER_SIZE + NX_OP_HEADER + 3);
    free(value);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(one_stray_frame_far_behind_is_no_corruption)
{
    struct nx_entry_header header = {.offset = 1000000, .epoch = 1};
    uint8_t *frame = make_frame(&header, 100, 1);

    wal.segment_size = (uint64_t)40 << 20;
    good_log();
    wal_put_raw(&wal, frame, header.frame_length, good_at + GROUP + 5000);
    free(frame);
    assert_cut_to(&good_end, good_at);
}
END_TEST

START_TEST(many_groups_that_were_never_synced_may_be_lost)
{
    struct run run = {.unsynced = true};

    wal.segment_size = (uint64_t)40 << 20;
    good_log();
    wal_append_n(&wal, 1);
    while (wal.at < good_at + GROUP + 2000000) {
        wal_append(&wal, next_header(&wal), 1000000);
    }
    wal_flip(&wal, FIRST, good_at + 50);
    recover_with(&run);
    assert_end(&run, &good_end);
    ck_assert_uint_gt(run.result.cut_bytes, GROUP);
    run = recover(); /* what follows the end was cleared */
    assert_end(&run, &good_end);
    ck_assert_uint_eq(run.result.cut_bytes, 0);
}
END_TEST

START_TEST(a_segment_that_is_full_to_the_last_byte_is_read)
{
    struct run run;

    wal_append_n(&wal, 1);
    wal_append(&wal, next_header(&wal),
               (size_t)(SEGMENT_SIZE - wal.at) - (NX_ENTRY_OVERHEAD + NX_OP_HEADER + 3));
    ck_assert_uint_eq(wal.at, SEGMENT_SIZE);
    run = recover();
    assert_end(&run, &wal.last);
    ck_assert_uint_eq(run.result.segment_at, SEGMENT_SIZE);
    wal_segment(&wal);
    wal_append_n(&wal, 1);
    run = recover();
    assert_end(&run, &wal.last);
}
END_TEST

/* ---- what recovery writes ---- */

START_TEST(entries_above_the_mark_are_written_again_as_they_were)
{
    uint8_t *before = malloc(SEGMENT_SIZE);
    uint8_t *after = malloc(SEGMENT_SIZE);
    struct nx_position mark;
    struct run run;
    int fd;

    ck_assert(before != NULL && after != NULL);
    wal_append_n(&wal, 3);
    mark = wal.last;
    wal_append_n(&wal, 3);
    wal_mark(&wal, &mark);
    ck_assert_int_eq(nx_read_at(wal.fd, before, SEGMENT_SIZE, 0), 0);
    wal_segment(&wal);
    wal_append_n(&wal, 3);
    run = recover();
    assert_end(&run, &wal.last);
    fd = openat(wal.dir_fd, FIRST, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(nx_read_at(fd, after, SEGMENT_SIZE, 0), 0);
    close(fd);
    ck_assert_int_eq(memcmp(before, after, SEGMENT_SIZE), 0);
    free(before);
    free(after);
}
END_TEST

START_TEST(a_segment_that_cannot_be_written_again_stops_the_server)
{
    struct rlimit limit;
    struct rlimit none;
    struct run run;

    wal_append_n(&wal, 3);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    none = limit;
    none.rlim_cur = NX_SEGMENT_HEADER;
    (void)signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
    run = recover();
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(run.rc, -EIO);
    ck_assert_ptr_nonnull(strstr(run.error, FIRST));
    ck_assert_ptr_nonnull(strstr(run.error, "rewriting"));
}
END_TEST

START_TEST(the_rest_behind_a_cut_is_zeros)
{
    uint8_t *rest = malloc(SEGMENT_SIZE);
    struct run run;

    ck_assert_ptr_nonnull(rest);
    good_log();
    wal_append_n(&wal, 2);
    wal_flip(&wal, FIRST, good_at + 9);
    run = recover();
    ck_assert_uint_eq(run.result.cut_bytes, wal.at - good_at);
    ck_assert_int_eq(nx_read_at(wal.fd, rest, SEGMENT_SIZE - good_at, good_at), 0);
    for (size_t i = 0; i < SEGMENT_SIZE - good_at; i++) {
        ck_assert_uint_eq(rest[i], 0);
    }
    free(rest);
}
END_TEST

START_TEST(other_files_in_the_directory_do_no_harm)
{
    static const char *const names[] = {"boot",
                                        "begin",
                                        "free-3",
                                        "tmp-prepare",
                                        "1.wal",
                                        "00000000000000000000.wal",
                                        "99999999999999999999.wal",
                                        "00000000000000000006.wal.bak"};
    struct run run;

    wal_append_n(&wal, 5);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        ck_assert_int_eq(nx_file_replace_at(wal.dir_fd, names[i], "x", 1, 0600), 0);
    }
    run = recover();
    assert_end(&run, &wal.last);
}
END_TEST

static void add_wholes(Suite *suite)
{
    TCase *tcase = tcase_create("whole logs");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_fresh_directory_is_an_empty_log);
    tcase_add_test(tcase, a_log_is_replayed_from_its_first_entry);
    tcase_add_test(tcase, only_what_follows_the_state_is_replayed);
    tcase_add_test(tcase, a_state_at_the_end_of_the_log_leaves_nothing_to_replay);
    tcase_add_test(tcase, a_log_that_begins_right_behind_the_state_is_taken);
    tcase_add_test(tcase, an_entry_larger_than_a_segment_is_read);
    tcase_add_test(tcase, epochs_may_rise_in_the_log);
    tcase_add_test(tcase, a_last_segment_without_entries_is_prepared_but_unused);
    tcase_add_test(tcase, an_unused_segment_with_a_torn_first_entry_is_cut);
    tcase_add_test(tcase, an_error_of_the_callback_ends_it);
    tcase_add_test(tcase, many_groups_that_were_never_synced_may_be_lost);
    tcase_add_test(tcase, a_segment_that_is_full_to_the_last_byte_is_read);
    suite_add_tcase(suite, tcase);
}

static void add_ends(Suite *suite)
{
    TCase *tcase = tcase_create("forged ends");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, zeros_end_the_log);
    tcase_add_test(tcase, a_stale_frame_of_a_recycled_segment_ends_the_log);
    tcase_add_test(tcase, a_frame_of_a_wrong_offset_ends_the_log);
    tcase_add_test(tcase, a_frame_of_a_lower_epoch_ends_the_log);
    tcase_add_test(tcase, a_frame_with_a_wrong_crc_ends_the_log);
    tcase_add_test(tcase, a_frame_that_does_not_link_to_the_one_before_ends_the_log);
    tcase_add_loop_test(tcase, a_frame_cut_short_ends_the_log, 1, 150);
    tcase_add_loop_test(tcase, a_header_split_over_a_sector_ends_the_log, 1, 41);
    tcase_add_loop_test(tcase, a_header_split_over_a_page_ends_the_log, 1, 41);
    tcase_add_test(tcase, the_other_half_of_a_split_header_ends_the_log);
    tcase_add_loop_test(tcase, a_frame_of_absurd_length_ends_the_log, 0,
                        (int)(sizeof absurd_lengths / sizeof absurd_lengths[0]));
    tcase_add_loop_test(tcase, a_frame_of_another_type_or_variant_ends_the_log, 0, 2);
    tcase_add_test(tcase, a_page_of_zeros_inside_the_last_frame_ends_the_log);
    tcase_add_test(tcase, a_page_of_zeros_before_the_rest_of_a_group_ends_the_log);
    tcase_add_test(tcase, garbage_ends_the_log);
    tcase_add_test(tcase, a_group_torn_in_its_first_frame_is_cut_as_a_whole);
    tcase_add_test(tcase, the_largest_group_torn_at_its_beginning_is_cut);
    tcase_add_test(tcase, frames_that_a_client_put_into_a_value_are_not_the_log);
    tcase_add_test(tcase, one_stray_frame_far_behind_is_no_corruption);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    Suite *suite = suite_create("wal_recovery");
    TCase *writes = tcase_create("what it writes");
    SRunner *runner = srunner_create(suite);
    int failed;

    add_wholes(suite);
    add_ends(suite);
    tcase_add_checked_fixture(writes, setup, teardown);
    tcase_add_test(writes, entries_above_the_mark_are_written_again_as_they_were);
    tcase_add_test(writes, a_segment_that_cannot_be_written_again_stops_the_server);
    tcase_add_test(writes, the_rest_behind_a_cut_is_zeros);
    tcase_add_test(writes, other_files_in_the_directory_do_no_harm);
    suite_add_tcase(suite, writes);

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
