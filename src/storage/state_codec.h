/* The bytes of the state's records (state.h has the layout). Private to src/storage. Pure functions. */
#ifndef NX_STORAGE_STATE_CODEC_H
#define NX_STORAGE_STATE_CODEC_H

#include "common/bytes.h"
#include "storage/state.h"

#include <stddef.h>
#include <stdint.h>

#define NX_STATE_FORMAT     1
#define NX_STATE_EXPIRY_KEY 20 /* bytes of a key of `expiry` */
#define NX_STATE_CRC        4  /* bytes behind every record */
#define NX_STATE_POSITION   20 /* bytes of the position, without its CRC */

/* A record of `kv`: its size, CRC included, and its bytes. */
size_t nx_state_record_size(const struct nx_record *record);
void nx_state_record_encode(const struct nx_record *record, uint8_t *bytes);
/* ret_record points into key and bytes. 0 or -EBADMSG. */
int nx_state_record_decode(struct nx_slice key,
                           struct nx_slice bytes,
                           struct nx_record *ret_record);
/* The same without key and value, and without looking whether it is damaged. */
int nx_state_record_peek(struct nx_slice bytes, struct nx_record *ret_record);

void nx_state_position_encode(const struct nx_position *position,
                              uint8_t ret_bytes[NX_STATE_POSITION]);
void nx_state_position_decode(const uint8_t bytes[NX_STATE_POSITION],
                              struct nx_position *ret_position);

/* CRC of a row: its key, then its bytes. */
uint32_t nx_state_crc(struct nx_slice key, const void *bytes, size_t n);

#endif
