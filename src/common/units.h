/* Numbers as people write them: "64MiB", "10 GB", "30s", "1h". */
#ifndef NX_COMMON_UNITS_H
#define NX_COMMON_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Digits, then for all but a count perhaps blanks and a unit in any case: no sign, no fraction, nothing
 * before or behind. 0, -EINVAL, or -ERANGE above 2^64 - 1.
 *   count    no unit
 *   size     bytes; k, M, G, T, alone or with B or iB: all count in 1024s
 *   ms       a bare number is milliseconds; ms, s, min, h, d
 *   seconds  a bare number is seconds; the same units, as long as whole seconds come out */
int nx_parse_count(const char *text, uint64_t *ret_value);
int nx_parse_size(const char *text, uint64_t *ret_bytes);
int nx_parse_ms(const char *text, uint64_t *ret_ms);
int nx_parse_seconds(const char *text, uint64_t *ret_seconds);

/* In the largest unit that divides it: 8388608 is "8MiB", 90 is "90s", 3600 is "1h", 0 is "0". Returns
 * the length, as snprintf does. */
size_t nx_format_size(uint64_t bytes, char *text, size_t cap);
size_t nx_format_seconds(uint64_t seconds, char *text, size_t cap);

#endif
