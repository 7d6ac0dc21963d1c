"""TLS to the outside: whom to trust when nothing else is said."""

import os
import ssl

# Where distributions have them, if OpenSSL was built to look elsewhere (as in wheels).
_SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def default_context() -> ssl.SSLContext:
    """Return a context that trusts the certificates of the system."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        for path in filter(os.path.isfile, _SYSTEM_FILES):
            context.load_verify_locations(path)
            break
    return context


def context_for(authorities: str) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a PEM file, or the system's for ``""``.

    Raises:
        OSError: the file cannot be read, or holds no certificates.
    """
    return ssl.create_default_context(cafile=authorities) if authorities else default_context()
