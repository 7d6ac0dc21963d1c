"""Exporters bring batches of redacted records to where they are kept."""

from sidecar.exporters.tls import own_context
from sidecar.pipeline.exporter import Exporter, Refused, Retryable
from sidecar.settings import ExporterName, Settings

__all__ = ["Exporter", "Refused", "Retryable", "build"]


def build(settings: Settings) -> list[Exporter]:
    """Return the exporters that the settings name; the caller closes them.

    Raises:
        SettingsError: a file of certificates cannot be used.
    """
    return [_build(name, settings) for name in settings.exporters]


def _build(name: ExporterName, settings: Settings) -> Exporter:
    # Imported here, since an HTTP client takes memory that most settings do not need.
    match name:
        case "otlp" if settings.otel_exporter_otlp_protocol == "grpc":
            from sidecar.exporters.otlp_grpc import OtlpGrpcExporter

            return OtlpGrpcExporter(
                settings.otlp_endpoints,
                settings.otlp_headers,
                compress=settings.otel_exporter_otlp_compression == "gzip",
                tls=own_context(settings),
            )
        case "otlp":
            from sidecar.exporters.otlp import OtlpExporter

            return OtlpExporter(
                settings.otlp_endpoints,
                settings.otlp_headers,
                compress=settings.otel_exporter_otlp_compression == "gzip",
                tls=own_context(settings),
            )
        case "loki":
            from sidecar.exporters.loki import LokiExporter

            return LokiExporter(settings.loki_url, tls=own_context(settings))
        case "stdout":
            from sidecar.exporters.stdout import StdoutExporter

            return StdoutExporter()
        case "blackhole":
            from sidecar.exporters.blackhole import BlackholeExporter

            return BlackholeExporter()
