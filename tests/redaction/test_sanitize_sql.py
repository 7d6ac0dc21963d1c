import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.redaction.sanitize import SANITIZERS, sanitize_sql


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        # What all dialects share.
        (
            "SELECT * FROM t WHERE a = 'it''s' AND b = 1.5e-5",
            "SELECT * FROM t WHERE a = ? AND b = ?",
        ),
        ("SELECT t1.c2 FROM t1 WHERE a IN (1, 2,3)", "SELECT t1.c2 FROM t1 WHERE a IN (?, ?,?)"),
        ("SELECT -1, -2, a-1, 0x1F, .5, a - 2", "SELECT -?, ?, a-?, ?, ?, a - ?"),
        ("SELECT N'a', X'53', b'01', U&'a', _utf8'a'", "SELECT ?, ?, ?, ?, ?"),
        ("SELECT a FROM t WHERE a LIKE'x'", "SELECT a FROM t WHERE a LIKE?"),
        ("SELECT 1; DELETE FROM t WHERE id = 7", "SELECT ?; DELETE FROM t WHERE id = ?"),
        # Comments.
        ("/* bob */ SELECT a -- bob\nFROM t", " SELECT a \nFROM t"),
        ("SELECT a/**/FROM t /*route='%2Fusers'*/", "SELECT a FROM t "),
        ("SELECT a # bob\nFROM t", "SELECT a \nFROM t"),
        ("SELECT a /* b /* c */ bob */", "SELECT a ?"),
        ("SELECT a --'b\nbob'", "SELECT a ?"),
        # PostgreSQL.
        ("SELECT E'it\\'s', $$a'b$$, $t$a$$b$t$ FROM t", "SELECT ?, ?, ? FROM t"),
        ("SELECT a::text, a[1], a->>'x', a #>> '{b}'", "SELECT a::text, a[?], a->>?, a #>> ?"),
        ('INSERT INTO "t" ("a") VALUES (\'x\')', 'INSERT INTO "t" ("a") VALUES (?)'),
        # MySQL.
        ("SELECT `a` FROM `my t` WHERE b = 'O\\'Brien'", "SELECT `a` FROM `my t` WHERE b = ?"),
        ('SELECT `a` FROM t WHERE b = "Bob"', "SELECT `a` FROM t WHERE b = ?"),
        ('INSERT INTO t (a, b) VALUES ("x", "y z")', "INSERT INTO t (a, b) VALUES (?, ?)"),
        ('SELECT a FROM t WHERE b IN ("x", "y")', "SELECT a FROM t WHERE b IN (?, ?)"),
        ('SELECT a FROM t WHERE b BETWEEN "x" AND "y"', "SELECT a FROM t WHERE b BETWEEN ? AND ?"),
        ('SELECT a FROM t WHERE lower("Bob") = a', "SELECT a FROM t WHERE lower(?) = a"),
        ('CREATE USER x IDENTIFIED BY "secret"', "CREATE USER x IDENTIFIED BY ?"),
        ('SELECT CASE WHEN a THEN "Bob" ELSE "Al" END', "SELECT CASE WHEN a THEN ? ELSE ? END"),
        ('UPDATE t SET a = -- b\n "Bob"', "UPDATE t SET a = \n ?"),
        # SQLite.
        (
            "SELECT [my col] FROM [t] WHERE a = ?1 AND b = 2",
            "SELECT [my col] FROM [t] WHERE a = ?1 AND b = ?",
        ),
        # What cannot be read.
        ("SELECT a FROM t WHERE b = 'bob", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a FROM t WHERE b = 'O'Brien' AND c", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a FROM t WHERE b = 'x\\' OR c = 'bob'", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a FROM t WHERE b = $x$bob", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a FROM t WHERE b = `c' = `bob'", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a \\ bob", "SELECT a ?"),
        ("my name is bob", "?"),
        ('{"find": "users", "name": "bob"}', "?"),
    ],
)
def test_literals_go_and_structure_stays(statement: str, expected: str) -> None:
    assert sanitize_sql(statement) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "",
        " \n",
        "SELECT count(*) AS count_1 \nFROM user \nWHERE user.last_active_at >= ?",
        "SELECT a FROM t WHERE a IN (?, ?, ?) AND b IS NULL AND c = TRUE",
        "SELECT $1, $12, :name, %s, %(name)s, @p, ?1, :1",
        'SELECT "user".id, "user"."userId" AS "userId" FROM "user" JOIN "o" ON "user".id = "o".uid',
        'INSERT INTO "t" ("a", "b") VALUES (?, ?) ON CONFLICT ("a") DO UPDATE SET "a" = "x"."a"',
        'SELECT "a", count("t"."b") FROM "t" WHERE "a" = $1 AND ("b" > $2) ORDER BY "a", "b"',
        'UPDATE "t" SET "a" = %s, "b" = %s WHERE "t"."id" = %s RETURNING "id"',
        "PRAGMA main.table_info(`user`)",
        "BEGIN",
    ],
)
def test_what_holds_no_literal_is_returned_as_it_is(statement: str) -> None:
    assert sanitize_sql(statement) is statement


_PIECES = """
    SELECT ' " ` \\ $ $$ $t$ -- /* */ # a E' N' 1 - . ? : = , ( ) values IN "a" 'b' & [ ; é between
    and escape `a` > as on
"""
_SQL_LIKE = st.lists(st.sampled_from([*_PIECES.split(), " ", "\n", "\r", "\0"]), max_size=25).map(
    "".join
)


@given(st.text() | _SQL_LIKE | _SQL_LIKE.map("SELECT ".__add__))
@example("SELECT -/**/-1")
@example('SELECT = "a".0')
@example('SELECT = "a".E\'')
def test_sanitizing_twice_changes_nothing_more(text: str) -> None:
    once = sanitize_sql(text)
    assert sanitize_sql(once) is once


def _doubled(quote: str, text: str) -> str:
    return quote + text.replace(quote, quote * 2) + quote


def _escaped(quote: str, text: str) -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


@given(
    left=st.text("ab '\"\\$`#;,()=-/*\n1\u00e9", max_size=8),
    right=st.text("ab '\"\\$`#;,()=-/*\n1\u00e9", max_size=8),
    quoting=st.sampled_from(
        [
            lambda text: _doubled("'", text),
            lambda text: "N" + _doubled("'", text),
            lambda text: "_utf8 " + _doubled("'", text),
            lambda text: _escaped("'", text),
            lambda text: "E" + _escaped("'", text),
            lambda text: _doubled('"', text),
            lambda text: _escaped('"', text),
            lambda text: f"$tag${text}$tag$",
            lambda text: f"/*{text.replace('*/', '')} */",
            lambda text: f"-- {text.replace(chr(10), '')}\n",
            lambda text: "'" + text.replace("'", ""),
        ]
    ),
    around=st.sampled_from(
        [
            ("SELECT * FROM t WHERE a = ", " AND b = 'x'"),
            ("INSERT INTO t (a, b) VALUES ('y', ", ")"),
            ('INSERT INTO "t" ("a", "b") VALUES ("y", ', ', "z")'),
            ("SELECT * FROM t WHERE a IN (", ", 'x') AND b > 1"),
            ('SELECT "a" FROM t WHERE lower("a") LIKE ', " ESCAPE '\\'"),
            ("UPDATE t SET a=", ",b=2 WHERE c='d'"),
        ]
    ),
)
def test_no_text_of_a_literal_is_left(
    left: str, right: str, quoting: Callable[[str], str], around: tuple[str, str]
) -> None:
    literal = quoting(f"{left}zqx{right}")
    assert "zqx" not in sanitize_sql(around[0] + literal + around[1])


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.sampled_from("=(,+- <"))
def test_no_digit_of_a_number_is_left(number: float, before: str) -> None:
    result = sanitize_sql(f"SELECT a FROM t WHERE b ={before}{number} AND c")
    assert not set(result) & set("0123456789")


_HOSTILE = """
    ' " ` $ $$ $a$ /* /**/ -- # #> \\' \'\' "" ( ) a 1 - a. "a". e' a'a'; ? & ;a=b @ a: %5B b'
"""


@pytest.mark.parametrize("piece", [*_HOSTILE.split(), " ", "\n", "-- \n", '"a" ', "#> "])
@pytest.mark.parametrize("name", SANITIZERS)
def test_time_grows_with_the_length_of_the_text(name: str, piece: str) -> None:
    sanitize = SANITIZERS[name]
    start = {"sql": "SELECT ", "redis": "MGET ", "url": "https://h/"}[name]

    def seconds(times: int) -> float:
        text = start + piece * times
        began = time.process_time()
        sanitize(text)
        return time.process_time() - began

    # Of 20 times the text, a quadratic way would take 400 times as long.
    assert (
        min(seconds(40_000) for _ in range(3)) < 100 * min(seconds(2_000) for _ in range(3)) + 0.02
    )
