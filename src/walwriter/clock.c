/* Where the log clock begins (common/log_clock.h). Runs in the walwriter, which is its writer on a master, and on a
 * replica until the walreceiver hears the master.
 *
 * As long as the machine runs the clock goes on as it was, over crashes (the postmaster carries it along) and restarts
 * (a note in the WAL directory, which counts in the epoch and the boot that it is of): so a step of the wall clock and
 * a restart move no expiry. A promoted replica goes on with what it has heard of its master. Only after a reboot the
 * wall clock is asked. */
#include "common/latch.h"
#include "common/log.h"
#include "common/log_clock.h"
#include "storage/file_io.h"
#include "walwriter/walwriter.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTE      "clock"
#define TEMPORARY NOTE NX_TEMP_SUFFIX
#define NOTE_SIZE 160
#define APART_US  10000000 /* from the wall clock: worth a line in the log */

/* The clock's lead over CLOCK_BOOTTIME as the last run on this machine had it in this epoch; 0: not known. */
static uint64_t recall(const struct walwriter *w)
{
    char text[NOTE_SIZE];
    char boot_id[NX_BOOT_ID_SIZE];
    char *at = text;

    if (nx_file_read_text(w->file.dir_fd, NOTE, text, sizeof text) < 0 || nx_boot_id(boot_id) < 0 ||
        strncmp(text, boot_id, strlen(boot_id)) != 0) {
        return 0;
    }
    at += strlen(boot_id);
    if (strtoull(at, &at, 10) != w->epoch) {
        return 0;
    }
    return strtoull(at, &at, 10);
}

void nx_clock_begin(struct walwriter *w)
{
    uint64_t lead = atomic_load_explicit(&w->shm->clock.lead_us, memory_order_relaxed);
    uint64_t wall = nx_wall_us();
    uint64_t now;

    lead = lead == 0 ? recall(w) : lead;
    now = lead == 0 ? wall : nx_boot_us() + lead;
    now = now < w->last_timestamp ? w->last_timestamp : now;
    nx_log_clock_set(w->shm, now);
    if (now > wall + APART_US || now + APART_US < wall) {
        nx_info("the log clock, by which keys expire, is %" PRId64
                " s ahead of this machine's clock, which was set "
                "since or differs from the clocks of other nodes",
                ((int64_t)now - (int64_t)wall) / 1000000);
    }
    nx_clock_note(w);
}

/* Not synced: after the next boot it says nothing anyway. */
void nx_clock_note(const struct walwriter *w)
{
    char text[NOTE_SIZE];
    char boot_id[NX_BOOT_ID_SIZE];
    int dir_fd = w->file.dir_fd;
    int fd = openat(dir_fd, TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0) {
        return;
    }
    int rc = nx_boot_id(boot_id);
    int n = snprintf(text, sizeof text, "%s %" PRIu64 " %" PRIu64 "\n", boot_id, w->epoch,
                     atomic_load_explicit(&w->shm->clock.lead_us, memory_order_relaxed));

    rc = rc < 0 ? rc : nx_write_at(fd, text, (size_t)n, 0);
    close(fd);
    if (rc < 0 || renameat(dir_fd, TEMPORARY, dir_fd, NOTE) != 0) {
        (void)unlinkat(dir_fd, TEMPORARY, 0);
    }
}
