/* Pure functions; see base64.h. */
#include "common/base64.h"

#include <errno.h>
#include <stdbool.h>

static const char alphabets[2][65] = {
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
};

void nx_base64_encode(struct text *out,
                      const uint8_t *bytes,
                      size_t n,
                      enum base64_alphabet alphabet)
{
    const char *letters = alphabets[alphabet];

    if (!nx_text_reserve(out, n / 3 * 4 + 4)) {
        return;
    }
    uint8_t *p = out->data + out->length;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t group = (uint32_t)bytes[i] << 16;
        size_t left = n - i;

        group |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= left > 2 ? (uint32_t)bytes[i + 2] : 0;
        *p++ = (uint8_t)letters[group >> 18];
        *p++ = (uint8_t)letters[(group >> 12) & 63];
        if (left > 1) {
            *p++ = (uint8_t)letters[(group >> 6) & 63];
        }
        if (left > 2) {
            *p++ = (uint8_t)letters[group & 63];
        }
        for (size_t pad = left; pad < 3 && alphabet == BASE64_PLAIN; pad++) {
            *p++ = '=';
        }
    }
    out->length = (size_t)(p - out->data);
}

static int digit(char c, enum base64_alphabet alphabet)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == alphabets[alphabet][62]) {
        return 62;
    }
    return c == alphabets[alphabet][63] ? 63 : -1;
}

/* Length without padding, or -EINVAL: the last group must be 2, 3 or 4 characters, and padding, where
 * there is some, must fill it up to 4. */
static int strip_padding(const char *characters, size_t *n)
{
    size_t length = *n;

    while (length > 0 && *n - length < 2 && characters[length - 1] == '=') {
        length--;
    }
    if (length % 4 == 1 || (length != *n && *n % 4 != 0)) {
        return -EINVAL;
    }
    *n = length;
    return 0;
}

int nx_base64_decode(struct text *out,
                     const char *characters,
                     size_t n,
                     enum base64_alphabet alphabet)
{
    uint32_t bits = 0;
    unsigned have = 0;

    if (strip_padding(characters, &n) < 0) {
        return -EINVAL;
    }
    if (!nx_text_reserve(out, n / 4 * 3 + 3)) {
        return -ENOMEM;
    }
    size_t length = out->length;

    for (size_t i = 0; i < n; i++) {
        int value = digit(characters[i], alphabet);

        if (value < 0) {
            return -EINVAL;
        }
        bits = (bits << 6 | (uint32_t)value) & 0xffff;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out->data[length++] = (uint8_t)(bits >> have);
        }
    }
    if ((bits & ((1u << have) - 1)) != 0) {
        return -EINVAL;
    }
    out->length = length;
    return 0;
}
