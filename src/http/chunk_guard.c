/* Runs in http workers. A state machine over the framing bytes of a chunked body (RFC 9112, section
 * 7.1, read strictly); data is skipped, not looked at. See chunk_guard.h. */
#include "http/chunk_guard.h"

#include "http/head_scan.h"

#include <errno.h>

enum state {
    SIZE_FIRST = 0,
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_START,
    TRAILER_NAME,
    TRAILER,
    TRAILER_LF,
    END_LF,
};

static int bad(struct chunk_guard *guard, const char *why)
{
    guard->why = why;
    return -EBADMSG;
}

void nx_chunk_guard_init(struct chunk_guard *guard)
{
    *guard = (struct chunk_guard){.state = SIZE_FIRST};
}

static int go(struct chunk_guard *guard, enum state state)
{
    guard->state = (uint8_t)state;
    return 0;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int size_byte(struct chunk_guard *guard, uint8_t c)
{
    int value = hex_digit(c);

    if (value >= 0) {
        /* Fifteen digits are more than any body; a sixteenth could overflow in the parser. */
        if (guard->line > 15 || guard->left >> 56 != 0) {
            return bad(guard, "a chunk size is too large");
        }
        guard->left = guard->left << 4 | (uint64_t)value;
        return go(guard, SIZE);
    }
    if (guard->state == SIZE_FIRST) {
        return bad(guard, "a chunk size isn't hexadecimal");
    }
    if (c == '\r') {
        return go(guard, SIZE_LF);
    }
    return c == ';' ? go(guard, EXTENSION) : bad(guard, "a chunk size isn't hexadecimal");
}

static int printable(struct chunk_guard *guard, uint8_t c, const char *why)
{
    return (c >= ' ' && c != 0x7f) || c == '\t' ? 0 : bad(guard, why);
}

static int extension_byte(struct chunk_guard *guard, uint8_t c)
{
    return c == '\r' ? go(guard, SIZE_LF)
                     : printable(guard, c, "a control byte in a chunk extension");
}

static int size_lf_byte(struct chunk_guard *guard, uint8_t c)
{
    if (c != '\n') {
        return bad(guard, "a CR without LF in a chunk line");
    }
    guard->line = 0;
    return go(guard, guard->left > 0 ? DATA : TRAILER_START);
}

static int trailer_byte(struct chunk_guard *guard, uint8_t c)
{
    if (guard->state == TRAILER) {
        return c == '\r' ? go(guard, TRAILER_LF)
                         : printable(guard, c, "a control byte in a trailer");
    }
    if (guard->state == TRAILER_START && c == '\r') {
        return go(guard, END_LF);
    }
    if (guard->state == TRAILER_NAME && c == ':') {
        return go(guard, TRAILER);
    }
    return nx_is_token(c) ? go(guard, TRAILER_NAME) : bad(guard, "a malformed trailer line");
}

static int expect(struct chunk_guard *guard, bool right, enum state next)
{
    guard->line = 0;
    return right ? go(guard, next) : bad(guard, "a chunk doesn't end in CRLF");
}

static int step(struct chunk_guard *guard, uint8_t c)
{
    guard->line++;
    switch ((enum state)guard->state) {
    case SIZE_FIRST:
    case SIZE:
        return size_byte(guard, c);
    case EXTENSION:
        return guard->line > NX_CHUNK_MAX_LINE ? bad(guard, "a chunk line is too long")
                                               : extension_byte(guard, c);
    case SIZE_LF:
        return size_lf_byte(guard, c);
    case DATA:
    case DATA_CR:
        return expect(guard, c == '\r', DATA_LF);
    case DATA_LF:
        return expect(guard, c == '\n', SIZE_FIRST);
    case TRAILER_START:
    case TRAILER_NAME:
    case TRAILER:
        return guard->line > NX_CHUNK_MAX_TRAILERS ? bad(guard, "the trailers are too long")
                                                   : trailer_byte(guard, c);
    case TRAILER_LF:
        return c == '\n' ? go(guard, TRAILER_START) : bad(guard, "a CR without LF in a trailer");
    case END_LF:
        guard->done = c == '\n';
        return guard->done ? 0 : bad(guard, "a CR without LF after the last chunk");
    }
    return bad(guard, "malformed");
}

int nx_chunk_guard(struct chunk_guard *guard, const uint8_t *bytes, size_t n, size_t *ret_used)
{
    size_t used = 0;

    while (used < n && !guard->done) {
        if (guard->state == DATA) {
            size_t skip = guard->left < n - used ? (size_t)guard->left : n - used;

            guard->left -= skip;
            used += skip;
            guard->state = guard->left == 0 ? DATA_CR : DATA;
            continue;
        }
        int rc = step(guard, bytes[used++]);

        if (rc < 0) {
            return rc;
        }
    }
    *ret_used = used;
    return 0;
}
