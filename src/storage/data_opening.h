/* The steps of opening the data directory. Private to src/storage. */
#ifndef NX_STORAGE_DATA_OPENING_H
#define NX_STORAGE_DATA_OPENING_H

#include "storage/data_dir.h"

#include <stddef.h>

#define NX_CURRENT_NAME "current"
#define NX_ROOT_PREFIX  "data-"
#define NX_ASIDE_PREFIX "replaced-" /* a data-N whose time is over, on its way out */

#define NX_DATA_ROOT_SIZE 32 /* "data-18446744073709551615" and NUL fit */

struct nx_data_opening {
    struct nx_data_dir dir;
    int fd;      /* DATA_DIR */
    int root_fd; /* data-N */
    char *error; /* the caller's */
    size_t cap;
};

/* Says what is wrong; returns rc. */
int nx_data_fail(const struct nx_data_opening *o, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a system call that failed while `doing` something. */
int nx_data_failed_doing(const struct nx_data_opening *o, int rc, const char *doing);

/* Opens (o->fd), if need be makes, and locks (o->dir.lock_fd) the directory `path`. 0 or an error said. */
int nx_data_dir_claim(struct nx_data_opening *o, const char *path);

#endif
