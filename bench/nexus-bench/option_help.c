/* What --help shows. */
#include "nexus-bench/option_table.h"

#include <stdio.h>
#include <string.h>

#define HELP_COLUMN 28

static void help_row(const char *name, const char *value, const char *help)
{
    int width = printf("  %s %s", name, value == NULL ? "" : value);

    if (width >= HELP_COLUMN) {
        (void)printf("\n");
        width = 0;
    }
    for (; *help != '\0'; help += *help == '\n') {
        size_t line = strcspn(help, "\n");

        (void)printf("%*s%.*s\n", HELP_COLUMN - width, "", (int)line, help);
        help += line;
        width = 0;
    }
}

void bench_options_help(void)
{
    (void)printf("nexus-bench: puts a load on a server, and tells what became of it\n\n"
                 "  nexus-bench [options]\n\n");
    for (size_t i = 0; i < bench_option_count; i++) {
        help_row(bench_option_table[i].name, bench_option_table[i].value,
                 bench_option_table[i].help);
    }
    (void)printf("\nOperations of --mix:\n");
#define BENCH_OPERATION(symbol, name, help) help_row(name, NULL, help);
#include "nexus-bench/operations.def"
#undef BENCH_OPERATION
    (void)printf(
        "\n"
        "Operations are keys: an import is as many as its batch has. Latencies are those of good answers.\n"
        "A get that finds no key is an error, unless the mix deletes some. A server that says nothing\n"
        "for 60 seconds ends the run, and so does a value that --lag waits for as long.\n"
        "Exit status: 0 when every answer was good, 1 when some weren't or the server went away,\n"
        "2 when the options are wrong.\n");
}
