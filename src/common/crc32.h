/* The CRC of frames, files and records: IEEE 802.3, as in zlib, gzip and zip. The one place to put
 * a faster implementation of the same polynomial. */
#ifndef NX_COMMON_CRC32_H
#define NX_COMMON_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of what gave `crc` (0 = nothing yet) followed by the n bytes at p. p may be NULL when n is
 * 0. */
uint32_t nx_crc32(uint32_t crc, const void *p, size_t n);

#endif
