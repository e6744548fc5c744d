/* What followers of /changes are told of an entry, and how their position moves over the log. */
#include "http/changes_event.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct text out;
static uint8_t frames[8192];
static size_t frames_length;

static void setup(void)
{
    frames_length = 0;
}

static void teardown(void)
{
    nx_text_free(&out);
}

static struct nx_op put(const char *key, const char *value)
{
    return (struct nx_op){
        .kind = NX_OP_PUT, .key = nx_slice_text(key), .value = nx_slice_text(value)};
}

static struct nx_op erase(const char *key, uint8_t flags)
{
    return (struct nx_op){.kind = NX_OP_DELETE, .flags = flags, .key = nx_slice_text(key)};
}

/* Appends an entry to the frames. */
static void add(uint64_t offset, uint64_t epoch, const struct nx_op *ops, uint32_t count)
{
    uint8_t *frame = frames + frames_length;
    struct nx_writer writer = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, 2048);

    for (uint32_t i = 0; i < count; i++) {
        ck_assert_int_eq(nx_op_encode(&writer, &ops[i]), 0);
    }
    nx_entry_finish(frame, &(struct nx_entry_header){.offset = offset,
                                                     .epoch = epoch,
                                                     .timestamp = 1700000000000001,
                                                     .op_count = count,
                                                     .ops_length = writer.used});
    frames_length += nx_entry_frame_size(writer.used);
}

static void add_put(uint64_t offset, uint64_t epoch, const char *key)
{
    struct nx_op op = put(key, "v");

    add(offset, epoch, &op, 1);
}

static void add_epoch(uint64_t offset, uint64_t epoch)
{
    struct nx_op op = {.kind = NX_OP_EPOCH, .key = nx_slice_of("0123456789abcdef", NX_OP_NODE_ID)};

    add(offset, epoch, &op, 1);
}

static int read_on(struct client_offset *at, const char *prefix)
{
    return nx_changes_put_frames(&out, at, nx_slice_of(frames, frames_length),
                                 nx_slice_text(prefix));
}

static void assert_out(const char *expected)
{
    nx_text_add(&out, "", 1);
    ck_assert_str_eq((const char *)out.data, expected);
    out.length = 0;
}

#define HEAD_OF(id, offset, epoch) \
    "id: " id "\ndata: {\"offset\":" offset ",\"epoch\":" epoch ",\"timestamp\":1700000000000001,"

START_TEST(one_entry_is_one_event)
{
    struct client_offset at = {4, 1};
    struct nx_op ops[] = {put("a", "1\n2"), put("b", "\xff"), erase("c", 0),
                          erase("d", NX_OP_EXPIRED), put("e", "")};

    ops[0].flags = NX_OP_HAS_EXPIRY;
    ops[0].expires_at = 1800000000000;
    add(5, 3, ops, 5);
    ck_assert_int_eq(read_on(&at, ""), 0);
    ck_assert_uint_eq(at.offset, 5);
    ck_assert_uint_eq(at.epoch, 3);
    assert_out(HEAD_OF("5@3", "5", "3") "\"ops\":["
                                        "{\"put\":{\"key\":\"a\",\"value\":\"1\\n2\","
                                        "\"expires_at\":1800000000000}},"
                                        "{\"put\":{\"key\":\"b\",\"value_base64\":\"/w==\"}},"
                                        "{\"delete\":{\"key\":\"c\"}},"
                                        "{\"delete\":{\"key\":\"d\",\"expired\":true}},"
                                        "{\"put\":{\"key\":\"e\",\"value\":\"\"}}]}\n\n");
}
END_TEST

START_TEST(a_prefix_leaves_what_matches)
{
    struct client_offset at = {0, 1};
    struct nx_op first[] = {put("x", "1"), put("ab", "2"), put("a", "3"), erase("abc", 0)};

    add(1, 1, first, 4);
    add_put(2, 1, "b");
    add_put(3, 1, "ab");
    add_put(4, 1, "a");
    ck_assert_int_eq(read_on(&at, "ab"), 0);
    ck_assert_uint_eq(at.offset, 4); /* what is told of none of them has passed all the same */
    assert_out(HEAD_OF("1@1", "1", "1") "\"ops\":[{\"put\":{\"key\":\"ab\",\"value\":\"2\"}},"
                                        "{\"delete\":{\"key\":\"abc\"}}]}\n\n" HEAD_OF(
                                            "3@1", "3", "1") "\"ops\":[{\"put\":{\"key\":\"ab\","
                                                             "\"value\":\"v\"}}]}\n\n");
}
END_TEST

START_TEST(the_beginning_of_an_epoch_is_no_event)
{
    struct client_offset at = {7, 1};

    add_epoch(8, 2);
    ck_assert_int_eq(read_on(&at, ""), 0);
    ck_assert_int_eq(read_on(&at, "0123"), 0); /* nor is the node's id a key */
    ck_assert_uint_eq(at.offset, 8);
    ck_assert_uint_eq(at.epoch, 2);
    assert_out("");
}
END_TEST

START_TEST(progress_tells_the_position)
{
    nx_changes_put_progress(&out, &(struct client_offset){12, 3});
    nx_changes_put_progress(&out, &(struct client_offset){13, 0});
    assert_out("event: progress\nid: 12@3\ndata: {\"offset\":12,\"epoch\":3}\n\n"
               "event: progress\nid: 13\ndata: {\"offset\":13}\n\n");
}
END_TEST

START_TEST(an_offset_that_was_still_to_come)
{
    struct client_offset at = {6, 2};
    struct client_offset bare = {6, 0};

    add_put(4, 1, "a");
    add_epoch(5, 2);
    add_put(6, 2, "b");
    add_put(7, 2, "c");
    ck_assert_int_eq(read_on(&at, ""), 0);
    assert_out(HEAD_OF("7@2", "7", "2") "\"ops\":[{\"put\":{\"key\":\"c\",\"value\":\"v\"}}]}\n\n");
    ck_assert_int_eq(read_on(&bare, ""), 0);
    assert_out(HEAD_OF("7@2", "7", "2") "\"ops\":[{\"put\":{\"key\":\"c\",\"value\":\"v\"}}]}\n\n");
    ck_assert_uint_eq(bare.epoch, 2);
}
END_TEST

START_TEST(an_offset_that_never_came)
{
    static const struct client_offset wanted[] = {
        {6, 1},  /* another entry has its number */
        {6, 3},  /* of an epoch that began elsewhere */
        {20, 1}, /* another epoch began before it */
    };

    add_put(4, 1, "a");
    add_epoch(5, 2);
    add_put(6, 2, "b");
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct client_offset at = wanted[i];

        ck_assert_int_eq(read_on(&at, ""), -ESTALE);
        assert_out("");
    }
}
END_TEST

START_TEST(a_bare_offset_learns_its_epoch_as_it_comes)
{
    struct client_offset at = {6, 0};

    add_put(6, 2, "b");
    ck_assert_int_eq(read_on(&at, ""), 0);
    ck_assert_uint_eq(at.epoch, 2);
    assert_out("");
}
END_TEST

START_TEST(damage_is_said)
{
    struct client_offset at = {0, 1};

    add_put(1, 1, "a");
    frames[NX_ENTRY_HEADER_SIZE] = 9; /* no such operation */
    ck_assert_int_eq(read_on(&at, ""), -EBADMSG);
    frames[0] = 0;
    at.offset = 0;
    ck_assert_int_eq(read_on(&at, ""), -EBADMSG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("changes_event");
    TCase *tcase = tcase_create("changes_event");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, one_entry_is_one_event);
    tcase_add_test(tcase, a_prefix_leaves_what_matches);
    tcase_add_test(tcase, the_beginning_of_an_epoch_is_no_event);
    tcase_add_test(tcase, progress_tells_the_position);
    tcase_add_test(tcase, an_offset_that_was_still_to_come);
    tcase_add_test(tcase, an_offset_that_never_came);
    tcase_add_test(tcase, a_bare_offset_learns_its_epoch_as_it_comes);
    tcase_add_test(tcase, damage_is_said);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
