"""What goes on of Sentry's envelopes, which real clients made."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from hypothesis import given
from hypothesis import strategies as st
from sentry_sdk import logger
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from sidecar.proxy.unchecked import UncheckedError, UnknownTypeError
from sidecar.redaction.walk_otlp import Outcome
from tests.proxy.rules import HTTP, redact
from tests.redaction.test_engine import engine
from tests.redaction.test_properties import PLANTED, holds

TYPE, PATH = "application/x-sentry-envelope", "/api/42/envelope/"
DSN = "https://0123456789abcdef0123456789abcdef@o1.ingest.sentry.io/42"
KEPT = HTTP.exempting(["dsn"])
NAME = "Alice Johnson"


def envelope(*items: tuple[dict[str, Any], bytes], header: bytes = b"{}") -> bytes:
    lines = [header]
    for said, payload in items:
        lines += [json.dumps(said).encode(), payload]
    return b"\n".join(lines)


class _Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.bodies.append(envelope.serialize())


def everything_a_client_sends() -> list[bytes]:
    """Return the envelopes of a client that is told of personal values wherever it takes any."""
    kept = _Kept()
    options: dict[str, Any] = {
        "dsn": DSN,
        "transport": kept,
        "traces_sample_rate": 1.0,
        "enable_logs": True,
        "release": "webui@1.2.3",
        "default_integrations": False,
        "include_source_context": False,
    }
    email, card, ssn, phone, iban, address, mac = PLANTED
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(sentry_sdk.Client(**options))
        scope.set_user({"id": "7", "email": email, "username": NAME, "ip_address": address})
        scope.set_tag("contact", phone)
        scope.set_context("payment", {"card": card, "account": iban})
        scope.start_session()
        with (
            sentry_sdk.start_transaction(op="task", name=f"chat of {email}"),
            sentry_sdk.start_span(op="http.client", name=f"GET https://h.example/?q={email}"),
        ):
            sentry_sdk.add_breadcrumb(message=f"SSN {ssn}", data={"from": mac})
            try:
                raise ValueError(f"no account {iban} of {email}")
            except ValueError:
                sentry_sdk.capture_exception()
        logger.info("mail to {to}", to=email, attributes={"user.name": NAME})
        scope.add_attachment(bytes=b"\0\1" + email.encode(), filename="dump.bin")
        scope.add_attachment(bytes=email.encode(), filename="log", content_type="text/plain")
        sentry_sdk.capture_message(f"call {phone}")
        scope.end_session()
        sentry_sdk.flush()
        scope.get_client().close()
    return kept.bodies


@pytest.fixture(scope="module")
def sent() -> Iterator[list[bytes]]:
    yield everything_a_client_sends()


def test_nothing_personal_passes_of_what_a_client_sends(sent: list[bytes]) -> None:
    kinds = set()
    for body in sent:
        changed = redact(body, TYPE, PATH, KEPT, unknown="drop")
        assert redact(changed, TYPE, PATH, KEPT, unknown="drop") is changed
        for line in changed.decode().splitlines():
            assert not any(holds(line, value) for value in [*PLANTED, NAME]), line
        before, after = Envelope.deserialize(body), Envelope.deserialize(changed)
        assert after.headers.keys() == before.headers.keys()
        assert after.headers.get("event_id") == before.headers.get("event_id")
        # The attachment that is no text is left out.
        items = [item for item in before.items if item.headers.get("filename") != "dump.bin"]
        assert [item.type for item in after.items] == [item.type for item in items]
        kinds |= {item.type for item in after.items}
    assert kinds == {"event", "transaction", "session", "log", "attachment"}


def test_what_is_not_personal_stays_in_an_event(sent: list[bytes]) -> None:
    first = next(body for body in sent if b'"exception"' in body)
    before = Envelope.deserialize(first).get_event()
    after = Envelope.deserialize(redact(first, TYPE, PATH, KEPT)).get_event()
    assert before is not None
    assert after is not None
    for name in ("event_id", "timestamp", "level", "release", "platform", "sdk"):
        assert after[name] == before[name]
    for name in ("trace_id", "span_id", "parent_span_id", "op"):
        assert after["contexts"]["trace"][name] == before["contexts"]["trace"][name]
    assert after["user"]["id"] == "7"
    assert after["exception"]["values"][0]["type"] == "ValueError"


def test_attributes_of_logs_are_redacted_by_their_own_names() -> None:
    log = {
        "version": 2,
        "items": [
            {
                "body": "by alice@example.com",
                "attributes": {
                    "user.name": {"value": NAME, "type": "string"},
                    "user.email": {"value": "x", "type": "string"},
                    "count": {"value": 4111111111111111, "type": "integer", "more": "y"},
                    "tags": {"value": ["a@example.com", "b"], "type": "array"},
                    "none": {"value": None, "type": "string", "unit": "ms"},
                },
            },
            {"body": "x"},
        ],
    }
    said = {"type": "log", "content_type": "application/vnd.sentry.items.log+json"}
    changed = redact(envelope((said, json.dumps(log).encode())), TYPE)
    assert json.loads(changed.splitlines()[2]) == {
        "version": 2,
        "items": [
            {
                "body": "by [REDACTED_EMAIL]",
                "attributes": {
                    "user.name": {"value": "[REDACTED_USER_NAME]", "type": "string"},
                    "user.email": {"value": "[REDACTED]", "type": "string"},
                    "count": {"value": "[REDACTED_CARD]", "type": "string"},
                    "tags": {"value": ["[REDACTED_EMAIL]", "b"], "type": "array"},
                    "none": {"value": None, "type": "string", "unit": "ms"},
                },
            },
            {"body": "x"},
        ],
    }
    clean = {"items": [{"attributes": {"n": {"value": 1.5, "type": "double"}}}]}
    body = envelope((said, json.dumps(clean, indent=None).encode()))
    assert redact(body, TYPE) is body
    for faulty in (b"[]", b"{}", b'{"items": 1}', b'{"items": [{"attributes": {"a": 1}}]}', b"{"):
        with pytest.raises(UncheckedError):
            redact(envelope((said, faulty)), TYPE)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"{}\n",
        b'{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}\n{"type":"event"}\n{}',
        b'{}\n\n{"type":"event","length":2}\n{}\n\n{"type":"attachment","length":0}\n\n\n',
        b'{}\n{"type":"attachment"}',
        b'{}\n{"type":"event","length":9}\n{\n"a":1\n}\n',
        b'{}\n{"type":"statsd"}\na.time@millisecond:57|d|#route:index',
        b'{}\n{"type":"new","length":null}\n{"a": 1.10}\n',
    ],
)
def test_an_envelope_without_a_finding_is_the_same_object(body: bytes) -> None:
    assert redact(body, TYPE) is body
    for content_type in ("", "text/plain;charset=UTF-8"):
        assert redact(body, content_type, PATH) is body


def test_lengths_are_those_of_what_is_written() -> None:
    event, text = b'{"message":\n"mail %s"}', b"mail %s"

    def of(value: bytes) -> bytes:
        return envelope(
            ({"type": "event", "length": len(event % value)}, event % value),
            ({"type": "statsd", "length": len(text % value)}, text % value),
            ({"type": "session"}, b'{"by": "%s"}' % value),
        )

    before = Envelope.deserialize(of(b"[REDACTED_EMAIL]"))
    after = Envelope.deserialize(redact(of(b"alice.johnson@example.com"), TYPE))
    assert [item.headers for item in after.items] == [item.headers for item in before.items]
    assert [item.get_bytes() for item in after.items] == [i.get_bytes() for i in before.items]


def test_headers_are_redacted_and_the_dsn_is_kept_where_the_route_says_so() -> None:
    header = json.dumps({"dsn": DSN, "trace": {"user_id": "alice"}}).encode()
    body = envelope(({"type": "attachment", "filename": "of bob@example.com"}, b""), header=header)
    kept = redact(body, TYPE, PATH, KEPT).splitlines()
    assert json.loads(kept[0]) == {"dsn": DSN, "trace": {"user_id": "[REDACTED]"}}
    assert json.loads(kept[1])["filename"] == "of [REDACTED_EMAIL]"
    assert DSN.encode() not in redact(body, TYPE, PATH)


BINARY = b"\x89PNG\n\n\0 alice@example.com"


@pytest.mark.parametrize(
    "said",
    [
        {"type": "attachment", "content_type": "image/png"},
        {"type": "replay_recording"},
        {"type": "replay_video"},
        {"type": "profile_chunk"},
        {"type": "of a later version"},
        {},
    ],
)
def test_what_becomes_of_an_unknown_item_the_route_says(said: dict[str, Any]) -> None:
    said = {**said, "length": len(BINARY)}
    body = envelope((said, BINARY), ({"type": "event"}, b"{}"))
    with pytest.raises(UnknownTypeError):
        redact(body, TYPE)
    outcome = Outcome()
    assert redact(body, TYPE, unknown="drop", outcome=outcome) == envelope(
        ({"type": "event"}, b"{}")
    )
    assert (outcome.kept, outcome.dropped) == (1, 1)
    assert redact(body, TYPE, unknown="pass") is body
    assert redact(envelope((said, BINARY)), TYPE, unknown="drop") == b"{}\n"


def test_a_rule_that_drops_takes_out_the_item() -> None:
    redactor = engine({"pattern": "board", "action": {"drop_record": {}}}).redactor("http")
    body = envelope(({"type": "event"}, b'{"m":"board"}'), ({"type": "session"}, b"{}"))
    assert redact(body, TYPE, redactor=redactor) == envelope(({"type": "session"}, b"{}"))


def test_a_list_of_allowed_fields_leaves_an_envelope_one() -> None:
    redactor = engine({"find": "email"}, allow=("message",)).redactor("http")
    payload = b'{"message":"x","mood":"good"}'
    body = envelope(({"type": "event", "length": len(payload)}, payload))
    lines = redact(body, TYPE, redactor=redactor).splitlines()
    assert json.loads(lines[1]) == {"type": "event", "length": len(lines[2])}
    assert json.loads(lines[2]) == {"message": "x"}


def test_attributes_that_are_not_allowed_or_dropped_are_gone() -> None:
    said = {"type": "log", "content_type": "application/vnd.sentry.items.log+json"}
    attributes = {name: {"value": name, "type": "string"} for name in ("a", "b")}
    body = envelope((said, json.dumps({"items": [{"attributes": attributes}]}).encode()))
    drops = engine({"keys": ["a"], "action": {"drop": {}}}).redactor("http")
    left = {"items": [{"attributes": {"b": {"value": "b", "type": "string"}}}]}
    assert json.loads(redact(body, TYPE, redactor=drops).splitlines()[2]) == left
    restricted = engine({"find": "email"}, allow=("items", "b", "content_type")).redactor("http")
    assert json.loads(redact(body, TYPE, redactor=restricted).splitlines()[2]) == left
    takes_all = engine({"keys": ["items"]}).redactor("http")
    with pytest.raises(UncheckedError):
        redact(body, TYPE, redactor=takes_all)


def test_what_a_rule_writes_on_several_lines_stays_one_item() -> None:
    rule = {"pattern": "secret", "action": {"replace": {"with": "one\ntwo"}}}
    redactor = engine(rule).redactor("http")
    changed = redact(
        envelope(({"type": "statsd"}, b"secret"), ({"type": "event"}, b"{}")),
        TYPE,
        redactor=redactor,
    )
    items = Envelope.deserialize(changed).items
    assert [item.type for item in items] == ["statsd", "event"]
    assert items[0].payload.get_bytes() == b"one\ntwo"


@pytest.mark.parametrize(
    "body",
    [
        b"alice@example.com",
        b"[]",
        b'{"a": 1,\n"b": 2}',
        b"{}\nalice@example.com",
        b'{}\n{"type":"event","length":3}\n{}',
        b'{}\n{"type":"event","length":1}\n{}\n',
        b'{}\n{"type":"event","length":-1}\n{}\n',
        b'{}\n{"type":"event","length":2.0}\n{}\n',
        b'{}\n{"type":"event","length":true}\n{\n}\n',
        b'{}\n{"type":"event","length":"2"}\n{}\n',
        b'{}\n{"type":"event"}\n\x82\xa1',
        b'{}\n{"type":"statsd"}\n\xff',
        b'{}\n{"type":"attachment","content_type":"text/plain"}\n\xff',
    ],
)
@pytest.mark.parametrize("unknown", ["block", "drop", "pass"])
def test_what_is_no_envelope_never_passes(body: bytes, unknown: str) -> None:
    with pytest.raises(UncheckedError):
        redact(body, TYPE, PATH, unknown=unknown)


_PAYLOAD = st.sampled_from([b"", b"{}", b"1", b'{"a":\n"b"}', BINARY]) | st.sampled_from(
    PLANTED
).map(lambda value: json.dumps({"note": value, "password": value}).encode())
_ITEM = st.tuples(
    st.sampled_from(["event", "session", "attachment", "statsd", "new"]), _PAYLOAD, st.booleans()
)


@given(st.lists(_ITEM, max_size=4))
def test_nothing_planted_comes_out_of_an_envelope(items: list[tuple[str, bytes, bool]]) -> None:
    body = envelope(
        *(
            (
                {"type": kind, **({"length": len(payload)} if sized or b"\n" in payload else {})},
                payload,
            )
            for kind, payload, sized in items
            # Those that are always JSON must be.
            if payload.strip(BINARY) or kind in ("attachment", "new")
        )
    )
    changed = redact(body, TYPE, unknown="drop")
    assert redact(changed, TYPE, unknown="block") is changed
    for line in changed.decode().splitlines():
        assert not any(holds(line, value) for value in PLANTED), line
    kinds = [item.type for item in Envelope.deserialize(body).items if item.get_bytes() != BINARY]
    assert [item.type for item in Envelope.deserialize(changed).items] == kinds
