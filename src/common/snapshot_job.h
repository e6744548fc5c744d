/* Looking at the running snapshot job from another process: its fields change when the next one begins. */
#ifndef NX_COMMON_SNAPSHOT_JOB_H
#define NX_COMMON_SNAPSHOT_JOB_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stdint.h>

struct nx_snapshot_look {
    uint64_t job;
    enum nx_snapshot_stage stage;
    char id[NX_UUID_TEXT];
    uint64_t wal_offset; /* these as far as the stage has them */
    uint64_t epoch;
    uint32_t crc;
    uint64_t written;
    uint64_t total_size;
    uint32_t checksum;
    uint64_t keys_done;
    uint64_t keys_total;
};

/* The job at this moment, all fields of the same one. False: none was ever begun, or one begins just
 * now (look again). */
bool nx_snapshot_job_look(struct nx_shm *shm, struct nx_snapshot_look *ret_look);

/* Wakes whoever waits for a job: http workers and walsenders. */
void nx_snapshot_job_ring(struct nx_shm *shm);

#endif
