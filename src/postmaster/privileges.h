/* What the server may do: it drops root's rights before it touches any data (server.user). */
#ifndef NX_POSTMASTER_PRIVILEGES_H
#define NX_POSTMASTER_PRIVILEGES_H

#include "common/config.h"

#include <stddef.h>

/* Becomes server.user, for good: its groups, its group, it. A data directory and a log file that aren't there yet, or
 * are root's and fresh, become that user's. file: the configuration's, which that user must be able to read; "" for
 * none. Nothing is done when server.user is empty or this process's user already. 0; or a negative errno and in error
 * (cap bytes) what is wrong and what to do. */
int nx_privileges_drop(const struct nx_config *config, const char *file, char *error, size_t cap);

/* In the postmaster, before it drops anything: when memory runs out, the kernel's choice shall be a child, which can
 * be started again. Where that isn't permitted, nothing is changed. */
void nx_privileges_begin(void);

/* In a child: it is the kernel's choice as anybody is. */
void nx_privileges_begin_child(const struct nx_config *config);

/* In a child that hears strangers: nothing that it could be made to run gets more rights than it has. Not for
 * failover_command, which may be a sudo. */
void nx_privileges_bar_more(void);

#endif
