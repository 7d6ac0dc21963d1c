"""The captured requests of a real Open WebUI, redacted in this process."""

from collections.abc import Generator
from functools import partial

from google.protobuf.message import Message

from bench.table import ROUNDS, Row, Section, median_rate, progress
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.rules import RuleSignal, load_rules
from sidecar.redaction.walk_otlp import Outcome, redact_encoded
from sidecar.settings import default_rules_dir
from tests.captured import captures

SIGNALS: tuple[RuleSignal, ...] = ("traces", "metrics", "logs")


def rows() -> list[Row]:
    engine = Engine(load_rules(default_rules_dir()))
    rows = []
    for signal in SIGNALS:
        progress(f"captured {signal}")
        bodies = [(otlp.request, body) for otlp, body in captures() if otlp.signal == signal]
        rate = median_rate(partial(_redact_all, engine.redactor(signal), bodies))
        rows.append(Row(f"redaction of captured {signal}, one core", f"{rate:,.0f} records/s"))
    return rows


def _redact_all(redactor: Redactor, bodies: list[tuple[type[Message], bytes]]) -> int:
    records = 0
    for kind, body in bodies:
        _, outcome = _last(redact_encoded(kind, body, redactor))
        records += outcome.kept
    return records


def _last(steps: Generator[None, None, tuple[bytes, Outcome]]) -> tuple[bytes, Outcome]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


SECTION = Section(
    "Captured telemetry",
    f"Requests of a real Open WebUI, decoding and encoding included, median of {ROUNDS} rounds.",
    rows,
)
