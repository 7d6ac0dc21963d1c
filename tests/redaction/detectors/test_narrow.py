"""What a detector checks in Python never raises, whatever its pattern lets through."""

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import re2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.detectors.base import Shape, Span

# RE2's names for kinds of characters, as a few members of each.
_MEMBERS = {
    r"\p{L}": "A-Za-zäßж中",
    r"\p{Ll}": "a-zäßж",
    r"\p{M}": "\u0301\u093f",
    r"\p{N}": "0-9²٣",
    r"\s": r" \t\n\f\r",
}
_PART = re.compile(r"\\p\{\w+\}|\\x\{[0-9a-f]+\}|\\.|\[\^?|.", re.DOTALL)


def as_python(pattern: str) -> str:
    """Return an RE2 pattern as one of Python's that matches some of the same texts."""
    flags = "(?i)" if pattern.startswith("(?i)") else ""
    return flags + "".join(_parts(pattern.removeprefix("(?i)")))


def _parts(pattern: str) -> Iterator[str]:
    inside = False
    for part in _PART.findall(pattern.replace("(?i)", "").replace("(?s).", "(?s:.)")):
        if part in _MEMBERS:
            yield _MEMBERS[part] if inside else f"[{_MEMBERS[part]}]"
            continue
        if part.startswith(r"\x{"):
            yield re.escape(chr(int(part[3:-1], 16)))
            continue
        inside = part.startswith("[") or (inside and part != "]")
        yield part


CHECKED = [
    pytest.param(shape, id=f"{detector.name}-{number}")
    for detector in DETECTORS.values()
    for number, shape in enumerate(detector.shapes)
    if shape.narrow is not None
]


@pytest.mark.parametrize("shape", CHECKED)
def test_a_check_takes_whatever_the_pattern_matches(shape: Shape) -> None:
    narrow, regexp = shape.narrow, re2.compile(shape.pattern)
    assert narrow is not None
    group = regexp.groupindex.get("value", 0)
    matched = _checking(narrow, regexp, group, as_python(shape.pattern))
    # Else the translation is wrong, and nothing was tested.
    assert matched > 0


def _checking(narrow: Callable[[str], Span | None], regexp: Any, group: int, pattern: str) -> int:
    matched = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        texts = st.from_regex(pattern)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(text=texts)
    def check(text: str) -> None:
        nonlocal matched
        match = regexp.search(text)
        # Without a value it is passed over.
        if match is None or not match.group(group):
            return
        matched += 1
        found = match.group(group)
        span = narrow(found)
        assert span is None or (0 <= span[0] < span[1] <= len(found))

    check()
    return matched
