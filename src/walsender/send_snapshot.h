/* Sending a snapshot that was chosen and pinned (full_sync.h, phase SEND). */
#ifndef NX_WALSENDER_SEND_SNAPSHOT_H
#define NX_WALSENDER_SEND_SNAPSHOT_H

#include <stdbool.h>

struct nx_walsender;

/* Puts SnapshotMeta. True: something was put. */
bool nx_send_snapshot_begin(struct nx_walsender *ws);

/* Puts the next chunk, or SnapshotComplete, if there is room and the file reaches so far. True: something was
 * put. */
bool nx_send_snapshot_step(struct nx_walsender *ws);

/* Whether the file reaches so far. */
bool nx_send_snapshot_ready(struct nx_walsender *ws);

#endif
