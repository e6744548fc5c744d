/* Runs in the postmaster, at start and at a reload: the tokens come with the configuration, so that all processes
 * have them as they have the rest, and guard their memory. */
#include "common/config_table.h"
#include "common/tls.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

static const struct {
    const char *section;
    const char *key;
    size_t path;  /* in struct nx_config */
    size_t token; /* in struct nx_config */
} files[] = {
    {"http", "auth_token_file", offsetof(struct nx_config, http.auth_token_file),
     offsetof(struct nx_config, tokens.http_auth)},
    {"http", "read_token_file", offsetof(struct nx_config, http.read_token_file),
     offsetof(struct nx_config, tokens.http_read)},
    {"replication", "token_file", offsetof(struct nx_config, replication.token_file),
     offsetof(struct nx_config, tokens.replication)},
};

static void check_read_token(const struct nx_tokens *tokens, struct nx_config_report *report)
{
    if (tokens->http_read[0] == '\0') {
        return;
    }
    if (strcmp(tokens->http_read, tokens->http_auth) == 0) {
        nx_config_error(
            report,
            "http.read_token_file and http.auth_token_file hold the same token: who may only "
            "read could write");
    }
    if (strcmp(tokens->http_read, tokens->replication) == 0) {
        nx_config_error(
            report,
            "http.read_token_file and replication.token_file hold the same token: who may only "
            "read could replicate, and ask for promises");
    }
}

static void take_warning(void *arg, const char *text)
{
    nx_config_warning(arg, "%s", text);
}

static void check_tls(const struct nx_config *config, struct nx_config_report *report)
{
    char error[NX_CONFIG_MESSAGE_SIZE];

    if (nx_tls_check(config, error, sizeof error, take_warning, report) < 0) {
        nx_config_error(report, "%s", error);
    }
}

void nx_config_read_secrets(struct nx_config *config, struct nx_config_report *report)
{
    char where[NX_PATH_SIZE + 32];
    char error[256];

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = (const char *)config + files[i].path;
        char *token = (char *)config + files[i].token;

        memset(token, 0, NX_TOKEN_SIZE);
        if (path[0] != '\0' &&
            nx_token_read(path, config->server.user, token, error, sizeof error) < 0) {
            nx_config_where(report, (size_t)nx_option_find(files[i].section, files[i].key), where,
                            sizeof where);
            nx_config_error(report, "%s: %s.%s = %.200s: %s", where, files[i].section, files[i].key,
                            path, error);
        }
    }
    if (report->error_count == 0) {
        check_read_token(&config->tokens, report);
    }
    if (report->error_count == 0) {
        check_tls(config, report);
    }
}

void nx_config_guard_secrets(const struct nx_config *config)
{
    if (config->tokens.http_auth[0] != '\0' || config->tokens.replication[0] != '\0' ||
        config->http.tls_key_file[0] != '\0' || config->replication.tls_key_file[0] != '\0') {
        (void)prctl(PR_SET_DUMPABLE, 0);
    }
}

void nx_config_compare_tokens(const struct nx_config *current,
                              const struct nx_config *fresh,
                              struct nx_config_report *report)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *old = (const char *)current + files[i].token;
        const char *new = (const char *)fresh + files[i].token;

        if (memcmp(old, new, NX_TOKEN_SIZE) != 0) {
            report->changes[nx_option_find(files[i].section, files[i].key)] = NX_CHANGE_APPLIED;
        }
    }
}
