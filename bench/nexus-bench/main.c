/* nexus-bench: puts a load on a key-value server, and tells how fast it was. See options.def. It shares the machine
 * with what it measures, so it is made to be cheap: nothing is allocated or formatted for a request. */
#include "nexus-bench/options.h"
#include "nexus-bench/probe.h"
#include "nexus-bench/report.h"
#include "nexus-bench/run.h"
#include "nexus_version.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
    EXIT_TROUBLE = 1,
    EXIT_USAGE = 2
};

static struct bench_options options;
static struct bench_run run = {.options = &options};

static atomic_bool interrupted;

static void on_signal(int number)
{
    (void)number;
    atomic_store_explicit(&interrupted, true, memory_order_relaxed);
    atomic_store_explicit(&run.stop, true, memory_order_relaxed);
}

/* Ctrl-C ends a run early, and what was done is told. */
static void handle_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static int look_up_all(char *error, size_t cap)
{
    int rc = options.probe ? bench_target_look_up(&options.lag, error, cap) : 0;

    for (size_t i = 0; rc == 0 && i < options.target_count; i++) {
        rc = bench_target_look_up(&options.targets[i], error, cap);
    }
    return rc;
}

static void print(FILE *file, const struct text *text)
{
    if (text->length > 0) {
        (void)fwrite(text->data, 1, text->length, file);
    }
    (void)fflush(file);
}

static int show(struct bench_results *results)
{
    struct text text = {.data = NULL};
    struct text trouble = {.data = NULL};
    bool troubled;

    if (atomic_load_explicit(&interrupted, memory_order_relaxed) && results->gone[0] == '\0') {
        (void)snprintf(results->gone, sizeof results->gone, "stopped by a signal");
    }
    troubled = bench_report_trouble(&trouble, results);
    if (options.json) {
        bench_report_json(&text, &options, results);
    } else {
        bench_report_text(&text, &options, results);
    }
    print(stdout, &text);
    print(stderr, &trouble);
    nx_text_free(&text);
    nx_text_free(&trouble);
    return troubled ? EXIT_TROUBLE : 0;
}

static int run_and_show(void)
{
    struct bench_results *results = calloc(1, sizeof *results);
    char error[BENCH_ERROR_SIZE] = "memory is short";
    int status = EXIT_TROUBLE;

    if (results != NULL && look_up_all(error, sizeof error) == 0 &&
        (options.probe ? bench_probe : bench_run)(&run, results, error, sizeof error) == 0) {
        status = show(results);
    } else {
        (void)fprintf(stderr, "nexus-bench: %s; nothing was done\n", error);
    }
    free(results);
    return status;
}

/* Whatever the options lead to. */
static int act(char *error, size_t cap)
{
    switch (options.action) {
    case BENCH_HELP:
        bench_options_help();
        return 0;
    case BENCH_VERSION:
        (void)printf("nexus-bench %s\n", NEXUS_VERSION);
        return 0;
    case BENCH_RUN:
        break;
    }
    if (options.token_file != NULL &&
        nx_token_read(options.token_file, "", options.token, error, cap) < 0) {
        (void)fprintf(stderr, "nexus-bench: --token-file %s: %s\n", options.token_file, error);
        return EXIT_USAGE;
    }
    if (!options.seeded && getrandom(&options.seed, sizeof options.seed, 0) < 0) {
        options.seed = 1;
    }
    handle_signals();
    return run_and_show();
}

int main(int argc, char **argv)
{
    char error[BENCH_ERROR_SIZE];

    if (bench_options_parse(argc, argv, &options, error, sizeof error) < 0) {
        (void)fprintf(stderr, "nexus-bench: %s\n", error);
        return EXIT_USAGE;
    }
    return act(error, sizeof error);
}
