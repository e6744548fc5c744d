/* The walwriter's own state and the steps of its loop. One process, no threads: everything here is
 * private to it, but for what it publishes in shared memory.
 *
 *     drain   submissions of all rings into one group: judged, encoded into the arena, linked (group.c)
 *     commit  the group: one pwrite, one fdatasync, publish, answer (commit.c, wal_file.c)
 *     rooms   generations are sealed and freed as the log needs room (room.c)
 *     expire  what has expired is deleted, a few keys a group (expire.c)
 */
#ifndef NX_WALWRITER_WALWRITER_H
#define NX_WALWRITER_WALWRITER_H

#include "common/entry.h"
#include "common/epochs.h"
#include "common/process.h"
#include "common/shared_log.h"
#include "common/skip_list.h"
#include "common/submit.h"
#include "storage/position.h"
#include "storage/state.h"
#include "walwriter/expire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Recovery relies on it: more than this can't be torn (storage/wal_recovery.c). */
#define NX_GROUP_MAX_BYTES   NX_ENTRY_MAX_FRAME
#define NX_GROUP_MAX_ANSWERS 8192

/* What became of one submission in drain. */
enum taken {
    TAKEN,      /* appended or answered */
    NO_ROOM,    /* kept: no generation or log room before the checkpointer moves on */
    NO_SEGMENT, /* kept: the group must be committed and a new segment begun first */
    NO_GROUP,   /* kept: the group must be committed first, it would grow too large */
};

/* The segment being written and the mark. */
struct wal_file {
    int dir_fd;
    int fd;                 /* -1: the next entry begins a segment */
    int mark_fd;            /* -1 until the first group */
    uint64_t at;            /* where the next group goes */
    uint64_t size;          /* of the segment, bytes */
    bool unsynced;          /* written since the last fdatasync (fsync everysec, off) */
    uint64_t sync_due_ms;   /* everysec: when the next fdatasync is due */
    uint64_t noted_quorum;  /* what the mark says of the quorum */
    uint64_t note_after_ms; /* an idle log looks after so long whether that has risen; 0: never */
    uint64_t note_due_ms;   /* when; 0: not asleep since the last look */
};

struct answer {
    unsigned producer;
    struct nx_completion completion;
};

struct walwriter {
    struct nx_process *process;
    struct nx_shm *shm;
    struct nx_state *state; /* LMDB, for conditions on keys that no generation holds */
    bool reading;           /* a read transaction of it is open; ends when a generation is freed */
    struct nx_log_writer log;
    struct nx_consumer consumers[NX_PRODUCERS];
    struct wal_file file;

    struct nx_epochs epochs; /* history of all that is appended */
    bool epochs_changed;     /* not published yet */
    const char
        *epoch_reason; /* why one should begin before this node serves as a master; NULL: none */
    struct nx_control_message order; /* of the postmaster, not done yet; type 0: none */

    struct nx_position last; /* newest entry appended */
    uint64_t last_timestamp; /* its stamp: stamps never go back */
    uint64_t epoch;          /* of new entries */

    /* The group being gathered. */
    uint64_t group_first; /* first offset; group is empty when > log.newest */
    size_t group_bytes;
    uint64_t group_timestamp;
    struct answer *answers; /* NX_GROUP_MAX_ANSWERS */
    size_t answer_count;

    /* The running generation, and the oldest that is not free. */
    uint64_t generation;
    uint64_t oldest_generation;
    uint64_t generation_start_pos;                  /* arena position at which it began */
    struct nx_skip_version unlinked[NX_SKIP_BATCH]; /* of the running generation */
    size_t unlinked_count;

    struct expire expire;

    /* A submission that found no room: it keeps its place at the head of everything. */
    struct nx_received held;
    bool has_held;
    unsigned held_producer;
    size_t wanted_length;      /* of the frame that the last one looked at needs, held or not */
    uint64_t stalled_since_ms; /* 0: not stalled */
    enum taken held_for;       /* what it waits for */
    bool refusing_frames;      /* a frame didn't fit the log; those behind it get no answer */
};

/* ---- room.c ---- */

/* Starts the first generation; the next entry is log.newest + 1. */
void nx_room_start(struct walwriter *w);
/* Makes room in log, index and pool for a frame of `length` bytes with `ops` operations: frees merged
 * generations and seals full ones. NULL when only the checkpointer can help. */
uint8_t *nx_room_make(struct walwriter *w, size_t length, uint32_t ops, uint64_t *ret_pos);
/* At a group's end: seals the running generation if it has its share, or if the checkpointer asked. */
void nx_room_seal_if_due(struct walwriter *w);
/* True when the checkpointer asked for a seal that can be done now; when a merged generation can be
 * freed. */
bool nx_room_seal_possible(struct walwriter *w);
bool nx_room_free_possible(struct walwriter *w);

/* ---- unlinked.c ---- */

/* A version that is appended: it is linked with others, later. The pool has room for it and the unlinked. */
void nx_unlinked_add(struct walwriter *w, const struct nx_skip_version *version);
/* Links all. */
void nx_unlinked_link(struct walwriter *w);
/* Links all if a version of this key is among them. */
void nx_unlinked_link_key(struct walwriter *w, struct nx_slice key);

/* ---- group.c ---- */

/* Takes submissions until the rings are empty, the group is full, or one finds no room. */
void nx_group_drain(struct walwriter *w);
/* True when a ring holds something. */
bool nx_group_waiting(const struct walwriter *w);
/* Links and appends a frame that stands at `frame` in the arena (recovery and replicas too). */
void nx_group_append(struct walwriter *w,
                     uint8_t *frame,
                     uint64_t pos,
                     const struct nx_entry_header *header);
/* Finishes and appends the frame whose operations stand in the arena already, behind NX_ENTRY_HEADER_SIZE bytes at
 * `frame`, which nx_room_make gave. */
void nx_group_append_ops(struct walwriter *w,
                         uint8_t *frame,
                         uint64_t pos,
                         size_t ops_length,
                         uint32_t op_count);
/* Whether a frame of `length` bytes fits the group. */
bool nx_group_fits(const struct walwriter *w, size_t length);
/* The moment of the group being gathered, by the log clock: its entries' stamp, and what expiry is judged by. */
uint64_t nx_group_stamp(struct walwriter *w);
/* Answers the held submission with `status` (stalled for too long). Those behind it have no wait of their
 * own: until one is taken again, each that finds no room is refused at once. */
void nx_group_refuse(struct walwriter *w, enum nx_submit_status status);
/* Appends an epoch entry naming this node and makes it the epoch in force. 0 or -ENOSPC. */
int nx_group_append_epoch(struct walwriter *w, uint64_t epoch);
/* Forgets a held frame of the master that was followed. */
void nx_group_forget_frame(struct walwriter *w);

/* ---- epoch.c ---- */

/* Begins an epoch, durably: whatever wal.fsync says, its number must not be given twice. The group is empty. 0;
 * -ENOSPC: nothing has changed; or another error: the process must die. */
int nx_epoch_begin(struct walwriter *w, uint64_t epoch);
/* Whether a note of the last promotion makes this node a master (nx_control_block.note_epoch). */
bool nx_epoch_noted(const struct walwriter *w);
/* Notes the epoch that an appended entry begins; of a log that begins with it, epoch 1. */
void nx_epoch_note(struct walwriter *w, const struct nx_entry_header *header, const uint8_t *frame);
/* Does what the postmaster has ordered: all that was submitted is committed. 0 or an error: the process dies. */
int nx_epoch_obey(struct walwriter *w);

/* ---- lookup.c ---- */

/* Whether the newest version of a key, durable or not, is a value that has not expired. A damaged record is one too:
 * it can be overwritten or deleted, and its value isn't read for that. 0 or a negative error of the state. */
int nx_lookup_exists(struct walwriter *w, struct nx_slice key, bool *ret_exists);
/* Judges the conditions of a submission. 0: all hold; 1: completion's failed_index and actual are set;
 * negative: malformed, or the state can't be read. */
int nx_lookup_judge(struct walwriter *w,
                    const struct nx_received *received,
                    struct nx_completion *completion);
/* That value, valid until a generation is freed or the read transaction ends. 0, -ENOENT, or another negative
 * error. */
int nx_lookup_value(struct walwriter *w, struct nx_slice key, struct nx_slice *ret_value);
/* The newest version that a generation holds, or NULL: none has the key. */
const struct nx_skip_node *nx_lookup_node(struct walwriter *w, struct nx_slice key);
/* The operation at an arena position that a generation holds. 0 or -EBADMSG. */
int nx_lookup_op(struct walwriter *w, uint64_t op_pos, struct nx_op *ret_op);
/* Begins a read transaction of the state, unless one is open; ends it, if one is. Begin: 0 or a negative error. */
int nx_lookup_begin(struct walwriter *w);
void nx_lookup_end(struct walwriter *w);

/* ---- touch.c ---- */

/* Bytes of the operation that it becomes; when the key is absent, some. 0 or a negative error. */
int nx_touch_size(struct walwriter *w, const struct nx_received *received, size_t *ret_size);
/* Writes that operation into the room of so many bytes at `out`; *ret_length: its bytes, 0: the key is absent. 0 or a
 * negative error. */
int nx_touch_place(struct walwriter *w,
                   const struct nx_received *received,
                   uint8_t *out,
                   size_t room,
                   size_t *ret_length);

/* ---- clock.c ---- */

/* The log clock begins, at the end of recovery. */
void nx_clock_begin(struct walwriter *w);
/* Notes it for the next run on this machine. It is no loss when that fails. */
void nx_clock_note(const struct walwriter *w);

/* ---- touched.c ---- */

/* What the operations of one entry have done to each key so far, so that a delete behind a put of the
 * same key hits, and a second delete doesn't. Clear: a new entry. */
void nx_touched_clear(void);
/* The place that holds the kind of the last operation on this key (0: none yet); the caller sets it.
 * The key's bytes must stay where they are until the next clear. At most NX_MAX_OPS keys. */
uint8_t *nx_touched_kind(struct nx_slice key);

/* ---- wal_file.c ---- */

/* True when a frame of `length` bytes fits behind what the group holds already. */
bool nx_wal_file_fits(const struct walwriter *w, size_t length);
/* Begins the segment of the next entry, large enough for `length`. 0, -ENOSPC, or -errno. */
int nx_wal_file_switch(struct walwriter *w, size_t length);
/* Writes [first, last] from the arena behind what is there, and syncs as wal.fsync says. Any error
 * but success means that what is on disk is unknown: the process must die. */
int nx_wal_file_write(struct walwriter *w, uint64_t first, uint64_t last);
/* fdatasync of what is written; publishes synced_offset. */
int nx_wal_file_sync(struct walwriter *w);
/* Notes the last synced position in wal/durable. */
int nx_wal_file_mark(struct walwriter *w);
/* Milliseconds until a sync is due (everysec), or -1. */
int nx_wal_file_sync_wait(const struct walwriter *w);
/* What the quorum has is heard after a group's mark was written. When no further group comes it is noted a
 * while later: before each sleep note_wait says how long that may last (ms, or -1), and note_quorum does it
 * when it is due. */
int nx_wal_file_note_wait(struct walwriter *w);
int nx_wal_file_note_quorum(struct walwriter *w);

/* ---- commit.c ---- */

/* Commits the gathered group, publishes, answers, rings. 0 or a negative error: the process dies. */
int nx_group_commit(struct walwriter *w);

/* ---- recover.c ---- */

/* Recovery: fills log, first generations and file from disk. Ends the process (nx_process_fatal) when
 * a person must mend something. 0 or a negative error. */
int nx_walwriter_recover(struct walwriter *w);
/* An epoch has begun, or none need begin: the notes that ask for one are removed. 0 or a negative error. */
int nx_walwriter_settle_notes(struct walwriter *w);

/* ---- boot.c (wal.fsync other than always) ---- */

#define NX_BOOT_ID_SIZE 64

/* The running boot's id. 0 or a negative error. */
int nx_boot_id(char ret_id[NX_BOOT_ID_SIZE]);

/* What the note of the last run says. */
enum nx_boot_note {
    NX_BOOT_CLEAN, /* none: every group was synced, or the run ended cleanly */
    NX_BOOT_SAME,  /* it crashed, but the machine didn't: nothing is lost */
    NX_BOOT_LOST,  /* the machine went down: what was acknowledged may be gone */
};

enum nx_boot_note nx_boot_look(int dir_fd);
/* Notes this boot durably. 0 or a negative error. */
int nx_boot_begin(int dir_fd);
/* Clean end: forgets the note. */
void nx_boot_end(int dir_fd);

#endif
