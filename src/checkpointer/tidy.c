/* Runs in the checkpointer, once the node serves again. See tidy.h. */
#include "checkpointer/tidy.h"

#include "common/log.h"
#include "storage/data_dir.h"
#include "storage/incoming.h"
#include "storage/snapshot_files.h"

#include <string.h>

void nx_tidy(const struct nx_process *process, struct nx_warming *warming)
{
    int replaced = nx_data_dir_tidy(process->data_dir);
    int dropped = nx_snapshot_in_dir(process->data_dir, nx_incoming_drop);
    int rc = replaced < 0 ? replaced : dropped;

    if (replaced > 0) {
        nx_warming_begin(warming, process->state_root);
    }
    if (rc < 0) {
        nx_warn("what a full sync has left can't be removed from %s: %s", process->data_dir,
                strerrordesc_np(-rc));
    }
}
