/* Cursors over the records of the state, in key order. Runs where a handle is read from. */
#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <errno.h>
#include <stdlib.h>

struct nx_state_cursor {
    const struct nx_environment *environment;
    MDB_cursor *cursor; /* NULL: over a state that isn't there yet */
};

int nx_state_cursor_open(struct nx_state *state, struct nx_state_cursor **ret_cursor)
{
    struct nx_state_cursor *cursor = calloc(1, sizeof *cursor);
    int rc = 0;

    if (cursor == NULL) {
        return -ENOMEM;
    }
    cursor->environment = state->environment;
    if (!state->reading_void) {
        rc = nx_state_error(mdb_cursor_open(state->read, state->environment->kv, &cursor->cursor));
    }
    if (rc < 0) {
        free(cursor);
        return rc;
    }
    *ret_cursor = cursor;
    return 0;
}

void nx_state_cursor_close(struct nx_state_cursor *cursor)
{
    if (cursor == NULL) {
        return;
    }
    if (cursor->cursor != NULL) {
        mdb_cursor_close(cursor->cursor);
    }
    free(cursor);
}

static int get(struct nx_state_cursor *cursor,
               MDB_val key,
               MDB_cursor_op op,
               struct nx_record *ret_record)
{
    MDB_val val;

    if (cursor->cursor == NULL) {
        return -ENOENT;
    }
    int rc = nx_state_error(mdb_cursor_get(cursor->cursor, &key, &val, op));

    return rc < 0
               ? rc
               : nx_state_record_decode(nx_state_read_slice(cursor->environment, &key),
                                        nx_state_read_slice(cursor->environment, &val), ret_record);
}

int nx_state_cursor_seek(struct nx_state_cursor *cursor,
                         const uint8_t *key,
                         size_t key_length,
                         struct nx_record *ret_record)
{
    return get(cursor, nx_state_val(key, key_length), key_length == 0 ? MDB_FIRST : MDB_SET_RANGE,
               ret_record);
}

int nx_state_cursor_next(struct nx_state_cursor *cursor, struct nx_record *ret_record)
{
    return get(cursor, nx_state_val(NULL, 0), MDB_NEXT, ret_record);
}
