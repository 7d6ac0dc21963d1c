from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cache.keys import tool_key

TEXT = st.text(st.characters(), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ARGS = st.dictionaries(TEXT, JSON, max_size=5)


def reversed_members(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reversed_members(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return [reversed_members(item) for item in value]
    return value


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are the same JSON, types included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return repr(left) == repr(right)


def test_a_key_reads_as_documented() -> None:
    key = tool_key("web_search", {"query": "weather", "limit": 5})
    assert key.rpartition(":")[0] == "tool:web_search:limit=5,query=weather"
    assert len(key.rpartition(":")[2]) * 4 >= 128


def test_a_key_is_the_same_in_every_version() -> None:
    # Pods of different versions share one Redis. `printf '["t",{"a":1}]' | sha256sum`
    assert tool_key("t", {"a": 1}) == "tool:t:a=1:371d982e5c3a5e4d2d2e1ae0a4e02409"


@given(TEXT, ARGS)
def test_the_order_of_arguments_does_not_matter(tool: str, args: dict[str, Any]) -> None:
    assert tool_key(tool, args) == tool_key(tool, reversed_members(args))


@given(TEXT, ARGS, TEXT, ARGS)
def test_different_calls_have_different_keys(
    tool: str, args: dict[str, Any], other_tool: str, other_args: dict[str, Any]
) -> None:
    equal = tool == other_tool and same(args, other_args)
    assert (tool_key(tool, args) == tool_key(other_tool, other_args)) == equal


@given(ARGS, TEXT, JSON, JSON)
def test_one_changed_argument_changes_the_key(
    args: dict[str, Any], name: str, value: Any, other: Any
) -> None:
    equal = same(value, other)
    assert (tool_key("t", {**args, name: value}) == tool_key("t", {**args, name: other})) == equal


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": None}, {"a": "null"}),
        ({"a": None}, {}),
        ({"a": "1,b=2"}, {"a": "1", "b": "2"}),
        ({"a": '","b":"'}, {"a": "", "b": ""}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [[1], 2]}, {"a": [1, [2]]}),
        ({"a": "x" * 500 + "y"}, {"a": "x" * 500 + "z"}),
        ({"a b": 1}, {"a_b": 1}),
        ({"a": 2**64}, {"a": float(2**64)}),
        ({"a": "e\u0301"}, {"a": "\u00e9"}),
    ],
)
def test_values_that_look_alike_are_different(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert tool_key("t", left) != tool_key("t", right)


def test_separators_cannot_move_between_tool_and_arguments() -> None:
    assert tool_key("t:a=1", {}) != tool_key("t", {"a": 1})


@pytest.mark.parametrize("text", ["1.0", "1.00", "10e-1", "0.1E1"])
def test_one_number_may_be_written_in_many_ways(text: str) -> None:
    args = msgspec.json.decode(f'{{"a": {text}}}', type=dict[str, Any])
    assert tool_key("t", args) == tool_key("t", {"a": 1.0})


@given(TEXT, ARGS)
def test_a_key_is_short_and_printable(tool: str, args: dict[str, Any]) -> None:
    key = tool_key(tool, args)
    assert len(key) <= 231
    assert not any(c.isspace() or not c.isprintable() for c in key)
    assert key.count(":") == 3


def test_long_names_and_values_are_cut() -> None:
    assert len(tool_key("t" * 5000, {"n" * 5000: "v" * 5000, "o": ["w" * 5000]})) == 231


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        tool_key("t", {"a": float("nan")})
    with pytest.raises(TypeError):
        tool_key("t", {"a": b"bytes"})
