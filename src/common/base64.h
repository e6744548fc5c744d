/* RFC 4648 base64: the plain alphabet in JSON (key_base64, value_base64), the one that is safe in a
 * query for cursors. */
#ifndef NX_COMMON_BASE64_H
#define NX_COMMON_BASE64_H

#include "common/text.h"

#include <stddef.h>
#include <stdint.h>

enum base64_alphabet {
    BASE64_PLAIN,
    BASE64_URL
};

/* Appends the encoding of n bytes; the plain one is padded, the one for URLs isn't. */
void nx_base64_encode(struct text *out,
                      const uint8_t *bytes,
                      size_t n,
                      enum base64_alphabet alphabet);

/* Appends the bytes that n characters stand for. Padding is optional, but right where it stands; no
 * white space; unused bits must be 0. 0, -EINVAL or -ENOMEM (out is
 * as before). */
int nx_base64_decode(struct text *out,
                     const char *characters,
                     size_t n,
                     enum base64_alphabet alphabet);

#endif
