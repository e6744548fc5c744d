/* A snapshot's way into a data-N: read, checked, loaded, and made durable. What it builds counts only once
 * somebody makes it the node's data. */
#ifndef NX_SNAPSHOT_LOAD_H
#define NX_SNAPSHOT_LOAD_H

#include "snapshot/archive_read.h"
#include "snapshot/manifest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_load_options {
    struct nx_archive_source source;
    const char *root; /* data-N, with empty wal/ and state/ */
    uint64_t map_size;
    /* What the manifest must say; "" and 0: anything. The offset goes with the id. */
    const char *id;
    const char *cluster_id;
    uint64_t wal_offset;
    uint64_t epoch;
    bool quorum_rules; /* in its cluster, or that isn't known: until the node's master says */
    /* So many records are loaded. A negative return ends the loading with that error. May be NULL. */
    int (*progress)(void *arg, uint64_t records);
    void *arg;
};

/* 0 and *ret_manifest (without files); -EBADMSG: the snapshot is no good; or another error, of the source or of
 * this node. Except for the source's, *error says in a sentence what is wrong. */
int nx_load_archive(const struct nx_load_options *options,
                    struct nx_manifest *ret_manifest,
                    char *error,
                    size_t cap);

#endif
