/* The table of known replicas (struct nx_known_table): the postmaster replaces it, everybody may read. And which of
 * them are here. */
#ifndef NX_COMMON_KNOWN_REPLICAS_H
#define NX_COMMON_KNOWN_REPLICAS_H

#include "common/shm_layout.h"

#include <stdbool.h>

/* Copies the table as it was at one moment; ret_list has NX_MAX_REPLICAS places. Returns how many there
 * are. 0 also when it is being replaced for longer than 0.1 s: the postmaster was stopped meanwhile. */
unsigned nx_known_replicas(const struct nx_shm *shm, struct nx_known_replica *ret_list);

/* Replaces it (postmaster). */
void nx_known_replicas_publish(struct nx_shm *shm,
                               const struct nx_known_replica *list,
                               unsigned count);

/* Whether a walsender serves this replica now: its slot says so, before and after the postmaster hears of it. id: in
 * the canonical form (uuid_text.h). */
bool nx_replica_connected(const struct nx_shm *shm, const char *id);

#endif
