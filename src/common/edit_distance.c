/* Runs anywhere. A pure function. */
#include "common/edit_distance.h"

#include <ctype.h>
#include <string.h>

unsigned nx_edit_distance(const char *a, const char *b)
{
    unsigned row[NX_EDIT_LONGEST + 1];
    size_t b_length = strnlen(b, NX_EDIT_LONGEST);
    size_t a_length = strnlen(a, NX_EDIT_LONGEST);

    for (size_t j = 0; j <= b_length; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            int same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            unsigned change = diagonal + (same ? 0 : 1);
            unsigned insert = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

            diagonal = row[j];
            row[j] = change < insert ? change : insert;
        }
    }
    return row[b_length];
}
