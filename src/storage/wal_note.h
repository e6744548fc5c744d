/* Notes in the WAL directory: a file that is there or not, durably. dir_fd is that directory. */
#ifndef NX_STORAGE_WAL_NOTE_H
#define NX_STORAGE_WAL_NOTE_H

#include <stdbool.h>

/* This node was made from a snapshot's file and has not been a master yet. The cluster that the snapshot is
 * from may have gone on without it: its first own entry begins a new epoch, so that neither is taken for the
 * other. Made by --restore, removed by the walwriter. */
#define NX_NOTE_RESTORED "restored"

/* The state holds entries that the quorum may lack: it is not what readers may see before the quorum is
 * known to have it. The checkpointer's. */
#define NX_NOTE_UNCONFIRMED "unconfirmed"

/* Makes it; text is for people. 0 or -errno. */
int nx_wal_note_make(int dir_fd, const char *name, const char *text);

bool nx_wal_note_stands(int dir_fd, const char *name);

/* Removes it, if it is there. 0 or -errno. */
int nx_wal_note_remove(int dir_fd, const char *name);

#endif
