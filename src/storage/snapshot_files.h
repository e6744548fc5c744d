/* DATA_DIR/snapshots: archives, what is known of each, and the pins of full syncs.
 *
 *     <wal_offset, 20 digits>-<id>.tar.zst      an archive (protocol.md, "Snapshot")
 *     <wal_offset, 20 digits>-<id>.info         what is known of it, lines as in `identity`
 *     <wal_offset, 20 digits>-<id>.tar.zst.tmp  one that is being made
 *     incoming-<id>.part, incoming-<id>.chunks  one that comes from the master (incoming.h)
 *     <replica id>.pin                          a full sync of that replica (pin.h)
 *
 * An archive counts from the moment it has its name, which it gets after its .info: so one that is listed
 * is whole. Archives without .info are a person's, and left alone. Blocking; the calls own nothing beyond
 * themselves. The snapshot process makes archives; http workers, asked to, remove them. */
#ifndef NX_STORAGE_SNAPSHOT_FILES_H
#define NX_STORAGE_SNAPSHOT_FILES_H

#include "common/shm_layout.h"
#include "storage/position.h"

#include <stddef.h>
#include <stdint.h>

#define NX_SNAPSHOT_DIR  "snapshots"
#define NX_SNAPSHOT_NAME 96 /* "<20 digits>-<36 characters>.tar.zst.tmp" and NUL fit */

/* Why it was made; that decides how long it stays. */
enum nx_snapshot_reason {
    NX_SNAPSHOT_REQUEST = 0,   /* a person asked: until it is deleted */
    NX_SNAPSHOT_SCHEDULE = 1,  /* snapshot.interval: the newest snapshot.keep */
    NX_SNAPSHOT_FULL_SYNC = 2, /* a replica needed it: counted with the scheduled ones */
};

struct nx_snapshot_info {
    char id[NX_UUID_TEXT];
    enum nx_snapshot_reason reason;
    uint64_t created_at;         /* Unix ms */
    struct nx_position position; /* offset = wal_offset */
    uint64_t records;
    uint64_t files_count; /* in the archive */
    uint64_t uncompressed_size;
    uint64_t compressed_size; /* bytes of the archive */
    uint32_t checksum;        /* CRC32 of the archive */
};

/* Opens DATA_DIR/snapshots, making it (0700) where it is missing. A descriptor or -errno. */
int nx_snapshot_dir(const char *data_dir);

/* Does one thing in that directory. What it returns, or -errno where the directory can't be opened. */
int nx_snapshot_in_dir(const char *data_dir, int (*task)(int dir_fd));

/* "<wal_offset>-<id><suffix>", as ".tar.zst". */
void nx_snapshot_name(uint64_t wal_offset,
                      const char *id,
                      const char *suffix,
                      char ret_name[NX_SNAPSHOT_NAME]);

/* All archives, newest first (by created_at, then wal_offset). list is malloc'd (NULL when there is none),
 * the caller frees it. 0 or -errno. */
int nx_snapshot_list(int dir_fd, struct nx_snapshot_info **ret_list, size_t *ret_count);

/* The archive with an id, or with "last" the newest. 0, -ENOENT, or -errno. */
int nx_snapshot_find(int dir_fd, const char *id, struct nx_snapshot_info *ret_info);

/* Opens an archive for reading. A descriptor or -errno. */
int nx_snapshot_open(int dir_fd, const struct nx_snapshot_info *info);

/* Writes what is known of an archive, durably: before it gets its name, or with another reason. 0 or
 * -errno. */
int nx_snapshot_store_info(int dir_fd, const struct nx_snapshot_info *info);

/* Gives the synced .tmp its name, durably; its .info must stand. 0 or -errno. */
int nx_snapshot_publish(int dir_fd, const struct nx_snapshot_info *info);

/* Removes an archive and its .info, durably. 0, also when there is none, or -errno. */
int nx_snapshot_remove(int dir_fd, const struct nx_snapshot_info *info);

/* A person wants it gone: it is removed, or, while a full sync needs it, left to `keep` like a scheduled
 * one (*ret_kept = 1). 0 or -errno. */
int nx_snapshot_forget(int dir_fd, const struct nx_snapshot_info *info, int *ret_kept);

/* Removes what a job that ended early has left: .tmp files, and .info without an archive. Only while no
 * snapshot is being made. 0 or -errno. */
int nx_snapshot_clean(int dir_fd);

/* Removes the oldest of the archives that nobody asked for, until `keep` are left; those that a pin needs
 * stay. 0 or -errno. */
int nx_snapshot_prune(int dir_fd, uint64_t keep);

#endif
