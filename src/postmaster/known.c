/* Known replicas: whoever was ever welcomed on this master, until a person forgets it, or a week after it
 * was last seen. Runs in the postmaster, which hears of each Welcome and of each walsender's end; it owns the
 * list, shm->known for readers, and the lines of data-N/identity that bring it over a restart.
 *
 * The file is written when somebody came, left, was forgotten or has another address; all that one turn
 * brings is written once, and an orderly stop writes once at its end. A replica that is connected as it is
 * written is marked so: found at a start, the mark says that this node ended without seeing it go.
 *
 * A week is counted by the monotonic clock from the start or the end of the connection, so that a step of
 * the wall clock forgets nobody while the node runs. Off a master the list is empty, and what the file holds
 * stays there, for the day when this node is a master again. */
#include "common/known_replicas.h"
#include "common/latch.h"
#include "common/log.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define FORGET_MS      (7ull * 24 * 3600 * 1000)
#define WRITE_AGAIN_MS 5000 /* after a failure */
#define WRITE_SHARE    10 /* writing takes at most one part of so many of the postmaster's time ... */
#define LONGEST_GAP_MS 1000 /* ... but for this wait at most */

static bool is_master(const struct nx_postmaster *pm)
{
    return pm->config.replication.role == NX_ROLE_MASTER;
}

static unsigned find(const struct nx_known *known, const char *id)
{
    unsigned i = 0;

    while (i < known->count && strcmp(known->list[i].id, id) != 0) {
        i++;
    }
    return i;
}

/* For readers, and to be written. */
static void changed(struct nx_postmaster *pm)
{
    pm->known.dirty = true;
    nx_known_publish(pm);
}

void nx_known_publish(struct nx_postmaster *pm)
{
    nx_known_replicas_publish(pm->shm, pm->known.list, pm->known.count);
}

static void drop(struct nx_known *known, unsigned i)
{
    known->count--;
    known->list[i] = known->list[known->count];
    known->lives[i] = known->lives[known->count];
}

/* ---- the file ---- */

/* The acks of those that are connected are noted as the file is written anyway. */
static void refresh(struct nx_postmaster *pm)
{
    struct nx_known *known = &pm->known;

    for (unsigned i = 0; i < known->count; i++) {
        const struct nx_known_life *life = &known->lives[i];

        if (life->connected) {
            known->list[i].last_ack_offset = atomic_load_explicit(
                &pm->shm->replicas[life->sender].ack_offset, memory_order_acquire);
        }
    }
}

/* Writes all but one of the list (count: all of it). 0 or -errno. */
static int store(struct nx_postmaster *pm, unsigned but)
{
    static struct nx_identity identity;
    struct nx_known *known = &pm->known;
    uint64_t began = nx_now_ms();
    uint64_t pause = WRITE_AGAIN_MS;
    int rc;

    refresh(pm);
    identity = pm->dir.identity;
    identity.replica_count = 0;
    for (unsigned i = 0; i < known->count; i++) {
        if (i != but) {
            identity.replicas[identity.replica_count++] = known->list[i];
        }
    }
    rc = nx_identity_store(&pm->dir, &identity);
    if (rc == 0) {
        pause = (nx_now_ms() - began) * WRITE_SHARE;
        pause = pause < LONGEST_GAP_MS ? pause : LONGEST_GAP_MS;
    }
    known->dirty = rc < 0; /* it may have got half-way */
    known->write_due_ms = nx_now_ms() + pause;
    return rc;
}

static void store_all(struct nx_postmaster *pm)
{
    static struct nx_log_limit limit;
    int rc = store(pm, pm->known.count);

    if (rc < 0) {
        nx_log_limited(&limit, NX_LOG_ERROR,
                       "the known replicas (%u) can't be stored in %s/identity: %s; tried again "
                       "every %d s",
                       pm->known.count, pm->dir.root, strerrordesc_np(-rc), WRITE_AGAIN_MS / 1000);
    }
}

void nx_known_load(struct nx_postmaster *pm)
{
    const struct nx_identity *identity = &pm->dir.identity;
    struct nx_known *known = &pm->known;
    uint64_t wall = nx_wall_ms();

    *known = (struct nx_known){.count = is_master(pm) ? identity->replica_count : 0};
    for (unsigned i = 0; i < known->count; i++) {
        struct nx_known_replica *replica = &known->list[i];
        uint64_t age;

        *replica = identity->replicas[i];
        if (replica->connected) { /* it was there until this node ended, nobody knows when */
            replica->connected = false;
            replica->last_seen = wall;
            known->dirty = true;
        }
        /* A time that is still to come, as before a clock without a battery is set, is now. */
        age = wall > replica->last_seen ? wall - replica->last_seen : 0;
        known->lives[i].forget_due_ms = nx_now_ms() + (age < FORGET_MS ? FORGET_MS - age : 0);
    }
}

/* ---- who comes and goes ---- */

/* The place of a new one: where all are taken, that of the one seen longest ago that is not connected.
 * NX_MAX_REPLICAS: there is none. */
static unsigned make_place(struct nx_known *known)
{
    unsigned oldest = NX_MAX_REPLICAS;

    if (known->count < NX_MAX_REPLICAS) {
        return known->count++;
    }
    for (unsigned i = 0; i < known->count; i++) {
        if (!known->lives[i].connected &&
            (oldest == NX_MAX_REPLICAS ||
             known->lives[i].forget_due_ms < known->lives[oldest].forget_due_ms)) {
            oldest = i;
        }
    }
    if (oldest < NX_MAX_REPLICAS) {
        nx_info("replica %s is forgotten: %d others were seen since then", known->list[oldest].id,
                NX_MAX_REPLICAS);
    }
    return oldest;
}

/* Only what the file can hold; what peers say of themselves was checked before it got into their slots. */
static void copy_addr(char to[NX_ADDR_TEXT], const char from[NX_ADDR_TEXT])
{
    memcpy(to, from, NX_ADDR_TEXT);
    to[NX_ADDR_TEXT - 1] = '\0';
    if (strchr(to, '\n') != NULL) {
        to[0] = '\0';
    }
}

void nx_known_here(struct nx_postmaster *pm, unsigned sender, const char *id)
{
    const struct nx_replica_slot *slot = &pm->shm->replicas[sender];
    struct nx_known *known = &pm->known;
    struct nx_known_replica *replica;
    unsigned i = find(known, id);
    uint8_t uuid[16];

    if (!is_master(pm) || nx_uuid_parse(id, uuid) < 0) {
        return;
    }
    i = i < known->count ? i : make_place(known);
    if (i == NX_MAX_REPLICAS) {
        return; /* so many are connected that it will be known when it comes again */
    }
    replica = &known->list[i];
    memcpy(replica->id, id, sizeof replica->id);
    copy_addr(replica->addr, slot->addr);
    copy_addr(replica->http_addr, slot->http_addr);
    replica->connected = true;
    replica->last_seen = nx_wall_ms();
    replica->last_ack_offset = atomic_load_explicit(&slot->ack_offset, memory_order_acquire);
    known->lives[i] = (struct nx_known_life){.connected = true, .sender = sender};
    changed(pm);
}

void nx_known_gone(struct nx_postmaster *pm, unsigned sender)
{
    const struct nx_replica_slot *slot = &pm->shm->replicas[sender];
    struct nx_known *known = &pm->known;

    for (unsigned i = 0; i < known->count; i++) {
        struct nx_known_replica *replica = &known->list[i];

        /* Else it has come again meanwhile, and another walsender has it. */
        if (known->lives[i].connected && known->lives[i].sender == sender) {
            replica->connected = false;
            replica->last_seen = nx_wall_ms();
            replica->last_ack_offset =
                atomic_load_explicit(&slot->ack_offset, memory_order_acquire);
            known->lives[i] = (struct nx_known_life){.forget_due_ms = nx_now_ms() + FORGET_MS};
            changed(pm);
        }
    }
}

/* ---- forgetting ---- */

int nx_known_forget(struct nx_postmaster *pm, const char *id)
{
    struct nx_known *known = &pm->known;
    unsigned i = find(known, id);
    int rc;

    if (nx_replica_connected(pm->shm, id)) {
        return -EBUSY;
    }
    if (i == known->count) {
        return -ENOENT;
    }
    rc = store(pm, i);
    if (rc == 0) {
        nx_info("replica %s at %s is forgotten, as a client asked; it had acknowledged offset "
                "%" PRIu64,
                id, known->list[i].addr, known->list[i].last_ack_offset);
        drop(known, i);
        nx_known_publish(pm);
    }
    /* The directory is gone: none of the answers above. */
    return rc == -ENOENT ? -EIO : rc;
}

static void forget_due(struct nx_postmaster *pm)
{
    struct nx_known *known = &pm->known;
    uint64_t now = nx_now_ms();

    for (unsigned i = known->count; i-- > 0;) {
        if (!known->lives[i].connected && known->lives[i].forget_due_ms <= now) {
            nx_info(
                "replica %s at %s is forgotten: not seen for 7 days; it had acknowledged offset "
                "%" PRIu64,
                known->list[i].id, known->list[i].addr, known->list[i].last_ack_offset);
            drop(known, i);
            changed(pm);
        }
    }
}

/* ---- the loop's side ---- */

void nx_known_run_due(struct nx_postmaster *pm)
{
    forget_due(pm);
    if (pm->known.dirty && nx_now_ms() >= pm->known.write_due_ms) {
        store_all(pm);
    }
}

void nx_known_end(struct nx_postmaster *pm)
{
    if (pm->known.dirty) {
        store_all(pm);
    }
}

uint64_t nx_known_due_ms(const struct nx_postmaster *pm)
{
    const struct nx_known *known = &pm->known;
    uint64_t due = known->dirty ? known->write_due_ms : UINT64_MAX;

    for (unsigned i = 0; i < known->count; i++) {
        if (!known->lives[i].connected && known->lives[i].forget_due_ms < due) {
            due = known->lives[i].forget_due_ms;
        }
    }
    return due == UINT64_MAX ? 0 : due;
}
