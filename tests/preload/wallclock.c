/* LD_PRELOAD library that sets the wall clock of a node alone.
 *
 *     NX_WALL_CLOCK=/abs/file LD_PRELOAD=libwallclock.so nexus-server ...
 *
 * The file holds 8 bytes, a signed number of seconds in the machine's byte order, by which CLOCK_REALTIME is ahead; it
 * is mapped, so that who writes it sets the clock of a running node. Other clocks are as they are. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead_s;

__attribute__((constructor)) static void start(void)
{
    const char *path = secure_getenv("NX_WALL_CLOCK");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        ahead_s = mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, fd, 0);
        if (ahead_s == MAP_FAILED) {
            ahead_s = NULL;
        }
        close(fd);
    }
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long rc = syscall(SYS_clock_gettime, clock, time);

    if (rc == 0 && ahead_s != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        time->tv_sec += (time_t)*ahead_s;
    }
    return (int)rc;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *ret_time)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (ret_time != NULL) {
        *ret_time = now.tv_sec;
    }
    return now.tv_sec;
}
