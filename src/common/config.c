/* Runs in the postmaster, at start and at a reload. Brings the sources together. It opens nothing but
 * the configuration file, and logs nothing: what it finds out is in the report. */
#include "common/config.h"

#include "common/config_table.h"
#include "common/log.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the report ---- */

/* What is wrong may be a control character, and messages go to terminals. */
static void make_printable(char *message)
{
    while (*message != '\0') {
        size_t n = nx_log_printable(message);

        if (n == 0) {
            *message = '?';
        }
        message += n == 0 ? 1 : n;
    }
}

__attribute__((format(printf, 3, 0))) static void note(char messages[][NX_CONFIG_MESSAGE_SIZE],
                                                       unsigned *count,
                                                       const char *format,
                                                       va_list args)
{
    if (*count < NX_CONFIG_MESSAGES) {
        (void)vsnprintf(messages[*count], NX_CONFIG_MESSAGE_SIZE, format, args);
        make_printable(messages[*count]);
    }
    (*count)++;
}

void nx_config_error(struct nx_config_report *report, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    note(report->errors, &report->error_count, format, args);
    va_end(args);
}

void nx_config_warning(struct nx_config_report *report, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    note(report->warnings, &report->warning_count, format, args);
    va_end(args);
}

void nx_config_where(const struct nx_config_report *report, size_t row, char *text, size_t cap)
{
    char name[NX_OPTION_NAME];

    switch (report->origins[row]) {
    case NX_FROM_FILE:
        (void)snprintf(text, cap, "%s:%u", report->file, report->lines[row]);
        return;
    case NX_FROM_ENVIRONMENT:
        nx_option_variable(&nx_options[row], name);
        (void)snprintf(text, cap, "%s", name);
        return;
    case NX_FROM_COMMAND_LINE:
        nx_option_name(&nx_options[row], name);
        (void)snprintf(text, cap, "--%s", name);
        return;
    case NX_FROM_DEFAULT:
        break;
    }
    (void)snprintf(text, cap, "default");
}

unsigned nx_config_changes(const struct nx_config_report *report,
                           enum nx_config_change change,
                           char *text,
                           size_t cap)
{
    char name[NX_OPTION_NAME];
    size_t length = 0;
    unsigned count = 0;

    (void)snprintf(text, cap, "%s", "");
    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        if (report->changes[i] != change) {
            continue;
        }
        nx_option_name(&nx_options[i], name);
        if (length < cap) {
            length +=
                (size_t)snprintf(text + length, cap - length, "%s%s", count == 0 ? "" : ", ", name);
        }
        count++;
    }
    return count;
}

/* ---- one source over another ---- */

/* Blanks around a value mean nothing, as in the file. */
static void trim(const char *text, char *ret_text, size_t cap)
{
    size_t length;

    text += strspn(text, " \t");
    length = strlen(text);
    while (length > 0 && strchr(" \t", text[length - 1]) != NULL) {
        length--;
    }
    (void)snprintf(ret_text, cap, "%.*s", (int)(length < INT_MAX ? length : INT_MAX), text);
}

static void apply(struct nx_config *config,
                  struct nx_config_report *report,
                  const char *const texts[NX_CONFIG_KEYS],
                  enum nx_config_origin origin)
{
    char where[NX_PATH_SIZE + 32];
    char expected[NX_EXPECTED];
    char text[NX_PATH_SIZE + 1]; /* one more than fits a member, which refuses it */

    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        enum nx_config_origin before = report->origins[i];

        if (texts[i] == NULL) {
            continue;
        }
        trim(texts[i], text, sizeof text);
        report->origins[i] = origin;
        if (nx_option_parse(&nx_options[i], text, config, expected) < 0) {
            nx_config_where(report, i, where, sizeof where);
            nx_config_error(report, "%s=%.80s: expected %s", where, text, expected);
            report->origins[i] = before;
        }
    }
}

/* ---- where the file is ---- */

int nx_config_absolute(const char *path, char ret_path[NX_PATH_SIZE])
{
    char directory[NX_PATH_SIZE];
    int n;

    if (path[0] == '/') {
        n = snprintf(ret_path, NX_PATH_SIZE, "%s", path);
    } else if (getcwd(directory, sizeof directory) == NULL) {
        return -errno;
    } else {
        n = snprintf(ret_path, NX_PATH_SIZE, "%s/%s", directory,
                     strncmp(path, "./", 2) == 0 ? path + 2 : path);
    }
    return n < NX_PATH_SIZE ? 0 : -ENAMETOOLONG;
}

static void use_file(struct nx_config_report *report, const char *path)
{
    int rc = nx_config_absolute(path, report->file);

    if (rc < 0) {
        report->file[0] = '\0';
        nx_config_error(report, "configuration file %.200s: %s", path, strerrordesc_np(-rc));
    }
}

/* The data directory as far as no file has a say. */
static const char *data_dir_outside_file(const struct nx_config_texts *texts)
{
    int row = nx_option_find("server", "data_dir");

    if (texts->arguments[row] != NULL) {
        return texts->arguments[row];
    }
    return texts->variables[row] != NULL ? texts->variables[row] : nx_options[row].initial;
}

/* nexus.conf in the data directory, if there is one. */
static void use_file_of_data_dir(const char *directory, struct nx_config_report *report)
{
    char path[NX_PATH_SIZE];
    struct stat st;

    if (snprintf(path, sizeof path, "%s/nexus.conf", directory) >= (int)sizeof path) {
        return; /* the directory itself is refused */
    }
    if (stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR)) {
        use_file(report, path);
    }
}

static void find_file(const struct nx_config_texts *texts, struct nx_config_report *report)
{
    const char *named = texts->argument_file != NULL ? texts->argument_file : texts->variable_file;

    report->file_named = named != NULL;
    if (named == NULL) {
        use_file_of_data_dir(data_dir_outside_file(texts), report);
    } else if (named[0] == '\0') {
        nx_config_error(report, "-c needs a file");
    } else {
        use_file(report, named);
    }
}

/* A file that was found in the data directory can't say that the data directory is elsewhere. */
static void check_data_dir_of_file(const char *holder,
                                   const struct nx_config *config,
                                   struct nx_config_report *report)
{
    int row = nx_option_find("server", "data_dir");
    struct stat a;
    struct stat b;

    if (report->file_named || report->origins[row] != NX_FROM_FILE) {
        return;
    }
    if (stat(holder, &a) != 0 || stat(config->server.data_dir, &b) != 0 || a.st_dev != b.st_dev ||
        a.st_ino != b.st_ino) {
        nx_config_error(report,
                        "%s:%u: server.data_dir = %s is another directory than the one that holds "
                        "this file; remove the line, or name the file by -c",
                        report->file, report->lines[row], config->server.data_dir);
    }
}

/* ---- load and reload ---- */

static void read_sources(struct nx_config *config, struct nx_config_report *report)
{
    struct nx_config_texts texts = {.argument_file = NULL};

    config->tokens = (struct nx_tokens){.http_auth = ""};
    nx_config_defaults(config);
    nx_config_read_arguments(&texts, report);
    if (report->action == NX_ACTION_HELP || report->action == NX_ACTION_VERSION) {
        return;
    }
    nx_config_read_environment(&texts, report);
    find_file(&texts, report);
    if (report->file[0] != '\0') {
        nx_config_read_file(config, report);
        check_data_dir_of_file(data_dir_outside_file(&texts), config, report);
    }
    apply(config, report, texts.variables, NX_FROM_ENVIRONMENT);
    apply(config, report, texts.arguments, NX_FROM_COMMAND_LINE);
    if (report->error_count == 0) {
        nx_config_check(config, report);
    }
    if (report->error_count == 0 && report->action != NX_ACTION_PRINT_CONFIG) {
        nx_config_read_secrets(config, report);
    }
}

int nx_config_load(struct nx_config *ret_config,
                   int argc,
                   char **argv,
                   struct nx_config_report *ret_report)
{
    struct nx_config config;

    memset(ret_report, 0, sizeof *ret_report);
    ret_report->argc = argc;
    ret_report->argv = argv;
    read_sources(&config, ret_report);
    if (ret_report->error_count > 0) {
        return -EINVAL;
    }
    *ret_config = config;
    return 0;
}

/* `fresh` becomes what holds from now on. */
static void keep_until_restart(const struct nx_config *current,
                               struct nx_config *fresh,
                               struct nx_config_report *report)
{
    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        const struct nx_option *option = &nx_options[i];
        const char *old = (const char *)current + option->at;
        char *new = (char *)fresh + option->at;

        if (memcmp(old, new, option->size) == 0) {
            continue;
        }
        report->changes[i] = NX_CHANGE_APPLIED;
        if (option->when != NX_WHEN_RELOAD) {
            report->changes[i] = NX_CHANGE_WAITS;
            memcpy(new, old, option->size);
        }
    }
}

int nx_config_reload(const struct nx_config *current,
                     const struct nx_config_report *loaded,
                     struct nx_config *ret_config,
                     struct nx_config_report *ret_report)
{
    struct nx_config fresh;
    int rc = nx_config_load(&fresh, loaded->argc, loaded->argv, ret_report);

    if (rc < 0) {
        return rc;
    }
    keep_until_restart(current, &fresh, ret_report);
    nx_config_compare_tokens(current, &fresh, ret_report);
    nx_config_check(&fresh, ret_report); /* new keys beside old ones that wait for a restart */
    if (ret_report->error_count > 0) {
        return -EINVAL;
    }
    *ret_config = fresh;
    return 0;
}
