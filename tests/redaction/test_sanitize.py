from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.redaction.sanitize import sanitize_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p?q=bob", "https://h/p?q=%5BREDACTED%5D"),
        ("https://u:p@h:8/p?a=1&b=&c", "https://h:8/p?a=%5BREDACTED%5D&b=&%5BREDACTED%5D"),
        ("/search?text=My SSN is 1", "/search?text=%5BREDACTED%5D"),
        ("text=a&page=2", "text=%5BREDACTED%5D&page=%5BREDACTED%5D"),
        ("https://h/p#access_token=x", "https://h/p#access_token=%5BREDACTED%5D"),
        ("https://h/p#section", "https://h/p#section"),
        ("https://h/p?", "https://h/p?"),
        ("/a@b/c", "/a@b/c"),
        ("", ""),
    ],
)
def test_values_go_and_structure_stays(url: str, expected: str) -> None:
    assert sanitize_url(url) == expected


@given(st.text() | st.text("ab:/?#&=@%[] ", max_size=30))
def test_sanitizing_twice_changes_nothing_more(text: str) -> None:
    once = sanitize_url(text)
    assert sanitize_url(once) == once


@given(st.lists(st.tuples(st.text("ab", min_size=1), st.text("xyz @", min_size=1)), min_size=1))
def test_no_value_is_left_in_a_query(pairs: list[tuple[str, str]]) -> None:
    url = "https://h/p?" + "&".join(f"{name}={value}" for name, value in pairs)
    result = urlsplit(sanitize_url(url))
    assert not set(result.query) & set("xyz")
    assert (result.scheme, result.netloc, result.path) == ("https", "h", "/p")
