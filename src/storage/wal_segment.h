/* WAL files (protocol.md, "WAL segment"): a header, then WalEntry frames back to back.
 *
 *     wal/<first offset, 20 digits>.wal  44-byte header: "NXWAL\0\0\1", cluster id 16 bytes,
 *                                        first offset u64, epoch u64, crc32 u32 of the 40 before
 *     wal/free-<n>                       prepared ahead: zeros, written and synced, always whole
 *     wal/durable                        the mark (below); there before the first segment is
 *     wal/tmp-*                          half-made free-<n>, of the checkpointer
 *     wal/begin, wal/begin-new           a segment that is about to get its name, of the walwriter
 *
 * The walwriter begins, writes and unlinks segments; the checkpointer makes free-<n> files, from
 * nothing or from segments that nobody needs. Each step of both can be cut off by a kill or a power
 * cut, and both work at the same time: a free-<n> belongs to whoever renames it first. `dir_fd` is
 * always the wal directory. */
#ifndef NX_STORAGE_WAL_SEGMENT_H
#define NX_STORAGE_WAL_SEGMENT_H

#include "common/shared_log.h"
#include "storage/paced_sync.h"
#include "storage/position.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_SEGMENT_HEADER 44
#define NX_SEGMENT_NAME   32 /* "00000000000000000001.wal" and NUL fit */
#define NX_MARK_SIZE      41

struct nx_segment_header {
    uint8_t cluster_id[16];
    uint64_t first_offset;
    uint64_t epoch;
};

struct nx_segment_info {
    uint64_t first_offset;
    uint64_t size; /* of the file, bytes */
};

/* All segments of a directory, ascending; other names are passed over. list is malloc'd (NULL when
 * there is none), the caller frees it. 0 or -errno. */
int nx_segment_list(int dir_fd, struct nx_segment_info **ret_list, size_t *ret_count);

void nx_segment_name(uint64_t first_offset, char ret_name[NX_SEGMENT_NAME]);
void nx_segment_header_encode(const struct nx_segment_header *header,
                              uint8_t ret_bytes[NX_SEGMENT_HEADER]);
/* 0 or -EBADMSG (magic, CRC). */
int nx_segment_header_decode(const uint8_t bytes[NX_SEGMENT_HEADER],
                             struct nx_segment_header *ret_header);

/* The free-<n> files that stand ready with at least `size` bytes: how many, and the lowest n (0 if
 * none). `clean` (the checkpointer, which makes them): shorter ones and half-made ones are unlinked. 0
 * or -errno. */
int nx_segment_free_count(int dir_fd,
                          uint64_t size,
                          bool clean,
                          size_t *ret_count,
                          uint64_t *ret_lowest);
/* Whether there is a free-<n>. Only the checkpointer makes them, so that it can rely on a no. */
bool nx_segment_free_exists(int dir_fd, uint64_t n);
/* Makes free-<n> of `size` zero bytes, written and synced; a temporary name first, so that a free-<n>
 * is always whole. pause: of zeroing and of the sync, or NULL. 0; -EEXIST: there is such a one; -ENOSPC and
 * other -errno leave nothing behind. */
int nx_segment_prepare(int dir_fd, uint64_t n, uint64_t size, const struct nx_pause *pause);
/* Turns a segment that nobody needs into free-<n> of `size` bytes: taken out of the log durably, then
 * zeroed and synced under a temporary name, then named. Oldest first, or the log has a hole after a
 * power cut. Errors as above, and -ENOENT. */
int nx_segment_recycle(int dir_fd,
                       uint64_t first_offset,
                       uint64_t n,
                       uint64_t size,
                       const struct nx_pause *pause);

/* Begins a segment: takes the lowest free-<n> of at least `size` bytes (or makes a file, which takes
 * longer), writes the header, fdatasyncs, renames it to its first offset (over a prepared but unused
 * one), syncs the directory. Before the first segment it makes the mark. 0 and *ret_fd (read-write);
 * -ENOSPC: there is no room for it, and nothing has changed; or another -errno: it may have its name
 * already, so nothing may be appended to the segment before. Recovery minds neither. */
int nx_segment_begin(int dir_fd,
                     const struct nx_segment_header *header,
                     uint64_t size,
                     int *ret_fd);

/* The mark `wal/durable`: the last fdatasynced position, and what the node last heard of its quorum.
 * Written without a sync: any value found was true when it was written. Whoever makes a state at a
 * position without a log (full sync, restore) makes the mark with that position: a state or segments
 * without a mark are refused at start. */
struct nx_mark {
    struct nx_position position;
    uint8_t mode; /* 0 async, 1 sync */
    uint64_t quorum_epoch;
    uint64_t quorum_offset;
};
void nx_mark_encode(const struct nx_mark *mark, uint8_t ret_bytes[NX_MARK_SIZE]);
/* 0 or -EBADMSG (CRC, mode). */
int nx_mark_decode(const uint8_t bytes[NX_MARK_SIZE], struct nx_mark *ret_mark);
/* Opens the mark file for writing and writes *mark to it, unsynced; one that doesn't exist is created
 * durably. 0 or -errno. */
int nx_mark_open(int dir_fd, const struct nx_mark *mark, int *ret_fd);
/* Reads it: 0; -ENOENT; -EBADMSG (wrong size too); or -errno. */
int nx_mark_read(int dir_fd, struct nx_mark *ret_mark);

/* Reads frames from WAL files in order, for walsenders behind the shared log and for tools. It may run
 * while the walwriter appends and the checkpointer recycles. */
struct nx_wal_reader;
int nx_wal_reader_open(int dir_fd, struct nx_wal_reader **ret_reader); /* duplicates dir_fd */
void nx_wal_reader_close(struct nx_wal_reader *reader);                /* NULL is fine */
/* Copies whole frames from `from` up to `last` into chunk->buf (as many as fit, none beyond the end of a
 * segment), each checked: offset, CRC, prev_crc chain within what is read. `last` must not be above what
 * the walwriter has published. Sequential calls go on where the last one ended, without searching.
 * -ENOENT: no segment holds `from` (any more); -EBADMSG: the bytes there are not the frame they should
 * be, and no recycling explains it; -EMSGSIZE: first frame larger than cap, chunk->length says how large;
 * -EINVAL: from is 0 or above last, or cap below NX_ENTRY_HEADER_SIZE; or -errno of the file. */
int nx_wal_reader_read(struct nx_wal_reader *reader,
                       uint64_t from,
                       uint64_t last,
                       struct nx_log_chunk *chunk);

#endif
