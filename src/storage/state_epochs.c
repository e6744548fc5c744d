/* The epoch history in the state's meta: the bytes of epochs.h, then the claim's, if there is one. Runs where the
 * state is read, and in the processes that write it. */
#include "storage/state_handle.h"

#include <errno.h>
#include <string.h>

#define EPOCHS_NAME "epochs"
#define EPOCHS_MOST (NX_EPOCHS_BYTES + NX_CLAIM_SIZE)

/* Bytes of the row, without its CRC. */
static size_t encode(const struct nx_epochs *epochs, uint8_t buf[EPOCHS_MOST])
{
    size_t n = nx_epochs_encode(epochs, buf);

    memcpy(buf + n, epochs->claim, epochs->claim_length);
    return n + epochs->claim_length;
}

int nx_state_epochs_get(const struct nx_environment *environment,
                        MDB_txn *txn,
                        struct nx_epochs *ret_epochs)
{
    struct nx_slice row;
    int rc = nx_state_meta_look(environment, txn, EPOCHS_NAME, EPOCHS_MOST, &row);
    size_t claim;

    ret_epochs->count = 0;
    ret_epochs->claim_length = 0;
    if (rc < 0) {
        return rc == -ENOENT ? 0 : rc;
    }
    /* A claim is no multiple of an epoch's size. */
    claim = row.length % NX_WIRE_EPOCH_SIZE == 0 ? 0 : NX_CLAIM_SIZE;
    if (row.length < claim) {
        return -EBADMSG;
    }
    rc = nx_epochs_decode(nx_slice_of(row.data, row.length - claim), ret_epochs);
    if (rc == 0 && claim > 0) {
        memcpy(ret_epochs->claim, row.data + row.length - claim, claim);
        ret_epochs->claim_length = (uint32_t)claim;
    }
    return rc;
}

int nx_state_epochs_put(const struct nx_environment *environment,
                        MDB_txn *txn,
                        const struct nx_epochs *epochs)
{
    static uint8_t bytes[EPOCHS_MOST];
    size_t n = encode(epochs, bytes);
    struct nx_slice row;

    if (nx_state_meta_look(environment, txn, EPOCHS_NAME, EPOCHS_MOST, &row) == 0 &&
        nx_slice_equal(row, nx_slice_of(bytes, n))) {
        return 0;
    }
    return nx_state_meta_put(environment, txn, EPOCHS_NAME, bytes, n);
}

int nx_state_epochs(struct nx_state *state, struct nx_epochs *ret_epochs)
{
    if (state->reading_void) {
        ret_epochs->count = 0;
        ret_epochs->claim_length = 0;
        return 0;
    }
    return nx_state_epochs_get(state->environment, state->read, ret_epochs);
}

int nx_state_put_epochs(struct nx_state *state, const struct nx_epochs *epochs)
{
    return nx_state_epochs_put(state->environment, state->write, epochs);
}
