"""TLS to the outside: whom to trust when nothing else is said."""

import ssl


def default_context() -> ssl.SSLContext:
    """Return a context that trusts the certificates of the system."""
    # Imported here, since not every process needs an HTTP client.
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


def context_for(authorities: str) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a PEM file, or the system's for ``""``.

    Raises:
        OSError: the file cannot be read, or holds no certificates.
    """
    return ssl.create_default_context(cafile=authorities) if authorities else default_context()
