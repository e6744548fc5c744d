/* The state in LMDB: what is put comes back after a reopen, damage is found, positions hold, a full map
 * is told. From simple to nasty. */
#include "state_fixture.h"
#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

static void setup(void)
{
    state_dir_make();
}

static void teardown(void)
{
    state_dir_remove();
}

static struct nx_record record_of(const char *key, uint64_t offset, const char *value)
{
    return (struct nx_record){.key = (const uint8_t *)key,
                              .key_length = strlen(key),
                              .offset = offset,
                              .value = (const uint8_t *)value,
                              .value_length = strlen(value)};
}

static void put(struct nx_state *state, const char *key, uint64_t offset, const char *value)
{
    struct nx_record record = record_of(key, offset, value);

    ck_assert_int_eq(nx_state_put(state, &record), 0);
}

static void put_expiring(struct nx_state *state, const char *key, uint64_t offset, uint64_t at)
{
    struct nx_record record = record_of(key, offset, "v");

    record.expires_at = at;
    record.op_index = 7;
    ck_assert_int_eq(nx_state_put(state, &record), 0);
}

static void erase(struct nx_state *state, const char *key)
{
    ck_assert_int_eq(nx_state_delete(state, (const uint8_t *)key, strlen(key)), 0);
}

static void commit(struct nx_state *state, uint64_t offset)
{
    struct nx_position position = {1, offset, (uint32_t)offset * 3};

    ck_assert_int_eq(nx_state_write_commit(state, &position), 0);
}

static int get(struct nx_state *state, const char *key, struct nx_record *ret_record)
{
    return nx_state_get(state, (const uint8_t *)key, strlen(key), ret_record);
}

static uint64_t begin(struct nx_state *state)
{
    struct nx_position base;

    ck_assert_int_eq(nx_state_read_begin(state, &base), 0);
    return base.offset;
}

static char *data_file(void)
{
    static char path[128];

    (void)snprintf(path, sizeof path, "%s/data.mdb", state_dir);
    return path;
}

/* In a process of its own: makes the state, by a path of its own, at position 9. The reader's environment
 * isn't open yet, so nothing of it was carried across the fork. */
static int make_in_child(void)
{
    struct nx_state_options options = {.map_size = STATE_MAP_SIZE, .writer = true};
    struct nx_state *writer;
    struct nx_position position = {2, 9, 4};

    if (chdir(state_dir) != 0 ||
        nx_state_open(".", &options, &writer, state_error, sizeof state_error) != 0) {
        return 1;
    }
    int rc =
        nx_state_write_begin(writer) == 0 && nx_state_write_commit(writer, &position) == 0 ? 0 : 2;

    nx_state_close(writer);
    return rc;
}

START_TEST(before_the_checkpointer_a_reader_finds_an_empty_state)
{
    struct nx_state *reader = state_open(false);
    struct nx_state_cursor *cursor;
    struct nx_record record;

    ck_assert_uint_eq(begin(reader), 0);
    ck_assert_int_eq(get(reader, "a", &record), -ENOENT);
    ck_assert_int_eq(nx_state_cursor_open(reader, &cursor), 0);
    ck_assert_int_eq(nx_state_cursor_seek(cursor, NULL, 0, &record), -ENOENT);
    ck_assert_int_eq(nx_state_cursor_next(cursor, &record), -ENOENT);
    nx_state_cursor_close(cursor);
    nx_state_read_end(reader);
    ck_assert_int_ne(access(data_file(), F_OK), 0);

    /* Another process makes it, opened there, and the reader finds it at its next begin. */
    pid_t child = fork();

    if (child == 0) {
        _exit(make_in_child());
    }
    int status;

    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(begin(reader), 9);
    nx_state_read_end(reader);
    nx_state_close(reader);
}
END_TEST

START_TEST(what_is_put_comes_back_after_a_reopen)
{
    struct nx_state *state = state_open(true);
    struct nx_record record;

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    put(state, "a", 1, "one");
    put(state, "b", 2, "");
    put_expiring(state, "c", 3, 123456789);
    commit(state, 3);
    nx_state_close(state);

    state = state_open(false);
    ck_assert_uint_eq(begin(state), 3);
    ck_assert_int_eq(get(state, "a", &record), 0);
    ck_assert_uint_eq(record.offset, 1);
    ck_assert_uint_eq(record.expires_at, 0);
    ck_assert(nx_slice_equal(nx_slice_of(record.value, record.value_length), nx_slice_text("one")));
    ck_assert_int_eq(get(state, "b", &record), 0);
    ck_assert_uint_eq(record.value_length, 0);
    ck_assert_int_eq(get(state, "c", &record), 0);
    ck_assert_uint_eq(record.expires_at, 123456789);
    ck_assert_uint_eq(record.op_index, 7);
    ck_assert_int_eq(get(state, "d", &record), -ENOENT);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

START_TEST(later_versions_replace_and_deletes_remove)
{
    struct nx_state *state = state_open(true);
    struct nx_record record;

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    put_expiring(state, "a", 1, 99);
    put(state, "b", 2, "2");
    commit(state, 2);
    ck_assert_int_eq(nx_state_write_begin(state), 0);
    put(state, "a", 3, "three");
    erase(state, "b");
    erase(state, "never there");
    commit(state, 4);
    ck_assert_uint_eq(begin(state), 4);
    ck_assert_int_eq(get(state, "a", &record), 0);
    ck_assert_uint_eq(record.offset, 3);
    ck_assert_uint_eq(record.expires_at, 0);
    ck_assert_int_eq(get(state, "b", &record), -ENOENT);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

START_TEST(an_aborted_transaction_leaves_nothing)
{
    struct nx_state *state = state_open(true);
    struct nx_record record;

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    put(state, "a", 1, "x");
    nx_state_write_abort(state);
    ck_assert_uint_eq(begin(state), 0);
    ck_assert_int_eq(get(state, "a", &record), -ENOENT);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

START_TEST(a_reader_keeps_its_moment)
{
    struct nx_state *writer = state_open(true);
    struct nx_state *reader = state_open(false);
    struct nx_record record;

    ck_assert_int_eq(nx_state_write_begin(writer), 0);
    put(writer, "a", 1, "old");
    commit(writer, 1);
    ck_assert_uint_eq(begin(reader), 1);
    ck_assert_int_eq(nx_state_write_begin(writer), 0);
    put(writer, "a", 2, "new");
    commit(writer, 2);
    ck_assert_int_eq(get(reader, "a", &record), 0);
    ck_assert_uint_eq(record.offset, 1);
    nx_state_read_end(reader);
    ck_assert_uint_eq(begin(reader), 2);
    ck_assert_int_eq(get(reader, "a", &record), 0);
    ck_assert_uint_eq(record.offset, 2);
    nx_state_read_end(reader);
    nx_state_close(reader);
    nx_state_close(writer);
}
END_TEST

START_TEST(a_cursor_goes_through_all_in_byte_order)
{
    static const char *const keys[] = {"a", "aa", "b", "\xff"};
    struct nx_state *state = state_open(true);
    struct nx_state_cursor *cursor;
    struct nx_record record;

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    for (size_t i = 4; i-- > 0;) {
        put(state, keys[i], i + 1, "v");
    }
    commit(state, 4);
    (void)begin(state);
    ck_assert_int_eq(nx_state_cursor_open(state, &cursor), 0);
    int rc = nx_state_cursor_seek(cursor, NULL, 0, &record);

    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(rc, 0);
        ck_assert(
            nx_slice_equal(nx_slice_of(record.key, record.key_length), nx_slice_text(keys[i])));
        rc = nx_state_cursor_next(cursor, &record);
    }
    ck_assert_int_eq(rc, -ENOENT);
    ck_assert_int_eq(nx_state_cursor_seek(cursor, (const uint8_t *)"ab", 2, &record), 0);
    ck_assert_int_eq(record.key[0], 'b');
    nx_state_cursor_close(cursor);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

/* Turns one byte of the data file that holds this text. */
static void damage_beside(const char *text, long beside, uint8_t byte)
{
    static uint8_t content[1 << 20];
    int fd = open(data_file(), O_RDWR | O_CLOEXEC);
    ssize_t n = read(fd, content, sizeof content);
    const uint8_t *at = memmem(content, (size_t)n, text, strlen(text));

    ck_assert_int_ge(fd, 0);
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(pwrite(fd, &byte, 1, at - content + beside), 1);
    close(fd);
}

static void damage(const char *text)
{
    damage_beside(text, 0, '#');
}

START_TEST(a_damaged_value_is_found)
{
    struct nx_state *state = state_open(true);
    struct nx_record record;

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    put(state, "sound", 1, "a value that stays as it is");
    put(state, "struck", 2, "a value that will be damaged");
    commit(state, 2);
    nx_state_close(state);
    damage("value that will");
    state = state_open(false);
    (void)begin(state);
    ck_assert_int_eq(get(state, "sound", &record), 0);
    ck_assert_int_eq(get(state, "struck", &record), -EBADMSG);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

/* All of a check. */
static int look_through(struct nx_state *state, char *why, size_t cap)
{
    struct nx_state_check *check = NULL;
    int rc = nx_state_check_begin(state, &check);

    ck_assert_int_eq(rc, 0);
    while ((rc = nx_state_check_step(check, why, cap)) == -EAGAIN) {
    }
    nx_state_check_end(check);
    return rc;
}

START_TEST(what_is_not_there_yet_is_sound)
{
    struct nx_state *reader = state_open(false);
    char why[160] = "";

    ck_assert(nx_state_check_is_quick(reader));
    ck_assert_int_eq(look_through(reader, why, sizeof why), 0);
    ck_assert_int_ne(access(data_file(), F_OK), 0);
    nx_state_close(reader);
}
END_TEST

START_TEST(what_is_sound_is_found_sound)
{
    struct nx_state *state = state_open(true);
    char key[16];
    char why[160] = "";

    ck_assert_int_eq(look_through(state, why, sizeof why), 0);
    ck_assert_int_eq(nx_state_write_begin(state), 0);
    for (uint64_t i = 1; i <= 3000; i++) {
        (void)snprintf(key, sizeof key, "key%06u", (unsigned)(i * 7919 % 3000));
        put(state, key, i, "a value that is long enough to need many pages for all of them");
    }
    commit(state, 3000);
    ck_assert(nx_state_check_is_quick(state));
    ck_assert_int_eq(look_through(state, why, sizeof why), 0);
    nx_state_close(state);
}
END_TEST

/* A letter of a key in a leaf, and one of a value. */
START_TEST(what_decayed_is_found)
{
    static const char *const places[] = {"struck", "a value that will"};

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct nx_state *state = state_open(true);
        char why[160] = "";

        ck_assert_int_eq(nx_state_write_begin(state), 0);
        put(state, "sound", 1, "a value that stays as it is");
        put(state, "struck", 2, "a value that will be damaged");
        commit(state, 2 + i);
        nx_state_close(state);
        damage(places[i]);
        state = state_open(false);
        ck_assert_int_eq(look_through(state, why, sizeof why), -EBADMSG);
        ck_assert_ptr_nonnull(strstr(why, "record 1"));
        nx_state_close(state);
        state_dir_remove();
        state_dir_make();
    }
}
END_TEST

/* The length of a value, in the node before its key (mn_hi of LMDB's struct MDB_node): a megabyte or 256 more, far
 * behind the file; in a page, and in overflow pages. */
START_TEST(a_length_that_leads_behind_the_file_is_damage)
{
    static const size_t lengths[] = {20, 9000};
    static char value[9001];

    memset(value, 'v', sizeof value - 1);
    for (size_t i = 0; i < 4; i++) {
        struct nx_state *state = state_open(true);
        struct nx_state_cursor *cursor;
        struct nx_record record;
        char why[160] = "";

        value[lengths[i % 2]] = '\0';
        ck_assert_int_eq(nx_state_write_begin(state), 0);
        put(state, "struck", 1, value);
        commit(state, 1);
        nx_state_close(state);
        value[lengths[i % 2]] = 'v';
        damage_beside("struck", i < 2 ? -6 : -5, 0x10);
        state = state_open(false);
        ck_assert_int_eq(look_through(state, why, sizeof why), -EBADMSG);
        (void)begin(state);
        ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"struck", 6, &record), -EBADMSG);
        ck_assert_int_eq(nx_state_cursor_open(state, &cursor), 0);
        ck_assert_int_eq(nx_state_cursor_seek(cursor, NULL, 0, &record), -EBADMSG);
        nx_state_cursor_close(cursor);
        nx_state_read_end(state);
        nx_state_close(state);
        state_dir_remove();
        state_dir_make();
    }
}
END_TEST

START_TEST(a_file_that_is_none_is_refused_and_named)
{
    struct nx_state_options options = {.map_size = STATE_MAP_SIZE, .writer = true};
    struct nx_state *state;
    FILE *file = fopen(data_file(), "we");

    for (int i = 0; i < 4096; i++) {
        (void)fputs("garbage", file);
    }
    (void)fclose(file);
    ck_assert_int_eq(nx_state_open(state_dir, &options, &state, state_error, sizeof state_error),
                     -EBADMSG);
    ck_assert_ptr_nonnull(strstr(state_error, state_dir));
}
END_TEST

static void assert_refused(bool writer, int error, const char *says)
{
    struct nx_state_options options = {.map_size = STATE_MAP_SIZE, .writer = writer};
    struct nx_state *state;

    ck_assert_int_eq(nx_state_open(state_dir, &options, &state, state_error, sizeof state_error),
                     error);
    ck_assert_ptr_nonnull(strstr(state_error, state_dir));
    ck_assert_msg(strstr(state_error, says) != NULL, "%s", state_error);
}

START_TEST(a_file_of_somebody_else_is_refused)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val text = nx_state_val("theirs", 6);

    ck_assert_int_eq(mdb_env_create(&env), 0);
    ck_assert_int_eq(mdb_env_set_maxdbs(env, 4), 0);
    ck_assert_int_eq(mdb_env_open(env, state_dir, 0, 0600), 0);
    ck_assert_int_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    ck_assert_int_eq(mdb_dbi_open(txn, _i == 0 ? "other" : "kv", MDB_CREATE, &dbi), 0);
    ck_assert_int_eq(mdb_put(txn, dbi, &text, &text, 0), 0);
    ck_assert_int_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    assert_refused(true, -EBADMSG, "damaged");
    assert_refused(false, -EBADMSG, "damaged");
}
END_TEST

/* Changes rows of `meta` as a newer version would write them, or damage. */
static void put_meta(const char *name, const void *bytes, size_t n)
{
    struct nx_state *state = state_open(true);

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    ck_assert_int_eq(nx_state_meta_put(state->environment, state->write, name, bytes, n), 0);
    ck_assert_int_eq(mdb_txn_commit(state->write), 0);
    state->write = NULL;
    nx_state_close(state);
}

START_TEST(a_newer_format_is_refused_and_named)
{
    static const uint8_t newer[] = {NX_STATE_FORMAT + 1, 0, 0, 0};

    put_meta("format", newer, sizeof newer);
    assert_refused(true, -EBADMSG, "format 2");
    assert_refused(false, -EBADMSG, "run the version that wrote it");
}
END_TEST

START_TEST(a_position_of_another_size_is_damage)
{
    put_meta("position", "short", 5);
    assert_refused(true, -EBADMSG, "damaged");
}
END_TEST

START_TEST(a_file_cut_short_is_refused)
{
    struct nx_state *state = state_open(true);

    nx_state_close(state);
    ck_assert_int_eq(truncate(data_file(), _i), 0);
    assert_refused(true, -EBADMSG, "damaged");
}
END_TEST

/* A part of it is missing, as after a copy that was broken off: found as damage, or not in the way. */
START_TEST(a_file_cut_in_its_middle_ends_no_process)
{
    struct nx_state_options options = {.map_size = STATE_MAP_SIZE, .writer = true};
    struct nx_state *state = state_open(true);
    struct nx_record record;
    struct nx_position base;
    bool damage = false;
    char key[32];

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    for (uint64_t i = 1; i <= 5000; i++) {
        (void)snprintf(key, sizeof key, "key%06llu", (unsigned long long)i);
        put(state, key, i, "some value");
    }
    commit(state, 5000);
    nx_state_close(state);
    ck_assert_int_eq(truncate(data_file(), (long)4096 * (2 + 4L * _i)), 0);

    int rc = nx_state_open(state_dir, &options, &state, state_error, sizeof state_error);

    ck_assert(rc == 0 || rc == -EBADMSG);
    if (rc < 0) {
        return;
    }
    rc = nx_state_read_begin(state, &base);
    ck_assert(rc == 0 || rc == -EBADMSG);
    for (uint64_t i = 1; rc == 0 && i <= 5000; i++) {
        (void)snprintf(key, sizeof key, "key%06llu", (unsigned long long)i);
        int found = get(state, key, &record);

        ck_assert(found == 0 || found == -EBADMSG);
        damage = damage || found != 0;
    }
    ck_assert(damage || rc < 0);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

START_TEST(a_missing_directory_is_named)
{
    struct nx_state_options options = {.map_size = STATE_MAP_SIZE, .writer = true};
    struct nx_state *state;
    char dir[128];

    (void)snprintf(dir, sizeof dir, "%s/none", state_dir);
    ck_assert_int_eq(nx_state_open(dir, &options, &state, state_error, sizeof state_error),
                     -ENOTDIR);
    ck_assert_ptr_nonnull(strstr(state_error, dir));
}
END_TEST

START_TEST(a_half_made_file_is_made_anew)
{
    char path[160];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s.new", data_file());
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    (void)fputs("half", file);
    (void)fclose(file);
    struct nx_state *state = state_open(true);

    ck_assert_uint_eq(begin(state), 0);
    nx_state_read_end(state);
    nx_state_close(state);
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

/* Puts records of 100,000 bytes, a transaction each, until the map is full. Returns the last offset. */
static uint64_t fill(struct nx_state *state, uint64_t offset)
{
    static char value[100000];
    int rc = 0;

    memset(value, 'v', sizeof value - 1);
    while (rc == 0) {
        char key[32];

        (void)snprintf(key, sizeof key, "key%06llu", (unsigned long long)++offset);
        struct nx_record record = record_of(key, offset, value);

        ck_assert_int_eq(nx_state_write_begin(state), 0);
        rc = nx_state_put(state, &record);
        if (rc == 0) {
            commit(state, offset);
        } else {
            nx_state_write_abort(state);
        }
    }
    ck_assert_int_eq(rc, -ENOSPC);
    return offset - 1;
}

START_TEST(a_full_map_is_told_and_what_was_stays)
{
    struct nx_state *state = state_open_sized(true, 8u << 20);
    struct nx_record record;

    ck_assert_uint_gt(nx_state_room(state).map_free, 1u << 20);
    uint64_t last = fill(state, 0);

    ck_assert_uint_lt(nx_state_room(state).map_free, 1u << 20);
    ck_assert_uint_eq(begin(state), last);
    ck_assert_int_eq(get(state, "key000001", &record), 0);
    nx_state_read_end(state);
    nx_state_close(state);

    /* A larger map takes more; a smaller one than there is in the file is no loss. */
    state = state_open_sized(true, 16u << 20);
    ck_assert_uint_gt(nx_state_room(state).map_free, 6u << 20);
    uint64_t later = fill(state, last);

    ck_assert_uint_gt(later, last + 60);
    nx_state_close(state);
    state = state_open_sized(false, 1u << 20);
    ck_assert_uint_eq(begin(state), later);
    ck_assert_int_eq(get(state, "key000001", &record), 0);
    ck_assert_int_eq(get(state, "key000130", &record), 0);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

/* Deletes must get through where puts don't: the space that they free is used again. */
START_TEST(deletes_make_room_in_a_full_map)
{
    struct nx_state *state = state_open_sized(true, 8u << 20);
    uint64_t last = fill(state, 0);
    uint64_t offset = last;

    for (uint64_t i = 1; i <= last / 2; i++) {
        char key[32];

        (void)snprintf(key, sizeof key, "key%06llu", (unsigned long long)i);
        ck_assert_int_eq(nx_state_write_begin(state), 0);
        erase(state, key);
        commit(state, ++offset);
    }
    ck_assert_uint_gt(nx_state_room(state).map_free, 2u << 20);
    ck_assert_uint_gt(fill(state, offset), offset + 20);
    nx_state_close(state);
}
END_TEST

START_TEST(the_position_found_can_be_made_sure_of)
{
    struct nx_state *state = state_open(true);
    struct nx_position position;

    ck_assert_int_eq(nx_state_write_begin(state), 0);
    put(state, "a", 5, "x");
    commit(state, 5);
    ck_assert_int_eq(nx_state_confirm(state, &position), 0);
    ck_assert_uint_eq(position.offset, 5);
    ck_assert_uint_eq(position.crc, 15);
    nx_state_close(state);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("state");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, before_the_checkpointer_a_reader_finds_an_empty_state);
    tcase_add_test(tcase, what_is_put_comes_back_after_a_reopen);
    tcase_add_test(tcase, later_versions_replace_and_deletes_remove);
    tcase_add_test(tcase, an_aborted_transaction_leaves_nothing);
    tcase_add_test(tcase, a_reader_keeps_its_moment);
    tcase_add_test(tcase, a_cursor_goes_through_all_in_byte_order);
    tcase_add_test(tcase, a_damaged_value_is_found);
    tcase_add_test(tcase, what_is_not_there_yet_is_sound);
    tcase_add_test(tcase, what_is_sound_is_found_sound);
    tcase_add_test(tcase, what_decayed_is_found);
    tcase_add_test(tcase, a_length_that_leads_behind_the_file_is_damage);
    tcase_add_test(tcase, a_file_that_is_none_is_refused_and_named);
    tcase_add_loop_test(tcase, a_file_of_somebody_else_is_refused, 0, 2);
    tcase_add_test(tcase, a_newer_format_is_refused_and_named);
    tcase_add_test(tcase, a_position_of_another_size_is_damage);
    tcase_add_loop_test(tcase, a_file_cut_short_is_refused, 0, 2);
    tcase_add_loop_test(tcase, a_file_cut_in_its_middle_ends_no_process, 0, 14);
    tcase_add_test(tcase, a_missing_directory_is_named);
    tcase_add_test(tcase, a_half_made_file_is_made_anew);
    tcase_add_test(tcase, a_full_map_is_told_and_what_was_stays);
    tcase_add_test(tcase, deletes_make_room_in_a_full_map);
    tcase_add_test(tcase, the_position_found_can_be_made_sure_of);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
