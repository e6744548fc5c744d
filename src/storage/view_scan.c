/* A range of keys at one offset: a merge of up to three skip lists and an LMDB cursor, in bounded
 * memory. Runs in every process that reads. Each source stands at the newest version, as of the read
 * offset, of its next key; the smallest key goes out, of equal ones the newest version. */
#include "storage/view.h"
#include "storage/view_span.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Versions passed one by one before the rest is passed by a search; and whether the list that is
 * being walked is still the one that was begun is looked at as often. */
#define STEPS 8

struct list_source {
    struct nx_skip_pool *pool;
    const struct nx_skip_node *node; /* NULL: at the end */
    struct nx_op op;                 /* of the node, in the arena */
    uint64_t offset;
    uint8_t key[NX_MAX_KEY]; /* private copy */
    size_t key_length;
};

struct scan {
    struct nx_view *view;
    struct nx_view_span span;
    const struct nx_range *range;
    struct list_source lists[NX_GENERATIONS]; /* newest first, span.count of them */
    struct nx_state_cursor *cursor;
    struct nx_record record;
    bool has_record;
};

static struct nx_slice list_key(const struct list_source *list)
{
    return nx_slice_of(list->key, list->key_length);
}

static int check(const struct scan *scan)
{
    return nx_view_holds(scan->view, &scan->span) ? 0 : -EAGAIN;
}

/* Notes the version that the source stands at. */
static int take(struct scan *scan, struct list_source *list)
{
    int rc = nx_view_op(scan->view, list->node, &list->op);

    if (rc < 0) {
        return rc;
    }
    list->offset = list->node->offset;
    list->key_length = list->op.key.length;
    memcpy(list->key, list->op.key.data, list->op.key.length);
    return 0;
}

/* From where the source stands to the first version that the read offset sees. Newer ones of a key
 * are passed: a few by walking, many by a search for (key, read offset). */
static int settle(struct scan *scan, struct list_source *list)
{
    uint64_t read_offset = scan->span.read_offset;
    struct nx_op op;

    for (unsigned steps = 1; list->node != NULL && list->node->offset > read_offset; steps++) {
        if (steps % STEPS != 0) {
            list->node = nx_skip_next(scan->view->shm, list->pool, list->node);
            continue;
        }
        int rc = nx_view_op(scan->view, list->node, &op);

        rc = rc < 0 ? rc : check(scan);
        if (rc < 0) {
            return rc;
        }
        list->node =
            nx_skip_seek(scan->view->shm, list->pool, op.key.data, op.key.length, read_offset);
    }
    return list->node == NULL ? 0 : take(scan, list);
}

/* From where the source stands to the next key. */
static int advance(struct scan *scan, struct list_source *list)
{
    struct nx_op op;

    for (unsigned steps = 1; list->node != NULL; steps++) {
        if (steps % STEPS != 0) {
            list->node = nx_skip_next(scan->view->shm, list->pool, list->node);
        } else {
            /* Offsets begin at 1: offset 0 stands behind all versions of the key. */
            list->node = nx_skip_seek(scan->view->shm, list->pool, list->key, list->key_length, 0);
        }
        if (list->node == NULL) {
            break;
        }
        int rc = nx_view_op(scan->view, list->node, &op);

        if (rc < 0 || (steps % STEPS == 0 && check(scan) < 0)) {
            return -EAGAIN;
        }
        if (!nx_slice_equal(op.key, list_key(list))) {
            return settle(scan, list);
        }
    }
    return 0;
}

static int advance_record(struct scan *scan)
{
    int rc = nx_state_cursor_next(scan->cursor, &scan->record);

    scan->has_record = rc == 0;
    return rc == -ENOENT ? 0 : rc;
}

static int begin_sources(struct scan *scan)
{
    const struct nx_range *range = scan->range;
    struct nx_shm *shm = scan->view->shm;
    int rc = nx_state_cursor_open(scan->view->state, &scan->cursor);

    if (rc < 0) {
        return rc;
    }
    rc = nx_state_cursor_seek(scan->cursor, range->start, range->start_length, &scan->record);
    scan->has_record = rc == 0;
    rc = rc == -ENOENT ? 0 : rc;
    for (unsigned i = 0; i < scan->span.count && rc == 0; i++) {
        struct list_source *list = &scan->lists[i];

        list->pool = nx_skip_pool(shm, scan->span.numbers[i]);
        list->node = range->start_length == 0
                         ? nx_skip_first(shm, list->pool)
                         : nx_skip_seek(shm, list->pool, range->start, range->start_length,
                                        scan->span.read_offset);
        rc = settle(scan, list);
    }
    return rc;
}

/* The smallest key that a source stands at. False: all are at their end, or beyond the range's. */
static bool smallest(const struct scan *scan, struct nx_slice *ret_key)
{
    struct nx_slice key = {NULL, 0};
    bool found = false;

    if (scan->has_record) {
        key = nx_slice_of(scan->record.key, scan->record.key_length);
        found = true;
    }
    for (unsigned i = 0; i < scan->span.count; i++) {
        const struct list_source *list = &scan->lists[i];

        if (list->node != NULL && (!found || nx_slice_compare(list_key(list), key) < 0)) {
            key = list_key(list);
            found = true;
        }
    }
    if (found && scan->range->end_length > 0 &&
        nx_slice_compare(key, nx_slice_of(scan->range->end, scan->range->end_length)) >= 0) {
        return false;
    }
    *ret_key = key;
    return found;
}

/* The newest version of the key that the sources stand at. 1: there is one; 0: it is deleted. */
static int version_of(struct scan *scan, struct nx_slice key, struct nx_item *ret_item)
{
    const struct nx_record *record = &scan->record;

    for (unsigned i = 0; i < scan->span.count; i++) {
        const struct list_source *list = &scan->lists[i];

        if (list->node == NULL || !nx_slice_equal(list_key(list), key)) {
            continue;
        }
        if (list->op.kind != NX_OP_PUT) {
            return 0;
        }
        *ret_item = (struct nx_item){.value = list->op.value.data,
                                     .value_length = list->op.value.length,
                                     .offset = list->offset,
                                     .expires_at = list->op.expires_at};
        if (scan->range->want_values) {
            int rc = nx_view_keep(scan->view, list->op.value.data, list->op.value.length);

            ret_item->value = scan->view->value;
            return rc < 0 ? rc : 1;
        }
        return 1;
    }
    *ret_item = (struct nx_item){.value = record->value,
                                 .value_length = record->value_length,
                                 .offset = record->offset,
                                 .expires_at = record->expires_at};
    return 1;
}

/* Moves all sources that stand at the key, one of which may hold its bytes. */
static int pass(struct scan *scan, const uint8_t *key, size_t key_length)
{
    uint8_t copy[NX_MAX_KEY];
    struct nx_slice passed = nx_slice_of(copy, key_length);
    int rc = 0;

    memcpy(copy, key, key_length);
    for (unsigned i = 0; i < scan->span.count && rc == 0; i++) {
        struct list_source *list = &scan->lists[i];

        if (list->node != NULL && nx_slice_equal(list_key(list), passed)) {
            rc = advance(scan, list);
        }
    }
    if (rc == 0 && scan->has_record &&
        nx_slice_equal(nx_slice_of(scan->record.key, scan->record.key_length), passed)) {
        rc = advance_record(scan);
    }
    return rc;
}

static int run(struct scan *scan, int (*each)(void *arg, const struct nx_item *item), void *arg)
{
    struct nx_slice key;
    int rc = begin_sources(scan);

    while (rc == 0 && smallest(scan, &key)) {
        struct nx_item item = {.value = NULL};

        rc = version_of(scan, key, &item);
        if (rc < 0 || check(scan) < 0) {
            return rc < 0 ? rc : -EAGAIN;
        }
        item.key = key.data;
        item.key_length = key.length;
        item.value = scan->range->want_values ? item.value : NULL;
        if (rc == 1 && each(arg, &item) != 0) {
            break;
        }
        rc = pass(scan, key.data, key.length);
    }
    return rc < 0 ? rc : check(scan);
}

int nx_view_scan(struct nx_view *view,
                 const struct nx_range *range,
                 int (*each)(void *arg, const struct nx_item *item),
                 void *arg,
                 uint64_t *ret_read_offset)
{
    struct scan scan = {.view = view, .range = range};
    int rc = -EAGAIN;

    for (int attempt = 0; attempt < NX_VIEW_RETRIES && rc == -EAGAIN; attempt++) {
        rc = nx_view_begin(view, &scan.span);
    }
    if (rc < 0) {
        return rc;
    }
    rc = run(&scan, each, arg);
    nx_state_cursor_close(scan.cursor);
    nx_state_read_end(view->state);
    if (rc == 0) {
        *ret_read_offset = scan.span.read_offset;
    }
    return rc;
}
