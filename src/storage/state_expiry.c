/* The index of what expires: rows by time, each naming the version that it is of. The checkpointer and restores write
 * it beside the records, the walwriter of a master goes through it. */
#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static void encode_row(const struct nx_expiring *row, uint8_t ret_bytes[NX_STATE_EXPIRY_KEY])
{
    uint64_t expires_at = htobe64(row->expires_at);
    uint64_t offset = htobe64(row->offset);
    uint32_t op_index = htobe32(row->op_index);

    memcpy(ret_bytes, &expires_at, sizeof expires_at);
    memcpy(ret_bytes + 8, &offset, sizeof offset);
    memcpy(ret_bytes + 16, &op_index, sizeof op_index);
}

static int decode_row(struct nx_slice bytes, struct nx_slice val, struct nx_expiring *ret_row)
{
    uint64_t expires_at;
    uint64_t offset;
    uint32_t op_index;

    if (bytes.length != NX_STATE_EXPIRY_KEY || val.length <= NX_STATE_CRC ||
        nx_load_u32(val.data + val.length - NX_STATE_CRC) !=
            nx_state_crc(bytes, val.data, val.length - NX_STATE_CRC)) {
        return -EBADMSG;
    }
    memcpy(&expires_at, bytes.data, sizeof expires_at);
    memcpy(&offset, bytes.data + 8, sizeof offset);
    memcpy(&op_index, bytes.data + 16, sizeof op_index);
    *ret_row = (struct nx_expiring){
        .expires_at = be64toh(expires_at),
        .offset = be64toh(offset),
        .op_index = be32toh(op_index),
        .key = val.data,
        .key_length = val.length - NX_STATE_CRC,
    };
    return 0;
}

static struct nx_expiring row_of(const struct nx_record *record)
{
    return (struct nx_expiring){
        .expires_at = record->expires_at,
        .offset = record->offset,
        .op_index = record->op_index,
    };
}

int nx_state_expiry_put(const struct nx_environment *environment,
                        MDB_txn *txn,
                        const struct nx_record *record)
{
    struct nx_expiring row = row_of(record);
    uint8_t bytes[NX_STATE_EXPIRY_KEY];
    size_t n = record->key_length;

    encode_row(&row, bytes);
    MDB_val key = nx_state_val(bytes, sizeof bytes);
    MDB_val val = {.mv_size = n + NX_STATE_CRC};
    int rc = nx_state_error(mdb_put(txn, environment->expiry, &key, &val, MDB_RESERVE));

    if (rc == 0) {
        uint8_t *out = val.mv_data;

        memcpy(out, record->key, n);
        nx_store_u32(out + n, nx_state_crc(nx_slice_of(bytes, sizeof bytes), record->key, n));
    }
    return rc;
}

int nx_state_expiry_delete(const struct nx_environment *environment,
                           MDB_txn *txn,
                           const struct nx_record *record)
{
    struct nx_expiring row = row_of(record);
    uint8_t bytes[NX_STATE_EXPIRY_KEY];

    encode_row(&row, bytes);
    MDB_val key = nx_state_val(bytes, sizeof bytes);

    return nx_state_error(mdb_del(txn, environment->expiry, &key, NULL));
}

/* ---- going through it ---- */

/* From the cursor's place on. A damaged row names no key: it is passed. */
static int walk(const struct nx_environment *environment,
                MDB_cursor *cursor,
                MDB_val *key,
                int (*each)(void *arg, const struct nx_expiring *row),
                void *arg)
{
    MDB_val val;
    int rc = nx_state_error(mdb_cursor_get(cursor, key, &val, MDB_SET_RANGE));

    while (rc == 0) {
        struct nx_expiring row;

        if (decode_row(nx_state_slice(key), nx_state_read_slice(environment, &val), &row) == 0 &&
            each(arg, &row) != 0) {
            return 0;
        }
        rc = nx_state_error(mdb_cursor_get(cursor, key, &val, MDB_NEXT));
    }
    return rc == -ENOENT ? 0 : rc;
}

int nx_state_expiring(struct nx_state *state,
                      const struct nx_expiring *from,
                      int (*each)(void *arg, const struct nx_expiring *row),
                      void *arg)
{
    uint8_t bytes[NX_STATE_EXPIRY_KEY];
    MDB_cursor *cursor;

    if (state->reading_void) {
        return 0;
    }
    int rc = nx_state_error(mdb_cursor_open(state->read, state->environment->expiry, &cursor));

    if (rc < 0) {
        return rc;
    }
    encode_row(from, bytes);
    MDB_val key = nx_state_val(bytes, sizeof bytes);

    rc = walk(state->environment, cursor, &key, each, arg);
    mdb_cursor_close(cursor);
    return rc;
}
