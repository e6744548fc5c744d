/* See failpoint.h. State of each process: what it inherited at fork, counted on from there. */
#include "common/failpoint.h"

#ifdef NEXUS_TEST_POINTS

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_SIZE 1024
#define LOOK_US   10000 /* a paused process looks that often whether it may go on */

enum action {
    ACTION_NONE,
    ACTION_ABORT,
    ACTION_EXIT,
    ACTION_KILL,
    ACTION_SLEEP,
    ACTION_PAUSE,
    ACTION_ERRNO
};

/* What is to happen at a point. */
struct order {
    enum action action;
    unsigned long from;  /* the first time that counts */
    unsigned long value; /* milliseconds, or an errno */
};

static const char *const point_names[] = {
#define NX_POINT(name, what) #name,
#include "common/failpoints.def"
#undef NX_POINT
};

static const char *const plant_names[] = {
#define NX_PLANT(name, what) #name,
#include "common/failpoints.def"
#undef NX_PLANT
};

static struct order orders[NX_POINTS];
static unsigned long times[NX_POINTS];
static bool planted[NX_PLANTS];
static bool noted[NX_POINTS + NX_PLANTS];
static bool ready;

static _Noreturn void refuse(const char *variable, const char *text)
{
    (void)fprintf(stderr, "nexus-server: %s: \"%s\" is not understood (src/common/failpoint.h)\n",
                  variable, text);
    _exit(1);
}

static size_t index_of(const char *name, size_t length, const char *const *names, size_t count)
{
    size_t i = 0;

    while (i < count && (strlen(names[i]) != length || strncmp(names[i], name, length) != 0)) {
        i++;
    }
    return i;
}

/* ---- what the environment says ---- */

static bool parse_errno(const char *text, unsigned long *ret_value)
{
    static const struct {
        const char *name;
        unsigned long value;
    } known[] = {{"EIO)", EIO}, {"ENOSPC)", ENOSPC}, {"ENOMEM)", ENOMEM}, {"EMFILE)", EMFILE}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(text, known[i].name) == 0) {
            *ret_value = known[i].value;
            return true;
        }
    }
    return false;
}

static bool parse_action(const char *text, struct order *order)
{
    static const char *const plain[] = {"abort", "exit", "kill", "pause"};
    static const enum action actions[] = {ACTION_ABORT, ACTION_EXIT, ACTION_KILL, ACTION_PAUSE};
    size_t i = index_of(text, strlen(text), plain, sizeof plain / sizeof *plain);
    char *end;

    if (i < sizeof plain / sizeof *plain) {
        order->action = actions[i];
        return true;
    }
    if (strncmp(text, "errno(", 6) == 0) {
        order->action = ACTION_ERRNO;
        return parse_errno(text + 6, &order->value);
    }
    if (strncmp(text, "sleep(", 6) == 0) {
        order->action = ACTION_SLEEP;
        order->value = strtoul(text + 6, &end, 10);
        return strcmp(end, ")") == 0;
    }
    return false;
}

/* name:action[@n] */
static void take_order(char *text)
{
    char *colon = strchr(text, ':');
    char *at = strchr(text, '@');
    struct order order = {.from = 1};
    size_t i =
        colon == NULL ? NX_POINTS : index_of(text, (size_t)(colon - text), point_names, NX_POINTS);

    if (i == NX_POINTS) {
        refuse("NEXUS_FAILPOINT", text);
    }
    if (at != NULL) {
        char *end;

        order.from = strtoul(at + 1, &end, 10);
        if (*end != '\0' || order.from == 0) {
            refuse("NEXUS_FAILPOINT", text);
        }
        *at = '\0';
    }
    if (!parse_action(colon + 1, &order)) {
        refuse("NEXUS_FAILPOINT", text);
    }
    orders[i] = order;
}

static void take_plant(char *text)
{
    size_t i = index_of(text, strlen(text), plant_names, NX_PLANTS);

    if (i == NX_PLANTS) {
        refuse("NEXUS_PLANT", text);
    }
    planted[i] = true;
}

static void take_list(const char *variable, void (*take)(char *text))
{
    const char *value = getenv(variable);
    char text[PATH_SIZE];
    char *rest = NULL;

    if (value == NULL) {
        return;
    }
    if (strlen(value) >= sizeof text) {
        refuse(variable, value);
    }
    memcpy(text, value, strlen(value) + 1);
    for (char *word = strtok_r(text, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        take(word);
    }
}

static void prepare(void)
{
    if (!ready) {
        ready = true;
        take_list("NEXUS_FAILPOINT", take_order);
        take_list("NEXUS_PLANT", take_plant);
    }
}

/* ---- at a point ---- */

/* For the list of what a run of all tests has used. */
static void note(size_t i, const char *name)
{
    const char *path = getenv("NEXUS_FAILPOINT_USED");
    char line[64];
    int fd;

    if (noted[i] || path == NULL) {
        return;
    }
    noted[i] = true;
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        int n = snprintf(line, sizeof line, "%s\n", name);

        if (write(fd, line, (size_t)n) != n) {
            refuse("NEXUS_FAILPOINT_USED", path);
        }
        close(fd);
    }
}

static const char *file_of(char path[PATH_SIZE], const char *name, const char *suffix)
{
    const char *dir = getenv("NEXUS_FAILPOINT_DIR");

    if (dir == NULL) {
        return NULL;
    }
    (void)snprintf(path, PATH_SIZE, "%s/%s%s", dir, name, suffix);
    return path;
}

/* Whether the action is this process's: without a directory, always. */
static bool claim(const char *name)
{
    char path[PATH_SIZE];
    int fd;

    if (file_of(path, name, ".hit") == NULL) {
        return true;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return false;
    }
    (void)dprintf(fd, "%d\n", (int)getpid());
    close(fd);
    return true;
}

static void pause_here(const char *name)
{
    char path[PATH_SIZE];

    if (file_of(path, name, ".go") == NULL) {
        refuse("NEXUS_FAILPOINT_DIR", "unset, with pause");
    }
    while (access(path, F_OK) != 0) {
        (void)usleep(LOOK_US);
    }
}

static int act(const struct order *order, const char *name)
{
    nx_info("failpoint %s", name);
    switch (order->action) {
    case ACTION_ABORT:
        abort();
    case ACTION_EXIT:
        _exit(1);
    case ACTION_KILL:
        (void)kill(getpid(), SIGKILL);
        break;
    case ACTION_SLEEP:
        (void)usleep((useconds_t)(order->value * 1000));
        break;
    case ACTION_PAUSE:
        pause_here(name);
        break;
    case ACTION_ERRNO:
        return -(int)order->value;
    case ACTION_NONE:
        break;
    }
    return 0;
}

int nx_failpoint_reach(enum nx_point point)
{
    const struct order *order = &orders[point];

    prepare();
    times[point]++;
    if (order->action == ACTION_NONE || times[point] < order->from || !claim(point_names[point])) {
        return 0;
    }
    note(point, point_names[point]);
    return act(order, point_names[point]);
}

bool nx_planted_look(enum nx_plant plant)
{
    prepare();
    if (planted[plant]) {
        note((size_t)NX_POINTS + plant, plant_names[plant]);
    }
    return planted[plant];
}

#endif
