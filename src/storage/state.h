/* The state: every live key as of one position, in LMDB (architecture.md, "What is on disk").
 *
 *     kv     key -> offset u64, flags u8, [expires_at u64, op u32], value, crc32 u32 over key+record
 *     expiry expires_at u64, offset u64, op u32 (big-endian) -> key, crc32
 *     meta   "position", "epochs", "clock", "format"
 *
 * LMDB's laws: an environment is opened after the fork, once a process, and never carried across
 * one; read transactions are short; only the checkpointer writes. */
#ifndef NX_STORAGE_STATE_H
#define NX_STORAGE_STATE_H

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
    uint32_t op_index;   /* of the put in its entry */
    const uint8_t *value;
    size_t value_length;
};

struct nx_state_options {
    uint64_t map_size; /* bytes */
    unsigned max_readers;
    bool writer; /* the checkpointer */
};

/* Opens (the writer: creates and clears stale readers) the state in `dir`. On failure *error says why
 * in a sentence. 0, -EBADMSG (damaged, newer format), or -errno. */
int nx_state_open(const char *dir,
                  const struct nx_state_options *options,
                  struct nx_state **ret_state,
                  char *error,
                  size_t cap);
void nx_state_close(struct nx_state *state);

/* ---- reading: one read transaction at a time a state handle (MDB_NOTLS, renewed, not reopened) ---- */
int nx_state_read_begin(struct nx_state *state, struct nx_position *ret_base);
void nx_state_read_end(struct nx_state *state);
/* 0; -ENOENT; -EBADMSG (CRC: the message is the caller's). Pointers are into the map, valid until
 * read_end. */
int nx_state_get(struct nx_state *state,
                 const uint8_t *key,
                 size_t key_length,
                 struct nx_record *ret_record);
/* A cursor inside the running read transaction. */
int nx_state_cursor_open(struct nx_state *state, struct nx_state_cursor **ret_cursor);
void nx_state_cursor_close(struct nx_state_cursor *cursor);
/* First record at or after key (length 0: the first of all); then the following ones. 0, -ENOENT at
 * the end, -EBADMSG. */
int nx_state_cursor_seek(struct nx_state_cursor *cursor,
                         const uint8_t *key,
                         size_t key_length,
                         struct nx_record *ret_record);
int nx_state_cursor_next(struct nx_state_cursor *cursor, struct nx_record *ret_record);

/* ---- writing: the checkpointer ---- */
int nx_state_write_begin(struct nx_state *state);
/* In ascending key order they are cheapest. record->key is the key. -ENOSPC: map full. */
int nx_state_put(struct nx_state *state, const struct nx_record *record);
int nx_state_delete(struct nx_state *state,
                    const uint8_t *key,
                    size_t key_length); /* 0 also if absent */
/* Stores the position and commits durably (fdatasync). After any error the transaction is gone and the
 * process must exit (a failed sync leaves pages that look written). */
int nx_state_write_commit(struct nx_state *state, const struct nx_position *position);
void nx_state_write_abort(struct nx_state *state);
/* One durable transaction that rewrites the position found, so that what was read at start is disk and
 * not page cache. */
int nx_state_confirm(struct nx_state *state);
/* Bytes still free in the map (estimated low), and entries. */
uint64_t nx_state_map_free(struct nx_state *state);
/* Frees reader slots of dead processes; run whenever a child died. */
void nx_state_clear_dead_readers(struct nx_state *state);

#endif
