/* Runs wherever a configuration is read or shown. Values of one key: from text to the member and back,
 * by the kinds of config_options.def. Pure functions. */
#include "common/config_table.h"
#include "common/net.h"
#include "common/peer_list.h"
#include "common/units.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- enumerations ---- */

#define NX_ENUM(kind, name) static_assert(sizeof(enum name) == sizeof(unsigned), "store_word");
#define NX_CHOICE(kind, constant, word)
#define NX_ENUM_END(kind)
#include "common/config_options.def"
#undef NX_ENUM
#undef NX_CHOICE
#undef NX_ENUM_END

static const struct choice {
    enum nx_option_kind kind;
    unsigned value;
    const char *word;
} choices[] = {
#define NX_ENUM(kind, name)
#define NX_CHOICE(of_kind, constant, text) {NX_KIND_##of_kind, constant, text},
#define NX_ENUM_END(kind)
#include "common/config_options.def"
#undef NX_ENUM
#undef NX_CHOICE
#undef NX_ENUM_END
};

#define CHOICES (sizeof choices / sizeof choices[0])

static const char *word_of(enum nx_option_kind kind, unsigned value)
{
    for (size_t i = 0; i < CHOICES; i++) {
        if (choices[i].kind == kind && choices[i].value == value) {
            return choices[i].word;
        }
    }
    return "?";
}

const char *nx_role_name(enum nx_role role)
{
    return word_of(NX_KIND_ROLE, role);
}

const char *nx_mode_name(enum nx_mode mode)
{
    return word_of(NX_KIND_MODE, mode);
}

static int parse_word(enum nx_option_kind kind, const char *text, unsigned *ret_value)
{
    for (size_t i = 0; i < CHOICES; i++) {
        if (choices[i].kind == kind && strcasecmp(choices[i].word, text) == 0) {
            *ret_value = choices[i].value;
            return 0;
        }
    }
    return -EINVAL;
}

/* "a, b or c" */
static void list_words(enum nx_option_kind kind, char ret_list[NX_EXPECTED])
{
    size_t length = 0;

    for (size_t i = 0; i < CHOICES; i++) {
        bool last = i + 1 == CHOICES || choices[i + 1].kind != kind;
        const char *before = length == 0 ? "" : last ? " or " : ", ";

        if (choices[i].kind == kind) {
            length += (size_t)snprintf(ret_list + length, NX_EXPECTED - length, "%s%s", before,
                                       choices[i].word);
        }
    }
}

/* ---- numbers ---- */

static int parse_number(enum nx_option_kind kind, const char *text, uint64_t *ret_value)
{
    if (kind == NX_KIND_SECS) {
        return nx_parse_seconds(text, ret_value);
    }
    if (kind == NX_KIND_MS) {
        return nx_parse_ms(text, ret_value);
    }
    return kind == NX_KIND_COUNT ? nx_parse_count(text, ret_value) : nx_parse_size(text, ret_value);
}

static int parse_bool(const char *text, bool *ret_value)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *ret_value = i % 2 == 1;
            return 0;
        }
    }
    return -EINVAL;
}

/* ---- texts ---- */

/* Nothing that could not stand in the file: what --print-config writes must read back. */
static bool fits_a_line(const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        bool comment = (*p == '#' || *p == ';') && (p == text || p[-1] == ' ' || p[-1] == '\t');

        if ((unsigned char)*p < 0x20 || *p == 0x7F || comment) {
            return false;
        }
    }
    return true;
}

static bool text_fits(enum nx_option_kind kind, const char *text)
{
    static const char name_characters[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:[], \t";
    struct nx_net_addr addr;

    if (kind == NX_KIND_PATH) {
        return text[0] != '"' && text[0] != '\'' && fits_a_line(text);
    }
    if (kind == NX_KIND_TEXT) {
        return fits_a_line(text);
    }
    if (kind == NX_KIND_NAMES) {
        return text[strspn(text, name_characters)] == '\0';
    }
    if (kind == NX_KIND_HOSTS) {
        return nx_peer_list_check(text) == 0;
    }
    if (text[0] == '\0') {
        return true;
    }
    return nx_net_parse(text, &addr) == 0 && (kind != NX_KIND_PEER || !nx_net_is_wildcard(&addr));
}

static void expect_text(const struct nx_option *option, char ret_expected[NX_EXPECTED])
{
    const char *what = "";

    if (option->kind == NX_KIND_BIND) {
        what = "an address and a port from 1 to 65535, such as 0.0.0.0:15474 or [::1]:15474";
    } else if (option->kind == NX_KIND_PEER || option->kind == NX_KIND_ADVERT) {
        what = "a host and a port from 1 to 65535, such as 10.0.0.1:15475 or [fd00::1]:15475";
    } else if (option->kind == NX_KIND_NAMES) {
        what = "host names, separated by commas or blanks";
    } else if (option->kind == NX_KIND_HOSTS) {
        what =
            "hosts and ports, such as 10.0.0.1:15474, 10.0.0.2:15474, separated by commas or blanks";
    } else if (option->kind == NX_KIND_PATH) {
        what = "a path: without quotes, control characters or a comment (a blank and then # or ;)";
    } else {
        what = "text: without control characters or a comment (a blank and then # or ;)";
    }
    (void)snprintf(ret_expected, NX_EXPECTED, "%s, of %s%zu bytes", what,
                   option->least > 0 ? "1 to " : "at most ", option->size - 1);
}

/* ---- all kinds ---- */

static void expect_number(const struct nx_option *option, char ret_expected[NX_EXPECTED])
{
    char least[32];
    char most[32];

    switch ((int)option->kind) {
    case NX_KIND_SIZE:
    case NX_KIND_AUTO:
        (void)nx_format_size(option->least, least, sizeof least);
        (void)nx_format_size(option->most, most, sizeof most);
        (void)snprintf(ret_expected, NX_EXPECTED,
                       "%sa size from %s to %s: bytes, or a whole number of kB, MB, GB or TB",
                       option->kind == NX_KIND_AUTO ? "auto, or " : "", least, most);
        break;
    case NX_KIND_MS:
        (void)snprintf(ret_expected, NX_EXPECTED,
                       "milliseconds from %llu to %llu, or a time in ms, s, min or h",
                       (unsigned long long)option->least, (unsigned long long)option->most);
        break;
    case NX_KIND_SECS:
        (void)nx_format_seconds(option->least, least, sizeof least);
        (void)nx_format_seconds(option->most, most, sizeof most);
        (void)snprintf(ret_expected, NX_EXPECTED,
                       "a time from %s to %s: seconds, or a whole number of s, min, h or d", least,
                       most);
        break;
    default:
        (void)snprintf(ret_expected, NX_EXPECTED, "a whole number from %llu to %llu",
                       (unsigned long long)option->least, (unsigned long long)option->most);
        break;
    }
}

static int set_number(const struct nx_option *option,
                      const char *text,
                      void *member,
                      char ret_expected[NX_EXPECTED])
{
    uint64_t value = 0;

    if (option->kind != NX_KIND_AUTO || strcasecmp(text, "auto") != 0) {
        if (parse_number(option->kind, text, &value) < 0 || value < option->least ||
            value > option->most) {
            expect_number(option, ret_expected);
            return -EINVAL;
        }
    }
    memcpy(member, &value, sizeof value);
    return 0;
}

static int set_text(const struct nx_option *option,
                    const char *text,
                    char *member,
                    char ret_expected[NX_EXPECTED])
{
    size_t length = strlen(text);

    if (length < option->least || length >= option->size || !text_fits(option->kind, text)) {
        expect_text(option, ret_expected);
        return -EINVAL;
    }
    memset(member, 0, option->size); /* members are compared whole */
    memcpy(member, text, length);
    return 0;
}

static bool is_text(enum nx_option_kind kind)
{
    return kind <= NX_KIND_ADVERT;
}

static bool is_word(enum nx_option_kind kind)
{
    return kind >= NX_KIND_ROLE;
}

int nx_option_parse(const struct nx_option *option,
                    const char *text,
                    struct nx_config *config,
                    char ret_expected[NX_EXPECTED])
{
    void *member = (char *)config + option->at;

    if (is_text(option->kind)) {
        return set_text(option, text, member, ret_expected);
    }
    if (is_word(option->kind)) {
        unsigned value;

        if (parse_word(option->kind, text, &value) < 0) {
            list_words(option->kind, ret_expected);
            return -EINVAL;
        }
        memcpy(member, &value, sizeof value);
        return 0;
    }
    if (option->kind == NX_KIND_BOOL) {
        if (parse_bool(text, member) < 0) {
            (void)snprintf(ret_expected, NX_EXPECTED, "on, off, true, false, yes, no, 1 or 0");
            return -EINVAL;
        }
        return 0;
    }
    return set_number(option, text, member, ret_expected);
}

static size_t format_number(const struct nx_option *option,
                            const void *member,
                            char *text,
                            size_t cap)
{
    uint64_t value;

    memcpy(&value, member, sizeof value);
    if (option->kind == NX_KIND_AUTO && value == 0) {
        return (size_t)snprintf(text, cap, "auto");
    }
    if (option->kind == NX_KIND_SIZE || option->kind == NX_KIND_AUTO) {
        return nx_format_size(value, text, cap);
    }
    if (option->kind == NX_KIND_SECS) {
        return nx_format_seconds(value, text, cap);
    }
    return (size_t)snprintf(text, cap, "%llu", (unsigned long long)value);
}

static unsigned word_value(const struct nx_option *option, const struct nx_config *config)
{
    unsigned value;

    memcpy(&value, (const char *)config + option->at, sizeof value);
    return value;
}

size_t nx_option_format(const struct nx_option *option,
                        const struct nx_config *config,
                        char *text,
                        size_t cap)
{
    const void *member = (const char *)config + option->at;

    if (is_text(option->kind)) {
        return (size_t)snprintf(text, cap, "%s", (const char *)member);
    }
    if (is_word(option->kind)) {
        return (size_t)snprintf(text, cap, "%s", word_of(option->kind, word_value(option, config)));
    }
    if (option->kind == NX_KIND_BOOL) {
        return (size_t)snprintf(text, cap, "%s", *(const bool *)member ? "true" : "false");
    }
    return format_number(option, member, text, cap);
}
