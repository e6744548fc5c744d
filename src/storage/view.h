/* Reading at one offset: skip lists over LMDB (architecture.md, "Reads").
 *
 * A view names a read offset R, the committed state at the moment it was begun. First an LMDB read
 * transaction (base offset B), then R (if R < B, again), then the generations that cover B+1 to R; at
 * the end they must still be the same ones, or what was read is thrown away and read again. So a
 * value, an absence and a page of a list all come from one offset, and nothing unacknowledged shows.
 * Belongs to one process; not shared. Whether a key has expired is the caller's to judge. */
#ifndef NX_STORAGE_VIEW_H
#define NX_STORAGE_VIEW_H

#include "common/shm_layout.h"
#include "storage/state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_VIEW_RETRIES 10

struct nx_view;

/* A reader over the state handle (borrowed) and the shared log. 0 or -ENOMEM. */
int nx_view_create(struct nx_shm *shm, struct nx_state *state, struct nx_view **ret_view);
void nx_view_destroy(struct nx_view *view); /* NULL is fine */

/* What its reads see from now on: the committed state (as it begins), or all that is durable here. */
void nx_view_set_local(struct nx_view *view, bool local);

/* The offset that a read would see now. */
uint64_t nx_view_offset(const struct nx_view *view);

struct nx_item {
    const uint8_t *key; /* get: the caller's */
    size_t key_length;
    const uint8_t *value; /* NULL when not wanted */
    size_t value_length;
    uint64_t offset;     /* version */
    uint64_t expires_at; /* Unix ms, 0: never */
};

/* One key, at one offset, with the retries inside. The value is a private copy, valid until the next
 * call on the view. 0; -ENOENT (absent, *ret_read_offset is still set); -EAGAIN after NX_VIEW_RETRIES
 * (503 overloaded); -EBADMSG (damaged record); -ESTALE (committed offset stays below LMDB's base);
 * -ENOMEM; or an error of the state. want_value false: HEAD, conditions (value_length is still set). */
int nx_view_get(struct nx_view *view,
                const uint8_t *key,
                size_t key_length,
                bool want_value,
                struct nx_item *ret_item,
                uint64_t *ret_read_offset);

/* A page of keys in byte order at one offset: calls `each` for every live key from `start`
 * (inclusive) to below `end` (length 0: no bound), until it returns non-zero or the range ends. What
 * an item points to is valid during that call alone. When generations are recycled under it, it
 * returns -EAGAIN and the caller drops the page and asks again (at most NX_VIEW_RETRIES).
 * *ret_read_offset: the offset of this page. 0, or a negative error as above. */
struct nx_range {
    const uint8_t *start;
    size_t start_length;
    const uint8_t *end;
    size_t end_length;
    bool want_values;
};
int nx_view_scan(struct nx_view *view,
                 const struct nx_range *range,
                 int (*each)(void *arg, const struct nx_item *item),
                 void *arg,
                 uint64_t *ret_read_offset);

#endif
