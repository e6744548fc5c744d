/* Runs in every process; owns nothing. */
#include "common/crc32.h"

#include <zlib.h>

uint32_t nx_crc32(uint32_t crc, const void *p, size_t n)
{
    if (n == 0) {
        return crc; /* zlib would take a NULL p as a wish to start anew */
    }
    return (uint32_t)crc32_z(crc, p, n);
}
