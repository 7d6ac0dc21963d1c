"""The captured requests of a real Open WebUI, redacted in this process."""

from functools import partial

from google.protobuf.message import Message

from bench.table import ROUNDS, Row, Section, median_rate, progress
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.rules import RuleSignal, load_rules
from sidecar.redaction.walk_otlp import redact_otlp
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
        request = kind.FromString(body)
        records += redact_otlp(request, redactor).kept
        request.SerializeToString()
    return records


SECTION = Section(
    "Captured telemetry",
    f"Requests of a real Open WebUI, decoding and encoding included, median of {ROUNDS} rounds.",
    rows,
)
