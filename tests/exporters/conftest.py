"""Certificates for the tests of exporters."""

import ssl
from pathlib import Path

import msgspec
import pytest
import trustme

from sidecar.exporters.tls import own_context
from sidecar.settings import load_settings


class TlsFiles(msgspec.Struct, frozen=True):
    """Files as an operator has them: paths of PEM files, of a server and a client on 127.0.0.1."""

    authority: str
    other_authority: str
    server_certificate: str
    server_key: str
    client_certificate: str
    client_key: str

    def environ(self, *, client: bool = False, authority: str = "") -> dict[str, str]:
        """Return the variables that name the files for an exporter."""
        environ = {"OTEL_EXPORTER_OTLP_CERTIFICATE": authority or self.authority}
        if client:
            environ["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = self.client_certificate
            environ["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = self.client_key
        return environ

    def context(self, *, client: bool = False, authority: str = "") -> ssl.SSLContext | None:
        """Return the context of an exporter with these variables."""
        return own_context(load_settings(self.environ(client=client, authority=authority)))

    def server_context(self, *, client_certificate: bool) -> ssl.SSLContext:
        """Return the context of a server, which may insist on a certificate of the client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_certificate, self.server_key)
        if client_certificate:
            context.load_verify_locations(self.authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    client = authority.issue_cert("sidecar@example.org")

    def write(name: str, blob: trustme.Blob) -> str:
        path = folder / name
        blob.write_to_path(path)
        return str(path)

    return TlsFiles(
        authority=write("ca.pem", authority.cert_pem),
        other_authority=write("other-ca.pem", trustme.CA().cert_pem),
        server_certificate=write("server.pem", server.cert_chain_pems[0]),
        server_key=write("server.key", server.private_key_pem),
        client_certificate=write("client.pem", client.cert_chain_pems[0]),
        client_key=write("client.key", client.private_key_pem),
    )


@pytest.fixture
def not_pem(tmp_path: Path) -> str:
    path = tmp_path / "not.pem"
    path.write_text("not PEM")
    return str(path)
