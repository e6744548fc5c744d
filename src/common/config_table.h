/* The rows of config_options.def, and the steps of reading a configuration. Private to config*.c. */
#ifndef NX_COMMON_CONFIG_TABLE_H
#define NX_COMMON_CONFIG_TABLE_H

#include "common/config.h"

#include <stddef.h>
#include <stdint.h>

enum nx_option_kind {
    /* texts */
    NX_KIND_PATH,
    NX_KIND_TEXT,
    NX_KIND_NAMES,
    NX_KIND_HOSTS,
    NX_KIND_BIND,
    NX_KIND_PEER,
    NX_KIND_ADVERT,
    /* numbers */
    NX_KIND_BOOL,
    NX_KIND_COUNT,
    NX_KIND_SIZE,
    NX_KIND_AUTO,
    NX_KIND_MS,
    NX_KIND_SECS,
    /* enumerations */
    NX_KIND_ROLE,
    NX_KIND_MODE,
    NX_KIND_FSYNC,
    NX_KIND_ALLOW,
    NX_KIND_LEVEL,
    NX_KIND_FORMAT
};

enum nx_option_when {
    NX_WHEN_RELOAD,
    NX_WHEN_RESTART
};

struct nx_option {
    const char *section;
    const char *key;
    enum nx_option_kind kind;
    enum nx_option_when when;
    const char *initial; /* default, as the file would have it */
    uint64_t least;
    uint64_t most;
    size_t at; /* of the member in struct nx_config */
    size_t size;
};

extern const struct nx_option nx_options[NX_CONFIG_KEYS];

#define NX_OPTION_NAME 64 /* "section.key", the variable, NUL included */
#define NX_EXPECTED    256

/* "replication.heartbeat_ms", "NEXUS_REPLICATION_HEARTBEAT_MS", "NEXUS_DATA_DIR" */
void nx_option_name(const struct nx_option *option, char ret_name[NX_OPTION_NAME]);
void nx_option_variable(const struct nx_option *option, char ret_name[NX_OPTION_NAME]);

/* Row of a key or -1. */
int nx_option_find(const char *section, const char *key);
/* Row whose "section.key" is nearest; the same key in another section is near. */
int nx_option_nearest(const char *section, const char *key);

/* Sets the member from text. 0, or -EINVAL with what was expected ("a whole number from 1 to 128") and
 * *config as it was. */
int nx_option_parse(const struct nx_option *option,
                    const char *text,
                    struct nx_config *config,
                    char ret_expected[NX_EXPECTED]);

/* The member as text, as nx_option_parse reads it. Returns its length, which is cap or more when it was
 * cut. */
size_t nx_option_format(const struct nx_option *option,
                        const struct nx_config *config,
                        char *text,
                        size_t cap);

/* ---- the steps ---- */

/* Texts of the sources, by row; NULL where a source is silent. They live as long as argv and the
 * environment. */
struct nx_config_texts {
    const char *arguments[NX_CONFIG_KEYS];
    const char *variables[NX_CONFIG_KEYS];
    const char *argument_file; /* -c */
    const char *variable_file; /* NEXUS_CONFIG */
};

void nx_config_error(struct nx_config_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void nx_config_warning(struct nx_config_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Where a key's value comes from: "/etc/nexus.conf:12", "NEXUS_HTTP_WORKERS", "--http.workers",
 * "default". */
void nx_config_where(const struct nx_config_report *report, size_t row, char *text, size_t cap);

/* The path as it is for any working directory. Not resolved: a link may point elsewhere by the next
 * reload. 0, -ENAMETOOLONG, or -errno of looking for the working directory. */
int nx_config_absolute(const char *path, char ret_path[NX_PATH_SIZE]);

/* argv into texts and report->action. */
void nx_config_read_arguments(struct nx_config_texts *texts, struct nx_config_report *report);
/* NEXUS_* into texts. */
void nx_config_read_environment(struct nx_config_texts *texts, struct nx_config_report *report);

/* Applies the file report->file. */
void nx_config_read_file(struct nx_config *config, struct nx_config_report *report);

/* Reads the token files that the configuration names, and looks at its certificates and keys. */
void nx_config_read_secrets(struct nx_config *config, struct nx_config_report *report);
/* Notes the keys whose file holds another token than before. */
void nx_config_compare_tokens(const struct nx_config *current,
                              const struct nx_config *fresh,
                              struct nx_config_report *report);

/* What no single value shows: combinations that can't work. */
void nx_config_check(const struct nx_config *config, struct nx_config_report *report);

#endif
