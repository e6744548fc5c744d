/* DATA_DIR/data-N/identity. Written by the postmaster alone; read at start and by tools. It owns nothing
 * beyond a call. */
#include "storage/data_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#define IDENTITY_NAME "identity"

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

int nx_identity_read(int root_fd, struct nx_identity *ret_identity)
{
    struct nx_identity identity;
    char text[NX_LINES_MAX];
    const char *line = text;
    int rc = nx_lines_read(root_fd, IDENTITY_NAME, text);

    if (rc < 0) {
        return rc;
    }
    if (nx_line_take(&line, "cluster_id", identity.cluster_id, sizeof identity.cluster_id) < 0 ||
        !uuid_or_nothing(identity.cluster_id)) {
        return -EBADMSG;
    }
    if (*line != '\0') {
        return -ENOTSUP;
    }
    *ret_identity = identity;
    return 0;
}

int nx_identity_write(int root_fd, const struct nx_identity *identity)
{
    char text[NX_LINES_MAX];

    if (!uuid_or_nothing(identity->cluster_id)) {
        return -EINVAL;
    }
    (void)snprintf(text, sizeof text, "cluster_id = %s\n", identity->cluster_id);
    return nx_lines_write(root_fd, IDENTITY_NAME, text);
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
