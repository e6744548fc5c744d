/* Runs in http workers. The replicas that a master knows and that aren't connected, and
 * DELETE /replication/replicas/{id}, which forgets one: the postmaster, which keeps them, is asked over the
 * control channel and answers when that is on disk. Reads shm->known, the replica slots and pins. */
#include "http/absent.h"

#include "common/known_replicas.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/shared_log.h"
#include "common/uuid_text.h"
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "storage/file_io.h"
#include "storage/pin.h"
#include "storage/snapshot_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOST_LOOKS 10 /* at the table, while replicas go */

/* ---- the absent ones ---- */

static bool is_shown(const struct shown_replicas *shown, const char *id)
{
    for (unsigned i = 0; i < shown->count; i++) {
        if (strcmp(shown->ids[i], id) == 0) {
            return true;
        }
    }
    return false;
}

/* Its slot while its walsender lives, or NULL. */
static const struct nx_replica_slot *slot_of(const struct nx_shm *shm, const char *id)
{
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        char there[NX_UUID_TEXT];

        memcpy(there, shm->replicas[i].id, sizeof there);
        there[sizeof there - 1] = '\0';
        if (strcmp(there, id) == 0) {
            return &shm->replicas[i];
        }
    }
    return NULL;
}

/* The postmaster notes what a walsender leaves, then clears its slot: where the table says connected, the slot
 * knows better; where there is none any more, the table was read a moment too early. False: read it again. */
static bool make_current(const struct nx_shm *shm, struct nx_known_replica *replica)
{
    const struct nx_replica_slot *slot = replica->connected ? slot_of(shm, replica->id) : NULL;

    if (slot != NULL) {
        replica->last_seen = nx_wall_ms();
        replica->last_ack_offset = atomic_load_explicit(&slot->ack_offset, memory_order_acquire);
    }
    return slot != NULL || !replica->connected;
}

static unsigned read_absent(const struct nx_shm *shm,
                            const struct shown_replicas *shown,
                            struct nx_known_replica *ret_list)
{
    unsigned absent = 0;
    bool current = false;

    for (unsigned look = 0; look < MOST_LOOKS && !current; look++) {
        unsigned count = nx_known_replicas(shm, ret_list);

        absent = 0;
        current = true;
        for (unsigned i = 0; i < count; i++) {
            if (!is_shown(shown, ret_list[i].id)) {
                ret_list[absent] = ret_list[i];
                current = make_current(shm, &ret_list[absent++]) && current;
            }
        }
    }
    return absent;
}

/* Whether a full sync of this replica holds the log for it, as the master will find when it comes again. */
static bool is_pinned(const struct http_worker *worker, const struct nx_known_replica *replica)
{
    int dir_fd = nx_snapshot_dir(worker->process->data_dir);
    struct nx_pin pin;
    bool pinned;

    if (dir_fd < 0) {
        return false;
    }
    pinned = nx_pin_read(dir_fd, replica->id, &pin) == 0 && pin.offset <= replica->last_ack_offset;
    close(dir_fd);
    return pinned;
}

/* Whether it can go on where it stopped. */
static bool is_log_kept(const struct http_worker *worker, const struct nx_known_replica *replica)
{
    uint64_t most = worker->process->config->replication.max_log_size;
    uint64_t next = replica->last_ack_offset + 1;

    if (next >= nx_log_oldest_kept(worker->shm, most)) {
        return true;
    }
    return next >=
               atomic_load_explicit(&worker->shm->checkpoint.oldest_kept, memory_order_acquire) &&
           is_pinned(worker, replica);
}

static void put_absent(struct json *json,
                       const struct http_worker *worker,
                       const struct nx_known_replica *replica)
{
    uint64_t now = nx_wall_ms();
    uint64_t ms = now > replica->last_seen ? now - replica->last_seen : 0;

    nx_json_open(json, NULL, '{');
    nx_json_string(json, "id", replica->id);
    nx_json_string(json, "addr", replica->addr);
    nx_json_u64(json, "last_seen_seconds", ms / 1000);
    nx_json_u64(json, "last_ack_offset", replica->last_ack_offset);
    nx_json_bool(json, "log_kept", is_log_kept(worker, replica));
    nx_json_close(json, '}');
}

void nx_absent_put(struct json *json,
                   struct http_worker *worker,
                   const struct shown_replicas *shown)
{
    static struct nx_known_replica absent[NX_MAX_REPLICAS];
    unsigned count = read_absent(worker->shm, shown, absent);

    nx_json_open(json, "absent", '[');
    for (unsigned i = 0; i < count; i++) {
        put_absent(json, worker, &absent[i]);
    }
    nx_json_close(json, ']');
}

/* ---- forgetting one ---- */

static void refuse_unknown(struct connection *connection)
{
    nx_refuse(connection, NX_ERROR_NO_SUCH_REPLICA,
              "This master knows no replica of this id; GET /replication/replicas lists those that "
              "it knows.");
}

static void refuse_unstored(struct connection *connection, int error, const char *why)
{
    static struct nx_log_limit limit;
    struct nx_slice id = connection->request->id; /* found to be a UUID */
    const char *root = connection->worker->process->state_root;
    bool full = error == -ENOSPC || error == -EDQUOT;

    nx_log_limited(&limit, NX_LOG_ERROR, "replica %.*s can't be forgotten: %s/identity: %s",
                   (int)id.length, (const char *)id.data, root, why);
    nx_refuse(connection, full ? NX_ERROR_DISK_FULL : NX_ERROR_INTERNAL,
              "The replica isn't forgotten, since that can't be stored in %s/identity: %s.", root,
              why);
}

static void respond(struct connection *connection, const struct nx_control_message *reply)
{
    struct nx_slice id = connection->request->id; /* found to be a UUID */

    switch (reply->status) {
    case 0:
        nx_respond_success(connection, "Replica forgotten");
        break;
    case -ENOENT:
        refuse_unknown(connection);
        break;
    case -EBUSY:
        nx_refuse(connection, NX_ERROR_REPLICA_CONNECTED,
                  "Replica %.*s is connected: stop that node, or have it follow another master, "
                  "and then forget it here.",
                  (int)id.length, (const char *)id.data);
        break;
    default:
        refuse_unstored(connection, reply->status, reply->text);
        break;
    }
}

void nx_handle_replica_forget(struct connection *connection)
{
    struct nx_slice named = connection->request->id;
    char id[NX_UUID_TEXT] = "";

    if (!nx_node_check_role(connection, NX_NODE_MASTER)) {
        return;
    }
    if (!nx_slice_is_uuid(named)) {
        refuse_unknown(connection);
        return;
    }
    nx_uuid_canonical(named, id);
    (void)nx_control_ask_for(connection, NX_CONTROL_FORGET, 0, id, respond);
}
