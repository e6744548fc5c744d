/* The least that an HTTP server in this project's event library can do. */
#include "limits.h"

#include <event2/event.h>
#include <event2/http.h>

static void answer(struct evhttp_request *request, void *context)
{
    (void)context;
    evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

void serve_nothing(uint16_t port)
{
    struct event_base *base = event_base_new();
    struct evhttp *http = base == NULL ? NULL : evhttp_new(base);

    if (http == NULL) {
        fail("libevent");
    }
    if (evhttp_bind_socket(http, "127.0.0.1", port) != 0) {
        fail("the port");
    }
    evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT);
    evhttp_set_gencb(http, answer, NULL);
    event_base_dispatch(base);
    evhttp_free(http);
    event_base_free(base);
}
