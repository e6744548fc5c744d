/* Runs in the postmaster, before it forks. The command line and the environment, and what the command
 * line can ask for instead of a running server. */
#include "common/command_env.h"
#include "common/config_table.h"
#include "common/edit_distance.h"

#include <limits.h>
#include <nexus_version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESTORE "--restore"

/* ---- command line ---- */

static const struct {
    const char *option;
    enum nx_config_action action;
} actions[] = {
    {"--print-config", NX_ACTION_PRINT_CONFIG},
    {"--check-config", NX_ACTION_CHECK_CONFIG},
    {"--version", NX_ACTION_VERSION},
    {"-V", NX_ACTION_VERSION},
    {"--help", NX_ACTION_HELP},
    {"-h", NX_ACTION_HELP},
    {"-?", NX_ACTION_HELP},
};

static bool take_action(const char *argument, struct nx_config_report *report)
{
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (strcmp(argument, actions[i].option) == 0) {
            report->action = actions[i].action;
            return true;
        }
    }
    return false;
}

/* Row of "section.key", which ends at `length`; -1 when there is none, and *ret_near is the nearest. */
static int find_named(const char *name, size_t length, int *ret_near)
{
    char text[NX_OPTION_NAME * 2];
    const char *key = text;
    char *dot;
    int row;

    (void)snprintf(text, sizeof text, "%.*s", (int)(length < INT_MAX ? length : INT_MAX), name);
    dot = strchr(text, '.');
    if (dot != NULL) {
        *dot = '\0';
        key = dot + 1;
    }
    row = nx_option_find(dot == NULL ? "" : text, key);
    *ret_near = row >= 0 ? row : nx_option_nearest(dot == NULL ? "" : text, key);
    return row;
}

/* What follows an option that needs a value: the rest of its own argument, or the next one. */
static const char *value_of(int *i,
                            const char *rest,
                            const char *what,
                            struct nx_config_report *report)
{
    const char *next = *i + 1 < report->argc ? report->argv[*i + 1] : NULL;

    if (rest != NULL) {
        return rest;
    }
    if (next == NULL || strncmp(next, "--", 2) == 0) {
        nx_config_error(report, "%s needs a value", what);
        return NULL;
    }
    (*i)++;
    return next;
}

static void take_restore(int *i, struct nx_config_report *report)
{
    const char *argument = report->argv[*i];
    const char *rest = argument[strlen(RESTORE)] == '=' ? argument + strlen(RESTORE) + 1 : NULL;

    report->action = NX_ACTION_RESTORE;
    report->restore_file = value_of(i, rest, RESTORE, report);
}

static bool is_restore(const char *argument)
{
    size_t length = strlen(RESTORE);

    return strncmp(argument, RESTORE, length) == 0 &&
           (argument[length] == '\0' || argument[length] == '=');
}

static void take_long(int *i, struct nx_config_texts *texts, struct nx_config_report *report)
{
    const char *argument = report->argv[*i];
    const char *equals = strchr(argument, '=');
    size_t length = equals == NULL ? strlen(argument + 2) : (size_t)(equals - argument) - 2;
    char name[NX_OPTION_NAME];
    const char *value;
    int near;
    int row = find_named(argument + 2, length, &near);

    if (row < 0) {
        nx_option_name(&nx_options[near], name);
        /* Its value may be a secret that was put in the wrong place. */
        nx_config_error(report, "unknown option %.*s; did you mean --%s? (--help lists all)",
                        (int)(length + 2 < 80 ? length + 2 : 80), argument, name);
        return;
    }
    value = value_of(i, equals == NULL ? NULL : equals + 1, argument, report);
    if (value != NULL) {
        texts->arguments[row] = value;
    }
}

void nx_config_read_arguments(struct nx_config_texts *texts, struct nx_config_report *report)
{
    for (int i = 1; i < report->argc; i++) {
        const char *argument = report->argv[i];
        const char *rest =
            argument[0] != '\0' && argument[1] != '\0' && argument[2] != '\0' ? argument + 2 : NULL;
        const char *value;

        if (take_action(argument, report)) {
            continue;
        }
        if (is_restore(argument)) {
            take_restore(&i, report);
        } else if (strncmp(argument, "--", 2) == 0 && rest != NULL) {
            take_long(&i, texts, report);
        } else if (strncmp(argument, "-D", 2) == 0) {
            value = value_of(&i, rest, "-D", report);
            texts->arguments[nx_option_find("server", "data_dir")] = value;
        } else if (strncmp(argument, "-c", 2) == 0) {
            texts->argument_file = value_of(&i, rest, "-c", report);
        } else {
            nx_config_error(report,
                            "unknown argument \"%.80s\": expected -D DIR, -c FILE or "
                            "--section.key=value (--help lists all)",
                            argument);
        }
    }
}

/* ---- environment ---- */

static int variable_row(const char *name, int *ret_near)
{
    char known[NX_OPTION_NAME];
    unsigned best = UINT_MAX;

    for (int i = 0; i < NX_CONFIG_KEYS; i++) {
        unsigned distance;

        nx_option_variable(&nx_options[i], known);
        distance = nx_edit_distance(name, known);
        if (strcmp(name, known) == 0) {
            return i;
        }
        if (distance < best) {
            best = distance;
            *ret_near = i;
        }
    }
    return -1;
}

static bool is_of_a_command(const char *name)
{
#ifdef NEXUS_TEST_POINTS
    if (strncmp(name, "NEXUS_FAILPOINT", 15) == 0 || strcmp(name, "NEXUS_PLANT") == 0) {
        return true;
    }
#endif
    static const char *const names[] = {NX_COMMAND_EVENT,       NX_COMMAND_NODE_ID,
                                        NX_COMMAND_MASTER_ADDR, NX_COMMAND_HTTP_ADDR,
                                        NX_COMMAND_WAL_OFFSET,  NX_COMMAND_EPOCH};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void take_variable(const char *variable,
                          struct nx_config_texts *texts,
                          struct nx_config_report *report)
{
    const char *equals = strchr(variable, '=');
    char name[NX_OPTION_NAME * 2];
    char near_name[NX_OPTION_NAME];
    int near = 0;
    int row;

    if (equals == NULL || equals[1] == '\0') {
        return; /* empty: unset */
    }
    (void)snprintf(name, sizeof name, "%.*s", (int)(equals - variable), variable);
    row = variable_row(name, &near);
    if (strcmp(name, "NEXUS_CONFIG") == 0) {
        texts->variable_file = equals + 1;
    } else if (row >= 0) {
        texts->variables[row] = equals + 1;
    } else if (!is_of_a_command(name)) {
        nx_option_variable(&nx_options[near], near_name);
        nx_config_warning(report,
                          "environment variable %s is unknown and does nothing; did you "
                          "mean %s?",
                          name, near_name);
    }
}

void nx_config_read_environment(struct nx_config_texts *texts, struct nx_config_report *report)
{
    for (char **variable = environ; variable != NULL && *variable != NULL; variable++) {
        if (strncmp(*variable, "NEXUS_", 6) == 0) {
            take_variable(*variable, texts, report);
        }
    }
}

/* ---- what is printed ---- */

static void print_usage(void)
{
    static const char usage[] =
        "nexus-server: a replicated key-value database server. It stays in the foreground; nexus-ctl\n"
        "starts it in the background.\n"
        "\n"
        "usage: nexus-server [-D DIR] [-c FILE] [--section.key=value ...]\n"
        "\n"
        "  -D DIR               data directory (--server.data_dir), else $NEXUS_DATA_DIR, else data_dir\n"
        "                       of a file that -c or $NEXUS_CONFIG names, else ./data\n"
        "  -c FILE              configuration file, else $NEXUS_CONFIG, else nexus.conf in the data\n"
        "                       directory, if there is one\n"
        "  --section.key=value  any key of the configuration; goes before the environment\n"
        "                       (NEXUS_SECTION_KEY), which goes before the file\n"
        "  --print-config       print the configuration in force, where each value comes from, and exit\n"
        "  --check-config       say whether the configuration is good (exit status 0 or 1), and exit\n"
        "  --restore=FILE       fill a new data directory from a snapshot's file (-: standard input), and exit\n"
        "  -V, --version        print the version, and exit\n"
        "  -h, --help           print this, and exit\n"
        "\n"
        "Keys and their defaults:\n";
    char name[NX_OPTION_NAME];

    (void)fputs(usage, stdout);
    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        nx_option_name(&nx_options[i], name);
        printf("  --%s=%s\n", name, nx_options[i].initial);
    }
}

static void print_path(const char *what, const char *path)
{
    char absolute[NX_PATH_SIZE];

    printf("%s%s\n", what, nx_config_absolute(path, absolute) == 0 ? absolute : path);
}

static void print_config(const struct nx_config *config, const struct nx_config_report *report)
{
    const char *section = "";
    char where[NX_PATH_SIZE + 32];
    char text[NX_PATH_SIZE];

    printf("# nexus-server %s: the configuration in force, and where it comes from\n",
           NEXUS_VERSION);
    printf("# configuration file: %s\n", report->file[0] == '\0' ? "none" : report->file);
    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        if (strcmp(section, nx_options[i].section) != 0) {
            section = nx_options[i].section;
            printf("\n[%s]\n", section);
        }
        (void)nx_option_format(&nx_options[i], config, text, sizeof text);
        nx_config_where(report, i, where, sizeof where);
        printf("%s =%s%s  # %s\n", nx_options[i].key, text[0] == '\0' ? "" : " ", text, where);
    }
}

static void print_good(const struct nx_config *config, const struct nx_config_report *report)
{
    printf("configuration ok\n");
    print_path("data directory: ", config->server.data_dir);
    printf("configuration file: %s\n", report->file[0] == '\0' ? "none" : report->file);
}

static void print_messages(const struct nx_config_report *report)
{
    for (unsigned i = 0; i < report->warning_count && i < NX_CONFIG_MESSAGES; i++) {
        (void)fprintf(stderr, "nexus-server: warning: %s\n", report->warnings[i]);
    }
    for (unsigned i = 0; i < report->error_count && i < NX_CONFIG_MESSAGES; i++) {
        (void)fprintf(stderr, "nexus-server: %s\n", report->errors[i]);
    }
    if (report->error_count > NX_CONFIG_MESSAGES) {
        (void)fprintf(stderr, "nexus-server: and %u errors more\n",
                      report->error_count - NX_CONFIG_MESSAGES);
    }
}

/* Output that nobody got is a failure too. */
static int printed(void)
{
    return fflush(stdout) == 0 && ferror(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

bool nx_config_main_action(int rc,
                           const struct nx_config *config,
                           const struct nx_config_report *report,
                           int *ret_status)
{
    if (report->action == NX_ACTION_VERSION) {
        printf("nexus-server %s\n", NEXUS_VERSION);
    } else if (report->action == NX_ACTION_HELP) {
        print_usage();
    } else if (rc < 0) {
        print_messages(report);
        *ret_status = EXIT_FAILURE;
        return true;
    } else if (report->action == NX_ACTION_RUN || report->action == NX_ACTION_RESTORE) {
        return false;
    } else {
        print_messages(report);
        if (report->action == NX_ACTION_PRINT_CONFIG) {
            print_config(config, report);
        } else {
            print_good(config, report);
        }
    }
    *ret_status = printed();
    return true;
}
