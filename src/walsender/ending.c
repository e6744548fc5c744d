/* Why a conversation is over: noted by any part of the walsender, acted on by its loop. Runs in
 * walsenders; owns nothing. */
#include "walsender/walsender.h"

#include <stdarg.h>
#include <stdio.h>

void nx_walsender_end(struct nx_walsender *ws,
                      enum nx_ending_kind kind,
                      uint32_t code,
                      const char *format,
                      ...)
{
    va_list args;

    if (nx_walsender_ended(ws)) {
        return;
    }
    ws->ending.kind = kind;
    ws->ending.code = code;
    va_start(args, format);
    (void)vsnprintf(ws->ending.text, sizeof ws->ending.text, format, args);
    va_end(args);
}
