/* Prints what is generated from the table of configuration keys (src/common/config_options.def):
 *
 *     generate_config conf     conf/nexus.conf, the example file
 *     generate_config docs     docs/configuration.md, the reference
 *
 * Compiled and run by scripts/generate.sh. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum when {
    RELOAD,
    RESTART
};

struct option {
    const char *section;
    const char *key; /* NULL: a section begins here, help says what it is about */
    const char *value;
    const char *fallback;
    unsigned long long min;
    unsigned long long max;
    enum when when;
    const char *help;
};

#define PATH   "a path"
#define TEXT   "text"
#define NAMES  "names, separated by commas"
#define BIND   "address:port to listen on"
#define PEER   "host:port"
#define ADVERT "host:port as others see it"
#define HOSTS  "host:port, separated by commas"
#define BOOL   "on or off"
#define COUNT  "a number"
#define SIZE   "bytes (KiB, MiB, GiB...)"
#define AUTO   "auto, or bytes (MiB, GiB...)"
#define MS     "milliseconds (ms, s, min, h)"
#define SECS   "seconds (s, min, h, d)"
/* ROLE_words: ", standalone, master, replica" and so on, of the table's enumerations. */
#define NX_ENUM(kind, name)                   static const char kind##_words[] = ""
#define NX_CHOICE(kind, constant, word) ", " word
#define NX_ENUM_END(kind)                     ;
#include "common/config_options.def"
#undef NX_ENUM
#undef NX_CHOICE
#undef NX_ENUM_END

#define WORDS(kind) (kind##_words + sizeof ", " - 1)
#define ROLE        WORDS(ROLE)
#define MODE        WORDS(MODE)
#define FSYNC       WORDS(FSYNC)
#define ALLOW       WORDS(ALLOW)
#define LEVEL       WORDS(LEVEL)
#define FORMAT      WORDS(FORMAT)

static const struct option options[] = {
#define NX_SECTION(name, about) {#name, NULL, "", "", 0, 0, RELOAD, about},
#define NX_SECTION_END(name)
#define NX_OPTION(section, key, kind, fallback, min, max, when, help) \
    {#section, #key, kind, fallback, min, max, when, help},
#include "common/config_options.def"
};

static const char *const when_text[] = {
    [RELOAD] = "a reload applies it",
    [RESTART] = "applied at a restart",
};

/* NEXUS_SECTION_KEY; keys of [server] go without the section. */
static void print_variable(const struct option *option)
{
    char name[96];

    (void)snprintf(name, sizeof name, "NEXUS_%s%s%s",
                   strcmp(option->section, "server") == 0 ? "" : option->section,
                   strcmp(option->section, "server") == 0 ? "" : "_", option->key);
    for (const char *p = name; *p != '\0'; p++) {
        (void)putchar(toupper((unsigned char)*p));
    }
}

static void print_conf(void)
{
    (void)puts(
        "# Example configuration of Nexus, generated from the table of keys: every key, with its\n"
        "# default. docs/configuration.md is the reference.\n"
        "#\n"
        "# The file is read from -c FILE, $NEXUS_CONFIG, or nexus.conf in the data directory. The\n"
        "# environment (the name behind each key) goes before it, the command line\n"
        "# (--section.key=value) before both. nexus-server --check-config says whether all is well.");
    for (const struct option *o = options; o < options + sizeof options / sizeof options[0]; o++) {
        if (o->key == NULL) {
            (void)printf("\n# %s\n[%s]\n", o->help, o->section);
            continue;
        }
        (void)printf("\n# %s\n# Value: %s; %s. ", o->help, o->value, when_text[o->when]);
        print_variable(o);
        (void)printf("\n#%s =%s%s\n", o->key, *o->fallback != '\0' ? " " : "", o->fallback);
    }
}

/* The bounds of a number, in the unit of the key. */
static void print_bounds(const struct option *option)
{
    if (option->max > 0) {
        (void)printf(", %llu to %llu", option->min, option->max);
    }
}

static void print_docs(void)
{
    (void)puts(
        "# Configuration\n\n"
        "Generated from the table of keys, `src/common/config_options.def`.\n\n"
        "A value comes from, first to last: the command line (`--section.key=value`), the environment\n"
        "(`NEXUS_SECTION_KEY`; an empty variable counts as unset), the file (`-c FILE`, `$NEXUS_CONFIG`,\n"
        "or `nexus.conf` in the data directory), the default. `nexus-server --print-config` shows what is\n"
        "in force and where each value comes from; `nexus-server --check-config` says whether it is good.\n"
        "Unknown keys and bad values are refused with a message, never ignored.\n\n"
        "Applied: *reload* keys follow `nexus-ctl reload` (SIGHUP), *restart* keys the next start.\n"
        "Sizes count in 1024s whatever the unit's spelling.");
    static const char *const when_word[] = {[RELOAD] = "reload", [RESTART] = "restart"};

    for (const struct option *o = options; o < options + sizeof options / sizeof options[0]; o++) {
        if (o->key == NULL) {
            (void)printf("\n## %s\n\n%s\n\n| key | default | value | applied | what it does |\n"
                         "| --- | --- | --- | --- | --- |\n",
                         o->section, o->help);
            continue;
        }
        (void)printf("| `%s.%s`<br>`", o->section, o->key);
        print_variable(o);
        (void)printf("` | %s%s%s | %s", *o->fallback != '\0' ? "`" : "", o->fallback,
                     *o->fallback != '\0' ? "`" : "", o->value);
        print_bounds(o);
        (void)printf(" | %s | %s |\n", when_word[o->when], o->help);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "conf") == 0) {
        print_conf();
    } else if (argc == 2 && strcmp(argv[1], "docs") == 0) {
        print_docs();
    } else {
        (void)fputs("usage: generate_config conf|docs\n", stderr);
        return 1;
    }
    return 0;
}
