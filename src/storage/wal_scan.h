/* What recovery and readers share: a segment seen through a window of bounded memory, the judgement
 * whether a frame continues the log, and the search for readable entries behind damage. Private to
 * src/storage and its tests. */
#ifndef NX_STORAGE_WAL_SCAN_H
#define NX_STORAGE_WAL_SCAN_H

#include "common/entry.h"
#include "storage/wal_segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- one segment, read in steps ---- */

/* The bytes [at, at + length) of the file stand in buf. Memory is one step, or the largest frame met. */
struct nx_wal_window {
    int fd;        /* owned; -1 when no file is open */
    uint64_t size; /* of the file */
    uint8_t *buf;
    size_t cap;
    uint64_t at;
    size_t length;
};

void nx_wal_window_init(struct nx_wal_window *window);
/* Closes what is open and frees the memory. */
void nx_wal_window_done(struct nx_wal_window *window);

/* Gives the memory back; the file stays open. */
void nx_wal_window_forget(struct nx_wal_window *window);

/* Opens the segment of this first offset and checks its header: CRC, first offset, and the cluster id
 * (16 bytes; NULL or all zero: any). 0; -ENOENT; -EBADMSG with *ret_why saying what is wrong; or
 * -errno. The window is empty on failure. */
int nx_wal_window_open(struct nx_wal_window *window,
                       int dir_fd,
                       uint64_t first_offset,
                       const uint8_t *cluster_id,
                       const char **ret_why);

/* At least min(want, what the file has behind `at`) bytes at file position `at`. *ret_bytes is valid
 * until the next call. Cheap where they stand in the window already. 0; -ENOMEM; or -errno. */
int nx_wal_window_load(struct nx_wal_window *window,
                       uint64_t at,
                       size_t want,
                       const uint8_t **ret_bytes,
                       size_t *ret_length);

/* ---- does a frame continue the log? ---- */

/* The log up to some entry: what the next one must match. */
struct nx_wal_chain {
    uint64_t next;  /* offset it must have */
    uint64_t epoch; /* that it must have at least */
    uint32_t crc;   /* its prev_crc, if linked */
    bool linked;
};

/* Why it doesn't. Up to WRONG_CRC the bytes may be anything; from LOW_EPOCH on they are a whole frame
 * with the right offset and a valid CRC. */
enum nx_wal_fault {
    NX_WAL_FINE,
    NX_WAL_NO_ROOM, /* the segment ends here, or before the frame does */
    NX_WAL_ZEROS,
    NX_WAL_NO_FRAME,
    NX_WAL_WRONG_OFFSET,
    NX_WAL_WRONG_CRC,
    NX_WAL_LOW_EPOCH,
    NX_WAL_WRONG_LINK,
    NX_WAL_UNKNOWN_OPS,
};

/* As in "the bytes there are ...". */
const char *nx_wal_fault_text(enum nx_wal_fault fault);

struct nx_wal_found {
    enum nx_wal_fault fault;
    struct nx_entry_header header; /* with FINE and from LOW_EPOCH on; borrowed from the window */
    const uint8_t *frame;
};

/* Judges the frame at `at`. 0 and *ret_found, or an error of the file. */
int nx_wal_judge(struct nx_wal_window *window,
                 uint64_t at,
                 const struct nx_wal_chain *chain,
                 struct nx_wal_found *ret_found);

/* Continues the chain with a frame. */
void nx_wal_chain_add(struct nx_wal_chain *chain, const struct nx_entry_header *header);

/* ---- what is behind damage? ---- */

struct nx_wal_survey {
    uint64_t above;    /* in: entries of offsets above this count */
    uint64_t readable; /* entries found so far, over all calls */
    uint64_t linked;   /* of these: entries whose prev_crc is the CRC of the one before them */
    bool exhausted;    /* it gave up: bytes that look like frames and are none took too much time */
    uint64_t wasted;   /* bytes of such */
};

/* Searches the segment for valid frames from a position on, at any byte. 0 or an error of the file. */
int nx_wal_survey(struct nx_wal_window *window, uint64_t from, struct nx_wal_survey *survey);

#endif
