/* A growing buffer of bytes, for what has no bound known beforehand: bodies, JSON, operations. It is
 * kept and used again, so that the common request allocates nothing. */
#ifndef NX_COMMON_TEXT_H
#define NX_COMMON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* After a failed allocation `failed` is set and additions do nothing: build it all, look once. */
struct text {
    uint8_t *data;
    size_t length;
    size_t cap;
    bool failed;
};

/* Forgets the bytes, keeps the memory (at most `keep` bytes of it) for the next use. */
void nx_text_reset(struct text *text, size_t keep);

/* Gives the memory back; the text is empty and usable again. */
void nx_text_free(struct text *text);

/* Makes `length` + `more` bytes fit. False (and failed) when memory is short. */
bool nx_text_reserve(struct text *text, size_t more);

/* Appends bytes; false when memory is short. */
bool nx_text_add(struct text *text, const void *bytes, size_t length);

/* Appends a C string. */
bool nx_text_puts(struct text *text, const char *string);

/* Appends a decimal number. */
bool nx_text_u64(struct text *text, uint64_t value);

/* Writes a decimal number at out (at least 20 bytes) and returns its length; no NUL. */
size_t nx_format_u64(char *out, uint64_t value);

#endif
