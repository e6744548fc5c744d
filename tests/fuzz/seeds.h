/* What make_seeds is put together from: a seed's bytes are put into one buffer, then written. */
#ifndef NX_TESTS_FUZZ_SEEDS_H
#define NX_TESTS_FUZZ_SEEDS_H

#include <stddef.h>
#include <stdint.h>

#define UUID "550e8400-e29b-41d4-a716-446655440003"

/* The bytes in the buffer are a seed of that target; the buffer is empty then. */
void write_seed(const char *target);

/* Bytes behind those in the buffer. */
void put(const void *bytes, size_t n);
void put_byte(uint8_t byte);
void put_text(uint8_t first, const char *text);

/* Seeds of the targets files, peer and restore. */
void seed_files(void);
void seed_peers(void);
void seed_restores(void);

#endif
