/* Making and sizing the shared memory object. The postmaster alone calls create and destroy; a
 * child inherits the mapping. */
#ifndef NX_COMMON_SHM_H
#define NX_COMMON_SHM_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stddef.h>

#define NX_SHM_MIN_SIZE (32ull << 20)

/* Where the object came from, for the start's log line. */
struct nx_shm_origin {
    uint64_t size;
    bool memfd;               /* memfd_create, because the shared memory filesystem is too small */
    uint64_t filesystem_free; /* bytes that were free there */
};

/* Makes the object: shm_open with O_EXCL under a random name, mode 0600, posix_fallocate (a plain
 * ftruncate succeeds on a full tmpfs and the first touch is a SIGBUS), unlinked at once.
 * wanted: bytes, or 0 for auto (128 MiB, or three quarters of what is free; below 32 MiB a 64 MiB
 * memfd). All memory is zero, the regions are laid out, doorbells are not touched.
 * 0, -ENOSPC (not enough shared memory; *ret_origin says what was free), or another -errno. */
int nx_shm_create(uint64_t wanted, struct nx_shm **ret_shm, struct nx_shm_origin *ret_origin);

/* All memory is zero and laid out again, as after nx_shm_create, with no other process left that has it
 * mapped. size: as created; what the object itself says of it may have been overwritten by a process that
 * went wrong. No new object, which might find no room beside this one. */
void nx_shm_renew(struct nx_shm *shm, uint64_t size);

/* Unmaps it. The last process to do so (or to die) frees the memory. */
void nx_shm_destroy(struct nx_shm *shm);

/* Private anonymous-shared object of `size` bytes with the same layout, for unit tests and tools. */
int nx_shm_create_private(uint64_t size, struct nx_shm **ret_shm);

#endif
