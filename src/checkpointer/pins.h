/* What full syncs hold of the log (storage/pin.h), and when that ends. */
#ifndef NX_CHECKPOINTER_PINS_H
#define NX_CHECKPOINTER_PINS_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stdint.h>

#define NX_UNPINNED UINT64_MAX

/* The offset behind which the log must stay, for pins in DATA_DIR/snapshots and for the running snapshot job;
 * NX_UNPINNED: none. Pins without progress for NX_PIN_SILENCE_MS are removed, of replicas that are away all but the
 * NX_MAX_REPLICAS with the latest progress, on a full disk all of them, and that is logged. *ret_due_ms: when the next
 * one will be too old, monotonic; 0: never. */
uint64_t nx_pins_look(const struct nx_shm *shm,
                      const char *data_dir,
                      bool disk_full,
                      uint64_t *ret_due_ms);

/* Whether somebody has written a pin and waits for a look that begins after that. */
bool nx_pins_look_wanted(const struct nx_shm *shm);

#endif
