/* Runs wherever a configuration is read. The INI file, through inih, which gives sections and names.
 * Values are kept aside from it: Debian's build of it takes lines of 200 bytes, a path may have 1023; and
 * it knows no comment by # behind a value, and takes an indented line for the end of the one before. */
#include "common/config_table.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE ((size_t)1 << 20)
#define BLANKS   " \t\r\v\f"

struct file {
    struct nx_config *config;
    struct nx_config_report *report;
    const char *next; /* line */
    unsigned line;    /* number of the one before `next`, from 1 */
    const char *value;
    size_t value_length;
};

/* ---- what inih reports ---- */

static void unknown_key(const struct file *file, const char *section, const char *key)
{
    const struct nx_option *near = &nx_options[nx_option_nearest(section, key)];

    if (section[0] == '\0') {
        nx_config_error(file->report,
                        "%s:%u: key \"%s\" stands before any section; put it under its [section], "
                        "such as %s under [%s]",
                        file->report->file, file->line, key, near->key, near->section);
        return;
    }
    nx_config_error(file->report,
                    "%s:%u: unknown key \"%s\" in section [%s]; did you mean \"%s\" in [%s]?",
                    file->report->file, file->line, key, section, near->key, near->section);
}

/* Without the blanks and the comment behind it. */
static size_t value_length(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        bool behind_blank = i == 0 || strchr(BLANKS, value[i - 1]) != NULL;

        if ((value[i] == '#' || value[i] == ';') && behind_blank) {
            length = i;
        }
    }
    while (length > 0 && strchr(BLANKS, value[length - 1]) != NULL) {
        length--;
    }
    return length;
}

static void set(const struct file *file, size_t row)
{
    const struct nx_option *option = &nx_options[row];
    char text[NX_PATH_SIZE + 1];
    char expected[NX_EXPECTED];
    size_t length = file->value_length < sizeof text ? file->value_length : sizeof text - 1;

    memcpy(text, file->value, length);
    text[length] = '\0';
    if (nx_option_parse(option, text, file->config, expected) < 0) {
        nx_config_error(file->report, "%s:%u: %s.%s = \"%.80s\": expected %s", file->report->file,
                        file->line, option->section, option->key, text, expected);
        return;
    }
    file->report->origins[row] = NX_FROM_FILE;
}

/* inih's handler. What is wrong is in the report, so that a non-zero end of inih is its own. */
static int take_key(void *user, const char *section, const char *key, const char *value)
{
    struct file *file = user;
    int row = nx_option_find(section, key);

    (void)value;
    if (row < 0) {
        unknown_key(file, section, key);
    } else if (file->report->lines[row] != 0) {
        nx_config_error(file->report, "%s:%u: %s.%s is set a second time, first in line %u",
                        file->report->file, file->line, section, key, file->report->lines[row]);
    } else {
        file->report->lines[row] = file->line;
        set(file, (size_t)row);
    }
    return 1;
}

/* ---- what inih gets ---- */

/* "[section]" and nothing but a comment behind it; all else is told by inih. */
static void check_section(const struct file *file, const char *line, size_t length)
{
    const char *end = memchr(line, ']', length);
    size_t rest = end == NULL ? 0 : length - (size_t)(end + 1 - line);

    if (rest > 0 && value_length(end + 1, rest) > 0) {
        nx_config_error(file->report, "%s:%u: expected nothing behind [section]",
                        file->report->file, file->line);
    }
}

/* inih's reader: the next line without its indentation, with "v" where a value stands. A name that
 * doesn't fit is cut, and so unknown. */
static char *next_line(char *out, int size, void *user)
{
    struct file *file = user;
    size_t room = (size_t)size - 4; /* "=v\n" and NUL */
    size_t length = strcspn(file->next, "\n");
    const char *line = file->next;
    size_t indent = strspn(line, " \t");
    size_t name;

    if (*line == '\0') {
        return NULL;
    }
    file->line++;
    file->next += length + (line[length] == '\n' ? 1 : 0);
    line += indent;
    length -= indent;
    name = strcspn(line, "=:\n");
    if (length == 0 || strchr("#;[", line[0]) != NULL || name == length) {
        if (length > 0 && line[0] == '[') {
            check_section(file, line, length);
        }
        (void)snprintf(out, (size_t)size, "%.*s\n", (int)(length < room ? length : room), line);
        return out;
    }
    file->value = line + name + 1;
    file->value_length = length - name - 1;
    indent = strspn(file->value, BLANKS);
    indent = indent < file->value_length ? indent : file->value_length;
    file->value += indent;
    file->value_length = value_length(file->value, file->value_length - indent);
    (void)snprintf(out, (size_t)size, "%.*s=v\n", (int)(name < room ? name : room), line);
    return out;
}

/* ---- the file ---- */

/* The whole file as a string, to be freed; NULL and an error in the report. */
static char *read_all(int fd, struct nx_config_report *report)
{
    char *text = malloc(MAX_FILE + 1);
    size_t length = 0;
    ssize_t n = 1;

    while (text != NULL && n > 0 && length < MAX_FILE) {
        n = read(fd, text + length, MAX_FILE - length);
        length += n > 0 ? (size_t)n : 0;
        n = n < 0 && errno == EINTR ? 1 : n;
    }
    if (text == NULL || n < 0) {
        nx_config_error(report, "configuration file %s: %s", report->file, strerrordesc_np(errno));
    } else if (length == MAX_FILE || memchr(text, '\0', length) != NULL) {
        nx_config_error(report, "configuration file %s is none: %s", report->file,
                        length == MAX_FILE ? "it is larger than 1 MiB" : "it has zero bytes");
    } else {
        text[length] = '\0';
        return text;
    }
    free(text);
    return NULL;
}

void nx_config_read_file(struct nx_config *config, struct nx_config_report *report)
{
    struct file file = {.config = config, .report = report};
    int fd = open(report->file, O_RDONLY | O_CLOEXEC);
    char *text;
    int rc;

    if (fd < 0) {
        nx_config_error(report, "configuration file %s: %s", report->file, strerrordesc_np(errno));
        return;
    }
    text = read_all(fd, report);
    close(fd);
    if (text == NULL) {
        return;
    }
    file.next = text;
    rc = ini_parse_stream(next_line, &file, take_key, &file);
    if (rc > 0) {
        nx_config_error(report, "%s:%d: expected [section], key = value, or a comment",
                        report->file, rc);
    } else if (rc < 0) {
        nx_config_error(report, "configuration file %s: no memory to read it", report->file);
    }
    free(text);
}
