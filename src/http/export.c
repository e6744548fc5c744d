/* Runs in http workers. GET /export: every live key as NDJSON, at one offset, in constant memory.
 *
 * The checkpointer first merges up to the committed offset; then LMDB alone is read, in one read
 * transaction of a handle of its own, so that the short ones of other requests go on beside it. A long
 * read transaction pins old pages: at most 4 exports run on a node; one whose client takes nothing for 10 s is
 * cut (the connection's write timeout), and so is one that is slow when those pages are wanted (hold.h). A cut
 * stream lacks the final chunk. */
#include "http/export.h"

#include "common/json_out.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/log_clock.h"
#include "common/net.h"
#include "common/quorum.h"
#include "http/bounds.h"
#include "http/connection.h"
#include "http/hold.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <event2/bufferevent.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_EXPORTS      4
#define PIECE_BYTES      (64u << 10) /* a chunk ends with the first line above this */
#define PASS_MOST        10000       /* expired records, in one turn */
#define PASS_PAUSE_MS    1           /* then others have theirs */
#define LOOK_MS          1000        /* whether its pages are wanted */
#define MERGE_TIMEOUT_MS 60000       /* without progress of the checkpointer */

struct export
{
    uint64_t wanted; /* offset to be merged first */
    uint64_t merged; /* how far it was when last seen */
    struct nx_state *state;
    struct nx_state_cursor *cursor;
    bool reading;      /* the transaction is open: */
    struct hold hold;  /* ... since when, on what */
    bool started;      /* the cursor stands somewhere */
    uint64_t clock_ms; /* at the beginning: what has expired by then isn't there */
    uint8_t prefix[NX_MAX_KEY];
    size_t prefix_length;
};

static struct export *export_of(struct connection *connection)
{
    return connection->request->state;
}

/* ---- the node's bound ---- */

static bool take_place(struct http_worker *worker)
{
    uint32_t running = 0;

    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        running += atomic_load_explicit(&worker->shm->http[i].exports, memory_order_relaxed);
    }
    if (running >= MAX_EXPORTS) {
        return false;
    }
    atomic_fetch_add_explicit(&nx_worker_row(worker)->exports, 1, memory_order_relaxed);
    return true;
}

static void on_closed(struct connection *connection)
{
    struct export *export = export_of(connection);

    nx_state_cursor_close(export->cursor);
    if (export->reading) {
        nx_state_read_end(export->state);
    }
    nx_state_close(export->state);
    atomic_fetch_sub_explicit(&nx_worker_row(connection->worker)->exports, 1, memory_order_relaxed);
    LIST_REMOVE(connection, wait_link);
    free(export);
    connection->request->state = NULL;
}

/* ---- lines ---- */

static bool has_prefix(const struct export *export, const struct nx_record *record)
{
    return nx_slice_begins(nx_slice_of(record->key, record->key_length),
                           nx_slice_of(export->prefix, export->prefix_length));
}

/* The next record with the prefix. 0, -ENOENT at the end, or a negative error. */
static int next_record(struct export *export, struct nx_record *ret_record)
{
    struct nx_record record;
    int rc = export->started ? nx_state_cursor_next(export->cursor, &record)
                             : nx_state_cursor_seek(export->cursor, export->prefix,
                                                    export->prefix_length, &record);

    export->started = true;
    if (rc == 0 && !has_prefix(export, &record)) {
        rc = -ENOENT;
    }
    if (rc == 0) {
        *ret_record = record;
    }
    return rc;
}

static void put_line(struct text *text, const struct nx_record *record)
{
    struct json json = nx_json_of(text);

    nx_json_open(&json, NULL, '{');
    nx_json_bytes(&json, "key", nx_slice_of(record->key, record->key_length));
    nx_json_bytes(&json, "value", nx_slice_of(record->value, record->value_length));
    if (record->expires_at > 0) {
        nx_json_u64(&json, "expires_at", record->expires_at);
    }
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
}

/* The next lines. 0, -ENOENT: these are the last ones, or a negative error. */
static int put_lines(struct export *export, struct text *text)
{
    struct nx_record record = {.key = NULL};
    unsigned passed = 0;
    int rc = 0;

    nx_text_reset(text, SIZE_MAX);
    while (text->length < PIECE_BYTES && passed < PASS_MOST && !text->failed && rc == 0) {
        rc = next_record(export, &record);
        if (rc < 0) {
            break;
        }
        if (nx_expired(record.expires_at, export->clock_ms)) {
            passed++;
        } else {
            put_line(text, &record);
        }
    }
    return rc;
}

/* True: it was in the way of writes, and is cut. */
static bool cut_when_harmful(struct connection *connection)
{
    static struct nx_log_limit limit;
    const struct hold *hold = &export_of(connection)->hold;
    const char *why = nx_hold_harms(&connection->worker->shm->checkpoint, hold, nx_now_ms());
    char peer[NX_ADDR_SIZE];

    if (why == NULL) {
        return false;
    }
    nx_net_peer(bufferevent_getfd(connection->bev), peer);
    nx_log_limited(&limit, NX_LOG_WARNING,
                   "an export to %s at offset %" PRIu64 " is cut after %" PRIu64
                   " s: it keeps old pages of the state from being used again, and %s",
                   peer, hold->offset, (nx_now_ms() - hold->since_ms) / 1000, why);
    nx_connection_close(connection);
    return true;
}

/* The client takes its time. */
static void look(struct connection *connection)
{
    if (!cut_when_harmful(connection)) {
        nx_connection_timer(connection, LOOK_MS);
    }
}

/* Sends the next piece; the one behind it follows when the client has taken this one. */
static void send_piece(struct connection *connection)
{
    struct text *text = &connection->worker->json;
    int rc;

    if (cut_when_harmful(connection)) {
        return;
    }
    rc = put_lines(export_of(connection), text);
    if (text->failed || (rc < 0 && rc != -ENOENT)) {
        nx_error("an export is cut: %s", text->failed ? "memory is short" : nx_errno_text(rc));
        nx_connection_close(connection);
        return;
    }
    nx_respond_piece(connection, nx_slice_of(text->data, text->length));
    if (rc == -ENOENT) {
        nx_respond_end(connection);
    } else if (text->length == 0) { /* nothing that a client could take */
        connection->wait_expired = send_piece;
        nx_connection_timer(connection, PASS_PAUSE_MS);
    } else if (connection->wait_expired != look || !connection->timed) {
        connection->wait_expired = look;
        nx_connection_timer(connection, LOOK_MS);
    }
}

/* ---- the beginning ---- */

static int open_state(struct connection *connection, uint64_t *ret_offset, uint64_t *ret_epoch)
{
    struct export *export = export_of(connection);
    struct nx_position base;
    int rc = nx_worker_open_state(connection->worker, &export->state);

    if (rc < 0) {
        return rc;
    }
    rc = nx_state_read_begin(export->state, &base);
    if (rc < 0) {
        return rc;
    }
    export->reading = true;
    export->hold = (struct hold){.since_ms = nx_now_ms(), .offset = base.offset};
    export->clock_ms = nx_log_clock_ms(connection->worker->shm);
    *ret_offset = base.offset;
    *ret_epoch = base.offset == 0 ? nx_node_epoch(connection->worker->shm) : base.epoch;
    return nx_state_cursor_open(export->state, &export->cursor);
}

static void begin(struct connection *connection)
{
    struct response response = {
        .status = 200,
        .type = "application/x-ndjson",
        .has_offset = true,
    };
    int rc = open_state(connection, &response.offset, &response.epoch);

    connection->wait_expired = NULL;
    nx_connection_timer(connection, 0);
    if (rc < 0) {
        nx_refuse_read(connection, rc);
    } else if (nx_respond_begin(connection, &response)) {
        send_piece(connection);
    }
}

static void merge_expired(struct connection *connection)
{
    nx_refuse(connection, NX_ERROR_OVERLOADED,
              "The checkpointer did not bring the state to the committed offset; see this "
              "node's log.");
}

/* Shared memory may have changed: begins when the state has come so far. */
static void on_wake(struct connection *connection)
{
    struct export *export = export_of(connection);
    uint64_t merged = atomic_load_explicit(&connection->worker->shm->checkpoint.checkpoint_offset,
                                           memory_order_acquire);

    if (connection->answering) {
        return;
    }
    if (merged >= export->wanted) {
        begin(connection);
    } else if (merged > export->merged || export->merged == UINT64_MAX) {
        export->merged = merged;
        nx_connection_timer(connection, MERGE_TIMEOUT_MS);
    }
}

static void on_drained(struct connection *connection)
{
    if (connection->answering) {
        send_piece(connection);
    }
}

static const struct stream export_stream = {
    .wake = on_wake,
    .drained = on_drained,
    .closed = on_closed,
};

static void ask_for_merge(struct http_worker *worker, uint64_t offset)
{
    nx_atomic_u64 *wanted = &nx_worker_row(worker)->merge_wanted;

    if (atomic_load_explicit(wanted, memory_order_relaxed) < offset) {
        atomic_store_explicit(wanted, offset, memory_order_release);
    }
    nx_latch_ring(worker->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0));
}

/* Whether the state lacks entries that the checkpointer can't bring to it. */
static bool checkpoint_fails(struct nx_shm *shm)
{
    const struct nx_checkpoint_state *checkpoint = &shm->checkpoint;

    return atomic_load_explicit(&checkpoint->failures, memory_order_relaxed) > 0 &&
           atomic_load_explicit(&checkpoint->checkpoint_offset, memory_order_acquire) <
               nx_committed_offset(shm);
}

void nx_handle_export(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct nx_slice prefix;
    struct export *export;

    if (connection->request->local) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "An export is of the committed state: it can't be had with Nexus-Read: local.");
        return;
    }
    if (!nx_bounds_param(connection, "prefix", &prefix)) {
        return;
    }
    if (checkpoint_fails(worker->shm)) {
        nx_refuse(
            connection, NX_ERROR_OVERLOADED,
            "An export needs the newest entries merged into the state, which fails at the moment "
            "for want of space; see this node's log.");
        return;
    }
    export = calloc(1, sizeof *export);
    if (export == NULL) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    if (!take_place(worker)) {
        free(export);
        nx_refuse(connection, NX_ERROR_TOO_MANY_REQUESTS,
                  "%d exports run on this node, which is the most; try again when one is done.",
                  MAX_EXPORTS);
        return;
    }
    if (prefix.length > 0) {
        memcpy(export->prefix, prefix.data, prefix.length);
        export->prefix_length = prefix.length;
    }
    export->wanted = nx_committed_offset(worker->shm);
    export->merged = UINT64_MAX;
    connection->request->state = export;
    connection->request->stream = &export_stream;
    connection->wait_expired = merge_expired;
    LIST_INSERT_HEAD(&worker->exports, connection, wait_link);
    if (atomic_load_explicit(&worker->shm->checkpoint.checkpoint_offset, memory_order_acquire) <
        export->wanted) {
        ask_for_merge(worker, export->wanted);
    }
    on_wake(connection);
}

bool nx_exports_due(const struct http_worker *worker)
{
    uint64_t merged =
        atomic_load_explicit(&worker->shm->checkpoint.checkpoint_offset, memory_order_acquire);
    struct connection *connection;

    LIST_FOREACH(connection, &worker->exports, wait_link) {
        if (!connection->answering && merged >= export_of(connection)->wanted) {
            return true;
        }
    }
    return false;
}

bool nx_exports_poll(struct http_worker *worker)
{
    struct connection *connection = LIST_FIRST(&worker->exports);
    bool any = false;

    while (connection != NULL) {
        struct connection *next = LIST_NEXT(connection, wait_link);
        bool answering = connection->answering;

        connection->request->stream->wake(connection);
        any = any || connection->answering != answering;
        nx_connection_run(connection);
        connection = next;
    }
    return any;
}
