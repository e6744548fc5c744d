/* Who needs no token, told in the log. Runs in the postmaster. */
#ifndef NX_POSTMASTER_SERVED_H
#define NX_POSTMASTER_SERVED_H

#include "common/config.h"

/* One line, which names the keys that decide; none when it is what was said last. */
void nx_served_say(const struct nx_config *config);

#endif
