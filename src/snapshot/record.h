/* The records of a snapshot's kv files (protocol.md, "Snapshot"):
 *
 *     offset u64, flags u8, key_length u16, value_length u32, [expires_at u64, Unix ms, where flags & 1],
 *     key, value
 *
 * Pure functions. */
#ifndef NX_SNAPSHOT_RECORD_H
#define NX_SNAPSHOT_RECORD_H

#include "common/entry.h"
#include "storage/state.h"

#include <stddef.h>
#include <stdint.h>

#define NX_RECORD_HEADER 15 /* bytes before key, or before expires_at */
#define NX_RECORD_EXPIRY 8
#define NX_RECORD_MAX    (NX_RECORD_HEADER + NX_RECORD_EXPIRY + NX_MAX_KEY + NX_MAX_VALUE)

size_t nx_record_size(const struct nx_record *record);

/* Writes nx_record_size bytes. */
void nx_record_encode(const struct nx_record *record, uint8_t *bytes);

/* Reads the record with which n bytes begin. 0, *ret_record (pointing into them) and *ret_size; -EAGAIN:
 * it goes on behind them, *ret_size says how many bytes it needs (at most NX_RECORD_MAX); -EBADMSG: no
 * record begins like this. */
int nx_record_decode(const uint8_t *bytes,
                     size_t n,
                     struct nx_record *ret_record,
                     size_t *ret_size);

#endif
