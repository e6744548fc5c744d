/* A private shared memory object for unit tests, with doorbells. */
#ifndef NX_TESTS_SHM_FIXTURE_H
#define NX_TESTS_SHM_FIXTURE_H

#include "common/latch.h"
#include "common/shm.h"

#include <check.h>

#include <stdbool.h>

static struct nx_shm *shm;

static inline void shm_setup(void)
{
    static bool doorbells; /* once a process, also where Check doesn't fork for each test */

    ck_assert_int_eq(nx_shm_create_private(NX_SHM_MIN_SIZE, &shm), 0);
    if (!doorbells) {
        ck_assert_int_eq(nx_latch_create_doorbells(), 0);
        doorbells = true;
    }
}

static inline void shm_teardown(void)
{
    nx_shm_destroy(shm);
}

#endif
