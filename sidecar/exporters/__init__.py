"""Exporters bring batches of redacted records to where they are kept."""

from collections.abc import Callable

from sidecar.exporters.blackhole import BlackholeExporter
from sidecar.exporters.loki import LokiExporter
from sidecar.exporters.otlp import OtlpExporter
from sidecar.exporters.stdout import StdoutExporter
from sidecar.pipeline.exporter import Exporter, Refused, Retryable
from sidecar.settings import ExporterName, Settings

__all__ = ["Exporter", "Refused", "Retryable", "build"]

_BUILDERS: dict[ExporterName, Callable[[Settings], Exporter]] = {
    "otlp": lambda settings: OtlpExporter(
        settings.otlp_endpoints,
        settings.otlp_headers,
        compress=settings.otel_exporter_otlp_compression == "gzip",
    ),
    "loki": lambda settings: LokiExporter(settings.loki_url),
    "stdout": lambda settings: StdoutExporter(),
    "blackhole": lambda settings: BlackholeExporter(),
}


def build(settings: Settings) -> list[Exporter]:
    """Return the exporters that the settings name; the caller closes them."""
    return [_BUILDERS[name](settings) for name in settings.exporters]
