/* Handles of the state and reading from it. Runs in every process that reads the state; owns LMDB's
 * environment of its process. What only the checkpointer does is in state_write.c. */
#include "storage/state.h"

#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The environments that this process has open; two handles on one directory share one. */
static struct nx_environment *environments;

static struct nx_environment *find_environment(const char *dir)
{
    struct nx_environment *environment = environments;

    while (environment != NULL && strcmp(environment->dir, dir) != 0) {
        environment = environment->next;
    }
    return environment;
}

static void free_environment(struct nx_environment *environment)
{
    if (environment->env != NULL) {
        mdb_env_close(environment->env);
    }
    free(environment->dir);
    free(environment);
}

static int open_environment(const char *dir,
                            const struct nx_state_options *options,
                            struct nx_environment **ret_environment,
                            char *error,
                            size_t cap)
{
    struct nx_environment *environment = calloc(1, sizeof *environment);
    int rc = 0;

    if (environment == NULL || (environment->dir = strdup(dir)) == NULL) {
        free(environment);
        (void)snprintf(error, cap, "no memory to open the state in %s", dir);
        return -ENOMEM;
    }
    environment->options = *options;
    if (options->writer) {
        rc = nx_environment_create(environment, error, cap);
    }
    rc = rc < 0 ? rc : nx_environment_open(environment, error, cap);
    if (rc == -ENOENT && !options->writer) {
        rc = 0; /* read_begin looks again */
    }
    if (rc < 0) {
        free_environment(environment);
        return rc;
    }
    environment->next = environments;
    environments = environment;
    *ret_environment = environment;
    return 0;
}

static void give_back(struct nx_environment *environment)
{
    struct nx_environment **link = &environments;

    if (--environment->users > 0) {
        return;
    }
    while (*link != environment) {
        link = &(*link)->next;
    }
    *link = environment->next;
    free_environment(environment);
}

int nx_state_open(const char *dir,
                  const struct nx_state_options *options,
                  struct nx_state **ret_state,
                  char *error,
                  size_t cap)
{
    struct nx_environment *environment = find_environment(dir);
    struct nx_state *state;
    int rc = 0;

    if (environment == NULL) {
        rc = open_environment(dir, options, &environment, error, cap);
    } else if (options->writer && !environment->options.writer) {
        (void)snprintf(error, cap, "the state in %s is open for reading in this process already",
                       dir);
        rc = -EBUSY;
    }
    if (rc < 0) {
        return rc;
    }
    environment->users++;
    state = calloc(1, sizeof *state);
    if (state == NULL) {
        give_back(environment);
        (void)snprintf(error, cap, "no memory to open the state in %s", dir);
        return -ENOMEM;
    }
    state->environment = environment;
    state->writer = options->writer;
    if (state->writer) {
        nx_state_clear_dead_readers(state);
    }
    *ret_state = state;
    return 0;
}

void nx_state_close(struct nx_state *state)
{
    if (state == NULL) {
        return;
    }
    nx_state_write_abort(state);
    if (state->read != NULL) {
        mdb_txn_abort(state->read);
    }
    give_back(state->environment);
    free(state);
}

/* ---- reading ---- */

/* The position of the transaction; looked up only where the transaction is another one than before. */
static int read_base(struct nx_state *state)
{
    size_t id = mdb_txn_id(state->read);
    int rc = 0;

    if (id == 0 || id != state->base_txn) {
        rc = nx_state_position_get(state->environment, state->read, &state->base);
        state->base_txn = rc == 0 ? id : 0;
    }
    return rc;
}

int nx_state_read_begin(struct nx_state *state, struct nx_position *ret_base)
{
    struct nx_environment *environment = state->environment;
    char error[512];
    int rc = 0;

    assert(!state->reading);
    if (environment->env == NULL) {
        rc = nx_environment_open(environment, error, sizeof error);
    }
    if (rc == -ENOENT) {
        state->reading = true;
        state->reading_void = true;
        *ret_base = (struct nx_position){0};
        return 0;
    }
    if (rc == 0) {
        rc = nx_state_error(state->read == NULL
                                ? mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &state->read)
                                : mdb_txn_renew(state->read));
    }
    if (rc < 0) {
        return rc;
    }
    rc = read_base(state);
    if (rc < 0) {
        mdb_txn_reset(state->read);
        return rc;
    }
    state->reading = true;
    *ret_base = state->base;
    return 0;
}

void nx_state_read_end(struct nx_state *state)
{
    if (state->reading && !state->reading_void) {
        mdb_txn_reset(state->read);
    }
    state->reading = false;
    state->reading_void = false;
}

uint64_t nx_state_records(struct nx_state *state)
{
    MDB_stat stat;

    if (state->reading_void || mdb_stat(state->read, state->environment->kv, &stat) != 0) {
        return 0;
    }
    return stat.ms_entries;
}

static int find(struct nx_state *state, const uint8_t *key, size_t key_length, MDB_val *ret_val)
{
    MDB_val wanted = nx_state_val(key, key_length);

    if (state->reading_void) {
        return -ENOENT;
    }
    return nx_state_error(mdb_get(state->read, state->environment->kv, &wanted, ret_val));
}

int nx_state_peek(struct nx_state *state,
                  const uint8_t *key,
                  size_t key_length,
                  struct nx_record *ret_record)
{
    MDB_val val;
    int rc = find(state, key, key_length, &val);

    return rc < 0 ? rc
                  : nx_state_record_peek(nx_state_read_slice(state->environment, &val), ret_record);
}

int nx_state_get(struct nx_state *state,
                 const uint8_t *key,
                 size_t key_length,
                 struct nx_record *ret_record)
{
    MDB_val val;
    int rc = find(state, key, key_length, &val);

    return rc < 0
               ? rc
               : nx_state_record_decode(nx_slice_of(key, key_length),
                                        nx_state_read_slice(state->environment, &val), ret_record);
}
