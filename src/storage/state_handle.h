/* What a handle of the state holds. Private to src/storage/state*.c. */
#ifndef NX_STORAGE_STATE_HANDLE_H
#define NX_STORAGE_STATE_HANDLE_H

#include "common/bytes.h"
#include "storage/state.h"

#include <lmdb.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One a process and directory: LMDB forbids opening a file twice in a process. */
struct nx_environment {
    struct nx_environment *next;
    unsigned users; /* handles */
    char *dir;
    struct nx_state_options options;
    MDB_env *env;     /* NULL: there is nothing on disk yet, this process only reads */
    size_t page_size; /* LMDB's; 0: larger than the kernel's, and not aligned to in memory */
    MDB_dbi kv;
    MDB_dbi expiry;
    MDB_dbi meta;
};

struct nx_state {
    struct nx_environment *environment;
    bool writer;

    MDB_txn *read;     /* kept over read_end, reset */
    bool reading;      /* between begin and end ... */
    bool reading_void; /* ... of a state that isn't there yet */
    size_t base_txn;   /* transaction that base was read in; 0: none */
    struct nx_position base;

    MDB_txn *write;
    MDB_cursor *cursor;           /* of kv, in write */
    size_t expiry_rows;           /* before and in write; 0: no record has an expiry */
    uint64_t replaced;            /* pages that a late transaction replaced, most of them, fading */
    size_t replaced_txn;          /* that was looked at last */
    const struct nx_pause *pause; /* of writing; NULL: none */
};

/* A negative error of an LMDB return code; 0 of 0. */
int nx_state_error(int rc);

/* An MDB_val, whose pointer isn't const though LMDB only reads keys. */
MDB_val nx_state_val(const void *data, size_t length);
struct nx_slice nx_state_slice(const MDB_val *val);

/* The same of what a read transaction found. LMDB believes the length that stands in the page: one that has decayed may
 * lead behind the file, where a read is a SIGBUS. Empty, which no record is: it can't be that long. (Of a write
 * transaction that can't be told, as its pages may be anywhere: a merge that meets such a length crashes, and the start
 * that follows looks through the state.) */
struct nx_slice nx_state_read_slice(const struct nx_environment *environment, const MDB_val *val);

/* A row of `meta` of at most `most` bytes, without its CRC, until the transaction ends or writes: 0, -ENOENT, -EBADMSG. */
int nx_state_meta_look(const struct nx_environment *environment,
                       MDB_txn *txn,
                       const char *name,
                       size_t most,
                       struct nx_slice *ret_bytes);
/* A row of `meta` of exactly n bytes. Get: 0, -ENOENT, -EBADMSG. */
int nx_state_meta_get(const struct nx_environment *environment,
                      MDB_txn *txn,
                      const char *name,
                      void *ret_bytes,
                      size_t n);
int nx_state_meta_put(const struct nx_environment *environment,
                      MDB_txn *txn,
                      const char *name,
                      const void *bytes,
                      size_t n);

/* The epoch history; empty where none was stored yet. Put: nothing is written when the same stands there. */
int nx_state_epochs_get(const struct nx_environment *environment,
                        MDB_txn *txn,
                        struct nx_epochs *ret_epochs);
int nx_state_epochs_put(const struct nx_environment *environment,
                        MDB_txn *txn,
                        const struct nx_epochs *epochs);

/* The row of the expiry index that belongs to a record with expires_at. Delete: 0, -ENOENT, or an error. */
int nx_state_expiry_put(const struct nx_environment *environment,
                        MDB_txn *txn,
                        const struct nx_record *record);
int nx_state_expiry_delete(const struct nx_environment *environment,
                           MDB_txn *txn,
                           const struct nx_record *record);

/* The position; zero where none was stored yet. */
int nx_state_position_get(const struct nx_environment *environment,
                          MDB_txn *txn,
                          struct nx_position *ret_position);

/* Opens what is on disk, if it is: 0 (environment->env is set), -ENOENT, or an error said. */
int nx_environment_open(struct nx_environment *environment, char *error, size_t cap);
/* Makes it durably where it is missing. 0 or an error said. */
int nx_environment_create(const struct nx_environment *environment, char *error, size_t cap);

#endif
