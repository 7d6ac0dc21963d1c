from base64 import b64encode
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.pipeline.retry import (
    MAX_RETRY_AFTER,
    Backoff,
    Verdict,
    grpc_code,
    grpc_verdict,
    loki_verdict,
    otlp_verdict,
    parse_retry_after,
    parse_retry_info,
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


def test_grpc_retries_exactly_the_codes_of_the_specification() -> None:
    def retried(*, retry_info: bool) -> set[str]:
        return {
            name
            for name, code in code_pb2.Code.items()
            if grpc_verdict(code, retry_info=retry_info) is Verdict.RETRY
        }

    always = {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAVAILABLE",
        "DATA_LOSS",
    }
    assert retried(retry_info=False) == always
    assert retried(retry_info=True) == always | {"RESOURCE_EXHAUSTED"}
    assert grpc_verdict(code_pb2.OK, retry_info=False) is Verdict.ACCEPTED


def test_grpc_bad_credential_is_not_blamed_on_the_records() -> None:
    for code in (code_pb2.UNAUTHENTICATED, code_pb2.PERMISSION_DENIED, code_pb2.UNIMPLEMENTED):
        assert grpc_verdict(code, retry_info=False) is Verdict.REFUSED_ANYWAY
    for code in (code_pb2.INVALID_ARGUMENT, code_pb2.RESOURCE_EXHAUSTED, code_pb2.UNKNOWN):
        assert grpc_verdict(code, retry_info=False) is Verdict.REFUSED


@pytest.mark.parametrize(
    ("status", "grpc_status", "code"),
    [
        (200, "0", code_pb2.OK),
        (200, "16", code_pb2.UNAUTHENTICATED),
        (503, "3", code_pb2.INVALID_ARGUMENT),
        (200, "17", code_pb2.UNKNOWN),
        (200, "00", code_pb2.UNKNOWN),
        (200, "-1", code_pb2.UNKNOWN),
        (200, "", code_pb2.UNKNOWN),
        (200, None, code_pb2.UNKNOWN),
        (0, None, code_pb2.UNKNOWN),
        (302, None, code_pb2.UNKNOWN),
        (400, None, code_pb2.INTERNAL),
        (401, None, code_pb2.UNAUTHENTICATED),
        (403, None, code_pb2.PERMISSION_DENIED),
        (404, None, code_pb2.UNIMPLEMENTED),
        (429, None, code_pb2.UNAVAILABLE),
        (500, None, code_pb2.UNKNOWN),
        (502, None, code_pb2.UNAVAILABLE),
        (503, None, code_pb2.UNAVAILABLE),
        (504, None, code_pb2.UNAVAILABLE),
    ],
)
def test_grpc_status_decides_and_that_of_http_where_there_is_none(
    status: int, grpc_status: str | None, code: int
) -> None:
    assert grpc_code(status, grpc_status) == code


def details(*messages: RetryInfo | ErrorInfo) -> str:
    status = Status(code=14)
    for message in messages:
        detail = AnyMessage()
        detail.Pack(message)
        status.details.append(detail)
    return b64encode(status.SerializeToString()).decode()


def retry_info(seconds: int, nanos: int = 0) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.seconds = seconds
    info.retry_delay.nanos = nanos
    return info


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (details(retry_info(2, 500_000_000)), 2.5),
        (details(retry_info(2)).rstrip("="), 2.0),
        (details(ErrorInfo(reason="x"), retry_info(3)), 3.0),
        (details(RetryInfo()), 0.0),
        (details(retry_info(-5)), 0.0),
        (details(retry_info(10**12)), MAX_RETRY_AFTER),
        (details(ErrorInfo(reason="x")), None),
        (details(), None),
        (None, None),
        ("", None),
        ("a", None),
        ("\xe9", None),
        ("////", None),
    ],
)
def test_retry_info_is_read_or_ignored(value: str | None, seconds: float | None) -> None:
    assert parse_retry_info(value) == seconds


@settings(deadline=None, max_examples=50)
@given(st.text() | st.binary().map(lambda data: b64encode(data).decode()))
def test_retry_info_never_raises_and_is_bounded(value: str) -> None:
    seconds = parse_retry_info(value)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER
