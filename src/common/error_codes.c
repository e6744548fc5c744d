/* Runs in http workers. The table of error_codes.def, looked up. */
#include "common/error_codes.h"

#include <assert.h>
#include <string.h>

struct row {
    unsigned status;
    const char *name;
    const char *title;
    bool retryable;
};

static const struct row rows[] = {
#define NX_HTTP_ERROR(symbol, status, code, title, retryable) {status, code, title, retryable},
#include "common/error_codes.def"
#undef NX_HTTP_ERROR
};

static const struct row *row_of(enum nx_error error)
{
    assert((size_t)error < sizeof rows / sizeof rows[0]);
    return &rows[error];
}

unsigned nx_error_status(enum nx_error error)
{
    return row_of(error)->status;
}

const char *nx_error_name(enum nx_error error)
{
    return row_of(error)->name;
}

const char *nx_error_title(enum nx_error error)
{
    return row_of(error)->title;
}

bool nx_error_of_name(const char *name, size_t length, enum nx_error *ret_error)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0) {
            *ret_error = (enum nx_error)i;
            return true;
        }
    }
    return false;
}

bool nx_error_retryable(enum nx_error error)
{
    return row_of(error)->retryable;
}
