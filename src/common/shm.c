/* Makes and lays out the shared memory object. Runs in the postmaster (and in unit tests); a child
 * inherits the mapping and never calls anything here. */
#include "common/shm.h"

#include "common/shared_log.h"
#include "common/skip_list.h"
#include "common/submit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PAGE          4096u
#define AUTO_SIZE     (128ull << 20)
#define MEMFD_SIZE    (64ull << 20)
#define COMPLETIONS   ((size_t)1024)
#define RING_HEADER   ((size_t)2 * NX_LINE)
#define TYPICAL_ENTRY 150u /* bytes of a small entry's frame: one index slot for each of them */
#define TYPICAL_NODE  64u  /* bytes of the pool, a hash bucket */
#define SHM_DIRECTORY "/dev/shm"

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Largest power of two that is at most n. */
static uint64_t power_below(uint64_t n)
{
    uint64_t power = 1;

    while (power * 2 <= n) {
        power *= 2;
    }
    return power;
}

/* Takes the next region of `size` bytes. */
static uint64_t take(uint64_t *at, uint64_t size)
{
    uint64_t start = *at;

    *at = round_up(start + size, NX_LINE);
    return start;
}

/* Shares the object out: rings a few hundredths, the index by the arena, about 60 % arena, and what is
 * left to the three pools. */
static void lay_out(struct nx_shm *shm, uint64_t size)
{
    uint64_t at = round_up(sizeof *shm, PAGE);
    uint64_t ring = power_below(size / 128);

    shm->control.size = size;
    shm->submit_size = ring < 65536 ? 65536 : ring;
    shm->completion_count = COMPLETIONS;
    for (unsigned i = 0; i < NX_PRODUCERS; i++) {
        shm->submit_at[i] = take(&at, RING_HEADER + shm->submit_size);
        shm->completion_at[i] = take(&at, RING_HEADER + COMPLETIONS * sizeof(struct nx_completion));
    }
    shm->arena_size = size / 10 * 6 / PAGE * PAGE;
    shm->index_count = power_below(shm->arena_size / TYPICAL_ENTRY * 3 / 2);
    shm->index_at = take(&at, shm->index_count * sizeof(struct nx_log_slot));
    at = round_up(at, PAGE);
    shm->arena_at = take(&at, shm->arena_size);
    shm->pool_size = (size - at) / NX_GENERATIONS / NX_LINE * NX_LINE;
    for (unsigned i = 0; i < NX_GENERATIONS; i++) {
        shm->pool_at[i] = take(&at, shm->pool_size);
    }
    shm->pool_buckets = power_below(shm->pool_size / TYPICAL_NODE);
    shm->pool_nodes_at = nx_skip_nodes_at(shm->pool_buckets);
    if (getrandom(&shm->hash_seed, sizeof shm->hash_seed, GRND_NONBLOCK) < 0) {
        shm->hash_seed = at ^ (uint64_t)getpid() << 32; /* early in a machine's life */
    }
    shm->generation_bytes = size / 4 < shm->arena_size / 3 ? size / 4 : shm->arena_size / 3;
}

static int map_object(int fd, uint64_t size, struct nx_shm **ret_shm)
{
    /* A plain ftruncate succeeds on a full tmpfs, and the first touch is a SIGBUS then. */
    int rc = posix_fallocate(fd, 0, (off_t)size);

    if (rc != 0) {
        return -rc;
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (memory == MAP_FAILED) {
        return -errno;
    }
    *ret_shm = memory;
    lay_out(*ret_shm, size);
    return 0;
}

static int create_named(uint64_t size, struct nx_shm **ret_shm)
{
    char name[64];
    uint64_t random;

    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
        return -EIO;
    }
    (void)snprintf(name, sizeof name, "/nexus-%d-%016llx", (int)getpid(),
                   (unsigned long long)random);
    int fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0) {
        return -errno;
    }
    (void)shm_unlink(name); /* before it takes memory: a kill must leave nothing */
    int rc = map_object(fd, size, ret_shm);

    close(fd);
    return rc;
}

static int create_memfd(uint64_t size, struct nx_shm **ret_shm)
{
    int fd = memfd_create("nexus", MFD_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    int rc = map_object(fd, size, ret_shm);

    close(fd);
    return rc;
}

static uint64_t filesystem_free(void)
{
    struct statvfs info;

    return statvfs(SHM_DIRECTORY, &info) == 0 ? (uint64_t)info.f_bavail * info.f_frsize : 0;
}

int nx_shm_create(uint64_t wanted, struct nx_shm **ret_shm, struct nx_shm_origin *ret_origin)
{
    struct nx_shm_origin origin = {.size = wanted, .filesystem_free = filesystem_free()};

    if (wanted == 0) {
        uint64_t most = origin.filesystem_free / 4 * 3;

        origin.size = most < AUTO_SIZE ? most : AUTO_SIZE;
        origin.memfd = origin.size < NX_SHM_MIN_SIZE;
    }
    origin.size = origin.memfd ? MEMFD_SIZE : origin.size / PAGE * PAGE;
    *ret_origin = origin;
    return origin.memfd ? create_memfd(origin.size, ret_shm) : create_named(origin.size, ret_shm);
}

int nx_shm_create_private(uint64_t size, struct nx_shm **ret_shm)
{
    return create_memfd(size / PAGE * PAGE, ret_shm);
}

void nx_shm_renew(struct nx_shm *shm, uint64_t size)
{
    memset(shm, 0, size);
    lay_out(shm, size);
}

void nx_shm_destroy(struct nx_shm *shm)
{
    (void)munmap(shm, shm->control.size);
}
