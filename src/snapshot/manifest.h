/* manifest.json and epochs.json, the last two files of a snapshot (protocol.md, "Snapshot"). */
#ifndef NX_SNAPSHOT_MANIFEST_H
#define NX_SNAPSHOT_MANIFEST_H

#include "common/epochs.h"
#include "common/shm_layout.h"
#include "storage/position.h"

#include <stddef.h>
#include <stdint.h>

#define NX_SNAPSHOT_FORMAT  1
#define NX_MANIFEST_NAME    "manifest.json"
#define NX_EPOCHS_NAME      "epochs.json"
#define NX_KV_NAME          "kv/%06zu"
#define NX_KV_SIZE_MAX      ((uint64_t)64 << 20)
#define NX_KV_MOST          ((size_t)1000000) /* files; their names have six digits */
#define NX_ARCHIVE_NAME_MAX 32
#define NX_MANIFEST_MAX     ((size_t)32 << 20) /* bytes; room for some terabytes of state */
#define NX_EPOCHS_MAX       ((size_t)1 << 20)

/* A file of the archive. Its name follows from its place: kv/000000, kv/000001, ..., epochs.json. */
struct nx_archive_file {
    uint64_t size;
    uint32_t crc;
};

/* What stands in manifest.json. `files` is malloc'd; all but the manifest itself. */
struct nx_manifest {
    char id[NX_UUID_TEXT];
    char cluster_id[NX_UUID_TEXT];
    uint64_t created_at;         /* Unix ms */
    struct nx_position position; /* crc 0: the manifest doesn't tell */
    uint64_t records;
    struct nx_archive_file *files;
    size_t file_count;
    size_t file_cap;
};

/* Name of the n-th of `count` files that the manifest lists. */
void nx_archive_file_name(size_t n, size_t count, char ret_name[NX_ARCHIVE_NAME_MAX]);

/* Adds a file. 0 or -ENOMEM. */
int nx_manifest_add(struct nx_manifest *manifest, uint64_t size, uint32_t crc);

void nx_manifest_free(struct nx_manifest *manifest);

/* The texts; malloc'd, or NULL without memory. */
char *nx_manifest_print(const struct nx_manifest *manifest);
char *nx_epochs_print(const struct nx_position *position, const struct nx_epochs *epochs);

/* Reads a manifest; ret_manifest->files is the caller's to free. 0; -EBADMSG with *why, a phrase; or
 * -ENOMEM. */
int nx_manifest_parse(const char *text,
                      size_t length,
                      struct nx_manifest *ret_manifest,
                      const char **why);

/* Reads an epoch history: its last epoch must be the position's, and begin at or before it. Where a record doesn't
 * tell all of its epoch ret_epochs is empty. 0, -EBADMSG with *why, or -ENOMEM. */
int nx_epochs_parse(const char *text,
                    size_t length,
                    const struct nx_position *position,
                    struct nx_epochs *ret_epochs,
                    const char **why);

#endif
