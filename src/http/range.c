/* Runs in http workers. Pure functions; see range.h. */
#include "http/range.h"

#include "http/request.h"

#include <stdbool.h>
#include <string.h>

#define UNIT "bytes="

static struct nx_slice cut_front(struct nx_slice text, size_t n)
{
    return nx_slice_of(text.data + n, text.length - n);
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

static struct nx_slice trim(struct nx_slice text)
{
    while (text.length > 0 && is_blank(text.data[0])) {
        text = cut_front(text, 1);
    }
    while (text.length > 0 && is_blank(text.data[text.length - 1])) {
        text.length--;
    }
    return text;
}

/* Takes the digits at the front. A number too large to be written down lies behind every end. False:
 * there are none. */
static bool take_number(struct nx_slice *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    size_t n = 0;

    while (n < text->length && text->data[n] >= '0' && text->data[n] <= '9') {
        uint64_t digit = (uint64_t)text->data[n] - '0';

        value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
        n++;
    }
    *text = cut_front(*text, n);
    *ret_value = value;
    return n > 0;
}

/* "-N": the last N bytes. */
static enum range_verdict parse_suffix(struct nx_slice text,
                                       uint64_t size,
                                       struct byte_range *ret_range)
{
    uint64_t n;

    if (!take_number(&text, &n) || text.length > 0) {
        return RANGE_WHOLE;
    }
    if (n == 0 || size == 0) {
        return RANGE_OUTSIDE;
    }
    n = n < size ? n : size;
    *ret_range = (struct byte_range){size - n, n};
    return RANGE_PART;
}

enum range_verdict nx_range_parse(struct nx_slice value,
                                  uint64_t size,
                                  struct byte_range *ret_range)
{
    size_t unit = strlen(UNIT);
    uint64_t first;
    uint64_t last = UINT64_MAX;

    if (value.length < unit ||
        !nx_equal_nocase(nx_slice_of(value.data, unit), nx_slice_text(UNIT))) {
        return RANGE_WHOLE;
    }
    value = trim(cut_front(value, unit));
    if (value.length > 0 && value.data[0] == '-') {
        return parse_suffix(cut_front(value, 1), size, ret_range);
    }
    if (!take_number(&value, &first) || value.length == 0 || value.data[0] != '-') {
        return RANGE_WHOLE;
    }
    value = cut_front(value, 1);
    if ((value.length > 0 && !take_number(&value, &last)) || value.length > 0 || last < first) {
        return RANGE_WHOLE;
    }
    if (first >= size) {
        return RANGE_OUTSIDE;
    }
    last = last < size ? last : size - 1;
    *ret_range = (struct byte_range){first, last - first + 1};
    return RANGE_PART;
}
