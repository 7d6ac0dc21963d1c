from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sidecar.exporters import build
from sidecar.exporters.tls import own_context
from sidecar.settings import SettingsError, load_settings
from tests.exporters.conftest import TlsFiles

CERTIFICATE = "OTEL_EXPORTER_OTLP_CERTIFICATE"
CLIENT_CERTIFICATE = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
CLIENT_KEY = "OTEL_EXPORTER_OTLP_CLIENT_KEY"


def fault(environ: dict[str, str]) -> str:
    """Return what the start says, whichever exporter there is."""
    said = set()
    for address in (
        {"LOKI_URL": "https://loki"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4317"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        },
    ):
        with pytest.raises(SettingsError) as caught:
            build(load_settings(address | environ))
        said.add(str(caught.value))
    [line] = said
    assert line.isprintable()
    return line


def test_without_files_there_is_no_own_context() -> None:
    assert own_context(load_settings({})) is None


def test_missing_file_is_told_at_the_start(tls_files: TlsFiles, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    environ = tls_files.environ(client=True)
    for variable in (CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY):
        expected = f"{variable}={missing!r}: cannot be read: No such file or directory"
        assert fault(environ | {variable: missing}) == expected


def test_folder_is_no_file(tls_files: TlsFiles, tmp_path: Path) -> None:
    assert fault({CERTIFICATE: str(tmp_path)}).endswith("cannot be read: Is a directory")


def test_broken_certificate_is_told_at_the_start(tls_files: TlsFiles, not_pem: str) -> None:
    environ = tls_files.environ(client=True)
    for variable in (CERTIFICATE, CLIENT_CERTIFICATE):
        for path in (not_pem, tls_files.client_key):
            expected = f"{variable}={path!r}: holds no certificates as PEM"
            assert fault(environ | {variable: path}) == expected


def test_key_that_does_not_fit_is_told_at_the_start(
    tls_files: TlsFiles, not_pem: str, tmp_path: Path
) -> None:
    encrypted = tmp_path / "encrypted.key"
    key = serialization.load_pem_private_key(Path(tls_files.client_key).read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    environ = tls_files.environ(client=True)
    for path in (not_pem, tls_files.server_key, tls_files.client_certificate, str(encrypted)):
        expected = (
            f"{CLIENT_KEY}={path!r}: is not the private key of {CLIENT_CERTIFICATE}, "
            "as PEM and without a password"
        )
        assert fault(environ | {CLIENT_KEY: path}) == expected


def test_certificate_and_key_in_one_file(tls_files: TlsFiles, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    texts = [Path(p).read_text() for p in (tls_files.client_key, tls_files.client_certificate)]
    both.write_text("".join(texts))
    environ = {CLIENT_CERTIFICATE: str(both), CLIENT_KEY: str(both)}
    assert own_context(load_settings(environ)) is not None


def test_path_that_is_none(tls_files: TlsFiles) -> None:
    assert fault({CERTIFICATE: "a\0b"}).endswith("cannot be read: it is no path")
