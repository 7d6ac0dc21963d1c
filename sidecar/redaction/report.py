"""What was found: of one value, and of all since the start."""

from collections import Counter

import msgspec

from sidecar import metrics
from sidecar.redaction.rules import Mode


class Finding(msgspec.Struct, frozen=True):
    """One value that a rule found.

    Attributes:
        rule: the rule's id.
        start: offset of its first character in the input string.
        end: offset behind its last character.
        path: where that string stands: ``""`` for plain text, else a JSON Pointer (RFC 6901).
    """

    rule: str
    start: int
    end: int
    path: str


class Report:
    """Collects the findings of one record or one request.

    Attributes:
        findings: in order of appearance, when ``detailed``; else empty.
        counts: (attribute key, rule id) → number of findings of rules that are enforced.
        audited: the same for rules that change nothing, but are to be counted.
        fields: last parts of the names of the fields in which something was found, in order of
            appearance, each once.
    """

    def __init__(self, *, detailed: bool = False) -> None:
        self.detailed = detailed
        self.findings: list[Finding] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.audited: Counter[tuple[str, str]] = Counter()
        self.fields: dict[str, None] = {}

    def __bool__(self) -> bool:
        """Tell whether a rule changed anything."""
        return bool(self.counts)

    def merge(self, other: "Report") -> None:
        """Add the findings of another report."""
        if other.counts:
            self.counts.update(other.counts)
            self.fields.update(other.fields)
        if other.audited:
            self.audited.update(other.audited)
        self.findings.extend(other.findings)

    def audit(self, other: "Report") -> None:
        """Add the findings of another report as those of rules that change nothing."""
        self.audited.update(other.counts)
        self.findings.extend(other.findings)

    def at(self, other: "Report", path: str) -> None:
        """Add the findings of another report as those in the string at a path."""
        self.counts.update(other.counts)
        self.fields.update(other.fields)
        for finding in other.findings:
            self.findings.append(Finding(finding.rule, finding.start, finding.end, path))

    def within(self, other: "Report", path: str, length: int) -> None:
        """Add the findings of another report, made of what one string of this length holds."""
        self.counts.update(other.counts)
        self.fields.update(other.fields)
        for finding in other.findings:
            self.findings.append(Finding(finding.rule, 0, length, path))

    def add(self, rule: str, key: str, start: int, end: int, pointer: str) -> None:
        """Note one finding."""
        self.counts[key, rule] += 1
        if key:
            self.fields.setdefault(key.rpartition(".")[2])
        if self.detailed:
            self.findings.append(Finding(rule, start, end, pointer))


class RedactionCount(msgspec.Struct, frozen=True):
    """One row of `GET /redactions`."""

    signal: str
    key: str
    rule: str
    mode: Mode
    count: int


class Redactions:
    """What was redacted since the start, by signal, attribute key and rule; no values.

    Attribute keys come from outside, so at most ``most`` rows are kept apart; what comes later is
    counted under the key ``(other)``.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._counts: Counter[tuple[str, str, str, Mode]] = Counter()

    def add(self, signal: str, report: Report) -> None:
        """Add what one report holds, to the metrics too."""
        self._count(signal, report.counts, "enforce")
        self._count(signal, report.audited, "audit")

    def _count(self, signal: str, counts: Counter[tuple[str, str]], mode: Mode) -> None:
        for (key, rule), count in counts.items():
            row = (signal, key, rule, mode)
            if row not in self._counts and len(self._counts) >= self._most:
                row = (signal, "(other)", rule, mode)
            self._counts[row] += count
            metrics.FINDINGS.labels(rule, signal, mode).inc(count)

    def rows(self) -> list[RedactionCount]:
        """Return the counts, most frequent first."""
        return [RedactionCount(*row, count) for row, count in self._counts.most_common()]
