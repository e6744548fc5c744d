/* Versions that are appended and not linked yet: their entries are decided, their keys not to be found. They are
 * linked together, which takes a third of the time that one by one takes (skip_list.h): as soon as there are
 * enough of them, before one of their keys is looked up, before their generation ends, and before the group is
 * published. Runs in the walwriter. */
#include "common/skip_list.h"
#include "walwriter/walwriter.h"

#include <string.h>

void nx_unlinked_add(struct walwriter *w, const struct nx_skip_version *version)
{
    w->unlinked[w->unlinked_count++] = *version;
    if (w->unlinked_count == NX_SKIP_BATCH) {
        nx_unlinked_link(w);
    }
}

void nx_unlinked_link(struct walwriter *w)
{
    if (w->unlinked_count > 0) {
        nx_skip_insert(w->shm, nx_skip_pool(w->shm, w->generation), w->unlinked, w->unlinked_count);
        w->unlinked_count = 0;
    }
}

void nx_unlinked_link_key(struct walwriter *w, struct nx_slice key)
{
    for (size_t i = 0; i < w->unlinked_count; i++) {
        const struct nx_slice *other = &w->unlinked[i].key;

        if (other->length == key.length && memcmp(other->data, key.data, key.length) == 0) {
            nx_unlinked_link(w);
            return;
        }
    }
}
