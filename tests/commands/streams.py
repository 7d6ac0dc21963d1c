"""Streams of all kinds to redact, with values planted in them that must not come out."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from sidecar.commands.filter import Filter
from sidecar.commands.pieces import InputError, InputFormat, Splitter
from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Finding

BEGIN = "-----BEGIN RSA PRIVATE" + " KEY-----"
END = "-----END RSA PRIVATE" + " KEY-----"
KEY_LINE = "bm90IGEga2V5"
PLANTED = ("alice@example.com", "password=hunter2secret")

_FRAGMENTS = (
    *("203.0.113.77", '"user_id": "bob"', '{"user_id": "bob", "n": 203.0.113.77}'),
    *("alice%40example.com", "alice\\u0040example.com", "alice&#64;example.com", "a+b@example.com"),
    *("\uff41\uff4c\uff49\uff43\uff45\uff20example.com", "al\u200bice@example.com"),
    *('password="', '"', "'", "password=", "token:", ":", "=", ",", "<", ">", "\0", "+", "%", "&"),
    *("{", "}", "[", "]", "[1]", '{"a": 1}', "NaN", "1e999", "\\ud800", "\r", "\x0b", "\ufeff"),
    *("2026-11-24T02:25:53+00:00", "GET /api/models?page=1", "born", "10/04/1984", "[REDACTED"),
    *(BEGIN, END, f"{BEGIN}\n{KEY_LINE}\n{END}", KEY_LINE, "x", " ", "  ", "\t"),
)
_values = st.sampled_from(PLANTED) | st.sampled_from(_FRAGMENTS) | st.text(max_size=3)
# Most text has nothing in it that reads in two ways.
_BASE64 = base64.b64encode(b"alice@example.com").decode().rstrip("=")
_WHOLE = (_BASE64, f"{_BASE64}=", f"{_BASE64}%3D", f"data:;base64,{_BASE64}=", '{"a": "x"}')
_PLAIN = (*PLANTED, *_WHOLE, "to alice@example.com", "handled in 12 ms", "info", "0123456789abcdef")
texts = st.sampled_from(_PLAIN) | st.lists(_values, max_size=5).map("".join)
_line_ends = st.sampled_from(["\n", "\n", "\r\n", "\n\n", ""])
names = st.sampled_from(["user_id", "a", "note", "email", "trace_id", "born", "a@example.com", "é"])
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 200, 1.5, 4111111111111111, 4111111111111111.0, 10**30, 1e300])
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=4),
    max_leaves=8,
)
_containers = st.dictionaries(names | texts, json_values, max_size=4) | st.lists(
    json_values, max_size=3
)
_documents = st.builds(
    lambda value, indent, escape: json.dumps(value, indent=indent, ensure_ascii=escape),
    _containers,
    st.sampled_from([None, 0, 2, "\t"]),
    st.booleans(),
)
_lines = st.tuples(texts | _documents, _line_ends).map("".join)
_bytes = st.lists(st.sampled_from([b"\xff", b"\xe9", b"\xef\xbb\xbf"]) | st.binary(max_size=4))
streams = (
    _documents.map(lambda text: text.encode(errors="surrogatepass"))
    | st.lists(_lines, max_size=8).map("".join).map(str.encode)
    | st.lists(_lines.map(str.encode) | _bytes.map(b"".join), max_size=8).map(b"".join)
)
cuts = st.lists(st.integers(1, 60), min_size=1, max_size=5)


class Outcome:
    """What a filter made of a stream.

    Args:
        engine: its rules for HTTP are used.
        data: the stream.
        sizes: of the blocks in which it comes, over and over; empty for one block.
        note_findings: also tell the findings.
    """

    def __init__(
        self,
        engine: Engine,
        data: bytes,
        sizes: Sequence[int] = (),
        form: InputFormat = "auto",
        *,
        note_findings: bool = True,
        **bounds: int,
    ) -> None:
        self.findings: list[Finding] = []
        note: Callable[[Finding], None] | None = self.findings.append if note_findings else None
        self._filter = Filter(engine.redactor("http"), engine.rules, form, note)
        self._splitter = Splitter(form, **bounds)
        self.out = b""
        self.error = ""
        self.most_held = 0
        try:
            at = number = 0
            while at < len(data):
                size = sizes[number % len(sizes)] if sizes else len(data)
                self._feed(data[at : at + size], end=False)
                at, number = at + size, number + 1
            self._feed(b"", end=True)
        except InputError as error:
            self.error = str(error)
        self._filter.finish()
        self.failed, self.dropped = self._filter.failed, self._filter.dropped

    def _feed(self, block: bytes, *, end: bool) -> None:
        pieces = []
        try:
            for piece in self._splitter.feed(block, end=end):
                pieces.append(piece)
        finally:
            self.out += self._filter.redact(pieces)
        self.most_held = max(self.most_held, self._splitter.held)

    def told(self) -> tuple[Any, ...]:
        """Return all that a user sees of it."""
        return self.out, self.findings, self.error, self.failed, self.dropped
