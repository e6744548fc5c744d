/* Requests for a snapshot that wait: first for the postmaster's answer, then for the job's end. */
#ifndef NX_HTTP_SNAPSHOT_API_H
#define NX_HTTP_SNAPSHOT_API_H

#include "storage/snapshot_files.h"

#include <stdbool.h>

struct connection;
struct http_worker;

/* Answers the requests whose job is over. True when there were any. */
bool nx_snapshots_poll(struct http_worker *worker);

/* Whether nx_snapshots_poll would find any: the second look before the worker sleeps. */
bool nx_snapshots_due(const struct http_worker *worker);

/* This node stops: answers the requests that have no job yet, and, where it stops fast, all others. */
void nx_snapshots_end(struct http_worker *worker, bool fast);

/* The snapshot that the path names, and DATA_DIR/snapshots, which the caller closes. False: answered. */
bool nx_snapshot_take(struct connection *connection,
                      int *ret_dir_fd,
                      struct nx_snapshot_info *ret_info);

/* Says why a snapshot can't be had: 404 for -ENOENT, else 500. */
void nx_snapshot_refuse(struct connection *connection, int error);

#endif
