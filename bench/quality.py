"""What is found of what must be found, and what is changed of what must stay."""

import json
from urllib.parse import quote, unquote

from bench.table import Row, Section, progress
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.rules import load_rules
from sidecar.settings import default_rules_dir
from tests.corpora import (
    ASKED,
    Score,
    labelled_texts,
    operational_lines,
    score,
    spans_found,
)
from tests.redaction.token_samples import TOKEN_SAMPLES, TOKEN_VALUES

_NAMES = {
    "EMAIL_ADDRESS": "e-mail addresses",
    "CREDIT_CARD": "cards",
    "IBAN_CODE": "IBAN",
    "US_SSN": "US SSN",
    "IP_ADDRESS": "IP addresses",
    "PHONE_NUMBER": "phone numbers",
}
_GOALS = {"CREDIT_CARD": "≥ 97 %", "PHONE_NUMBER": "≥ 85 %"}


def rows() -> list[Row]:
    redactor = Engine(load_rules(default_rules_dir())).redactor("logs")
    progress("recall")
    recall = recall_rows(score(labelled_texts(), lambda text: spans_found(text, redactor)))
    progress("secrets, operational text")
    return [*recall, *_secret_rows(redactor), _operational_row(redactor)]


def recall_rows(result: Score, *, by: str = "") -> list[Row]:
    """Return recall by type and together, and false positives; ``by`` names another product."""
    who, goals = (f", {by}", {}) if by else ("", dict.fromkeys(ASKED, "100 %") | _GOALS)
    return [
        *(
            Row(f"recall, {_NAMES[kind]}{who}", _share(result, kind), goals.get(kind, ""))
            for kind in ASKED
        ),
        Row(f"recall, all six{who}", _share(result, *ASKED), "" if by else "≥ 95 %"),
        Row(f"false positives{who}", str(len(result.false)), "" if by else "≤ 5"),
    ]


def _share(result: Score, *kinds: str) -> str:
    found = sum(result.found[kind] for kind in kinds)
    labelled = sum(result.labelled[kind] for kind in kinds)
    return f"{100 * result.recall(*kinds):.1f} % ({found}/{labelled})"


def _surroundings(sample: str) -> dict[str, str]:
    return {
        "bare": sample,
        "key=value": f"level=info k={sample} n=1",
        "JSON": json.dumps({"k": sample, "n": 1}),
        "URL": f"https://h.example.org/p/{quote(sample, safe='')}?n=1",
        "percent-encoded": quote(f'"{sample}"', safe=""),
    }


def _secret_rows(redactor: Redactor) -> list[Row]:
    kept: dict[str, list[str]] = {place: [] for place in _surroundings("")}
    for name, sample in TOKEN_SAMPLES.items():
        for place, text in _surroundings(sample).items():
            redacted = redactor.string(text, "", Report(), {}) or ""
            if _shows(TOKEN_VALUES[name], unquote(redacted)):
                kept[place].append(name)
    return [
        Row(
            f"token formats found, {place}",
            f"{len(TOKEN_SAMPLES) - len(names)} of {len(TOKEN_SAMPLES)}{_listed(names)}",
            "all",
        )
        for place, names in kept.items()
    ]


def _shows(value: str, text: str) -> bool:
    """Tell whether a third of a value is still to be read somewhere."""
    length = max(8, len(value) // 3)
    return any(value[i : i + length] in text for i in range(len(value) - length + 1))


def _operational_row(redactor: Redactor) -> Row:
    lines = [line for _, line in operational_lines()]
    changed = sum(redactor.string(line, "", Report(), {}) != line for line in lines)
    return Row(f"operational lines changed, of {len(lines)}", str(changed), "0")


def _listed(names: list[str]) -> str:
    if not names:
        return ""
    return f" (not {', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


SECTION = Section(
    "Quality",
    "The rules that ship on the labelled corpus `tests/data/pii-dev.jsonl`, on one sample of every "
    "token format in five surroundings, and on `tests/data/operational.txt`.",
    rows,
)
