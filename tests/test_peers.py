"""What the benchmark beside the peers sends is what its rows say."""

from collections.abc import Generator

import re2
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.peers import batches
from bench.peers.load import FOLDER
from sidecar.redaction.engine import Engine
from sidecar.redaction.rules import load_rules
from sidecar.redaction.walk_otlp import Outcome, redact_encoded
from sidecar.settings import default_rules_dir

REDACTOR = Engine(load_rules(default_rules_dir())).redactor("traces")


def _last(steps: Generator[None, None, tuple[bytes, Outcome]]) -> tuple[bytes, Outcome]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def _redacted(body: bytes) -> tuple[ExportTraceServiceRequest, Outcome]:
    encoded, outcome = _last(redact_encoded(ExportTraceServiceRequest, body, REDACTOR))
    return ExportTraceServiceRequest.FromString(encoded), outcome


def _texts(body: bytes) -> list[str]:
    return [
        attribute.value.string_value
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        for attribute in span.attributes
    ]


def test_default_rules_change_nothing_in_a_clean_batch_of_284_kb() -> None:
    for body in batches.clean_batches()[:4]:
        assert 280_000 < len(body) < 290_000
        redacted, outcome = _redacted(body)
        assert outcome.kept == batches.SPANS
        assert redacted == ExportTraceServiceRequest.FromString(body)


def test_one_span_in_twenty_of_a_dirty_batch_has_a_finding() -> None:
    for body in batches.dirty_batches()[:4]:
        redacted, outcome = _redacted(body)
        assert outcome.kept == batches.SPANS
        assert outcome.changed == len(range(0, batches.SPANS, batches.FINDING_EVERY))
        assert b"[REDACTED_EMAIL]" in redacted.SerializeToString()


def test_captured_batches_differ_and_as_much_is_found_in_each_as_in_the_captured_one() -> None:
    bodies = batches.captured_batches()
    assert len(set(bodies)) == batches.BATCHES
    changed = {_redacted(body)[1].changed for body in [batches.captured_batch(), *bodies[:4]]}
    assert len(changed) == 1
    assert 0 not in changed


def test_the_collector_has_patterns_that_find_the_same_in_these_batches() -> None:
    config = yaml.safe_load((FOLDER / "otelcol.yaml").read_text())
    patterns = [re2.compile(p) for p in config["processors"]["redaction"]["blocked_values"]]

    def found(body: bytes) -> list[str]:
        return [text for text in _texts(body) if any(p.search(text) for p in patterns)]

    clean, dirty = batches.clean_batches()[0], batches.dirty_batches()[0]
    assert found(clean) == []
    assert len(found(dirty)) == len(range(0, batches.SPANS, batches.FINDING_EVERY))
