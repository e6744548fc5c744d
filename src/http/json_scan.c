/* Runs in http workers. Pure; one pass, no allocation. See json_scan.h. */
#include "http/json_scan.h"

#include "common/json_out.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct level {
    bool object;
    bool want_name; /* the next string is a member's name */
    unsigned count;
    struct nx_slice names[NX_JSON_MAX_MEMBERS];
};

struct scan {
    const uint8_t *start;
    const uint8_t *p;
    const uint8_t *end;
    char *message;
    unsigned nodes; /* objects and arrays */
    unsigned values;
    unsigned depth;
    struct level levels[NX_JSON_MAX_DEPTH];
};

static int bad(const struct scan *scan, const char *why)
{
    snprintf(scan->message, NX_MESSAGE_SIZE, "The JSON is not acceptable at byte %zu: %s.",
             (size_t)(scan->p - scan->start) + 1, why);
    return -EINVAL;
}

/* The four digits of \uXXXX at p; -1 when they aren't there. */
static int unicode_digits(const uint8_t *p, const uint8_t *end)
{
    int value = 0;

    if (end - p < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i];

        if (c >= '0' && c <= '9') {
            value = value << 4 | (c - '0');
        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            value = value << 4 | ((c | 0x20) - 'a' + 10);
        } else {
            return -1;
        }
    }
    return value;
}

/* p stands behind "\u". A high surrogate must be followed by a low one, a low one by nothing. */
static int unicode_escape(struct scan *scan)
{
    int unit = unicode_digits(scan->p, scan->end);

    if (unit < 0) {
        return bad(scan, "four hexadecimal digits must follow \\u");
    }
    scan->p += 4;
    if (unit < 0xd800 || unit > 0xdfff) {
        return 0;
    }
    int low = scan->end - scan->p >= 6 && scan->p[0] == '\\' && scan->p[1] == 'u'
                  ? unicode_digits(scan->p + 2, scan->end)
                  : -1;

    if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff) {
        return bad(scan, "a lone surrogate stands for no character");
    }
    scan->p += 6;
    return 0;
}

/* p stands at the opening quote; afterwards behind the closing one. */
static int scan_string(struct scan *scan, struct nx_slice *ret_inside, bool *ret_escaped)
{
    const uint8_t *from = ++scan->p;
    bool escaped = false;

    while (scan->p < scan->end && *scan->p != '"') {
        uint8_t c = *scan->p;

        if (c < ' ') {
            return bad(scan, "a control byte in a string; escape it");
        }
        scan->p++;
        if (c != '\\') {
            continue;
        }
        escaped = true;
        c = scan->p < scan->end ? *scan->p : 0;
        if (c == 0 || strchr("\"\\/bfnrtu", c) == NULL) {
            return bad(scan, "an unknown escape in a string");
        }
        scan->p++;
        if (c == 'u' && unicode_escape(scan) < 0) {
            return -EINVAL;
        }
    }
    if (scan->p == scan->end) {
        return bad(scan, "a string without its closing quote");
    }
    *ret_inside = nx_slice_of(from, (size_t)(scan->p - from));
    *ret_escaped = escaped;
    scan->p++;
    return 0;
}

static int add_name(struct scan *scan, struct level *level, struct nx_slice name, bool escaped)
{
    if (escaped) {
        return bad(scan, "a member's name is escaped; write it plainly");
    }
    if (level->count == NX_JSON_MAX_MEMBERS) {
        return bad(scan, "an object has too many members");
    }
    for (unsigned i = 0; i < level->count; i++) {
        if (nx_slice_equal(level->names[i], name)) {
            snprintf(scan->message, NX_MESSAGE_SIZE,
                     "Member \"%.*s\" stands twice in one object (at byte %zu).",
                     (int)(name.length < 40 ? name.length : 40), (const char *)name.data,
                     (size_t)(name.data - scan->start) + 1);
            return -EINVAL;
        }
    }
    level->names[level->count++] = name;
    level->want_name = false;
    return 0;
}

static int scan_token_string(struct scan *scan)
{
    struct nx_slice inside;
    bool escaped;

    if (scan_string(scan, &inside, &escaped) < 0) {
        return -EINVAL;
    }
    struct level *level = scan->depth > 0 ? &scan->levels[scan->depth - 1] : NULL;

    return level != NULL && level->object && level->want_name
               ? add_name(scan, level, inside, escaped)
               : 0;
}

static int too_much(const struct scan *scan)
{
    snprintf(
        scan->message, NX_MESSAGE_SIZE,
        "The JSON has more objects or values than a batch of %d operations (at byte %zu); send "
        "it as several.",
        NX_MAX_OPS, (size_t)(scan->p - scan->start) + 1);
    return -E2BIG;
}

static int open_level(struct scan *scan, bool object)
{
    if (++scan->nodes > NX_JSON_MAX_NODES) {
        return too_much(scan);
    }
    if (scan->depth == NX_JSON_MAX_DEPTH) {
        return bad(scan, "it is nested too deeply");
    }
    struct level *level = &scan->levels[scan->depth++];

    level->object = object;
    level->want_name = object;
    level->count = 0;
    scan->p++;
    return 0;
}

/* A number or a word. json-c also takes NaN, Infinity and names in single quotes. */
static int scan_scalar(struct scan *scan)
{
    static const char *const words[] = {"true", "false", "null"};
    size_t left = (size_t)(scan->end - scan->p);

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);

        if (left >= length && memcmp(scan->p, words[i], length) == 0) {
            scan->p += length;
            return 0;
        }
    }
    if (*scan->p != '-' && (*scan->p < '0' || *scan->p > '9')) {
        return bad(scan, "neither a string, a number, an object, an array, true, false nor null");
    }
    while (scan->p < scan->end && *scan->p != 0 && strchr("0123456789+-.eE", *scan->p) != NULL) {
        scan->p++;
    }
    return 0;
}

static int scan_token(struct scan *scan)
{
    uint8_t c = *scan->p;

    if (c == '"' || c == 0 || strchr("{}[],: \t\r\n", c) == NULL) {
        if (++scan->values > NX_JSON_MAX_VALUES) {
            return too_much(scan);
        }
        return c == '"' ? scan_token_string(scan) : scan_scalar(scan);
    }
    if (c == '{' || c == '[') {
        return open_level(scan, c == '{');
    }
    if ((c == '}' || c == ']') && scan->depth == 0) {
        return bad(scan, "a bracket is closed that was not opened");
    }
    if (c == '}' || c == ']') {
        scan->depth--;
    } else if (c == ',' && scan->depth > 0) {
        scan->levels[scan->depth - 1].want_name = scan->levels[scan->depth - 1].object;
    }
    scan->p++;
    return 0;
}

int nx_json_scan(struct nx_slice text, char message[NX_MESSAGE_SIZE])
{
    struct scan scan = {
        .start = text.data,
        .p = text.data,
        .end = text.data + text.length,
        .message = message,
    };

    if (!nx_utf8_valid(text)) {
        snprintf(message, NX_MESSAGE_SIZE,
                 "The JSON is not UTF-8; give bytes that aren't as key_base64 or value_base64.");
        return -EINVAL;
    }
    int rc = 0;

    while (rc == 0 && scan.p < scan.end) {
        rc = scan_token(&scan);
    }
    return rc;
}
