/* A buffer that grows by doubling; see text.h. */
#include "common/text.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 512

void nx_text_free(struct text *text)
{
    free(text->data);
    *text = (struct text){.data = NULL};
}

void nx_text_reset(struct text *text, size_t keep)
{
    if (text->cap > keep) {
        nx_text_free(text);
    }
    text->length = 0;
    text->failed = false;
}

bool nx_text_reserve(struct text *text, size_t more)
{
    size_t needed;
    size_t cap = text->cap == 0 ? FIRST_CAP : text->cap;

    if (text->failed || __builtin_add_overflow(text->length, more, &needed)) {
        text->failed = true;
        return false;
    }
    if (needed <= text->cap) {
        return true;
    }
    while (cap < needed) {
        cap = cap > SIZE_MAX / 2 ? needed : cap * 2;
    }
    uint8_t *data = realloc(text->data, cap);

    if (data == NULL) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->cap = cap;
    return true;
}

bool nx_text_add(struct text *text, const void *bytes, size_t length)
{
    if (!nx_text_reserve(text, length)) {
        return false;
    }
    if (length > 0) {
        memcpy(text->data + text->length, bytes, length);
        text->length += length;
    }
    return true;
}

bool nx_text_puts(struct text *text, const char *string)
{
    return nx_text_add(text, string, strlen(string));
}

size_t nx_format_u64(char *out, uint64_t value)
{
    char digits[20];
    size_t n = 0;

    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    for (size_t i = 0; i < n; i++) {
        out[i] = digits[n - 1 - i];
    }
    return n;
}

bool nx_text_u64(struct text *text, uint64_t value)
{
    char digits[20];

    return nx_text_add(text, digits, nx_format_u64(digits, value));
}
