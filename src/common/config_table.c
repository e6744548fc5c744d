/* Runs wherever a configuration is read or shown. The rows of config_options.def and their names. */
#include "common/config_table.h"

#include "common/edit_distance.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

const struct nx_option nx_options[NX_CONFIG_KEYS] = {
#define NX_SECTION(section, about)
#define NX_SECTION_END(section)
#define NX_OPTION(in, named, of_kind, text, min, max, applies, help) \
    {                                                                \
        .section = #in,                                              \
        .key = #named,                                               \
        .kind = NX_KIND_##of_kind,                                   \
        .when = NX_WHEN_##applies,                                   \
        .initial = (text),                                           \
        .least = (min),                                              \
        .most = (max),                                               \
        .at = offsetof(struct nx_config, in.named),                  \
        .size = sizeof(((struct nx_config *)NULL)->in.named),        \
    },
#include "common/config_options.def"
#undef NX_SECTION
#undef NX_SECTION_END
#undef NX_OPTION
};

void nx_option_name(const struct nx_option *option, char ret_name[NX_OPTION_NAME])
{
    (void)snprintf(ret_name, NX_OPTION_NAME, "%s.%s", option->section, option->key);
}

static char upper(char c)
{
    return (char)toupper((unsigned char)c);
}

void nx_option_variable(const struct nx_option *option, char ret_name[NX_OPTION_NAME])
{
    bool server = strcmp(option->section, "server") == 0;

    (void)snprintf(ret_name, NX_OPTION_NAME, "NEXUS_%s%s%s", server ? "" : option->section,
                   server ? "" : "_", option->key);
    for (char *p = ret_name; *p != '\0'; p++) {
        *p = upper(*p);
    }
}

int nx_option_find(const char *section, const char *key)
{
    for (int i = 0; i < NX_CONFIG_KEYS; i++) {
        if (strcmp(nx_options[i].section, section) == 0 && strcmp(nx_options[i].key, key) == 0) {
            return i;
        }
    }
    return -1;
}

/* A name cut short is nearly right. */
static unsigned key_distance(const char *key, const char *known)
{
    size_t length = strlen(key);

    return length > 2 && strncmp(key, known, length) == 0 ? (known[length] != 0)
                                                          : nx_edit_distance(key, known);
}

int nx_option_nearest(const char *section, const char *key)
{
    unsigned best_distance = UINT_MAX;
    int best = 0;

    for (int i = 0; i < NX_CONFIG_KEYS; i++) {
        unsigned in_key = key_distance(key, nx_options[i].key);
        unsigned in_section = nx_edit_distance(section, nx_options[i].section);
        unsigned distance = 2 * in_key + (in_section < 2 ? in_section : 2);

        if (distance < best_distance) {
            best_distance = distance;
            best = i;
        }
    }
    return best;
}

void nx_config_defaults(struct nx_config *ret_config)
{
    char expected[NX_EXPECTED];

    memset(ret_config, 0, sizeof *ret_config);
    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        /* tests/unit/test_config.c parses each of them too. */
        (void)nx_option_parse(&nx_options[i], nx_options[i].initial, ret_config, expected);
    }
}

int nx_config_text(const struct nx_config *config, const char *name, char *text, size_t cap)
{
    char known[NX_OPTION_NAME];

    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        nx_option_name(&nx_options[i], known);
        if (strcmp(known, name) == 0) {
            return nx_option_format(&nx_options[i], config, text, cap) < cap ? 0 : -ENOSPC;
        }
    }
    return -ENOENT;
}
