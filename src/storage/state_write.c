/* Writing the state. Runs in the checkpointer alone: one transaction a generation, durable, with the
 * position that it brings the state to. */
#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <assert.h>
#include <errno.h>

#define FREE_DBI 0 /* LMDB's own: transaction -> count and numbers of the pages that it freed */

int nx_state_write_begin(struct nx_state *state)
{
    const struct nx_environment *environment = state->environment;
    MDB_stat stat;

    assert(state->writer && state->write == NULL);
    int rc = mdb_txn_begin(environment->env, NULL, 0, &state->write);

    if (rc != 0) {
        state->write = NULL;
        return nx_state_error(rc);
    }
    rc = mdb_cursor_open(state->write, environment->kv, &state->cursor);
    rc = rc != 0 ? rc : mdb_stat(state->write, environment->expiry, &stat);
    if (rc != 0) {
        nx_state_write_abort(state);
        return nx_state_error(rc);
    }
    state->expiry_rows = stat.ms_entries;
    return 0;
}

void nx_state_write_abort(struct nx_state *state)
{
    if (state->write != NULL) {
        mdb_txn_abort(state->write); /* closes its cursors */
        state->write = NULL;
        state->cursor = NULL;
    }
}

/* Removes the expiry row of the record under the cursor. A damaged record says nothing of its row,
 * which then stays and names a version that is no more. */
static int drop_expiry(struct nx_state *state, struct nx_slice key, const MDB_val *val)
{
    struct nx_record old;

    if (nx_state_record_decode(key, nx_state_slice(val), &old) < 0 || old.expires_at == 0) {
        return 0;
    }
    int rc = nx_state_expiry_delete(state->environment, state->write, &old);

    if (rc == 0) {
        state->expiry_rows--;
    }
    return rc == -ENOENT ? 0 : rc;
}

/* The cursor onto a key, for which its expiry row, if any, goes. 0 or -ENOENT. */
static int find_old(struct nx_state *state, struct nx_slice key)
{
    MDB_val wanted = nx_state_val(key.data, key.length);
    MDB_val val;
    int rc = nx_state_error(mdb_cursor_get(state->cursor, &wanted, &val, MDB_SET));

    return rc == 0 && state->expiry_rows > 0 ? drop_expiry(state, key, &val) : rc;
}

static int add_expiry(struct nx_state *state, const struct nx_record *record)
{
    int rc = nx_state_expiry_put(state->environment, state->write, record);

    if (rc == 0) {
        state->expiry_rows++;
    }
    return rc;
}

int nx_state_put(struct nx_state *state, const struct nx_record *record)
{
    struct nx_slice key = nx_slice_of(record->key, record->key_length);
    MDB_val key_val = nx_state_val(key.data, key.length);
    MDB_val val = {.mv_size = nx_state_record_size(record)};
    int rc = 0;

    /* Only then can an older version have a row; it saves a search. */
    if (state->expiry_rows > 0) {
        rc = find_old(state, key);
        rc = rc == -ENOENT ? 0 : rc;
    }
    rc = rc < 0 ? rc : nx_state_error(mdb_cursor_put(state->cursor, &key_val, &val, MDB_RESERVE));
    if (rc < 0) {
        return rc;
    }
    nx_state_record_encode(record, val.mv_data);
    return record->expires_at != 0 ? add_expiry(state, record) : 0;
}

int nx_state_delete(struct nx_state *state, const uint8_t *key, size_t key_length)
{
    int rc = find_old(state, nx_slice_of(key, key_length));

    if (rc == -ENOENT) {
        return 0;
    }
    return rc < 0 ? rc : nx_state_error(mdb_cursor_del(state->cursor, 0));
}

void nx_state_set_pause(struct nx_state *state, const struct nx_pause *pause)
{
    state->pause = pause;
}

void nx_state_write_pause(struct nx_state *state, unsigned done, unsigned pieces)
{
    if (state->pause != NULL) {
        state->pause->call(state->pause->arg, done, pieces);
    }
}

static int commit(struct nx_state *state)
{
    int fd;
    int rc = mdb_env_get_fd(state->environment->env, &fd);

    if (rc == 0) {
        nx_paced_sync_begin(fd, state->pause);
    }
    rc = nx_state_error(mdb_txn_commit(state->write));
    nx_paced_sync_end();
    return rc;
}

int nx_state_write_commit(struct nx_state *state, const struct nx_position *position)
{
    uint8_t bytes[NX_STATE_POSITION];
    int rc;

    nx_state_position_encode(position, bytes);
    rc = nx_state_meta_put(state->environment, state->write, "position", bytes, sizeof bytes);
    if (rc < 0) {
        nx_state_write_abort(state);
        return rc;
    }
    rc = commit(state);
    state->write = NULL;
    state->cursor = NULL;
    return rc;
}

int nx_state_confirm(struct nx_state *state, struct nx_position *ret_position)
{
    struct nx_position position;
    int rc = nx_state_write_begin(state);

    if (rc < 0) {
        return rc;
    }
    rc = nx_state_position_get(state->environment, state->write, &position);
    if (rc < 0) {
        nx_state_write_abort(state);
        return rc;
    }
    rc = nx_state_write_commit(state, &position);
    if (rc == 0) {
        *ret_position = position;
    }
    return rc;
}

/* ---- space ---- */

struct free_pages {
    uint64_t usable; /* by the next transaction */
    uint64_t late;   /* freed by the last one, which the next one can't use yet */
};

static int count_free_pages(MDB_txn *txn, size_t last_txn, struct free_pages *ret_pages)
{
    struct free_pages pages = {0, 0};
    MDB_cursor *cursor;
    MDB_val key;
    MDB_val val;
    int rc = mdb_cursor_open(txn, FREE_DBI, &cursor);

    if (rc != 0) {
        return nx_state_error(rc);
    }
    while ((rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT)) == 0) {
        size_t id;
        size_t count;

        memcpy(&id, key.mv_data, sizeof id);
        memcpy(&count, val.mv_data, sizeof count);
        if (id < last_txn) {
            pages.usable += count;
        } else {
            pages.late += count;
        }
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND) {
        return nx_state_error(rc);
    }
    *ret_pages = pages;
    return 0;
}

/* What the largest of the late transactions replaced; a single large one fades from memory. */
static void note_replaced(struct nx_state *state, size_t txn, uint64_t pages)
{
    if (txn != state->replaced_txn) {
        state->replaced -= state->replaced / 8;
        state->replaced_txn = txn;
    }
    if (pages > state->replaced) {
        state->replaced = pages;
    }
}

/* Pages of one table. */
static uint64_t pages_of(MDB_txn *txn, MDB_dbi table)
{
    MDB_stat stat;

    return mdb_stat(txn, table, &stat) != 0
               ? 0
               : stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
}

/* Pages that hold records: a transaction can't replace more. In the running read transaction. */
static uint64_t count_used_pages(const struct nx_state *state)
{
    const struct nx_environment *environment = state->environment;

    return pages_of(state->read, environment->kv) + pages_of(state->read, environment->expiry) +
           pages_of(state->read, environment->meta);
}

struct nx_state_room nx_state_room(struct nx_state *state)
{
    MDB_env *env = state->environment->env;
    struct nx_position base;
    struct free_pages pages = {0, 0};
    MDB_envinfo info;
    MDB_stat stat;
    uint64_t in_use;

    if (state->reading || nx_state_read_begin(state, &base) < 0) {
        return (struct nx_state_room){0};
    }
    if (mdb_env_info(env, &info) != 0 || mdb_env_stat(env, &stat) != 0 ||
        count_free_pages(state->read, info.me_last_txnid, &pages) < 0) {
        nx_state_read_end(state);
        return (struct nx_state_room){0};
    }
    in_use = state->reading_void ? 0 : count_used_pages(state);
    nx_state_read_end(state);
    note_replaced(state, info.me_last_txnid, pages.late);
    uint64_t all = info.me_mapsize / stat.ms_psize;
    uint64_t used = info.me_last_pgno + 1;
    uint64_t left = (all > used ? all - used : 0) + pages.usable;
    uint64_t kept = 2 * (state->replaced < in_use ? state->replaced : in_use);

    return (struct nx_state_room){
        .map_free = left > kept ? (left - kept) * stat.ms_psize : 0,
        .in_use = in_use * stat.ms_psize,
    };
}

void nx_state_clear_dead_readers(struct nx_state *state)
{
    int dead;

    if (state->environment->env != NULL) {
        (void)mdb_reader_check(state->environment->env, &dead);
    }
}
