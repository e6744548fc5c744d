/* What goes wrong with TLS, in words that name what to set. See tls.h. */
#include "common/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

static const char *const cert_keys[NX_TLS_USES] = {
    [NX_TLS_HTTP] = "http.tls_cert_file",
    [NX_TLS_ASK] = "http.tls_cert_file",
    [NX_TLS_ACCEPT] = "replication.tls_cert_file",
    [NX_TLS_DIAL] = "replication.tls_cert_file",
};

const char *nx_tls_error_text(unsigned long error)
{
    if (error == 0) {
        return NULL;
    }
    return ERR_SYSTEM_ERROR(error) ? strerrordesc_np(ERR_GET_REASON(error))
                                   : ERR_reason_error_string(error);
}

/* What is wrong with the other side's certificate, where that matters; else NULL. */
static const char *certificate_fault(const SSL *tls)
{
    bool matters = tls != NULL && (SSL_get_verify_mode(tls) & SSL_VERIFY_PEER) != 0;
    long verdict = matters ? SSL_get_verify_result(tls) : X509_V_OK;

    return verdict == X509_V_OK ? NULL : X509_verify_cert_error_string(verdict);
}

static bool is_not_tls(int code)
{
    return code == SSL_R_HTTP_REQUEST || code == SSL_R_WRONG_VERSION_NUMBER ||
           code == SSL_R_UNKNOWN_PROTOCOL || code == SSL_R_PACKET_LENGTH_TOO_LONG;
}

/* The other side's last word, of our certificate or of none. */
static bool is_refusal(int code)
{
    return (code >= SSL_R_SSLV3_ALERT_BAD_CERTIFICATE &&
            code <= SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN) ||
           code == SSL_R_TLSV1_ALERT_UNKNOWN_CA || code == SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED;
}

bool nx_tls_out_of_time(const struct ssl_st *tls)
{
    return certificate_fault(tls) != NULL;
}

bool nx_tls_is_refusal(unsigned long error)
{
    return ERR_GET_LIB(error) == ERR_LIB_SSL && is_refusal(ERR_GET_REASON(error));
}

const char *nx_tls_reason(enum nx_tls_use use,
                          const struct ssl_st *tls,
                          unsigned long error,
                          char *buf,
                          size_t cap)
{
    const char *text = nx_tls_error_text(error);
    int code = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
    /* A date that was let pass isn't what went wrong later in the handshake. */
    bool judged = code == SSL_R_CERTIFICATE_VERIFY_FAILED ||
                  (error == 0 && tls != NULL && SSL_is_init_finished(tls));
    const char *fault = judged ? certificate_fault(tls) : NULL;

    if (fault != NULL) {
        (void)snprintf(buf, cap, "the other side's certificate is not accepted: %s", fault);
    } else if (is_not_tls(code)) {
        (void)snprintf(buf, cap, "the other side does not speak TLS, which is configured here (%s)",
                       cert_keys[use]);
    } else if (is_refusal(code)) {
        (void)snprintf(buf, cap,
                       "the other side does not accept the certificate of this one (%s): %s",
                       cert_keys[use], text == NULL ? "no reason" : text);
    } else {
        (void)snprintf(buf, cap, "TLS: %s", text == NULL ? "the connection was cut" : text);
    }
    ERR_clear_error();
    return buf;
}
