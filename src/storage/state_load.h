/* A new state, filled from front to back: for what a snapshot restores. Nobody else may have it open. */
#ifndef NX_STORAGE_STATE_LOAD_H
#define NX_STORAGE_STATE_LOAD_H

#include "storage/position.h"
#include "storage/state.h"

#include <stddef.h>
#include <stdint.h>

struct nx_state_load;

/* Makes the state in the empty directory `dir`. On failure *error says why. 0 or a negative error as in
 * state.h. */
int nx_state_load_begin(const char *dir,
                        uint64_t map_size,
                        struct nx_state_load **ret_load,
                        char *error,
                        size_t cap);

/* The next record; keys ascend. op_index is chosen here. In constant memory, not durable yet. 0; -EINVAL:
 * the key doesn't ascend; -ENOSPC; or another error. After an error only nx_state_load_close is left. */
int nx_state_load_put(struct nx_state_load *load, const struct nx_record *record);

/* Stores the epoch history. 0 or a negative error. */
int nx_state_load_epochs(struct nx_state_load *load, const struct nx_epochs *epochs);

/* Stores the position; all of it is on disk when this returns 0. */
int nx_state_load_finish(struct nx_state_load *load, const struct nx_position *position);

/* NULL is fine. */
void nx_state_load_close(struct nx_state_load *load);

#endif
