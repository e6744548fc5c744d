/* Epochs: the history of the log, and the entry that begins a new one. Runs in the walwriter, which alone publishes
 * the history, each epoch together with the offset of its entry. */
#include "common/failpoint.h"
#include "common/log.h"
#include "storage/data_dir.h"
#include "walwriter/walwriter.h"

#include <errno.h>
#include <string.h>

int nx_epoch_begin(struct walwriter *w, uint64_t epoch)
{
    int rc = nx_wal_file_fits(w, NX_LOG_RESERVE) ? 0 : nx_wal_file_switch(w, NX_LOG_RESERVE);

    rc = rc < 0 ? rc : nx_group_append_epoch(w, epoch);
    if (rc < 0) {
        return rc;
    }
    (void)NX_FAILPOINT(epoch_appended);
    rc = nx_group_commit(w);
    if (rc == 0) {
        (void)NX_FAILPOINT(epoch_synced);
        nx_clock_note(w);
    }
    if (rc == 0 && w->file.unsynced) { /* wal.fsync other than always */
        rc = nx_wal_file_sync(w);
        rc = rc < 0 ? rc : nx_wal_file_mark(w);
    }
    return rc == -ENOSPC ? -EIO : rc;
}

bool nx_epoch_noted(const struct walwriter *w)
{
    uint64_t noted = atomic_load_explicit(&w->shm->control.note_epoch, memory_order_acquire);

    return noted != 0 && nx_epochs_led_since(&w->epochs, noted, w->shm->control.node_id);
}

/* Epoch 1 has no entry: who leads in it came with the cluster's id. */
static void note_first(struct walwriter *w, const struct nx_entry_header *header)
{
    struct nx_epoch first = {.epoch = header->epoch, .first_offset = header->offset};

    /* Not known: zeros. */
    (void)nx_uuid_parse(w->shm->control.first_node_id, first.node_id);
    w->epochs_changed = nx_epochs_add(&w->epochs, &first, NULL) == 0 || w->epochs_changed;
}

void nx_epoch_note(struct walwriter *w, const struct nx_entry_header *header, const uint8_t *frame)
{
    struct nx_epoch epoch;

    if (nx_entry_begins_epoch(header)) {
        if (nx_claim_decode(nx_slice_of(frame, header->frame_length), &epoch) == 0 &&
            nx_epochs_add(&w->epochs, &epoch, frame) == 0) {
            w->epochs_changed = true;
        }
    } else if (w->epochs.count == 0 && header->offset == 1) {
        note_first(w, header);
    }
}

static void answer(struct walwriter *w, int status)
{
    (void)nx_control_send(w->process->control.fd, NX_CONTROL_DONE, status, w->order.arg,
                          status < 0 ? strerrordesc_np(-status) : NULL);
    w->order.type = 0;
}

static int begin_ordered(struct walwriter *w)
{
    uint64_t epoch = w->order.arg;
    int rc = 0;

    if (epoch <= w->epoch) {
        rc = -ESTALE;
    } else {
        rc = nx_epoch_begin(w, epoch);
    }
    if (rc == 0) {
        rc = nx_walwriter_settle_notes(w);
        rc = rc == -ENOSPC ? -EIO : rc; /* the epoch has begun */
    }
    if (rc < 0 && rc != -ESTALE && rc != -ENOSPC) {
        return rc;
    }
    answer(w, rc);
    if (rc == 0) {
        nx_info("epoch %llu begins with entry %llu: this node leads in it",
                (unsigned long long)epoch, (unsigned long long)w->last.offset);
        nx_process_title(w->process, "epoch %llu", (unsigned long long)w->epoch);
    }
    return 0;
}

int nx_epoch_obey(struct walwriter *w)
{
    /* What found no room is not of the position that is told, nor may it be later on: who promises an epoch by that
     * position must not be found further by the master of a lower one. */
    nx_group_forget_frame(w);
    switch (w->order.type) {
    case NX_CONTROL_SETTLE:
        answer(w, 0);
        break;
    case NX_CONTROL_BEGIN_EPOCH:
        return begin_ordered(w);
    default:
        w->order.type = 0;
        break;
    }
    return 0;
}
