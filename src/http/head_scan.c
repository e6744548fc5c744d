/* Runs in http workers. A state machine over the bytes of a request's head (RFC 9112, sections 2 to
 * 5, read strictly); no allocation, no state but its own. See head_scan.h. */
#include "http/head_scan.h"

#include <string.h>

enum state {
    AT_START = 0, /* one empty line before a request is let pass, as RFC 9112 2.2 asks */
    START_LF,
    METHOD,
    TARGET,
    VERSION,
    LINE_LF,
    FIELD_START,
    NAME,
    VALUE,
    VALUE_LF,
    END_LF,
};

bool nx_is_token(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static enum head_verdict bad(struct head_scan *scan, const char *why)
{
    scan->why = why;
    return HEAD_BAD;
}

void nx_head_scan_init(struct head_scan *scan)
{
    *scan = (struct head_scan){.state = AT_START};
}

static enum head_verdict go(struct head_scan *scan, enum state state)
{
    scan->state = (uint8_t)state;
    scan->part = 0;
    return HEAD_MORE;
}

static enum head_verdict expect_lf(struct head_scan *scan, unsigned char c, enum state next)
{
    return c == '\n' ? go(scan, next) : bad(scan, "a CR without LF");
}

static enum head_verdict method_byte(struct head_scan *scan, unsigned char c)
{
    if (c == ' ' && scan->part > 0) {
        return go(scan, TARGET);
    }
    if (!nx_is_token(c)) {
        return bad(scan, "the request line doesn't begin with a method and one space");
    }
    return ++scan->part > NX_HEAD_MAX_METHOD ? bad(scan, "the method is too long") : HEAD_MORE;
}

static enum head_verdict target_byte(struct head_scan *scan, unsigned char c)
{
    if (c == ' ' && scan->part > 0) {
        return go(scan, VERSION);
    }
    if (c <= ' ' || c == 0x7f) {
        return bad(scan, "a space or control byte in the request target (percent-encode it)");
    }
    return ++scan->part > NX_HEAD_MAX_TARGET ? HEAD_TARGET_TOO_LONG : HEAD_MORE;
}

static enum head_verdict version_byte(struct head_scan *scan, unsigned char c)
{
    static const char version[] = "HTTP/1.";

    if (c == '\r' && scan->part == sizeof version) {
        return go(scan, LINE_LF);
    }
    if (scan->part < sizeof version - 1
            ? c != (unsigned char)version[scan->part]
            : scan->part > sizeof version - 1 || (c != '0' && c != '1')) {
        return bad(scan, "the request line must end in HTTP/1.1 or HTTP/1.0 and CRLF");
    }
    scan->part++;
    return HEAD_MORE;
}

static enum head_verdict field_start_byte(struct head_scan *scan, unsigned char c)
{
    if (c == '\r') {
        return go(scan, END_LF);
    }
    if (c == ' ' || c == '\t') {
        return bad(scan, "a folded header line");
    }
    if (!nx_is_token(c)) {
        return bad(scan, "a header line without a name");
    }
    if (++scan->fields > NX_HEAD_MAX_FIELDS) {
        return HEAD_TOO_LARGE;
    }
    return go(scan, NAME);
}

static enum head_verdict name_byte(struct head_scan *scan, unsigned char c)
{
    if (c == ':') {
        return go(scan, VALUE);
    }
    if (c == ' ' || c == '\t') {
        return bad(scan, "a space before the colon of a header line");
    }
    return nx_is_token(c) ? HEAD_MORE
                          : bad(scan, "a header line without a colon, or a bad byte in a name");
}

static enum head_verdict value_byte(struct head_scan *scan, unsigned char c)
{
    if (c == '\r') {
        return go(scan, VALUE_LF);
    }
    if (c == '\n') {
        return bad(scan, "a header line that ends in a bare LF");
    }
    return (c >= ' ' && c != 0x7f) || c == '\t' ? HEAD_MORE
                                                : bad(scan, "a control byte in a header's value");
}

static enum head_verdict start_byte(struct head_scan *scan, unsigned char c)
{
    if (c == '\r') {
        return go(scan, START_LF);
    }
    go(scan, METHOD);
    return method_byte(scan, c);
}

static enum head_verdict step(struct head_scan *scan, unsigned char c)
{
    switch ((enum state)scan->state) {
    case AT_START:
        return start_byte(scan, c);
    case START_LF:
        return expect_lf(scan, c, METHOD);
    case METHOD:
        return method_byte(scan, c);
    case TARGET:
        return target_byte(scan, c);
    case VERSION:
        return version_byte(scan, c);
    case LINE_LF:
        scan->fields_from = scan->length + 1;
        return expect_lf(scan, c, FIELD_START);
    case FIELD_START:
        return field_start_byte(scan, c);
    case NAME:
        return name_byte(scan, c);
    case VALUE:
        return value_byte(scan, c);
    case VALUE_LF:
        return expect_lf(scan, c, FIELD_START);
    case END_LF:
        return c == '\n' ? HEAD_DONE : bad(scan, "a CR without LF");
    }
    return bad(scan, "malformed");
}

enum head_verdict nx_head_scan(struct head_scan *scan, const char *bytes, size_t n)
{
    enum head_verdict verdict = HEAD_MORE;

    while (verdict == HEAD_MORE && scan->length < n) {
        verdict = step(scan, (unsigned char)bytes[scan->length]);
        scan->length++;
        if (scan->fields_from > 0 && scan->length - scan->fields_from > NX_HEAD_MAX_HEADERS &&
            verdict != HEAD_BAD) {
            verdict = HEAD_TOO_LARGE;
        }
    }
    return verdict;
}
