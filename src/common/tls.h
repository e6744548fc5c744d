/* TLS (OpenSSL 3, TLS 1.2 and later): of the HTTP interface, and of the replication stream in both directions. The
 * postmaster loads certificates and keys before it forks, so that children inherit them; each process loads them anew
 * when it is told of a reload. A connection keeps what it began with. */
#ifndef NX_COMMON_TLS_H
#define NX_COMMON_TLS_H

#include "common/config.h"

#include <stdbool.h>
#include <stddef.h>

struct ssl_st;

/* What a connection is for. */
enum nx_tls_use {
    NX_TLS_HTTP,   /* a client's, accepted: http.tls_cert_file */
    NX_TLS_ASK,    /* to another node's HTTP interface */
    NX_TLS_ACCEPT, /* a replica's, accepted: replication.tls_cert_file */
    NX_TLS_DIAL,   /* to a master */
    NX_TLS_USES
};

/* Loads what the configuration names, in the place of what was loaded before. 0; or a negative errno, the old is kept,
 * and error (cap bytes) has the key, its file, what is wrong and what to do. */
int nx_tls_load(const struct nx_config *config, char *error, size_t cap);

/* Only looks whether that would succeed. Then it tells, in a sentence each, which certificates are out of their time, or
 * will be within two weeks: that is no reason not to start. */
int nx_tls_check(const struct nx_config *config,
                 char *error,
                 size_t cap,
                 void (*tell)(void *arg, const char *text),
                 void *arg);

/* Tells the same of those that are loaded. */
void nx_tls_tell_ages(const struct nx_config *config,
                      void (*tell)(void *arg, const char *text),
                      void *arg);

/* Whether connections of that use are TLS. */
bool nx_tls_on(enum nx_tls_use use);

/* TLS for a socket, still to be shaken hands on. host: whom it was dialled as, a name or an address, which its
 * certificate must be for where authorities are set; of accepted ones NULL. The caller frees it with SSL_free; fd -1:
 * the caller attaches the socket. NULL: no memory. */
struct ssl_st *nx_tls_begin(enum nx_tls_use use, int fd, const char *host);

/* Whether the handshake that is finished was with a certificate that is out of its time, and has no other fault. Dates
 * alone don't end the handshake with a master (NX_TLS_DIAL): its end proves that the other side has the certificate's
 * key, so it is the master that lives and not who replays what anybody can see. No byte of it may be taken, and none but a
 * farewell pass to it. */
bool nx_tls_out_of_time(const struct ssl_st *tls);

/* Whether it is the other side's word that it doesn't accept our certificate. error: as below. */
bool nx_tls_is_refusal(unsigned long error);

/* What went wrong on a connection, in words. tls: NULL where no certificate is verified. error: the first of OpenSSL's
 * list of errors (ERR_peek_error), 0: none. Empties that list. Returns buf. */
const char *nx_tls_reason(enum nx_tls_use use,
                          const struct ssl_st *tls,
                          unsigned long error,
                          char *buf,
                          size_t cap);

/* OpenSSL's words for an error, or the system's where it is one of those; NULL: it has none. */
const char *nx_tls_error_text(unsigned long error);

#endif
