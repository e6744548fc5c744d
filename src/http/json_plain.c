/* Runs in http workers. See json_plain.h. */
#include "http/json_plain.h"

#include "common/json_out.h"

#include <string.h>

#define EACH_BYTE(byte) (0x0101010101010101ull * (byte))
#define HIGH_BITS       EACH_BYTE(0x80)

struct cursor {
    const uint8_t *p;
    const uint8_t *end;
};

/* Whether one of eight bytes is a control byte, a quote or a backslash; bytes from 0x80 on may count as one too (the
 * caller looks closer). A byte that is zero, or below 0x20, borrows from its high bit. */
static bool has_special(uint64_t word)
{
    uint64_t quotes = word ^ EACH_BYTE('"');
    uint64_t slashes = word ^ EACH_BYTE('\\');
    uint64_t special =
        (word - EACH_BYTE(0x20)) | (quotes - EACH_BYTE(1)) | (slashes - EACH_BYTE(1));

    return ((special | word) & HIGH_BITS) != 0;
}

/* A string without escapes and control bytes, of well-formed UTF-8. */
static bool take_string(struct cursor *at, struct nx_slice *ret_inside)
{
    const uint8_t *p = at->p;
    uint8_t all = 0;

    if (p == at->end || *p != '"') {
        return false;
    }
    const uint8_t *begin = ++p;

    for (;;) {
        while (at->end - p >= 8 && !has_special(nx_load_u64(p))) {
            p += 8;
        }
        if (p == at->end || *p < 0x20 || *p == '\\') {
            return false;
        }
        if (*p == '"') {
            break;
        }
        all |= *p++;
    }
    *ret_inside = nx_slice_of(begin, (size_t)(p - begin));
    at->p = p + 1;
    return all < 0x80 || nx_utf8_valid(*ret_inside);
}

static void skip_space(struct cursor *at)
{
    while (at->p < at->end && (*at->p == ' ' || *at->p == '\t')) {
        at->p++;
    }
}

/* A byte of the grammar, and the space around it. */
static bool take_mark(struct cursor *at, uint8_t mark)
{
    skip_space(at);
    if (at->p == at->end || *at->p != mark) {
        return false;
    }
    at->p++;
    skip_space(at);
    return true;
}

/* "key": or "value": and its string, once each. */
static bool take_member(struct cursor *at, struct json_put *put)
{
    struct nx_slice name;
    struct nx_slice *member;

    if (!take_string(at, &name)) {
        return false;
    }
    if (nx_slice_equal(name, nx_slice_text("key"))) {
        member = &put->key;
    } else if (nx_slice_equal(name, nx_slice_text("value"))) {
        member = &put->value;
    } else {
        return false;
    }
    return member->data == NULL && take_mark(at, ':') && take_string(at, member);
}

bool nx_json_plain_put(struct nx_slice line, size_t max_value, struct json_put *put)
{
    struct cursor at = {line.data, line.data + line.length};

    put->key = put->value = nx_slice_of(NULL, 0);
    put->ttl_s = put->expires_at = 0;
    return take_mark(&at, '{') && take_member(&at, put) && take_mark(&at, ',') &&
           take_member(&at, put) && take_mark(&at, '}') && at.p == at.end && put->key.length > 0 &&
           put->key.length <= NX_MAX_KEY && put->value.length <= max_value;
}
