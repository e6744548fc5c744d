/* Runs in http workers. POST /import: NDJSON in, log entries out, in constant memory: lines are read as
 * they come, gathered into entries, and reading stops while enough entries are under way.
 *
 * A line stores a key or deletes it; deleting one that isn't there is done without an entry.
 *
 * The answer comes when nothing is under way any more. Of several entries that fail the first in the
 * client's order counts: `imported` lines are stored without a gap, `line` is the first that may not
 * be; entries behind it may be stored too, and importing them again does no harm. */
#include "common/json_out.h"
#include "http/connection.h"
#include "http/json_in.h"
#include "http/json_plain.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "http/writes.h"

#include <json-c/json.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_LINES 1000
#define ENTRY_BYTES (1u << 20)
#define MAX_ENTRIES 4 /* under way at one time */
#define PLACE_SIZE  40
#define LINE_KEEP   (256u << 10)
/* A byte of a value takes at most six of JSON ("\u0001"); names, key and base64 take less. */
#define LINE_FACTOR   6
#define LINE_OVERHEAD (8u << 10)

/* One piece of the body completes at most one entry, its end and a bad line one more. */
#define ENTRY_PLACES (MAX_ENTRIES + 4)

/* One entry under way, at the place of its number modulo ENTRY_PLACES. */
struct under_way {
    uint64_t first_line; /* its first line, blank ones before it not counted */
    uint64_t lines;      /* that it holds */
    uint64_t offset;     /* of its log entry; without one: what it was judged on */
    bool finished;
    bool done;   /* what its lines say is so */
    bool logged; /* there was something to do */
};

struct import {
    struct text line; /* the line that is not whole yet */
    struct text ops;  /* of the entry being gathered */
    struct json_put item;
    uint64_t line_number; /* lines seen, blank ones too */
    uint64_t gathered;    /* lines in ops */
    uint64_t first_line;  /* of ops */
    uint64_t begun;       /* entries submitted */
    uint64_t settled;     /* entries finished, counted without a gap */
    struct under_way entries[ENTRY_PLACES];

    uint64_t imported; /* lines in entries that are stored without a gap */
    uint64_t entries_stored;
    uint64_t offset; /* of the last of them */
    uint64_t epoch;

    bool ended;  /* all lines are read */
    bool failed; /* problem is set; no further line is looked at */
    struct problem problem;
};

static struct import *import_of(struct connection *connection)
{
    return connection->request->state;
}

static uint64_t under_way(const struct import *import)
{
    return import->begun - import->settled;
}

/* ---- answers ---- */

static void respond_imported(struct connection *connection, const struct import *import)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);
    struct nx_completion completion = {.offset = import->offset, .epoch = import->epoch};

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "imported", import->imported);
    nx_json_u64(&json, "entries", import->entries_stored);
    nx_json_u64(&json, "offset", import->offset);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_write_respond(connection, &completion, 200, false);
}

static void respond_failed(struct connection *connection, struct import *import)
{
    struct problem problem = import->problem;

    problem.has_offset = true;
    problem.offset = import->offset;
    problem.epoch = import->epoch;
    problem.has_progress = true;
    problem.imported = import->imported;
    problem.entries = import->entries_stored;
    nx_respond_problem(connection, &problem);
}

/* Answers as soon as all is known. */
static void settle(struct connection *connection)
{
    struct import *import = import_of(connection);

    if (under_way(import) > 0 || !(import->ended || import->failed)) {
        return;
    }
    if (import->failed) {
        respond_failed(connection, import);
    } else {
        respond_imported(connection, import);
    }
}

static void fail(struct import *import, uint64_t line, const struct problem *problem)
{
    if (import->failed && import->problem.line <= line) {
        return; /* an earlier line is to blame */
    }
    import->failed = true;
    import->problem = *problem;
    import->problem.line = line;
}

static void fail_line(struct import *import, uint64_t line, enum nx_error code, const char *message)
{
    struct problem problem = {.code = code};

    snprintf(problem.message, sizeof problem.message, "%s", message);
    fail(import, line, &problem);
}

static void fail_memory(struct import *import, uint64_t line)
{
    fail(import, line,
         &(struct problem){
             .code = NX_ERROR_OVERLOADED,
             .message = "Memory is short on this node.",
         });
}

/* ---- entries ---- */

static struct under_way *entry_at(struct import *import, uint64_t number)
{
    return &import->entries[number % ENTRY_PLACES];
}

/* Counts what is finished without a gap before it. */
static void count_settled(struct import *import)
{
    while (import->settled < import->begun && entry_at(import, import->settled)->finished) {
        const struct under_way *entry = entry_at(import, import->settled);

        import->settled++;
        if (entry->done && !(import->failed && import->problem.line <= entry->first_line)) {
            import->imported += entry->lines;
            import->entries_stored += entry->logged ? 1 : 0;
            import->offset = entry->offset;
        }
    }
}

static void entry_done(struct connection *connection,
                       const struct nx_completion *completion,
                       uint64_t number)
{
    struct import *import = import_of(connection);
    struct under_way *entry = entry_at(import, number);

    entry->finished = true;
    entry->logged = completion->status == NX_SUBMIT_DONE;
    entry->done = entry->logged || completion->status == NX_SUBMIT_NOTHING;
    if (entry->done) {
        entry->offset = completion->offset;
        import->epoch = completion->epoch;
    } else {
        struct problem problem = {.has_offset = false};

        nx_write_problem(connection->worker->shm, completion, &problem);
        fail(import, entry->first_line, &problem);
    }
    count_settled(import);
    if (under_way(import) < MAX_ENTRIES) {
        nx_connection_release(connection);
    }
    settle(connection);
}

/* Submits what is gathered. */
static void submit(struct connection *connection, struct import *import)
{
    struct under_way *entry = entry_at(import, import->begun);
    int rc;

    if (import->gathered == 0) {
        return;
    }
    *entry = (struct under_way){.first_line = import->first_line, .lines = import->gathered};
    rc = nx_submissions_put(connection, &(struct write_request){
                                            .body = &import->ops,
                                            .op_count = (uint32_t)import->gathered,
                                            .done = entry_done,
                                            .argument = import->begun,
                                        });
    nx_text_reset(&import->ops, (size_t)2 * ENTRY_BYTES);
    import->gathered = 0;
    if (rc < 0) {
        fail_memory(import, entry->first_line);
        return;
    }
    import->begun++;
    if (under_way(import) >= MAX_ENTRIES) {
        nx_connection_hold(connection);
    }
}

/* ---- lines ---- */

static void add_line(struct connection *connection, struct import *import, bool delete)
{
    struct nx_op op = {.kind = NX_OP_DELETE, .key = import->item.key};
    size_t size;

    if (!delete) {
        op = nx_json_put_op(&import->item, connection->worker->shm);
    }
    size = nx_op_encoded_size(&op);

    if (import->gathered > 0 && import->ops.length + size > ENTRY_BYTES) {
        submit(connection, import);
    }
    if (!nx_text_reserve(&import->ops, size)) {
        fail_memory(import, import->line_number);
        return;
    }
    struct nx_writer writer = nx_writer_of(import->ops.data + import->ops.length, size);

    if (nx_op_encode(&writer, &op) < 0) {
        fail_line(import, import->line_number, NX_ERROR_BAD_JSON, "The line can't be stored.");
        return;
    }
    import->ops.length += size;
    if (import->gathered == 0) {
        import->first_line = import->line_number;
    }
    import->gathered++;
    if (import->gathered == ENTRY_LINES) {
        submit(connection, import);
    }
}

static bool is_blank(struct nx_slice line)
{
    for (size_t i = 0; i < line.length; i++) {
        if (line.data[i] != ' ' && line.data[i] != '\t') {
            return false;
        }
    }
    return true;
}

/* A file that 'curl -d @FILE' has sent is one line. */
static void hint_at_line_ends(struct nx_slice line, struct json_fault *fault)
{
    size_t used = strlen(fault->message);

    if (memmem(line.data, line.length, "}{", 2) != NULL) {
        snprintf(
            fault->message + used, sizeof fault->message - used,
            " Several objects stand on one line: curl keeps line ends with --data-binary @FILE "
            "and -T FILE, not with -d.");
    }
}

/* One whole line, without its LF. */
static void take_line(struct connection *connection, struct import *import, struct nx_slice line)
{
    size_t max_value = (size_t)connection->worker->process->config->http.max_value_size;
    struct json_object *object = NULL;
    struct json_fault fault;
    char place[PLACE_SIZE];
    bool delete;

    import->line_number++;
    if (line.length > 0 && line.data[line.length - 1] == '\r') {
        line.length--;
    }
    if (is_blank(line)) {
        return;
    }
    if (nx_json_plain_put(line, max_value, &import->item)) {
        add_line(connection, import, false);
        return;
    }
    snprintf(place, sizeof place, "Line %" PRIu64, import->line_number);
    if (nx_json_parse(connection->worker->tokener, line, &object, &fault) < 0) {
        struct json_fault at_line;

        hint_at_line_ends(line, &fault);
        (void)nx_json_fault(&at_line, fault.code, "%s: %.*s", place,
                            (int)(sizeof fault.message - 64), fault.message);
        fail_line(import, import->line_number, at_line.code, at_line.message);
        return;
    }
    if (nx_json_line_of(object, place, max_value, &import->item, &delete, &fault) < 0) {
        fail_line(import, import->line_number, fault.code, fault.message);
    } else {
        add_line(connection, import, delete);
    }
    json_object_put(object);
}

/* Keeps the beginning of a line whose end has not come yet. */
static void keep_part(struct connection *connection, struct import *import, struct nx_slice part)
{
    size_t most = (size_t)connection->worker->process->config->http.max_value_size * LINE_FACTOR +
                  LINE_OVERHEAD;

    if (import->line.length + part.length > most) {
        fail_line(import, import->line_number + 1, NX_ERROR_VALUE_TOO_LARGE,
                  "The line is longer than any with a value of http.max_value_size.");
    } else if (!nx_connection_reserve(connection, import->line.length + part.length) ||
               !nx_text_add(&import->line, part.data, part.length)) {
        fail_memory(import, import->line_number + 1);
    }
}

static void take_lines(struct connection *connection, struct import *import, struct nx_slice bytes)
{
    while (bytes.length > 0 && !import->failed) {
        const uint8_t *lf = memchr(bytes.data, '\n', bytes.length);
        size_t length = lf == NULL ? bytes.length : (size_t)(lf - bytes.data);

        if (lf == NULL || import->line.length > 0) {
            keep_part(connection, import, nx_slice_of(bytes.data, length));
        }
        if (lf == NULL || import->failed) {
            return;
        }
        if (import->line.length > 0) {
            take_line(connection, import, nx_slice_of(import->line.data, import->line.length));
            nx_text_reset(&import->line, LINE_KEEP);
        } else {
            take_line(connection, import, nx_slice_of(bytes.data, length));
        }
        bytes = nx_slice_of(lf + 1, bytes.length - length - 1);
    }
}

/* ---- the stream ---- */

static void on_data(struct connection *connection, struct nx_slice bytes)
{
    struct import *import = import_of(connection);
    bool failed_before = import->failed;

    take_lines(connection, import, bytes);
    if (import->failed && !failed_before) {
        submit(connection, import); /* the lines before the bad one are good */
        settle(connection);
    }
}

static void on_end(struct connection *connection)
{
    struct import *import = import_of(connection);

    if (import->line.length > 0 && !import->failed) {
        take_line(connection, import, nx_slice_of(import->line.data, import->line.length));
    }
    submit(connection, import);
    import->ended = true;
    settle(connection);
}

static void on_closed(struct connection *connection)
{
    struct import *import = import_of(connection);

    nx_text_free(&import->line);
    nx_text_free(&import->ops);
    nx_json_put_free(&import->item);
    free(import);
    connection->request->state = NULL;
}

static const struct stream import_stream = {
    .data = on_data,
    .end = on_end,
    .closed = on_closed,
};

void nx_handle_import(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;
    struct import *import = calloc(1, sizeof *import);

    if (import == NULL) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    import->offset = nx_node_durable(shm);
    import->epoch = nx_node_epoch(shm);
    connection->request->state = import;
    connection->request->stream = &import_stream;
}
