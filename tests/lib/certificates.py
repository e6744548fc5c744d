"""Authorities and certificates for tests, made by the openssl command."""

import os
import subprocess

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


def http(pair):
    """Settings of an HTTP interface with this certificate."""
    return {"http.tls_cert_file": pair[0], "http.tls_key_file": pair[1]}


def replication(pair, authority=None):
    settings = {"replication.tls_cert_file": pair[0], "replication.tls_key_file": pair[1]}
    if authority is not None:
        settings["replication.tls_ca_file"] = authority.cert
    return settings
