/* Fills a new state. Runs in the restore process and in `nexus-server --restore`. LMDB takes ascending
 * keys at the end of its tree, in transactions small enough that their pages cost little memory; none is
 * synced but the last, since before that nobody relies on any of them. */
#include "storage/state_load.h"

#include "storage/file_io.h"
#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_BYTES ((size_t)8 << 20) /* of pages in a transaction, about */
#define NODE_BYTES  ((size_t)64)      /* of a record beside key and value */
#define ROW_BYTES   ((size_t)2048) /* rows of `expiry` don't come in order: many touch a page each */

struct nx_state_load {
    struct nx_environment environment;
    MDB_txn *txn;
    MDB_cursor *cursor;
    size_t batch_bytes;
    struct nx_passing passing;
    uint32_t expiring; /* records with an expiry so far: tells rows of the same moment apart */
};

static int begin_batch(struct nx_state_load *load)
{
    int rc = mdb_txn_begin(load->environment.env, NULL, 0, &load->txn);

    if (rc != 0) {
        load->txn = NULL;
        return nx_state_error(rc);
    }
    load->batch_bytes = 0;
    return nx_state_error(mdb_cursor_open(load->txn, load->environment.kv, &load->cursor));
}

/* Hands to the disk what the file has grown by: little is left to wait for at the end, and what serves
 * meanwhile stays in memory. */
static void start_writing(struct nx_state_load *load)
{
    MDB_env *env = load->environment.env;
    MDB_envinfo info;
    MDB_stat stat;
    int fd = -1;

    if (mdb_env_info(env, &info) != 0 || mdb_env_stat(env, &stat) != 0 ||
        mdb_env_get_fd(env, &fd) != 0) {
        return;
    }
    uint64_t end = (info.me_last_pgno + 1) * stat.ms_psize;

    nx_pass(&load->passing, fd, end);
}

static int end_batch(struct nx_state_load *load)
{
    MDB_txn *txn = load->txn;
    int rc;

    load->txn = NULL;
    rc = nx_state_error(mdb_txn_commit(txn)); /* closes its cursor */
    if (rc == 0) {
        start_writing(load);
    }
    return rc;
}

int nx_state_load_begin(const char *dir,
                        uint64_t map_size,
                        struct nx_state_load **ret_load,
                        char *error,
                        size_t cap)
{
    struct nx_state_load *load = calloc(1, sizeof *load);
    int rc;

    if (load == NULL || (load->environment.dir = strdup(dir)) == NULL) {
        free(load);
        (void)snprintf(error, cap, "no memory to make a state in %s", dir);
        return -ENOMEM;
    }
    load->environment.options = (struct nx_state_options){.map_size = map_size, .writer = true};
    rc = nx_environment_create(&load->environment, error, cap);
    rc = rc < 0 ? rc : nx_environment_open(&load->environment, error, cap);
    if (rc == 0) {
        rc = nx_state_error(mdb_env_set_flags(load->environment.env, MDB_NOSYNC, 1));
        rc = rc < 0 ? rc : begin_batch(load);
        if (rc < 0) {
            (void)snprintf(error, cap, "the state in %s can't be written: %s", dir,
                           strerrordesc_np(-rc));
        }
    }
    if (rc < 0) {
        nx_state_load_close(load);
        return rc;
    }
    *ret_load = load;
    return 0;
}

int nx_state_load_put(struct nx_state_load *load, const struct nx_record *record)
{
    struct nx_record own = *record;
    MDB_val key = nx_state_val(record->key, record->key_length);
    int rc;

    own.op_index = record->expires_at != 0 ? load->expiring++ : 0;
    MDB_val val = {.mv_size = nx_state_record_size(&own)};

    rc = mdb_cursor_put(load->cursor, &key, &val, MDB_RESERVE | MDB_APPEND);
    if (rc != 0) {
        return rc == MDB_KEYEXIST ? -EINVAL : nx_state_error(rc);
    }
    nx_state_record_encode(&own, val.mv_data);
    rc = own.expires_at != 0 ? nx_state_expiry_put(&load->environment, load->txn, &own) : 0;
    load->batch_bytes += own.key_length + own.value_length + NODE_BYTES;
    load->batch_bytes += own.expires_at != 0 ? ROW_BYTES : 0;
    if (rc == 0 && load->batch_bytes >= BATCH_BYTES) {
        rc = end_batch(load);
        rc = rc < 0 ? rc : begin_batch(load);
    }
    return rc;
}

int nx_state_load_epochs(struct nx_state_load *load, const struct nx_epochs *epochs)
{
    return nx_state_epochs_put(&load->environment, load->txn, epochs);
}

static int sync_directory(const struct nx_state_load *load)
{
    int fd = open(load->environment.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0) {
        return -errno;
    }
    if (fsync(fd) != 0) {
        rc = -errno;
    }
    close(fd);
    return rc;
}

int nx_state_load_finish(struct nx_state_load *load, const struct nx_position *position)
{
    uint8_t bytes[NX_STATE_POSITION];
    int rc;

    nx_state_position_encode(position, bytes);
    rc = nx_state_meta_put(&load->environment, load->txn, "position", bytes, sizeof bytes);
    rc = rc < 0 ? rc : end_batch(load);
    rc = rc < 0 ? rc : nx_state_error(mdb_env_sync(load->environment.env, 1));
    return rc < 0 ? rc : sync_directory(load);
}

void nx_state_load_close(struct nx_state_load *load)
{
    if (load == NULL) {
        return;
    }
    if (load->txn != NULL) {
        mdb_txn_abort(load->txn);
    }
    if (load->environment.env != NULL) {
        mdb_env_close(load->environment.env);
    }
    free(load->environment.dir);
    free(load);
}
