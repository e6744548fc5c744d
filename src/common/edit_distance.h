/* How far a mistyped name is from a known one. */
#ifndef NX_COMMON_EDIT_DISTANCE_H
#define NX_COMMON_EDIT_DISTANCE_H

#include <stddef.h>

#define NX_EDIT_LONGEST 63 /* what is behind so many characters isn't compared */

/* Levenshtein distance of two names: insertions, deletions and changes, letters in any case. */
unsigned nx_edit_distance(const char *a, const char *b);

#endif
