/* Runs in every process; owns nothing. */
#include "common/crc32.h"

#include <libdeflate.h>

uint32_t nx_crc32(uint32_t crc, const void *p, size_t n)
{
    if (n == 0) {
        return crc; /* libdeflate would take a NULL p as a wish to start anew */
    }
    return libdeflate_crc32(crc, p, n);
}
