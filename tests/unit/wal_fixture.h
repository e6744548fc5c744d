/* A wal directory in a temporary directory, for tests: frames, segments and marks made by hand, and
 * damage done to them. Everything here fails the test when it can't do its work. */
#ifndef NX_TESTS_WAL_FIXTURE_H
#define NX_TESTS_WAL_FIXTURE_H

#include "common/entry.h"
#include "storage/file_io.h"
#include "storage/position.h"
#include "storage/wal_segment.h"

#include <check.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_SIZE ((uint64_t)64 << 10)

static const uint8_t test_cluster[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* A log in the making. */
struct wal {
    char path[64];
    int dir_fd;
    int fd;                  /* last segment, -1: none */
    uint64_t at;             /* in it: where the next frame goes */
    struct nx_position last; /* entry */
    uint64_t frame_at;       /* of the last entry */
    uint64_t segment_size;
};

static inline void wal_open(struct wal *wal)
{
    *wal = (struct wal){.fd = -1, .segment_size = SEGMENT_SIZE};
    memcpy(wal->path, "/tmp/nexus-wal-XXXXXX", sizeof "/tmp/nexus-wal-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(wal->path));
    wal->dir_fd = open(wal->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(wal->dir_fd, 0);
}

static inline void wal_close(struct wal *wal)
{
    if (wal->fd >= 0) {
        close(wal->fd);
    }
    close(wal->dir_fd);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, wal->path), 0);
}

/* Makes a frame with one put of value_length bytes, which all depend on `seed`. malloc'd. */
static inline uint8_t *make_frame(struct nx_entry_header *header, size_t value_length, uint8_t seed)
{
    size_t size = NX_OP_HEADER + 3 + value_length;
    uint8_t *frame = malloc(nx_entry_frame_size(size));
    uint8_t *value = malloc(value_length + 1);
    struct nx_writer writer;
    struct nx_op op = {.kind = NX_OP_PUT, .key = nx_slice_text("key")};

    ck_assert_ptr_nonnull(frame);
    ck_assert_ptr_nonnull(value);
    for (size_t i = 0; i < value_length; i++) {
        value[i] = (uint8_t)(seed + i * 7 + 1);
    }
    op.value = nx_slice_of(value, value_length);
    writer = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, size);
    ck_assert_int_eq(nx_op_encode(&writer, &op), 0);
    free(value);
    header->op_count = 1;
    header->ops_length = size;
    header->timestamp = 1700000000000000 + header->offset;
    header->crc = nx_entry_finish(frame, header);
    header->frame_length = nx_entry_frame_size(size);
    return frame;
}

/* The header of the entry that comes next. */
static inline struct nx_entry_header next_header(const struct wal *wal)
{
    return (struct nx_entry_header){
        .offset = wal->last.offset + 1,
        .epoch = wal->last.epoch > 0 ? wal->last.epoch : 1,
        .prev_crc = wal->last.crc,
    };
}

static inline void wal_put_raw(const struct wal *wal, const void *bytes, size_t n, uint64_t at)
{
    ck_assert_int_eq(nx_write_at(wal->fd, bytes, n, at), 0);
}

/* Begins the segment of the next entry. */
static inline void wal_segment(struct wal *wal)
{
    struct nx_segment_header header = {.first_offset = wal->last.offset + 1, .epoch = 1};

    memcpy(header.cluster_id, test_cluster, sizeof test_cluster);
    if (wal->fd >= 0) {
        close(wal->fd);
    }
    ck_assert_int_eq(nx_segment_begin(wal->dir_fd, &header, wal->segment_size, &wal->fd), 0);
    wal->at = NX_SEGMENT_HEADER;
}

/* Puts a frame behind the last one and counts it as part of the log. */
static inline void wal_append(struct wal *wal, struct nx_entry_header header, size_t value_length)
{
    uint8_t *frame = make_frame(&header, value_length, (uint8_t)header.offset);

    wal_put_raw(wal, frame, header.frame_length, wal->at);
    free(frame);
    wal->frame_at = wal->at;
    wal->at += header.frame_length;
    wal->last = (struct nx_position){header.epoch, header.offset, header.crc};
}

static inline void wal_append_n(struct wal *wal, unsigned n)
{
    if (wal->fd < 0) {
        wal_segment(wal);
    }
    for (unsigned i = 0; i < n; i++) {
        wal_append(wal, next_header(wal), 100);
    }
}

static inline void wal_mark(const struct wal *wal, const struct nx_position *position)
{
    struct nx_mark mark = {.position = *position};
    int fd;

    ck_assert_int_eq(nx_mark_open(wal->dir_fd, &mark, &fd), 0);
    close(fd);
}

/* Turns one bit of a file. */
static inline void wal_flip(const struct wal *wal, const char *name, uint64_t at)
{
    uint8_t byte;
    int fd = openat(wal->dir_fd, name, O_RDWR | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_read_at(fd, &byte, 1, at), 0);
    byte ^= 4;
    ck_assert_int_eq(nx_write_at(fd, &byte, 1, at), 0);
    close(fd);
}

static inline bool wal_has(const struct wal *wal, const char *name)
{
    return faccessat(wal->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static inline uint64_t wal_size(const struct wal *wal, const char *name)
{
    struct stat st;

    ck_assert_int_eq(fstatat(wal->dir_fd, name, &st, 0), 0);
    return (uint64_t)st.st_size;
}

#endif
