/* The peers process: what a node asks of the others, and tells them, when it is about who leads. */
#include "common/process.h"

int nx_peers_main(struct nx_process *process)
{
    (void)process;
    return NX_EXIT_OK;
}
