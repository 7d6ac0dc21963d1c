"""How much of a labelled corpus the rules that ship find, and what they take by mistake."""

import pytest

from sidecar.redaction.engine import Engine
from sidecar.redaction.rules import load_rules
from sidecar.settings import default_rules_dir
from tests.corpora import ASKED, Score, labelled_texts, score, spans_found

# Recall that must be reached, by type.
REQUIRED = {
    "EMAIL_ADDRESS": 1.0,
    "IBAN_CODE": 1.0,
    "US_SSN": 1.0,
    "IP_ADDRESS": 1.0,
    "CREDIT_CARD": 0.97,
    "PHONE_NUMBER": 0.85,
}


@pytest.fixture(scope="module")
def result() -> Score:
    redactor = Engine(load_rules(default_rules_dir())).redactor("logs")
    return score(labelled_texts(), lambda text: spans_found(text, redactor))


@pytest.mark.parametrize("kind", ASKED)
def test_of_each_type_enough_is_found(result: Score, kind: str) -> None:
    missed = [value for type_, value in result.missed if type_ == kind]
    assert result.recall(kind) >= REQUIRED[kind], missed


def test_of_all_types_together_enough_is_found(result: Score) -> None:
    assert result.recall(*ASKED) >= 0.95, result.missed


def test_next_to_nothing_is_found_outside_the_labels(result: Score) -> None:
    assert len(result.false) <= 5, result.false
