/* A large fdatasync, taken in pieces. LMDB writes a transaction's pages and syncs them at once: tens of megabytes, behind
 * which the log's own fdatasync, on the same disk, waits for as long. Between begin and end the file's dirty pages are
 * handed to the disk piece by piece, and only what is left is synced; what is durable when fdatasync returns is the
 * same.
 *
 * LMDB has no hook for that. It calls fdatasync as any library does, through the dynamic linker, and so finds the one
 * that is defined here before libc's; for other files, and outside begin and end, that is all it calls. Where LMDB were
 * to sync by other means, it would do so at once, as it does without this.
 *
 * Between begin and end one file, of one process, which has one thread. */
#ifndef NX_STORAGE_PACED_SYNC_H
#define NX_STORAGE_PACED_SYNC_H

/* Called before each piece but the first: of `pieces` `done` are handed over. Waits as long as that is to take. */
struct nx_pause {
    void (*call)(void *arg, unsigned done, unsigned pieces);
    void *arg;
};

/* An fdatasync that pauses; pause NULL: it doesn't. 0 or -errno. */
int nx_paced_sync(int fd, const struct nx_pause *pause);

/* From here on whoever calls fdatasync(fd) has it paused; pause NULL: not so. */
void nx_paced_sync_begin(int fd, const struct nx_pause *pause);
void nx_paced_sync_end(void);

#endif
