/* Frames of the replication protocol (protocol.md, "Frame"):
 *
 *     type u8 | length u32 | payload, length bytes | crc32 u32 of everything before
 *
 * and who may send which type when, how long. The log's entries are frames too (entry.h). */
#ifndef NX_COMMON_WIRE_FRAME_H
#define NX_COMMON_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_FRAME_HEADER   5
#define NX_FRAME_TRAILER  4
#define NX_FRAME_OVERHEAD (NX_FRAME_HEADER + NX_FRAME_TRAILER)

#define NX_WIRE_PROTOCOL_VERSION 1

/* Largest payloads, in bytes. */
#define NX_WIRE_MAX_PAYLOAD       ((size_t)64 << 20) /* of any frame */
#define NX_WIRE_MAX_PAYLOAD_HELLO ((size_t)64 << 10) /* of any frame before Welcome, and of Error */
#define NX_WIRE_MAX_PAYLOAD_SMALL ((size_t)4 << 10)  /* of what holds only numbers and ids */
#define NX_ENTRY_MAX_FRAME        ((size_t)16 << 20) /* of a whole WalEntry frame */
#define NX_WIRE_MAX_PAYLOAD_ENTRY (NX_ENTRY_MAX_FRAME - NX_FRAME_OVERHEAD)

/* One epoch in Hello's and Welcome's `epochs`: epoch u64, first offset u64, node id 16 bytes, CRC
 * u32 of the frame of its epoch entry. The newest NX_WIRE_MAX_EPOCHS are sent, oldest first. */
#define NX_WIRE_EPOCH_SIZE 36
#define NX_WIRE_MAX_EPOCHS 1000

/* The types: NX_MSG_HELLO, NX_MSG_WAL_ENTRY, ... */
enum nx_msg_type {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) NX_MSG_##symbol = type,
#include "common/wire_messages.def"
};

/* The u32 that begins each type's payload: NX_VARIANT_HELLO, ... */
enum nx_msg_variant {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    NX_VARIANT_##symbol = variant,
#include "common/wire_messages.def"
};

/* Who sends. EITHER stands in the table only. */
enum nx_wire_side {
    NX_WIRE_REPLICA = 1,
    NX_WIRE_MASTER = 2,
    NX_WIRE_EITHER = NX_WIRE_REPLICA | NX_WIRE_MASTER,
};

/* Where a conversation stands for its reader: a master reads the HANDSHAKE until it has the Hello,
 * a replica until it has the Welcome; then both read the SESSION. ANY stands in the table only. */
enum nx_wire_phase {
    NX_WIRE_HANDSHAKE = 1,
    NX_WIRE_SESSION = 2,
    NX_WIRE_ANY = NX_WIRE_HANDSHAKE | NX_WIRE_SESSION,
};

/* Why bytes are not a frame that may stand here. */
enum nx_frame_fault {
    NX_FRAME_FINE,
    NX_FRAME_UNKNOWN_TYPE,
    NX_FRAME_WRONG_SIDE,  /* this side may never send it */
    NX_FRAME_WRONG_PHASE, /* before the handshake is through, or a second handshake */
    NX_FRAME_TOO_LONG,    /* payload_length above limit */
    NX_FRAME_BAD_CRC,     /* crc as sent, computed as it should be */
};

struct nx_frame {
    const uint8_t *bytes; /* the whole frame, where the caller's buffer has it */
    size_t length;        /* of it */
    const uint8_t *payload;
    size_t payload_length;
    uint8_t type; /* enum nx_msg_type once it is known to be one */
    uint32_t crc; /* as sent */
    size_t need;  /* with -EAGAIN: that many more bytes at least */
    /* With -EBADMSG: */
    enum nx_frame_fault fault;
    size_t limit;      /* TOO_LONG */
    uint32_t computed; /* BAD_CRC */
};

/* Looks at the n bytes at buf, the beginning of which should be a frame from `sender`. 0: a whole
 * and sound one stands there (its payload may still be nonsense: wire.h, entry.h). -EAGAIN: not
 * whole yet, ret_frame->need. -EBADMSG: never will be, ret_frame->fault; type, side, phase and length are
 * judged by the first 5 bytes, before any of the payload is needed. ret_frame is filled in all
 * cases, as far as known. The CRC is computed once the frame is whole, so look again only after
 * `need` more bytes. */
int nx_frame_peek(const uint8_t *buf,
                  size_t n,
                  enum nx_wire_side sender,
                  enum nx_wire_phase phase,
                  struct nx_frame *ret_frame);

/* What is wrong with a frame that nx_frame_peek refused, with both sides' numbers, for a log line
 * and for Error 6: "WalEntry of 20000000 bytes, at most 16777207". Returns buf, NUL-terminated
 * within cap (at least 1). */
const char *nx_frame_fault_text(const struct nx_frame *frame, char *buf, size_t cap);

/* Makes a frame around the payload that stands at frame + NX_FRAME_HEADER: writes type and length
 * before it and the CRC behind it. Returns the CRC. payload_length is at most NX_WIRE_MAX_PAYLOAD. */
uint32_t nx_frame_seal(uint8_t *frame, uint8_t type, size_t payload_length);

/* Name of a type as in the manual ("WalEntry"), or NULL when there is no such type. */
const char *nx_wire_type_name(uint8_t type);

/* Largest payload of a type in a phase, in bytes; 0 when there is no such type. */
size_t nx_wire_max_payload(uint8_t type, enum nx_wire_phase phase);

#endif
