/* Looks at pins. Runs in the checkpointer, which alone takes segments away. Walsenders write pins; who has
 * written one waits for the end of a look that began afterwards, and then knows what is still there. */
#include "checkpointer/pins.h"

#include "common/known_replicas.h"
#include "common/latch.h"
#include "common/log.h"
#include "storage/file_io.h"
#include "storage/pin.h"
#include "storage/snapshot_files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* Of replicas that are away: who comes under ever new names must not fill the disk, nor hold the log for each. */
#define MOST_AWAY NX_MAX_REPLICAS

struct look {
    const struct nx_shm *shm;
    int dir_fd;
    bool disk_full;
    uint64_t floor;
    uint64_t oldest_ms; /* age of the oldest that stays */
    bool any;
    unsigned away;
    uint64_t latest_ms[MOST_AWAY]; /* progress of those that are away, the latest first */
};

static void give_up(const struct look *look, const struct nx_pin *pin, const char *why)
{
    static struct nx_log_limit limit;
    static struct nx_log_limit failures;
    int rc = nx_pin_remove(look->dir_fd, pin->replica_id);

    nx_log_limited(
        &limit, NX_LOG_WARNING,
        "the full sync of replica %s (snapshot %s) no longer holds the log behind offset "
        "%" PRIu64 ": %s; should it come back later than that log, it needs another one",
        pin->replica_id, pin->snapshot_id, pin->offset, why);
    if (rc < 0) {
        nx_log_limited(&failures, NX_LOG_ERROR, "the pin of replica %s can't be removed: %s",
                       pin->replica_id, nx_errno_text(rc));
    }
}

/* Notes when those that are away made progress, as far as there is room for them. */
static int count_away(void *arg, const struct nx_pin *pin)
{
    struct look *look = arg;
    unsigned at = look->away < MOST_AWAY ? look->away : MOST_AWAY - 1;

    if (nx_replica_connected(look->shm, pin->replica_id)) {
        return 0;
    }
    if (look->away++ >= MOST_AWAY && pin->progress_ms <= look->latest_ms[at]) {
        return 0;
    }
    for (; at > 0 && look->latest_ms[at - 1] < pin->progress_ms; at--) {
        look->latest_ms[at] = look->latest_ms[at - 1];
    }
    look->latest_ms[at] = pin->progress_ms;
    return 0;
}

/* Why it is given up; NULL: it isn't. */
static const char *why_give_up(const struct look *look, const struct nx_pin *pin)
{
    if (look->disk_full) {
        return "the disk is full";
    }
    /* While it is here its heartbeats judge its silence, no clock on the wall. */
    if (nx_replica_connected(look->shm, pin->replica_id)) {
        return NULL;
    }
    if (look->away > MOST_AWAY && pin->progress_ms < look->latest_ms[MOST_AWAY - 1]) {
        return "too many replicas have begun a full sync and are away, and others more lately";
    }
    return pin->age_ms >= NX_PIN_SILENCE_MS ? "it has made no progress for an hour" : NULL;
}

static int look_at(void *arg, const struct nx_pin *pin)
{
    struct look *look = arg;
    const char *why = why_give_up(look, pin);

    if (why != NULL) {
        give_up(look, pin, why);
        return 0;
    }
    look->any = true;
    look->floor = pin->offset < look->floor ? pin->offset : look->floor;
    if (pin->age_ms > look->oldest_ms && pin->age_ms < NX_PIN_SILENCE_MS) {
        look->oldest_ms = pin->age_ms;
    }
    return 0;
}

uint64_t nx_pins_look(const struct nx_shm *shm,
                      const char *data_dir,
                      bool disk_full,
                      uint64_t *ret_due_ms)
{
    static struct nx_log_limit limit;
    struct look look = {
        .shm = shm,
        .dir_fd = nx_snapshot_dir(data_dir), /* each time: a person may have replaced it */
        .disk_full = disk_full,
        .floor = atomic_load_explicit(&shm->snapshot.hold_offset, memory_order_acquire),
    };
    int rc = look.dir_fd < 0 ? look.dir_fd : nx_pin_each(look.dir_fd, count_away, &look);

    rc = rc < 0 ? rc : nx_pin_each(look.dir_fd, look_at, &look);
    if (rc < 0) {
        nx_log_limited(&limit, NX_LOG_ERROR, "pins can't be read, the log is kept: %s",
                       nx_errno_text(rc));
        look.floor = 0; /* rather too much than too little */
    }
    if (look.dir_fd >= 0) {
        close(look.dir_fd);
    }
    *ret_due_ms = look.any ? nx_now_ms() + (NX_PIN_SILENCE_MS - look.oldest_ms) + 1 : 0;
    return look.floor;
}

bool nx_pins_look_wanted(const struct nx_shm *shm)
{
    uint64_t ended = atomic_load_explicit(&shm->checkpoint.looks_ended, memory_order_relaxed);

    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        if (atomic_load_explicit(&shm->replicas[i].look_wanted, memory_order_acquire) > ended) {
            return true;
        }
    }
    return false;
}
