/* The configuration: struct nx_config, and how it comes from command line, environment, file and
 * defaults, in that order of precedence. All keys are rows of config_options.def.
 *
 * The struct is plain data, so that children inherit it by fork and a reload replaces it by a copy. */
#ifndef NX_COMMON_CONFIG_H
#define NX_COMMON_CONFIG_H

#include "common/token.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_PATH_SIZE 1024 /* of paths, NUL included; other texts without a size of their own too */
#define NX_ADDR_SIZE 256  /* of "host:port", NUL included */

/* enum nx_role (NX_ROLE_STANDALONE, ...), nx_mode, nx_fsync, nx_allow, nx_log_level, nx_log_format */
#define NX_ENUM(kind, name)             enum name {
#define NX_CHOICE(kind, constant, word) constant,
#define NX_ENUM_END(kind) \
    }                     \
    ;
#include "common/config_options.def"
#undef NX_ENUM
#undef NX_CHOICE
#undef NX_ENUM_END

#define NX_MEMBER_PATH(key)   char key[NX_PATH_SIZE];
#define NX_MEMBER_TEXT(key)   char key[NX_PATH_SIZE];
#define NX_MEMBER_NAMES(key)  char key[NX_PATH_SIZE];
#define NX_MEMBER_BIND(key)   char key[NX_ADDR_SIZE];
#define NX_MEMBER_PEER(key)   char key[NX_ADDR_SIZE];
#define NX_MEMBER_ADVERT(key) char key[NX_ADDR_SIZE];
#define NX_MEMBER_HOSTS(key)  char key[NX_PATH_SIZE];
#define NX_MEMBER_BOOL(key)   bool key;
#define NX_MEMBER_COUNT(key)  uint64_t key;
#define NX_MEMBER_SIZE(key)   uint64_t key; /* bytes */
#define NX_MEMBER_AUTO(key)   uint64_t key; /* bytes; 0: auto */
#define NX_MEMBER_MS(key)     uint64_t key; /* milliseconds */
#define NX_MEMBER_SECS(key)   uint64_t key; /* seconds */
#define NX_MEMBER_ROLE(key)   enum nx_role key;
#define NX_MEMBER_MODE(key)   enum nx_mode key;
#define NX_MEMBER_FSYNC(key)  enum nx_fsync key;
#define NX_MEMBER_ALLOW(key)  enum nx_allow key;
#define NX_MEMBER_LEVEL(key)  enum nx_log_level key;
#define NX_MEMBER_FORMAT(key) enum nx_log_format key;

/* What the token files hold; "" where none is set. */
struct nx_tokens {
    char http_auth[NX_TOKEN_SIZE];
    char http_read[NX_TOKEN_SIZE];
    char replication[NX_TOKEN_SIZE];
};

/* config.replication.heartbeat_ms and so on */
struct nx_config {
    struct nx_tokens tokens;

#define NX_SECTION(section, about)                                      struct {
#define NX_OPTION(section, key, kind, initial, least, most, when, help) NX_MEMBER_##kind(key)
#define NX_SECTION_END(section) \
    }                           \
    section;
#include "common/config_options.def"
#undef NX_SECTION
#undef NX_OPTION
#undef NX_SECTION_END
};

/* Number of keys. */
enum {
#define NX_SECTION(section, about)
#define NX_OPTION(section, key, kind, initial, least, most, when, help) +1
#define NX_SECTION_END(section)
    NX_CONFIG_KEYS =
#include "common/config_options.def"
#undef NX_SECTION
#undef NX_OPTION
#undef NX_SECTION_END
};

/* What the command line asks for. */
enum nx_config_action {
    NX_ACTION_RUN,
    NX_ACTION_PRINT_CONFIG,
    NX_ACTION_CHECK_CONFIG,
    NX_ACTION_RESTORE,
    NX_ACTION_VERSION,
    NX_ACTION_HELP
};

enum nx_config_origin {
    NX_FROM_DEFAULT,
    NX_FROM_FILE,
    NX_FROM_ENVIRONMENT,
    NX_FROM_COMMAND_LINE
};

enum nx_config_change {
    NX_CHANGE_NONE,
    NX_CHANGE_APPLIED,
    NX_CHANGE_WAITS /* for a restart */
};

#define NX_CONFIG_MESSAGES     16  /* most errors, and most warnings, that are kept */
#define NX_CONFIG_MESSAGE_SIZE 512 /* of each, NUL included; longer ones are cut */

/* What a load or reload found out beside the values. Large (some 17 KB): static, not on a stack. */
struct nx_config_report {
    enum nx_config_action action;
    const char *restore_file; /* of NX_ACTION_RESTORE; the caller's own argument */
    /* The configuration file: absolute path ("" when there is none), and whether -c or NEXUS_CONFIG
     * named it. */
    char file[NX_PATH_SIZE];
    bool file_named;
    /* Each error is a sentence that begins with file and line, variable or option. More than are kept
     * are counted only. */
    unsigned error_count;
    char errors[NX_CONFIG_MESSAGES][NX_CONFIG_MESSAGE_SIZE];
    /* Unknown NEXUS_* variables; to be logged once the log is set up. */
    unsigned warning_count;
    char warnings[NX_CONFIG_MESSAGES][NX_CONFIG_MESSAGE_SIZE];
    /* By rows of config_options.def. Lines count from 1, for NX_FROM_FILE only. */
    enum nx_config_origin origins[NX_CONFIG_KEYS];
    unsigned lines[NX_CONFIG_KEYS];
    enum nx_config_change changes[NX_CONFIG_KEYS]; /* reload */
    /* Kept for reloads: the caller's own, must live as long as the report. */
    int argc;
    char **argv;
};

/* Reads the configuration. 0; -EINVAL: *ret_report has the errors, all of them, and *ret_config is
 * untouched (its action is valid even so: --help and --version work with a broken file). Opens no file
 * but the configuration file and, unless it is only to be printed, the files of tokens, certificates, keys and
 * authorities that it names. */
int nx_config_load(struct nx_config *ret_config,
                   int argc,
                   char **argv,
                   struct nx_config_report *ret_report);

/* Reads the same sources again (`loaded` is the report of the load; relative paths count from the same
 * working directory) and makes the configuration that
 * is to hold from now on: `current` with all keys that a reload applies. 0, with each key's fate in
 * ret_report->changes; -EINVAL: nothing is applied, *ret_config is untouched, the errors say why. */
int nx_config_reload(const struct nx_config *current,
                     const struct nx_config_report *loaded,
                     struct nx_config *ret_config,
                     struct nx_config_report *ret_report);

/* Writes the keys of that fate into text ("http.max_connections, wal.max_size", cut at cap); returns
 * their number. */
unsigned nx_config_changes(const struct nx_config_report *report,
                           enum nx_config_change change,
                           char *text,
                           size_t cap);

/* Call it with each configuration that this process takes: where it has secrets, no core file is written, and no debugger
 * but root's looks in. */
void nx_config_guard_secrets(const struct nx_config *config);

/* Does what the command line asks for when that isn't running the server, after nx_config_load returned
 * `rc`: prints errors to stderr, or the configuration, version or usage to stdout. True: exit with
 * *ret_status. False: run the server, or restore report->restore_file (NX_ACTION_RESTORE); ret_status is
 * untouched. */
bool nx_config_main_action(int rc,
                           const struct nx_config *config,
                           const struct nx_config_report *report,
                           int *ret_status);

/* All defaults. */
void nx_config_defaults(struct nx_config *ret_config);

/* The value of a key ("replication.mode") as the file would have it: "async", "8MiB", "30s". 0;
 * -ENOENT: no such key; -ENOSPC: cap is too small (NX_PATH_SIZE never is). */
int nx_config_text(const struct nx_config *config, const char *name, char *text, size_t cap);

/* Whether this is plainly the node's own replication address: the same host and port, or this machine by another
 * name. */
bool nx_config_is_own_address(const struct nx_config *config, const char *addr);

/* The word of a role: "master". */
const char *nx_role_name(enum nx_role role);
const char *nx_mode_name(enum nx_mode mode);

#endif
