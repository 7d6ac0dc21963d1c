"""What a Redis URL says, and the client for it.

- ``redis://[user:password@]host[:port][/db]``, and ``rediss://`` with TLS
- ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]``
- ``redis+cluster://[user:password@]host[:port][,host[:port]…]``

User and password are percent-decoded. The query may hold ``db``, ``ssl=true``, ``ssl_ca_certs``,
``ssl_certfile``, ``ssl_keyfile``, ``ssl_check_hostname``, ``ssl_cert_reqs`` (``required`` or
``none``), ``sentinel_username`` and ``sentinel_password``.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import coredis
import msgspec
from coredis.connection import TCPLocation
from coredis.retry import NoRetryPolicy

Client = coredis.Redis[bytes] | coredis.RedisCluster[bytes]
Kind = Literal["single", "sentinel", "cluster"]

# Connecting, its handshake and probes may take as long: no request waits for them.
CONNECT_SECONDS = 2.0
# Where there are several nodes, one that does not answer leaves time for the next.
_NODE_SECONDS = 0.6

_KINDS: dict[str, Kind] = {
    "redis": "single",
    "rediss": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_OPTIONS = {
    "db",
    "ssl",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "ssl_cert_reqs",
    "sentinel_username",
    "sentinel_password",
}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class RedisURLError(ValueError):
    """The URL cannot be used; the message is one line that shows no part of it."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL.

    Attributes:
        kind: what answers at `nodes`.
        nodes: host and port of each.
        service: the name by which sentinels know the primary.
        tls: the context to connect with, or None for plain TCP.
    """

    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None
    db: int = 0
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: ssl.SSLContext | None = None


def parse_url(url: str) -> Server:
    """Return what the URL says; raises `RedisURLError`."""
    scheme, _, rest = url.partition("://")
    if scheme not in _KINDS:
        raise RedisURLError(f"the scheme must be one of {', '.join(_KINDS)}")
    kind = _KINDS[scheme]
    try:
        split = urlsplit(f"redis://{rest}")
    except ValueError:
        raise RedisURLError("it is not a URL") from None
    userinfo, _, hosts = split.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    options = _options(split.query)
    service, db = _path(kind, split.path, options)
    return Server(
        kind=kind,
        nodes=_nodes(hosts, kind),
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=db,
        service=service,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if scheme == "rediss" or _flag(options, "ssl", False) else None,
    )


def _nodes(text: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    nodes = []
    for part in text.split(","):
        try:
            split = urlsplit(f"redis://{part}")
            host, port = split.hostname, split.port
        except ValueError:
            host, port = None, None
        if not host:
            raise RedisURLError("it must name a host as host or host:port")
        nodes.append((host, port or _PORTS[kind]))
    if kind == "single" and len(nodes) > 1:
        raise RedisURLError("redis:// and rediss:// take one host")
    return tuple(nodes)


def _path(kind: Kind, path: str, options: dict[str, str]) -> tuple[str, int]:
    parts = [unquote(part) for part in path.split("/") if part]
    service = ""
    if kind == "sentinel":
        if not parts:
            raise RedisURLError("redis+sentinel:// needs the name of the service as its path")
        service = parts.pop(0)
    if len(parts) > 1:
        raise RedisURLError("its path has too many parts")
    db = parts[0] if parts else options.get("db", "0")
    if not (db.isascii() and db.isdecimal()):
        raise RedisURLError("the database must be a number")
    if kind == "cluster" and int(db):
        raise RedisURLError("a cluster has database 0 only")
    return service, int(db)


def _options(query: str) -> dict[str, str]:
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise RedisURLError(f"{len(unknown)} of its options is not known")
    return options


def _flag(options: dict[str, str], name: str, default: bool) -> bool:
    try:
        return _BOOLEANS[options[name].lower()] if name in options else default
    except KeyError:
        raise RedisURLError(f"{name} must be true or false") from None


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    # Made here because the client's own default checks neither the host's name nor that there is
    # a certificate.
    verify = options.get("ssl_cert_reqs", "required")
    if verify not in ("required", "none"):
        raise RedisURLError("ssl_cert_reqs must be required or none")
    authorities = options.get("ssl_ca_certs")
    folder = authorities is not None and Path(authorities).is_dir()
    try:
        context = ssl.create_default_context(
            cafile=None if folder else authorities, capath=authorities if folder else None
        )
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    except OSError:  # which ssl.SSLError is too
        raise RedisURLError("its certificate files cannot be used") from None
    context.check_hostname = verify == "required" and _flag(options, "ssl_check_hostname", True)
    context.verify_mode = ssl.CERT_REQUIRED if verify == "required" else ssl.CERT_NONE
    return context


@asynccontextmanager
async def open_client(server: Server) -> AsyncIterator[Client]:
    """Yield a client that never retries by itself.

    It has one connection (in a cluster one to each node), which coredis shares between tasks
    without waiting for one answer before it sends the next command.
    """
    limits: dict[str, Any] = {
        "ssl_context": server.tls,
        "max_connections": 1,
    }
    if server.kind != "single":
        limits |= {"connect_timeout": _NODE_SECONDS, "stream_timeout": _NODE_SECONDS}
    account: dict[str, Any] = {"username": server.username, "password": server.password}
    nodes = [TCPLocation(host, port) for host, port in server.nodes]
    if server.kind == "sentinel":
        sentinel_account = {
            "username": server.sentinel_username,
            "password": server.sentinel_password,
        }
        async with (
            coredis.Sentinel(
                nodes,
                sentinel_kwargs={**limits, **sentinel_account},
                retry_policy=NoRetryPolicy(),
                db=server.db,
                **limits,
                **account,
            ) as sentinel,
            sentinel.primary_for(server.service) as primary,
        ):
            yield primary
    elif server.kind == "cluster":
        cluster: coredis.RedisCluster[bytes] = coredis.RedisCluster(
            startup_nodes=nodes,
            max_connections_per_node=True,
            # The check needs CONFIG, which managed clusters do not offer.
            skip_full_coverage_check=True,
            retry_policy=NoRetryPolicy(),
            **limits,
            **account,
        )
        async with cluster:
            yield cluster
    else:
        async with coredis.Redis(
            nodes[0].host,
            nodes[0].port,
            server.db,
            retry_policy=NoRetryPolicy(),
            **limits,
            **account,
        ) as client:
            yield client
