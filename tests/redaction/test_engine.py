"""The engine, with rules written for each test and with those that ship."""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.redaction.actions import DropRecordError
from sidecar.redaction.engine import Engine
from sidecar.redaction.faults import RulesError
from sidecar.redaction.redactor import Redactor, UnstableError
from sidecar.redaction.report import Report
from sidecar.redaction.rules import Keys, Rule, Rules, load_rules
from sidecar.settings import default_rules_dir

SHIPPED = Engine(load_rules(default_rules_dir()))
LOGS = SHIPPED.redactor("logs")
EVENTS = SHIPPED.redactor("events")


def engine(
    *rules: Mapping[str, object],
    hash_key: bytes = b"",
    ignore: tuple[str, ...] = (),
    allow: tuple[str, ...] = (),
) -> Engine:
    decoded = [msgspec.convert({"id": f"r{i}", **rule}, Rule) for i, rule in enumerate(rules)]
    return Engine(
        Rules(
            decoded,
            Keys(allow=list(allow), ignore=list(ignore)),
            {rule.id: f"test.yaml:{i}" for i, rule in enumerate(decoded)},
        ),
        hash_key,
    )


def redact(text: str, redactor: Redactor = LOGS, key: str = "", **siblings: str) -> str | None:
    return redactor.string(text, key, Report(), siblings)


def found(text: str, redactor: Redactor = LOGS) -> list[str]:
    report = Report(detailed=True)
    redactor.string(text, "", report, {})
    return [text[finding.start : finding.end] for finding in report.findings]


def test_text_without_a_finding_is_the_same_object() -> None:
    text = '127.0.0.1:51720 - "GET /api/models HTTP/1.1" 200'
    assert redact(text) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q=alice%40example.com", "q=%5BREDACTED_EMAIL%5D"),
        ("q=alice%2540example.com", "q=%255BREDACTED_EMAIL%255D"),
        ("n=%2B1%20%28415%29%20555-2671&m=1", "n=%5BREDACTED_PHONE%5D&m=1"),
        ("card=4111+1111+1111+1111", "card=%5BREDACTED_CARD%5D"),
        ("is%20457-55-5462%20and", "is%20%5BREDACTED_US_SSN%5D%20and"),
        ("mail%20alice@example.com", "mail%20%5BREDACTED_EMAIL%5D"),
        (r'{"m":"alice\u0040example.com"}', '{"m":"[REDACTED_EMAIL]"}'),
        (r"alice@ex\u0061mple.com", "[REDACTED_EMAIL]"),
        ("alice&#64;example.com", "[REDACTED_EMAIL]"),
        ("alice&commat;example.com", "[REDACTED_EMAIL]"),
    ],
)
def test_encoded_values_are_redacted_in_their_encoding(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_placeholder_beside_an_encoded_word_stays_readable() -> None:
    assert redact("bob@example.org asked for /a%20b") == "[REDACTED_EMAIL] asked for /a%20b"


def test_findings_are_offsets_in_the_input() -> None:
    text = "SSN 457-55-5462 457-55-5463 of bob%40example.org, card 4111 1111 1111 1111"
    assert found(text) == ["457-55-5462", "457-55-5463", "bob%40example.org", "4111 1111 1111 1111"]


def test_findings_of_later_passes_are_offsets_in_the_input_too() -> None:
    redactor = engine(
        {"pattern": "secret", "action": {"replace": {"with": "x"}}},
        {"pattern": "axb", "action": {"replace": {"with": "[REDACTED_Y]"}}},
    ).redactor("logs")
    text = "secret asecretb secret"
    assert redact(text, redactor) == "x [REDACTED_Y] x"
    assert found(text, redactor) == ["secret", "secret", "secret", "asecretb"]


def test_a_value_behind_a_lookalike_is_found() -> None:
    assert (
        redact("1111 2222 3333 4444 4111 1111 1111 1111") == "1111 2222 3333 4444 [REDACTED_CARD]"
    )
    assert redact("AB12 CDEF GB69PMNJ18913943430745") == "AB12 CDEF [REDACTED_IBAN]"


def test_overlapping_matches_are_leftmost_then_longest_then_first() -> None:
    redactor = engine({"pattern": "bcd"}, {"pattern": "abc"}, {"pattern": "abcd"}).redactor("logs")
    assert redact("abcde", redactor) == "[REDACTED_R2]e"
    same = engine({"pattern": "abc"}, {"pattern": "a.c"}).redactor("logs")
    assert redact("abc", same) == "[REDACTED_R0]"


def test_only_what_rules_write_counts_as_a_placeholder() -> None:
    assert redact("[CARD:4111111111111111]") == "[CARD:[REDACTED_CARD]]"
    assert redact("[REDACTED:4111111111111111]") == "[REDACTED:[REDACTED_CARD]]"


def test_a_value_that_a_sanitizer_would_cut_is_found_whole() -> None:
    assert redact('"GET /s?text=4111 1111 1111 1111 HTTP/1.1" 200') == (
        '"GET /s?text=%5BREDACTED%5D HTTP/1.1" 200'
    )
    assert redact("https://h/s?auth=Bearer abc123def456") == (
        "https://h/s?auth=%5BREDACTED%5D [REDACTED_BEARER]"
    )


def test_many_values_side_by_side_are_all_found() -> None:
    assert redact(" ".join(["+442071838750"] * 40)) == " ".join(["[REDACTED_PHONE]"] * 40)


@pytest.mark.parametrize(
    "text",
    [
        "a%40b.cc," * 4000,
        "token=" * 6000,
        "é " + "a@b.cc " * 9000,
        ":" * 8000,
        "12345:" * 4000,
        "1:" * 8000,
        "x%20+\\n&amp;" * 5000,
    ],
)
def test_time_grows_with_the_text_not_with_its_square(text: str) -> None:
    def seconds(text: str) -> float:
        started = time.process_time()
        redact(text)
        return time.process_time() - started

    # Sixteen times the text may take sixteen times as long, and with noise five times that; by the
    # square it would take 256 times.
    shorter = text[: len(text) // 16]
    longer = min(seconds(text) for _ in range(3))
    assert longer < 80 * max(min(seconds(shorter) for _ in range(5)), 0.001)


def test_a_rule_that_matches_placeholders_leaves_them() -> None:
    redactor = engine({"pattern": r"[A-Za-z_]+"}).redactor("logs")
    assert redact("one two", redactor) == "[REDACTED_R0] [REDACTED_R0]"


def test_rules_that_never_come_to_an_end_raise() -> None:
    redactor = engine({"pattern": "a", "action": {"replace": {"with": "aa"}}}).redactor("logs")
    with pytest.raises(UnstableError):
        redact("a", redactor)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"replace": {}}, "id [REDACTED_R0]."),
        ({"replace": {"with": "-"}}, "id -."),
        ({"mask": {"keep_first": 1, "keep_last": 2}}, "id E*****34."),
        ({"mask": {"keep_last": 99, "char": "#"}}, "id ########."),
    ],
)
def test_actions_on_matches(action: dict[str, object], expected: str) -> None:
    redactor = engine({"pattern": r"E-\d{6}", "action": action}).redactor("logs")
    assert redact("id E-901234.", redactor) == expected


def test_hashes_are_keyed_and_equal_for_equal_values() -> None:
    def hashed(key: bytes, text: str) -> str | None:
        rule = {"keys": ["user"], "action": {"hash": {}}}
        return redact(text, engine(rule, hash_key=key).redactor("logs"), "user")

    first = hashed(b"k1", "alice")
    assert first == hashed(b"k1", "alice")
    assert first is not None
    assert first.startswith("[R0:")
    assert first not in {hashed(b"k1", "bob"), hashed(b"k2", "alice")}
    hashing = {"pattern": "[0-9a-f]{5,}", "action": {"hash": {}}}
    assert redact(first, engine(hashing, hash_key=b"k").redactor("logs")) == first


def test_a_rule_that_hashes_without_a_key_is_refused() -> None:
    with pytest.raises(RulesError, match=r"test\.yaml:0: rule 'r0': .*SIDECAR_HASH_KEY"):
        engine({"keys": ["user"], "action": {"hash": {}}})


def test_whole_value_actions() -> None:
    redactor = engine(
        {"keys": ["a"], "action": {"drop": {}}},
        {"keys": ["b"], "action": {"truncate": {"length": 3}}},
        {"keys": ["c"], "action": {"drop_record": {}}},
    ).redactor("logs")
    assert redact("value", redactor, "a") is None
    assert redact("value", redactor, "b") == "val"
    with pytest.raises(DropRecordError):
        redact("value", redactor, "c")


def test_keys_match_in_any_spelling_by_whole_name_or_last_part() -> None:
    redactor = engine({"keys": ["user_id", "client.user.*", "*_token"]}).redactor("logs")
    for key in ("user_id", "userId", "User-ID", "payload.userId", "client.user.x", "accessToken"):
        assert redact("v", redactor, key) == "[REDACTED_R0]", key
    for key in ("user.id", "users", "client.user", "tokens"):
        assert redact("v", redactor, key) == "v", key


def test_when_asks_the_siblings() -> None:
    redactor = engine({"keys": ["db.statement"], "when": {"db.system": "redis"}}).redactor("logs")
    assert redact("GET a", redactor, "db.statement", **{"db.system": "redis"}) == "[REDACTED_R0]"
    assert redact("GET a", redactor, "db.statement", **{"db.system": "sqlite"}) == "GET a"


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (200, "200"), ("x", "x")])
def test_when_compares_values_of_every_kind_as_text(value: object, text: str) -> None:
    redactor = engine({"keys": ["a"], "when": {"b": text}}).redactor("logs")
    assert redactor.string("v", "a", Report(), {"b": value}) == "[REDACTED_R0]"
    assert redactor.string("v", "a", Report(), {}) == "v"


def test_a_number_that_a_rule_by_key_leaves_is_looked_at() -> None:
    rules = ({"keys": ["n"], "action": {"truncate": {"length": 50}}}, {"find": "card"})
    report = Report()
    assert engine(*rules).redactor("logs").number(4111111111111111, "n", report, {}) == (
        "[REDACTED_R1]"
    )
    assert engine(*rules).redactor("logs").number(7, "n", Report(), {}) == 7


def test_a_dropped_record_is_reported() -> None:
    for rule in ({"keys": ["c"]}, {"pattern": "value"}):
        report = Report()
        redactor = engine({**rule, "action": {"drop_record": {}}}).redactor("logs")
        with pytest.raises(DropRecordError):
            redactor.string("value", "c", report, {})
        assert dict(report.counts) == {("c", "r0"): 1}


def test_exceptions_by_key_and_value() -> None:
    redactor = engine(
        {"pattern": r"\d+", "except": {"keys": ["port"], "values": ["^1$"]}}
    ).redactor("logs")
    assert redact("80 1 2", redactor, "count") == "[REDACTED_R0] 1 [REDACTED_R0]"
    assert redact("80", redactor, "port") == "80"


def test_ignored_keys_are_not_looked_at() -> None:
    redactor = engine({"pattern": "a"}, ignore=("trace_id",)).redactor("logs")
    identifier = "a" * 32
    assert redact(identifier, redactor, "traceId") == identifier
    # What stands there is looked at all the same when it is no id.
    assert redact("a@x", redactor, "traceId") == "[REDACTED_R0]@x"
    assert redact("457-55-5462", LOGS, "trace_id") == "[REDACTED_US_SSN]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("employee E-123456 left", True),
        ("E-123456, Employee no.", True),
        ('{"newEmployeeId":"E-123456"}', True),
        ("staff member E-123456", True),
        ("part E-123456", False),
        ("employees E-123456", False),
        ("employee\nE-123456", False),
        ("employee " + "." * 64 + " E-123456", False),
    ],
)
def test_keywords_must_stand_near(text: str, found: bool) -> None:
    rule = {"pattern": r"E-\d{6}", "keywords": ["employee", "staff member"]}
    redactor = engine(rule).redactor("logs")
    expected = text.replace("E-123456", "[REDACTED_R0]") if found else text
    assert redact(text, redactor) == expected


def test_a_keyword_in_the_key_counts_as_near() -> None:
    redactor = engine({"pattern": r"\d{6}", "keywords": ["employee"]}).redactor("logs")
    assert redact("123456", redactor, "payload.employeeId") == "[REDACTED_R0]"
    assert redact("123456", redactor, "payload.order") == "123456"


def test_words_of_the_detector_and_keywords_of_the_rule_must_both_stand_near() -> None:
    rule = {"find": "high-entropy", "keywords": ["billing"]}
    redactor = engine(rule).redactor("logs")
    value = "q7Rk2VbX9mT4sLz8WpE1nYc6D"
    assert redact(f"billing secret={value}", redactor) == "billing secret=[REDACTED_R0]"
    assert redact(f"secret={value}", redactor, "billing_line") == "secret=[REDACTED_R0]"
    assert redact(f"secret={value}", redactor) == f"secret={value}"


@pytest.mark.parametrize(
    ("check", "valid", "invalid"),
    [
        ("luhn", "7992 7398 713", "7992 7398 714"),
        ("mod-97-10", "435411161155111431", "435411161155111432"),
        ("verhoeff", "12340", "12341"),
        ("es.nif", "54362315-K", "54362315-J"),
    ],
)
def test_what_does_not_pass_the_check_stays(check: str, valid: str, invalid: str) -> None:
    redactor = engine({"pattern": r"\b\d[\d -]+[A-Z]?\b", "validate": check}).redactor("logs")
    assert redact(valid, redactor) == "[REDACTED_R0]"
    assert redact(invalid, redactor) == invalid


def test_audit_rules_count_and_change_nothing() -> None:
    redactor = engine(
        {"pattern": "secret"},
        {"pattern": r"\bsec\w+", "mode": "audit"},
        {"keys": ["user"], "mode": "audit", "action": {"drop_record": {}}},
    ).redactor("logs")
    report = Report(detailed=True)
    assert redactor.string("a secret section", "user", report, {}) == "a [REDACTED_R0] section"
    assert dict(report.counts) == {("user", "r0"): 1}
    assert dict(report.audited) == {("user", "r2"): 1}
    report = Report(detailed=True)
    assert redactor.string("a%20secret section", "b", report, {}) == "a%20%5BREDACTED_R0%5D section"
    assert dict(report.audited) == {("b", "r1"): 2}
    only_audited = Report()
    assert redactor.string("section", "b", only_audited, {}) == "section"
    assert not only_audited


def test_the_tests_of_an_audit_rule_say_what_it_would_do() -> None:
    rule = {"pattern": "secret", "mode": "audit"}
    engine({**rule, "tests": [{"in": "a secret", "out": "a [REDACTED_R0]"}]})
    with pytest.raises(RulesError, match="test 1 gives"):
        engine({**rule, "tests": [{"keep": "a secret"}]})


def test_a_rule_holds_for_its_signals_only() -> None:
    compiled = engine({"pattern": "a", "signals": ["events"]})
    assert redact("a", compiled.redactor("events")) == "[REDACTED_R0]"
    assert redact("a", compiled.redactor("traces")) == "a"


def test_card_numbers_sent_as_integers_are_found_and_other_numbers_stay() -> None:
    report = Report()
    assert LOGS.number(4111111111111111, "n", report, {}) == "[REDACTED_CARD]"
    assert LOGS.number(4111111111111111.0, "n", report, {}) == "[REDACTED_CARD]"
    for number in (1795459041011874643, 4111111111111112, 8090, 6_000_000_000_000, True, 0.5):
        assert LOGS.number(number, "n", report, {}) is number


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"pattern": "(?=a)b"}, "look-around"),
        ({"pattern": r"(a)\1"}, "back-references"),
        ({"find": "nonsense"}, "unknown detector 'nonsense'; there are email, "),
        ({"pattern": "a", "validate": "crc32"}, "unknown check 'crc32'; there are luhn, "),
        ({"find": "email", "signals": []}, "signals is empty"),
        ({"find": "email", "except": {"values": ["("]}}, "not RE2"),
        ({"find": "email", "tests": [{"keep": "a@example.com"}]}, "test 1 gives"),
    ],
)
def test_faulty_rules_are_refused_with_their_place(rule: dict[str, object], reason: str) -> None:
    with pytest.raises(RulesError) as caught:
        engine(rule)
    assert str(caught.value).startswith("test.yaml:0: rule 'r0': ")
    assert reason in str(caught.value)


PERSONAL = st.sampled_from(
    [
        "alice.johnson@example.com",
        "4111 1111 1111 1111",
        "457-55-5462",
        "+1 (415) 555-2671",
        "FR7630006000011234567890189",
        "203.0.113.77",
        "2001:db8::8a2e:370:7334",
        "3c:22:fb:9a:10:7e",
        "https://u:p@h.example.org/x?y=z",
        "password=hunter2",
        "Bearer 0a1b2c3d4e5f",
        "AKIAIOSFODNN7EXAMPLE",
        "%40%20%2B",
        r"\u0040",
        "&#64;",
        "[REDACTED_EMAIL]",
        "%5BREDACTED_CARD%5D",
    ]
)
MIXED = st.lists(PERSONAL | st.text(max_size=12), max_size=8).map("".join)


@settings(max_examples=400, deadline=None)
@given(MIXED)
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert once is not None
    assert redact(once) == once


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789 .:-+()%@abcdefxGBFR2[]&\\u=/?;#"))
def test_arbitrary_text_never_raises(text: str) -> None:
    assert redact(text) is not None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=32).map(bytes.hex) | st.uuids().map(str))
def test_ids_in_text_stay(identifier: str) -> None:
    # Sixteen digits between letters may be part of a digest; alone they may be a card.
    if not identifier.isdigit():
        assert redact(f"trace {identifier} done") == f"trace {identifier} done"


def test_the_shipped_rules_hold_their_own_tests_and_say_what_they_are_for() -> None:
    for rule in load_rules(default_rules_dir()).rules:
        assert rule.tests, rule.id
        assert rule.description, rule.id


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="there is no rule"):
        load_rules(tmp_path)
