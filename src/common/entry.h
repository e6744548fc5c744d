/* An entry of the log. There is one encoding of it, made once by the walwriter of the master: the
 * WalEntry frame, which stands in shared memory, in the WAL file, on the wire and in the replica's
 * WAL with the same bytes (protocol.md, "entry"):
 *
 *      0  type u8 = 0x20                   frame
 *      1  length u32                       of the payload: all but these 5 bytes and the CRC
 *      5  variant u32 = 4                  payload
 *      9  offset u64
 *     17  epoch u64
 *     25  prev_crc u32                     CRC of the frame at offset - 1; 0 for entry 1
 *     29  timestamp u64                    Unix microseconds, the log clock
 *     37  op_count u32                     1 to NX_MAX_OPS
 *     41  operations
 *         crc u32                          of everything before
 *
 * and an operation:
 *
 *      0  kind u8
 *      1  flags u8
 *      2  key_length u16
 *      4  value_length u32
 *      8  [expires_at u64, Unix ms, with NX_OP_HAS_EXPIRY]
 *         key, value
 *
 * Pure functions: no process, no state, no allocation, no copy of operations. */
#ifndef NX_COMMON_ENTRY_H
#define NX_COMMON_ENTRY_H

#include "common/bytes.h"
#include "common/wire_frame.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_ENTRY_HEADER_SIZE    41 /* where the operations begin */
#define NX_ENTRY_OVERHEAD       (NX_ENTRY_HEADER_SIZE + NX_FRAME_TRAILER)
#define NX_ENTRY_MAX_OPS_LENGTH (NX_ENTRY_MAX_FRAME - NX_ENTRY_OVERHEAD)

#define NX_OP_HEADER 8
#define NX_OP_EXPIRY 8 /* bytes of expires_at, where there is one */

#define NX_MAX_KEY   511
#define NX_MAX_VALUE ((size_t)15 << 20)
#define NX_MAX_OPS   10000

/* Bytes of a node's id in an epoch operation: the UUID in binary. */
#define NX_OP_NODE_ID 16

static_assert(NX_ENTRY_HEADER_SIZE == NX_FRAME_HEADER + 4 + 8 + 8 + 4 + 8 + 4, "layout above");
static_assert(NX_MAX_VALUE + NX_MAX_KEY + NX_OP_HEADER + NX_OP_EXPIRY <= NX_ENTRY_MAX_OPS_LENGTH,
              "the largest operation fits an entry");

enum nx_op_kind {
    NX_OP_PUT = 1,
    NX_OP_DELETE = 2,
    NX_OP_EPOCH = 3, /* key: the new master's id; alone in its entry, whose epoch is the new one */
};

enum nx_op_flags {
    NX_OP_HAS_EXPIRY = 1, /* put: expires_at is there */
    NX_OP_EXPIRED = 2,    /* delete: by expiry, not by a client */
};

/* One operation; key and value are borrowed. */
struct nx_op {
    uint8_t kind;          /* enum nx_op_kind */
    uint8_t flags;         /* enum nx_op_flags */
    struct nx_slice key;   /* 1 to NX_MAX_KEY bytes; NX_OP_NODE_ID of an epoch */
    struct nx_slice value; /* put: 0 to NX_MAX_VALUE bytes; else empty */
    uint64_t expires_at;   /* Unix ms, with NX_OP_HAS_EXPIRY, else 0 */
};

/* ---- operations ---- */

/* Bytes of an operation when encoded. */
static inline size_t nx_op_encoded_size(const struct nx_op *op)
{
    size_t expiry = (op->flags & NX_OP_HAS_EXPIRY) != 0 ? NX_OP_EXPIRY : 0;

    return NX_OP_HEADER + expiry + op->key.length + op->value.length;
}

/* Appends an operation. 0; -EINVAL: no decoder would take it (kind, flags, lengths); -ENOBUFS: no
 * room (the writer is then full). */
int nx_op_encode(struct nx_writer *writer, const struct nx_op *op);

/* Reads the operation at op, of which at most `max` bytes may be read; ret_op's slices point there.
 * 0 or -EBADMSG. Safe on any bytes, also on such as are overwritten meanwhile: it never reads or
 * points outside op[0, max); whether what it found still holds is for the caller to check
 * (shared_log.h). */
int nx_op_decode_at(const uint8_t *op, size_t max, struct nx_op *ret_op);

/* Goes through the operations of an entry:
 *
 *     nx_op_iter_init(&iter, header.ops, header.ops_length, header.op_count);
 *     while ((rc = nx_op_next(&iter, &op)) > 0) { ... iter.at ... }
 */
struct nx_op_iter {
    const uint8_t *at; /* where the operation begins that nx_op_next gave last */
    const uint8_t *next;
    size_t left;       /* bytes from next on */
    uint32_t op_count; /* of the entry */
    uint32_t index;    /* operations given so far; the last one's place is index - 1 */
};

void nx_op_iter_init(struct nx_op_iter *iter, const uint8_t *ops, size_t length, uint32_t op_count);

/* 1 and the next operation; 0 at the end, when count and bytes are used up together; -EBADMSG: an
 * unknown kind or flag, a flag at the wrong kind, a key of 0 or more than NX_MAX_KEY bytes, a delete
 * with a value, a value above NX_MAX_VALUE, an epoch operation that isn't alone or whose key isn't a
 * node id, fewer or more bytes than op_count operations take, or an op_count of 0 or above
 * NX_MAX_OPS. */
int nx_op_next(struct nx_op_iter *iter, struct nx_op *ret_op);

/* Goes through all of them: 0, or -EBADMSG as above. */
int nx_ops_validate(const uint8_t *ops, size_t length, uint32_t op_count);

/* ---- entries ---- */

struct nx_entry_header {
    uint64_t offset;
    uint64_t epoch;
    uint64_t timestamp; /* Unix microseconds */
    uint32_t prev_crc;
    uint32_t op_count;
    uint32_t crc;        /* of the frame, as it stands there */
    const uint8_t *ops;  /* in the frame */
    size_t ops_length;   /* bytes */
    size_t frame_length; /* ops_length + NX_ENTRY_OVERHEAD */
};

/* Length of the frame that begins with the n bytes at frame. 0 and *ret_length; -EAGAIN: n is below
 * NX_FRAME_HEADER; -EBADMSG: not a WalEntry, or shorter or longer than one can be. */
int nx_entry_frame_length(const uint8_t *frame, size_t n, size_t *ret_length);

/* Reads the first NX_ENTRY_HEADER_SIZE bytes of a frame alone, to walk over frames or to guess where
 * one may begin: judged as by nx_entry_decode, without what follows them. ret_header->crc is 0, and ops
 * may point beyond the n bytes. 0 or -EBADMSG. */
int nx_entry_peek(const uint8_t *frame, size_t n, struct nx_entry_header *ret_header);

/* Reads the frame at the beginning of the n bytes at frame (what follows it is not looked at:
 * compare ret_header->frame_length where nothing may follow), its CRC too if check_crc. 0 or -EBADMSG:
 * not a whole WalEntry frame, of offset 0 or epoch 0, with an op_count of 0, above NX_MAX_OPS or more
 * than its bytes can hold, or with a wrong CRC. The operations are not looked at. */
int nx_entry_decode(const uint8_t *frame,
                    size_t n,
                    bool check_crc,
                    struct nx_entry_header *ret_header);

/* Whether its operations are all that nx_op_next asks. 0 or -EBADMSG. */
int nx_entry_validate_ops(const struct nx_entry_header *header);

/* Whether it is an epoch entry; its operations were found valid. */
static inline bool nx_entry_begins_epoch(const struct nx_entry_header *header)
{
    return header->ops[0] == NX_OP_EPOCH;
}

/* Whether its epoch can follow that of the last entry (offset 0: there is none): the same, or a higher one that it
 * begins. Its operations were found valid. */
bool nx_entry_epoch_follows(const struct nx_entry_header *header,
                            uint64_t last_offset,
                            uint64_t last_epoch);

/* Bytes of a frame with ops_length bytes of operations. */
static inline size_t nx_entry_frame_size(size_t ops_length)
{
    return ops_length + NX_ENTRY_OVERHEAD;
}

/* Makes a frame around header->ops_length bytes (at most NX_ENTRY_MAX_OPS_LENGTH) of operations that
 * stand at frame + NX_ENTRY_HEADER_SIZE already: writes offset, epoch, timestamp, prev_crc and
 * op_count of *header before them and the CRC behind them, nx_entry_frame_size in all. header->ops,
 * crc and frame_length are not read. Returns the CRC. */
uint32_t nx_entry_finish(uint8_t *frame, const struct nx_entry_header *header);

#endif
