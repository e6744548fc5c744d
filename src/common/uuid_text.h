/* The text form of a UUID as it comes in messages: not NUL-terminated, and a stranger's. */
#ifndef NX_COMMON_UUID_TEXT_H
#define NX_COMMON_UUID_TEXT_H

#include "common/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NX_UUID_LENGTH 36

/* True for 8-4-4-4-12 hexadecimal digits. */
static inline bool nx_slice_is_uuid(struct nx_slice text)
{
    if (text.length != NX_UUID_LENGTH) {
        return false;
    }
    for (size_t i = 0; i < text.length; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        char c = (char)text.data[i];

        if (dash ? c != '-' : c == '\0' || strchr("0123456789abcdefABCDEF", c) == NULL) {
            return false;
        }
    }
    return true;
}

/* The form in which ids are kept and compared: hexadecimal digits may come in either case. text: found to be a
 * UUID. */
static inline void nx_uuid_canonical(struct nx_slice text, char ret_id[NX_UUID_LENGTH + 1])
{
    for (size_t i = 0; i < NX_UUID_LENGTH; i++) {
        char c = (char)text.data[i];

        ret_id[i] = (char)(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
    }
    ret_id[NX_UUID_LENGTH] = '\0';
}

/* The text of a binary UUID, in that form. */
static inline void nx_uuid_print(const uint8_t uuid[16], char ret_id[NX_UUID_LENGTH + 1])
{
    static const char digits[] = "0123456789abcdef";
    char *at = ret_id;

    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *at++ = '-';
        }
        *at++ = digits[uuid[i] >> 4];
        *at++ = digits[uuid[i] & 15];
    }
    *at = '\0';
}

#endif
