/* Runs in every process; each has its own copy of the state here, but for the counter of reopenings,
 * which is shared by all that come from one nx_log_configure. It owns the descriptor of the log file. */
#include "common/log.h"

#include "common/latch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* A byte becomes at most "\\xNN" in JSON; time, level, kind and pid stand around the message. */
#define LINE_SIZE (5 * NX_LOG_MESSAGE_SIZE + 256)

static struct {
    enum nx_log_level level;
    enum nx_log_format format;
    int fd;
    const char *kind;
    char path[NX_PATH_SIZE];    /* "": stderr */
    _Atomic uint32_t *reopened; /* asked so often to reopen; shared, NULL until configured */
    uint32_t reopened_here;     /* what it was when fd was opened */
} state = {.level = NX_LOG_INFO, .fd = STDERR_FILENO, .kind = "postmaster"};

static const struct {
    const char *text; /* padded to one width */
    const char *json;
} level_names[] = {
    [NX_LOG_ERROR] = {"ERROR", "error"},
    [NX_LOG_WARNING] = {"WARN ", "warning"},
    [NX_LOG_INFO] = {"INFO ", "info"},
    [NX_LOG_DEBUG] = {"DEBUG", "debug"},
};

/* A line being put together; what doesn't fit is dropped. */
struct line {
    size_t length;
    char bytes[LINE_SIZE];
};

/* ---- the file ---- */

static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0600);

    if (fd < 0) {
        return -errno;
    }
    return fd;
}

static int share_counter(void)
{
    void *page;

    if (state.reopened != NULL) {
        return 0;
    }
    page = mmap(NULL, sizeof *state.reopened, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                -1, 0);
    if (page == MAP_FAILED) {
        return -errno;
    }
    state.reopened = page;
    return 0;
}

static uint32_t times_reopened(void)
{
    return state.reopened == NULL ? 0 : atomic_load_explicit(state.reopened, memory_order_relaxed);
}

static void use_file(int fd)
{
    if (state.fd != STDERR_FILENO) {
        close(state.fd);
    }
    state.fd = fd;
}

int nx_log_configure(const struct nx_config *config)
{
    const char *path = config->server.log_file;
    int rc = share_counter();
    int fd = STDERR_FILENO;

    if (rc < 0) {
        return rc;
    }
    if (strcmp(path, state.path) != 0) {
        if (path[0] != '\0') {
            fd = open_file(path);
        }
        if (fd < 0) {
            return fd;
        }
        use_file(fd);
        state.reopened_here = times_reopened();
        memcpy(state.path, config->server.log_file, sizeof state.path);
    }
    state.level = config->server.log_level;
    state.format = config->server.log_format;
    return 0;
}

void nx_log_reopen(void)
{
    if (state.reopened != NULL) {
        atomic_fetch_add_explicit(state.reopened, 1, memory_order_relaxed);
    }
}

/* Where the new file can't be opened, the old one goes on. */
static void follow_reopening(void)
{
    uint32_t times = times_reopened();
    int fd;

    if (times == state.reopened_here || state.path[0] == '\0') {
        return;
    }
    state.reopened_here = times;
    fd = open_file(state.path);
    if (fd >= 0) {
        use_file(fd);
    }
}

int nx_log_fd(void)
{
    follow_reopening();
    return state.fd;
}

/* ---- the line ---- */

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
    size_t room = sizeof line->bytes - line->length;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line->bytes + line->length, room, format, args);
    va_end(args);
    if (n > 0) {
        line->length += (size_t)n < room ? (size_t)n : room - 1;
    }
}

static bool continues(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

size_t nx_log_printable(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;

    if (p[0] >= 0x20 && p[0] < 0x7F) {
        return 1;
    }
    if (p[0] >= 0xC2 && p[0] < 0xE0 && continues(p[1])) {
        return p[0] == 0xC2 && p[1] < 0xA0 ? 0 : 2;
    }
    if (p[0] >= 0xE0 && p[0] < 0xF0 && continues(p[1]) && continues(p[2])) {
        bool overlong = p[0] == 0xE0 && p[1] < 0xA0;
        bool surrogate = p[0] == 0xED && p[1] >= 0xA0;

        return overlong || surrogate ? 0 : 3;
    }
    if (p[0] >= 0xF0 && p[0] < 0xF5 && continues(p[1]) && continues(p[2]) && continues(p[3])) {
        bool overlong = p[0] == 0xF0 && p[1] < 0x90;
        bool above = p[0] == 0xF4 && p[1] >= 0x90;

        return overlong || above ? 0 : 4;
    }
    return 0;
}

static void add_message(struct line *line, const char *message, bool json)
{
    while (*message != '\0') {
        size_t n = nx_log_printable(message);

        if (n == 0) {
            add(line, json ? "\\\\x%02X" : "\\x%02X", (unsigned)(uint8_t)*message);
            message++;
            continue;
        }
        if (json && (*message == '"' || *message == '\\')) {
            add(line, "\\");
        }
        add(line, "%.*s", (int)n, message);
        message += n;
    }
}

static void add_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    add(line, "%s.%03ldZ", text, now.tv_nsec / 1000000);
}

static void add_text(struct line *line, enum nx_log_level level, const char *message)
{
    add_time(line);
    add(line, " %s %s[%d]: ", level_names[level].text, state.kind, (int)getpid());
    add_message(line, message, false);
}

static void add_json(struct line *line, enum nx_log_level level, const char *message)
{
    add(line, "{\"time\":\"");
    add_time(line);
    add(line, "\",\"level\":\"%s\",\"process\":\"%s\",\"pid\":%d,\"message\":\"",
        level_names[level].json, state.kind, (int)getpid());
    add_message(line, message, true);
    add(line, "\"}");
}

static void write_line(enum nx_log_level level, const char *message)
{
    struct line line = {.length = 0};
    ssize_t n;

    if (state.format == NX_LOG_JSON) {
        add_json(&line, level, message);
    } else {
        add_text(&line, level, message);
    }
    line.bytes[line.length++] = '\n';
    follow_reopening();
    do {
        n = write(state.fd, line.bytes, line.length);
    } while (n < 0 && errno == EINTR);
}

/* A message that had to be cut ends in "...". */
static void mark_cut(char message[NX_LOG_MESSAGE_SIZE], int length)
{
    if (length >= NX_LOG_MESSAGE_SIZE) {
        memcpy(message + NX_LOG_MESSAGE_SIZE - 4, "...", 4);
    }
}

/* ---- what others call ---- */

void nx_log_set_process(const char *kind)
{
    state.kind = kind;
}

bool nx_log_wants(enum nx_log_level level)
{
    return level <= state.level;
}

void nx_log(enum nx_log_level level, const char *format, ...)
{
    char message[NX_LOG_MESSAGE_SIZE];
    int saved_errno = errno;
    va_list args;

    if (!nx_log_wants(level)) {
        return;
    }
    va_start(args, format);
    mark_cut(message, vsnprintf(message, sizeof message, format, args));
    va_end(args);
    write_line(level, message);
    errno = saved_errno;
}

/* Whether this line is written; counts it. */
static bool within_limit(struct nx_log_limit *limit)
{
    uint64_t now = nx_now_ms();

    if (limit->written == 0 || now - limit->period_began_ms >= NX_LOG_PERIOD_MS) {
        limit->period_began_ms = now;
        limit->written = 0;
    }
    if (limit->written == NX_LOG_BURST) {
        limit->left_out++;
        return false;
    }
    limit->written++;
    return true;
}

void nx_log_limited(struct nx_log_limit *limit, enum nx_log_level level, const char *format, ...)
{
    char message[NX_LOG_MESSAGE_SIZE];
    int saved_errno = errno;
    va_list args;
    int length;

    if (!nx_log_wants(level) || !within_limit(limit)) {
        return;
    }
    va_start(args, format);
    length = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    mark_cut(message, length);
    if (limit->left_out > 0 && length >= 0 && length < NX_LOG_MESSAGE_SIZE) {
        (void)snprintf(message + length, sizeof message - (size_t)length,
                       " (%llu more like this were left out)", (unsigned long long)limit->left_out);
        limit->left_out = 0;
    }
    write_line(level, message);
    errno = saved_errno;
}
