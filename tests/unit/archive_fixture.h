/* Bytes that grow, and archives read from memory: whole, piece by piece, up to an error. */
#ifndef NX_TESTS_ARCHIVE_FIXTURE_H
#define NX_TESTS_ARCHIVE_FIXTURE_H

#include "snapshot/archive_read.h"
#include "storage/file_io.h"

#include <check.h>

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct bytes {
    uint8_t *data;
    size_t length;
    size_t cap;
};

/* Room for n more behind them. */
static inline uint8_t *bytes_extend(struct bytes *bytes, size_t n)
{
    if (bytes->length + n > bytes->cap) {
        bytes->cap = (bytes->length + n) * 2;
        bytes->data = realloc(bytes->data, bytes->cap);
        ck_assert_ptr_nonnull(bytes->data);
    }
    bytes->length += n;
    return bytes->data + bytes->length - n;
}

static inline void bytes_add(struct bytes *bytes, const void *data, size_t n)
{
    uint8_t *end = bytes_extend(bytes, n);

    if (n > 0) {
        memcpy(end, data, n);
    }
}

static inline void bytes_add_zeros(struct bytes *bytes, size_t n)
{
    memset(bytes_extend(bytes, n), 0, n);
}

static inline void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){.length = 0};
}

/* A file without a name. */
static inline int file_make(void)
{
    int fd = memfd_create("archive", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

/* All that a file holds; closes it. */
static inline void file_take(int fd, struct bytes *ret_bytes)
{
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    ret_bytes->length = 0;
    ck_assert_int_eq(
        nx_read_at(fd, bytes_extend(ret_bytes, (size_t)st.st_size), (size_t)st.st_size, 0), 0);
    close(fd);
}

struct memory {
    const struct bytes *bytes;
    size_t length; /* of them; they end there, or the error comes */
    size_t at;
    size_t most; /* at a time; 0: all that is asked for */
    int error;
};

static inline struct memory memory_of(const struct bytes *bytes)
{
    return (struct memory){.bytes = bytes, .length = bytes->length};
}

static inline int memory_read(void *arg, void *buf, size_t cap, size_t *ret_n)
{
    struct memory *memory = arg;
    size_t n = memory->length - memory->at;

    if (n == 0 && memory->error < 0) {
        return memory->error;
    }
    n = n < cap ? n : cap;
    n = memory->most > 0 && n > memory->most ? memory->most : n;
    if (n > 0) {
        memcpy(buf, memory->bytes->data + memory->at, n);
    }
    memory->at += n;
    *ret_n = n;
    return 0;
}

static inline struct nx_archive_source memory_source(struct memory *memory)
{
    return (struct nx_archive_source){.read = memory_read, .arg = memory};
}

#endif
