/* DATA_DIR/data-N/identity. Written by the postmaster alone; read at start and by tools. It owns nothing
 * beyond a call. */
#include "storage/data_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#define IDENTITY_NAME "identity"

/* Bytes of the file, and NUL: of a known replica's lines at most, and what else there is. */
#define REPLICA_LINES (NX_UUID_TEXT + 2 * NX_ADDR_TEXT + 160)
#define IDENTITY_MAX  (NX_LINES_MAX + NX_MAX_REPLICAS * REPLICA_LINES)
#define REPLICA_LINE  "replica = "

int nx_uuid_parse(const char *text, uint8_t ret_uuid[16])
{
    uuid_t uuid;

    if (strlen(text) != NX_UUID_TEXT - 1 || uuid_parse(text, uuid) != 0) {
        return -EINVAL;
    }
    memcpy(ret_uuid, uuid, sizeof uuid);
    return 0;
}

static bool uuid_or_nothing(const char *text)
{
    uint8_t uuid[16];

    return text[0] == '\0' || nx_uuid_parse(text, uuid) == 0;
}

/* ---- known replicas ---- */

static bool is_known(const struct nx_identity *identity, const char *id)
{
    for (unsigned i = 0; i < identity->replica_count; i++) {
        if (strcmp(identity->replicas[i].id, id) == 0) {
            return true;
        }
    }
    return false;
}

static int take_replica(const char **text, struct nx_identity *identity)
{
    struct nx_known_replica replica;
    uint8_t uuid[16];
    uint64_t connected;
    const struct nx_line_number numbers[] = {
        {"connected", 1, &connected},
        {"last_seen", UINT64_MAX, &replica.last_seen},
        {"last_ack_offset", UINT64_MAX, &replica.last_ack_offset},
    };

    if (identity->replica_count == NX_MAX_REPLICAS ||
        nx_line_take(text, "replica", replica.id, sizeof replica.id) < 0 ||
        nx_uuid_parse(replica.id, uuid) < 0 || is_known(identity, replica.id) ||
        nx_line_take_numbers(text, numbers, sizeof numbers / sizeof numbers[0]) < 0 ||
        nx_line_take(text, "addr", replica.addr, sizeof replica.addr) < 0 ||
        nx_line_take(text, "http_addr", replica.http_addr, sizeof replica.http_addr) < 0) {
        return -EBADMSG;
    }
    replica.connected = connected == 1;
    identity->replicas[identity->replica_count++] = replica;
    return 0;
}

static bool can_be_stored(const struct nx_known_replica *replica)
{
    uint8_t uuid[16];

    return nx_uuid_parse(replica->id, uuid) == 0 && strchr(replica->addr, '\n') == NULL &&
           strchr(replica->http_addr, '\n') == NULL;
}

static int put_replica(char *text, size_t cap, const struct nx_known_replica *replica)
{
    if (!can_be_stored(replica)) {
        return -EINVAL;
    }
    return snprintf(text, cap,
                    REPLICA_LINE "%s\n"
                                 "connected = %d\n"
                                 "last_seen = %" PRIu64 "\n"
                                 "last_ack_offset = %" PRIu64 "\n"
                                 "addr = %s\n"
                                 "http_addr = %s\n",
                    replica->id, replica->connected ? 1 : 0, replica->last_seen,
                    replica->last_ack_offset, replica->addr, replica->http_addr);
}

/* ---- the file ---- */

int nx_identity_read(int root_fd, struct nx_identity *ret_identity)
{
    struct nx_identity identity = {.replica_count = 0};
    char text[IDENTITY_MAX];
    const char *line = text;
    int rc = nx_lines_read(root_fd, IDENTITY_NAME, text, sizeof text);

    if (rc < 0) {
        return rc;
    }
    if (nx_line_take(&line, "cluster_id", identity.cluster_id, sizeof identity.cluster_id) < 0 ||
        !uuid_or_nothing(identity.cluster_id)) {
        return -EBADMSG;
    }
    while (strncmp(line, REPLICA_LINE, strlen(REPLICA_LINE)) == 0) {
        if (take_replica(&line, &identity) < 0) {
            return -EBADMSG;
        }
    }
    if (*line != '\0') {
        return -ENOTSUP;
    }
    *ret_identity = identity;
    return 0;
}

int nx_identity_write(int root_fd, const struct nx_identity *identity)
{
    char text[IDENTITY_MAX];
    size_t length;

    if (!uuid_or_nothing(identity->cluster_id) || identity->replica_count > NX_MAX_REPLICAS) {
        return -EINVAL;
    }
    length = (size_t)snprintf(text, sizeof text, "cluster_id = %s\n", identity->cluster_id);
    for (unsigned i = 0; i < identity->replica_count; i++) {
        int n = put_replica(text + length, sizeof text - length, &identity->replicas[i]);

        if (n < 0) {
            return n;
        }
        length += (size_t)n;
    }
    return nx_lines_write(root_fd, IDENTITY_NAME, text, sizeof text);
}

int nx_identity_store(struct nx_data_dir *dir, const struct nx_identity *identity)
{
    int root_fd = open(dir->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (root_fd < 0) {
        return -errno;
    }
    rc = nx_identity_write(root_fd, identity);
    close(root_fd);
    if (rc == 0) {
        dir->identity = *identity;
    }
    return rc;
}
