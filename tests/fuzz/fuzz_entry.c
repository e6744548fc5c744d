/* Entries of the log (common/entry.h): decoded, gone through, and made again. First byte: whether the CRC is made
 * right. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "common/entry.h"
#include "common/wire_frame.h"
#include "fuzz.h"

static void make_again(const uint8_t *frame, const struct nx_entry_header *header)
{
    uint8_t *copy = malloc(header->frame_length);
    struct nx_writer writer;
    struct nx_op_iter iter;
    struct nx_op op;
    struct nx_op single;

    HOLDS(copy != NULL);
    writer = nx_writer_of(copy + NX_ENTRY_HEADER_SIZE, header->ops_length);
    nx_op_iter_init(&iter, header->ops, header->ops_length, header->op_count);
    while (nx_op_next(&iter, &op) > 0) {
        HOLDS(nx_op_decode_at(iter.at, (size_t)(header->ops + header->ops_length - iter.at),
                              &single) == 0);
        HOLDS(single.kind == op.kind && single.key.length == op.key.length);
        HOLDS(nx_op_encode(&writer, &op) == 0);
    }
    HOLDS(writer.used == header->ops_length);
    HOLDS(nx_entry_finish(copy, header) == header->crc);
    HOLDS(memcmp(copy, frame, header->frame_length) == 0);
    free(copy);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nx_entry_header header;
    struct nx_entry_header peeked;
    size_t length;
    uint8_t *frame;

    if (size < 2) {
        return 0;
    }
    frame = malloc(size - 1); /* exactly, so that a byte too far is seen */
    HOLDS(frame != NULL);
    memcpy(frame, data + 1, size - 1);
    if ((data[0] & 1) != 0 && nx_entry_frame_length(frame, size - 1, &length) == 0 &&
        length <= size - 1) {
        (void)nx_frame_seal(frame, frame[0], length - NX_FRAME_OVERHEAD);
    }
    if (nx_entry_decode(frame, size - 1, true, &header) == 0) {
        HOLDS(header.frame_length <= size - 1);
        HOLDS(nx_entry_peek(frame, size - 1, &peeked) == 0 && peeked.offset == header.offset);
        if (nx_entry_validate_ops(&header) == 0) {
            make_again(frame, &header);
        }
    }
    free(frame);
    return 0;
}
