/* Messages of the replication protocol: their fields in memory, and the way to and from the bytes.
 * All of it is generated from wire_messages.def:
 *
 *     struct nx_msg_hello                         the fields, in their order
 *     nx_wire_size_hello(message)                 bytes of the whole frame
 *     nx_wire_encode_hello(message, buf, cap, ret_length)
 *     nx_wire_decode_hello(payload, n, ret_message)
 *
 * and so on for welcome, ping, pong, wal_entry, wal_ack, request_snapshot, snapshot_meta,
 * snapshot_chunk, snapshot_complete, error. Pure functions: no process, no state, no allocation.
 * The log's own frames are built and read by entry.h, which knows what is in them. */
#ifndef NX_COMMON_WIRE_H
#define NX_COMMON_WIRE_H

#include "common/bytes.h"
#include "common/wire_frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a field is in memory. Slices borrow: after decoding from the payload, before encoding from
 * whatever the caller put there. */
#define NX_WIRE_MEMBER_U8     uint8_t
#define NX_WIRE_MEMBER_U32    uint32_t
#define NX_WIRE_MEMBER_U64    uint64_t
#define NX_WIRE_MEMBER_BOOL   bool
#define NX_WIRE_MEMBER_STRING struct nx_slice
#define NX_WIRE_MEMBER_SECRET struct nx_slice
#define NX_WIRE_MEMBER_BYTES  struct nx_slice
#define NX_WIRE_MEMBER_REST   struct nx_slice

/* struct nx_msg_hello { struct nx_slice replica_id; uint64_t last_wal_offset; ... }; */
/* clang-format off */
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) struct nx_msg_##name {
#define NX_FIELD(message, field, type, note) NX_WIRE_MEMBER_##type field;
#define NX_OPTIONAL(message, field, type, value, note) NX_WIRE_MEMBER_##type field;
#define NX_OPTIONAL_LIKE(message, field, type, other, note) NX_WIRE_MEMBER_##type field;
#define NX_MESSAGE_END(name) };
#include "common/wire_messages.def"
/* clang-format on */

/* For each message:
 *
 * nx_wire_size_X: bytes of its frame, header and CRC included.
 *
 * nx_wire_encode_X: writes the whole frame at buf, all fields, and its length to *ret_length.
 * -EINVAL: a STRING or SECRET is not UTF-8 or holds a NUL; -EMSGSIZE: longer than its type may be;
 * -ENOBUFS: longer than cap.
 *
 * nx_wire_decode_X: reads a payload (without the frame's header and CRC, which nx_frame_peek has
 * checked). Slices point into the payload. Where it ends before an optional field, that and the
 * following ones take their defaults; bytes behind the last known field are ignored. -EBADMSG:
 * another message's variant, a field cut short, a length beyond the payload, a bool other than 0 and
 * 1, text that is not UTF-8 or holds a NUL. */
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit)                 \
    size_t nx_wire_size_##name(const struct nx_msg_##name *message);                         \
    int nx_wire_encode_##name(const struct nx_msg_##name *message, uint8_t *buf, size_t cap, \
                              size_t *ret_length);                                           \
    int nx_wire_decode_##name(const uint8_t *payload, size_t n, struct nx_msg_##name *ret_message);
#include "common/wire_messages.def"

/* Writes a message for the log, as `Hello replica_id="..." last_wal_offset=7 ...`: text cut to 64
 * bytes and everything but printable ASCII escaped, bytes as their number, secrets never. Of a
 * payload that can't be decoded, type and length. Returns buf, NUL-terminated within cap (at least
 * 1). */
const char *nx_wire_print(uint8_t type, const uint8_t *payload, size_t n, char *buf, size_t cap);

/* Codes of the message Error: NX_WIRE_ERROR_BAD_FRAME, ... */
enum nx_wire_error {
#define NX_ERROR_CODE(symbol, code, text) NX_WIRE_ERROR_##symbol = code,
#include "common/wire_messages.def"
};

/* What a code means, in a few words; "unknown error" for one that this version doesn't know. */
const char *nx_wire_error_text(uint32_t code);

#endif
