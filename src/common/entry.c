/* Runs in every process that makes, checks or reads entries of the log. Pure functions over buffers
 * of the caller, shared memory among them: they own nothing, allocate nothing, and never read or
 * write beyond the lengths they were given. */
#include "common/entry.h"

#include "common/crc32.h"

#include <errno.h>
#include <stdatomic.h>

/* Places in the frame, as entry.h draws them. */
#define AT_VARIANT   5
#define AT_OFFSET    9
#define AT_EPOCH     17
#define AT_PREV_CRC  25
#define AT_TIMESTAMP 29
#define AT_OP_COUNT  37

#define OP_MIN (NX_OP_HEADER + 1) /* a delete of a one-byte key */

/* An operation's header. */
struct op_shape {
    uint8_t kind;
    uint8_t flags;
    size_t key_length;
    size_t value_length;
};

/* Whether an operation of this shape may exist at all. */
static bool shape_fine(const struct op_shape *shape)
{
    if (shape->key_length == 0 || shape->key_length > NX_MAX_KEY) {
        return false;
    }
    switch (shape->kind) {
    case NX_OP_PUT:
        return (shape->flags & ~(unsigned)NX_OP_HAS_EXPIRY) == 0 &&
               shape->value_length <= NX_MAX_VALUE;
    case NX_OP_DELETE:
        return (shape->flags & ~(unsigned)NX_OP_EXPIRED) == 0 && shape->value_length == 0;
    case NX_OP_EPOCH:
        return shape->flags == 0 && shape->key_length == NX_OP_NODE_ID && shape->value_length == 0;
    default:
        return false;
    }
}

int nx_op_encode(struct nx_writer *writer, const struct nx_op *op)
{
    struct op_shape shape = {op->kind, op->flags, op->key.length, op->value.length};
    uint8_t *p;

    if (!shape_fine(&shape)) {
        return -EINVAL;
    }
    p = nx_write_raw(writer, nx_op_encoded_size(op));
    if (p == NULL) {
        return -ENOBUFS;
    }
    p[0] = op->kind;
    p[1] = op->flags;
    nx_store_u16(p + 2, (uint16_t)op->key.length);
    nx_store_u32(p + 4, (uint32_t)op->value.length);
    p += NX_OP_HEADER;
    if ((op->flags & NX_OP_HAS_EXPIRY) != 0) {
        nx_store_u64(p, op->expires_at);
        p += NX_OP_EXPIRY;
    }
    memcpy(p, op->key.data, op->key.length);
    if (op->value.length > 0) {
        memcpy(p + op->key.length, op->value.data, op->value.length);
    }
    return 0;
}

int nx_op_decode_at(const uint8_t *op, size_t max, struct nx_op *ret_op)
{
    struct op_shape shape;
    const uint8_t *key;
    size_t expiry;

    if (max < NX_OP_HEADER) {
        return -EBADMSG;
    }
    shape.kind = op[0];
    shape.flags = op[1];
    shape.key_length = nx_load_u16(op + 2);
    shape.value_length = nx_load_u32(op + 4);
    /* The bytes may be overwritten by another process right now: what is checked below is what was
     * read above, the compiler must not read it a second time. */
    atomic_signal_fence(memory_order_seq_cst);
    if (!shape_fine(&shape)) {
        return -EBADMSG;
    }
    expiry = (shape.flags & NX_OP_HAS_EXPIRY) != 0 ? NX_OP_EXPIRY : 0;
    if (max - NX_OP_HEADER < expiry + shape.key_length + shape.value_length) {
        return -EBADMSG;
    }
    key = op + NX_OP_HEADER + expiry;
    ret_op->kind = shape.kind;
    ret_op->flags = shape.flags;
    ret_op->key = nx_slice_of(key, shape.key_length);
    ret_op->value = nx_slice_of(key + shape.key_length, shape.value_length);
    ret_op->expires_at = expiry > 0 ? nx_load_u64(op + NX_OP_HEADER) : 0;
    return 0;
}

void nx_op_iter_init(struct nx_op_iter *iter, const uint8_t *ops, size_t length, uint32_t op_count)
{
    *iter = (struct nx_op_iter){.at = ops, .next = ops, .left = length, .op_count = op_count};
}

int nx_op_next(struct nx_op_iter *iter, struct nx_op *ret_op)
{
    struct nx_op op;
    size_t size;

    if (iter->op_count == 0 || iter->op_count > NX_MAX_OPS) {
        return -EBADMSG;
    }
    if (iter->index == iter->op_count) {
        return iter->left == 0 ? 0 : -EBADMSG;
    }
    if (nx_op_decode_at(iter->next, iter->left, &op) < 0) {
        return -EBADMSG;
    }
    if (op.kind == NX_OP_EPOCH && iter->op_count != 1) {
        return -EBADMSG;
    }
    size = nx_op_encoded_size(&op);
    iter->at = iter->next;
    iter->next += size;
    iter->left -= size;
    iter->index++;
    *ret_op = op;
    return 1;
}

int nx_ops_validate(const uint8_t *ops, size_t length, uint32_t op_count)
{
    struct nx_op_iter iter;
    struct nx_op op;
    int rc;

    nx_op_iter_init(&iter, ops, length, op_count);
    do {
        rc = nx_op_next(&iter, &op);
    } while (rc > 0);
    return rc;
}

int nx_entry_frame_length(const uint8_t *frame, size_t n, size_t *ret_length)
{
    size_t length;

    if (n < NX_FRAME_HEADER) {
        return -EAGAIN;
    }
    length = (size_t)nx_load_u32(frame + 1) + NX_FRAME_OVERHEAD;
    if (frame[0] != NX_MSG_WAL_ENTRY || length < NX_ENTRY_OVERHEAD + OP_MIN ||
        length > NX_ENTRY_MAX_FRAME) {
        return -EBADMSG;
    }
    *ret_length = length;
    return 0;
}

/* Whether the numbers of a header can be those of an entry. */
static bool header_fine(const struct nx_entry_header *header)
{
    return header->offset > 0 && header->epoch > 0 && header->op_count > 0 &&
           header->op_count <= NX_MAX_OPS && header->op_count <= header->ops_length / OP_MIN;
}

int nx_entry_peek(const uint8_t *frame, size_t n, struct nx_entry_header *ret_header)
{
    struct nx_entry_header header = {.crc = 0};

    if (n < NX_ENTRY_HEADER_SIZE || nx_entry_frame_length(frame, n, &header.frame_length) < 0) {
        return -EBADMSG;
    }
    header.offset = nx_load_u64(frame + AT_OFFSET);
    header.epoch = nx_load_u64(frame + AT_EPOCH);
    header.prev_crc = nx_load_u32(frame + AT_PREV_CRC);
    header.timestamp = nx_load_u64(frame + AT_TIMESTAMP);
    header.op_count = nx_load_u32(frame + AT_OP_COUNT);
    header.ops = frame + NX_ENTRY_HEADER_SIZE;
    header.ops_length = header.frame_length - NX_ENTRY_OVERHEAD;
    if (nx_load_u32(frame + AT_VARIANT) != NX_VARIANT_WAL_ENTRY || !header_fine(&header)) {
        return -EBADMSG;
    }
    *ret_header = header;
    return 0;
}

int nx_entry_decode(const uint8_t *frame,
                    size_t n,
                    bool check_crc,
                    struct nx_entry_header *ret_header)
{
    struct nx_entry_header header;
    size_t covered;

    if (nx_entry_peek(frame, n, &header) < 0 || n < header.frame_length) {
        return -EBADMSG;
    }
    covered = header.frame_length - NX_FRAME_TRAILER;
    header.crc = nx_load_u32(frame + covered);
    if (check_crc && header.crc != nx_crc32(0, frame, covered)) {
        return -EBADMSG;
    }
    *ret_header = header;
    return 0;
}

int nx_entry_validate_ops(const struct nx_entry_header *header)
{
    return nx_ops_validate(header->ops, header->ops_length, header->op_count);
}

uint32_t nx_entry_finish(uint8_t *frame, const struct nx_entry_header *header)
{
    assert(header->ops_length <= NX_ENTRY_MAX_OPS_LENGTH);
    nx_store_u32(frame + AT_VARIANT, NX_VARIANT_WAL_ENTRY);
    nx_store_u64(frame + AT_OFFSET, header->offset);
    nx_store_u64(frame + AT_EPOCH, header->epoch);
    nx_store_u32(frame + AT_PREV_CRC, header->prev_crc);
    nx_store_u64(frame + AT_TIMESTAMP, header->timestamp);
    nx_store_u32(frame + AT_OP_COUNT, header->op_count);
    return nx_frame_seal(frame, NX_MSG_WAL_ENTRY,
                         NX_ENTRY_HEADER_SIZE - NX_FRAME_HEADER + header->ops_length);
}

bool nx_entry_epoch_follows(const struct nx_entry_header *header,
                            uint64_t last_offset,
                            uint64_t last_epoch)
{
    if (nx_entry_begins_epoch(header)) {
        return header->epoch > last_epoch;
    }
    return header->epoch == (last_offset == 0 ? 1 : last_epoch);
}
