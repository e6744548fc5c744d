/* Entries of the log: golden bytes, what is refused and why, and reading garbage without harm. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "common/entry.h"
#include "common/wire.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Frames as protocol.md describes them, byte by byte; CRCs by another implementation. */

/* A put, a put with expiry and empty value, a delete by expiry. */
static const uint8_t golden_writes[] = {
    0x20, 74,   0,    0,    0,                          /* type, length */
    4,    0,    0,    0,                                /* variant */
    5,    0,    0,    0,    0, 0, 0, 0,                 /* offset */
    2,    0,    0,    0,    0, 0, 0, 0,                 /* epoch */
    0x44, 0x33, 0x22, 0x11,                             /* prev_crc */
    8,    7,    6,    5,    4, 3, 2, 1,                 /* timestamp */
    3,    0,    0,    0,                                /* op_count */
    1,    0,    1,    0,    2, 0, 0, 0, 'k',  'v', '1', /* put k = v1 */
    1,    1,    2,    0,    0, 0, 0, 0,                 /* put k2 = "", */
    0x00, 0xE4, 0x0B, 0x54, 2, 0, 0, 0, 'k',  '2',      /*   expires at 10000000000 */
    2,    2,    1,    0,    0, 0, 0, 0, 0xFF,           /* delete \xFF, expired */
    0xD5, 0x28, 0x69, 0x15,                             /* crc */
};

static const uint8_t golden_epoch[] = {
    0x20, 60,   0,    0,    0,               /* type, length */
    4,    0,    0,    0,                     /* variant */
    6,    0,    0,    0,    0,  0,  0,    0, /* offset */
    3,    0,    0,    0,    0,  0,  0,    0, /* epoch */
    0xDD, 0xCC, 0xBB, 0xAA,                  /* prev_crc */
    9,    0,    0,    0,    0,  0,  0,    0, /* timestamp */
    1,    0,    0,    0,                     /* op_count */
    3,    0,    16,   0,    0,  0,  0,    0, /* epoch of node */
    0,    1,    2,    3,    4,  5,  6,    7,    8,    9,
    10,   11,   12,   13,   14, 15, 0xA1, 0xC8, 0xEE, 0xE8, /* crc */
};

static const struct nx_op golden_ops[] = {
    {.kind = NX_OP_PUT, .key = {(const uint8_t *)"k", 1}, .value = {(const uint8_t *)"v1", 2}},
    {.kind = NX_OP_PUT,
     .flags = NX_OP_HAS_EXPIRY,
     .key = {(const uint8_t *)"k2", 2},
     .expires_at = 10000000000},
    {.kind = NX_OP_DELETE, .flags = NX_OP_EXPIRED, .key = {(const uint8_t *)"\xFF", 1}},
};
#define GOLDEN_OPS 3

/* A copy in memory of exactly its size, so that a sanitizer sees one byte too many. */
static uint8_t *exact_copy(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, data, n);
    return copy;
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void assert_same_op(const struct nx_op *a, const struct nx_op *b)
{
    ck_assert_uint_eq(a->kind, b->kind);
    ck_assert_uint_eq(a->flags, b->flags);
    ck_assert(nx_slice_equal(a->key, b->key));
    ck_assert(nx_slice_equal(a->value, b->value));
    ck_assert_uint_eq(a->expires_at, b->expires_at);
}

/* ---- encoding ---- */

START_TEST(an_entry_is_built_as_the_golden_bytes)
{
    uint8_t frame[sizeof(golden_writes) + 1];
    struct nx_writer writer =
        nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, sizeof(golden_writes) - NX_ENTRY_OVERHEAD);
    struct nx_entry_header header = {
        .offset = 5,
        .epoch = 2,
        .prev_crc = 0x11223344,
        .timestamp = 0x0102030405060708,
        .op_count = GOLDEN_OPS,
    };
    size_t size = 0;

    memset(frame, 0xEE, sizeof(frame));
    for (size_t i = 0; i < GOLDEN_OPS; i++) {
        ck_assert_int_eq(nx_op_encode(&writer, &golden_ops[i]), 0);
        size += nx_op_encoded_size(&golden_ops[i]);
        ck_assert_uint_eq(writer.used, size);
    }
    header.ops_length = writer.used;
    ck_assert_uint_eq(nx_entry_frame_size(writer.used), sizeof(golden_writes));
    ck_assert_uint_eq(nx_entry_finish(frame, &header), 0x156928D5);
    ck_assert_mem_eq(frame, golden_writes, sizeof(golden_writes));
    ck_assert_uint_eq(frame[sizeof(golden_writes)], 0xEE);
}
END_TEST

START_TEST(an_epoch_entry_is_built_as_the_golden_bytes)
{
    uint8_t frame[sizeof(golden_epoch)];
    struct nx_writer writer = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, NX_OP_HEADER + 16);
    struct nx_op op = {
        .kind = NX_OP_EPOCH,
        .key = {(const uint8_t *)"\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17", NX_OP_NODE_ID},
    };
    struct nx_entry_header header = {
        .offset = 6,
        .epoch = 3,
        .prev_crc = 0xAABBCCDD,
        .timestamp = 9,
        .op_count = 1,
        .ops_length = NX_OP_HEADER + 16,
    };

    ck_assert_int_eq(nx_op_encode(&writer, &op), 0);
    ck_assert_uint_eq(nx_entry_finish(frame, &header), 0xE8EEC8A1);
    ck_assert_mem_eq(frame, golden_epoch, sizeof(golden_epoch));
}
END_TEST

START_TEST(an_entry_is_also_the_wire_message)
{
    struct nx_frame frame;
    struct nx_msg_wal_entry message;
    uint8_t buf[sizeof(golden_writes)];
    size_t length = 0;

    ck_assert_int_eq(nx_frame_peek(golden_writes, sizeof(golden_writes), NX_WIRE_MASTER,
                                   NX_WIRE_SESSION, &frame),
                     0);
    ck_assert_int_eq(nx_wire_decode_wal_entry(frame.payload, frame.payload_length, &message), 0);
    ck_assert_uint_eq(message.offset, 5);
    ck_assert_uint_eq(message.epoch, 2);
    ck_assert_int_eq(nx_wire_encode_wal_entry(&message, buf, sizeof(buf), &length), 0);
    ck_assert_uint_eq(length, sizeof(golden_writes));
    ck_assert_mem_eq(buf, golden_writes, length);
}
END_TEST

START_TEST(an_operation_needs_room_for_all_of_it)
{
    size_t size = nx_op_encoded_size(&golden_ops[1]);

    for (size_t cap = 0; cap < size; cap++) {
        uint8_t *buf = malloc(cap + 1);
        struct nx_writer writer = nx_writer_of(buf, cap);

        ck_assert_ptr_nonnull(buf);
        ck_assert_int_eq(nx_op_encode(&writer, &golden_ops[1]), -ENOBUFS);
        ck_assert(writer.full);
        ck_assert_uint_eq(writer.used, 0);
        free(buf);
    }
}
END_TEST

/* ---- decoding ---- */

START_TEST(the_golden_entry_is_read_back)
{
    struct nx_entry_header header;
    struct nx_op_iter iter;
    struct nx_op op;

    ck_assert_int_eq(nx_entry_decode(golden_writes, sizeof(golden_writes), true, &header), 0);
    ck_assert_uint_eq(header.offset, 5);
    ck_assert_uint_eq(header.epoch, 2);
    ck_assert_uint_eq(header.prev_crc, 0x11223344);
    ck_assert_uint_eq(header.timestamp, 0x0102030405060708);
    ck_assert_uint_eq(header.op_count, GOLDEN_OPS);
    ck_assert_uint_eq(header.crc, 0x156928D5);
    ck_assert_ptr_eq(header.ops, golden_writes + NX_ENTRY_HEADER_SIZE);
    ck_assert_uint_eq(header.ops_length, sizeof(golden_writes) - NX_ENTRY_OVERHEAD);
    ck_assert_uint_eq(header.frame_length, sizeof(golden_writes));
    ck_assert_int_eq(nx_entry_validate_ops(&header), 0);

    nx_op_iter_init(&iter, header.ops, header.ops_length, header.op_count);
    for (uint32_t i = 0; i < GOLDEN_OPS; i++) {
        struct nx_op again;

        ck_assert_int_eq(nx_op_next(&iter, &op), 1);
        ck_assert_uint_eq(iter.index, i + 1);
        assert_same_op(&op, &golden_ops[i]);
        ck_assert_int_eq(nx_op_decode_at(iter.at, nx_op_encoded_size(&op), &again), 0);
        assert_same_op(&again, &golden_ops[i]);
    }
    ck_assert_int_eq(nx_op_next(&iter, &op), 0);
    ck_assert_int_eq(nx_op_next(&iter, &op), 0);
}
END_TEST

START_TEST(the_golden_epoch_is_read_back)
{
    struct nx_entry_header header;
    struct nx_op op;

    ck_assert_int_eq(nx_entry_decode(golden_epoch, sizeof(golden_epoch), true, &header), 0);
    ck_assert_int_eq(nx_entry_validate_ops(&header), 0);
    ck_assert_int_eq(nx_op_decode_at(header.ops, header.ops_length, &op), 0);
    ck_assert_uint_eq(op.kind, NX_OP_EPOCH);
    ck_assert_uint_eq(op.key.length, NX_OP_NODE_ID);
    ck_assert_uint_eq(op.key.data[15], 15);
}
END_TEST

START_TEST(a_frame_cut_anywhere_is_refused)
{
    struct nx_entry_header header;
    struct nx_entry_header before;
    size_t length = 0;

    memset(&header, 0xA5, sizeof(header));
    before = header;
    for (size_t n = 0; n < sizeof(golden_writes); n++) {
        uint8_t *copy = exact_copy(golden_writes, n);

        ck_assert_int_eq(nx_entry_decode(copy, n, true, &header), -EBADMSG);
        ck_assert_int_eq(nx_entry_decode(copy, n, false, &header), -EBADMSG);
        ck_assert_int_eq(nx_entry_frame_length(copy, n, &length), n < 5 ? -EAGAIN : 0);
        free(copy);
    }
    ck_assert_mem_eq(&header, &before, sizeof(header));
    ck_assert_uint_eq(length, sizeof(golden_writes));
}
END_TEST

START_TEST(bytes_after_the_frame_do_not_matter)
{
    uint8_t two[sizeof(golden_writes) + sizeof(golden_epoch)];
    struct nx_entry_header header;

    memcpy(two, golden_writes, sizeof(golden_writes));
    memcpy(two + sizeof(golden_writes), golden_epoch, sizeof(golden_epoch));
    ck_assert_int_eq(nx_entry_decode(two, sizeof(two), true, &header), 0);
    ck_assert_uint_eq(header.frame_length, sizeof(golden_writes));
    ck_assert_int_eq(
        nx_entry_decode(two + header.frame_length, sizeof(golden_epoch), true, &header), 0);
    ck_assert_uint_eq(header.offset, 6);
}
END_TEST

START_TEST(no_flipped_bit_passes_the_crc)
{
    struct nx_entry_header header;

    for (size_t bit = 0; bit < 8 * sizeof(golden_writes); bit++) {
        uint8_t *copy = exact_copy(golden_writes, sizeof(golden_writes));

        copy[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        ck_assert_int_eq(nx_entry_decode(copy, sizeof(golden_writes), true, &header), -EBADMSG);
        if (nx_entry_decode(copy, sizeof(golden_writes), false, &header) == 0) {
            (void)nx_entry_validate_ops(&header);
        }
        free(copy);
    }
}
END_TEST

/* One thing wrong in a header, with the CRC made right again. */
struct bad_header {
    const char *what;
    size_t at;
    size_t width;
    uint64_t value;
};

static const struct bad_header bad_headers[] = {
    {"another type", 0, 1, 0x21},
    {"another variant", 5, 4, 5},
    {"offset 0", 9, 8, 0},
    {"epoch 0", 17, 8, 0},
    {"no operations", 37, 4, 0},
    {"more operations than may be", 37, 4, NX_MAX_OPS + 1},
    {"more operations than fit the bytes", 37, 4, 5},
    {"all ones as count", 37, 4, UINT32_MAX},
};

START_TEST(a_wrong_header_is_refused_in_spite_of_its_crc)
{
    const struct bad_header *bad = &bad_headers[_i];
    uint8_t frame[sizeof(golden_writes)];
    struct nx_entry_header header;

    memcpy(frame, golden_writes, sizeof(frame));
    for (size_t i = 0; i < bad->width; i++) {
        frame[bad->at + i] = (uint8_t)(bad->value >> (8 * i));
    }
    nx_store_u32(frame + sizeof(frame) - 4, nx_crc32(0, frame, sizeof(frame) - 4));
    ck_assert_msg(nx_entry_decode(frame, sizeof(frame), true, &header) == -EBADMSG, "taken: %s",
                  bad->what);
    ck_assert_int_eq(nx_entry_decode(frame, sizeof(frame), false, &header), -EBADMSG);
}
END_TEST

START_TEST(lengths_that_no_entry_has_are_refused_by_the_header_alone)
{
    static const uint32_t shortest = NX_ENTRY_OVERHEAD + NX_OP_HEADER + 1 - 9;
    static const uint32_t longest = (16U << 20) - 9;
    uint8_t header[5] = {0x20, 0, 0, 0, 0};
    size_t length = 0;

    nx_store_u32(header + 1, shortest - 1);
    ck_assert_int_eq(nx_entry_frame_length(header, 5, &length), -EBADMSG);
    nx_store_u32(header + 1, longest + 1);
    ck_assert_int_eq(nx_entry_frame_length(header, 5, &length), -EBADMSG);
    nx_store_u32(header + 1, UINT32_MAX);
    ck_assert_int_eq(nx_entry_frame_length(header, 5, &length), -EBADMSG);
    nx_store_u32(header + 1, 0);
    ck_assert_int_eq(nx_entry_frame_length(header, 5, &length), -EBADMSG);
    nx_store_u32(header + 1, shortest);
    ck_assert_int_eq(nx_entry_frame_length(header, 5, &length), 0);
    ck_assert_uint_eq(length, shortest + 9);
    nx_store_u32(header + 1, longest);
    ck_assert_int_eq(nx_entry_frame_length(header, 5, &length), 0);
    ck_assert_uint_eq(length, NX_ENTRY_MAX_FRAME);
    header[0] = 0x10;
    ck_assert_int_eq(nx_entry_frame_length(header, 5, &length), -EBADMSG);
}
END_TEST

/* ---- operations that are refused ---- */

struct ops_case {
    const char *what;
    uint32_t op_count;
    bool fine;
    size_t length;
    uint8_t ops[64];
};

#define ID 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16

static const struct ops_case ops_cases[] = {
    {"put", 1, true, 10, {1, 0, 1, 0, 1, 0, 0, 0, 'k', 'v'}},
    {"put of nothing", 1, true, 9, {1, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"put with expiry", 1, true, 17, {1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'k'}},
    {"delete", 1, true, 9, {2, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"delete by expiry", 1, true, 9, {2, 2, 1, 0, 0, 0, 0, 0, 'k'}},
    {"epoch", 1, true, 24, {3, 0, 16, 0, 0, 0, 0, 0, ID}},
    {"no operation", 0, false, 0, {0}},
    {"count above the limit", NX_MAX_OPS + 1, false, 9, {2, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"kind 0", 1, false, 9, {0, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"kind 4", 1, false, 9, {4, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"kind 255", 1, false, 9, {255, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"put by expiry", 1, false, 9, {1, 2, 1, 0, 0, 0, 0, 0, 'k'}},
    {"unknown flag at put", 1, false, 9, {1, 4, 1, 0, 0, 0, 0, 0, 'k'}},
    {"highest flag at put", 1, false, 9, {1, 128, 1, 0, 0, 0, 0, 0, 'k'}},
    {"delete with expiry", 1, false, 17, {2, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'k'}},
    {"unknown flag at delete", 1, false, 9, {2, 4, 1, 0, 0, 0, 0, 0, 'k'}},
    {"delete with value", 1, false, 10, {2, 0, 1, 0, 1, 0, 0, 0, 'k', 'v'}},
    {"empty key", 1, false, 9, {1, 0, 0, 0, 1, 0, 0, 0, 'v'}},
    {"value beyond the end", 1, false, 10, {1, 0, 1, 0, 2, 0, 0, 0, 'k', 'v'}},
    {"key beyond the end", 1, false, 9, {1, 0, 2, 0, 0, 0, 0, 0, 'k'}},
    {"expiry beyond the end", 1, false, 9, {1, 1, 1, 0, 0, 0, 0, 0, 'k'}},
    {"huge value", 1, false, 10, {1, 0, 1, 0, 255, 255, 255, 255, 'k', 'v'}},
    {"byte behind", 1, false, 11, {1, 0, 1, 0, 1, 0, 0, 0, 'k', 'v', 0}},
    {"operation missing", 2, false, 9, {2, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"operation too many",
     1,
     false,
     18,
     {2, 0, 1, 0, 0, 0, 0, 0, 'k', 2, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"two", 2, true, 18, {2, 0, 1, 0, 0, 0, 0, 0, 'k', 2, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"epoch with flag", 1, false, 24, {3, 2, 16, 0, 0, 0, 0, 0, ID}},
    {"epoch of 15 bytes", 1, false, 23, {3, 0, 15, 0, 0, 0, 0, 0, ID}},
    {"epoch of 17 bytes", 1, false, 25, {3, 0, 17, 0, 0, 0, 0, 0, ID, 17}},
    {"epoch with value", 1, false, 25, {3, 0, 16, 0, 1, 0, 0, 0, ID, 'v'}},
    {"epoch before another",
     2,
     false,
     33,
     {3, 0, 16, 0, 0, 0, 0, 0, ID, 2, 0, 1, 0, 0, 0, 0, 0, 'k'}},
    {"epoch after another",
     2,
     false,
     33,
     {2, 0, 1, 0, 0, 0, 0, 0, 'k', 3, 0, 16, 0, 0, 0, 0, 0, ID}},
};

START_TEST(operations_are_what_they_may_be_or_refused)
{
    const struct ops_case *ops = &ops_cases[_i];
    uint8_t *copy = exact_copy(ops->ops, ops->length);

    ck_assert_msg(nx_ops_validate(copy, ops->length, ops->op_count) == (ops->fine ? 0 : -EBADMSG),
                  "%s", ops->what);
    free(copy);
    for (size_t n = 0; n < ops->length; n++) {
        copy = exact_copy(ops->ops, n);
        ck_assert_msg(nx_ops_validate(copy, n, ops->op_count) == -EBADMSG ||
                          (!ops->fine && ops->op_count == 1),
                      "%s cut to %zu bytes", ops->what, n);
        free(copy);
    }
}
END_TEST

START_TEST(a_failed_read_leaves_the_operation_alone)
{
    const uint8_t bad[] = {1, 0, 1, 0, 2, 0, 0, 0, 'k', 'v'};
    struct nx_op op = golden_ops[0];

    ck_assert_int_eq(nx_op_decode_at(bad, sizeof(bad), &op), -EBADMSG);
    ck_assert_mem_eq(&op, &golden_ops[0], sizeof(op));
}
END_TEST

START_TEST(what_no_decoder_takes_is_not_encoded)
{
    uint8_t *big = calloc(1, NX_MAX_VALUE + 1);
    uint8_t *buf = malloc(NX_ENTRY_MAX_FRAME);
    struct nx_writer writer = nx_writer_of(buf, NX_ENTRY_MAX_FRAME);
    struct nx_op op = golden_ops[0];

    ck_assert_ptr_nonnull(big);
    ck_assert_ptr_nonnull(buf);
    op.key = nx_slice_of(big, 0);
    ck_assert_int_eq(nx_op_encode(&writer, &op), -EINVAL);
    op.key = nx_slice_of(big, NX_MAX_KEY + 1);
    ck_assert_int_eq(nx_op_encode(&writer, &op), -EINVAL);
    op.key = nx_slice_of(big, (size_t)UINT16_MAX + 2);
    ck_assert_int_eq(nx_op_encode(&writer, &op), -EINVAL);
    op = golden_ops[0];
    op.value = nx_slice_of(big, NX_MAX_VALUE + 1);
    ck_assert_int_eq(nx_op_encode(&writer, &op), -EINVAL);
    op = golden_ops[0];
    op.kind = 4;
    ck_assert_int_eq(nx_op_encode(&writer, &op), -EINVAL);
    op = golden_ops[2];
    op.value = nx_slice_of("v", 1);
    ck_assert_int_eq(nx_op_encode(&writer, &op), -EINVAL);
    ck_assert_uint_eq(writer.used, 0);
    ck_assert(!writer.full);
    free(buf);
    free(big);
}
END_TEST

START_TEST(the_largest_operation_is_read_back)
{
    uint8_t *data = malloc(NX_MAX_VALUE);
    uint8_t *frame = malloc(NX_ENTRY_MAX_FRAME);
    struct nx_writer writer = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, NX_ENTRY_MAX_OPS_LENGTH);
    struct nx_op op = {.kind = NX_OP_PUT, .flags = NX_OP_HAS_EXPIRY, .expires_at = UINT64_MAX};
    struct nx_entry_header header = {.offset = UINT64_MAX, .epoch = UINT64_MAX, .op_count = 1};
    struct nx_op again;
    uint32_t crc;

    ck_assert_ptr_nonnull(data);
    ck_assert_ptr_nonnull(frame);
    memset(data, 0x5A, NX_MAX_VALUE);
    op.key = nx_slice_of(data, NX_MAX_KEY);
    op.value = nx_slice_of(data, NX_MAX_VALUE);
    ck_assert_int_eq(nx_op_encode(&writer, &op), 0);
    header.ops_length = writer.used;
    crc = nx_entry_finish(frame, &header);
    ck_assert_int_eq(nx_entry_decode(frame, nx_entry_frame_size(writer.used), true, &header), 0);
    ck_assert_uint_eq(header.crc, crc);
    ck_assert_int_eq(nx_entry_validate_ops(&header), 0);
    ck_assert_int_eq(nx_op_decode_at(header.ops, header.ops_length, &again), 0);
    assert_same_op(&again, &op);
    free(frame);
    free(data);
}
END_TEST

START_TEST(as_many_operations_as_may_be_are_read_back)
{
    static const size_t size = NX_OP_HEADER + 4 + 4;
    uint8_t *ops = malloc((NX_MAX_OPS + 1) * size);
    struct nx_writer writer = nx_writer_of(ops, (NX_MAX_OPS + 1) * size);
    struct nx_op_iter iter;
    struct nx_op op = {.kind = NX_OP_PUT};
    uint8_t key[4];

    ck_assert_ptr_nonnull(ops);
    for (uint32_t i = 0; i <= NX_MAX_OPS; i++) {
        nx_store_u32(key, i);
        op.key = nx_slice_of(key, sizeof(key));
        op.value = op.key;
        ck_assert_int_eq(nx_op_encode(&writer, &op), 0);
    }
    ck_assert_int_eq(nx_ops_validate(ops, NX_MAX_OPS * size, NX_MAX_OPS), 0);
    ck_assert_int_eq(nx_ops_validate(ops, (NX_MAX_OPS + 1) * size, NX_MAX_OPS + 1), -EBADMSG);
    nx_op_iter_init(&iter, ops, NX_MAX_OPS * size, NX_MAX_OPS);
    for (uint32_t i = 0; i < NX_MAX_OPS; i++) {
        ck_assert_int_eq(nx_op_next(&iter, &op), 1);
        ck_assert_uint_eq(nx_load_u32(op.value.data), i);
        ck_assert_ptr_eq(iter.at, ops + i * size);
    }
    ck_assert_int_eq(nx_op_next(&iter, &op), 0);
    free(ops);
}
END_TEST

/* ---- garbage ---- */

static void assert_within(struct nx_slice slice, const uint8_t *buf, size_t n)
{
    ck_assert(slice.data >= buf && slice.data <= buf + n);
    ck_assert_uint_le(slice.length, (size_t)(buf + n - slice.data));
    (void)nx_crc32(0, slice.data, slice.length); /* reads every byte */
}

START_TEST(reading_random_bytes_as_an_operation_is_harmless)
{
    uint64_t random = 0x9E3779B97F4A7C15U;
    size_t found = 0;

    for (int round = 0; round < 30000; round++) {
        size_t n = (size_t)(random_next(&random) % 48);
        uint8_t *buf = malloc(n > 0 ? n : 1);
        struct nx_op op;

        ck_assert_ptr_nonnull(buf);
        for (size_t i = 0; i < n; i++) {
            uint64_t value = random_next(&random);

            buf[i] = (uint8_t)((value & 0x700) == 0 ? value : (i < 3 ? value & 3 : 0));
        }
        if (nx_op_decode_at(buf, n, &op) == 0) {
            assert_within(op.key, buf, n);
            assert_within(op.value, buf, n);
            found++;
        }
        free(buf);
    }
    ck_assert_uint_gt(found, 100);
}
END_TEST

START_TEST(random_changes_to_an_entry_are_refused_or_make_sense)
{
    uint64_t random = 0xD1B54A32D192ED03U;
    size_t decoded = 0;
    size_t valid = 0;

    for (int round = 0; round < 30000; round++) {
        size_t n = sizeof(golden_writes);
        uint8_t *frame = exact_copy(golden_writes, n);
        struct nx_entry_header header;

        for (uint64_t i = random_next(&random) % 3; i < 3; i++) {
            size_t at = NX_FRAME_HEADER + (size_t)(random_next(&random) % (n - NX_FRAME_HEADER));

            frame[at] = (uint8_t)(random_next(&random) & 0x0F);
        }
        if (nx_entry_decode(frame, n, false, &header) == 0) {
            decoded++;
            valid += nx_entry_validate_ops(&header) == 0 ? 1 : 0;
        }
        free(frame);
    }
    ck_assert_uint_gt(decoded, 1000);
    ck_assert_uint_gt(valid, 1000);
    ck_assert_uint_lt(valid, decoded);
}
END_TEST

static Suite *entry_suite(void)
{
    Suite *suite = suite_create("entry");
    TCase *golden = tcase_create("golden");
    TCase *refused = tcase_create("refused");
    TCase *limits = tcase_create("limits");
    TCase *garbage = tcase_create("garbage");

    tcase_add_test(golden, an_entry_is_built_as_the_golden_bytes);
    tcase_add_test(golden, an_epoch_entry_is_built_as_the_golden_bytes);
    tcase_add_test(golden, an_entry_is_also_the_wire_message);
    tcase_add_test(golden, the_golden_entry_is_read_back);
    tcase_add_test(golden, the_golden_epoch_is_read_back);
    suite_add_tcase(suite, golden);

    tcase_add_test(refused, a_frame_cut_anywhere_is_refused);
    tcase_add_test(refused, bytes_after_the_frame_do_not_matter);
    tcase_add_test(refused, no_flipped_bit_passes_the_crc);
    tcase_add_loop_test(refused, a_wrong_header_is_refused_in_spite_of_its_crc, 0,
                        (int)(sizeof(bad_headers) / sizeof(bad_headers[0])));
    tcase_add_test(refused, lengths_that_no_entry_has_are_refused_by_the_header_alone);
    tcase_add_loop_test(refused, operations_are_what_they_may_be_or_refused, 0,
                        (int)(sizeof(ops_cases) / sizeof(ops_cases[0])));
    tcase_add_test(refused, a_failed_read_leaves_the_operation_alone);
    tcase_add_test(refused, what_no_decoder_takes_is_not_encoded);
    suite_add_tcase(suite, refused);

    tcase_add_test(limits, an_operation_needs_room_for_all_of_it);
    tcase_add_test(limits, the_largest_operation_is_read_back);
    tcase_add_test(limits, as_many_operations_as_may_be_are_read_back);
    suite_add_tcase(suite, limits);

    tcase_set_timeout(garbage, 60);
    tcase_add_test(garbage, reading_random_bytes_as_an_operation_is_harmless);
    tcase_add_test(garbage, random_changes_to_an_entry_are_refused_or_make_sense);
    suite_add_tcase(suite, garbage);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(entry_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
