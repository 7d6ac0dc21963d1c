"""The scanner finds what all finders find when each goes through the whole text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.redaction.compiled import compile_finders
from sidecar.redaction.rules import Rule, load_rules
from sidecar.redaction.scanner import Finder, Scanner
from sidecar.settings import default_rules_dir
from tests.redaction.test_engine import PERSONAL

OWN = [
    Rule(id="employee", pattern=r"\bE-\d{6}\b", keywords=["employee", "staff member"]),
    Rule(id="ticket", pattern=r"(?i)\bticket[ #-]{1,2}(?P<value>\d{4,8})"),
    Rule(id="at-line-ends", pattern=r"^begin \w+|\w+ end$"),
    Rule(id="block", pattern=r"(?s)<a>.{0,40}</a>"),
    Rule(id="checked", pattern=r"\b\d{8,12}\b", validate="luhn"),
    Rule(id="each", find="high-entropy", keywords=["billing"]),
]


def compiled(rules: list[Rule]) -> list[Finder]:
    return [
        finder
        for order, rule in enumerate(rules)
        if rule.keys is None
        for finder in compile_finders(rule, order, b"")
    ]


SHIPPED = compiled(load_rules(default_rules_dir()).rules)
ALL = SHIPPED + compiled(OWN)
SCANNERS = {"shipped": Scanner(SHIPPED), "with rules of its own": Scanner(ALL)}

Value = tuple[str, int, int]


def by_scanner(scanner: Scanner, text: str) -> set[Value]:
    return {(finder.rule.id, start, end) for start, end, finder in scanner(text)}


def by_loop(finders: list[Finder], text: str) -> set[Value]:
    data = text.encode()
    return {
        (finder.rule.id, len(data[:start].decode()), len(data[:end].decode()))
        for finder in finders
        for start, end in finder.all(data, finder.near)
        if not finder.near or word_in_line(finder, data, start, end)
    }


def word_in_line(finder: Finder, data: bytes, start: int, end: int) -> bool:
    """Tell whether a word stands whole in the line of a value, not just up to the value."""
    begin = data.rfind(b"\n", 0, start) + 1
    line_end = data.find(b"\n", end)
    behind = line_end if line_end >= 0 else len(data)
    return any(
        begin <= word_end and word <= behind for word, word_end in finder.near[0].places(data)
    )


WORDS = ["employee", "Staff Member", "newEmployeeId", "billing", "secret", "password", "born on"]
WORDS += ["phone", "call me at", "SSN", "passport", "version", "tax id", "lat", "steuer-id"]
PIECES = st.one_of(
    PERSONAL,
    st.sampled_from(WORDS),
    st.sampled_from(
        [
            *("E-123456", "Ticket #12345", "begin x", "x end", "<a>b\nc</a>", "79927398713"),
            *(
                "q7Rk2VbX9mT4sLz8WpE1nYc6D",
                "1985-03-14",
                "52.5200, 13.4050",
                "GB69PMNJ18913943430745",
            ),
            *("12345678-1234-4321-8765-457554622222", "127.0.0.1:8080", "a@b", "10.0.0.1/8"),
            *("86095742719", "DE136695976", "0x52908400098527886E0F7030069857D2E4169EE7"),
        ]
    ),
    st.uuids().map(str),
    st.sampled_from(
        [" ", " ", ": ", "=", "\n", ", ", "-", ".", '"', "é", "中", "\u212a", "\u017f", ""]
    ),
    st.text(max_size=6),
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)
SPACED = st.lists(PIECES, max_size=14).map(" ".join)


@pytest.mark.parametrize("name", SCANNERS)
def test_the_scanner_finds_what_a_loop_over_all_finders_finds(name: str) -> None:
    scanner = SCANNERS[name]

    @settings(max_examples=400, deadline=None)
    @given(TEXTS | SPACED)
    def holds(text: str) -> None:
        assert by_scanner(scanner, text) == by_loop(scanner.finders, text)

    holds()


@pytest.mark.parametrize(
    "unit",
    [
        "alice@example.com ",
        "employee E-123456\n",
        "employee E-123456 ",
        "ticket #12345,",
        "4111 1111 1111 1111\n",
        "457-55-5462 é ",
        "secret=q7Rk2VbX9mT4sLz8WpE1nYc6D ",
        "+1 (415) 555-2671; ",
        "\u212a ticket-1234 ",
        "<a>b\nc</a>",
    ],
)
def test_dense_texts_are_scanned_like_others(unit: str) -> None:
    scanner = SCANNERS["with rules of its own"]
    for text in (unit * 200, unit * 3 + "x" * 2000 + unit, "x" * 2000 + "\n" + unit * 70):
        assert by_scanner(scanner, text) == by_loop(scanner.finders, text)
        assert by_scanner(scanner, text)


def test_rules_that_do_not_hold_are_skipped() -> None:
    scanner = Scanner(compiled([OWN[1], Rule(id="word", pattern=r"ticket[ #]+\d")]))
    text = "ticket #12345"
    assert by_scanner(scanner, text) == {("ticket", 8, 13), ("word", 0, 9)}
    assert [finder.rule.id for _, _, finder in scanner(text, {0})] == ["word"]
    assert scanner(text, {0, 1}) == []


def test_words_that_a_name_holds_need_not_stand_near() -> None:
    scanner = Scanner(compiled([OWN[0]]))
    assert scanner("E-123456") == []
    assert [found[:2] for found in scanner("E-123456", frozenset(), {0: ()})] == [(0, 8)]
    assert scanner("E-123456", {0}, {0: ()}) == []


def test_places_are_characters_not_bytes() -> None:
    scanner = Scanner(compiled([Rule(id="email", find="email")]))
    text = "é中\U0001f600 alice@example.com é bob@example.org"
    assert sorted(text[start:end] for start, end, _ in scanner(text)) == [
        "alice@example.com",
        "bob@example.org",
    ]


def test_without_finders_nothing_is_found() -> None:
    assert Scanner([])("any text") == []
