/* The wire codec: every message against bytes written by hand, the frames around them, and what
 * happens to bytes that no honest peer sends. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "common/wire.h"
#include "common/wire_frame.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(s) nx_slice_text(s)
#define RAW(s)  nx_slice_of("" s, sizeof(s) - 1)

/* The payloads as protocol.md describes them, written by hand: '|' before a field that must be
 * there, '+' before one that may be missing. The CRCs were computed by another implementation. */
struct golden {
    uint8_t type;
    const char *payload;
    uint32_t crc;
};

static const struct golden goldens[] = {
    {NX_MSG_HELLO,
     "00000000 | 0200000000000000 7231 | 0807060504030201 | 01000000 +0100000000000000 63"
     "+0300000000000000 +DDCCBBAA +0200000000000000 7430 +0300000000000000 683A31"
     "+0300000000000000 613A32 +0100000000000000 73 +09000000 +0200000000000000 EE01"
     "+0300000000000000 434C4D",
     0xF96F5350},
    {NX_MSG_WELCOME,
     "01000000 | 0200000000000000 6D31 | 0A00000000000000 | 01 +0100000000000000 63"
     "+0400000000000000 +E8030000 +0900000000000000 +0300000000000000 683A31 +01"
     "+0200000000000000 EE01",
     0x6ABB6FD5},
    {NX_MSG_PING,
     "02000000 | 00E40B5402000000 +0500000000000000 +0400000000000000 +01E40B5402000000",
     0xD848D7DE},
    {NX_MSG_PONG, "03000000 | 00E40B5402000000", 0x731671FC},
    {NX_MSG_WAL_ENTRY, "04000000 | 0700000000000000 | 0200000000000000 | 0102030405", 0xD9E0C033},
    {NX_MSG_WAL_ACK, "05000000 | 0700000000000000 | 01 +0900000000000000 +0600000000000000",
     0x1002D449},
    {NX_MSG_REQUEST_SNAPSHOT, "06000000 | 0200000000000000 7231", 0x4603163D},
    {NX_MSG_SNAPSHOT_META,
     "07000000 | 0200000000000000 7331 | 0000000001000000 | 02000000 | EFBEADDE"
     "| 0700000000000000 +0300000000000000",
     0xE2D7778F},
    {NX_MSG_SNAPSHOT_CHUNK,
     "08000000 | 0200000000000000 7331 | 01000000 | 0300000000000000 00FF10 | 78563412",
     0xB3415EDB},
    {NX_MSG_SNAPSHOT_COMPLETE,
     "09000000 | 0200000000000000 7331 | 00 +0000000001000000 +02000000 +EFBEADDE", 0x7163F8E7},
    {NX_MSG_ERROR, "0A000000 | 06000000 | 0900000000000000 626164206672616D65", 0x3088DD34},
};

#define GOLDENS (sizeof(goldens) / sizeof(goldens[0]))

/* The messages that those bytes are. */
static const struct nx_msg_hello golden_hello = {
    .replica_id = {(const uint8_t *)"r1", 2},
    .last_wal_offset = 0x0102030405060708,
    .protocol_version = 1,
    .cluster_id = {(const uint8_t *)"c", 1},
    .last_epoch = 3,
    .last_crc = 0xAABBCCDD,
    .token = {(const uint8_t *)"t0", 2},
    .http_addr = {(const uint8_t *)"h:1", 3},
    .advertised_addr = {(const uint8_t *)"a:2", 3},
    .resume_snapshot_id = {(const uint8_t *)"s", 1},
    .resume_chunk = 9,
    .epochs = {(const uint8_t *)"\xEE\x01", 2},
    .claim = {(const uint8_t *)"CLM", 3},
};
static const struct nx_msg_welcome golden_welcome = {
    .master_id = {(const uint8_t *)"m1", 2},
    .current_wal_offset = 10,
    .requires_full_sync = true,
    .cluster_id = {(const uint8_t *)"c", 1},
    .epoch = 4,
    .heartbeat_ms = 1000,
    .quorum_offset = 9,
    .http_addr = {(const uint8_t *)"h:1", 3},
    .mode = 1,
    .epochs = {(const uint8_t *)"\xEE\x01", 2},
};
static const struct nx_msg_ping golden_ping = {
    .timestamp = 10000000000,
    .current_wal_offset = 5,
    .quorum_offset = 4,
    .log_clock = 10000000001,
};
static const struct nx_msg_pong golden_pong = {.timestamp = 10000000000};
static const struct nx_msg_wal_entry golden_wal_entry = {
    .offset = 7,
    .epoch = 2,
    .entry = {(const uint8_t *)"\1\2\3\4\5", 5},
};
static const struct nx_msg_wal_ack golden_wal_ack = {
    .offset = 7,
    .success = true,
    .received = 9,
    .applied = 6,
};
static const struct nx_msg_request_snapshot golden_request_snapshot = {
    .replica_id = {(const uint8_t *)"r1", 2},
};
static const struct nx_msg_snapshot_meta golden_snapshot_meta = {
    .snapshot_id = {(const uint8_t *)"s1", 2},
    .total_size = (uint64_t)1 << 32,
    .chunk_count = 2,
    .checksum = 0xDEADBEEF,
    .wal_offset = 7,
    .epoch = 3,
};
static const struct nx_msg_snapshot_chunk golden_snapshot_chunk = {
    .snapshot_id = {(const uint8_t *)"s1", 2},
    .chunk_index = 1,
    .data = {(const uint8_t *)"\x00\xFF\x10", 3},
    .checksum = 0x12345678,
};
static const struct nx_msg_snapshot_complete golden_snapshot_complete = {
    .snapshot_id = {(const uint8_t *)"s1", 2},
    .success = false,
    .total_size = (uint64_t)1 << 32,
    .chunk_count = 2,
    .checksum = 0xDEADBEEF,
};
static const struct nx_msg_error golden_error = {
    .code = NX_WIRE_ERROR_BAD_FRAME,
    .message = {(const uint8_t *)"bad frame", 9},
};

/* ---- any message, by its type ---- */

union any {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    struct nx_msg_##name name;
#include "common/wire_messages.def"
};

static int decode_any(uint8_t number, const uint8_t *payload, size_t n, union any *ret_any)
{
    switch (number) {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    case type:                                                               \
        return nx_wire_decode_##name(payload, n, &ret_any->name);
#include "common/wire_messages.def"
    default:
        return -ENOENT;
    }
}

static int encode_any(uint8_t number,
                      const union any *any,
                      uint8_t *buf,
                      size_t cap,
                      size_t *ret_length)
{
    switch (number) {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    case type:                                                               \
        return nx_wire_encode_##name(&any->name, buf, cap, ret_length);
#include "common/wire_messages.def"
    default:
        return -ENOENT;
    }
}

static size_t size_any(uint8_t number, const union any *any)
{
    switch (number) {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    case type:                                                               \
        return nx_wire_size_##name(&any->name);
#include "common/wire_messages.def"
    default:
        return 0;
    }
}

static void golden_message(uint8_t number, union any *ret_any)
{
    memset(ret_any, 0, sizeof(*ret_any));
    switch (number) {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    case type:                                                               \
        ret_any->name = golden_##name;                                       \
        break;
#include "common/wire_messages.def"
    default:
        ck_abort_msg("no type %u", (unsigned)number);
    }
}

/* ---- bytes of a golden ---- */

#define GOLDEN_MAX 256

struct bytes {
    uint8_t frame[GOLDEN_MAX];
    size_t length; /* of the frame */
    uint8_t *payload;
    size_t payload_length;
    bool may_end[GOLDEN_MAX]; /* payloads of this length are whole ones of an older peer */
};

static uint8_t hex_digit(char c)
{
    const char *digits = "0123456789ABCDEF";
    const char *at = strchr(digits, c);

    ck_assert_msg(at != NULL, "not a hex digit: %c", c);
    return (uint8_t)(at - digits);
}

/* Built by hand too, not by the code under test. */
static void golden_bytes(const struct golden *golden, struct bytes *ret)
{
    size_t n = 0;

    memset(ret, 0, sizeof(*ret));
    ret->payload = ret->frame + 5;
    for (const char *p = golden->payload; *p != '\0'; p++) {
        if (*p == '+') {
            ret->may_end[n] = true;
        } else if (*p != '|' && *p != ' ') {
            ret->payload[n++] = (uint8_t)(hex_digit(p[0]) << 4 | hex_digit(p[1]));
            p++;
        }
        ck_assert_uint_lt(n, GOLDEN_MAX - 9);
    }
    ret->may_end[n] = true;
    ret->payload_length = n;
    ret->length = n + 9;
    ret->frame[0] = golden->type;
    ret->frame[1] = (uint8_t)n;
    for (size_t i = 0; i < 4; i++) {
        ret->payload[n + i] = (uint8_t)(golden->crc >> (8 * i));
    }
}

/* A copy in memory of exactly its size, so that a sanitizer sees one byte too many. */
static uint8_t *exact_copy(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, data, n);
    return copy;
}

static enum nx_wire_side sender_of(uint8_t number)
{
    switch (number) {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    case type:                                                               \
        return NX_WIRE_##sender;
#include "common/wire_messages.def"
    default:
        break;
    }
    ck_abort_msg("no type %u", (unsigned)number);
}

static enum nx_wire_phase phase_of(uint8_t number)
{
    switch (number) {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    case type:                                                               \
        return NX_WIRE_##phase;
#include "common/wire_messages.def"
    default:
        break;
    }
    ck_abort_msg("no type %u", (unsigned)number);
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- bytes.h and crc32.h ---- */

START_TEST(numbers_are_little_endian_at_any_alignment)
{
    uint8_t bytes[9] = {0xEE, 1, 2, 3, 4, 5, 6, 7, 8};

    ck_assert_uint_eq(nx_load_u16(bytes + 1), 0x0201);
    ck_assert_uint_eq(nx_load_u32(bytes + 1), 0x04030201);
    ck_assert_uint_eq(nx_load_u64(bytes + 1), 0x0807060504030201);
    nx_store_u16(bytes + 1, 0xA1A2);
    nx_store_u32(bytes + 3, 0xB1B2B3B4);
    ck_assert_mem_eq(bytes, "\xEE\xA2\xA1\xB4\xB3\xB2\xB1\x07\x08", 9);
    nx_store_u64(bytes + 1, 0xC1C2C3C4C5C6C7C8);
    ck_assert_mem_eq(bytes, "\xEE\xC8\xC7\xC6\xC5\xC4\xC3\xC2\xC1", 9);
}
END_TEST

START_TEST(a_reader_takes_all_or_nothing_and_stays_bad)
{
    const uint8_t bytes[] = {1, 2, 0, 3, 0, 0, 0};
    struct nx_reader reader = nx_reader_of(bytes, sizeof(bytes));

    ck_assert_uint_eq(nx_read_u8(&reader), 1);
    ck_assert_uint_eq(nx_read_u16(&reader), 2);
    ck_assert_uint_eq(nx_read_u64(&reader), 0);
    ck_assert(reader.bad);
    ck_assert_uint_eq(reader.left, 4);
    ck_assert_uint_eq(nx_read_u32(&reader), 0);
    ck_assert_uint_eq(nx_read_bytes(&reader, 1).length, 0);
    ck_assert_uint_eq(reader.left, 4);
}
END_TEST

START_TEST(a_reader_refuses_a_bool_of_two_and_a_slice_beyond_the_end)
{
    const uint8_t bytes[] = {2, 3, 0, 0, 0, 0, 0, 0, 0, 'a', 'b'};
    struct nx_reader reader = nx_reader_of(bytes, 1);

    ck_assert(!nx_read_bool(&reader));
    ck_assert(reader.bad);
    reader = nx_reader_of(bytes + 1, sizeof(bytes) - 1);
    ck_assert_ptr_null(nx_read_slice(&reader).data);
    ck_assert(reader.bad);
    reader = nx_reader_of(NULL, 0);
    ck_assert_uint_eq(nx_read_bytes(&reader, 0).length, 0);
    ck_assert(!reader.bad);
}
END_TEST

START_TEST(a_writer_writes_all_or_nothing_and_stays_full)
{
    uint8_t bytes[8] = {0, 0, 0, 0, 0, 0, 0, 0xEE};
    struct nx_writer writer = nx_writer_of(bytes, 7);

    nx_write_u8(&writer, 1);
    nx_write_u16(&writer, 2);
    nx_write_u32(&writer, 3);
    ck_assert(!writer.full);
    nx_write_u8(&writer, 4);
    ck_assert(writer.full);
    ck_assert_mem_eq(bytes, "\1\2\0\3\0\0\0\xEE", 8);

    writer = nx_writer_of(bytes, 7);
    nx_write_u64(&writer, 5);
    ck_assert(writer.full);
    nx_write_u8(&writer, 6);
    ck_assert_uint_eq(writer.used, 0);
    ck_assert_uint_eq(bytes[0], 1);

    writer = nx_writer_of(NULL, 0);
    nx_write_bytes(&writer, nx_slice_of(NULL, 0));
    ck_assert(!writer.full);
}
END_TEST

START_TEST(slices_are_equal_by_their_bytes)
{
    ck_assert(nx_slice_equal(TEXT("ab"), nx_slice_of("abc", 2)));
    ck_assert(!nx_slice_equal(TEXT("ab"), TEXT("ac")));
    ck_assert(!nx_slice_equal(TEXT("ab"), TEXT("abc")));
    ck_assert(nx_slice_equal(nx_slice_of(NULL, 0), TEXT("")));
}
END_TEST

START_TEST(the_crc_is_the_one_of_zlib)
{
    const char *text = "123456789";
    uint32_t crc;

    ck_assert_uint_eq(nx_crc32(0, text, 9), 0xCBF43926);
    crc = nx_crc32(0, text, 4);
    ck_assert_uint_eq(nx_crc32(crc, text + 4, 5), 0xCBF43926);
    ck_assert_uint_eq(nx_crc32(crc, NULL, 0), crc);
    ck_assert_uint_eq(nx_crc32(0, NULL, 0), 0);
}
END_TEST

/* ---- messages ---- */

START_TEST(every_message_has_a_golden_and_is_encoded_as_it_says)
{
    const struct golden *golden = &goldens[_i];
    struct bytes bytes;
    union any any;
    uint8_t buf[GOLDEN_MAX];
    size_t length = 0;

    golden_bytes(golden, &bytes);
    golden_message(golden->type, &any);
    ck_assert_int_eq(encode_any(golden->type, &any, buf, sizeof(buf), &length), 0);
    ck_assert_uint_eq(length, bytes.length);
    ck_assert_mem_eq(buf, bytes.frame, length);
    ck_assert_uint_eq(size_any(golden->type, &any), length);
}
END_TEST

START_TEST(no_message_is_without_golden)
{
    size_t types = 0;

    for (unsigned type = 0; type <= UINT8_MAX; type++) {
        size_t found = 0;

        types += nx_wire_type_name((uint8_t)type) != NULL ? 1 : 0;
        for (size_t i = 0; i < GOLDENS; i++) {
            found += goldens[i].type == type ? 1 : 0;
        }
        ck_assert_uint_eq(found, nx_wire_type_name((uint8_t)type) != NULL ? 1 : 0);
    }
    ck_assert_uint_eq(types, 11);
}
END_TEST

START_TEST(a_frame_is_decoded_and_encoded_to_the_same_bytes)
{
    const struct golden *golden = &goldens[_i];
    struct bytes bytes;
    struct nx_frame frame;
    union any any;
    uint8_t buf[GOLDEN_MAX];
    size_t length = 0;

    golden_bytes(golden, &bytes);
    ck_assert_int_eq(nx_frame_peek(bytes.frame, bytes.length, sender_of(golden->type),
                                   phase_of(golden->type), &frame),
                     0);
    ck_assert_uint_eq(frame.type, golden->type);
    ck_assert_uint_eq(frame.crc, golden->crc);
    ck_assert_int_eq(decode_any(frame.type, frame.payload, frame.payload_length, &any), 0);
    ck_assert_int_eq(encode_any(frame.type, &any, buf, sizeof(buf), &length), 0);
    ck_assert_uint_eq(length, bytes.length);
    ck_assert_mem_eq(buf, bytes.frame, length);
}
END_TEST

START_TEST(fields_come_out_where_they_belong)
{
    struct bytes bytes;
    struct nx_msg_hello hello;
    struct nx_msg_snapshot_chunk chunk;

    golden_bytes(&goldens[0], &bytes);
    ck_assert_int_eq(nx_wire_decode_hello(bytes.payload, bytes.payload_length, &hello), 0);
    ck_assert(nx_slice_equal(hello.replica_id, TEXT("r1")));
    ck_assert_ptr_eq(hello.replica_id.data, bytes.payload + 12);
    ck_assert_uint_eq(hello.last_wal_offset, 0x0102030405060708);
    ck_assert_uint_eq(hello.protocol_version, 1);
    ck_assert(nx_slice_equal(hello.cluster_id, TEXT("c")));
    ck_assert_uint_eq(hello.last_epoch, 3);
    ck_assert_uint_eq(hello.last_crc, 0xAABBCCDD);
    ck_assert(nx_slice_equal(hello.token, TEXT("t0")));
    ck_assert(nx_slice_equal(hello.http_addr, TEXT("h:1")));
    ck_assert(nx_slice_equal(hello.advertised_addr, TEXT("a:2")));
    ck_assert(nx_slice_equal(hello.resume_snapshot_id, TEXT("s")));
    ck_assert_uint_eq(hello.resume_chunk, 9);
    ck_assert(nx_slice_equal(hello.epochs, RAW("\xEE\x01")));
    ck_assert(nx_slice_equal(hello.claim, TEXT("CLM")));

    golden_bytes(&goldens[8], &bytes);
    ck_assert_int_eq(nx_wire_decode_snapshot_chunk(bytes.payload, bytes.payload_length, &chunk), 0);
    ck_assert_uint_eq(chunk.chunk_index, 1);
    ck_assert(nx_slice_equal(chunk.data, RAW("\x00\xFF\x10")));
    ck_assert_uint_eq(chunk.checksum, 0x12345678);
}
END_TEST

/* A payload of the guide's original fields only: what a peer of the reference implementation
 * sends. */
static void older_peer(size_t index, union any *ret_any)
{
    struct bytes bytes;
    size_t n = 0;

    golden_bytes(&goldens[index], &bytes);
    while (!bytes.may_end[n]) {
        n++;
    }
    memset(ret_any, 0xA5, sizeof(*ret_any));
    ck_assert_int_eq(decode_any(goldens[index].type, bytes.payload, n, ret_any), 0);
}

START_TEST(missing_fields_take_their_defaults)
{
    union any any;

    older_peer(0, &any);
    ck_assert_uint_eq(any.hello.protocol_version, 1);
    ck_assert_uint_eq(any.hello.cluster_id.length, 0);
    ck_assert_uint_eq(any.hello.last_epoch, 0);
    ck_assert_uint_eq(any.hello.last_crc, 0);
    ck_assert_uint_eq(any.hello.token.length, 0);
    ck_assert_uint_eq(any.hello.http_addr.length, 0);
    ck_assert_uint_eq(any.hello.advertised_addr.length, 0);
    ck_assert_uint_eq(any.hello.resume_snapshot_id.length, 0);
    ck_assert_uint_eq(any.hello.resume_chunk, 0);
    ck_assert_uint_eq(any.hello.epochs.length, 0);
    ck_assert_uint_eq(any.hello.claim.length, 0);

    older_peer(1, &any);
    ck_assert(any.welcome.requires_full_sync);
    ck_assert_uint_eq(any.welcome.cluster_id.length, 0);
    ck_assert_uint_eq(any.welcome.epoch, 0);
    ck_assert_uint_eq(any.welcome.heartbeat_ms, 5000);
    ck_assert_uint_eq(any.welcome.quorum_offset, 0);
    ck_assert_uint_eq(any.welcome.http_addr.length, 0);
    ck_assert_uint_eq(any.welcome.mode, 0);
    ck_assert_uint_eq(any.welcome.epochs.length, 0);

    older_peer(2, &any);
    ck_assert_uint_eq(any.ping.timestamp, 10000000000);
    ck_assert_uint_eq(any.ping.current_wal_offset, 0);
    ck_assert_uint_eq(any.ping.quorum_offset, 0);
    ck_assert_uint_eq(any.ping.log_clock, 0);

    older_peer(5, &any);
    ck_assert_uint_eq(any.wal_ack.offset, 7);
    ck_assert_uint_eq(any.wal_ack.received, 7);
    ck_assert_uint_eq(any.wal_ack.applied, 7);

    older_peer(7, &any);
    ck_assert_uint_eq(any.snapshot_meta.wal_offset, 7);
    ck_assert_uint_eq(any.snapshot_meta.epoch, 0);

    older_peer(9, &any);
    ck_assert(!any.snapshot_complete.success);
    ck_assert_uint_eq(any.snapshot_complete.total_size, 0);
    ck_assert_uint_eq(any.snapshot_complete.chunk_count, 0);
    ck_assert_uint_eq(any.snapshot_complete.checksum, 0);
}
END_TEST

START_TEST(a_payload_may_end_before_an_addition_and_nowhere_else)
{
    const struct golden *golden = &goldens[_i];
    bool rest = golden->type == NX_MSG_WAL_ENTRY;
    struct bytes bytes;

    golden_bytes(golden, &bytes);
    for (size_t n = 0; n <= bytes.payload_length; n++) {
        bool whole = bytes.may_end[n] || (rest && n >= 4 + 8 + 8);
        uint8_t *payload = exact_copy(bytes.payload, n);
        union any any;
        union any before;

        memset(&any, 0xA5, sizeof(any));
        before = any;
        ck_assert_msg(decode_any(golden->type, payload, n, &any) == (whole ? 0 : -EBADMSG),
                      "type 0x%02X cut to %zu bytes", (unsigned)golden->type, n);
        if (!whole) {
            ck_assert_mem_eq(&any, &before, sizeof(any));
        }
        free(payload);
    }
}
END_TEST

START_TEST(bytes_behind_the_last_field_are_ignored)
{
    const struct golden *golden = &goldens[_i];
    struct bytes bytes;
    union any any;
    uint8_t buf[GOLDEN_MAX];
    size_t length = 0;

    if (golden->type == NX_MSG_WAL_ENTRY) {
        return; /* its last field is all the rest; the entry decoder refuses what is too much */
    }
    golden_bytes(golden, &bytes);
    ck_assert_int_eq(decode_any(golden->type, bytes.payload, bytes.payload_length + 3, &any), 0);
    ck_assert_int_eq(encode_any(golden->type, &any, buf, sizeof(buf), &length), 0);
    ck_assert_uint_eq(length, bytes.length);
    ck_assert_mem_eq(buf, bytes.frame, length);
}
END_TEST

START_TEST(a_payload_under_another_variant_is_refused)
{
    const struct golden *golden = &goldens[_i];
    struct bytes bytes;
    union any any;

    golden_bytes(golden, &bytes);
    for (size_t i = 0; i < 4; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes.payload[i] ^= (uint8_t)(1U << bit);
            ck_assert_int_eq(decode_any(golden->type, bytes.payload, bytes.payload_length, &any),
                             -EBADMSG);
            bytes.payload[i] ^= (uint8_t)(1U << bit);
        }
    }
}
END_TEST

START_TEST(absurd_lengths_are_refused)
{
    static const uint64_t lengths[] = {10,
                                       UINT32_MAX,
                                       (uint64_t)1 << 32,
                                       (uint64_t)INT64_MAX,
                                       (uint64_t)1 << 63,
                                       UINT64_MAX - 20,
                                       UINT64_MAX};
    struct bytes bytes;
    union any any;

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        golden_bytes(&goldens[10], &bytes);
        nx_store_u64(bytes.payload + 8, lengths[i]);
        ck_assert_int_eq(decode_any(NX_MSG_ERROR, bytes.payload, bytes.payload_length, &any),
                         -EBADMSG);
        golden_bytes(&goldens[8], &bytes);
        nx_store_u64(bytes.payload + 18, lengths[i]);
        ck_assert_int_eq(
            decode_any(NX_MSG_SNAPSHOT_CHUNK, bytes.payload, bytes.payload_length, &any), -EBADMSG);
    }
}
END_TEST

START_TEST(a_bool_is_zero_or_one)
{
    struct bytes bytes;
    union any any;

    golden_bytes(&goldens[5], &bytes);
    for (unsigned value = 0; value <= UINT8_MAX; value++) {
        bytes.payload[12] = (uint8_t)value;
        ck_assert_int_eq(decode_any(NX_MSG_WAL_ACK, bytes.payload, bytes.payload_length, &any),
                         value <= 1 ? 0 : -EBADMSG);
    }
}
END_TEST

struct text_case {
    const char *bytes;
    size_t length;
    bool fine;
};
#define TEXT_CASE(s, is_fine)        \
    {                                \
        "" s, sizeof(s) - 1, is_fine \
    }

static const struct text_case text_cases[] = {
    TEXT_CASE("", true),
    TEXT_CASE("plain \x01 \x7F", true),
    TEXT_CASE("\xC2\x80 \xDF\xBF", true),
    TEXT_CASE("\xE0\xA0\x80 \xEC\xBF\xBF \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF", true),
    TEXT_CASE("\xF0\x90\x80\x80 \xF3\xBF\xBF\xBF \xF4\x8F\xBF\xBF", true),
    TEXT_CASE("a\0b", false),
    TEXT_CASE("\0", false),
    TEXT_CASE("\x80", false),
    TEXT_CASE("\xC0\x80", false),         /* overlong NUL */
    TEXT_CASE("\xC1\xBF", false),         /* overlong */
    TEXT_CASE("\xE0\x9F\xBF", false),     /* overlong */
    TEXT_CASE("\xED\xA0\x80", false),     /* surrogate */
    TEXT_CASE("\xF0\x8F\xBF\xBF", false), /* overlong */
    TEXT_CASE("\xF4\x90\x80\x80", false), /* above U+10FFFF */
    TEXT_CASE("\xF5\x80\x80\x80", false),
    TEXT_CASE("\xFF", false),
    TEXT_CASE("\xC3", false), /* cut short */
    TEXT_CASE("\xE2\x82", false),
    TEXT_CASE("\xF0\x9F\x98", false),
    TEXT_CASE("\xC3(", false),
    TEXT_CASE("\xE2\x82(", false),
    TEXT_CASE("\xF0\x9F\x98(", false),
};

START_TEST(strings_are_utf8_without_nul)
{
    const struct text_case *text = &text_cases[_i];
    struct nx_slice slice = nx_slice_of(text->bytes, text->length);
    struct nx_msg_error error = {.code = 6, .message = slice};
    struct nx_msg_hello hello = golden_hello;
    uint8_t payload[64];
    uint8_t buf[512];
    struct nx_writer writer = nx_writer_of(payload, sizeof(payload));
    uint8_t *copy;
    size_t length = 0;

    ck_assert_int_eq(nx_wire_encode_error(&error, buf, sizeof(buf), &length),
                     text->fine ? 0 : -EINVAL);
    hello.token = slice;
    ck_assert_int_eq(nx_wire_encode_hello(&hello, buf, sizeof(buf), &length),
                     text->fine ? 0 : -EINVAL);
    hello.token = TEXT("");
    hello.claim = slice; /* bytes may be anything */
    ck_assert_int_eq(nx_wire_encode_hello(&hello, buf, sizeof(buf), &length), 0);

    nx_write_u32(&writer, 10);
    nx_write_u32(&writer, 6);
    nx_write_slice(&writer, slice);
    copy = exact_copy(payload, writer.used);
    ck_assert_int_eq(nx_wire_decode_error(copy, writer.used, &error), text->fine ? 0 : -EBADMSG);
    free(copy);
}
END_TEST

START_TEST(encoding_needs_room_for_all_of_it)
{
    const struct golden *golden = &goldens[_i];
    struct bytes bytes;
    union any any;

    golden_bytes(golden, &bytes);
    golden_message(golden->type, &any);
    for (size_t cap = 0; cap <= bytes.length; cap++) {
        uint8_t *buf = malloc(cap + 1);
        size_t length = 12345;
        int rc;

        ck_assert_ptr_nonnull(buf);
        memset(buf, 0xEE, cap + 1);
        rc = encode_any(golden->type, &any, buf, cap, &length);
        ck_assert_int_eq(rc, cap < bytes.length ? -ENOBUFS : 0);
        ck_assert_uint_eq(length, cap < bytes.length ? 12345 : bytes.length);
        ck_assert_uint_eq(buf[cap], 0xEE);
        free(buf);
    }
}
END_TEST

START_TEST(what_no_peer_would_take_is_not_encoded)
{
    size_t cap = NX_WIRE_MAX_PAYLOAD + 4096;
    uint8_t *buf = malloc(cap);
    uint8_t *data = calloc(1, NX_WIRE_MAX_PAYLOAD);
    struct nx_msg_snapshot_chunk chunk = golden_snapshot_chunk;
    struct nx_msg_wal_entry entry = golden_wal_entry;
    struct nx_msg_hello hello = golden_hello;
    size_t fixed;
    size_t length = 0;

    ck_assert_ptr_nonnull(buf);
    ck_assert_ptr_nonnull(data);
    chunk.data = nx_slice_of(data, 0);
    fixed = nx_wire_size_snapshot_chunk(&chunk) - NX_FRAME_OVERHEAD;
    chunk.data.length = NX_WIRE_MAX_PAYLOAD - fixed;
    ck_assert_int_eq(nx_wire_encode_snapshot_chunk(&chunk, buf, cap, &length), 0);
    ck_assert_uint_eq(length, NX_WIRE_MAX_PAYLOAD + NX_FRAME_OVERHEAD);
    chunk.data.length++;
    ck_assert_int_eq(nx_wire_encode_snapshot_chunk(&chunk, buf, cap, &length), -EMSGSIZE);

    entry.entry = nx_slice_of(data, NX_ENTRY_MAX_FRAME - NX_FRAME_OVERHEAD - 20);
    ck_assert_int_eq(nx_wire_encode_wal_entry(&entry, buf, cap, &length), 0);
    ck_assert_uint_eq(length, NX_ENTRY_MAX_FRAME);
    entry.entry.length++;
    ck_assert_int_eq(nx_wire_encode_wal_entry(&entry, buf, cap, &length), -EMSGSIZE);

    hello.epochs = nx_slice_of(data, (size_t)NX_WIRE_MAX_EPOCHS * NX_WIRE_EPOCH_SIZE);
    ck_assert_int_eq(nx_wire_encode_hello(&hello, buf, cap, &length), 0);
    hello.epochs.length = NX_WIRE_MAX_PAYLOAD_HELLO;
    ck_assert_int_eq(nx_wire_encode_hello(&hello, buf, cap, &length), -EMSGSIZE);
    free(data);
    free(buf);
}
END_TEST

/* ---- frames ---- */

START_TEST(a_frame_says_how_much_it_needs)
{
    const struct golden *golden = &goldens[_i];
    struct bytes bytes;
    struct nx_frame frame;

    golden_bytes(golden, &bytes);
    for (size_t n = 0; n < bytes.length; n++) {
        uint8_t *buf = exact_copy(bytes.frame, n);

        ck_assert_int_eq(
            nx_frame_peek(buf, n, sender_of(golden->type), phase_of(golden->type), &frame),
            -EAGAIN);
        ck_assert_uint_eq(frame.need, n < 5 ? 5 - n : bytes.length - n);
        free(buf);
    }
    ck_assert_int_eq(nx_frame_peek(bytes.frame, sizeof(bytes.frame), sender_of(golden->type),
                                   phase_of(golden->type), &frame),
                     0);
    ck_assert_ptr_eq(frame.bytes, bytes.frame);
    ck_assert_ptr_eq(frame.payload, bytes.payload);
    ck_assert_uint_eq(frame.payload_length, bytes.payload_length);
    ck_assert_uint_eq(frame.length, bytes.length);
}
END_TEST

START_TEST(no_flipped_bit_passes)
{
    const struct golden *golden = &goldens[_i];
    struct bytes bytes;
    struct nx_frame frame;

    golden_bytes(golden, &bytes);
    for (size_t bit = 0; bit < 8 * bytes.length; bit++) {
        uint8_t *buf = exact_copy(bytes.frame, bytes.length);

        buf[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        ck_assert_int_ne(nx_frame_peek(buf, bytes.length, NX_WIRE_EITHER, NX_WIRE_ANY, &frame), 0);
        free(buf);
    }
}
END_TEST

static enum nx_frame_fault fault_of(uint8_t type,
                                    uint32_t length,
                                    enum nx_wire_side sender,
                                    enum nx_wire_phase phase)
{
    uint8_t header[5] = {type, 0, 0, 0, 0};
    struct nx_frame frame;
    int rc;

    nx_store_u32(header + 1, length);
    rc = nx_frame_peek(header, sizeof(header), sender, phase, &frame);
    ck_assert_int_eq(rc, frame.fault == NX_FRAME_FINE ? -EAGAIN : -EBADMSG);
    return frame.fault;
}

START_TEST(unknown_types_are_refused)
{
    for (unsigned type = 0; type <= UINT8_MAX; type++) {
        enum nx_frame_fault fault = fault_of((uint8_t)type, 4, NX_WIRE_EITHER, NX_WIRE_ANY);
        bool known = false;

        for (size_t i = 0; i < GOLDENS; i++) {
            known = known || goldens[i].type == type;
        }
        ck_assert_int_eq(fault, known ? NX_FRAME_FINE : NX_FRAME_UNKNOWN_TYPE);
    }
}
END_TEST

/* Who may say what, when: the conversation of protocol.md as a table. */
struct turn {
    uint8_t type;
    bool replica_handshake;
    bool master_handshake;
    bool replica_session;
    bool master_session;
    size_t limit; /* bytes of payload in the session, or in the handshake of Hello and Welcome */
};

static const struct turn turns[] = {
    {0x01, true, false, false, false, 65536},    {0x02, false, true, false, false, 65536},
    {0x10, false, false, true, true, 4096},      {0x11, false, false, true, true, 4096},
    {0x20, false, false, false, true, 16777207}, {0x21, false, false, true, false, 4096},
    {0x30, false, false, true, false, 4096},     {0x31, false, false, false, true, 4096},
    {0x32, false, false, false, true, 67108864}, {0x33, false, false, false, true, 4096},
    {0xFF, true, true, true, true, 65536},
};

static void check_turn(const struct turn *turn,
                       enum nx_wire_side side,
                       enum nx_wire_phase phase,
                       bool allowed)
{
    uint32_t limit = (uint32_t)turn->limit;
    enum nx_frame_fault fault = fault_of(turn->type, limit, side, phase);

    if (allowed) {
        ck_assert_int_eq(fault, NX_FRAME_FINE);
        ck_assert_int_eq(fault_of(turn->type, limit + 1, side, phase), NX_FRAME_TOO_LONG);
        ck_assert_int_eq(fault_of(turn->type, UINT32_MAX, side, phase), NX_FRAME_TOO_LONG);
    } else {
        ck_assert(fault == NX_FRAME_WRONG_SIDE || fault == NX_FRAME_WRONG_PHASE);
    }
}

START_TEST(each_type_has_its_sender_its_time_and_its_limit)
{
    const struct turn *turn = &turns[_i];

    check_turn(turn, NX_WIRE_REPLICA, NX_WIRE_HANDSHAKE, turn->replica_handshake);
    check_turn(turn, NX_WIRE_MASTER, NX_WIRE_HANDSHAKE, turn->master_handshake);
    check_turn(turn, NX_WIRE_REPLICA, NX_WIRE_SESSION, turn->replica_session);
    check_turn(turn, NX_WIRE_MASTER, NX_WIRE_SESSION, turn->master_session);
    ck_assert_uint_eq(nx_wire_max_payload(turn->type, NX_WIRE_SESSION), turn->limit);
    ck_assert_uint_eq(nx_wire_max_payload(turn->type, NX_WIRE_HANDSHAKE),
                      turn->limit > 65536 ? 65536 : turn->limit);
}
END_TEST

START_TEST(a_refused_frame_is_explained_with_both_numbers)
{
    uint8_t bytes[] = {0x20, 0x00, 0x2D, 0x31, 0x01};
    struct nx_frame frame;
    struct bytes golden;
    char text[128];
    char cut[8];

    ck_assert_int_eq(nx_frame_peek(bytes, 5, NX_WIRE_MASTER, NX_WIRE_SESSION, &frame), -EBADMSG);
    ck_assert_str_eq(nx_frame_fault_text(&frame, text, sizeof(text)),
                     "WalEntry with a payload of 20000000 bytes, at most 16777207 here");
    ck_assert_str_eq(nx_frame_fault_text(&frame, cut, sizeof(cut)), "WalEntr");

    (void)nx_frame_peek(bytes, 5, NX_WIRE_REPLICA, NX_WIRE_SESSION, &frame);
    ck_assert_str_eq(nx_frame_fault_text(&frame, text, sizeof(text)),
                     "WalEntry is not for this side to send");
    (void)nx_frame_peek(bytes, 5, NX_WIRE_MASTER, NX_WIRE_HANDSHAKE, &frame);
    ck_assert_str_eq(nx_frame_fault_text(&frame, text, sizeof(text)),
                     "WalEntry out of order: Hello and Welcome come first, and once");
    bytes[0] = 'G';
    (void)nx_frame_peek(bytes, 5, NX_WIRE_REPLICA, NX_WIRE_HANDSHAKE, &frame);
    ck_assert_str_eq(nx_frame_fault_text(&frame, text, sizeof(text)), "unknown message type 0x47");

    golden_bytes(&goldens[3], &golden);
    golden.frame[9] ^= 1;
    ck_assert_int_eq(
        nx_frame_peek(golden.frame, golden.length, NX_WIRE_MASTER, NX_WIRE_SESSION, &frame),
        -EBADMSG);
    ck_assert_int_eq(frame.fault, NX_FRAME_BAD_CRC);
    ck_assert_uint_eq(frame.crc, goldens[3].crc);
    ck_assert_uint_ne(frame.computed, goldens[3].crc);
    ck_assert_ptr_nonnull(strstr(nx_frame_fault_text(&frame, text, sizeof(text)),
                                 "Pong of 21 bytes with CRC 731671FC"));
}
END_TEST

START_TEST(sealing_makes_the_golden_frame)
{
    struct bytes bytes;
    uint8_t frame[GOLDEN_MAX];

    golden_bytes(&goldens[3], &bytes);
    memset(frame, 0xEE, sizeof(frame));
    memcpy(frame + 5, bytes.payload, bytes.payload_length);
    ck_assert_uint_eq(nx_frame_seal(frame, 0x11, bytes.payload_length), goldens[3].crc);
    ck_assert_mem_eq(frame, bytes.frame, bytes.length);
    ck_assert_uint_eq(frame[bytes.length], 0xEE);
}
END_TEST

/* ---- garbage ---- */

/* Reads every byte that a decoded message points to, and encodes it again. */
static void use_message(uint8_t type, const uint8_t *payload, size_t n, const union any *any)
{
    static const size_t cap = 4096;
    uint8_t *buf = malloc(cap);
    uint8_t *again = malloc(cap);
    union any second;
    char text[256];
    size_t length = 0;
    size_t length_again = 0;

    ck_assert_ptr_nonnull(buf);
    ck_assert_ptr_nonnull(again);
    ck_assert_uint_lt(strlen(nx_wire_print(type, payload, n, text, sizeof(text))), sizeof(text));
    ck_assert_int_eq(encode_any(type, any, buf, cap, &length), 0);
    ck_assert_int_eq(decode_any(type, buf + 5, length - 9, &second), 0);
    ck_assert_int_eq(encode_any(type, &second, again, cap, &length_again), 0);
    ck_assert_uint_eq(length, length_again);
    ck_assert_mem_eq(buf, again, length);
    free(again);
    free(buf);
}

START_TEST(random_changes_are_refused_or_make_sense)
{
    const struct golden *golden = &goldens[_i];
    uint64_t random = 0x9E3779B97F4A7C15U + (uint64_t)_i;
    size_t decoded = 0;
    struct bytes bytes;

    golden_bytes(golden, &bytes);
    for (int round = 0; round < 2000; round++) {
        size_t n = (size_t)(random_next(&random) % (bytes.payload_length + 1));
        uint64_t changes = random_next(&random) % 4;
        union any any;
        uint8_t *payload;

        n = (random_next(&random) & 3) == 0 ? n : bytes.payload_length;
        payload = exact_copy(bytes.payload, n);
        for (uint64_t i = 0; i < changes && n > 4; i++) {
            payload[4 + random_next(&random) % (n - 4)] = (uint8_t)random_next(&random);
        }
        if (decode_any(golden->type, payload, n, &any) == 0) {
            use_message(golden->type, payload, n, &any);
            decoded++;
        }
        free(payload);
    }
    ck_assert_uint_gt(decoded, 100);
}
END_TEST

START_TEST(random_bytes_are_never_a_frame)
{
    uint64_t random = 0xD1B54A32D192ED03U;
    struct nx_frame frame;

    for (int round = 0; round < 20000; round++) {
        size_t n = (size_t)(random_next(&random) % 64);
        uint8_t *buf = malloc(n > 0 ? n : 1);

        ck_assert_ptr_nonnull(buf);
        for (size_t i = 0; i < n; i++) {
            buf[i] = (uint8_t)random_next(&random);
        }
        if (n >= 5 && (random_next(&random) & 1) != 0) { /* a plausible header */
            buf[0] = goldens[random_next(&random) % GOLDENS].type;
            nx_store_u32(buf + 1, (uint32_t)(random_next(&random) % 64));
        }
        ck_assert_int_ne(nx_frame_peek(buf, n, NX_WIRE_EITHER, NX_WIRE_ANY, &frame), 0);
        free(buf);
    }
}
END_TEST

/* ---- printing ---- */

START_TEST(messages_print_for_the_log_without_secrets)
{
    struct bytes bytes;
    char text[512];

    golden_bytes(&goldens[0], &bytes);
    ck_assert_str_eq(
        nx_wire_print(NX_MSG_HELLO, bytes.payload, bytes.payload_length, text, sizeof(text)),
        "Hello replica_id=\"r1\" last_wal_offset=72623859790382856 protocol_version=1 "
        "cluster_id=\"c\" last_epoch=3 last_crc=2864434397 token=(set) http_addr=\"h:1\" "
        "advertised_addr=\"a:2\" resume_snapshot_id=\"s\" resume_chunk=9 epochs=(2 bytes) "
        "claim=(3 bytes)");
    golden_bytes(&goldens[5], &bytes);
    ck_assert_str_eq(
        nx_wire_print(NX_MSG_WAL_ACK, bytes.payload, bytes.payload_length, text, sizeof(text)),
        "WalAck offset=7 success=true received=9 applied=6");
    ck_assert_str_eq(nx_wire_print(NX_MSG_WAL_ACK, bytes.payload, 5, text, sizeof(text)),
                     "WalAck (unreadable, 5 bytes)");
    ck_assert_str_eq(nx_wire_print(0x77, bytes.payload, 5, text, sizeof(text)),
                     "unknown message type 0x77 (5 bytes)");
}
END_TEST

START_TEST(what_a_peer_sends_cannot_break_a_log_line)
{
    struct nx_msg_error error = {.code = 6, .message = TEXT("a\"b\\c\n\x1B[31m\xC3\xA4")};
    char longest[201];
    uint8_t buf[512];
    char text[512];
    size_t length = 0;

    ck_assert_int_eq(nx_wire_encode_error(&error, buf, sizeof(buf), &length), 0);
    ck_assert_str_eq(nx_wire_print(NX_MSG_ERROR, buf + 5, length - 9, text, sizeof(text)),
                     "Error code=6 message=\"a\\x22b\\x5Cc\\x0A\\x1B[31m\\xC3\\xA4\"");

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    error.message = TEXT(longest);
    ck_assert_int_eq(nx_wire_encode_error(&error, buf, sizeof(buf), &length), 0);
    (void)nx_wire_print(NX_MSG_ERROR, buf + 5, length - 9, text, sizeof(text));
    ck_assert_uint_eq(strlen(text), strlen("Error code=6 message=\"\"...") + 64);
    for (size_t cap = 1; cap < 100; cap++) {
        char *small = malloc(cap);

        ck_assert_ptr_nonnull(small);
        (void)nx_wire_print(NX_MSG_ERROR, buf + 5, length - 9, small, cap);
        ck_assert_uint_eq(strlen(small), cap - 1 < strlen(text) ? cap - 1 : strlen(text));
        ck_assert_mem_eq(small, text, strlen(small));
        free(small);
    }
}
END_TEST

START_TEST(error_codes_have_their_numbers_and_words)
{
    ck_assert_int_eq(NX_WIRE_ERROR_PROTOCOL_VERSION, 1);
    ck_assert_int_eq(NX_WIRE_ERROR_OTHER_CLUSTER, 2);
    ck_assert_int_eq(NX_WIRE_ERROR_NOT_AUTHORISED, 3);
    ck_assert_int_eq(NX_WIRE_ERROR_TOO_MANY_REPLICAS, 4);
    ck_assert_int_eq(NX_WIRE_ERROR_NOT_A_MASTER, 5);
    ck_assert_int_eq(NX_WIRE_ERROR_BAD_FRAME, 6);
    ck_assert_int_eq(NX_WIRE_ERROR_SNAPSHOT_FAILED, 7);
    ck_assert_int_eq(NX_WIRE_ERROR_FENCED, 8);
    ck_assert_int_eq(NX_WIRE_ERROR_SHUTTING_DOWN, 9);
    ck_assert_int_eq(NX_WIRE_ERROR_INTERNAL, 10);
    ck_assert_int_eq(NX_WIRE_ERROR_BEHIND_REPLICA, 11);
    ck_assert_str_eq(nx_wire_error_text(3), "not authorised");
    ck_assert_str_eq(nx_wire_error_text(12), "unknown error");
}
END_TEST

static Suite *wire_suite(void)
{
    Suite *suite = suite_create("wire");
    TCase *bytes = tcase_create("bytes");
    TCase *messages = tcase_create("messages");
    TCase *frames = tcase_create("frames");
    TCase *garbage = tcase_create("garbage");
    int goldens_end = (int)GOLDENS;

    tcase_add_test(bytes, numbers_are_little_endian_at_any_alignment);
    tcase_add_test(bytes, a_reader_takes_all_or_nothing_and_stays_bad);
    tcase_add_test(bytes, a_reader_refuses_a_bool_of_two_and_a_slice_beyond_the_end);
    tcase_add_test(bytes, a_writer_writes_all_or_nothing_and_stays_full);
    tcase_add_test(bytes, slices_are_equal_by_their_bytes);
    tcase_add_test(bytes, the_crc_is_the_one_of_zlib);
    suite_add_tcase(suite, bytes);

    tcase_add_test(messages, no_message_is_without_golden);
    tcase_add_loop_test(messages, every_message_has_a_golden_and_is_encoded_as_it_says, 0,
                        goldens_end);
    tcase_add_loop_test(messages, a_frame_is_decoded_and_encoded_to_the_same_bytes, 0, goldens_end);
    tcase_add_test(messages, fields_come_out_where_they_belong);
    tcase_add_test(messages, missing_fields_take_their_defaults);
    tcase_add_loop_test(messages, a_payload_may_end_before_an_addition_and_nowhere_else, 0,
                        goldens_end);
    tcase_add_loop_test(messages, bytes_behind_the_last_field_are_ignored, 0, goldens_end);
    tcase_add_loop_test(messages, a_payload_under_another_variant_is_refused, 0, goldens_end);
    tcase_add_test(messages, absurd_lengths_are_refused);
    tcase_add_test(messages, a_bool_is_zero_or_one);
    tcase_add_loop_test(messages, strings_are_utf8_without_nul, 0,
                        (int)(sizeof(text_cases) / sizeof(text_cases[0])));
    tcase_add_loop_test(messages, encoding_needs_room_for_all_of_it, 0, goldens_end);
    tcase_add_test(messages, what_no_peer_would_take_is_not_encoded);
    tcase_add_test(messages, messages_print_for_the_log_without_secrets);
    tcase_add_test(messages, what_a_peer_sends_cannot_break_a_log_line);
    tcase_add_test(messages, error_codes_have_their_numbers_and_words);
    suite_add_tcase(suite, messages);

    tcase_add_loop_test(frames, a_frame_says_how_much_it_needs, 0, goldens_end);
    tcase_add_loop_test(frames, no_flipped_bit_passes, 0, goldens_end);
    tcase_add_test(frames, unknown_types_are_refused);
    tcase_add_loop_test(frames, each_type_has_its_sender_its_time_and_its_limit, 0,
                        (int)(sizeof(turns) / sizeof(turns[0])));
    tcase_add_test(frames, a_refused_frame_is_explained_with_both_numbers);
    tcase_add_test(frames, sealing_makes_the_golden_frame);
    suite_add_tcase(suite, frames);

    tcase_set_timeout(garbage, 60);
    tcase_add_loop_test(garbage, random_changes_are_refused_or_make_sense, 0, goldens_end);
    tcase_add_test(garbage, random_bytes_are_never_a_frame);
    suite_add_tcase(suite, garbage);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(wire_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
