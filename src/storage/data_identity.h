/* The file data-N/identity, for the data directory. Private to src/storage. */
#ifndef NX_STORAGE_DATA_IDENTITY_H
#define NX_STORAGE_DATA_IDENTITY_H

#include "storage/data_dir.h"
#include "storage/lines.h"

/* root_fd is data-N. 0; -ENOENT; -EBADMSG: damaged; -ENOTSUP: sound, with lines unknown to this version;
 * or -errno. */
int nx_identity_read(int root_fd, struct nx_identity *ret_identity);
int nx_identity_write(int root_fd, const struct nx_identity *identity);

#endif
