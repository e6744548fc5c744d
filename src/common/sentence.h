/* A sentence that grows in a buffer of fixed size: what doesn't fit is cut. */
#ifndef NX_COMMON_SENTENCE_H
#define NX_COMMON_SENTENCE_H

#include <stddef.h>

struct nx_sentence {
    char *text; /* the caller's; always NUL-terminated */
    size_t cap;
    size_t used; /* without the NUL */
};

/* An empty sentence in text, of which cap (at least 1) bytes may be used, the NUL among them. */
struct nx_sentence nx_sentence_in(char *text, size_t cap);

/* Appends; what finds no room is cut off. */
void nx_say(struct nx_sentence *sentence, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
