/* Encodes and decodes records. Runs in the snapshot and restore processes; owns nothing. */
#include "snapshot/record.h"

#include "common/bytes.h"

#include <errno.h>

#define HAS_EXPIRY 1 /* flags */

size_t nx_record_size(const struct nx_record *record)
{
    size_t expiry = record->expires_at != 0 ? NX_RECORD_EXPIRY : 0;

    return NX_RECORD_HEADER + expiry + record->key_length + record->value_length;
}

void nx_record_encode(const struct nx_record *record, uint8_t *bytes)
{
    struct nx_writer writer = nx_writer_of(bytes, nx_record_size(record));

    nx_write_u64(&writer, record->offset);
    nx_write_u8(&writer, record->expires_at != 0 ? HAS_EXPIRY : 0);
    nx_write_u16(&writer, (uint16_t)record->key_length);
    nx_write_u32(&writer, (uint32_t)record->value_length);
    if (record->expires_at != 0) {
        nx_write_u64(&writer, record->expires_at);
    }
    nx_write_bytes(&writer, nx_slice_of(record->key, record->key_length));
    nx_write_bytes(&writer, nx_slice_of(record->value, record->value_length));
}

int nx_record_decode(const uint8_t *bytes, size_t n, struct nx_record *ret_record, size_t *ret_size)
{
    struct nx_reader reader = nx_reader_of(bytes, n);
    struct nx_record record = {.expires_at = 0};

    *ret_size = NX_RECORD_HEADER;
    record.offset = nx_read_u64(&reader);
    uint8_t flags = nx_read_u8(&reader);

    record.key_length = nx_read_u16(&reader);
    record.value_length = nx_read_u32(&reader);
    if (reader.bad) {
        return -EAGAIN;
    }
    if ((flags & ~HAS_EXPIRY) != 0 || record.offset == 0 || record.key_length == 0 ||
        record.key_length > NX_MAX_KEY || record.value_length > NX_MAX_VALUE) {
        return -EBADMSG;
    }
    if (flags != 0) {
        *ret_size += NX_RECORD_EXPIRY;
        record.expires_at = nx_read_u64(&reader);
    }
    *ret_size += record.key_length + record.value_length;
    record.key = nx_read_raw(&reader, record.key_length);
    record.value = nx_read_raw(&reader, record.value_length);
    if (reader.bad) {
        return -EAGAIN;
    }
    if (flags != 0 && record.expires_at == 0) {
        return -EBADMSG;
    }
    *ret_record = record;
    return 0;
}
