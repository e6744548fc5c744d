/* Runs in the checkpointer; see scrub.h. While it goes on, LMDB keeps the pages that it still has to see. */
#include "checkpointer/scrub.h"

#include "common/log.h"

#include <errno.h>

static void end(struct nx_scrub *scrub)
{
    nx_state_check_end(scrub->check);
    *scrub = (struct nx_scrub){.over = true};
}

void nx_scrub_drop(struct nx_scrub *scrub)
{
    nx_state_check_end(scrub->check);
    scrub->check = NULL;
}

bool nx_scrub_step(struct nx_scrub *scrub, struct nx_process *process, struct nx_state *state)
{
    char why[160] = "";
    int rc = -EAGAIN;

    if (scrub->over) {
        return false;
    }
    if (scrub->check == NULL) {
        rc = nx_state_check_is_quick(state) ? 0 : nx_state_check_begin(state, &scrub->check);
        rc = rc == 0 && scrub->check != NULL ? -EAGAIN : rc;
    } else {
        rc = nx_state_check_step(scrub->check, why, sizeof why);
        if (rc == 0) {
            nx_info("the state was looked through: it is sound");
        }
    }
    if (rc == -EAGAIN) {
        return true;
    }
    end(scrub);
    if (rc == -EBADMSG) {
        nx_process_fatal(process, NX_STATE_DAMAGED_TEXT, process->state_root, why);
    }
    if (rc < 0) {
        nx_warn("the state in %s/state could not be looked through: %s", process->state_root,
                strerrordesc_np(-rc));
    }
    return false;
}
