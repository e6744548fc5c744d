/* Runs in http workers. Pure functions; see query.h. */
#include "http/query.h"

#include "common/edit_distance.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_NAME 32 /* of a parameter that is compared with the known ones, NUL included */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int nx_percent_decode(struct text *out, struct nx_slice raw, bool plus_is_space)
{
    if (raw.length == 0) {
        return 0; /* out may have no bytes yet to point into */
    }
    if (!nx_text_reserve(out, raw.length)) {
        return -ENOMEM;
    }
    uint8_t *p = out->data + out->length;

    for (size_t i = 0; i < raw.length; i++) {
        uint8_t c = raw.data[i];

        if (c == '%') {
            int high = i + 2 < raw.length ? hex_digit(raw.data[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(raw.data[i + 2]) : -1;

            if (low < 0) {
                return -EINVAL;
            }
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        *p++ = c;
    }
    out->length = (size_t)(p - out->data);
    return 0;
}

/* A name as a C string, cut where it is longer than any that is known. */
static void copy_name(char name[MAX_NAME], const void *bytes, size_t length)
{
    length = length < MAX_NAME - 1 ? length : MAX_NAME - 1;
    memcpy(name, bytes, length);
    name[length] = '\0';
}

/* The next of the known names, which moves on; empty at the end. */
static struct nx_slice next_known(const char **known)
{
    struct nx_slice name = nx_slice_of(*known, strcspn(*known, " "));

    *known += name.length;
    *known += strspn(*known, " ");
    return name;
}

/* The known name that is nearest, as a slice of `known`; empty when there is none. */
static struct nx_slice nearest(struct nx_slice name, const char *known)
{
    struct nx_slice best = {NULL, 0};
    unsigned best_distance = UINT32_MAX;
    char given[MAX_NAME];
    char candidate[MAX_NAME];

    copy_name(given, name.data, name.length);
    for (;;) {
        struct nx_slice next = next_known(&known);

        if (next.length == 0) {
            return best;
        }
        copy_name(candidate, next.data, next.length);
        if (nx_edit_distance(given, candidate) < best_distance) {
            best_distance = nx_edit_distance(given, candidate);
            best = next;
        }
    }
}

static bool is_known(struct nx_slice name, const char *known)
{
    struct nx_slice next;

    do {
        next = next_known(&known);
        if (next.length > 0 && nx_slice_equal(name, next)) {
            return true;
        }
    } while (next.length > 0);
    return false;
}

/* What of a client's text can stand in a message. */
static int shown(struct nx_slice text)
{
    size_t n = 0;

    while (n < text.length && n < 40 && text.data[n] > ' ' && text.data[n] < 0x7f) {
        n++;
    }
    return (int)n;
}

static int refuse_unknown(struct nx_slice name, const char *known, char message[NX_MESSAGE_SIZE])
{
    struct nx_slice best = nearest(name, known);

    if (best.length == 0) {
        snprintf(message, NX_MESSAGE_SIZE, "Unknown parameter '%.*s': this endpoint takes none.",
                 shown(name), (const char *)name.data);
    } else {
        snprintf(message, NX_MESSAGE_SIZE,
                 "Unknown parameter '%.*s'; did you mean '%.*s'? Known: %s.", shown(name),
                 (const char *)name.data, (int)best.length, (const char *)best.data, known);
    }
    return -EINVAL;
}

static int take_param(struct query *query,
                      const struct query_param *param,
                      const char *known,
                      char message[NX_MESSAGE_SIZE])
{
    if (!is_known(param->name, known)) {
        return refuse_unknown(param->name, known, message);
    }
    for (unsigned i = 0; i < query->count; i++) {
        if (nx_slice_equal(query->params[i].name, param->name)) {
            snprintf(message, NX_MESSAGE_SIZE, "Parameter '%.*s' is given twice; give it once.",
                     shown(param->name), (const char *)param->name.data);
            return -EINVAL;
        }
    }
    query->params[query->count++] = *param;
    return 0;
}

static int decode_part(struct query *query,
                       struct nx_slice raw,
                       struct nx_slice *ret_decoded,
                       char message[NX_MESSAGE_SIZE])
{
    size_t before = query->bytes.length;
    int rc = nx_percent_decode(&query->bytes, raw, true);

    if (rc == -EINVAL) {
        snprintf(
            message, NX_MESSAGE_SIZE,
            "The query has a '%%' that two hexadecimal digits don't follow; write %%25 for '%%'.");
    }
    if (rc == 0) {
        *ret_decoded = nx_slice_of(query->bytes.data + before, query->bytes.length - before);
    }
    return rc;
}

int nx_query_parse(struct query *query,
                   struct nx_slice raw,
                   const char *known,
                   char message[NX_MESSAGE_SIZE])
{
    query->count = 0;
    nx_text_reset(&query->bytes, 4096);
    /* All at once: the slices must not move while the parts are decoded. */
    if (!nx_text_reserve(&query->bytes, raw.length)) {
        return -ENOMEM;
    }
    while (raw.length > 0) {
        const uint8_t *amp = memchr(raw.data, '&', raw.length);
        size_t length = amp == NULL ? raw.length : (size_t)(amp - raw.data);
        const uint8_t *equals = length > 0 ? memchr(raw.data, '=', length) : NULL;
        size_t name_length = equals == NULL ? length : (size_t)(equals - raw.data);
        struct nx_slice value = {NULL, 0};
        struct query_param param;
        int rc = 0;

        if (equals != NULL) {
            value = nx_slice_of(equals + 1, length - name_length - 1);
        }
        if (length > 0) {
            rc = decode_part(query, nx_slice_of(raw.data, name_length), &param.name, message);
            rc = rc < 0 ? rc : decode_part(query, value, &param.value, message);
            rc = rc < 0 ? rc : take_param(query, &param, known, message);
        }
        if (rc < 0) {
            return rc;
        }
        raw.data += length + (amp == NULL ? 0 : 1);
        raw.length -= length + (amp == NULL ? 0 : 1);
    }
    return 0;
}

const struct nx_slice *nx_query_find(const struct query *query, const char *name)
{
    for (unsigned i = 0; i < query->count; i++) {
        if (nx_slice_equal(query->params[i].name, nx_slice_text(name))) {
            return &query->params[i].value;
        }
    }
    return NULL;
}

int nx_parse_u64(struct nx_slice digits, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (digits.length == 0 || digits.length > 20) {
        return -EINVAL;
    }
    for (size_t i = 0; i < digits.length; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9' ||
            __builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(digits.data[i] - '0'), &value)) {
            return -EINVAL;
        }
    }
    *ret_value = value;
    return 0;
}

int nx_query_u64(const struct query *query,
                 const char *name,
                 uint64_t min,
                 uint64_t max,
                 uint64_t *ret_value,
                 char message[NX_MESSAGE_SIZE])
{
    const struct nx_slice *given = nx_query_find(query, name);
    uint64_t value;

    if (given == NULL) {
        return 0;
    }
    if (nx_parse_u64(*given, &value) < 0 || value < min || value > max) {
        snprintf(message, NX_MESSAGE_SIZE,
                 "Parameter '%s' must be a whole number from %" PRIu64 " to %" PRIu64 ".", name,
                 min, max);
        return -EINVAL;
    }
    *ret_value = value;
    return 0;
}

int nx_query_bool(const struct query *query,
                  const char *name,
                  bool *ret_value,
                  char message[NX_MESSAGE_SIZE])
{
    const struct nx_slice *given = nx_query_find(query, name);

    if (given == NULL) {
        return 0;
    }
    bool yes =
        nx_slice_equal(*given, nx_slice_text("1")) || nx_slice_equal(*given, nx_slice_text("true"));

    if (!yes && !nx_slice_equal(*given, nx_slice_text("0")) &&
        !nx_slice_equal(*given, nx_slice_text("false"))) {
        snprintf(message, NX_MESSAGE_SIZE, "Parameter '%s' must be 1, 0, true or false.", name);
        return -EINVAL;
    }
    *ret_value = yes;
    return 0;
}
