/* Runs in http workers. Pure functions; see changes_event.h. */
#include "http/changes_event.h"

#include "common/json_out.h"
#include "http/tail.h"

#include <errno.h>

static void put_id(struct text *out, const struct client_offset *at)
{
    nx_text_puts(out, "id: ");
    nx_text_u64(out, at->offset);
    if (at->epoch > 0) {
        nx_text_puts(out, "@");
        nx_text_u64(out, at->epoch);
    }
    nx_text_puts(out, "\n");
}

static bool is_of(const struct nx_op *op, struct nx_slice prefix)
{
    return op->kind != NX_OP_EPOCH && nx_slice_begins(op->key, prefix);
}

static void put_op(struct json *json, const struct nx_op *op)
{
    bool put = op->kind == NX_OP_PUT;

    nx_json_open(json, NULL, '{');
    nx_json_open(json, put ? "put" : "delete", '{');
    nx_json_bytes(json, "key", op->key);
    if (put) {
        nx_json_bytes(json, "value", op->value);
    }
    if ((op->flags & NX_OP_HAS_EXPIRY) != 0) {
        nx_json_u64(json, "expires_at", op->expires_at);
    }
    if ((op->flags & NX_OP_EXPIRED) != 0) {
        nx_json_bool(json, "expired", true);
    }
    nx_json_close(json, '}');
    nx_json_close(json, '}');
}

/* The next operation with the prefix. 1, 0 at the end, or -EBADMSG. */
static int next_match(struct nx_op_iter *iter, struct nx_slice prefix, struct nx_op *ret_op)
{
    int rc;

    do {
        rc = nx_op_next(iter, ret_op);
    } while (rc > 0 && !is_of(ret_op, prefix));
    return rc;
}

int nx_changes_put_entry(struct text *out,
                         const struct nx_entry_header *header,
                         struct nx_slice prefix)
{
    struct client_offset at = {header->offset, header->epoch};
    struct json json = nx_json_of(out);
    struct nx_op_iter iter;
    struct nx_op op;
    int rc;

    nx_op_iter_init(&iter, header->ops, header->ops_length, header->op_count);
    rc = next_match(&iter, prefix, &op);
    if (rc <= 0) {
        return rc;
    }
    put_id(out, &at);
    nx_text_puts(out, "data: ");
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "offset", header->offset);
    nx_json_u64(&json, "epoch", header->epoch);
    nx_json_u64(&json, "timestamp", header->timestamp);
    nx_json_open(&json, "ops", '[');
    for (; rc > 0; rc = next_match(&iter, prefix, &op)) {
        put_op(&json, &op);
    }
    nx_json_close(&json, ']');
    nx_json_close(&json, '}');
    nx_text_puts(out, "\n\n");
    return rc;
}

void nx_changes_put_progress(struct text *out, const struct client_offset *at)
{
    struct json json = nx_json_of(out);

    nx_text_puts(out, "event: progress\n");
    put_id(out, at);
    nx_text_puts(out, "data: ");
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "offset", at->offset);
    if (at->epoch > 0) {
        nx_json_u64(&json, "epoch", at->epoch);
    }
    nx_json_close(&json, '}');
    nx_text_puts(out, "\n\n");
}

int nx_changes_step(struct client_offset *at, const struct nx_entry_header *header)
{
    bool behind = header->offset > at->offset;
    bool another =
        header->offset == at->offset ? header->epoch != at->epoch : header->epoch > at->epoch;

    if (!behind && at->epoch > 0 && another) {
        return -ESTALE;
    }
    if (header->offset >= at->offset) {
        *at = (struct client_offset){header->offset, header->epoch};
    }
    return behind ? 1 : 0;
}

int nx_changes_put_frames(struct text *out,
                          struct client_offset *at,
                          struct nx_slice frames,
                          struct nx_slice prefix)
{
    struct nx_entry_header header;
    int rc = 0;

    while (rc >= 0 && (rc = nx_tail_frame(&frames, &header)) > 0) {
        rc = nx_changes_step(at, &header);
        if (rc > 0) {
            rc = nx_changes_put_entry(out, &header, prefix);
        }
    }
    return rc;
}
