/* wal/restored: this node was made from a snapshot's file and has not been a master yet. The cluster that the
 * snapshot is from may have gone on without it: its first own entry begins a new epoch, so that neither is
 * taken for the other. */
#ifndef NX_STORAGE_RESTORED_NOTE_H
#define NX_STORAGE_RESTORED_NOTE_H

#include <stdbool.h>

/* Makes the note in data-N (`root`), durably. 0 or -errno. */
int nx_restored_note_make(const char *root);

/* dir_fd is the wal directory. */
bool nx_restored_note_stands(int dir_fd);

/* The new epoch has begun. 0 or -errno. */
int nx_restored_note_remove(int dir_fd);

#endif
