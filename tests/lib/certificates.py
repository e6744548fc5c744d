"""Authorities and certificates for tests, made by the openssl command."""

import base64
import os
import socket
import ssl
import subprocess
import threading

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
LOCAL = "DNS:localhost,IP:127.0.0.1"


def run(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """In a directory: ca.pem, and what it has signed."""

    def __init__(self, directory, name="ca"):
        self.directory = directory
        self.key = os.path.join(directory, f"{name}.key")
        self.cert = os.path.join(directory, f"{name}.pem")
        run("req", "-x509", *CURVE, "-days", "30", "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.cert)

    def sign(self, name, names=LOCAL, days=30):
        """-> (certificate, key): paths. days below 0: expired."""
        key, cert, csr = (os.path.join(self.directory, f"{name}.{end}") for end in ("key", "pem", "csr"))
        run("req", *CURVE, "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-keyout", key, "-out", csr)
        signed = ["x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial"]
        run(*signed, "-days", str(days), "-copy_extensions", "copy", "-out", cert)
        os.chmod(key, 0o600)
        return cert, key


def without_key(pair, path):
    """-> (certificate, key): what anybody can show who has seen the certificate; the key's public half alone is right."""
    der = bytearray(subprocess.run(
        ["openssl", "ec", "-in", pair[1], "-outform", "DER"], check=True, capture_output=True
    ).stdout)
    assert der[5:7] == b"\x04\x20", der[:8]  # RFC 5915: the private half, 32 bytes
    der[8:39] = os.urandom(31)
    with open(path, "w", encoding="ascii") as file:
        file.write("-----BEGIN EC PRIVATE KEY-----\n%s-----END EC PRIVATE KEY-----\n"
                   % base64.encodebytes(bytes(der)).decode())
    return pair[0], path


class Impostor:
    """Listens where a master was, until the end of the with block: with a pair it shakes hands, else it sends an alert."""

    ALERT = b"\x15\x03\x03\x00\x02\x02\x2a"  # bad_certificate

    def __init__(self, port, pair=None):
        self.listener = socket.create_server(("127.0.0.1", port))
        self.context = None
        if pair is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*pair)
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()

    def serve(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            with sock:
                self.answer(sock)

    def answer(self, sock):
        try:
            if self.context is None:
                sock.recv(4096)
                sock.sendall(self.ALERT)
            else:
                self.context.wrap_socket(sock, server_side=True).close()
        except OSError:
            pass  # the other side wants nothing of it


def http(pair):
    """Settings of an HTTP interface with this certificate."""
    return {"http.tls_cert_file": pair[0], "http.tls_key_file": pair[1]}


def replication(pair, authority=None):
    settings = {"replication.tls_cert_file": pair[0], "replication.tls_key_file": pair[1]}
    if authority is not None:
        settings["replication.tls_ca_file"] = authority.cert
    return settings
