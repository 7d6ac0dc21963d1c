"""The text that costs most: random characters and what nearly is a value, with many rules."""

import base64
import random
import string
import time
from bisect import bisect_right
from itertools import accumulate

import re2

from bench.extra_rules import EXTRA, extra_near_matches, with_extra_rules
from bench.near_matches import near_matches
from bench.table import Row, Section, progress
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.rules import Rules, load_rules
from sidecar.settings import default_rules_dir

SIZE = 40_000
GOAL_MILLISECONDS = 15
GOAL = f"≤ {GOAL_MILLISECONDS} ms"
_FRESH, _LATER = 3, 5
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "


def texts(redactor: Redactor) -> dict[str, str]:
    """Return 40 kB of each kind, the same in every run; nothing in them is such a value alone."""
    draw = random.Random(40)
    raw = draw.randbytes(SIZE)
    near = near_matches(redactor) + extra_near_matches()
    draw.shuffle(near)
    return {
        "base64": base64.b64encode(raw, altchars=b"Az").decode()[:SIZE],
        "base64 with + and /": base64.b64encode(raw).decode()[:SIZE],
        "hex": raw.hex()[:SIZE],
        "random printable characters": "".join(draw.choices(_PRINTABLE, k=SIZE)),
        "digits": "".join(draw.choices(string.digits, k=SIZE)),
        "near-matches of all rules, each in its line": _repeated("\n".join(near) + "\n"),
        "near-matches of all rules in one line": _repeated(_line(near, redactor)),
    }


def _line(near: list[str], redactor: Redactor) -> str:
    """Put near-matches into one line, but for those that count when others stand near."""
    while True:
        text = " ".join(near) + " "
        report = Report(detailed=True)
        redactor.string(text, "", report, {})
        if not report.findings:
            return text
        ends = list(accumulate(len(one) + 1 for one in near))
        found = {
            index
            for finding in report.findings
            for index in range(
                bisect_right(ends, finding.start), bisect_right(ends, finding.end - 1) + 1
            )
        }
        near = [one for index, one in enumerate(near) if index not in found]


def rows() -> list[Row]:
    rules = with_extra_rules(load_rules(default_rules_dir()))
    rows = []
    for kind, text in texts(_fresh(rules)).items():
        progress(f"worst text, {kind}")
        first = min(_time(_fresh(rules), text) for _ in range(_FRESH))
        redactor = _fresh(rules)
        report = Report()
        redactor.string(text, "", report, {})
        found = f" ({report.counts.total()} found)" if report else ""
        later = min(_time(redactor, text) for _ in range(_LATER))
        for call, taken in (("first call", first), ("later calls", later)):
            rows.append(Row(f"{kind}{found}, {call}", _milliseconds(*taken), GOAL))
    return [*rows, *_alone_rows(rules)]


def _alone_rows(rules: Rules) -> list[Row]:
    """Time every near-match alone, all in one engine; tell the slowest."""
    redactor = _fresh(rules)
    first, later = [], []
    for near in near_matches(_fresh(rules)):
        progress(f"worst text, {near[:40]}")
        text = _repeated(f"{near} ")
        first.append((*_time(redactor, text), near))
        later.append((*min(_time(redactor, text) for _ in range(2)), near))
    rows = []
    for call, taken in (("first call", first), ("later calls", later)):
        slow = sum(cpu > GOAL_MILLISECONDS for cpu, _, _ in taken)
        cpu, clock, near = max(taken)
        rows.append(
            Row(
                f"the slowest of {len(taken)} near-matches alone, {call}",
                f"{_milliseconds(cpu, clock)}: `{near[:24]}`; {slow} miss the goal",
                GOAL,
            )
        )
    return rows


def _fresh(rules: Rules) -> Redactor:
    # The module keeps compiled patterns, with the states that earlier text made them build.
    re2.purge()
    return Engine(rules).redactor("logs")


def _repeated(text: str) -> str:
    return (text * (SIZE // len(text) + 1))[:SIZE]


def _time(redactor: Redactor, text: str) -> tuple[float, float]:
    """Redact a text; return milliseconds of the processor and of the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    redactor.string(text, "", Report(), {})
    return 1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - clock)


def _milliseconds(cpu: float, clock: float) -> str:
    return f"{cpu:.1f} ms (by the clock {clock:.1f})"


SECTION = Section(
    "Worst text",
    f"{SIZE // 1000} kB in one value, the rules that ship and {EXTRA} more; processor time, and "
    f"time by the clock. First calls: best of {_FRESH} engines that have seen no text but the "
    f"rules' own tests; later calls: best of {_LATER} in one engine.",
    rows,
)
