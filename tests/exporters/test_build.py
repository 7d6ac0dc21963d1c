import pytest

from sidecar.exporters import Exporter, build
from sidecar.exporters.blackhole import BlackholeExporter
from sidecar.exporters.otlp import OtlpExporter
from sidecar.exporters.otlp_grpc import OtlpGrpcExporter
from sidecar.pipeline.batch import SIGNALS, Batch, Signal
from sidecar.settings import load_settings


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"stdout": set(SIGNALS)}),
        ({"LOKI_URL": "http://loki:3100"}, {"loki": {"events"}}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, {"otlp": set(SIGNALS)}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, {"otlp": {"traces"}}),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c/l"}, {"otlp": {"logs", "events"}}),
        (
            {"SIDECAR_EXPORTERS": "stdout,blackhole"},
            {"stdout": set(SIGNALS), "blackhole": set(SIGNALS)},
        ),
    ],
)
async def test_exporters_are_those_of_the_settings(
    environ: dict[str, str], expected: dict[str, set[Signal]]
) -> None:
    exporters = build(load_settings(environ))
    assert {exporter.name: set(exporter.signals) for exporter in exporters} == expected
    for exporter in exporters:
        await exporter.aclose()


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [("", OtlpExporter), ("http/protobuf", OtlpExporter), ("grpc", OtlpGrpcExporter)],
)
async def test_protocol_picks_the_exporter(protocol: str, kind: type[Exporter]) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    [exporter] = build(load_settings(environ))
    assert type(exporter) is kind
    assert exporter.signals == set(SIGNALS)
    await exporter.aclose()


@pytest.mark.parametrize("signal", SIGNALS)
async def test_blackhole_takes_everything(signal: Signal) -> None:
    exporter = BlackholeExporter()
    assert signal in exporter.signals
    assert await exporter.export(Batch(signal, b"x", 1)) == 0
    await exporter.aclose()
