/* Files of lines under a CRC. Runs in every process that has such a file; it owns nothing beyond a
 * call. */
#include "storage/lines.h"

#include "common/crc32.h"
#include "storage/file_io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CRC_LINE      "crc32 = %08" PRIx32 "\n"
#define CRC_LINE_SIZE 17
#define NUMBER_SIZE   21 /* 20 digits and NUL */

int nx_line_take(const char **text, const char *key, char *ret_value, size_t cap)
{
    size_t skip = strlen(key);
    const char *end = strchr(*text, '\n');
    const char *value;

    if (end == NULL || strncmp(*text, key, skip) != 0 || strncmp(*text + skip, " = ", 3) != 0) {
        return -EBADMSG;
    }
    value = *text + skip + 3;
    if (value > end || (size_t)(end - value) >= cap) {
        return -EBADMSG;
    }
    memcpy(ret_value, value, (size_t)(end - value));
    ret_value[end - value] = '\0';
    *text = end + 1;
    return 0;
}

/* Digits alone, at least one. */
static int parse_number(const char *text, uint64_t most, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (*text == '\0') {
        return -EBADMSG;
    }
    for (const char *p = text; *p != '\0'; p++) {
        uint64_t digit = (uint64_t)(unsigned char)*p - '0';

        if (digit > 9 || value > (UINT64_MAX - digit) / 10) {
            return -EBADMSG;
        }
        value = value * 10 + digit;
    }
    if (value > most) {
        return -EBADMSG;
    }
    *ret_value = value;
    return 0;
}

int nx_line_take_numbers(const char **text, const struct nx_line_number *numbers, size_t count)
{
    char value[NUMBER_SIZE];

    for (size_t i = 0; i < count; i++) {
        if (nx_line_take(text, numbers[i].key, value, sizeof value) < 0 ||
            parse_number(value, numbers[i].most, numbers[i].ret_value) < 0) {
            return -EBADMSG;
        }
    }
    return 0;
}

int nx_lines_read(int dir_fd, const char *name, char *ret_text, size_t cap)
{
    char crc_line[CRC_LINE_SIZE + 1];
    size_t length;
    int rc = nx_file_read_text(dir_fd, name, ret_text, cap);

    if (rc < 0) {
        return rc == -E2BIG ? -EBADMSG : rc;
    }
    length = strlen(ret_text);
    if (length < CRC_LINE_SIZE) {
        return -EBADMSG;
    }
    length -= CRC_LINE_SIZE;
    (void)snprintf(crc_line, sizeof crc_line, CRC_LINE, nx_crc32(0, ret_text, length));
    if (strcmp(ret_text + length, crc_line) != 0) {
        return -EBADMSG;
    }
    ret_text[length] = '\0';
    return 0;
}

size_t nx_lines_seal(char *text, size_t cap)
{
    size_t length = strlen(text);

    (void)snprintf(text + length, cap - length, CRC_LINE, nx_crc32(0, text, length));
    return length + CRC_LINE_SIZE;
}

int nx_lines_write(int dir_fd, const char *name, char *text, size_t cap)
{
    return nx_file_replace_at(dir_fd, name, text, nx_lines_seal(text, cap), 0600);
}
