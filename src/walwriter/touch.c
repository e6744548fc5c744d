/* A write that changes a key's expiry alone (NX_SUBMIT_TOUCH): an entry that puts the value which the key has at that
 * moment once more. Runs in the walwriter. */
#include "walwriter/walwriter.h"

#include <errno.h>

/* The put that was submitted, with the value that its key has. 0, -ENOENT: the key is absent, or another negative
 * error. */
static int complete(struct walwriter *w, const struct nx_received *received, struct nx_op *ret_op)
{
    int rc = nx_op_decode_at(received->body, received->body_length, ret_op);

    return rc < 0 ? rc : nx_lookup_value(w, ret_op->key, &ret_op->value);
}

int nx_touch_size(struct walwriter *w, const struct nx_received *received, size_t *ret_size)
{
    struct nx_op op;
    int rc = complete(w, received, &op);

    if (rc < 0 && rc != -ENOENT) {
        return rc;
    }
    *ret_size = rc == 0 ? nx_op_encoded_size(&op) : received->body_length;
    return 0;
}

int nx_touch_place(struct walwriter *w,
                   const struct nx_received *received,
                   uint8_t *out,
                   size_t room,
                   size_t *ret_length)
{
    struct nx_writer writer = nx_writer_of(out, room);
    struct nx_op op;
    int rc = complete(w, received, &op);

    rc = rc < 0 ? rc : nx_op_encode(&writer, &op);
    if (rc < 0 && rc != -ENOENT) {
        return rc;
    }
    *ret_length = writer.used;
    return 0;
}
