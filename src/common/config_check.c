/* Runs wherever a configuration is read. What no single value shows. */
#include "common/config_table.h"
#include "common/net.h"
#include "common/peer_list.h"
#include "common/shm_layout.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The limits in config_options.def are literals, because the documentation shows them. */
static_assert(NX_MAX_REPLICAS == 128, "replication.max_replicas");
static_assert(NX_MAX_HTTP_WORKERS == 8, "http.workers");
static_assert(NX_ADDR_TEXT == NX_ADDR_SIZE, "addresses");

static bool is_loopback_host(const char *host)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

    if (inet_pton(AF_INET, host, &in.sin_addr) == 1) {
        return nx_net_is_loopback((const struct sockaddr *)&in);
    }
    if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1) {
        return nx_net_is_loopback((const struct sockaddr *)&in6);
    }
    return strcasecmp(host, "localhost") == 0;
}

bool nx_config_is_own_address(const struct nx_config *config, const char *addr)
{
    struct nx_net_addr master;
    struct nx_net_addr own;

    if (nx_net_parse(addr, &master) < 0 || nx_net_parse(config->replication.bind_addr, &own) < 0) {
        return false;
    }
    if (strcasecmp(addr, config->replication.advertised_addr) == 0) {
        return true;
    }
    return master.port == own.port && (strcasecmp(master.host, own.host) == 0 ||
                                       (is_loopback_host(master.host) &&
                                        (nx_net_is_wildcard(&own) || is_loopback_host(own.host))));
}

/* "FILE:LINE: ", "VARIABLE: " or "--OPTION: " of a key that was set; "" for a default. */
static const char *where_set(const struct nx_config_report *report,
                             const char *section,
                             const char *key)
{
    static char text[NX_PATH_SIZE + 40];
    size_t row = (size_t)nx_option_find(section, key);
    char where[NX_PATH_SIZE + 32];

    nx_config_where(report, row, where, sizeof where);
    (void)snprintf(text, sizeof text, "%s: ", where);
    return report->origins[row] == NX_FROM_DEFAULT ? "" : text;
}

static void check_role(const struct nx_config *config, struct nx_config_report *report)
{
    if (config->replication.role != NX_ROLE_REPLICA) {
        return;
    }
    if (config->replication.master_addr[0] == '\0') {
        nx_config_error(report,
                        "%sreplication.role = replica needs replication.master_addr: the master's "
                        "host:port, such as 10.0.0.1:15475",
                        where_set(report, "replication", "role"));
    } else if (nx_config_is_own_address(config, config->replication.master_addr)) {
        nx_config_error(
            report,
            "%sreplication.master_addr = %s is this node's own replication address; name "
            "the master's",
            where_set(report, "replication", "master_addr"), config->replication.master_addr);
    }
}

static void check_quorum(const struct nx_config *config, struct nx_config_report *report)
{
    unsigned peers = nx_peer_list_count(config->replication.peers);

    if (config->replication.mode == NX_MODE_SYNC && config->wal.fsync != NX_FSYNC_ALWAYS) {
        nx_config_error(
            report,
            "%sreplication.mode = sync needs wal.fsync = always: what isn't on disk can't "
            "be promised",
            where_set(report, "replication", "mode"));
    }
    if (config->replication.sync_quorum > config->replication.max_replicas) {
        nx_config_error(
            report,
            "%sreplication.sync_quorum = %llu is above replication.max_replicas = %llu: "
            "so many replicas can never confirm",
            where_set(report, "replication", "sync_quorum"),
            (unsigned long long)config->replication.sync_quorum,
            (unsigned long long)config->replication.max_replicas);
    }
    if (config->replication.mode == NX_MODE_SYNC && peers > 0 &&
        config->replication.sync_quorum > peers) {
        nx_config_warning(
            report,
            "%sreplication.sync_quorum = %llu, but replication.peers lists %u other node%s: with "
            "no more than those no write is ever confirmed",
            where_set(report, "replication", "sync_quorum"),
            (unsigned long long)config->replication.sync_quorum, peers, peers == 1 ? "" : "s");
    }
}

static void check_tokens(const struct nx_config *config, struct nx_config_report *report)
{
    if (config->http.read_token_file[0] != '\0' && config->http.auth_token_file[0] == '\0') {
        nx_config_error(
            report,
            "%shttp.read_token_file needs http.auth_token_file: with a token that only reads, "
            "nobody could write",
            where_set(report, "http", "read_token_file"));
    }
}

/* TLS needs both files; authorities judge the other side of a TLS connection only. */
static void check_tls(const struct nx_config *config, struct nx_config_report *report)
{
    if ((config->http.tls_cert_file[0] == '\0') != (config->http.tls_key_file[0] == '\0')) {
        nx_config_error(report,
                        "http.tls_cert_file and http.tls_key_file go together: set both, or none");
    }
    if ((config->replication.tls_cert_file[0] == '\0') !=
        (config->replication.tls_key_file[0] == '\0')) {
        nx_config_error(
            report,
            "replication.tls_cert_file and replication.tls_key_file go together: set both, or none");
    }
    if (config->replication.tls_ca_file[0] != '\0' &&
        config->replication.tls_cert_file[0] == '\0' && config->http.tls_cert_file[0] == '\0') {
        nx_config_error(report,
                        "%sreplication.tls_ca_file needs replication.tls_cert_file and "
                        "replication.tls_key_file: every node shows a certificate",
                        where_set(report, "replication", "tls_ca_file"));
    }
}

static void check_listening(const struct nx_config *config, struct nx_config_report *report)
{
    struct nx_net_addr http;
    struct nx_net_addr replication;

    if (nx_net_parse(config->http.bind_addr, &http) == 0 &&
        nx_net_parse(config->replication.bind_addr, &replication) == 0 &&
        nx_net_overlap(&http, &replication)) {
        nx_config_error(report,
                        "http.bind_addr = %s and replication.bind_addr = %s overlap: give them "
                        "different ports",
                        config->http.bind_addr, config->replication.bind_addr);
    }
}

static void check_log(const struct nx_config *config, struct nx_config_report *report)
{
    if (config->wal.max_size < 2 * config->wal.segment_size) {
        nx_config_error(report,
                        "%swal.max_size (%llu bytes) must be at least two times wal.segment_size "
                        "(%llu bytes)",
                        where_set(report, "wal", "max_size"),
                        (unsigned long long)config->wal.max_size,
                        (unsigned long long)config->wal.segment_size);
    }
}

void nx_config_check(const struct nx_config *config, struct nx_config_report *report)
{
    check_role(config, report);
    check_quorum(config, report);
    check_tokens(config, report);
    check_tls(config, report);
    check_listening(config, report);
    check_log(config, report);
}
