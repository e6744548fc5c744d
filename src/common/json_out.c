/* Pure functions over a text; see json_out.h. */
#include "common/json_out.h"

#include "common/base64.h"

#include <string.h>

struct json nx_json_of(struct text *out)
{
    return (struct json){.out = out, .comma = false};
}

static void put_char(struct text *out, char c)
{
    nx_text_add(out, &c, 1);
}

/* Bytes that follow in a well-formed sequence that begins with `first`, and the range of the second
 * byte (RFC 3629); -1 when nothing begins with it. */
static int sequence(uint8_t first, uint8_t *ret_low, uint8_t *ret_high)
{
    *ret_low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    *ret_high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (first < 0x80) {
        return 0;
    }
    if (first < 0xc2 || first > 0xf4) {
        return -1;
    }
    return first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
}

static bool all_ascii_8(const uint8_t *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return (word & 0x8080808080808080ull) == 0;
}

bool nx_utf8_valid(struct nx_slice bytes)
{
    size_t i = 0;

    while (i < bytes.length) {
        uint8_t low;
        uint8_t high;

        if (bytes.length - i >= 8 && all_ascii_8(bytes.data + i)) {
            i += 8;
            continue;
        }
        int more = sequence(bytes.data[i++], &low, &high);

        if (more < 0 || (size_t)more > bytes.length - i) {
            return false;
        }
        for (int k = 0; k < more; k++, i++) {
            if (bytes.data[i] < low || bytes.data[i] > high) {
                return false;
            }
            low = 0x80;
            high = 0xbf;
        }
    }
    return true;
}

static void put_escape(struct text *out, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    static const char named[] = "\b\t\n\f\r\"\\";
    static const char letters[] = "btnfr\"\\";
    const char *name = c != 0 ? strchr(named, c) : NULL;

    if (name != NULL) {
        char pair[2] = {'\\', letters[name - named]};

        nx_text_add(out, pair, sizeof pair);
    } else {
        char code[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

        nx_text_add(out, code, sizeof code);
    }
}

static void put_quoted(struct text *out, struct nx_slice value)
{
    size_t plain = 0;

    put_char(out, '"');
    if (value.length == 0) {
        put_char(out, '"');
        return;
    }
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = value.data[i];

        if (c < ' ' || c == '"' || c == '\\') {
            nx_text_add(out, value.data + plain, i - plain);
            put_escape(out, c);
            plain = i + 1;
        }
    }
    nx_text_add(out, value.data + plain, value.length - plain);
    put_char(out, '"');
}

/* The comma before a member and its name; both are ours, so the name needs no escapes. */
static void begin(struct json *json, const char *name, const char *suffix)
{
    if (json->comma) {
        put_char(json->out, ',');
    }
    json->comma = true;
    if (name != NULL) {
        put_char(json->out, '"');
        nx_text_puts(json->out, name);
        nx_text_puts(json->out, suffix);
        nx_text_puts(json->out, "\":");
    }
}

void nx_json_open(struct json *json, const char *name, char bracket)
{
    begin(json, name, "");
    put_char(json->out, bracket);
    json->comma = false;
}

void nx_json_close(struct json *json, char bracket)
{
    put_char(json->out, bracket);
    json->comma = true;
}

void nx_json_u64(struct json *json, const char *name, uint64_t value)
{
    begin(json, name, "");
    nx_text_u64(json->out, value);
}

void nx_json_i64(struct json *json, const char *name, int64_t value)
{
    begin(json, name, "");
    if (value < 0) {
        put_char(json->out, '-');
    }
    nx_text_u64(json->out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void nx_json_bool(struct json *json, const char *name, bool value)
{
    begin(json, name, "");
    nx_text_puts(json->out, value ? "true" : "false");
}

void nx_json_null(struct json *json, const char *name)
{
    begin(json, name, "");
    nx_text_puts(json->out, "null");
}

void nx_json_string(struct json *json, const char *name, const char *value)
{
    struct nx_slice bytes = nx_slice_text(value);

    begin(json, name, "");
    if (nx_utf8_valid(bytes)) {
        put_quoted(json->out, bytes);
        return;
    }
    put_char(json->out, '"');
    for (size_t i = 0; i < bytes.length; i++) {
        bool plain = value[i] >= ' ' && value[i] < 0x7f && value[i] != '"' && value[i] != '\\';

        put_char(json->out, (char)(plain ? value[i] : '?'));
    }
    put_char(json->out, '"');
}

void nx_json_text(struct json *json, const char *name, const struct text *value)
{
    begin(json, name, "");
    put_quoted(json->out, nx_slice_of(value->data, value->length));
}

void nx_json_thousandths(struct json *json, const char *name, uint64_t value)
{
    uint64_t rest = value % 1000;
    char fraction[4] = {'.', (char)('0' + rest / 100), (char)('0' + rest / 10 % 10),
                        (char)('0' + rest % 10)};

    nx_json_u64(json, name, value / 1000);
    if (rest > 0) {
        nx_text_add(json->out, fraction, rest % 10 > 0 ? 4 : rest % 100 > 0 ? 3 : 2);
    }
}

void nx_json_raw(struct json *json, const char *name, const struct text *value)
{
    begin(json, name, "");
    nx_text_add(json->out, value->data, value->length);
}

static void put_base64(struct text *out, struct nx_slice value)
{
    put_char(out, '"');
    nx_base64_encode(out, value.data, value.length, BASE64_PLAIN);
    put_char(out, '"');
}

void nx_json_bytes(struct json *json, const char *name, struct nx_slice value)
{
    if (nx_utf8_valid(value)) {
        begin(json, name, "");
        put_quoted(json->out, value);
        return;
    }
    begin(json, name, "_base64");
    put_base64(json->out, value);
}

void nx_json_base64(struct json *json, const char *name, struct nx_slice value)
{
    begin(json, name, "");
    put_base64(json->out, value);
}
