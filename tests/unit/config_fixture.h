/* Configurations for tests: each test has a working directory of its own and an environment without
 * NEXUS_*. Everything here fails the test when it can't do its work. */
#ifndef NX_TESTS_CONFIG_FIXTURE_H
#define NX_TESTS_CONFIG_FIXTURE_H

#include "common/config.h"

#include <check.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct nx_config config;
static struct nx_config_report report;
static char dir[] = "/tmp/nexus-test-config-XXXXXX";
static char home[PATH_MAX];

static inline void setup(void)
{
    ck_assert_ptr_nonnull(getcwd(home, sizeof home));
    memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    ck_assert_int_eq(clearenv(), 0);
    memset(&config, 0xA5, sizeof config);
}

static inline void teardown(void)
{
    static const char *const names[] = {"data/nexus.conf", "other/nexus.conf", "data",
                                        "other",           "a.conf",           "b.conf"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)remove(names[i]);
    }
    ck_assert_int_eq(chdir(home), 0);
    ck_assert_int_eq(rmdir(dir), 0);
}

static inline void write_file(const char *name, const char *text, size_t length)
{
    FILE *file = fopen(name, "we");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
}

static inline void write_conf(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

#define MOST_ARGUMENTS 8

/* nx_config_load with these arguments, ended by NULL. The array outlives the call, for reloads. */
static inline int load(const char *const *arguments)
{
    static char texts[MOST_ARGUMENTS][256];
    static char *argv[MOST_ARGUMENTS + 2];
    int argc = 1;

    argv[0] = texts[0];
    (void)snprintf(texts[0], sizeof texts[0], "nexus-server");
    for (; *arguments != NULL; arguments++) {
        ck_assert_int_lt(argc, MOST_ARGUMENTS);
        (void)snprintf(texts[argc], sizeof texts[0], "%s", *arguments);
        argv[argc] = texts[argc];
        argc++;
    }
    argv[argc] = NULL;
    return nx_config_load(&config, argc, argv, &report);
}

#define LOAD(...)  load((const char *const[]){__VA_ARGS__, NULL})
#define HERE(text) strstr(text, dir)

/* The only error of the report. */
static inline const char *only_error(void)
{
    ck_assert_msg(report.error_count == 1, "%u errors, first: %s", report.error_count,
                  report.errors[0]);
    return report.errors[0];
}

#define ASSERT_ERROR_HAS(part)                                                            \
    do {                                                                                  \
        const char *error_ = only_error();                                                \
        ck_assert_msg(strstr(error_, part) != NULL, "\"%s\" lacks \"%s\"", error_, part); \
    } while (0)

#endif
