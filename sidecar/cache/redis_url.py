"""Where Redis is, as a URL.

The URL is read here and not by coredis, which by default leaves passwords percent-encoded, does not
check that a certificate is for the host, and lets the query override the arguments of the caller.
"""

import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

_Kind = Literal["single", "sentinel", "cluster"]
_SCHEMES: dict[str, _Kind] = {
    "redis": "single",
    "rediss": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_PORTS: dict[_Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_OPTIONS = {
    "db",
    "ssl",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "sentinel_username",
    "sentinel_password",
}


class RedisURLError(ValueError):
    """The URL cannot be used; the message says why in one line and holds nothing of the URL."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says.

    Attributes:
        kind: one server, sentinels that know it, or a cluster.
        nodes: host and port of the server, of each sentinel, or of some nodes of the cluster.
        service: the name by which sentinels know the server.
        db: database number.
        username, password: for the server; None where the URL has none.
        sentinel_username, sentinel_password: for the sentinels.
        tls: how to verify and to identify, or None for plain TCP.
    """

    kind: _Kind
    nodes: tuple[tuple[str, int], ...]
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: ssl.SSLContext | None = None


def parse_url(url: str) -> Server:
    """Read a URL.

    Args:
        url: one of

            - ``redis[s]://[[user]:password@]host[:port][/db]``, ``rediss`` with TLS
            - ``redis+sentinel://[[user]:password@]host[:port][,host…]/service[/db]``
            - ``redis+cluster://[[user]:password@]host[:port][,host…]``

            User, password and service are percent-decoded. Options in the query: ``db``; ``ssl``
            (``true`` or ``false``: TLS for sentinels and clusters too); ``ssl_ca_certs`` (a file
            or folder instead of the system's), ``ssl_certfile``, ``ssl_keyfile``,
            ``ssl_cert_reqs`` (``required`` or ``none``), ``ssl_check_hostname`` (``true`` or
            ``false``); ``sentinel_username``, ``sentinel_password``.

    Raises:
        RedisURLError: it is none of these, or a certificate cannot be read.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        raise RedisURLError("it is not a URL") from None
    if parts.scheme not in _SCHEMES:
        raise RedisURLError(f"its scheme must be one of {', '.join(_SCHEMES)}")
    if not query.keys() <= _OPTIONS:
        raise RedisURLError(f"its options may be {', '.join(sorted(_OPTIONS))}")
    kind = _SCHEMES[parts.scheme]
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, db = _path(kind, parts.path, query.get("db", "0"))
    nodes = tuple(_node(host, _PORTS[kind]) for host in hosts.split(","))
    if kind == "single" and len(nodes) > 1:
        raise RedisURLError("only sentinels and clusters have more than one host")
    return Server(
        kind=kind,
        nodes=nodes,
        service=service,
        db=db,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=query.get("sentinel_username") or None,
        sentinel_password=query.get("sentinel_password") or None,
        tls=_tls(query) if _flag(query, "ssl", parts.scheme == "rediss") else None,
    )


def _path(kind: _Kind, path: str, default_db: str) -> tuple[str, int]:
    """Return the service and the database that a path names."""
    segments = [unquote(segment) for segment in path.split("/") if segment]
    service = ""
    if kind == "sentinel":
        if not segments:
            raise RedisURLError("it must name the service: redis+sentinel://host:26379/service")
        service = segments.pop(0)
    text = segments.pop(0) if segments else default_db
    if segments or not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise RedisURLError("the database must be a whole number")
    if kind == "cluster" and int(text):
        raise RedisURLError("a cluster has no database but 0")
    return service, int(text)


def _node(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise RedisURLError("each host must be host or host:port")
    return host, port or default_port


def _flag(query: dict[str, str], name: str, default: bool) -> bool:
    text = query.get(name, str(default)).lower()
    if text not in {"true", "false"}:
        raise RedisURLError(f"{name} must be true or false")
    return text == "true"


def _tls(query: dict[str, str]) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name unless told otherwise."""
    requirement = query.get("ssl_cert_reqs", "required")
    if requirement not in {"required", "none"}:
        raise RedisURLError("ssl_cert_reqs must be required or none")
    authorities = query.get("ssl_ca_certs")
    folder = authorities is not None and Path(authorities).is_dir()
    try:
        context = ssl.create_default_context(
            cafile=None if folder else authorities, capath=authorities if folder else None
        )
        if certificate := query.get("ssl_certfile"):
            context.load_cert_chain(certificate, query.get("ssl_keyfile"))
    except OSError:  # ssl.SSLError is one too
        raise RedisURLError(
            "a file of ssl_ca_certs, ssl_certfile or ssl_keyfile cannot be used"
        ) from None
    context.check_hostname = requirement == "required" and _flag(query, "ssl_check_hostname", True)
    if requirement == "none":
        context.verify_mode = ssl.CERT_NONE
    return context
