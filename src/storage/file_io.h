/* Files read and written whole, at a place, and the few durable steps that everything on disk is made
 * of. Blocking; no state; any process. */
#ifndef NX_STORAGE_FILE_IO_H
#define NX_STORAGE_FILE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads exactly n bytes at file position `at`. 0; -ENODATA: the file ends before; or -errno. */
int nx_read_at(int fd, void *buf, size_t n, uint64_t at);

/* Reads up to n bytes at `at`, fewer only where the file ends. 0 and *ret_n, or -errno. */
int nx_read_some(int fd, void *buf, size_t n, uint64_t at, size_t *ret_n);

/* Writes exactly n bytes at `at`. 0 or -errno. */
int nx_write_at(int fd, const void *buf, size_t n, uint64_t at);

/* Writes zeros over [from, to), extending the file where it is shorter. 0 or -errno. */
int nx_write_zeros(int fd, uint64_t from, uint64_t to);

/* Position behind the last byte in [from, size) that isn't zero; `from` when all are. 0 or -errno. */
int nx_content_end(int fd, uint64_t from, uint64_t size, uint64_t *ret_end);

/* Calls `each` for every name in a directory but "." and "..", until one returns non-zero. Returns
 * that, 0 at the end, or -errno. `each` may unlink names. */
int nx_each_name(int dir_fd, int (*each)(void *arg, const char *name), void *arg);

/* The n of "<prefix><n>" in decimal without superfluous zeros. 0 or -EINVAL. */
int nx_name_number(const char *name, const char *prefix, uint64_t *ret_n);

/* Replaces dir_fd/name durably: temporary name (NX_TEMP_SUFFIX) beside it, fdatasync, rename, fsync of
 * the directory. 0, or -errno with the old content in place. */
#define NX_TEMP_SUFFIX ".tmp"
int nx_file_replace_at(int dir_fd, const char *name, const void *bytes, size_t n, unsigned mode);

/* A large file that is gone through once, written or read behind its writer: its pages are handed to the disk
 * early and given back soon, so that they don't drive out of memory what is used again and again, and are
 * themselves used again at once. Zero it; `end` only grows. Blocks while the disk is more than a few dozen MiB
 * behind. Errors show at the file's own sync. */
struct nx_passing {
    uint64_t flushed;
    uint64_t dropped;
};
void nx_pass(struct nx_passing *passing, int fd, uint64_t end);

/* Whether the filesystem of an open file has fewer than `least` bytes left. False where it doesn't say. */
bool nx_disk_below(int fd, uint64_t least);

/* Makes durable that `path` has its name: syncs the directory that holds it. 0 or -errno. */
int nx_sync_parent(const char *path);

/* What a file holds, NUL-terminated; at most cap - 1 bytes. 0; -E2BIG: more than that; -EINVAL: it is no regular
 * file; or -errno. */
int nx_file_read_text(int dir_fd, const char *name, char *ret_text, size_t cap);

/* Removes a file, or a directory with all that is in it (links are removed, never followed). 0, also
 * when there is none, or -errno. */
int nx_remove_tree(int dir_fd, const char *name);

/* Text of an errno or of a negative one. */
const char *nx_errno_text(int error);

#endif
