/* Configuration files, and values of each key (common/config.h). What a key accepts is printed so that it is read the
 * same again. */
#include "common/config_table.h"
#include "fuzz.h"

static struct nx_config_report report;

static void read_file(const uint8_t *data, size_t size)
{
    struct nx_config config;
    char path[128];
    char words[][16] = {"nexus-server", "-c", "--print-config"};
    char *argv[] = {words[0], words[1], path, words[2], NULL};

    (void)snprintf(path, sizeof path, "%s/conf", fuzz_directory());
    fuzz_write_file(path, data, size);
    if (nx_config_load(&config, 4, argv, &report) < 0) {
        HOLDS(report.error_count > 0 && report.errors[0][0] != '\0');
    }
}

static void read_value(const struct nx_option *option, const char *text)
{
    struct nx_config config;
    struct nx_config again;
    char expected[NX_EXPECTED];
    char printed[NX_PATH_SIZE];
    char twice[NX_PATH_SIZE];

    nx_config_defaults(&config);
    if (nx_option_parse(option, text, &config, expected) < 0) {
        HOLDS(expected[0] != '\0');
        return;
    }
    HOLDS(nx_option_format(option, &config, printed, sizeof printed) < sizeof printed);
    nx_config_defaults(&again);
    HOLDS(nx_option_parse(option, printed, &again, expected) == 0);
    HOLDS(nx_option_format(option, &again, twice, sizeof twice) < sizeof twice);
    HOLDS(strcmp(printed, twice) == 0);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[512];

    if (size < 2) {
        return 0;
    }
    if (data[0] >= NX_CONFIG_KEYS) {
        read_file(data + 1, size - 1);
    } else if (size - 1 < sizeof text) {
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        read_value(&nx_options[data[0]], text);
    }
    return 0;
}
