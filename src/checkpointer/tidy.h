/* What a full sync leaves behind. */
#ifndef NX_CHECKPOINTER_TIDY_H
#define NX_CHECKPOINTER_TIDY_H

#include "common/process.h"
#include "storage/warming.h"

/* Removes the data that a full sync has replaced, and the snapshot that it came by, which takes its time. What has
 * replaced it was handed to the disk as it was filled, so that it didn't drive the old state, which served meanwhile,
 * out of memory: now it is fetched back, by *warming. What can't be removed is said in the log. */
void nx_tidy(const struct nx_process *process, struct nx_warming *warming);

#endif
