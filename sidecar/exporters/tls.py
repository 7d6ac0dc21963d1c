"""Whom an exporter trusts, and how it shows who it is: the PEM files of the settings."""

import ssl
from pathlib import Path

from sidecar.settings import Settings, SettingsError
from sidecar.tls import default_context

_CERTIFICATE = "OTEL_EXPORTER_OTLP_CERTIFICATE"
_CLIENT_CERTIFICATE = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
_CLIENT_KEY = "OTEL_EXPORTER_OTLP_CLIENT_KEY"


def own_context(settings: Settings) -> ssl.SSLContext | None:
    """Return a context from the files that the settings name, or None when they name none.

    Each exporter needs its own, as HTTP clients change it.

    Raises:
        SettingsError: a file cannot be read, or does not hold what it should.
    """
    authorities = settings.otel_exporter_otlp_certificate
    certificate = settings.otel_exporter_otlp_client_certificate
    key = settings.otel_exporter_otlp_client_key
    if not authorities and not certificate:
        return None
    if authorities:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_certificates(context, _CERTIFICATE, authorities)
    else:
        context = default_context()
    if certificate:
        # Into another context, to tell a broken certificate from a broken key.
        _load_certificates(
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), _CLIENT_CERTIFICATE, certificate
        )
        _read(_CLIENT_KEY, key)
        try:
            # With an empty password, or OpenSSL would ask the terminal for that of a key.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError):
            raise SettingsError(
                f"{_CLIENT_KEY}={key!r}: is not the private key of {_CLIENT_CERTIFICATE}, "
                "as PEM and without a password"
            ) from None
    return context


def _load_certificates(context: ssl.SSLContext, variable: str, path: str) -> None:
    _read(variable, path)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError):
        raise SettingsError(f"{variable}={path!r}: holds no certificates as PEM") from None


def _read(variable: str, path: str) -> None:
    """Read a file for no other reason than to tell why it cannot be read."""
    try:
        Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        raise SettingsError(f"{variable}={path!r}: cannot be read: {reason}") from None
