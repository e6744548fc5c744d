/* Pins: a full sync in progress holds its snapshot and the log behind it, over reconnects and restarts
 * (architecture.md, "Keeping the log"). One file a replica, DATA_DIR/snapshots/<replica id>.pin, lines as
 * in `identity`; written by the walsender of that replica, removed by it or, when its time is over or the
 * disk is full, by the checkpointer. The file's time is that of the last progress. */
#ifndef NX_STORAGE_PIN_H
#define NX_STORAGE_PIN_H

#include "common/shm_layout.h"

#include <stddef.h>
#include <stdint.h>

#define NX_PIN_SILENCE_MS 3600000 /* without progress, after which a pin is given up */

struct nx_pin {
    char replica_id[NX_UUID_TEXT];
    char snapshot_id[NX_UUID_TEXT];
    uint64_t snapshot_offset; /* its wal_offset */
    uint64_t chunk_size;      /* in which it is sent; chunk numbers count these */
    uint64_t sent;            /* 1: all of it was sent, and counted as a transfer */
    uint64_t offset; /* the log behind it is held: the snapshot's, later the replica's ack */
    /* Of the last progress, set by reading: how long ago that is, and when it was by the clock on the wall. */
    uint64_t age_ms;
    uint64_t progress_ms;
};

/* Writes a replica's pin durably, replacing the one it had. 0 or -errno. */
int nx_pin_write(int dir_fd, const struct nx_pin *pin);

/* Notes progress. 0 or -errno. */
int nx_pin_touch(int dir_fd, const char *replica_id);

/* A replica's pin. 0, -ENOENT, -EBADMSG, or -errno. */
int nx_pin_read(int dir_fd, const char *replica_id, struct nx_pin *ret_pin);

/* Removes it. 0, also when there is none, or -errno. */
int nx_pin_remove(int dir_fd, const char *replica_id);

/* Calls `each` for every pin that can be read, until one returns non-zero. Returns that, 0, or -errno. A
 * pin that is damaged is removed: it can't say what it holds. */
int nx_pin_each(int dir_fd, int (*each)(void *arg, const struct nx_pin *pin), void *arg);

#endif
