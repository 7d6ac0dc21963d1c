"""Exporters bring batches of redacted records to where they are kept."""

from sidecar.pipeline.exporter import Exporter, Refused, Retryable
from sidecar.settings import ExporterName, Settings

__all__ = ["Exporter", "Refused", "Retryable", "build"]


def build(settings: Settings) -> list[Exporter]:
    """Return the exporters that the settings name; the caller closes them."""
    return [_build(name, settings) for name in settings.exporters]


def _build(name: ExporterName, settings: Settings) -> Exporter:
    # Imported here, since an HTTP client takes memory that most settings do not need.
    match name:
        case "otlp":
            from sidecar.exporters.otlp import OtlpExporter

            return OtlpExporter(
                settings.otlp_endpoints,
                settings.otlp_headers,
                compress=settings.otel_exporter_otlp_compression == "gzip",
            )
        case "loki":
            from sidecar.exporters.loki import LokiExporter

            return LokiExporter(settings.loki_url)
        case "stdout":
            from sidecar.exporters.stdout import StdoutExporter

            return StdoutExporter()
        case "blackhole":
            from sidecar.exporters.blackhole import BlackholeExporter

            return BlackholeExporter()
