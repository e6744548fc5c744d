/* When a long read of the state gives way to writes. */
#include "http/hold.h"

#include <check.h>

#include <stdatomic.h>
#include <stdlib.h>

#define SINCE 1000
#define LATER (SINCE + 60000)

START_TEST(it_gives_way_to_writes_alone)
{
    static const struct {
        const char *name;
        uint64_t now_ms;
        uint64_t failures;
        enum nx_disk_state disk;
        uint64_t merged; /* the state that is read is at 7 */
        uint64_t room;   /* in the map; none is of itself no reason */
        bool ends;
    } cases[] = {
        {"nothing is wrong", LATER, 0, NX_DISK_OK, 9, 0, false},
        {"a merge found no room", LATER, 1, NX_DISK_OK, 9, 0, true},
        {"... the first one", LATER, 3, NX_DISK_OK, 7, 0, true},
        {"... but it is a short one", SINCE + 1000, 1, NX_DISK_OK, 9, 0, false},
        {"... or has just begun", SINCE, 1, NX_DISK_FULL, 9, 0, false},
        {"a merge failed otherwise", LATER, 1, NX_DISK_OK, 9, 4096, false},
        {"the state grows on a full disk", LATER, 0, NX_DISK_FULL, 8, 0, true},
        {"... but it is a short one", SINCE + 1000, 0, NX_DISK_FULL, 8, 0, false},
        {"the disk is full, and nothing is merged", LATER, 0, NX_DISK_FULL, 7, 0, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hold hold = {.since_ms = SINCE, .offset = 7};
        struct nx_checkpoint_state checkpoint;

        atomic_init(&checkpoint.failures, cases[i].failures);
        atomic_init(&checkpoint.disk_state, (uint32_t)cases[i].disk);
        atomic_init(&checkpoint.checkpoint_offset, cases[i].merged);
        atomic_init(&checkpoint.map_free, cases[i].room);
        ck_assert_msg((nx_hold_harms(&checkpoint, &hold, cases[i].now_ms) != NULL) == cases[i].ends,
                      "%s", cases[i].name);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_hold");
    TCase *tcase = tcase_create("hold");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tcase, it_gives_way_to_writes_alone);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
