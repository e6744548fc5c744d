/* Failpoints and planted bugs, in test builds only (NEXUS_TEST_POINTS); in all others they are nothing at all. The
 * idea is that of PostgreSQL's injection points and etcd's gofail. The names are in failpoints.def.
 *
 * The environment of the server says what is to happen, the same for all of its processes:
 *
 *     NEXUS_FAILPOINT=name:action[@n][,...]   at the n-th time (1) that a process comes there, and each time after it:
 *         abort         as a crash of the server's own making
 *         exit          exit status 1
 *         kill          SIGKILL, which no handler sees
 *         sleep(ms)     goes on afterwards
 *         pause         stops until NEXUS_FAILPOINT_DIR/name.go exists
 *         errno(NAME)   the step fails: EIO, ENOSPC, ENOMEM or EMFILE; only where the code looks at the result
 *     NEXUS_FAILPOINT_DIR=directory           each action happens once in all processes and over restarts: who gets to
 *                                             make the file name.hit there does it
 *     NEXUS_FAILPOINT_USED=file               the names of the points that did something, and of the planted bugs that
 *                                             were looked at, are added there
 *     NEXUS_PLANT=name[,...]                  breaks these rules
 *
 * A word that isn't understood ends the process: a test that fails nothing must not pass. */
#ifndef NX_COMMON_FAILPOINT_H
#define NX_COMMON_FAILPOINT_H

#include <stdbool.h>

enum nx_point {
#define NX_POINT(name, what) NX_POINT_##name,
#include "common/failpoints.def"
#undef NX_POINT
    NX_POINTS
};

enum nx_plant {
#define NX_PLANT(name, what) NX_PLANT_##name,
#include "common/failpoints.def"
#undef NX_PLANT
    NX_PLANTS
};

/* In test builds only: does what is asked for at a point. 0, or the negative errno that the step is to fail with. */
int nx_failpoint_reach(enum nx_point point);

/* Whether a rule is to be broken. */
bool nx_planted_look(enum nx_plant plant);

#ifdef NEXUS_TEST_POINTS
#define NX_FAILPOINT(name) nx_failpoint_reach(NX_POINT_##name)
#define NX_PLANTED(name)   nx_planted_look(NX_PLANT_##name)
#else
#define NX_FAILPOINT(name) 0
#define NX_PLANTED(name)   false
#endif

#endif
