/* Runs in http workers. DELETE /kv?prefix=: all keys with a prefix, page by page in byte order, each page
 * one log entry, in constant memory.
 *
 * The range is gone through once, and only versions that were there when the run began are deleted. Others'
 * newer ones are passed over, many times faster than anybody writes them, so that the run ends. Some are
 * deleted all the same: a key that is written between being seen and its entry is.
 *
 * Pages are read from what is durable here, so that a key written a moment ago is found. Before the answer
 * the walwriter is asked for a judgment that changes nothing: where a quorum is wanted it comes once all
 * that was read is confirmed, as for a single delete that finds nothing. */
#include "common/json_out.h"
#include "common/log_clock.h"
#include "http/bounds.h"
#include "http/conditions.h"
#include "http/connection.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "http/writes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_KEYS 1000
#define PAGE_KEYS  10000 /* looked at in one turn, whether they are deleted or not */
#define PAUSE_MS   1     /* behind a page without any to delete, so that others have their turn */

struct deletion {
    struct key_bounds left; /* what was not gone through yet */
    uint64_t newest;        /* versions above it are not of the run */
    bool whole;             /* the range was gone through */

    /* The page. */
    struct text ops;
    uint32_t count; /* of operations */
    uint32_t seen;  /* keys */
    bool more;      /* the range goes on behind `last` */
    uint64_t clock_ms;
    uint8_t last[NX_MAX_KEY];
    size_t last_length;

    uint64_t deleted;
    uint64_t offset; /* of the last entry; without one, of the moment when the run began */
    uint64_t epoch;
    bool logged; /* there is one */
};

static struct deletion *deletion_of(struct connection *connection)
{
    return connection->request->state;
}

/* ---- answers ---- */

/* What was done before stays done, and the answer says how much that is. */
static void fail(struct connection *connection, struct problem *problem)
{
    const struct deletion *deletion = deletion_of(connection);
    size_t used = strlen(problem->message);

    if (deletion->deleted > 0) {
        snprintf(problem->message + used, sizeof problem->message - used,
                 " Before that %" PRIu64 " keys with the prefix were deleted.", deletion->deleted);
    }
    problem->has_offset = true;
    problem->offset = deletion->offset;
    problem->epoch = deletion->epoch;
    problem->has_deleted = true;
    problem->deleted = deletion->deleted;
    nx_respond_problem(connection, problem);
}

static void fail_as(struct connection *connection, enum nx_error code, const char *message)
{
    struct problem problem = {.code = code};

    snprintf(problem.message, sizeof problem.message, "%s", message);
    fail(connection, &problem);
}

static void fail_refused(struct connection *connection, const struct nx_completion *completion)
{
    struct problem problem = {.has_offset = false};

    nx_write_problem(connection->worker->shm, completion, &problem);
    fail(connection, &problem);
}

static void respond_deleted(struct connection *connection, const struct nx_completion *completion)
{
    const struct deletion *deletion = deletion_of(connection);
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);
    struct nx_completion last = *completion;

    if (deletion->logged) {
        last.offset = deletion->offset;
        last.epoch = deletion->epoch;
    }
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "deleted", deletion->deleted);
    nx_json_u64(&json, "offset", last.offset);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_write_respond(connection, &last, 200, false);
}

/* ---- pages ---- */

static bool add_delete(struct deletion *deletion, const struct nx_item *item)
{
    struct nx_op op = {
        .kind = NX_OP_DELETE,
        .key = nx_slice_of(item->key, item->key_length),
    };
    size_t size = nx_op_encoded_size(&op);
    struct nx_writer writer;

    if (!nx_text_reserve(&deletion->ops, size)) {
        return false;
    }
    writer = nx_writer_of(deletion->ops.data + deletion->ops.length, size);
    if (nx_op_encode(&writer, &op) < 0) {
        return false;
    }
    deletion->ops.length += size;
    deletion->count++;
    return true;
}

static int take_item(void *arg, const struct nx_item *item)
{
    struct deletion *deletion = arg;

    if (deletion->count == ENTRY_KEYS || deletion->seen == PAGE_KEYS) {
        deletion->more = true;
        return 1;
    }
    if (item->offset <= deletion->newest && !nx_expired(item->expires_at, deletion->clock_ms) &&
        !add_delete(deletion, item)) {
        deletion->ops.failed = true;
        return 1;
    }
    memcpy(deletion->last, item->key, item->key_length);
    deletion->last_length = item->key_length;
    deletion->seen++;
    return 0;
}

static void begin_page(struct deletion *deletion)
{
    nx_text_reset(&deletion->ops, SIZE_MAX);
    deletion->count = 0;
    deletion->seen = 0;
    deletion->more = false;
}

/* Reads the page; begins anew when generations were recycled under it. */
static int read_page(struct http_worker *worker, struct deletion *deletion)
{
    struct nx_range range = {
        .start = deletion->left.start,
        .start_length = deletion->left.start_length,
        .end = deletion->left.end,
        .end_length = deletion->left.end_length,
    };
    uint64_t read_offset;
    int rc = nx_worker_open_view(worker);

    if (rc < 0) {
        return rc;
    }
    deletion->clock_ms = nx_log_clock_ms(worker->shm);
    nx_view_set_local(worker->view, true);
    rc = -EAGAIN;
    for (unsigned i = 0; i < NX_VIEW_RETRIES && rc == -EAGAIN; i++) {
        begin_page(deletion);
        rc = nx_view_scan(worker->view, &range, take_item, deletion, &read_offset);
    }
    nx_view_set_local(worker->view, false);
    if (rc == 0 && deletion->ops.failed) {
        rc = -ENOMEM;
    }
    if (rc == 0 && deletion->more) {
        nx_bounds_behind(&deletion->left, nx_slice_of(deletion->last, deletion->last_length));
    }
    if (rc == 0) {
        deletion->whole = !deletion->more;
    }
    return rc;
}

/* ---- the run ---- */

static void note_entry(struct deletion *deletion, const struct nx_completion *completion)
{
    if (completion->status == NX_SUBMIT_DONE) {
        deletion->deleted += completion->hits;
        deletion->offset = completion->offset;
        deletion->epoch = completion->epoch;
        deletion->logged = true;
    }
}

static void settled(struct connection *connection,
                    const struct nx_completion *completion,
                    uint64_t argument)
{
    (void)argument;
    if (completion->status <= NX_SUBMIT_CONDITION) {
        note_entry(deletion_of(connection), completion);
        respond_deleted(connection, completion);
    } else {
        fail_refused(connection, completion);
    }
}

/* Asks for the judgment that changes nothing: a delete on condition that there is nothing to delete. */
static void settle(struct connection *connection)
{
    static const struct tag_list exists = {.any = true};
    struct deletion *deletion = deletion_of(connection);
    struct text *conditions = &connection->request->conditions;
    struct nx_slice prefix;
    struct nx_item item;

    if (!nx_bounds_param(connection, "prefix", &prefix)) {
        return;
    }
    if (prefix.length == 0) {
        prefix = nx_slice_of("", 1); /* any key will do */
    }
    item = (struct nx_item){.key = prefix.data, .key_length = prefix.length};
    begin_page(deletion);
    if (!add_delete(deletion, &item) || !nx_tags_condition(conditions, prefix, &exists, true) ||
        nx_submissions_put(connection, &(struct write_request){
                                           .body = &deletion->ops,
                                           .conditions = conditions,
                                           .op_count = 1,
                                           .condition_count = 1,
                                           .done = settled,
                                       }) < 0) {
        fail_as(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
    }
}

static void go_on(struct connection *connection);

/* Whether nothing speaks against a further page; else it is answered. A client that has ended its side has
 * most likely given up, and what it asked for can't be taken back. */
static bool may_go_on(struct connection *connection)
{
    if (connection->worker->stopping) {
        fail_refused(connection, &(struct nx_completion){.status = NX_SUBMIT_DRAINING});
        return false;
    }
    if (connection->eof) {
        connection->keep_alive = false;
        fail_as(connection, NX_ERROR_BAD_REQUEST,
                "The client ended the connection; no more is deleted.");
        return false;
    }
    return true;
}

static void page_done(struct connection *connection,
                      const struct nx_completion *completion,
                      uint64_t argument)
{
    struct deletion *deletion = deletion_of(connection);

    (void)argument;
    if (completion->status > NX_SUBMIT_NOTHING) {
        fail_refused(connection, completion);
        return;
    }
    note_entry(deletion, completion);
    if (deletion->whole || may_go_on(connection)) {
        go_on(connection);
    }
}

static void submit_page(struct connection *connection)
{
    struct deletion *deletion = deletion_of(connection);

    if (nx_submissions_put(connection, &(struct write_request){
                                           .body = &deletion->ops,
                                           .op_count = deletion->count,
                                           .done = page_done,
                                       }) < 0) {
        fail_as(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
    }
}

static void pause_over(struct connection *connection)
{
    connection->wait_expired = NULL;
    if (may_go_on(connection)) {
        go_on(connection);
    }
}

/* The next page, or the end. */
static void go_on(struct connection *connection)
{
    struct deletion *deletion = deletion_of(connection);
    struct problem problem = {.has_offset = false};
    int rc;

    if (deletion->whole) {
        settle(connection);
        return;
    }
    rc = read_page(connection->worker, deletion);
    if (rc < 0) {
        nx_read_problem(rc, &problem);
        fail(connection, &problem);
    } else if (deletion->count > 0) {
        submit_page(connection);
    } else if (deletion->whole) {
        settle(connection);
    } else {
        connection->wait_expired = pause_over;
        nx_connection_timer(connection, PAUSE_MS);
    }
}

static void on_closed(struct connection *connection)
{
    struct deletion *deletion = deletion_of(connection);

    nx_text_free(&deletion->ops);
    free(deletion);
    connection->request->state = NULL;
}

static const struct stream deletion_stream = {
    .closed = on_closed,
};

/* ---- the beginning ---- */

static bool check_conditions(struct connection *connection)
{
    if (nx_request_header(connection->request, "If-Match") == NULL &&
        nx_request_header(connection->request, "If-None-Match") == NULL) {
        return true;
    }
    nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
              "A delete by prefix takes no If-Match or If-None-Match: they are about one key. "
              "Nothing was deleted.");
    return false;
}

/* The prefix; an empty one is meant only where all=1 says so. False: answered. */
static bool take_prefix(struct connection *connection, struct nx_slice *ret_prefix)
{
    char message[NX_MESSAGE_SIZE];
    bool all = false;

    if (nx_query_bool(&connection->request->query, "all", &all, message) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
        return false;
    }
    if (!nx_bounds_param(connection, "prefix", ret_prefix)) {
        return false;
    }
    if (all && ret_prefix->length > 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Both 'prefix' and all=1 are given; give one of them. Nothing was deleted.");
        return false;
    }
    if (!all && ret_prefix->length == 0) {
        nx_refuse(
            connection, NX_ERROR_BAD_PARAMETER,
            "There is no prefix, which means all keys: give all=1 to delete them all. Nothing "
            "was deleted.");
        return false;
    }
    return true;
}

void nx_handle_delete_prefix(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;
    struct deletion *deletion;
    struct nx_slice prefix;

    if (!check_conditions(connection) || !take_prefix(connection, &prefix)) {
        return;
    }
    deletion = calloc(1, sizeof *deletion);
    if (deletion == NULL) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    nx_bounds_prefix(&deletion->left, prefix);
    deletion->newest = nx_node_durable(shm);
    deletion->offset = deletion->newest;
    deletion->epoch = nx_node_epoch(shm);
    connection->request->state = deletion;
    connection->request->stream = &deletion_stream;
    go_on(connection);
}
