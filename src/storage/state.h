/* The state: every live key as of one position, in LMDB (architecture.md, "What is on disk").
 *
 *     kv     key -> offset u64, flags u8, [expires_at u64, op u32], value, crc32 u32 over key+record
 *     expiry expires_at u64, offset u64, op u32 (big-endian, to sort) -> key, crc32 over key+record
 *     meta   "position", "epochs" (epochs.h's bytes, then the claim), "clock", "format"; each ends with a crc32
 *            over key+record
 *
 * LMDB's laws: an environment is opened after the fork, once a process, and never carried across
 * one; read transactions are short; only the checkpointer writes.
 *
 * A damaged record is found by its CRC at each read. Errors of all functions: -EBADMSG damaged,
 * -ENOSPC map or disk full, -EAGAIN too many readers, else -errno. */
#ifndef NX_STORAGE_STATE_H
#define NX_STORAGE_STATE_H

#include "common/epochs.h"
#include "storage/paced_sync.h"
#include "storage/position.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_state;
struct nx_state_cursor;

struct nx_record {
    const uint8_t *key; /* set by cursors */
    size_t key_length;
    uint64_t offset;     /* version */
    uint64_t expires_at; /* Unix ms, 0: never */
    uint32_t op_index;   /* of the put in its entry; kept only where expires_at is */
    const uint8_t *value;
    size_t value_length;
};

/* Read transactions at a time, of all processes together; the most that are kept room for. */
#define NX_STATE_READERS 1024

struct nx_state_options {
    uint64_t map_size;    /* bytes */
    unsigned max_readers; /* at least; the first process to open decides for all */
    bool writer;          /* the checkpointer */
};

/* Opens the state in the directory `dir`. The writer makes it, durably, if there is none; for a reader
 * it is empty at position 0 until then. A second handle on the same directory shares the environment
 * of the first: each has its own read transaction. On failure *error says why in a sentence and what
 * to do. 0, -EBADMSG (damaged, newer format), or -errno. */
int nx_state_open(const char *dir,
                  const struct nx_state_options *options,
                  struct nx_state **ret_state,
                  char *error,
                  size_t cap);
/* Ends what is open of its transactions. NULL is fine. */
void nx_state_close(struct nx_state *state);

/* ---- reading: one read transaction at a time a handle (renewed, not begun anew) ---- */
int nx_state_read_begin(struct nx_state *state, struct nx_position *ret_base);
void nx_state_read_end(struct nx_state *state);
/* 0; -ENOENT; -EBADMSG (CRC: the message is the caller's). Pointers are into the map, valid until
 * read_end; key is the caller's. */
int nx_state_get(struct nx_state *state,
                 const uint8_t *key,
                 size_t key_length,
                 struct nx_record *ret_record);
/* The epoch history up to the position, as of the running read transaction. 0 (empty where none was stored), or
 * -EBADMSG. */
int nx_state_epochs(struct nx_state *state, struct nx_epochs *ret_epochs);
/* How many records there are, as of the running read transaction. */
uint64_t nx_state_records(struct nx_state *state);
/* What is known of a record without looking at its value, which costs as much as it is long: offset, expires_at,
 * op_index and value_length, whether it is damaged or not. 0, -ENOENT, -EBADMSG (not even that), or another
 * error. */
int nx_state_peek(struct nx_state *state,
                  const uint8_t *key,
                  size_t key_length,
                  struct nx_record *ret_record);

/* A row of the expiry index: a version that expires, or one that did and was deleted or replaced since. */
struct nx_expiring {
    uint64_t expires_at; /* Unix ms */
    uint64_t offset;     /* the version */
    uint32_t op_index;
    const uint8_t *key;
    size_t key_length;
};

/* Goes through the index in the order of its first three members, from a place of it (key is not looked at), as of
 * the running read transaction, until `each` returns non-zero. A row's key is valid during that call.
 * 0 or a negative error. */
int nx_state_expiring(struct nx_state *state,
                      const struct nx_expiring *from,
                      int (*each)(void *arg, const struct nx_expiring *row),
                      void *arg);
/* A cursor inside the running read transaction, closed before read_end. */
int nx_state_cursor_open(struct nx_state *state, struct nx_state_cursor **ret_cursor);
void nx_state_cursor_close(struct nx_state_cursor *cursor); /* NULL is fine */
/* First record at or after key (length 0: the first of all); then the following ones. 0, -ENOENT at
 * the end, -EBADMSG. */
int nx_state_cursor_seek(struct nx_state_cursor *cursor,
                         const uint8_t *key,
                         size_t key_length,
                         struct nx_record *ret_record);
int nx_state_cursor_next(struct nx_state_cursor *cursor, struct nx_record *ret_record);

/* ---- writing: the checkpointer, with a writer's handle ---- */
int nx_state_write_begin(struct nx_state *state);
/* In ascending key order they are cheapest. record->key is the key, 1 to 511 bytes. After an error the
 * transaction can only be aborted. */
int nx_state_put(struct nx_state *state, const struct nx_record *record);
int nx_state_delete(struct nx_state *state,
                    const uint8_t *key,
                    size_t key_length); /* 0 also if absent */
/* Stores the epoch history, if it isn't what stands there. Errors as nx_state_put's. */
int nx_state_put_epochs(struct nx_state *state, const struct nx_epochs *epochs);
/* How writing by this handle pauses (paced_sync.h): where nx_state_write_pause says that `done` of `pieces` pieces of a
 * transaction are written, and while its commit syncs; NULL, as at first: it doesn't. Borrowed. */
void nx_state_set_pause(struct nx_state *state, const struct nx_pause *pause);
void nx_state_write_pause(struct nx_state *state, unsigned done, unsigned pieces);
/* Stores the position and commits durably (fdatasync). After any error the transaction is gone, and so
 * is the trust in what this process sees of the file (a failed sync leaves pages that look written):
 * close the handle, open and confirm anew. */
int nx_state_write_commit(struct nx_state *state, const struct nx_position *position);
void nx_state_write_abort(struct nx_state *state);
/* One durable transaction that rewrites the position found, so that what was read at start is disk and
 * not page cache. Errors as of a commit. */
int nx_state_confirm(struct nx_state *state, struct nx_position *ret_position);
/* Room in the map; both 0 when it can't be told. */
struct nx_state_room {
    /* Bytes that new data may still take, estimated low: free pages and those never used, less what two
     * transactions like the largest of late take to replace pages. */
    uint64_t map_free;
    /* Bytes of the pages that hold records: a transaction replaces no more than these. */
    uint64_t in_use;
};
struct nx_state_room nx_state_room(struct nx_state *state);
/* ---- whether all of it is sound ---- */

/* A walk over all records at one moment. LMDB's pages have no checksums, so what has decayed there can hide records:
 * each record's own CRC (which covers its key), the order of the keys, that each is found from the root too, and
 * LMDB's own count of them leave no room for that. */
struct nx_state_check;

/* What is told of one that isn't sound: the directory that holds it, and how. */
#define NX_STATE_DAMAGED_TEXT                                                                   \
    "the state in %s/state is damaged: %s; recover this node from a replica (start it with an " \
    "empty data directory and let it follow one) or from a snapshot"

/* Whether it takes a tenth of a second at most, so that it can be done before the state is served: up to 64 MiB and
 * 50,000 records. True too where that can't be told. */
bool nx_state_check_is_quick(struct nx_state *state);

/* Begins, in a read transaction of its own, which keeps what it sees. 0, or a negative error and NULL. */
int nx_state_check_begin(struct nx_state *state, struct nx_state_check **ret_check);

/* Goes over some megabytes. 0: it is sound, all of it; -EAGAIN: so far, there is more; -EBADMSG: it is damaged, and
 * why (cap bytes) says how; or another negative error. */
int nx_state_check_step(struct nx_state_check *check, char *why, size_t cap);

/* Ends it, over or not; NULL is fine. */
void nx_state_check_end(struct nx_state_check *check);

/* Frees reader slots of dead processes; run whenever a child died. */
void nx_state_clear_dead_readers(struct nx_state *state);

#endif
