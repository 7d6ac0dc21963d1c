"""How patterns begin, and that the first look never passes over what one of them matches."""

import re
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.first_look import FirstLook, Sought
from sidecar.redaction.leads import leads, marks
from sidecar.redaction.patterns import (
    NOTHING,
    Search,
    compile_pattern,
    looks_at_lines,
    searching,
)


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        ("secret", {"secret"}),
        (r"api\.key", {"api.key"}),
        ("foo|bar", {"foo", "bar"}),
        ("(foo|bar)baz", {"foobaz", "barbaz"}),
        ("(?:foo|bar){2}", {"foo", "bar"}),
        ("((foo|bar)x|quux)", {"foox", "barx", "quux"}),
        ("ab[cd]x", {"abcx", "abdx"}),
        ("pass(?:word)?=x", {"password=x", "pass=x"}),
        ("abc+d", {"ab"}),
        ("(?P<value>ghp_)[a-z]+", {"ghp_"}),
        ("(foo)+bar", {"foo"}),
        ("é@ñ", {"é@ñ"}),
    ],
)
def test_a_pattern_begins_with_one_of_its_literals(pattern: str, literals: set[str]) -> None:
    found = {lead.literal for lead in leads(pattern)}
    # How far the ways to go on are told apart is a matter of their number.
    assert found
    assert all(any(one.startswith(lead) for lead in found) for one in literals), found
    assert all(any(one.startswith(lead) for one in literals) for lead in found), found


@pytest.mark.parametrize(
    ("pattern", "before", "literal", "after"),
    [
        (r"\bsecret\b", r"\b", "secret", r"\b"),
        ("^secret$", "^", "secret", "$"),
        ("[ab]cd", "[ab]", "cd", ""),
        ("x?secret", "x?", "secret", ""),
        (r"[^\w]secret", r"[^\w]", "secret", ""),
        ("secret[=:]", "", "secret", "[=:]"),
        ("secret[=:]+", "", "secret", "[=:]"),
        ("secret[=:]?", "", "secret", ""),
        ("secret(?:[a-z]|[0-9])", "", "secret", "[a-z]|[0-9]"),
    ],
)
def test_a_lead_says_what_stands_around_the_literal(
    pattern: str, before: str, literal: str, after: str
) -> None:
    (lead,) = leads(pattern)
    assert (lead.before, lead.literal, lead.after) == (before, literal, after)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d{3}-\d{4}",
        "[a-z]+secret",
        ".*secret",
        "..secret",
        "secret|[a-z]+",
        "(?:secret)?[a-z]+",
        "(?:secret)*x",
        "x",
        "12345",
        "",
        "|secret",
        r"\w\w@x",
    ],
)
def test_what_may_begin_with_anything_has_no_lead(pattern: str) -> None:
    assert leads(pattern) == ()


@pytest.mark.parametrize(
    ("pattern", "any_case"),
    [
        ("(?i)secret", True),
        ("secret", False),
        ("(?-i)secret", False),
        (r"\b(?i)secret", True),
        ("(?P<if>secret)", False),
        ("(?im)secret", True),
        ("(?i:x?)secret", False),
    ],
)
def test_flags_say_whether_the_case_of_a_literal_counts(pattern: str, any_case: bool) -> None:
    assert {lead.any_case for lead in leads(pattern)} == {any_case}


def test_flags_hold_for_the_alternatives_behind_them() -> None:
    assert {(lead.literal, lead.any_case) for lead in leads("foo|(?i)bar|baz")} >= {
        ("bar", True),
        ("baz", True),
    }


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        (r"\d+-secret-\d+", {"-secret-"}),
        (r"\w+@\w+", {"@"}),
        ("[a-z]+(?:foo|quux)[a-z]+", {"foo", "quux"}),
        ("[a-z]+foo|[0-9]+bar", {"foo", "bar"}),
        (r"\w+x(?:ab)?y+cd", {"cd"}),
        (r"\w+", set()),
        (r"\w+ab|\w+", set()),
        (r"\w+(?:ab)*", set()),
        (r"\w+(?:ab)?", set()),
        (r"\w+(?:ab){0,3}", set()),
        (r"\d+00\d+", set()),
    ],
)
def test_marks_stand_in_whatever_matches(pattern: str, literals: set[str]) -> None:
    assert {mark.literal for mark in marks(pattern)} == literals


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("a.b", True),
        ("^a$", True),
        (r"[^\n]+x", True),
        (r"[^\r\n]+x", True),
        (r"a\sb", True),
        (r"[\s\w]", True),
        ("(?i)a", True),
        ("(?m)^a", True),
        ("(?s)a.b", False),
        ("(?is)a.b", False),
        ("(?s:a.b)", False),
        (r"a\nb", False),
        ("a\nb", False),
        (r"\Aab", False),
        (r"ab\z", False),
        (r"a\x0ab", False),
        (r"a\x{a}b", False),
        (r"a\x{00000A}b", False),
        (r"a[\s\S]b", False),
        (r"a[\d\D]b", False),
        (r"a[\W\w]b", False),
        (r"a[\r\n]b", False),
    ],
)
def test_a_pattern_looks_at_lines_unless_it_names_their_ends(pattern: str, lines: bool) -> None:
    assert looks_at_lines(pattern) is lines


# Patterns as rules might have them; and some that are meant to mislead whoever reads them.
PATTERNS = [
    "secret",
    r"\bsecret\b",
    "^secret",
    "secret$",
    "^secret$",
    r"\Bsecret",
    r"secret\B",
    r"(?i)\bsecret\b",
    "se(?i)cret",
    "(?i)kelvin|sssk",
    "(?i)task=[a-z]+",
    "foo|bar|baz",
    "(?i)foo|bar",
    "foo|(?i)bar|baz",
    "(foo|bar)?qux[0-9]",
    "(?:foo|bar){2}",
    "(?:foo)+x",
    "(?:foo)*xyz",
    "(?:foo){0,2}xyz",
    "fo{2}bar",
    "fo{0}bar",
    "fo*bar",
    "[fb]oo+",
    "[fb]?oo-",
    "[^f]oobar",
    "[^a-z]?oobar",
    r"(?:^|\W)token=(?P<value>\w+)",
    r"(?:^|[^\p{L}])word(?:$|[^\p{L}])",
    r"(?:^|[^\p{L}])(?i:(?:)word|(?:)other)(?:$|[^\p{Ll}])",
    r"\p{Ll}(?:Word|Other)(?:$|[^\p{Ll}])",
    r"\pLword",
    r"[\p{L}\d]word",
    r"\PLword",
    "é@ñ",
    "(?i)é@ñ",
    "[éñ]tude",
    r"\x41\x42cd",
    r"\x{e9}tude",
    r"\Qa.b\Ec+",
    r"a\.b\.c[0-9]{2}",
    r"\w+@\w+\.com",
    r"[a-z]+-secret-[0-9]+",
    r"\d{3}-\d{2}-\d{4}",
    r"\bE-\d{6}\b",
    r"(?i)\be-\d{6}\b",
    r"[A-Z]{2}\d{2}[ -]?\d{4}",
    r"a|bc|\d\d",
    r"(a|b|c)(d|e|f)(g|h)",
    r"(?:ab|a)(?:bc|c)d",
    r"x{2,3}y",
    r"(?:x|yy)?zz(?:$|[,;])",
    r"(?U)foo.+bar",
    r"foo(?:)bar",
    r"foo(|bar)baz",
    r"(?:foo|)bar",
    r"foo\sbar",
    r"foo[\s\S]bar",
    r"(?s)foo.*bar",
    r"foo\nbar",
    r"\Afoo",
    r"foo\z",
    r"[]f]oo",
    r"[a\]]oo",
    r"[a-]oo",
    r"[.+*]oo",
    r"[[:alpha:]_]oo",
    r"(?i)[sk]oo",
    r"(?i)[^k]oobar",
    r"(?P<value>ab)(?P<other>cd)?ef",
    r"\$\{ab\}",
    r".?foobar",
    r".foobar",
    r"\b.foobar",
    r"ab\b-cd",
    r"ab(?:$|\b|c)",
    r"ab(?:(?i)c|d)e",
    r"ab(?i)",
]
SHAPES = [
    (shape.pattern, shape.lines) for detector in DETECTORS.values() for shape in detector.shapes
]
CASES = [(pattern, looks_at_lines(pattern)) for pattern in PATTERNS] + SHAPES

_ASCII = {"L": "A-Za-z", "Ll": "a-z", "Lu": "A-Z", "N": "0-9", "Nd": "0-9"}
_PYTHON = re.compile(
    r"(?P<quoted>\\Q.*?(?:\\E|$))|\\p(?:\{(?P<name>\w+)\}|(?P<letter>.))|\\P(?:\{\w+\}|.)"
    r"|\\x\{(?P<hex>[0-9a-fA-F]+)\}|(?P<around>\\[bBAz])|\\.|(?P<bracket>[\[\]])|(?P<end>[$^])",
    re.DOTALL,
)


def in_python(pattern: str) -> re.Pattern[str] | None:
    """Return a pattern of Python that matches much of the same, to draw text from."""
    depth = 0

    def translate(token: re.Match[str]) -> str:
        nonlocal depth
        if token["bracket"]:
            depth = int(token["bracket"] == "[")
        if token["quoted"]:
            return re.escape(token["quoted"][2:].removesuffix("\\E"))
        if token["around"] or (token["end"] and not depth):
            # What is around is drawn apart.
            return ""
        if token["hex"]:
            return f"\\U{int(token['hex'], 16):08x}"
        if token[0].startswith("\\P"):
            return "0-9" if depth else "[^A-Za-z]"
        name = token["name"] or token["letter"]
        if name:
            return _ASCII.get(name, "a-z") if depth else f"[{_ASCII.get(name, 'a-z')}]"
        return token[0]

    translated = _PYTHON.sub(translate, pattern)
    # Only at the beginning does Python take flags that hold for the rest.
    flags = re.findall(r"\(\?([ims]+)\)", translated)
    translated = re.sub(r"\(\?[imsU]+\)", "", translated)
    translated = translated.replace("[[:alpha:]", "[a-zA-Z")
    try:
        return re.compile(
            f"(?{''.join(sorted(set(''.join(flags))))}){translated}" if flags else translated
        )
    except re.error:
        return None


AROUND = st.sampled_from(
    [
        "",
        "",
        " ",
        "\n",
        "a",
        "Z",
        "0",
        "_",
        "-",
        ".",
        "é",
        "ñ",
        "中",
        "😀",
        "\u212a",
        "\u017f",
        "İ",
        "\u200b",
        "\n\n",
        "x\n",
        "secret",
        "foo",
        "@",
        "\x00",
    ]
)


def spelt(text: str) -> st.SearchStrategy[str]:
    """Draw a text in its own case or another, also with characters that are the same in any."""
    return st.sampled_from(
        [
            text,
            text,
            text.upper(),
            text.swapcase(),
            text.replace("k", "\u212a"),
            text.replace("s", "\u017f").replace("S", "\u017f"),
        ]
    )


def texts(pattern: str) -> st.SearchStrategy[str]:
    """Draw texts that hold what a pattern matches, with anything around it."""
    python = in_python(pattern)
    if python is None:
        drawn = st.text("fobarsecwdxyzk=@-.0 \né", max_size=12)
    else:
        drawn = st.from_regex(python, fullmatch=True) | st.from_regex(python, fullmatch=True).map(
            lambda text: text[:-1]
        )
    pieces = st.tuples(AROUND, drawn.flatmap(spelt), AROUND).map("".join)
    return st.lists(pieces, min_size=1, max_size=3).map("".join).filter(_is_utf8)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@cache
def compiled(pattern: str, lines: bool) -> Search:
    return searching(compile_pattern(pattern, lines=lines))


def matches(pattern: str, data: bytes, *, lines: bool) -> Iterator[tuple[int, int]]:
    """Yield the span of the first match behind each place of a text."""
    search = compiled(pattern, lines)
    begin = 0
    while begin <= len(data):
        start, end = search(data, begin)[0]
        if (start, end) == NOTHING:
            return
        if end > start:
            yield start, end
        begin = start + 1
        while begin < len(data) and data[begin] & 0xC0 == 0x80:
            begin += 1


def passed_over(look: FirstLook, cases: list[tuple[str, bool]], text: str) -> list[tuple[str, str]]:
    """Return what patterns match and the first look does not name."""
    data = text.encode()
    places, lines, everywhere = look(text, data)
    missed = []
    for index, (pattern, by_line) in enumerate(cases):
        if index in everywhere:
            continue
        starts = {start for start, _ in places.get(index, ())}
        marked = {data.count(b"\n", 0, start) for start, _ in lines.get(index, ())}
        for start, end in matches(pattern, data, lines=by_line):
            if start not in starts and data.count(b"\n", 0, start) not in marked:
                missed.append((pattern, data[start:end].decode()))
    return missed


def look_for(cases: list[tuple[str, bool]], family: str) -> FirstLook:
    return FirstLook([Sought(pattern, by_line, family) for pattern, by_line in cases])


@pytest.mark.parametrize(("pattern", "lines"), CASES)
def test_the_first_look_never_clears_a_text_in_which_a_pattern_matches(
    pattern: str, lines: bool
) -> None:
    cases = [(pattern, lines)]
    looks = [look_for(cases, family) for family in ("", "some")]

    @settings(max_examples=60 if pattern in PATTERNS else 5, deadline=None, database=None)
    @given(texts(pattern))
    def holds(text: str) -> None:
        for look in looks:
            assert passed_over(look, cases, text) == []

    holds()


TOGETHER = look_for(CASES, "some")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(CASES).flatmap(lambda case: texts(case[0])), max_size=4))
def test_a_look_for_all_patterns_at_once_clears_no_more(drawn: list[str]) -> None:
    for separator in ("", "\n", " "):
        assert passed_over(TOGETHER, CASES, separator.join(drawn)) == []


ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "cd",
        "xyz",
        "1",
        "-",
        "@",
        "é",
        "k",
        "s",
        r"\.",
        r"\d",
        r"\w",
        ".",
        r"\p{L}",
        "[ab]",
        "[^ab]",
        "[a-f]",
        r"[^\w]",
        r"[^\p{L}]",
        "^",
        "$",
        r"\b",
        r"\B",
        "(?i)",
        r"\s",
        r"\W",
        "[ks]",
        "(?:$|[^a-z])",
        "(?:^|[^a-z])",
        "(?:)",
        r"[\p{L}\d]",
        r"\PL",
    ]
)
WRITTEN = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda ways: f"(?:{'|'.join(ways)})"),
        st.tuples(
            inner, st.sampled_from(["?", "*", "+", "{2}", "{0,2}", "{1,2}?", "{0}", "??"])
        ).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        inner.map(lambda one: f"(?i:(?:){one})"),
        inner.map(lambda one: f"(?P<value>{one})"),
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(WRITTEN, st.data())
def test_the_first_look_never_clears_what_any_pattern_matches(
    pattern: str, data: st.DataObject
) -> None:
    assume(pattern.count("?P<value>") < 2)
    by_line = looks_at_lines(pattern)
    cases = [(pattern, by_line)]
    looks = [look_for(cases, family) for family in ("", "some")]
    for _ in range(3):
        text = data.draw(texts(pattern))
        for look in looks:
            assert passed_over(look, cases, text) == []
