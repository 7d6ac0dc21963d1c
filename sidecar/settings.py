"""The environment, read once into one Struct.

No other module reads the environment; everything below gets plain values. A wrong value raises
`SettingsError` with one line that names the variable, the value (secrets hidden) and what is
allowed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import unquote, urlsplit

import msgspec

from sidecar import __version__

ExporterName = Literal["otlp", "loki", "stdout", "blackhole"]
EXPORTERS: tuple[ExporterName, ...] = ("otlp", "loki", "stdout", "blackhole")
OtlpSignal = Literal["traces", "metrics", "logs"]

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535, description="a port from 1 to 65535")]
_PortOrOff = Annotated[
    int, msgspec.Meta(ge=0, le=65535, description="a port from 1 to 65535, or 0 to turn it off")
]
_Bytes = Annotated[
    int, msgspec.Meta(ge=1024, le=2**40, description="a whole number of bytes, at least 1024")
]
_BytesOrOff = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
_BytesOrDefault = Annotated[
    int, msgspec.Meta(ge=0, le=2**40, description="a whole number of bytes, or 0 for the default")
]
_Seconds = Annotated[
    float, msgspec.Meta(ge=0, le=3600, description="a number of seconds from 0 to 3600")
]
_Url = Annotated[str, msgspec.Meta(description="a URL with http:// or https://")]

_MIB = 2**20


class SettingsError(Exception):
    """A variable holds a value that is not allowed; the message is one line for the operator."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, by the lower-case name of its environment variable.

    Sizes are in bytes and times in seconds. The contract of each variable stands in the table of
    the README, which a test compares with this class.
    """

    redis_url: Annotated[
        str,
        msgspec.Meta(
            description="a URL with redis://, rediss://, redis+sentinel:// or redis+cluster://, "
            "or nothing for the in-memory cache alone"
        ),
    ] = "redis://localhost:6379"
    prometheus_port: _Port = 9090
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        msgspec.Meta(description="DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    ] = "INFO"
    telemetry_cache_version: str = __version__
    loki_url: _Url = ""
    otel_exporter_otlp_endpoint: _Url = ""
    otel_exporter_otlp_traces_endpoint: _Url = ""
    otel_exporter_otlp_metrics_endpoint: _Url = ""
    otel_exporter_otlp_logs_endpoint: _Url = ""
    otel_exporter_otlp_headers: Annotated[
        str, msgspec.Meta(description="name=value pairs joined by commas, values percent-encoded")
    ] = ""
    otel_exporter_otlp_compression: Annotated[
        Literal["", "none", "gzip"], msgspec.Meta(description="none or gzip")
    ] = ""
    otel_exporter_otlp_protocol: Annotated[
        Literal["http/protobuf", "grpc"], msgspec.Meta(description="http/protobuf or grpc")
    ] = "http/protobuf"
    otel_exporter_otlp_certificate: str = ""
    otel_exporter_otlp_client_certificate: str = ""
    otel_exporter_otlp_client_key: str = ""
    sidecar_host: str = "127.0.0.1"
    sidecar_port: _Port = 8000
    sidecar_otlp_http_port: _PortOrOff = 4318
    sidecar_otlp_grpc_port: _PortOrOff = 4317
    sidecar_metrics_host: str = "0.0.0.0"
    sidecar_rules: str = ""
    sidecar_queue_dir: str = ""
    sidecar_exporters: Annotated[
        str, msgspec.Meta(description=f"a comma list of {', '.join(EXPORTERS)}")
    ] = ""
    sidecar_hash_key: str = ""
    sidecar_max_body_bytes: _Bytes = 16 * _MIB
    sidecar_memory_limit: Annotated[
        _BytesOrOff | None, msgspec.Meta(description="a whole number of bytes, or 0 for no limit")
    ] = None
    sidecar_queue_bytes: _BytesOrDefault = 0
    sidecar_queue_max_age: Annotated[
        float, msgspec.Meta(ge=1, le=10**9, description="a number of seconds, at least 1")
    ] = 3 * 24 * 3600.0
    sidecar_queue_sync: Annotated[
        Literal["full", "normal"], msgspec.Meta(description="full or normal")
    ] = "full"
    sidecar_batch_seconds: Annotated[
        float, msgspec.Meta(ge=0, le=60, description="a number of seconds from 0 to 60")
    ] = 0.2
    sidecar_cache_bytes: _Bytes = 16 * _MIB
    sidecar_cache_key_file: str = ""
    sidecar_drain_seconds: _Seconds = 20.0

    @property
    def rules_dir(self) -> Path:
        """The rules folder: the one that is set, else the one that ships."""
        return Path(self.sidecar_rules) if self.sidecar_rules else default_rules_dir()

    @property
    def queue_dir(self) -> Path | None:
        """Where the queue's file is; None when it is in memory."""
        return Path(self.sidecar_queue_dir) if self.sidecar_queue_dir else None

    @property
    def queue_bytes(self) -> int:
        """The bound of the queue: the one that is set, else 512 MiB on disk, 32 MiB in memory."""
        return self.sidecar_queue_bytes or (512 if self.sidecar_queue_dir else 32) * _MIB

    @property
    def otlp_endpoints(self) -> dict[OtlpSignal, str]:
        """The URL for each signal that has one.

        As https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp
        says: a signal's own endpoint is used as it is, the common one gets ``/v1/<signal>``. For
        gRPC there are no paths.
        """
        own: dict[OtlpSignal, str] = {
            "traces": self.otel_exporter_otlp_traces_endpoint,
            "metrics": self.otel_exporter_otlp_metrics_endpoint,
            "logs": self.otel_exporter_otlp_logs_endpoint,
        }
        base = self.otel_exporter_otlp_endpoint.rstrip("/")
        grpc = self.otel_exporter_otlp_protocol == "grpc"
        urls = {
            signal: url or (base if grpc or not base else f"{base}/v1/{signal}")
            for signal, url in own.items()
        }
        return {signal: url for signal, url in urls.items() if url}

    @property
    def otlp_headers(self) -> dict[str, str]:
        """The headers for the OTLP exporter; raises `SettingsError` when one is not a pair."""
        headers = {}
        for pair in filter(None, self.otel_exporter_otlp_headers.split(",")):
            name, equals, value = pair.partition("=")
            name = name.strip().lower()
            if not equals or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name):
                raise _refusal("otel_exporter_otlp_headers", self.otel_exporter_otlp_headers)
            value = unquote(value.strip())
            if not value.isprintable() or not value.isascii():
                raise _refusal("otel_exporter_otlp_headers", self.otel_exporter_otlp_headers)
            headers[name] = value
        return headers

    @property
    def exporters(self) -> tuple[ExporterName, ...]:
        """The exporters to run: the listed ones, else those with an address, else stdout."""
        if self.sidecar_exporters:
            names = dict.fromkeys(n.strip() for n in self.sidecar_exporters.split(",") if n.strip())
            if not names or not names.keys() <= set(EXPORTERS):
                raise _refusal("sidecar_exporters", self.sidecar_exporters)
            return tuple(name for name in EXPORTERS if name in names)
        found: list[ExporterName] = []
        if self.otlp_endpoints:
            found.append("otlp")
        if self.loki_url:
            found.append("loki")
        return tuple(found) or ("stdout",)


_OTLP_ENDPOINTS = tuple(
    f"otel_exporter_otlp{signal}_endpoint" for signal in ("", "_traces", "_metrics", "_logs")
)
_SECRETS = frozenset(
    name
    for name in Settings.__struct_fields__
    if name in {"redis_url", "loki_url", "otel_exporter_otlp_headers", "sidecar_hash_key"}
    or name.endswith("_endpoint")
)
_URL_SCHEMES = {
    "redis_url": ("redis", "rediss", "redis+sentinel", "redis+cluster"),
    "loki_url": ("http", "https"),
    **dict.fromkeys(_OTLP_ENDPOINTS, ("http", "https")),
}
_HINTS = get_type_hints(Settings, include_extras=True)
_KUBERNETES_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
_LINK_NAME = re.compile(r"SIDECAR_(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")


def default_rules_dir() -> Path:
    """Return the rules folder that ships: beside the package."""
    return Path(__file__).resolve().parent.parent / "rules"


def variables() -> dict[str, str]:
    """Return every environment variable that is read, with its default as text."""
    return {
        field.name.upper(): "" if field.default is None else str(field.default)
        for field in msgspec.structs.fields(Settings)
    }


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the ``SIDECAR_*`` variables that mean nothing, most likely misspelt.

    Those that Kubernetes sets for a Service named ``sidecar`` are left out.
    """
    known = variables()
    return sorted(
        name
        for name in environ
        if name.startswith("SIDECAR_")
        and name not in known
        and not (name.endswith("_FILE") and name.removesuffix("_FILE").lower() in _SECRETS)
        and not _LINK_NAME.fullmatch(name)
    )


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check every setting.

    Args:
        environ: such as ``os.environ``. An empty value means the default, but for ``REDIS_URL``,
            where it means no Redis. A secret may come from a file: ``<NAME>_FILE``.

    Raises:
        SettingsError: a value is not allowed, a secret's file cannot be read, or settings
            contradict each other.
    """
    values = {}
    for name in Settings.__struct_fields__:
        text = _lookup(environ, name)
        if text is None or (text == "" and name != "redis_url"):
            continue
        given = text.upper() if name == "log_level" else text
        try:
            values[name] = msgspec.convert(given, _HINTS[name], strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise _refusal(name, text) from None
        if values[name] is None:  # written as `null`
            raise _refusal(name, text)
        if name in _URL_SCHEMES and text:
            _check_url(name, text)
    settings = Settings(**values)
    _check_together(settings)
    return settings


def _lookup(environ: Mapping[str, str], name: str) -> str | None:
    variable = name.upper()
    file_variable = f"{variable}_FILE"
    if name not in _SECRETS or not environ.get(file_variable):
        value = environ.get(variable)
        return value if value is None else value.strip()
    if environ.get(variable):
        raise SettingsError(f"{variable} and {file_variable} are both set; keep one of them")
    path = environ[file_variable]
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{file_variable}={path!r}: cannot be read: {reason}") from None


def _check_url(name: str, text: str) -> None:
    try:
        url = urlsplit(text)
        valid = url.scheme in _URL_SCHEMES[name] and bool(url.netloc)
        if name != "redis_url":  # which may hold several hosts
            valid = valid and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise _refusal(name, text)


def _check_together(settings: Settings) -> None:
    headers = settings.otlp_headers  # raises when they are not pairs
    exporters = settings.exporters
    if "otlp" in exporters and not settings.otlp_endpoints:
        raise SettingsError(
            "SIDECAR_EXPORTERS names otlp, so OTEL_EXPORTER_OTLP_ENDPOINT must be set"
        )
    if "loki" in exporters and not settings.loki_url:
        raise SettingsError("SIDECAR_EXPORTERS names loki, so LOKI_URL must be set")
    if headers and not settings.otlp_endpoints:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_HEADERS is set, so OTEL_EXPORTER_OTLP_ENDPOINT must be set"
        )
    if settings.otel_exporter_otlp_protocol == "grpc":
        _check_grpc_endpoints(settings)
    certificate = settings.otel_exporter_otlp_client_certificate
    if bool(certificate) != bool(settings.otel_exporter_otlp_client_key):
        given, missing = ("CERTIFICATE", "KEY") if certificate else ("KEY", "CERTIFICATE")
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_CLIENT_{given} is set, so OTEL_EXPORTER_OTLP_CLIENT_{missing} "
            "must be set"
        )
    ports = [
        ("SIDECAR_PORT", settings.sidecar_port),
        ("SIDECAR_OTLP_HTTP_PORT", settings.sidecar_otlp_http_port),
        ("SIDECAR_OTLP_GRPC_PORT", settings.sidecar_otlp_grpc_port),
        ("PROMETHEUS_PORT", settings.prometheus_port),
    ]
    taken: dict[int, str] = {}
    for variable, port in ports:
        if port and port in taken:
            raise SettingsError(f"{variable}='{port}' is not allowed: {taken[port]} has it already")
        taken[port] = variable
    for url in settings.otlp_endpoints.values():
        target = urlsplit(url)
        if target.hostname in {"localhost", "127.0.0.1", "::1"} and target.port in taken:
            raise SettingsError(
                f"OTEL_EXPORTER_OTLP_ENDPOINT points at this sidecar's own port {target.port} "
                f"({taken[target.port]}); set it to the collector behind the sidecar"
            )


def _check_grpc_endpoints(settings: Settings) -> None:
    for name in _OTLP_ENDPOINTS:
        url = urlsplit(getattr(settings, name))
        if url.path.strip("/") or url.query or url.fragment:
            raise SettingsError(
                f"{name.upper()}=(hidden) is not allowed when OTEL_EXPORTER_OTLP_PROTOCOL is "
                "grpc: use http://host:port or https://host:port"
            )


def _refusal(name: str, text: str) -> SettingsError:
    variable = name.upper()
    shown = "(hidden)" if name in _SECRETS else repr(text)
    allowed = next(
        (m.description for m in getattr(_HINTS[name], "__metadata__", ()) if m.description),
        "text",
    )
    hint = ""
    if _KUBERNETES_LINK.fullmatch(text):
        hint = (
            " (Kubernetes sets such a value for a Service of that name:"
            " use enableServiceLinks: false, or set the variable)"
        )
    return SettingsError(f"{variable}={shown} is not allowed: use {allowed}{hint}")


def describe(settings: Settings) -> dict[str, Any]:
    """Return the settings for the log, secrets hidden."""
    shown: dict[str, Any] = msgspec.structs.asdict(settings)
    return {
        name: "(hidden)" if name in _SECRETS and value else value for name, value in shown.items()
    }
