/* The strict look at a chunked body's framing, before the parser takes the chunks apart: http_parser
 * takes bare LF and junk in chunk lines. It also says where the body ends, so that nothing behind it
 * is ever read as part of it. */
#ifndef NX_HTTP_CHUNK_GUARD_H
#define NX_HTTP_CHUNK_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_CHUNK_MAX_LINE     256  /* a chunk's size and extensions */
#define NX_CHUNK_MAX_TRAILERS 4096 /* bytes of all trailer lines; they are checked and dropped */

struct chunk_guard {
    uint8_t state;
    bool done;     /* the last byte of the body was seen */
    uint32_t line; /* bytes of the chunk line, or of the trailers, so far */
    uint64_t left; /* bytes of data still to come in this chunk */
    const char *why;
};

/* Starts on the next body. */
void nx_chunk_guard_init(struct chunk_guard *guard);

/* Looks at the next n bytes. 0 and *ret_used (how many belong to the body; fewer than n only when it
 * is done), or -EBADMSG: guard->why says what is wrong. */
int nx_chunk_guard(struct chunk_guard *guard, const uint8_t *bytes, size_t n, size_t *ret_used);

#endif
