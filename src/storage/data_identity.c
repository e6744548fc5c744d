/* DATA_DIR/data-N/identity. Written by the postmaster alone; read at start and by tools. It owns nothing
 * beyond a call. */
#include "storage/data_identity.h"

#include "common/crc32.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#define IDENTITY_NAME "identity"
#define IDENTITY_MAX  4096
#define CRC_LINE      "crc32 = %08" PRIx32 "\n"
#define CRC_LINE_SIZE 17

int nx_uuid_parse(const char *text, uint8_t ret_uuid[16])
{
    uuid_t uuid;

    if (strlen(text) != NX_UUID_TEXT - 1 || uuid_parse(text, uuid) != 0) {
        return -EINVAL;
    }
    memcpy(ret_uuid, uuid, sizeof uuid);
    return 0;
}

int nx_line_take(const char **text, const char *key, char *ret_value, size_t cap)
{
    size_t skip = strlen(key);
    const char *end = strchr(*text, '\n');
    const char *value;

    if (end == NULL || strncmp(*text, key, skip) != 0 || strncmp(*text + skip, " = ", 3) != 0) {
        return -EBADMSG;
    }
    value = *text + skip + 3;
    if (value > end || (size_t)(end - value) >= cap) {
        return -EBADMSG;
    }
    memcpy(ret_value, value, (size_t)(end - value));
    ret_value[end - value] = '\0';
    *text = end + 1;
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
    char text[IDENTITY_MAX];
    char crc_line[CRC_LINE_SIZE + 1];
    const char *line = text;
    size_t length;
    int rc = nx_file_read_text(root_fd, IDENTITY_NAME, text, sizeof text);

    if (rc < 0) {
        return rc == -E2BIG ? -EBADMSG : rc;
    }
    length = strlen(text);
    if (length < CRC_LINE_SIZE) {
        return -EBADMSG;
    }
    length -= CRC_LINE_SIZE;
    (void)snprintf(crc_line, sizeof crc_line, CRC_LINE, nx_crc32(0, text, length));
    if (strcmp(text + length, crc_line) != 0) {
        return -EBADMSG;
    }
    text[length] = '\0';
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
    char text[IDENTITY_MAX];
    int length;

    if (!uuid_or_nothing(identity->cluster_id)) {
        return -EINVAL;
    }
    length = snprintf(text, sizeof text, "cluster_id = %s\n", identity->cluster_id);
    length += snprintf(text + length, sizeof text - (size_t)length, CRC_LINE,
                       nx_crc32(0, text, (size_t)length));
    return nx_file_replace_at(root_fd, IDENTITY_NAME, text, (size_t)length, 0600);
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
