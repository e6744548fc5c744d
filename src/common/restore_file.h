/* `nexus-server --restore=FILE`: a new data directory from a snapshot's file. */
#ifndef NX_COMMON_RESTORE_FILE_H
#define NX_COMMON_RESTORE_FILE_H

#include "common/config.h"

/* Restores the snapshot in `file` ("-": standard input) into config->server.data_dir, which must not exist or be
 * empty; there is either all of it afterwards or nothing. Says on stderr how far it is. The node is a new one
 * of the snapshot's cluster; it begins a new epoch when it first starts as a master. Returns an exit status. */
int nx_restore_file_main(const struct nx_config *config, const char *file);

#endif
