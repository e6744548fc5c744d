/* A state in a temporary directory, and a hand-driven log over it: what the walwriter does, step by
 * step, in this process. */
#ifndef NX_TESTS_STATE_FIXTURE_H
#define NX_TESTS_STATE_FIXTURE_H

#include "common/bytes.h"
#include "common/entry.h"
#include "common/shared_log.h"
#include "common/skip_list.h"
#include "shm_fixture.h"
#include "storage/state.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_MAP_SIZE (256ull << 20)

static char state_dir[64];
static char state_error[1024];

static inline void state_dir_make(void)
{
    const char *base = getenv("TMPDIR");

    (void)snprintf(state_dir, sizeof state_dir, "%s/nexus-state-XXXXXX",
                   base != NULL && strlen(base) < 32 ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(state_dir));
}

static inline void state_dir_remove(void)
{
    char command[128];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", state_dir);
    ck_assert_int_eq(system(command), 0);
}

static inline struct nx_state *state_open_sized(bool writer, uint64_t map_size)
{
    struct nx_state_options options = {.map_size = map_size, .writer = writer};
    struct nx_state *state = NULL;
    int rc = nx_state_open(state_dir, &options, &state, state_error, sizeof state_error);

    ck_assert_msg(rc == 0, "%s", state_error);
    return state;
}

static inline struct nx_state *state_open(bool writer)
{
    return state_open_sized(writer, STATE_MAP_SIZE);
}

/* ---- the log ---- */

struct test_log {
    struct nx_log_writer writer;
    uint64_t generation; /* running */
    uint32_t last_crc;
};

static inline struct nx_generation *log_generation(uint64_t number)
{
    return &shm->generations[number % NX_GENERATIONS];
}

static inline void log_begin_generation(struct test_log *log, uint64_t number)
{
    struct nx_generation *generation = log_generation(number);

    nx_skip_reset(shm, nx_skip_pool(shm, number));
    atomic_store_explicit(&generation->first_offset, log->writer.newest + 1, memory_order_relaxed);
    atomic_store_explicit(&generation->last_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&generation->first_pos, log->writer.next_pos, memory_order_relaxed);
    atomic_store_explicit(&generation->number, number, memory_order_release);
    log->generation = number;
}

static inline void log_start(struct test_log *log, uint64_t first_offset)
{
    *log = (struct test_log){.generation = 1};
    nx_log_writer_init(&log->writer, shm, first_offset);
    log_begin_generation(log, 1);
}

/* Appends one entry of `count` operations; it isn't published yet. Returns its offset. */
static inline uint64_t log_append(struct test_log *log, const struct nx_op *ops, uint32_t count)
{
    struct nx_entry_header header = {.offset = log->writer.newest + 1,
                                     .epoch = 1,
                                     .timestamp = 1,
                                     .prev_crc = log->last_crc,
                                     .op_count = count};
    struct nx_writer bytes;
    uint64_t pos;
    uint8_t *frame;

    for (uint32_t i = 0; i < count; i++) {
        header.ops_length += nx_op_encoded_size(&ops[i]);
    }
    header.frame_length = nx_entry_frame_size(header.ops_length);
    frame = nx_log_reserve(&log->writer, header.frame_length, 0, &pos);
    ck_assert_ptr_nonnull(frame);
    bytes = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, header.ops_length);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_int_eq(nx_op_encode(&bytes, &ops[i]), 0);
    }
    log->last_crc = nx_entry_finish(frame, &header);

    struct nx_op_iter iter;
    struct nx_op op;

    nx_op_iter_init(&iter, frame + NX_ENTRY_HEADER_SIZE, header.ops_length, count);
    while (nx_op_next(&iter, &op) > 0) {
        if (op.kind != NX_OP_EPOCH) {
            struct nx_skip_version version = {
                .key = op.key,
                .op_pos = pos + (uint64_t)(iter.at - frame),
                .offset = header.offset,
                .op_index = iter.index - 1,
                .kind = (uint8_t)op.kind,
            };

            nx_skip_insert(shm, nx_skip_pool(shm, log->generation), &version, 1);
        }
    }
    nx_log_commit(&log->writer, pos, header.frame_length);
    return header.offset;
}

static inline struct nx_op put_op(const char *key, const char *value)
{
    return (struct nx_op){
        .kind = NX_OP_PUT, .key = nx_slice_text(key), .value = nx_slice_text(value)};
}

static inline struct nx_op delete_op(const char *key)
{
    return (struct nx_op){.kind = NX_OP_DELETE, .key = nx_slice_text(key)};
}

static inline uint64_t log_put(struct test_log *log, const char *key, const char *value)
{
    struct nx_op op = put_op(key, value);

    return log_append(log, &op, 1);
}

static inline uint64_t log_delete(struct test_log *log, const char *key)
{
    struct nx_op op = delete_op(key);

    return log_append(log, &op, 1);
}

/* All that is appended is durable now. */
static inline void log_publish(struct test_log *log)
{
    atomic_store_explicit(&shm->log.synced_offset, log->writer.newest, memory_order_release);
    nx_log_publish(shm, log->writer.newest, 1, log->last_crc);
}

static inline void log_seal(struct test_log *log)
{
    atomic_store_explicit(&log_generation(log->generation)->last_offset, log->writer.newest,
                          memory_order_release);
    log_begin_generation(log, log->generation + 1);
}

/* Frees the oldest generation, whose number is given; it must be merged. */
static inline void log_free(struct test_log *log, uint64_t number)
{
    atomic_store_explicit(&log_generation(number)->number, 0, memory_order_release);
    atomic_thread_fence(memory_order_release);
    log->writer.pinned_offset =
        atomic_load_explicit(&log_generation(number + 1)->first_offset, memory_order_relaxed);
}

#endif
