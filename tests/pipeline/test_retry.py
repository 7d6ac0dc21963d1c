from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.pipeline.retry import (
    MAX_RETRY_AFTER,
    Backoff,
    Verdict,
    loki_verdict,
    otlp_verdict,
    parse_retry_after,
)

NOW = 1_700_000_000.0


def test_otlp_retries_exactly_the_statuses_of_the_specification() -> None:
    retried = {s for s in range(400, 600) if otlp_verdict(s) is Verdict.RETRY}
    assert retried == {429, 502, 503, 504}
    assert all(otlp_verdict(s) is Verdict.ACCEPTED for s in range(200, 300))
    others = {otlp_verdict(s) for s in set(range(400, 600)) - retried}
    assert others == {Verdict.REFUSED, Verdict.REFUSED_ANYWAY}


def test_otlp_redirect_is_retried_so_that_a_wrong_url_loses_nothing() -> None:
    assert otlp_verdict(301) is Verdict.RETRY_SLOWLY


def test_otlp_bad_credential_is_not_blamed_on_the_records() -> None:
    assert otlp_verdict(401) is Verdict.REFUSED_ANYWAY
    assert otlp_verdict(400) is Verdict.REFUSED
    assert otlp_verdict(413) is Verdict.REFUSED


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 507])
def test_loki_server_errors_are_retried(status: int) -> None:
    assert loki_verdict(status) is Verdict.RETRY


@pytest.mark.parametrize("status", [302, 401, 403, 404])
def test_loki_configuration_faults_are_retried_slowly(status: int) -> None:
    assert loki_verdict(status) is Verdict.RETRY_SLOWLY


def test_loki_refuses_what_it_cannot_take() -> None:
    assert loki_verdict(204) is Verdict.ACCEPTED
    assert loki_verdict(400) is Verdict.REFUSED
    assert loki_verdict(415) is Verdict.REFUSED_ANYWAY


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_stays_within_its_ceiling(attempt: int, chance: float) -> None:
    assert 0 <= Backoff().delay(attempt, chance) <= 30.0


def test_backoff_doubles_up_to_the_ceiling() -> None:
    waits = [Backoff(first=1.0, ceiling=30.0).delay(attempt, 1.0) for attempt in range(7)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_backoff_never_comes_before_retry_after_and_spreads_behind_it() -> None:
    assert Backoff().delay(0, 0.0, retry_after=7.0) == 7.0
    assert Backoff().delay(0, 0.5, retry_after=7.0) == 7.5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 12 ", 12.0),
        ("86400", MAX_RETRY_AFTER),
        ("9" * 5000, MAX_RETRY_AFTER),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\N{ARABIC-INDIC DIGIT TWO}", None),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
    ],
)
def test_retry_after_is_read_or_ignored(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 300))
def test_retry_after_takes_dates(seconds: int) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
    assert parse_retry_after(date, NOW) == seconds


@settings(deadline=None, max_examples=50)
@given(st.text() | st.text("0123456789 :,GMTonJaSu+-", max_size=40))
def test_retry_after_never_raises_and_is_bounded(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER
