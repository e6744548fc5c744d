/* The codes of problem documents (RFC 9457) and what goes with each, from error_codes.def. */
#ifndef NX_COMMON_ERROR_CODES_H
#define NX_COMMON_ERROR_CODES_H

#include <stdbool.h>
#include <stddef.h>

enum nx_error {
#define NX_HTTP_ERROR(symbol, status, code, title, retryable) NX_ERROR_##symbol,
#include "common/error_codes.def"
#undef NX_HTTP_ERROR
    NX_ERROR_COUNT
};

/* HTTP status: 400 to 599. */
unsigned nx_error_status(enum nx_error error);

/* The member `code`: "key_not_found". Static. */
const char *nx_error_name(enum nx_error error);

/* The member `title`: "Key not found". Static. */
const char *nx_error_title(enum nx_error error);

/* The code of a name that `length` bytes spell. False: there is none. */
bool nx_error_of_name(const char *name, size_t length, enum nx_error *ret_error);

/* The same request may well succeed a moment later. */
bool nx_error_retryable(enum nx_error error);

#endif
