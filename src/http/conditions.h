/* Offsets as clients write them (N, or N@E with the epoch), entity tags, and the conditions that come
 * of If-Match and If-None-Match. A key's tag is the offset of the entry that last wrote it; 0 stands
 * for a key that is absent. */
#ifndef NX_HTTP_CONDITIONS_H
#define NX_HTTP_CONDITIONS_H

#include "common/bytes.h"
#include "common/submit.h"
#include "common/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_MAX_TAGS 64

/* What a foreign tag ("abc") becomes: well-formed, but no version of any key. */
#define NX_TAG_FOREIGN UINT64_MAX

struct client_offset {
    uint64_t offset;
    uint64_t epoch; /* 0: not given */
};

/* Reads N or N@E. 0 or -EINVAL. */
int nx_client_offset_parse(struct nx_slice text, struct client_offset *ret_offset);

struct tag_list {
    bool any; /* "*" */
    uint32_t count;
    struct client_offset tags[NX_MAX_TAGS];
};

/* Reads a header's value: `*`, or a list of "N", bare N, W/"N" (offsets never repeat, so a weak tag
 * means the same). 0; -EINVAL: not that; -E2BIG: more than NX_MAX_TAGS. */
int nx_tags_parse(struct nx_slice value, struct tag_list *ret_list);

/* True when a key of this version (0: absent) is meant by the list; `*` means any that exists. */
bool nx_tags_match(const struct tag_list *list, uint64_t version);

/* True when the list in a header's value holds this tag (quotes included), or is `*`. weak: W/ before one
 * doesn't matter; else such a tag is never the same. For resources whose tags are no versions. */
bool nx_tag_listed(struct nx_slice value, struct nx_slice tag, bool weak);

/* Appends the condition that `key` is (If-Match) or isn't (none_match: If-None-Match) of the list, as
 * the walwriter judges it. False when memory is short. */
bool nx_tags_condition(struct text *out,
                       struct nx_slice key,
                       const struct tag_list *list,
                       bool none_match);

#endif
