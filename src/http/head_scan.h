/* The strict look at a request's head, byte by byte as it arrives, before any parser sees it.
 *
 * http_parser (as Debian builds it) takes bare LF, folded lines, spaces before colons and more, which
 * is where requests are smuggled between a proxy and a server. So each head must pass here first:
 * token characters in method and names, one space between the parts, CRLF and only CRLF, no control
 * bytes, no NUL, no folding, and nothing longer than it may be. */
#ifndef NX_HTTP_HEAD_SCAN_H
#define NX_HTTP_HEAD_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_HEAD_MAX_METHOD  32
#define NX_HEAD_MAX_TARGET  (16u << 10)
#define NX_HEAD_MAX_HEADERS (32u << 10) /* bytes of all header lines */
#define NX_HEAD_MAX_FIELDS  100

enum head_verdict {
    HEAD_MORE = 0,        /* so far so good, more bytes are needed */
    HEAD_DONE,            /* whole: the first `length` bytes are the head */
    HEAD_BAD,             /* 400: `why` says what is wrong */
    HEAD_TARGET_TOO_LONG, /* 414 */
    HEAD_TOO_LARGE,       /* 431 */
};

struct head_scan {
    uint8_t state;
    uint32_t part;      /* bytes in the part being read */
    uint32_t fields;    /* header lines so far */
    size_t length;      /* bytes looked at */
    size_t fields_from; /* where the header lines begin */
    const char *why;
};

/* Starts on the next head. */
void nx_head_scan_init(struct head_scan *scan);

/* Looks at bytes[scan->length, n): `bytes` is the whole head from its first byte, so far n bytes of
 * it. Call again with more after HEAD_MORE. */
enum head_verdict nx_head_scan(struct head_scan *scan, const char *bytes, size_t n);

/* Whether a byte can stand in a token (RFC 9110, section 5.6.2): a method, a field's name. */
bool nx_is_token(unsigned char c);

#endif
