/* Bytes in memory and in messages: little-endian loads and stores at any alignment, a slice that
 * borrows its bytes, and a reader and a writer that never leave their buffer. Every number of the
 * wire protocol, of the log and of the files is written with these. */
#ifndef NX_COMMON_BYTES_H
#define NX_COMMON_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes that belong to somebody else; data may be NULL only when length is 0. */
struct nx_slice {
    const uint8_t *data;
    size_t length;
};

static inline uint16_t nx_load_u16(const void *p)
{
    uint16_t value;

    memcpy(&value, p, sizeof(value));
    return le16toh(value);
}

static inline uint32_t nx_load_u32(const void *p)
{
    uint32_t value;

    memcpy(&value, p, sizeof(value));
    return le32toh(value);
}

static inline uint64_t nx_load_u64(const void *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof(value));
    return le64toh(value);
}

static inline void nx_store_u16(void *p, uint16_t value)
{
    value = htole16(value);
    memcpy(p, &value, sizeof(value));
}

static inline void nx_store_u32(void *p, uint32_t value)
{
    value = htole32(value);
    memcpy(p, &value, sizeof(value));
}

static inline void nx_store_u64(void *p, uint64_t value)
{
    value = htole64(value);
    memcpy(p, &value, sizeof(value));
}

/* A slice of `length` bytes at data, and one of a C string without its NUL. */
static inline struct nx_slice nx_slice_of(const void *data, size_t length)
{
    return (struct nx_slice){.data = data, .length = length};
}

static inline struct nx_slice nx_slice_text(const char *text)
{
    return nx_slice_of(text, strlen(text));
}

static inline bool nx_slice_equal(struct nx_slice a, struct nx_slice b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

/* The order of keys: byte by byte, a key before what begins with it. < 0, 0, > 0. */
static inline int nx_slice_compare(struct nx_slice a, struct nx_slice b)
{
    size_t common = a.length < b.length ? a.length : b.length;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);

    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

static inline bool nx_slice_begins(struct nx_slice slice, struct nx_slice prefix)
{
    return slice.length >= prefix.length &&
           (prefix.length == 0 || memcmp(slice.data, prefix.data, prefix.length) == 0);
}

/* FNV-1a (Fowler, Noll, Vo), 64 bits, its halves folded into 32. For tables in memory: it keeps nobody
 * from choosing keys that collide. */
static inline uint32_t nx_slice_hash(struct nx_slice slice)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < slice.length; i++) {
        hash = (hash ^ slice.data[i]) * 0x100000001b3u;
    }
    return (uint32_t)(hash ^ hash >> 32);
}

/* Reads a buffer from front to back. A read that finds too few bytes, or a value that can't be,
 * sets `bad` and takes nothing; from then on every read gives zeros. So a decoder may read all its
 * fields and look at `bad` once, before it believes any of them. */
struct nx_reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static inline struct nx_reader nx_reader_of(const void *data, size_t length)
{
    return (struct nx_reader){.p = data, .left = length, .bad = false};
}

/* The next n bytes, borrowed from the buffer; NULL (and bad) when fewer are left. */
static inline const uint8_t *nx_read_raw(struct nx_reader *reader, size_t n)
{
    const uint8_t *p = reader->p;

    if (reader->bad || n > reader->left) {
        reader->bad = true;
        return NULL;
    }
    if (n > 0) {
        reader->p += n;
        reader->left -= n;
    }
    return p;
}

static inline uint8_t nx_read_u8(struct nx_reader *reader)
{
    const uint8_t *p = nx_read_raw(reader, sizeof(uint8_t));

    return p == NULL ? 0 : *p;
}

static inline uint16_t nx_read_u16(struct nx_reader *reader)
{
    const uint8_t *p = nx_read_raw(reader, sizeof(uint16_t));

    return p == NULL ? 0 : nx_load_u16(p);
}

static inline uint32_t nx_read_u32(struct nx_reader *reader)
{
    const uint8_t *p = nx_read_raw(reader, sizeof(uint32_t));

    return p == NULL ? 0 : nx_load_u32(p);
}

static inline uint64_t nx_read_u64(struct nx_reader *reader)
{
    const uint8_t *p = nx_read_raw(reader, sizeof(uint64_t));

    return p == NULL ? 0 : nx_load_u64(p);
}

/* One byte that must be 0 or 1. */
static inline bool nx_read_bool(struct nx_reader *reader)
{
    uint8_t value = nx_read_u8(reader);

    if (value > 1) {
        reader->bad = true;
    }
    return value == 1;
}

/* The next n bytes as a slice. */
static inline struct nx_slice nx_read_bytes(struct nx_reader *reader, size_t n)
{
    const uint8_t *p = nx_read_raw(reader, n);

    return nx_slice_of(p, p == NULL ? 0 : n);
}

/* A u64 length and that many bytes. */
static inline struct nx_slice nx_read_slice(struct nx_reader *reader)
{
    uint64_t length = nx_read_u64(reader);

    if (length > reader->left) {
        reader->bad = true;
        return nx_slice_of(NULL, 0);
    }
    return nx_read_bytes(reader, (size_t)length);
}

/* Fills a buffer from front to back. A write that doesn't fit sets `full` and writes nothing, and
 * so does every later one. */
struct nx_writer {
    uint8_t *start;
    size_t used;
    size_t cap;
    bool full;
};

static inline struct nx_writer nx_writer_of(void *buffer, size_t cap)
{
    return (struct nx_writer){.start = buffer, .used = 0, .cap = cap, .full = false};
}

/* Room for the next n bytes, to be filled by the caller; NULL (and full) when they don't fit. */
static inline uint8_t *nx_write_raw(struct nx_writer *writer, size_t n)
{
    uint8_t *p;

    if (writer->full || n > writer->cap - writer->used) {
        writer->full = true;
        return NULL;
    }
    p = writer->start + writer->used;
    writer->used += n;
    return p;
}

static inline void nx_write_u8(struct nx_writer *writer, uint8_t value)
{
    uint8_t *p = nx_write_raw(writer, sizeof(value));

    if (p != NULL) {
        *p = value;
    }
}

static inline void nx_write_u16(struct nx_writer *writer, uint16_t value)
{
    uint8_t *p = nx_write_raw(writer, sizeof(value));

    if (p != NULL) {
        nx_store_u16(p, value);
    }
}

static inline void nx_write_u32(struct nx_writer *writer, uint32_t value)
{
    uint8_t *p = nx_write_raw(writer, sizeof(value));

    if (p != NULL) {
        nx_store_u32(p, value);
    }
}

static inline void nx_write_u64(struct nx_writer *writer, uint64_t value)
{
    uint8_t *p = nx_write_raw(writer, sizeof(value));

    if (p != NULL) {
        nx_store_u64(p, value);
    }
}

/* The bytes alone, without their length. */
static inline void nx_write_bytes(struct nx_writer *writer, struct nx_slice bytes)
{
    uint8_t *p;

    if (bytes.length == 0) {
        return;
    }
    p = nx_write_raw(writer, bytes.length);
    if (p != NULL) {
        memcpy(p, bytes.data, bytes.length);
    }
}

/* A u64 length and the bytes. */
static inline void nx_write_slice(struct nx_writer *writer, struct nx_slice bytes)
{
    nx_write_u64(writer, bytes.length);
    nx_write_bytes(writer, bytes);
}

#endif
