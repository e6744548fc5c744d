/* DATA_DIR/data-N/identity. Written by the postmaster alone; read at start and by tools. It owns nothing
 * beyond a call. */
#include "storage/data_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
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

/* ---- what was decided about the role ---- */

static bool begins_with(const char *text, const char *key)
{
    size_t n = strlen(key);

    return strncmp(text, key, n) == 0 && strncmp(text + n, " = ", 3) == 0;
}

static bool is_line(const char *text)
{
    return strchr(text, '\n') == NULL;
}

/* Whether it can be who leads in this epoch: what doesn't say that would bind nobody. */
static bool is_node(uint64_t epoch, const char *node_id)
{
    uint8_t uuid[16];

    return epoch != 0 && nx_uuid_parse(node_id, uuid) == 0;
}

static int take_fence(const char **text, struct nx_fence *fence)
{
    const struct nx_line_number epoch = {"fence_epoch", UINT64_MAX, &fence->epoch};

    if (!begins_with(*text, "fence_epoch")) {
        return 0;
    }
    if (nx_line_take_numbers(text, &epoch, 1) < 0 ||
        nx_line_take(text, "fence_node_id", fence->node_id, sizeof fence->node_id) < 0 ||
        nx_line_take(text, "fence_addr", fence->addr, sizeof fence->addr) < 0 ||
        nx_line_take(text, "fence_http_addr", fence->http_addr, sizeof fence->http_addr) < 0 ||
        !is_node(fence->epoch, fence->node_id)) {
        return -EBADMSG;
    }
    return 0;
}

static int take_promise(const char **text, struct nx_promise *promise)
{
    const struct nx_line_number epoch = {"promise_epoch", UINT64_MAX, &promise->epoch};
    const struct nx_line_number attempt = {"promise_attempt", UINT64_MAX, &promise->attempt};

    if (!begins_with(*text, "promise_epoch")) {
        return 0;
    }
    if (nx_line_take_numbers(text, &epoch, 1) < 0 ||
        nx_line_take(text, "promise_node_id", promise->node_id, sizeof promise->node_id) < 0 ||
        !is_node(promise->epoch, promise->node_id)) {
        return -EBADMSG;
    }
    return begins_with(*text, "promise_attempt") ? nx_line_take_numbers(text, &attempt, 1) : 0;
}

/* Roles as words, so that a person can read the file. */
static int take_config(const char **text,
                       const char *role_key,
                       const char *addr_key,
                       struct nx_role_config *config)
{
    static const enum nx_role roles[] = {NX_ROLE_STANDALONE, NX_ROLE_MASTER, NX_ROLE_REPLICA};
    char role[16];

    if (nx_line_take(text, role_key, role, sizeof role) < 0 ||
        nx_line_take(text, addr_key, config->master_addr, sizeof config->master_addr) < 0) {
        return -EBADMSG;
    }
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(role, nx_role_name(roles[i])) == 0) {
            config->role = roles[i];
            return 0;
        }
    }
    return -EBADMSG;
}

static int take_note(const char **text, struct nx_role_note *note)
{
    const struct nx_line_number epoch = {"note_epoch", UINT64_MAX, &note->epoch};

    if (!begins_with(*text, "note_epoch")) {
        return 0;
    }
    if (nx_line_take_numbers(text, &epoch, 1) < 0) {
        return -EBADMSG;
    }
    return take_config(text, "note_role", "note_master_addr", &note->configured);
}

static int take_follow(const char **text, struct nx_follow *follow)
{
    uint64_t force = 0;
    const struct nx_line_number by_force = {"follow_force", 1, &force};

    if (!begins_with(*text, "follow_addr")) {
        return 0;
    }
    if (nx_line_take(text, "follow_addr", follow->addr, sizeof follow->addr) < 0 ||
        nx_line_take_numbers(text, &by_force, 1) < 0) {
        return -EBADMSG;
    }
    follow->force = force == 1;
    return take_config(text, "follow_role", "follow_master_addr", &follow->configured);
}

bool nx_role_config_same(const struct nx_role_config *a, const struct nx_role_config *b)
{
    return a->role == b->role && strcmp(a->master_addr, b->master_addr) == 0;
}

static int take_goal(const char **text, struct nx_sync_goal *goal)
{
    const struct nx_line_number numbers[] = {
        {"goal_offset", UINT64_MAX, &goal->offset},
        {"goal_epoch", UINT64_MAX, &goal->epoch},
        {"goal_shown", UINT64_MAX, &goal->shown},
        {"goal_shown_epoch", UINT64_MAX, &goal->shown_epoch},
    };

    return begins_with(*text, "goal_offset")
               ? nx_line_take_numbers(text, numbers, sizeof numbers / sizeof numbers[0])
               : 0;
}

/* Each of them may be missing; their order is fixed. */
static int take_decisions(const char **text, struct nx_identity *identity)
{
    int rc = 0;

    if (begins_with(*text, "first_node_id")) {
        rc = nx_line_take(text, "first_node_id", identity->first_node_id,
                          sizeof identity->first_node_id);
        rc = rc == 0 && !uuid_or_nothing(identity->first_node_id) ? -EBADMSG : rc;
    }
    rc = rc < 0 ? rc : take_fence(text, &identity->fence);
    rc = rc < 0 ? rc : take_promise(text, &identity->promise);
    rc = rc < 0 ? rc : take_note(text, &identity->note);
    rc = rc < 0 ? rc : take_follow(text, &identity->follow);
    return rc < 0 ? rc : take_goal(text, &identity->goal);
}

/* Lines are put one behind the other; the room is for the longest of all. */
__attribute__((format(printf, 3, 4))) static void put(char *text,
                                                      size_t cap,
                                                      const char *format,
                                                      ...)
{
    size_t length = strlen(text);
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text + length, cap - length, format, args);
    va_end(args);
}

/* Whether they could be read again. */
static bool are_lines(const struct nx_identity *identity)
{
    const struct nx_fence *fence = &identity->fence;
    const struct nx_promise *promise = &identity->promise;

    return uuid_or_nothing(identity->first_node_id) &&
           (fence->epoch == 0 || is_node(fence->epoch, fence->node_id)) &&
           (promise->epoch == 0 || is_node(promise->epoch, promise->node_id)) &&
           is_line(fence->addr) && is_line(fence->http_addr) && is_line(identity->follow.addr) &&
           is_line(identity->note.configured.master_addr) &&
           is_line(identity->follow.configured.master_addr);
}

static int put_decisions(char *text, size_t cap, const struct nx_identity *identity)
{
    const struct nx_fence *fence = &identity->fence;
    const struct nx_follow *follow = &identity->follow;
    const struct nx_sync_goal *goal = &identity->goal;

    if (!are_lines(identity)) {
        return -EINVAL;
    }
    if (identity->first_node_id[0] != '\0') {
        put(text, cap, "first_node_id = %s\n", identity->first_node_id);
    }
    if (fence->epoch != 0) {
        put(text, cap,
            "fence_epoch = %" PRIu64 "\nfence_node_id = %s\nfence_addr = %s\n"
            "fence_http_addr = %s\n",
            fence->epoch, fence->node_id, fence->addr, fence->http_addr);
    }
    if (identity->promise.epoch != 0) {
        put(text, cap, "promise_epoch = %" PRIu64 "\npromise_node_id = %s\n",
            identity->promise.epoch, identity->promise.node_id);
    }
    if (identity->promise.epoch != 0 && identity->promise.attempt != 0) {
        put(text, cap, "promise_attempt = %" PRIu64 "\n", identity->promise.attempt);
    }
    if (identity->note.epoch != 0) {
        put(text, cap, "note_epoch = %" PRIu64 "\nnote_role = %s\nnote_master_addr = %s\n",
            identity->note.epoch, nx_role_name(identity->note.configured.role),
            identity->note.configured.master_addr);
    }
    if (follow->addr[0] != '\0') {
        put(text, cap,
            "follow_addr = %s\nfollow_force = %d\nfollow_role = %s\nfollow_master_addr = %s\n",
            follow->addr, follow->force ? 1 : 0, nx_role_name(follow->configured.role),
            follow->configured.master_addr);
    }
    if (goal->offset != 0 || goal->shown != 0) {
        put(text, cap,
            "goal_offset = %" PRIu64 "\ngoal_epoch = %" PRIu64 "\ngoal_shown = %" PRIu64
            "\ngoal_shown_epoch = %" PRIu64 "\n",
            goal->offset, goal->epoch, goal->shown, goal->shown_epoch);
    }
    return 0;
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
        !uuid_or_nothing(identity.cluster_id) || take_decisions(&line, &identity) < 0) {
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
    (void)snprintf(text, sizeof text, "cluster_id = %s\n", identity->cluster_id);
    if (put_decisions(text, sizeof text, identity) < 0) {
        return -EINVAL;
    }
    length = strlen(text);
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
