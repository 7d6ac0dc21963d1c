"""The rules that tests of the proxy redact by, and one call for each kind of body."""

import math
from typing import Any

from sidecar.proxy.bodies import redact_body
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.rules import load_rules
from sidecar.redaction.walk_otlp import Outcome
from sidecar.settings import default_rules_dir
from sidecar.work import _advance

HTTP = Engine(load_rules(default_rules_dir())).redactor("http")
LIMIT = 2**20


def redact(
    body: bytes,
    content_type: str = "application/json",
    path: str = "/v1/things",
    redactor: Redactor = HTTP,
    outcome: Outcome | None = None,
    **options: Any,
) -> bytes:
    """Return what goes on of a body."""
    steps = redact_body(
        body, content_type, path, redactor, outcome or Outcome(), **{"limit": LIMIT, **options}
    )
    (written,) = _advance(steps, math.inf)
    return written
