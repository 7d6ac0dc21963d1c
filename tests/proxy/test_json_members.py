"""Members of an object are found however it comes, and whatever else is in it."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.json_members import JsonMembers

WANTED = frozenset({b"model", b"usage"})
NAMES = st.sampled_from(["model", "usage", '"model":', "\\", "{", "]"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | NAMES, inner),
    max_leaves=20,
)


def members(*pieces: bytes, value_bytes: int = 4096) -> JsonMembers:
    reader = JsonMembers(WANTED, value_bytes)
    for piece in pieces:
        reader.feed(piece)
    return reader


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the data in pieces that end at these places, modulo its length."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(
    st.dictionaries(st.text() | NAMES, VALUES),
    st.lists(st.integers(min_value=0)),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_what_is_found_is_what_a_parser_finds(
    document: dict[str, Any], places: list[int], indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    reader = members(*cut(data, places), value_bytes=2**20)
    found = {name: msgspec.json.decode(value) for name, value in reader.found.items()}
    assert found == {
        name: msgspec.json.decode(msgspec.json.encode(document[name.decode()]))
        for name in WANTED
        if name.decode() in document
    }
    assert reader.done


@given(st.lists(st.binary() | st.sampled_from([b"{", b'"', b"\\", b"}", b"[", b'{"model":'])))
def test_nothing_is_too_strange(pieces: list[bytes]) -> None:
    members(*pieces)


@pytest.mark.parametrize(
    "data",
    [
        b'{"message": "\\"usage\\": 1, \\\\"}',
        b'{"choices": [{"usage": 1, "model": "inner"}]}',
        b'["model", "usage"]',
        b'"usage": 1',
        b'{"a": "usage"}',
        b'{"usage": 1',
        b"",
    ],
)
def test_only_members_of_the_object_itself_count(data: bytes) -> None:
    assert members(data).found == {}


def test_of_several_of_one_name_the_last_counts() -> None:
    assert members(b' \r\n{"model" : "a", "model" :"b" } {"model": "c"}').found == {
        b"model": b'"b"'
    }


def test_a_value_that_is_too_large_is_not_kept() -> None:
    reader = members(b'{"usage": "', b"x" * 5000, b'", "model": "m"}')
    assert reader.found == {b"model": b'"m"'}


@pytest.mark.parametrize(
    "unit", [b"[],", b"{}", b'"":"",', b'"",', b'\\"', b"[", b"]", b"\\", b"{[" * 50, b'":{']
)
@pytest.mark.parametrize("start", [b"{", b'{"a":[[', b'{"a":"', b'{"usage":['])
def test_no_document_takes_long(start: bytes, unit: bytes) -> None:
    data = start + unit * (2**20 // len(unit))
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    reader = JsonMembers(WANTED, 4096)
    started = time.process_time()
    for piece in pieces:
        reader.feed(piece)
    # Where nothing bounds it, some take several seconds.
    assert time.process_time() - started < 1.0
