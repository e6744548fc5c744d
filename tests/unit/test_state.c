/* The state in LMDB: what is put comes back after a reopen, damage is found, positions hold, a full map
 * is told. From simple to nasty. */
#include "common/crc32.h"
#include "state_fixture.h"
#include "storage/state_codec.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>

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

static void delete (struct nx_state *state, const char *key)
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

    /* Another process makes it; the reader finds it at its next begin. */
    pid_t child = fork();

    if (child == 0) {
        struct nx_state_options options = {.map_size = STATE_MAP_SIZE, .writer = true};
        struct nx_state *writer;

        /* The parent's environment isn't open, so nothing of it is carried across. */
        if (nx_state_open("/proc/self/cwd", &options, &writer, state_error, sizeof state_error) !=
            -EBADMSG) {
            _exit(chdir(state_dir) == 0 &&
                          nx_state_open(".", &options, &writer, state_error, sizeof state_error) ==
                              0 &&
                          nx_state_write_begin(writer) == 0 &&
                          nx_state_write_commit(writer, &(struct nx_position){2, 9, 4}) == 0
                      ? 0
                      : 1);
        }
        _exit(2);
    }
    int status;

    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(begin(reader), 9);
    nx_state_read_end(reader);
    nx_state_close(reader);
}
END_TEST
