/* Runs in the postmaster. See served.h. */
#include "postmaster/served.h"

#include "common/log.h"

#include <stdio.h>
#include <string.h>

/* nobody: what stands where no address is served without a token. */
static const char *allowed(enum nx_allow allow, const char *nobody)
{
    switch (allow) {
    case NX_ALLOW_NONE:
        return nobody;
    case NX_ALLOW_LOOPBACK:
        return "loopback";
    case NX_ALLOW_PRIVATE:
        return "loopback and private networks";
    case NX_ALLOW_ANY:
        return "ANYBODY WHO CAN CONNECT";
    }
    return "";
}

void nx_served_say(const struct nx_config *config)
{
    static char said[256];
    bool http = config->tokens.http_auth[0] != '\0';
    bool replication = config->tokens.replication[0] != '\0';
    char line[sizeof said];

    (void)snprintf(
        line, sizeof line, "by HTTP %s (%s), as a replica %s (%s)",
        allowed(http ? NX_ALLOW_NONE : config->http.allow_without_token,
                "nobody but the Unix socket"),
        http ? "http.auth_token_file" : "http.allow_without_token",
        allowed(replication ? NX_ALLOW_NONE : config->replication.allow_without_token, "nobody"),
        replication ? "replication.token_file" : "replication.allow_without_token");
    if (strcmp(line, said) != 0) {
        memcpy(said, line, sizeof said);
        nx_info("served without a token: %s", line);
    }
}
