/* The data directory: its lock, its files that are neither log nor state, and its one commit point.
 *
 *     DATA_DIR/nexus.id       "node_id = <uuid>", "format = 1", a line each
 *     DATA_DIR/nexus.lock     flock held by every process of the running server; holds the postmaster's pid
 *     DATA_DIR/current        symlink to data-N
 *     DATA_DIR/replaced-N     a data-N that a full sync has replaced, on its way out
 *     DATA_DIR/snapshots      snapshot_files.h
 *     DATA_DIR/diverged       diverged.h
 *     DATA_DIR/data-N/wal     segments, free-<n>, durable
 *     DATA_DIR/data-N/state   LMDB
 *     DATA_DIR/data-N/identity  "cluster_id = <uuid or nothing>"; of what there is, the lines of epoch 1's leader
 *                               (first_node_id), fence, promise, note, follow, goal; for each known replica the lines replica, connected, last_seen, last_ack_offset,
 *                               addr and http_addr, last "crc32 = <8 hexadecimal digits>" of all bytes
 *                               before that line
 *
 * The postmaster alone writes these files, each by temporary file, fdatasync, rename, fsync of the
 * directory. */
#ifndef NX_STORAGE_DATA_DIR_H
#define NX_STORAGE_DATA_DIR_H

#include "common/config.h"
#include "common/shm_layout.h"
#include "common/synced.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_DATA_FORMAT 1
#define NX_LOCK_NAME   "nexus.lock"

/* An epoch that this node has promised to another: it follows no lower one. Binds while it is higher than the last
 * epoch of the log. */
struct nx_promise {
    uint64_t epoch; /* 0: none */
    char node_id[NX_UUID_TEXT];
    uint64_t
        attempt; /* of that node at a promotion: who takes back an earlier one's means not this one; 0: any */
};

/* The configuration in force when something was decided that holds against it, until it is another one. */
struct nx_role_config {
    enum nx_role role;
    char master_addr[NX_ADDR_TEXT];
};

bool nx_role_config_same(const struct nx_role_config *a, const struct nx_role_config *b);

/* A promotion: this node is master while its log has this epoch, and that one and all behind it are its own. Written
 * before it begins, so it is inert until then. */
struct nx_role_note {
    uint64_t epoch; /* 0: none */
    struct nx_role_config configured;
};

/* A master that this node was told to follow. */
struct nx_follow {
    char addr[NX_ADDR_TEXT]; /* "": none */
    bool force; /* even if that costs what this node has beyond it; until a full sync is done */
    struct nx_role_config configured;
};

struct nx_identity {
    char cluster_id[NX_UUID_TEXT];    /* "" until the node belongs to a cluster */
    char first_node_id[NX_UUID_TEXT]; /* who leads in epoch 1; "": not known */
    struct nx_fence fence; /* epoch 0: none. Binds while it is higher than the log's last epoch */
    struct nx_promise promise;
    struct nx_role_note note;
    struct nx_follow follow;
    struct nx_sync_goal goal; /* of a replica */
    unsigned replica_count;   /* known replicas, in any order, an id once */
    struct nx_known_replica replicas[NX_MAX_REPLICAS];
};

struct nx_data_dir {
    char path[NX_PATH_SIZE]; /* absolute */
    char root[NX_PATH_SIZE]; /* absolute path of data-N, `current` resolved */
    char node_id[NX_UUID_TEXT];
    int lock_fd; /* inherited by every child, so that no second server starts while one lives */
    struct nx_identity identity;
};

/* Opens and locks the data directory, making what is missing (a missing last component of the path,
 * 0700; nexus.id with a fresh UUID; data-1 with wal/, state/ and an empty identity; `current`).
 * Half-made leftovers of an interrupted first start are completed; temporary files, and a data-N that
 * `current` doesn't name (a full sync that wasn't finished, or what it replaced), are removed. A
 * directory that holds data and lacks a piece is refused, never begun anew. The lock of a server that
 * was just killed is waited for, up to NX_LOCK_WAIT_MS. On failure *error (cap bytes) says in a sentence
 * what is wrong and what to do (locked by another server and its pid, wrong owner or mode, newer format,
 * missing or damaged piece, read-only), and -errno is returned: -EBUSY locked, -EPERM owner or mode,
 * -EBADMSG for what a person must mend. */
#define NX_LOCK_WAIT_MS 5000
int nx_data_dir_open(const char *path, struct nx_data_dir *ret_dir, char *error, size_t cap);

/* Makes `root` ("data-N" in the directory, whole and synced but for its identity) the node's data: writes its
 * identity, renames `current` (the commit point), and puts the one before aside for nx_data_dir_tidy. No
 * process may have anything of it open. 0, or -errno with a sentence in error: of -ENOSPC and -EDQUOT nothing
 * has changed; of all others, what `current` names is only known at the next start. */
int nx_data_dir_switch(struct nx_data_dir *dir,
                       const char *root,
                       const struct nx_identity *identity,
                       char *error,
                       size_t cap);

/* Removes what a switch has put aside; it may take long. 1: there was something; 0; or -errno. */
int nx_data_dir_tidy(const char *path);

/* The data-N that a full sync may fill: the number behind the one in use. Others are removed. Its path is
 * made, with empty wal/ and state/ in it. 0 or -errno. */
int nx_data_dir_prepare(const char *path, const char *root_in_use, char ret_root[NX_PATH_SIZE]);

/* Removes what was prepared. 0 or -errno. */
int nx_data_dir_discard(const char *path, const char *root);

/* Gives up the lock (of this process: children that inherited it keep it). */
void nx_data_dir_close(struct nx_data_dir *dir);

/* Replaces data-N/identity durably. 0, -EINVAL (what can't be read again), or -errno; dir->identity changes
 * only on success. */
int nx_identity_store(struct nx_data_dir *dir, const struct nx_identity *identity);

/* Writes a small file durably: temporary name beside it, fdatasync, rename, directory fsync. 0, or
 * -errno with the old file in place. */
int nx_file_replace(const char *path, const void *bytes, size_t length, unsigned mode);

/* Binary form of a textual UUID. 0 or -EINVAL. */
int nx_uuid_parse(const char *text, uint8_t ret_uuid[16]);

#endif
