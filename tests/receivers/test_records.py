"""A batch taken apart into its records."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.messages import HTTPError
from sidecar.receivers.events import _records

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(records=st.lists(VALUES, max_size=6), indent=st.sampled_from([-1, 0, 3]))
def test_the_elements_of_an_array_are_told_apart(records: list[Any], indent: int) -> None:
    body = msgspec.json.format(msgspec.json.encode(records), indent=indent)
    assert [msgspec.json.decode(record) for record in _records(b" \n" + body)] == records


def test_brackets_commas_and_quotes_in_strings_are_none() -> None:
    records = ['a],["{,}', "\\", '\\"', '",', {'"]': "[,"}]
    body = msgspec.json.encode(records)
    assert [msgspec.json.decode(record) for record in _records(body)] == records


@pytest.mark.parametrize("body", [b"[1,]", b"[1 2]", b"[,1]", b"[1", b"[1]]", b"[1],2", b'["\n'])
def test_an_array_that_is_no_json_is_refused_whole(body: bytes) -> None:
    with pytest.raises(HTTPError) as caught:
        list(_records(body))
    assert caught.value.status == 400


def test_lines_that_are_blank_are_no_records() -> None:
    assert list(_records(b'{"a":1}\n\r\n  \n2\n')) == [b'{"a":1}', b"2"]
