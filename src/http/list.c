/* Runs in http workers. GET /kv: a page of keys in byte order, all at one offset. */
#include "common/base64.h"
#include "common/entry.h"
#include "common/json_out.h"
#include "common/log_clock.h"
#include "http/bounds.h"
#include "http/connection.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

#include <errno.h>
#include <string.h>

#define DEFAULT_LIMIT 100
#define MAX_LIMIT     10000
#define PAGE_BYTES    (4u << 20) /* of values; a page has at least one item */

struct page {
    struct json json;
    uint64_t limit;
    bool keys_only;
    uint64_t clock_ms; /* what has expired by then isn't there */
    uint64_t count;
    size_t bytes;
    bool more; /* an item didn't fit: `last` is where the next page goes on */
    uint8_t last[NX_MAX_KEY];
    size_t last_length;
};

static int add_item(void *arg, const struct nx_item *item)
{
    struct page *page = arg;

    if (nx_expired(item->expires_at, page->clock_ms)) {
        return 0;
    }
    if (page->count == page->limit ||
        (page->count > 0 && page->bytes + item->value_length > PAGE_BYTES && !page->keys_only)) {
        page->more = true;
        return 1;
    }
    nx_json_open(&page->json, NULL, '{');
    nx_json_bytes(&page->json, "key", nx_slice_of(item->key, item->key_length));
    if (!page->keys_only) {
        nx_json_bytes(&page->json, "value", nx_slice_of(item->value, item->value_length));
        page->bytes += item->value_length;
    }
    nx_json_u64(&page->json, "offset", item->offset);
    if (item->expires_at > 0) {
        nx_json_u64(&page->json, "expires_at", item->expires_at);
    }
    nx_json_close(&page->json, '}');
    memcpy(page->last, item->key, item->key_length);
    page->last_length = item->key_length;
    page->count++;
    return page->json.out->failed ? 1 : 0;
}

/* A cursor is the last key of the page before, in base64; the next page begins right behind it. */
static bool take_cursor(struct connection *connection, struct key_bounds *bounds)
{
    const struct nx_slice *given = nx_query_find(&connection->request->query, "cursor");
    struct text *key = &connection->worker->scratch;

    if (given == NULL) {
        return true;
    }
    nx_text_reset(key, SIZE_MAX);
    if (nx_base64_decode(key, (const char *)given->data, given->length, BASE64_URL) < 0 ||
        key->length == 0 || key->length > NX_MAX_KEY) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "The cursor is none that this server gave; take 'next' of the page before.");
        return false;
    }
    nx_bounds_behind(bounds, nx_slice_of(key->data, key->length));
    return true;
}

static bool take_bounds(struct connection *connection, struct key_bounds *bounds)
{
    struct nx_slice prefix;
    struct nx_slice start;
    struct nx_slice end;

    if (!nx_bounds_param(connection, "prefix", &prefix) ||
        !nx_bounds_param(connection, "start", &start) ||
        !nx_bounds_param(connection, "end", &end)) {
        return false;
    }
    nx_bounds_prefix(bounds, prefix);
    nx_bounds_from(bounds, start);
    if (end.length > 0) {
        nx_bounds_below(bounds, end);
    }
    return take_cursor(connection, bounds);
}

static bool take_options(struct connection *connection, struct page *page)
{
    const struct query *query = &connection->request->query;
    char message[NX_MESSAGE_SIZE];

    page->limit = DEFAULT_LIMIT;
    page->keys_only = false;
    if (nx_query_u64(query, "limit", 1, MAX_LIMIT, &page->limit, message) < 0 ||
        nx_query_bool(query, "keys_only", &page->keys_only, message) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
        return false;
    }
    return true;
}

static void begin_page(struct page *page, struct text *text)
{
    nx_text_reset(text, SIZE_MAX);
    page->json = nx_json_of(text);
    page->count = 0;
    page->bytes = 0;
    page->more = false;
    page->last_length = 0;
    nx_json_open(&page->json, NULL, '{');
    nx_json_open(&page->json, "items", '[');
}

static void end_page(struct page *page, struct text *scratch)
{
    nx_json_close(&page->json, ']');
    if (page->more) {
        nx_text_reset(scratch, SIZE_MAX);
        nx_base64_encode(scratch, page->last, page->last_length, BASE64_URL);
        nx_json_text(&page->json, "next", scratch);
    } else {
        nx_json_null(&page->json, "next");
    }
    nx_json_close(&page->json, '}');
    nx_text_puts(page->json.out, "\n");
}

/* Reads the page; begins anew when generations were recycled under it. */
static int read_page(struct http_worker *worker,
                     const struct key_bounds *bounds,
                     struct page *page,
                     uint64_t *ret_read_offset)
{
    struct nx_range range = {
        .start = bounds->start,
        .start_length = bounds->start_length,
        .end = bounds->end,
        .end_length = bounds->end_length,
        .want_values = !page->keys_only,
    };
    int rc = -EAGAIN;

    for (unsigned i = 0; i < NX_VIEW_RETRIES && rc == -EAGAIN; i++) {
        begin_page(page, &worker->json);
        rc = nx_view_scan(worker->view, &range, add_item, page, ret_read_offset);
    }
    return rc;
}

void nx_handle_list(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct key_bounds bounds = {.start_length = 0};
    struct page page;
    uint64_t read_offset = 0;
    int rc;

    if (!take_options(connection, &page) || !take_bounds(connection, &bounds)) {
        return;
    }
    page.clock_ms = nx_log_clock_ms(worker->shm);
    rc = read_page(worker, &bounds, &page, &read_offset);
    if (rc < 0) {
        nx_refuse_read(connection, rc);
        return;
    }
    end_page(&page, &worker->scratch);
    if (worker->json.failed) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    nx_respond(connection, &(struct response){
                               .status = 200,
                               .type = "application/json",
                               .body = nx_slice_of(worker->json.data, worker->json.length),
                               .has_offset = true,
                               .offset = read_offset,
                               .epoch = nx_node_epoch(worker->shm),
                           });
}
