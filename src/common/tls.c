/* See tls.h. */
#include "common/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Files of one use, as the configuration names them. */
struct files {
    const char *section;
    const char *cert; /* "": none */
    const char *key;
    const char *ca;
    const char *user; /* server.user, whose the key may be */
    bool accepts;
};

/* Where the sentence goes. */
struct failure {
    char text[512];
};

static SSL_CTX *contexts[NX_TLS_USES];

/* ---- what goes wrong ---- */

__attribute__((format(printf, 5, 6))) static int fail(struct failure *failure,
                                                      const struct files *files,
                                                      const char *key,
                                                      const char *path,
                                                      const char *format,
                                                      ...)
{
    int used = snprintf(failure->text, sizeof failure->text, "%s.%s = %.200s: ", files->section,
                        key, path);
    va_list args;

    if (used >= 0 && (size_t)used < sizeof failure->text) {
        va_start(args, format);
        (void)vsnprintf(failure->text + used, sizeof failure->text - (size_t)used, format, args);
        va_end(args);
    }
    ERR_clear_error();
    return -EINVAL;
}

/* ---- files ---- */

/* OpenSSL would wait for who writes into a pipe. */
static int check_regular(const struct files *files,
                         const char *key,
                         const char *path,
                         struct failure *failure)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        return fail(failure, files, key, path, "it can't be opened: %s", strerrordesc_np(errno));
    }
    return S_ISREG(st.st_mode) ? 0 : fail(failure, files, key, path, "it is no regular file");
}

static const char *reason_text(void)
{
    const char *reason = nx_tls_error_text(ERR_peek_error());

    return reason == NULL ? "it can't be read" : reason;
}

/* A key with a passphrase would ask for it on the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's signature */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static int use_key(SSL_CTX *context, const struct files *files, struct failure *failure)
{
    char why[256];
    int fd = nx_secret_open(files->key, files->user, why, sizeof why);
    BIO *bio = fd < 0 ? NULL : BIO_new_fd(fd, BIO_CLOSE);
    EVP_PKEY *key = NULL;
    int rc = 0;

    if (fd < 0) {
        return fail(failure, files, "tls_key_file", files->key, "%s", why);
    }
    if (bio != NULL) {
        key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
        (void)BIO_free(bio);
    } else {
        close(fd);
    }
    if (key == NULL || SSL_CTX_use_PrivateKey(context, key) != 1) {
        rc = fail(
            failure, files, "tls_key_file", files->key,
            "it must hold the private key of tls_cert_file, as PEM and without a passphrase: %s",
            reason_text());
    }
    EVP_PKEY_free(key);
    return rc;
}

static int use_certificate(SSL_CTX *context, const struct files *files, struct failure *failure)
{
    int rc;

    if (files->cert[0] == '\0') {
        return 0;
    }
    rc = check_regular(files, "tls_cert_file", files->cert, failure);
    if (rc < 0) {
        return rc;
    }
    if (SSL_CTX_use_certificate_chain_file(context, files->cert) != 1) {
        return fail(failure, files, "tls_cert_file", files->cert,
                    "it must hold a certificate and those that lead to its authority, as PEM: %s",
                    reason_text());
    }
    return use_key(context, files, failure);
}

static int use_authorities(SSL_CTX *context, const struct files *files, struct failure *failure)
{
    STACK_OF(X509_NAME) * names;
    int rc;

    if (files->ca[0] == '\0') {
        return 0;
    }
    rc = check_regular(files, "tls_ca_file", files->ca, failure);
    if (rc < 0) {
        return rc;
    }
    if (SSL_CTX_load_verify_locations(context, files->ca, NULL) != 1) {
        return fail(failure, files, "tls_ca_file", files->ca,
                    "it must hold the certificates of authorities, as PEM: %s", reason_text());
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    if (files->accepts) {
        names = SSL_load_client_CA_file(files->ca);
        if (names != NULL) {
            SSL_CTX_set_client_CA_list(context, names);
        }
    }
    return 0;
}

/* No tickets and no cache: a session is resumed by a full handshake, which a reload then holds for, too. */
static int make(const struct files *files, SSL_CTX **ret_context, struct failure *failure)
{
    SSL_CTX *context = SSL_CTX_new(files->accepts ? TLS_server_method() : TLS_client_method());
    int rc;

    if (context == NULL) {
        return fail(failure, files, "tls_cert_file", files->cert, "no memory for TLS");
    }
    (void)SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                           SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(context, 0);
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    rc = use_certificate(context, files, failure);
    rc = rc < 0 ? rc : use_authorities(context, files, failure);
    if (rc < 0) {
        SSL_CTX_free(context);
        return rc;
    }
    *ret_context = context;
    return 0;
}

/* ---- all uses ---- */

static void free_all(SSL_CTX *list[NX_TLS_USES])
{
    for (size_t i = 0; i < NX_TLS_USES; i++) {
        SSL_CTX_free(list[i]);
        list[i] = NULL;
    }
}

static int make_all(const struct nx_config *config,
                    SSL_CTX *list[NX_TLS_USES],
                    struct failure *failure)
{
    const char *user = config->server.user;
    struct files http = {.section = "http",
                         .cert = config->http.tls_cert_file,
                         .key = config->http.tls_key_file,
                         .ca = "",
                         .user = user,
                         .accepts = true};
    struct files replication = {.section = "replication",
                                .cert = config->replication.tls_cert_file,
                                .key = config->replication.tls_key_file,
                                .ca = config->replication.tls_ca_file,
                                .user = user,
                                .accepts = true};
    int rc = 0;

    if (http.cert[0] != '\0') {
        struct files ask = {.section = "replication", .cert = "", .key = "", .ca = replication.ca};

        rc = make(&http, &list[NX_TLS_HTTP], failure);
        rc = rc < 0 ? rc : make(&ask, &list[NX_TLS_ASK], failure);
    }
    if (rc == 0 && replication.cert[0] != '\0') {
        rc = make(&replication, &list[NX_TLS_ACCEPT], failure);
        replication.accepts = false;
        rc = rc < 0 ? rc : make(&replication, &list[NX_TLS_DIAL], failure);
    }
    if (rc < 0) {
        free_all(list);
    }
    return rc;
}

int nx_tls_load(const struct nx_config *config, char *error, size_t cap)
{
    struct failure failure;
    SSL_CTX *fresh[NX_TLS_USES] = {NULL};
    int rc = make_all(config, fresh, &failure);

    if (rc == 0) {
        free_all(contexts); /* connections hold what they began with */
        memcpy(contexts, fresh, sizeof contexts);
    } else {
        (void)snprintf(error, cap, "%s", failure.text);
    }
    return rc;
}

#define SOON_DAYS 14

static void day_of(const ASN1_TIME *time, char *text, size_t cap)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(time, &tm) != 1 || strftime(text, cap, "%Y-%m-%d", &tm) == 0) {
        (void)snprintf(text, cap, "another day");
    }
}

/* Tells of one that is out of its time, or soon will be. */
static void tell_age(SSL_CTX *context,
                     const char *key,
                     const char *path,
                     void (*tell)(void *arg, const char *text),
                     void *arg)
{
    const X509 *certificate = context == NULL ? NULL : SSL_CTX_get0_certificate(context);
    const ASN1_TIME *end = certificate == NULL ? NULL : X509_get0_notAfter(certificate);
    const ASN1_TIME *begin = certificate == NULL ? NULL : X509_get0_notBefore(certificate);
    const char *verb = "is good until";
    const char *what = "put a new one there and reload before that";
    char text[512];
    char day[16];
    int days = 0;
    int seconds = 0;

    if (end == NULL || begin == NULL || ASN1_TIME_diff(&days, &seconds, NULL, end) != 1) {
        return;
    }
    if (X509_cmp_current_time(begin) > 0) {
        verb = "is good from";
        what = "who verifies it refuses it until then";
    } else if (days < 0 || seconds < 0) {
        verb = "was good until";
        what = "who verifies it refuses it; put a new one there and reload";
    } else if (days >= SOON_DAYS) {
        return;
    }
    day_of(X509_cmp_current_time(begin) > 0 ? begin : end, day, sizeof day);
    (void)snprintf(text, sizeof text, "%s = %.200s: the certificate %s %s: %s", key, path, verb,
                   day, what);
    tell(arg, text);
}

static void tell_ages(SSL_CTX *list[NX_TLS_USES],
                      const struct nx_config *config,
                      void (*tell)(void *arg, const char *text),
                      void *arg)
{
    tell_age(list[NX_TLS_HTTP], "http.tls_cert_file", config->http.tls_cert_file, tell, arg);
    tell_age(list[NX_TLS_ACCEPT], "replication.tls_cert_file", config->replication.tls_cert_file,
             tell, arg);
}

void nx_tls_tell_ages(const struct nx_config *config,
                      void (*tell)(void *arg, const char *text),
                      void *arg)
{
    tell_ages(contexts, config, tell, arg);
}

int nx_tls_check(const struct nx_config *config,
                 char *error,
                 size_t cap,
                 void (*tell)(void *arg, const char *text),
                 void *arg)
{
    struct failure failure;
    SSL_CTX *fresh[NX_TLS_USES] = {NULL};
    int rc = make_all(config, fresh, &failure);

    if (rc < 0) {
        (void)snprintf(error, cap, "%s", failure.text);
    } else {
        tell_ages(fresh, config, tell, arg);
    }
    free_all(fresh);
    return rc;
}

/* ---- connections ---- */

bool nx_tls_on(enum nx_tls_use use)
{
    return contexts[use] != NULL;
}

/* Whose certificate it must be; that is looked at where authorities are set. */
static bool expect_host(SSL *tls, const char *host)
{
    struct in6_addr address;
    char name[256];
    bool digits =
        inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;

    if (digits) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host) == 1;
    }
    (void)snprintf(name, sizeof name, "%s", host);
    return SSL_set_tlsext_host_name(tls, name) == 1 && SSL_set1_host(tls, name) == 1;
}

/* Dates are judged when the handshake is finished (nx_tls_out_of_time): the verdict stays what it is. */
static int let_dates_pass(int good, X509_STORE_CTX *chain)
{
    int error = X509_STORE_CTX_get_error(chain);

    return good == 1 || error == X509_V_ERR_CERT_HAS_EXPIRED ||
           error == X509_V_ERR_CERT_NOT_YET_VALID;
}

struct ssl_st *nx_tls_begin(enum nx_tls_use use, int fd, const char *host)
{
    SSL *tls = SSL_new(contexts[use]);

    if (tls == NULL || (fd >= 0 && SSL_set_fd(tls, fd) != 1) ||
        (host != NULL && !expect_host(tls, host))) {
        SSL_free(tls);
        ERR_clear_error();
        return NULL;
    }
    if (use == NX_TLS_DIAL) {
        SSL_set_verify(tls, SSL_get_verify_mode(tls), let_dates_pass);
    }
    if (host != NULL) {
        SSL_set_connect_state(tls);
    } else {
        SSL_set_accept_state(tls);
    }
    return tls;
}
