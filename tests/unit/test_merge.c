/* Merging a generation into the state: what of it arrives, what happens beside it, and what is left
 * when it is killed before or within any of its system calls. */
#include "checkpointer/merge.h"
#include "state_fixture.h"
#include "storage/view.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct test_log walwriter;

static void setup(void)
{
    state_dir_make();
    shm_setup();
    log_start(&walwriter, 1);
}

static void teardown(void)
{
    shm_teardown();
    state_dir_remove();
}

static uint64_t last_of(uint64_t number)
{
    return atomic_load_explicit(&shm->generations[number % NX_GENERATIONS].last_offset,
                                memory_order_relaxed);
}

static void merge(struct nx_state *state, uint64_t number, struct nx_merge_result *ret_result)
{
    ck_assert_int_eq(nx_merge_generation(shm, state, number, last_of(number), ret_result), 0);
}

static uint64_t position_of(struct nx_state *state)
{
    struct nx_position position;

    ck_assert_int_eq(nx_state_read_begin(state, &position), 0);
    nx_state_read_end(state);
    return position.offset;
}

START_TEST(only_the_newest_version_of_a_key_arrives)
{
    struct nx_state *state = state_open(true);
    struct nx_merge_result result;
    struct nx_record record;
    struct nx_position position;

    for (int i = 0; i < 100; i++) {
        log_put(&walwriter, "often", "v");
    }
    log_put(&walwriter, "often", "last");
    log_put(&walwriter, "gone", "v");
    log_delete(&walwriter, "gone");
    log_delete(&walwriter, "never there");
    log_publish(&walwriter);
    log_seal(&walwriter);
    merge(state, 1, &result);
    ck_assert_uint_eq(result.keys, 3);
    ck_assert_uint_eq(result.versions, 104);
    ck_assert_uint_eq(result.position.offset, 104);
    ck_assert_uint_eq(result.position.epoch, 1);
    ck_assert_uint_eq(result.position.crc, walwriter.last_crc);

    ck_assert_int_eq(nx_state_read_begin(state, &position), 0);
    ck_assert_uint_eq(position.offset, 104);
    ck_assert_uint_eq(position.crc, walwriter.last_crc);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"often", 5, &record), 0);
    ck_assert_uint_eq(record.offset, 101);
    ck_assert_int_eq(memcmp(record.value, "last", record.value_length), 0);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"gone", 4, &record), -ENOENT);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

START_TEST(the_last_operation_on_a_key_in_an_entry_counts)
{
    struct nx_op ops[] = {put_op("a", "1"), delete_op("a"),   put_op("a", "2"),
                          put_op("b", "1"), put_op("b", "2"), delete_op("b")};
    struct nx_state *state = state_open(true);
    struct nx_merge_result result;
    struct nx_record record;
    struct nx_position position;

    log_append(&walwriter, ops, 6);
    log_publish(&walwriter);
    log_seal(&walwriter);
    merge(state, 1, &result);
    ck_assert_int_eq(nx_state_read_begin(state, &position), 0);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"a", 1, &record), 0);
    ck_assert_int_eq(record.value[0], '2');
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"b", 1, &record), -ENOENT);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

START_TEST(the_beginning_of_a_generation_can_be_merged_and_then_the_rest)
{
    struct nx_state *state = state_open(true);
    struct nx_merge_result result;
    struct nx_position position;
    struct nx_record record;

    log_put(&walwriter, "a", "1");   /* 1 */
    log_put(&walwriter, "b", "1");   /* 2 */
    log_put(&walwriter, "a", "2");   /* 3 */
    log_delete(&walwriter, "b");     /* 4 */
    log_put(&walwriter, "new", "4"); /* 5 */
    log_publish(&walwriter);
    log_seal(&walwriter);
    ck_assert_int_eq(nx_merge_generation(shm, state, 1, 2, &result), 0);
    ck_assert_uint_eq(result.position.offset, 2);
    ck_assert_int_eq(nx_state_read_begin(state, &position), 0);
    ck_assert_uint_eq(position.offset, 2);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"a", 1, &record), 0);
    ck_assert_uint_eq(record.offset, 1);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"b", 1, &record), 0);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"new", 3, &record), -ENOENT);
    nx_state_read_end(state);

    merge(state, 1, &result);
    ck_assert_int_eq(nx_state_read_begin(state, &position), 0);
    ck_assert_uint_eq(position.offset, 5);
    ck_assert_uint_eq(position.crc, walwriter.last_crc);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"a", 1, &record), 0);
    ck_assert_uint_eq(record.offset, 3);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"b", 1, &record), -ENOENT);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"new", 3, &record), 0);
    nx_state_read_end(state);
    nx_state_close(state);
}
END_TEST

START_TEST(a_full_map_merges_nothing)
{
    static char value[200000];
    struct nx_state *state = state_open_sized(true, 2u << 20);
    struct nx_merge_result result;

    memset(value, 'v', sizeof value - 1);
    log_put(&walwriter, "small", "v");
    log_publish(&walwriter);
    log_seal(&walwriter);
    merge(state, 1, &result);
    for (int i = 0; i < 20; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "key%d", i);
        log_put(&walwriter, key, value);
    }
    log_publish(&walwriter);
    log_seal(&walwriter);
    ck_assert_int_eq(nx_merge_generation(shm, state, 2, last_of(2), &result), -ENOSPC);
    ck_assert_uint_eq(position_of(state), 1);
    nx_state_close(state);

    /* With a larger one it goes on where it was. */
    state = state_open_sized(true, 32u << 20);
    merge(state, 2, &result);
    ck_assert_uint_eq(position_of(state), 21);
    nx_state_close(state);
}
END_TEST

START_TEST(a_log_that_is_not_what_it_must_be_merges_nothing)
{
    struct nx_state *state = state_open(true);
    struct nx_merge_result result;
    struct iovec runs[2];

    log_put(&walwriter, "a", "value");
    log_put(&walwriter, "b", "value");
    log_publish(&walwriter);
    log_seal(&walwriter);
    ck_assert_int_eq(nx_log_runs(shm, 2, 2, runs), 1);
    ((uint8_t *)runs[0].iov_base)[runs[0].iov_len - 6] ^= 1;
    ck_assert_int_eq(nx_merge_generation(shm, state, 1, last_of(1), &result), -EFAULT);
    ck_assert_uint_eq(position_of(state), 0);
    nx_state_close(state);
}
END_TEST

/* ---- readers beside it ---- */

#define ROUND_KEYS  32
#define ROUNDS      3000 /* a multiple of SEAL_EVERY */
#define READERS     2
#define SEAL_EVERY  60
#define READER_FAIL 3

/* Every entry writes or deletes every key, so that what a reader must find follows from the offset that it
 * reads at: entry n deletes the keys whose number has a bit in common with n % 8. */
static bool lives(uint64_t offset, unsigned key)
{
    return offset > 0 && (offset % 8 & key) == 0;
}

static void key_text(unsigned key, char ret_text[16])
{
    (void)snprintf(ret_text, 16, "key-%04u", key);
}

static void append_round(void)
{
    static char texts[ROUND_KEYS][16];
    struct nx_op ops[ROUND_KEYS];
    uint64_t offset = walwriter.writer.newest + 1;
    char value[32];

    (void)snprintf(value, sizeof value, "value of %llu", (unsigned long long)offset);
    for (unsigned i = 0; i < ROUND_KEYS; i++) {
        key_text(i, texts[i]);
        ops[i] = lives(offset, i) ? put_op(texts[i], value) : delete_op(texts[i]);
    }
    log_append(&walwriter, ops, ROUND_KEYS);
}

static bool item_is_right(uint64_t offset, const struct nx_item *item)
{
    char value[32];
    int n = snprintf(value, sizeof value, "value of %llu", (unsigned long long)offset);

    return item->offset == offset && item->value_length == (size_t)n &&
           memcmp(item->value, value, item->value_length) == 0;
}

struct round_page {
    unsigned next;   /* number of the next key */
    uint64_t offset; /* of the first item */
    bool wrong;
};

static int on_round_item(void *arg, const struct nx_item *item)
{
    struct round_page *page = arg;
    char text[16];

    page->offset = page->offset == 0 ? item->offset : page->offset;
    while (page->next < ROUND_KEYS && !lives(page->offset, page->next)) {
        page->next++;
    }
    key_text(page->next++, text);
    page->wrong = page->wrong || page->next > ROUND_KEYS || !item_is_right(page->offset, item) ||
                  !nx_slice_equal(nx_slice_of(item->key, item->key_length), nx_slice_text(text));
    return 0;
}

/* 1: right; 0: recycled under it; negative: wrong. */
static int read_page(struct nx_view *view, uint64_t *ret_offset)
{
    struct nx_range range = {.want_values = true};
    struct round_page page = {.next = 0};
    uint64_t offset;
    int rc = nx_view_scan(view, &range, on_round_item, &page, &offset);

    if (rc == -EAGAIN) {
        return 0;
    }
    while (page.next < ROUND_KEYS && !lives(offset, page.next)) {
        page.next++;
    }
    if (rc < 0 || page.wrong || (offset > 0 && (page.offset != offset || page.next < ROUND_KEYS))) {
        return -1;
    }
    *ret_offset = offset;
    return 1;
}

static int read_key(struct nx_view *view, unsigned key, uint64_t *ret_offset)
{
    char text[16];
    struct nx_item item;
    uint64_t offset;

    key_text(key, text);
    int rc = nx_view_get(view, (const uint8_t *)text, strlen(text), true, &item, &offset);

    if (rc == -EAGAIN) {
        return 0;
    }
    if ((rc != 0 && rc != -ENOENT) || lives(offset, key) != (rc == 0) ||
        (rc == 0 && !item_is_right(offset, &item))) {
        return -1;
    }
    *ret_offset = offset;
    return 1;
}

/* A process that reads until it has seen the last round; offsets never go back. Its exit status. */
static int read_rounds(void)
{
    struct nx_state *state = state_open(false);
    struct nx_view *view;
    uint64_t seen = 0;
    unsigned long right = 0;

    if (nx_view_create(shm, state, &view) < 0) {
        return READER_FAIL;
    }
    for (unsigned i = 0; seen < ROUNDS; i++) {
        uint64_t offset = seen;
        int rc = i % 4 == 0 ? read_page(view, &offset) : read_key(view, i % ROUND_KEYS, &offset);

        if (rc < 0 || offset < seen) {
            return READER_FAIL;
        }
        right += (unsigned)rc;
        seen = offset;
    }
    nx_view_destroy(view);
    nx_state_close(state);
    return right > 0 ? 0 : READER_FAIL;
}

static void wait_for(pid_t child)
{
    int status;

    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}

START_TEST(readers_see_one_offset_while_generations_are_merged_and_recycled)
{
    pid_t readers[READERS];
    struct nx_merge_result result;
    uint64_t merged = 0;

    for (int i = 0; i < READERS; i++) {
        readers[i] = fork();
        if (readers[i] == 0) {
            _exit(read_rounds());
        }
    }
    struct nx_state *state = state_open(true);

    while (walwriter.writer.newest < ROUNDS) {
        append_round();
        log_publish(&walwriter);
        if (walwriter.writer.newest % SEAL_EVERY == 0) {
            log_seal(&walwriter);
            merge(state, ++merged, &result);
            log_free(&walwriter, merged);
        }
    }
    for (int i = 0; i < READERS; i++) {
        wait_for(readers[i]);
    }
    ck_assert_uint_eq(position_of(state), ROUNDS);
    nx_state_close(state);
}
END_TEST

/* ---- killed ---- */

/* Steps: the system calls by which LMDB changes its file, of one that writes many pages each page. These
 * definitions stand before the C library's. A write can also be killed with half of its bytes written. */
static unsigned steps;
static unsigned kill_at; /* 0: never */
static bool kill_within;

static bool is_last_step(void)
{
    if (kill_at == 0 || ++steps < kill_at) {
        return false;
    }
    if (!kill_within) {
        kill(getpid(), SIGKILL);
    }
    return true;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    bool last = is_last_step();
    long done = syscall(SYS_pwrite64, fd, buf, last ? n / 2 : n, offset);

    if (last) {
        kill(getpid(), SIGKILL);
    }
    return done;
}

ssize_t writev(int fd, const struct iovec *iovec, int count)
{
    ssize_t done = 0;

    for (int i = 0; i < count; i++) {
        bool last = is_last_step();
        size_t n = last ? iovec[i].iov_len / 2 : iovec[i].iov_len;

        done += syscall(SYS_write, fd, iovec[i].iov_base, n);
        if (last) {
            kill(getpid(), SIGKILL);
        }
    }
    return done;
}

int fdatasync(int fildes)
{
    if (is_last_step()) {
        (void)syscall(SYS_fdatasync, fildes);
        kill(getpid(), SIGKILL);
    }
    return (int)syscall(SYS_fdatasync, fildes);
}

#define CRASH_KEYS 1200
#define BIG_VALUE  20000 /* some pages of its own */

/* Two generations: many keys; then a third of them anew, a third deleted, and some that are new. */
static void append_generations(void)
{
    static char big[BIG_VALUE];
    char key[16];

    memset(big, 'b', sizeof big - 1);
    for (unsigned i = 0; i < CRASH_KEYS; i++) {
        key_text(i, key);
        log_put(&walwriter, key, i % 50 == 0 ? big : "old");
    }
    log_publish(&walwriter);
    log_seal(&walwriter);
    for (unsigned i = 0; i < CRASH_KEYS + 20; i++) {
        key_text(i, key);
        if (i % 3 == 1 && i < CRASH_KEYS) {
            log_delete(&walwriter, key);
        } else if (i % 3 == 0 || i >= CRASH_KEYS) {
            log_put(&walwriter, key, i % 60 == 0 ? big : "new");
        }
    }
    log_publish(&walwriter);
    log_seal(&walwriter);
}

/* What the state must hold of a key after the first generation, and after both. */
static char wanted_of(unsigned i, bool both)
{
    if (i >= CRASH_KEYS || (both && i % 3 == 0)) {
        return (char)(!both ? 0 : (i % 60 == 0 ? 'b' : 'n'));
    }
    if (both && i % 3 == 1) {
        return 0;
    }
    return (char)(i % 50 == 0 ? 'b' : 'o');
}

static void assert_state(struct nx_state *state, bool both)
{
    struct nx_position position;
    struct nx_record record;
    char key[16];

    ck_assert_int_eq(nx_state_read_begin(state, &position), 0);
    ck_assert_uint_eq(
        position.offset,
        atomic_load_explicit(&log_generation(both ? 2 : 1)->last_offset, memory_order_relaxed));
    for (unsigned i = 0; i < CRASH_KEYS + 20; i++) {
        char wanted = wanted_of(i, both);

        key_text(i, key);
        int rc = nx_state_get(state, (const uint8_t *)key, strlen(key), &record);

        ck_assert_int_eq(rc, wanted == 0 ? -ENOENT : 0);
        ck_assert(wanted == 0 || record.value[0] == (uint8_t)wanted);
    }
    nx_state_read_end(state);
}

/* In a process of its own: merges the second generation, to the end or to its step. */
static _Noreturn void merge_and_die(unsigned step, bool within)
{
    struct nx_merge_result result;
    struct nx_state *state = state_open(true);

    kill_at = step;
    kill_within = within;
    _exit(nx_merge_generation(shm, state, 2, last_of(2), &result) == 0 ? 0 : 1);
}

/* Kills a merge at a step and repeats it. True: the merge came to its end before that step. */
static bool crash_at(unsigned step, bool within, unsigned *ret_before, unsigned *ret_after)
{
    struct nx_merge_result result;
    int status;

    state_dir_remove();
    state_dir_make();
    struct nx_state *state = state_open(true);

    merge(state, 1, &result);
    nx_state_close(state);
    pid_t child = fork();

    if (child == 0) {
        merge_and_die(step, within);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    bool finished = WIFEXITED(status);

    ck_assert(finished ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
    state = state_open(true);
    bool both = position_of(state) != CRASH_KEYS;

    ck_assert(both || !finished);
    *(both ? ret_after : ret_before) += 1;
    assert_state(state, both);
    /* The next life merges again what isn't published as merged, as often as it likes. */
    merge(state, 2, &result);
    assert_state(state, true);
    nx_state_close(state);
    return finished;
}

START_TEST(a_merge_killed_anywhere_is_whole_or_nothing_and_repeats)
{
    bool within = _i == 1;
    unsigned before = 0;
    unsigned after = 0;
    unsigned step = 1;

    append_generations();
    while (!crash_at(step, within, &before, &after)) {
        step++;
    }
    ck_assert_uint_gt(step, 20); /* pages, their sync, the meta page */
    ck_assert_uint_gt(before, 20);
    ck_assert_uint_ge(after, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("merge");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, only_the_newest_version_of_a_key_arrives);
    tcase_add_test(tcase, the_last_operation_on_a_key_in_an_entry_counts);
    tcase_add_test(tcase, the_beginning_of_a_generation_can_be_merged_and_then_the_rest);
    tcase_add_test(tcase, a_full_map_merges_nothing);
    tcase_add_test(tcase, a_log_that_is_not_what_it_must_be_merges_nothing);
    tcase_add_test(tcase, readers_see_one_offset_while_generations_are_merged_and_recycled);
    tcase_add_loop_test(tcase, a_merge_killed_anywhere_is_whole_or_nothing_and_repeats, 0, 2);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
