/* Exports that wait for the checkpointer. */
#ifndef NX_HTTP_EXPORT_H
#define NX_HTTP_EXPORT_H

#include <stdbool.h>

struct http_worker;

/* Looks whether the state has come as far as the waiting exports need, and begins those. True when it
 * began any. */
bool nx_exports_poll(struct http_worker *worker);

/* Whether that would begin one. */
bool nx_exports_due(const struct http_worker *worker);

#endif
