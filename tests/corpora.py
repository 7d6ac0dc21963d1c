"""The corpora that redaction is measured on, and how a finding is held against a label."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report

_DATA = Path(__file__).parent / "data"
Spans = list[tuple[int, int]]

# What the rules that ship have to find, as the corpus calls it.
ASKED = ("EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "PHONE_NUMBER")


class Label(msgspec.Struct, frozen=True):
    """A value in a text: offsets in characters, ``end`` behind the last."""

    type: str
    start: int
    end: int


class LabelledText(msgspec.Struct, frozen=True):
    text: str
    spans: list[Label]


class Score(msgspec.Struct):
    """What was found of a labelled corpus.

    Attributes:
        labelled, found: type → number of values.
        missed: the values of the types asked for that were not found, with their types.
        false: what was found outside every labelled span, each in its text.
    """

    labelled: Counter[str]
    found: Counter[str]
    missed: list[tuple[str, str]]
    false: list[tuple[str, str]]

    def recall(self, *types: str) -> float:
        """Return the share of the values of these types that was found, 0 to 1."""
        return sum(self.found[t] for t in types) / sum(self.labelled[t] for t in types)


def labelled_texts() -> list[LabelledText]:
    """Return the corpus of labelled personal data."""
    lines = (_DATA / "pii-dev.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=LabelledText) for line in lines]


def operational_lines() -> Iterator[tuple[str, str]]:
    """Yield what no rule may change: the name of the group, the line."""
    group = ""
    for line in (_DATA / "operational.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            group = line.removeprefix("# ")
        elif line:
            yield group, line


def spans_found(text: str, redactor: Redactor) -> Spans:
    """Return where a redactor finds something in a text."""
    report = Report(detailed=True)
    redactor.string(text, "", report, {})
    return [(finding.start, finding.end) for finding in report.findings]


def score(texts: list[LabelledText], find: Callable[[str], Spans]) -> Score:
    """Hold what is found against the labels.

    A value counts as found when all of its characters are covered; what touches no label at all is
    a false positive.
    """
    result = Score(Counter(), Counter(), [], [])
    for labelled in texts:
        spans = find(labelled.text)
        covered = {place for start, end in spans for place in range(start, end)}
        for label in labelled.spans:
            if label.type in ASKED:
                value = labelled.text[label.start : label.end]
                result.labelled[label.type] += 1
                if covered.issuperset(range(label.start, label.end)):
                    result.found[label.type] += 1
                else:
                    result.missed.append((label.type, value))
        result.false += [
            (labelled.text[start:end], labelled.text)
            for start, end in spans
            if all(end <= label.start or label.end <= start for label in labelled.spans)
        ]
    return result
