from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.redaction.views import views

ENCODINGS = {
    "percent": lambda text: quote(text, safe=""),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": lambda text: quote(text, safe=" ").replace(" ", "+"),
    "json": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "html": lambda text: "".join(f"&#{ord(c)};" for c in text),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_a_view_reads_the_text_and_knows_where_it_stood(encode) -> None:  # type: ignore[no-untyped-def]
    secret = "Zoé 4/7@x"
    text = f"before {encode(secret)} after"
    view = next(view for view in views(text) if secret in view.text)
    start = view.text.index(secret)
    low, high = view.span(start, start + len(secret))
    assert text[low:high] == encode(secret)
    written = text[:low] + view.write(start, start + len(secret), "[X]") + text[high:]
    assert any(view.text == "before [X] after" for view in views(written))


def test_text_without_escapes_has_one_view() -> None:
    assert [view.text for view in views("100% & more")] == ["100% & more"]


@example("&#1;x")
@given(st.text("%+&;\\u0041 aé#x@"))
def test_every_view_maps_onto_the_whole_text(text: str) -> None:
    for view in views(text):
        start, end = view.span(0, len(view.text))
        # What stands before the first character reads as nothing, as `&#1;` does.
        assert not start or not views(text[:start])[0].text
        assert end == len(text)
        places = [view.span(i, i)[0] for i in range(len(view.text) + 1)]
        assert places == sorted(places)
