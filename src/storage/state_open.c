/* Opens LMDB's environment, and makes it. Runs in every process that reads the state; making in the
 * checkpointer alone. LMDB would make its file in place, unsynced, and a power cut could leave half of
 * it: so it is made under another name, synced, and renamed. */
#include "common/log.h"
#include "storage/file_io.h"
#include "storage/state_codec.h"
#include "storage/state_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA_FILE "data.mdb"
#define NEW_FILE  "data.mdb.new"
#define FILE_MODE 0600
#define DATABASES 3

int nx_state_error(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return 0;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_MAP_FULL:
        return -ENOSPC;
    case MDB_READERS_FULL:
        return -EAGAIN;
    case MDB_BAD_VALSIZE:
        return -EINVAL;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
    case EBADF: /* an empty file: a reader's LMDB tries to begin a new one in it */
        return -EBADMSG;
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

MDB_val nx_state_val(const void *data, size_t length)
{
    MDB_val val = {.mv_size = length};

    memcpy(&val.mv_data, &data, sizeof data);
    return val;
}

struct nx_slice nx_state_slice(const MDB_val *val)
{
    return nx_slice_of(val->mv_data, val->mv_size);
}

/* A page begins with its header (struct MDB_page of LMDB 0.9's mdb.c, the same in the file): a value stands behind nodes
 * in one page, or right behind the header of the first of so many overflow pages as stands there. */
#define PAGE_HEADER   16
#define PAGE_OVERFLOW 12 /* where their number stands, 32 bits */

struct nx_slice nx_state_read_slice(const struct nx_environment *environment, const MDB_val *val)
{
    size_t page_size = environment->page_size;
    size_t at = page_size == 0 ? 0 : (size_t)((uintptr_t)val->mv_data % page_size);
    uint32_t pages;

    if (page_size == 0 || val->mv_size <= page_size - at) {
        return nx_state_slice(val);
    }
    memcpy(&pages, (const uint8_t *)val->mv_data - at + PAGE_OVERFLOW, sizeof pages);
    if (at != PAGE_HEADER || pages == 0 || val->mv_size > pages * page_size - PAGE_HEADER) {
        return nx_slice_of(NULL, 0);
    }
    return nx_state_slice(val);
}

/* ---- meta ---- */

int nx_state_meta_look(const struct nx_environment *environment,
                       MDB_txn *txn,
                       const char *name,
                       size_t most,
                       struct nx_slice *ret_bytes)
{
    struct nx_slice key_bytes = nx_slice_text(name);
    MDB_val key = nx_state_val(key_bytes.data, key_bytes.length);
    MDB_val val;
    int rc = nx_state_error(mdb_get(txn, environment->meta, &key, &val));

    if (rc < 0) {
        return rc;
    }
    struct nx_slice bytes = nx_state_slice(&val);

    if (bytes.length < NX_STATE_CRC || bytes.length > most + NX_STATE_CRC) {
        return -EBADMSG;
    }
    bytes.length -= NX_STATE_CRC;
    if (nx_load_u32(bytes.data + bytes.length) !=
        nx_state_crc(key_bytes, bytes.data, bytes.length)) {
        return -EBADMSG;
    }
    *ret_bytes = bytes;
    return 0;
}

int nx_state_meta_get(const struct nx_environment *environment,
                      MDB_txn *txn,
                      const char *name,
                      void *ret_bytes,
                      size_t n)
{
    struct nx_slice bytes;
    int rc = nx_state_meta_look(environment, txn, name, n, &bytes);

    if (rc == 0 && bytes.length != n) {
        rc = -EBADMSG;
    }
    if (rc == 0) {
        memcpy(ret_bytes, bytes.data, n);
    }
    return rc;
}

int nx_state_meta_put(const struct nx_environment *environment,
                      MDB_txn *txn,
                      const char *name,
                      const void *bytes,
                      size_t n)
{
    struct nx_slice key_bytes = nx_slice_text(name);
    MDB_val key = nx_state_val(key_bytes.data, key_bytes.length);
    MDB_val val = {.mv_size = n + NX_STATE_CRC};
    int rc = nx_state_error(mdb_put(txn, environment->meta, &key, &val, MDB_RESERVE));

    if (rc == 0) {
        uint8_t *row = val.mv_data;

        memcpy(row, bytes, n);
        nx_store_u32(row + n, nx_state_crc(key_bytes, bytes, n));
    }
    return rc;
}

int nx_state_position_get(const struct nx_environment *environment,
                          MDB_txn *txn,
                          struct nx_position *ret_position)
{
    uint8_t bytes[NX_STATE_POSITION] = {0};
    int rc = nx_state_meta_get(environment, txn, "position", bytes, sizeof bytes);

    if (rc < 0 && rc != -ENOENT) {
        return rc;
    }
    nx_state_position_decode(bytes, ret_position);
    return 0;
}

/* ---- opening ---- */

static int say(char *error, size_t cap, const struct nx_environment *environment, int rc)
{
    if (rc == -ENOTDIR) {
        (void)snprintf(error, cap, "the directory %s is missing", environment->dir);
    } else if (rc == -EBADMSG) {
        (void)snprintf(
            error, cap,
            "the state in %s is damaged: take it from a replica or from a snapshot, or, if "
            "the log is whole from entry 1, move the files in it away",
            environment->dir);
    } else {
        (void)snprintf(error, cap, "the state in %s can't be opened: %s", environment->dir,
                       nx_errno_text(rc));
    }
    return rc;
}

static int check_format(const struct nx_environment *environment,
                        MDB_txn *txn,
                        char *error,
                        size_t cap)
{
    uint8_t bytes[4];
    struct nx_position position;
    int rc = nx_state_meta_get(environment, txn, "format", bytes, sizeof bytes);

    if (rc == 0 && nx_load_u32(bytes) != NX_STATE_FORMAT) {
        (void)snprintf(
            error, cap,
            "the state in %s has format %u, this version reads format %d: run the version "
            "that wrote it, or a newer one",
            environment->dir, nx_load_u32(bytes), NX_STATE_FORMAT);
        return -EBADMSG;
    }
    if (rc == 0) {
        rc = nx_state_position_get(environment, txn, &position);
    }
    return rc < 0 ? say(error, cap, environment, rc == -ENOENT ? -EBADMSG : rc) : 0;
}

/* The databases, in a transaction that is committed so that they stay open. `flags`: MDB_CREATE or 0. */
static int open_databases(struct nx_environment *environment, MDB_txn *txn, unsigned flags)
{
    int rc = mdb_dbi_open(txn, "kv", flags, &environment->kv);

    rc = rc != 0 ? rc : mdb_dbi_open(txn, "expiry", flags, &environment->expiry);
    return rc != 0 ? rc : mdb_dbi_open(txn, "meta", flags, &environment->meta);
}

/* LMDB has found pages that can't be: it would abort without a word of where. */
static void say_damaged(MDB_env *env, const char *what)
{
    const char *path = "";

    (void)mdb_env_get_path(env, &path);
    nx_error(
        "the state in %s is damaged (LMDB: %s): recover this node from a replica (start it with an "
        "empty data directory and let it follow one) or from a snapshot",
        path, what);
    abort();
}

static int new_env(const struct nx_environment *environment, MDB_env **ret_env)
{
    unsigned readers = environment->options.max_readers;
    MDB_env *env;
    int rc = mdb_env_create(&env);

    if (rc != 0) {
        return rc;
    }
    rc = mdb_env_set_mapsize(env, environment->options.map_size);
    rc = rc != 0
             ? rc
             : mdb_env_set_maxreaders(env, readers > NX_STATE_READERS ? readers : NX_STATE_READERS);
    rc = rc != 0 ? rc : mdb_env_set_maxdbs(env, DATABASES);
    rc = rc != 0 ? rc : mdb_env_set_assert(env, say_damaged);
    if (rc != 0) {
        mdb_env_close(env);
        return rc;
    }
    *ret_env = env;
    return 0;
}

/* Reading behind the end of a file that was cut short would end the process; zeros there are found as
 * damage. The pages behind it can also be some that LMDB gave up before it ever wrote them. */
static int fill_up(MDB_env *env)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat file;
    int fd = -1;
    int rc = mdb_env_info(env, &info);

    rc = rc != 0 ? rc : mdb_env_stat(env, &stat);
    rc = rc != 0 ? rc : mdb_env_get_fd(env, &fd);
    if (rc != 0) {
        return rc;
    }
    off_t wanted = (off_t)((info.me_last_pgno + 1) * stat.ms_psize);

    if (fstat(fd, &file) != 0 || (file.st_size < wanted && ftruncate(fd, wanted) != 0)) {
        return errno;
    }
    return 0;
}

static int load(struct nx_environment *environment, MDB_env *env, char *error, size_t cap)
{
    unsigned flags = MDB_NOTLS | MDB_NORDAHEAD;
    MDB_stat stat = {.ms_psize = 0};
    MDB_txn *txn = NULL;
    int rc = mdb_env_open(env, environment->dir,
                          environment->options.writer ? flags : flags | MDB_RDONLY, FILE_MODE);

    rc = rc != 0 ? rc : mdb_env_stat(env, &stat);
    if (rc == 0 && environment->options.writer) {
        rc = fill_up(env);
    }
    environment->page_size = stat.ms_psize <= (size_t)sysconf(_SC_PAGESIZE) ? stat.ms_psize : 0;
    rc = rc != 0 ? rc : mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return say(error, cap, environment, nx_state_error(rc));
    }
    rc = open_databases(environment, txn, 0);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return say(error, cap, environment, rc == MDB_NOTFOUND ? -EBADMSG : nx_state_error(rc));
    }
    rc = check_format(environment, txn, error, cap);
    if (rc < 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = nx_state_error(mdb_txn_commit(txn));
    return rc < 0 ? say(error, cap, environment, rc) : 0;
}

static int open_dir(const struct nx_environment *environment)
{
    int fd = open(environment->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    return fd;
}

static int file_exists(const struct nx_environment *environment)
{
    int dir_fd = open_dir(environment);
    int rc;

    if (dir_fd < 0) {
        return dir_fd == -ENOENT ? -ENOTDIR : dir_fd;
    }
    rc = faccessat(dir_fd, DATA_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
    close(dir_fd);
    return rc;
}

int nx_environment_open(struct nx_environment *environment, char *error, size_t cap)
{
    MDB_env *env = NULL;
    int rc = file_exists(environment);

    if (rc < 0) {
        return say(error, cap, environment, rc);
    }
    rc = nx_state_error(new_env(environment, &env));
    if (rc < 0) {
        return say(error, cap, environment, rc);
    }
    rc = load(environment, env, error, cap);
    if (rc < 0) {
        mdb_env_close(env);
        return rc;
    }
    environment->env = env;
    return 0;
}

/* ---- making ---- */

/* An environment with its databases and format in the one file `path`. */
static int make_file(struct nx_environment *environment, const char *path)
{
    uint8_t format[4];
    MDB_env *env;
    MDB_txn *txn = NULL;
    int rc = new_env(environment, &env);

    if (rc != 0) {
        return nx_state_error(rc);
    }
    rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, FILE_MODE);
    rc = rc != 0 ? rc : mdb_txn_begin(env, NULL, 0, &txn);
    if (rc != 0) {
        mdb_env_close(env);
        return nx_state_error(rc);
    }
    rc = nx_state_error(open_databases(environment, txn, MDB_CREATE));
    nx_store_u32(format, NX_STATE_FORMAT);
    rc = rc < 0 ? rc : nx_state_meta_put(environment, txn, "format", format, sizeof format);
    if (rc < 0) {
        mdb_txn_abort(txn);
    } else {
        rc = nx_state_error(mdb_txn_commit(txn));
    }
    rc = rc < 0 ? rc : nx_state_error(mdb_env_sync(env, 1));
    mdb_env_close(env);
    return rc;
}

static int make(const struct nx_environment *environment, int dir_fd)
{
    struct nx_environment scratch = *environment;
    char *path;
    int rc;

    if (unlinkat(dir_fd, NEW_FILE, 0) != 0 && errno != ENOENT) {
        return -errno;
    }
    if (asprintf(&path, "%s/" NEW_FILE, environment->dir) < 0) {
        return -ENOMEM;
    }
    rc = make_file(&scratch, path);
    free(path);
    if (rc == 0 && (renameat(dir_fd, NEW_FILE, dir_fd, DATA_FILE) != 0 || fsync(dir_fd) != 0)) {
        rc = -errno;
    }
    return rc;
}

int nx_environment_create(const struct nx_environment *environment, char *error, size_t cap)
{
    int rc = file_exists(environment);

    if (rc == 0 || rc == -ENOENT) {
        int dir_fd = open_dir(environment);

        if (dir_fd < 0) {
            rc = dir_fd;
        } else {
            /* A name that is there may be page cache alone: its maker may have been killed. */
            rc = rc == 0 ? (fsync(dir_fd) == 0 ? 0 : -errno) : make(environment, dir_fd);
            close(dir_fd);
        }
    }
    return rc < 0 ? say(error, cap, environment, rc) : 0;
}
