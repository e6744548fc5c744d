/* Runs wherever a snapshot job is waited for; owns nothing. The postmaster begins a job by setting the stage
 * to NONE, then the fields, then the stage again: what was read between two looks at the same job and a
 * stage other than NONE is of that job. */
#include "common/snapshot_job.h"

#include "common/latch.h"
#include "common/process.h"

#include <string.h>

bool nx_snapshot_job_look(struct nx_shm *shm, struct nx_snapshot_look *ret_look)
{
    const struct nx_snapshot_state *state = &shm->snapshot;
    uint64_t job = atomic_load_explicit(&state->job, memory_order_acquire);
    uint32_t stage = atomic_load_explicit(&state->stage, memory_order_acquire);

    ret_look->job = job;
    ret_look->stage = (enum nx_snapshot_stage)stage;
    memcpy(ret_look->id, state->id, sizeof ret_look->id);
    ret_look->id[sizeof ret_look->id - 1] = '\0';
    ret_look->wal_offset = atomic_load_explicit(&state->wal_offset, memory_order_relaxed);
    ret_look->epoch = atomic_load_explicit(&state->epoch, memory_order_relaxed);
    ret_look->crc = atomic_load_explicit(&state->crc, memory_order_relaxed);
    ret_look->written = atomic_load_explicit(&state->written, memory_order_acquire);
    ret_look->total_size = atomic_load_explicit(&state->total_size, memory_order_relaxed);
    ret_look->checksum = atomic_load_explicit(&state->checksum, memory_order_relaxed);
    ret_look->keys_done = atomic_load_explicit(&state->keys_done, memory_order_relaxed);
    ret_look->keys_total = atomic_load_explicit(&state->keys_total, memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return stage != NX_SNAPSHOT_NONE &&
           atomic_load_explicit(&state->stage, memory_order_acquire) != NX_SNAPSHOT_NONE &&
           atomic_load_explicit(&state->job, memory_order_relaxed) == job;
}

void nx_snapshot_job_ring(struct nx_shm *shm)
{
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        nx_latch_ring(shm, nx_process_slot(NX_KIND_HTTP, i));
    }
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        nx_latch_ring(shm, nx_process_slot(NX_KIND_WALSENDER, i));
    }
}
