/* The events of GET /changes: what an entry of the log looks like to a follower (text/event-stream). Pure
 * functions. */
#ifndef NX_HTTP_CHANGES_EVENT_H
#define NX_HTTP_CHANGES_EVENT_H

#include "common/bytes.h"
#include "common/entry.h"
#include "common/text.h"
#include "http/conditions.h"

/* Appends the entry's event with those operations whose keys have the prefix; nothing, where none has, or where
 * the entry begins an epoch. 0, or -EBADMSG: its operations aren't valid. */
int nx_changes_put_entry(struct text *out,
                         const struct nx_entry_header *header,
                         struct nx_slice prefix);

/* Appends the event that tells a follower's position alone. at->epoch 0: not known, not said. */
void nx_changes_put_progress(struct text *out, const struct client_offset *at);

/* Moves a follower's position over the next entry of the log. 1; 0: the entry isn't behind it, since it waits
 * for an offset that was still to come; -ESTALE: that offset is of another history. */
int nx_changes_step(struct client_offset *at, const struct nx_entry_header *header);

/* Moves it over frames, appending the events. 0, -ESTALE, or -EBADMSG. */
int nx_changes_put_frames(struct text *out,
                          struct client_offset *at,
                          struct nx_slice frames,
                          struct nx_slice prefix);

#endif
