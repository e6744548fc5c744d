/* Small files of lines "<key> = <value>\n" in a fixed order, of which the last is the CRC of all bytes
 * before it: data-N/identity, what is known of a snapshot, pins. Blocking; no state. Private to
 * src/storage. */
#ifndef NX_STORAGE_LINES_H
#define NX_STORAGE_LINES_H

#include <stddef.h>
#include <stdint.h>

#define NX_LINES_MAX 4096 /* bytes of such a file, and NUL, where it has a few lines */

/* A line whose value is a decimal number. */
struct nx_line_number {
    const char *key;
    uint64_t most; /* larger ones are damage */
    uint64_t *ret_value;
};

/* The value of the line "<key> = <value>\n" with which *text begins; *text goes on behind it. 0 or
 * -EBADMSG. */
int nx_line_take(const char **text, const char *key, char *ret_value, size_t cap);

/* The same for lines of numbers, one after the other. 0 or -EBADMSG. */
int nx_line_take_numbers(const char **text, const struct nx_line_number *numbers, size_t count);

/* Reads a file of less than cap bytes; ret_text is its lines without the last one. 0; -ENOENT; -EBADMSG:
 * damaged, or larger; or -errno. */
int nx_lines_read(int dir_fd, const char *name, char *ret_text, size_t cap);

/* Puts the CRC line behind `text`, which has room for it in its cap bytes. Returns the length. */
size_t nx_lines_seal(char *text, size_t cap);

/* Seals `text` and replaces the file with it, durably. 0, or -errno with the old file in place. */
int nx_lines_write(int dir_fd, const char *name, char *text, size_t cap);

#endif
