/* Range of a request for bytes (RFC 9110, 14): one range is honoured, whatever else it may be is answered
 * with the whole. */
#ifndef NX_HTTP_RANGE_H
#define NX_HTTP_RANGE_H

#include "common/bytes.h"

#include <stdint.h>

enum range_verdict {
    RANGE_WHOLE,   /* several ranges, another unit, or no range at all: as if it weren't there */
    RANGE_PART,    /* *ret_range */
    RANGE_OUTSIDE, /* well-formed, but not a byte of it is there (416) */
};

struct byte_range {
    uint64_t first;
    uint64_t length; /* at least 1 */
};

/* What the value of a Range header means for `size` bytes. */
enum range_verdict nx_range_parse(struct nx_slice value,
                                  uint64_t size,
                                  struct byte_range *ret_range);

#endif
