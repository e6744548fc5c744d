/* Replacing the node's data: before the commit point the old one counts, behind it the new one. */
#include "storage/data_dir.h"
#include "storage/file_io.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST  "550e8400-e29b-41d4-a716-446655440000"
#define SECOND "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
#define THIRD  "6ba7b811-9dad-41d1-80b4-00c04fd430c8"

static char top[64];
static struct nx_data_dir dir;
static char root[NX_PATH_SIZE]; /* what was prepared */
static char error[512];

static const char *in_top(const char *name)
{
    static char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", top, name);
    return path;
}

static bool there(const char *name)
{
    return faccessat(AT_FDCWD, in_top(name), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void write_text(const char *name, const char *text)
{
    ck_assert_int_eq(nx_file_replace(in_top(name), text, strlen(text), 0600), 0);
}

static void make_dir(const char *name)
{
    ck_assert_int_eq(mkdir(in_top(name), 0700), 0);
}

/* The data directory opens, and this is its data. */
static void open_with(const char *name, const char *cluster_id)
{
    int rc;

    nx_data_dir_close(&dir);
    rc = nx_data_dir_open(top, &dir, error, sizeof error);
    ck_assert_msg(rc == 0, "%d: %s", rc, error);
    ck_assert_str_eq(strrchr(dir.root, '/') + 1, name);
    ck_assert_str_eq(dir.identity.cluster_id, cluster_id);
}

static void setup(void)
{
    struct nx_identity identity = {.cluster_id = FIRST};

    (void)snprintf(top, sizeof top, "/tmp/nexus-switch-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    dir.lock_fd = -1;
    open_with("data-1", "");
    ck_assert_int_eq(nx_identity_store(&dir, &identity), 0);
    write_text("data-1/state/data.mdb", "of the first");
}

static void teardown(void)
{
    nx_data_dir_close(&dir);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, top), 0);
}

static void prepare(const char *name)
{
    ck_assert_int_eq(nx_data_dir_prepare(top, dir.root, root), 0);
    ck_assert_str_eq(root, in_top(name));
}

static int switch_to(const char *name, const char *cluster_id)
{
    struct nx_identity identity = {.replica_count = 0};

    memset(error, 0, sizeof error);
    (void)snprintf(identity.cluster_id, sizeof identity.cluster_id, "%s", cluster_id);
    return nx_data_dir_switch(&dir, name, &identity, error, sizeof error);
}

/* ---- filling ---- */

START_TEST(the_number_behind_the_one_in_use_is_filled)
{
    struct stat st;

    prepare("data-2");
    ck_assert_int_eq(stat(root, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    ck_assert(there("data-2/wal") && there("data-2/state") && !there("data-2/identity"));
    ck_assert(there("data-1/state/data.mdb"));
}
END_TEST

START_TEST(what_an_earlier_one_has_filled_is_removed)
{
    prepare("data-2");
    write_text("data-2/state/data.mdb", "half-made");
    make_dir("data-7");
    write_text("data-7/x", "x");
    make_dir("data-x");
    make_dir("data-02");
    make_dir("replaced-9");
    make_dir("snapshots");
    prepare("data-2");
    ck_assert(there("data-2/state") && !there("data-2/state/data.mdb"));
    ck_assert(!there("data-7"));
    ck_assert(there("data-x") && there("data-02") && there("replaced-9") && there("snapshots"));
    ck_assert(there("data-1/state/data.mdb") && there("nexus.id") && there("current"));
}
END_TEST

START_TEST(what_was_prepared_does_not_count)
{
    prepare("data-2");
    write_text("data-2/state/data.mdb", "whole");
    open_with("data-1", FIRST);
    ck_assert(!there("data-2"));
}
END_TEST

START_TEST(what_was_prepared_is_discarded)
{
    prepare("data-2");
    write_text("data-2/state/data.mdb", "whole");
    ck_assert_int_eq(nx_data_dir_discard(top, root), 0);
    ck_assert(!there("data-2") && there("data-1/state/data.mdb"));
    ck_assert_int_eq(nx_data_dir_discard(top, root), 0);
    ck_assert_int_eq(nx_data_dir_discard(top, ""), 0);
    ck_assert(there("data-1/state/data.mdb"));
}
END_TEST

START_TEST(a_root_that_is_none_prepares_nothing)
{
    static const char *const roots[] = {"", "/", "/x/data-", "/x/data-01", "/x/data-1/", "current"};

    make_dir("data-5");
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        ck_assert_int_eq(nx_data_dir_prepare(top, roots[i], root), -EINVAL);
    }
    ck_assert(there("data-5") && there("data-1"));
}
END_TEST

START_TEST(a_directory_that_is_missing_is_told)
{
    char missing[128];

    (void)snprintf(missing, sizeof missing, "%s/no", top);
    ck_assert_int_eq(nx_data_dir_prepare(missing, dir.root, root), -ENOENT);
    ck_assert_int_eq(nx_data_dir_discard(missing, "/x/data-2"), -ENOENT);
    ck_assert_int_eq(nx_data_dir_tidy(missing), -ENOENT);
}
END_TEST

/* ---- the switch ---- */

START_TEST(the_new_one_is_the_node_s_data)
{
    char node_id[NX_UUID_TEXT];
    char target[64] = "";

    memcpy(node_id, dir.node_id, sizeof node_id);
    prepare("data-2");
    write_text("data-2/state/data.mdb", "of the second");
    ck_assert_int_eq(switch_to("data-2", SECOND), 0);
    ck_assert_str_eq(dir.root, root);
    ck_assert_str_eq(dir.identity.cluster_id, SECOND);
    ck_assert_int_eq(readlink(in_top("current"), target, sizeof target - 1), 6);
    ck_assert_str_eq(target, "data-2");
    ck_assert(!there("current.tmp") && !there("data-2/identity.tmp"));
    open_with("data-2", SECOND);
    ck_assert_str_eq(dir.node_id, node_id);
    ck_assert(there("data-2/state/data.mdb"));
}
END_TEST

START_TEST(the_one_before_is_put_aside_and_tidied)
{
    prepare("data-2");
    ck_assert_int_eq(switch_to("data-2", SECOND), 0);
    ck_assert(!there("data-1"));
    ck_assert(there("replaced-1/state/data.mdb"));
    make_dir("replaced-x");
    make_dir("data-3");
    ck_assert_int_eq(nx_data_dir_tidy(top), 1);
    ck_assert(!there("replaced-1") && !there("replaced-x"));
    ck_assert(there("data-2/state") && there("data-3") && there("nexus.id"));
    ck_assert_int_eq(nx_data_dir_tidy(top), 0);
}
END_TEST

START_TEST(what_was_not_tidied_is_removed_at_the_next_start)
{
    prepare("data-2");
    ck_assert_int_eq(switch_to("data-2", SECOND), 0);
    open_with("data-2", SECOND);
    ck_assert(!there("replaced-1"));
}
END_TEST

START_TEST(links_in_what_is_removed_are_not_followed)
{
    prepare("data-2");
    ck_assert_int_eq(symlink("/etc", in_top("data-1/state/link")), 0);
    ck_assert_int_eq(switch_to("data-2", SECOND), 0);
    ck_assert_int_eq(nx_data_dir_tidy(top), 1);
    ck_assert(!there("replaced-1"));
    ck_assert_int_eq(access("/etc/passwd", F_OK), 0);
}
END_TEST

/* _i: whether the first was tidied in between. */
START_TEST(it_can_be_done_again)
{
    prepare("data-2");
    ck_assert_int_eq(switch_to("data-2", SECOND), 0);
    if (_i > 0) {
        ck_assert_int_eq(nx_data_dir_tidy(top), 1);
    }
    prepare("data-3");
    ck_assert(there("data-2/state"));
    ck_assert_int_eq(switch_to("data-3", THIRD), 0);
    ck_assert(!there("data-1") && !there("data-2"));
    ck_assert(there("replaced-2/identity"));
    ck_assert_int_eq(there("replaced-1"), _i == 0);
    open_with("data-3", THIRD);
    ck_assert(!there("replaced-1") && !there("replaced-2"));
}
END_TEST

START_TEST(leftovers_of_one_that_was_cut_off_do_no_harm)
{
    ck_assert_int_eq(symlink("data-9", in_top("current.tmp")), 0);
    make_dir("replaced-1");
    write_text("replaced-1/x", "x");
    prepare("data-2");
    write_text("data-2/identity", "damaged");
    ck_assert_int_eq(switch_to("data-2", SECOND), 0);
    open_with("data-2", SECOND);
    ck_assert(!there("current.tmp") && !there("replaced-1") && !there("data-1"));
}
END_TEST

START_TEST(a_cluster_id_may_be_missing)
{
    prepare("data-2");
    ck_assert_int_eq(switch_to("data-2", ""), 0);
    open_with("data-2", "");
}
END_TEST

/* ---- what fails ---- */

static void nothing_has_changed(void)
{
    ck_assert_ptr_nonnull(strstr(error, "can't be made the node's data"));
    ck_assert_str_eq(dir.root, in_top("data-1"));
    ck_assert_str_eq(dir.identity.cluster_id, FIRST);
    open_with("data-1", FIRST);
    ck_assert(there("data-1/state/data.mdb"));
}

START_TEST(a_root_that_is_missing_changes_nothing)
{
    ck_assert_int_eq(switch_to("data-2", SECOND), -ENOENT);
    nothing_has_changed();
}
END_TEST

START_TEST(a_root_that_is_a_link_changes_nothing)
{
    make_dir("elsewhere");
    ck_assert_int_eq(symlink("elsewhere", in_top("data-2")), 0);
    ck_assert_int_lt(switch_to("data-2", SECOND), 0);
    ck_assert(!there("elsewhere/identity"));
    nothing_has_changed();
}
END_TEST

START_TEST(an_identity_that_cannot_be_changes_nothing)
{
    prepare("data-2");
    ck_assert_int_eq(switch_to("data-2", "no uuid"), -EINVAL);
    nothing_has_changed();
}
END_TEST

START_TEST(a_current_that_cannot_be_replaced_changes_nothing)
{
    prepare("data-2");
    make_dir("current.tmp");
    ck_assert_int_lt(switch_to("data-2", SECOND), 0);
    nothing_has_changed();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("data_switch");
    TCase *tcase = tcase_create("switching");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_number_behind_the_one_in_use_is_filled);
    tcase_add_test(tcase, what_an_earlier_one_has_filled_is_removed);
    tcase_add_test(tcase, what_was_prepared_does_not_count);
    tcase_add_test(tcase, what_was_prepared_is_discarded);
    tcase_add_test(tcase, a_root_that_is_none_prepares_nothing);
    tcase_add_test(tcase, a_directory_that_is_missing_is_told);
    tcase_add_test(tcase, the_new_one_is_the_node_s_data);
    tcase_add_test(tcase, the_one_before_is_put_aside_and_tidied);
    tcase_add_test(tcase, what_was_not_tidied_is_removed_at_the_next_start);
    tcase_add_test(tcase, links_in_what_is_removed_are_not_followed);
    tcase_add_loop_test(tcase, it_can_be_done_again, 0, 2);
    tcase_add_test(tcase, leftovers_of_one_that_was_cut_off_do_no_harm);
    tcase_add_test(tcase, a_cluster_id_may_be_missing);
    tcase_add_test(tcase, a_root_that_is_missing_changes_nothing);
    tcase_add_test(tcase, a_root_that_is_a_link_changes_nothing);
    tcase_add_test(tcase, an_identity_that_cannot_be_changes_nothing);
    tcase_add_test(tcase, a_current_that_cannot_be_replaced_changes_nothing);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
