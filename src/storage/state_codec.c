/* Encodes and decodes what the state holds. Runs wherever the state is read (decode) and in the
 * checkpointer (encode). */
#include "storage/state_codec.h"

#include "common/crc32.h"

#include <errno.h>

#define FIXED      9  /* offset, flags */
#define EXPIRY     12 /* expires_at, op */
#define HAS_EXPIRY 1  /* flags */

uint32_t nx_state_crc(struct nx_slice key, const void *bytes, size_t n)
{
    return nx_crc32(nx_crc32(0, key.data, key.length), bytes, n);
}

size_t nx_state_record_size(const struct nx_record *record)
{
    size_t expiry = record->expires_at != 0 ? EXPIRY : 0;

    return FIXED + expiry + record->value_length + NX_STATE_CRC;
}

void nx_state_record_encode(const struct nx_record *record, uint8_t *bytes)
{
    size_t size = nx_state_record_size(record);
    struct nx_writer writer = nx_writer_of(bytes, size);
    struct nx_slice key = nx_slice_of(record->key, record->key_length);

    nx_write_u64(&writer, record->offset);
    nx_write_u8(&writer, record->expires_at != 0 ? HAS_EXPIRY : 0);
    if (record->expires_at != 0) {
        nx_write_u64(&writer, record->expires_at);
        nx_write_u32(&writer, record->op_index);
    }
    nx_write_bytes(&writer, nx_slice_of(record->value, record->value_length));
    nx_write_u32(&writer, nx_state_crc(key, bytes, size - NX_STATE_CRC));
}

/* What stands before the value. */
static int decode_fixed(struct nx_reader *reader, struct nx_record *record)
{
    record->offset = nx_read_u64(reader);
    uint8_t flags = nx_read_u8(reader);

    if ((flags & HAS_EXPIRY) != 0) {
        record->expires_at = nx_read_u64(reader);
        record->op_index = nx_read_u32(reader);
    }
    return reader->bad || (flags & ~HAS_EXPIRY) != 0 ? -EBADMSG : 0;
}

int nx_state_record_peek(struct nx_slice bytes, struct nx_record *ret_record)
{
    struct nx_record record = {.value = NULL};
    struct nx_reader reader =
        nx_reader_of(bytes.data, bytes.length < NX_STATE_CRC ? 0 : bytes.length - NX_STATE_CRC);
    int rc = decode_fixed(&reader, &record);

    if (rc == 0) {
        record.value_length = reader.left;
        *ret_record = record;
    }
    return rc;
}

int nx_state_record_decode(struct nx_slice key, struct nx_slice bytes, struct nx_record *ret_record)
{
    struct nx_record record = {.key = key.data, .key_length = key.length};

    if (bytes.length < FIXED + NX_STATE_CRC) {
        return -EBADMSG;
    }
    size_t n = bytes.length - NX_STATE_CRC;
    struct nx_reader reader = nx_reader_of(bytes.data, n);

    if (nx_load_u32(bytes.data + n) != nx_state_crc(key, bytes.data, n)) {
        return -EBADMSG;
    }
    if (decode_fixed(&reader, &record) < 0) {
        return -EBADMSG;
    }
    record.value = reader.p;
    record.value_length = reader.left;
    *ret_record = record;
    return 0;
}

void nx_state_position_encode(const struct nx_position *position,
                              uint8_t ret_bytes[NX_STATE_POSITION])
{
    nx_store_u64(ret_bytes, position->epoch);
    nx_store_u64(ret_bytes + 8, position->offset);
    nx_store_u32(ret_bytes + 16, position->crc);
}

void nx_state_position_decode(const uint8_t bytes[NX_STATE_POSITION],
                              struct nx_position *ret_position)
{
    ret_position->epoch = nx_load_u64(bytes);
    ret_position->offset = nx_load_u64(bytes + 8);
    ret_position->crc = nx_load_u32(bytes + 16);
}
