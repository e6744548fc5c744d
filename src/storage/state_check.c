/* Looks whether a state is sound; see state.h. Runs in the walwriter, before it serves a small state, and in the
 * checkpointer, beside the rest, for a large one. */
#include "common/bytes.h"
#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP_BYTES ((size_t)4 << 20)

/* What is looked through before it is served: each record costs a search from the root, some microseconds. */
#define QUICK_BYTES   ((uint64_t)64 << 20)
#define QUICK_RECORDS 50000

struct nx_state_check {
    const struct nx_environment *environment;
    MDB_txn *txn;
    MDB_cursor *cursor;
    uint64_t count;           /* records so far */
    uint8_t last[NX_MAX_KEY]; /* key of the last one */
    size_t last_length;
};

/* ---- a transaction of its own ---- */

static uint64_t bytes_of(const MDB_stat *stat)
{
    return (stat->ms_branch_pages + stat->ms_leaf_pages + stat->ms_overflow_pages) * stat->ms_psize;
}

bool nx_state_check_is_quick(struct nx_state *state)
{
    MDB_txn *txn = NULL;
    MDB_stat stat;
    bool quick = true;

    if (state->environment->env != NULL &&
        mdb_txn_begin(state->environment->env, NULL, MDB_RDONLY, &txn) == 0) {
        quick = mdb_stat(txn, state->environment->kv, &stat) != 0 ||
                (bytes_of(&stat) <= QUICK_BYTES && stat.ms_entries <= QUICK_RECORDS);
        mdb_txn_abort(txn);
    }
    return quick;
}

int nx_state_check_begin(struct nx_state *state, struct nx_state_check **ret_check)
{
    struct nx_state_check *check = calloc(1, sizeof *check);
    int rc = check == NULL ? ENOMEM : 0;

    *ret_check = NULL;
    if (rc == 0 && state->environment->env == NULL) {
        *ret_check = check; /* nothing is there yet */
        return 0;
    }
    if (rc == 0) {
        check->environment = state->environment;
        rc = mdb_txn_begin(state->environment->env, NULL, MDB_RDONLY, &check->txn);
    }
    if (rc == 0) {
        rc = mdb_cursor_open(check->txn, state->environment->kv, &check->cursor);
    }
    if (rc != 0) {
        nx_state_check_end(check);
        return nx_state_error(rc);
    }
    *ret_check = check;
    return 0;
}

void nx_state_check_end(struct nx_state_check *check)
{
    if (check == NULL) {
        return;
    }
    if (check->cursor != NULL) {
        mdb_cursor_close(check->cursor);
    }
    if (check->txn != NULL) {
        mdb_txn_abort(check->txn);
    }
    free(check);
}

/* ---- one record ---- */

/* Found from the root at the same place. */
static bool is_found(const struct nx_state_check *check, MDB_val *key, const MDB_val *val)
{
    MDB_val found;

    return mdb_get(check->txn, check->environment->kv, key, &found) == 0 &&
           found.mv_data == val->mv_data && found.mv_size == val->mv_size;
}

static bool is_behind_last(const struct nx_state_check *check, struct nx_slice key)
{
    return check->count == 0 ||
           nx_slice_compare(nx_slice_of(check->last, check->last_length), key) < 0;
}

static int check_record(struct nx_state_check *check,
                        MDB_val *key,
                        MDB_val *val,
                        char *why,
                        size_t cap)
{
    struct nx_slice name = nx_state_read_slice(check->environment, key);
    struct nx_record record;

    if (name.length == 0 || name.length > sizeof check->last || !is_behind_last(check, name)) {
        (void)snprintf(why, cap, "the keys around record %" PRIu64 " are out of order",
                       check->count);
        return -EBADMSG;
    }
    if (nx_state_record_decode(name, nx_state_read_slice(check->environment, val), &record) < 0) {
        (void)snprintf(why, cap, "record %" PRIu64 " has another checksum than it should have",
                       check->count);
        return -EBADMSG;
    }
    if (!is_found(check, key, val)) {
        (void)snprintf(why, cap, "record %" PRIu64 " can't be found by its key", check->count);
        return -EBADMSG;
    }
    memcpy(check->last, name.data, name.length);
    check->last_length = name.length;
    check->count++;
    return 0;
}

static int check_count(const struct nx_state_check *check, char *why, size_t cap)
{
    MDB_stat stat;
    int rc = mdb_stat(check->txn, check->environment->kv, &stat);

    if (rc == 0 && stat.ms_entries != check->count) {
        (void)snprintf(why, cap, "it should have %zu records, and %" PRIu64 " are there",
                       stat.ms_entries, check->count);
        return -EBADMSG;
    }
    return nx_state_error(rc);
}

int nx_state_check_step(struct nx_state_check *check, char *why, size_t cap)
{
    size_t bytes = 0;

    if (check->cursor == NULL) {
        return 0;
    }
    while (bytes < STEP_BYTES) {
        MDB_val key;
        MDB_val val;
        int rc = mdb_cursor_get(check->cursor, &key, &val, MDB_NEXT);

        if (rc == MDB_NOTFOUND) {
            return check_count(check, why, cap);
        }
        if (rc != 0) {
            (void)snprintf(why, cap, "its pages behind record %" PRIu64 " can't be gone through",
                           check->count);
            return nx_state_error(rc);
        }
        rc = check_record(check, &key, &val, why, cap);
        if (rc < 0) {
            return rc;
        }
        bytes += key.mv_size + val.mv_size;
    }
    return -EAGAIN;
}
