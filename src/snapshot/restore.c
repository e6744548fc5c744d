/* The restore process. Nothing asks for one yet: full syncs come with the next change. */
#include "common/process.h"

int nx_restore_main(struct nx_process *process)
{
    nx_process_ready(process);
    return NX_EXIT_OK;
}
