/* Runs anywhere. A pure function. */
#include "common/edit_distance.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

static bool same(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Turns the row for the characters before `c` into the row that has it too. */
static void next_row(unsigned *row, char c, const char *b, size_t b_length)
{
    unsigned diagonal = row[0]++;

    for (size_t j = 1; j <= b_length; j++) {
        unsigned change = diagonal + (same(c, b[j - 1]) ? 0 : 1);

        diagonal = row[j];
        row[j] = smaller(change, smaller(row[j], row[j - 1]) + 1);
    }
}

unsigned nx_edit_distance(const char *a, const char *b)
{
    unsigned row[NX_EDIT_LONGEST + 1];
    size_t b_length = strnlen(b, NX_EDIT_LONGEST);
    size_t a_length = strnlen(a, NX_EDIT_LONGEST);

    for (size_t j = 0; j <= b_length; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 0; i < a_length; i++) {
        next_row(row, a[i], b, b_length);
    }
    return row[b_length];
}
