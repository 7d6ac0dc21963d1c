"""Answers of model APIs, as they come, and what is measured of them."""

import json
import math
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from typing import Any, get_args

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.metrics import REGISTRY
from sidecar.proxy.model_answers import EVENT_BYTES
from sidecar.proxy.model_calls import (
    OTHER,
    Failure,
    Measured,
    ModelCall,
    ModelCalls,
    is_model_call,
)
from tests.proxy.test_json_members import cut
from tests.upstream import PROMPT_TOKENS, Behaviour, open_upstream

SSE, NDJSON, JSON = "text/event-stream; charset=utf-8", "application/x-ndjson", "application/json"
CHAT = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}


def sse(*events: Any) -> list[bytes]:
    return [b"data: %b\n\n" % json.dumps(event).encode() for event in events]


def named(*events: dict[str, Any]) -> list[bytes]:
    """Return events that have their type as a name, too."""
    return [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]


def lines(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(event).encode() + b"\n" for event in events]


def delta(**fields: Any) -> dict[str, Any]:
    return {**CHAT, "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0, **more}


ROLE = delta(role="assistant", content="", refusal=None)
STOP = {**CHAT, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
DONE = [b"data: [DONE]\n\n"]


def call_of(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return delta(tool_calls=[{"index": 0, "function": function, **more}])


def ollama(**fields: Any) -> dict[str, Any]:
    return {"model": "llama3.2", "created_at": "2023-08-04T08:52:19.385406455-07:00", **fields}


def said(content: str, **more: Any) -> dict[str, Any]:
    return ollama(message={"role": "assistant", "content": content, **more}, done=False)


OLLAMA_END = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 298,
    "eval_duration": 4_000_000_000,
}
RESPONSE = {"id": "resp_1", "object": "response", "model": "gpt-4.1", "error": None, "usage": None}
FAILED = {"code": "server_error", "message": "The server had an error."}


def response(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {**RESPONSE, **fields}}


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "item_id": "msg_1", "output_index": 0, **fields}


class Answer(msgspec.Struct, frozen=True):
    """Pieces that come a tenth of a second apart, the first one second after the call."""

    content_type: str
    pieces: list[bytes]
    expected: dict[str, Any]


ANSWERS = {
    "openai chat": Answer(
        SSE,
        [
            *sse(ROLE, delta(content="Hel"), delta(content="lo"), delta(content="!"), STOP),
            *sse({**CHAT, "choices": [], "usage": usage(9, 30)}),
            *DONE,
        ],
        # Two thirds of 30 tokens in two tenths of a second.
        {
            "first_token": 1.1,
            "prompt_tokens": 9,
            "completion_tokens": 30,
            "tokens_per_second": 100.0,
        },
    ),
    "openai chat without usage": Answer(
        SSE,
        sse(ROLE, delta(content="Hel"), delta(content="lo"), STOP) + DONE,
        {"first_token": 1.1, "completion_tokens": 2, "tokens_per_second": 10.0},
    ),
    "openai call of a tool": Answer(
        SSE,
        [
            *sse(delta(role="assistant", content=None)),
            *sse(call_of("get_weather", "", id="call_1", type="function")),
            *sse(call_of("", '{"city":'), call_of("", ' "Köln"}'), STOP),
            *sse({**CHAT, "choices": [], "usage": usage(80, 15)}),
            *DONE,
        ],
        {
            "first_token": 1.1,
            "prompt_tokens": 80,
            "completion_tokens": 15,
            "tokens_per_second": 50.0,
        },
    ),
    "openai reasoning that is not sent": Answer(
        SSE,
        [
            *sse(ROLE, delta(content="Hel"), delta(content="lo"), STOP),
            *sse(
                {
                    **CHAT,
                    "choices": [],
                    "usage": usage(9, 520, completion_tokens_details={"reasoning_tokens": 500}),
                }
            ),
            *DONE,
        ],
        {
            "first_token": 1.1,
            "prompt_tokens": 9,
            "completion_tokens": 520,
            "tokens_per_second": 100.0,
        },
    ),
    "reasoning that is sent": Answer(
        SSE,
        [
            *sse(
                delta(reasoning_content="Hm"), delta(reasoning_content=", so"), delta(content="!")
            ),
            *sse(
                {
                    **CHAT,
                    "choices": [],
                    "usage": usage(9, 60, completion_tokens_details={"reasoning_tokens": 40}),
                }
            ),
            *DONE,
        ],
        {
            "first_token": 1.0,
            "prompt_tokens": 9,
            "completion_tokens": 60,
            "tokens_per_second": 200.0,
        },
    ),
    "azure": Answer(
        SSE,
        [
            *sse(
                {
                    "id": "",
                    "object": "",
                    "model": "",
                    "created": 0,
                    "choices": [],
                    "prompt_filter_results": [
                        {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}
                    ],
                }
            ),
            *sse(ROLE, delta(content="Hello"), STOP),
            *DONE,
        ],
        {"first_token": 1.2, "completion_tokens": 1},
    ),
    "llama.cpp": Answer(
        SSE,
        [
            *sse(ROLE, delta(content="Hello")),
            *sse(
                {
                    **STOP,
                    "usage": usage(11, 7),
                    "timings": {"prompt_n": 11, "predicted_n": 7, "predicted_per_second": 42.5},
                }
            ),
            *DONE,
        ],
        {
            "first_token": 1.1,
            "prompt_tokens": 11,
            "completion_tokens": 7,
            "tokens_per_second": 42.5,
        },
    ),
    "vllm with usage in every chunk": Answer(
        SSE,
        [
            *sse({**ROLE, "usage": usage(5, 0)}),
            *sse({**delta(content="Hel"), "usage": usage(5, 1)}),
            *sse({**delta(content="lo"), "usage": usage(5, 2)}),
            *DONE,
        ],
        {"first_token": 1.1, "prompt_tokens": 5, "completion_tokens": 2, "tokens_per_second": 10.0},
    ),
    "completions": Answer(
        SSE,
        sse(*({**CHAT, "choices": [{"index": 0, "text": text}]} for text in ("", "a", "b"))) + DONE,
        {"first_token": 1.1, "completion_tokens": 2, "tokens_per_second": 10.0},
    ),
    "lines that end in CRLF, comments, data on several lines": Answer(
        SSE,
        [
            b": keep-alive\r\n\r\n",
            b'id: 1\r\nretry: 5\r\ndata: {"model": "gpt-4o",\r\ndata: "choices": [{"delta":\r\n'
            b'data:{"content": "a"}}]}\r\n\r\n',
            *DONE,
        ],
        {"first_token": 1.1, "completion_tokens": 1},
    ),
    "lines that end in CR": Answer(
        SSE,
        [event.replace(b"\n", b"\r") for event in sse(ROLE, delta(content="a"))],
        {"first_token": 1.1, "completion_tokens": 1},
    ),
    "a stream without its last empty line": Answer(
        SSE,
        [*sse(delta(content="a")), sse({**CHAT, "choices": [], "usage": usage(3, 1)})[0].rstrip()],
        {"first_token": 1.0, "prompt_tokens": 3, "completion_tokens": 1},
    ),
    "an error in the stream": Answer(
        SSE,
        sse(ROLE, delta(content="a"), {"error": FAILED}),
        {"first_token": 1.1, "completion_tokens": 1, "error": "event"},
    ),
    "an error in the stream, as older vLLM tells it": Answer(
        SSE,
        sse(delta(content="a"), {"object": "error", "message": "no", "type": "E", "code": 400}),
        {"first_token": 1.0, "completion_tokens": 1, "error": "event"},
    ),
    "responses": Answer(
        SSE,
        named(
            response("created"),
            part("output_item.added", item={"type": "message", "content": []}),
            part("output_text.delta", content_index=0, delta="Hel"),
            part("output_text.delta", content_index=0, delta="lo"),
            part("output_text.done", text="Hello"),
            response(
                "completed",
                usage={
                    "input_tokens": 37,
                    "output_tokens": 11,
                    "output_tokens_details": {"reasoning_tokens": 1},
                },
            ),
        ),
        {
            "model": "gpt-4.1",
            "first_token": 1.2,
            "prompt_tokens": 37,
            "completion_tokens": 11,
            "tokens_per_second": 50.0,
        },
    ),
    "responses with an error": Answer(
        SSE,
        named(response("created"), response("failed", error=FAILED)),
        {"model": "gpt-4.1", "error": "event"},
    ),
    "ollama chat": Answer(
        NDJSON,
        lines(said("The"), said(" sky"), {**said(""), **OLLAMA_END}),
        {
            "model": "llama3.2",
            "first_token": 1.0,
            "prompt_tokens": 26,
            "completion_tokens": 298,
            "tokens_per_second": 74.5,
        },
    ),
    "ollama that thinks and calls a tool": Answer(
        NDJSON,
        lines(
            said("", thinking="Hm"),
            said("", tool_calls=[{"function": {"name": "f", "arguments": {}}}]),
        ),
        {
            "model": "llama3.2",
            "first_token": 1.0,
            "completion_tokens": 2,
            "tokens_per_second": 10.0,
        },
    ),
    "ollama generate": Answer(
        NDJSON,
        lines(
            ollama(response="The", done=False), ollama(response="", **OLLAMA_END, context=[1, 2])
        ),
        {
            "model": "llama3.2",
            "first_token": 1.0,
            "prompt_tokens": 26,
            "completion_tokens": 298,
            "tokens_per_second": 74.5,
        },
    ),
    "ollama with an error": Answer(
        NDJSON,
        lines(said("The"), {"error": "an error was encountered while running the model"}),
        {"model": "llama3.2", "first_token": 1.0, "completion_tokens": 1, "error": "event"},
    ),
    "ollama without a stream": Answer(
        "application/json; charset=utf-8",
        [json.dumps({**said("The sky"), **OLLAMA_END}).encode()],
        {
            "model": "llama3.2",
            "prompt_tokens": 26,
            "completion_tokens": 298,
            "tokens_per_second": 74.5,
        },
    ),
    "chat without a stream": Answer(
        JSON,
        [
            json.dumps(
                {
                    **CHAT,
                    "choices": [{"message": {"content": '"usage": {"prompt_tokens": 1}, \\'}}],
                    "usage": usage(9, 12),
                    "service_tier": "default",
                }
            ).encode()
        ],
        {"prompt_tokens": 9, "completion_tokens": 12},
    ),
    "responses without a stream": Answer(
        JSON,
        [json.dumps({**RESPONSE, "usage": {"input_tokens": 3, "output_tokens": 4}}).encode()],
        {"model": "gpt-4.1", "prompt_tokens": 3, "completion_tokens": 4},
    ),
    "embeddings": Answer(
        JSON,
        [
            b'{"object": "list", "data": [',
            *(b'{"embedding": %b, "index": 0},' % json.dumps([0.1] * 500).encode(),) * 20,
            b'{"embedding": [0.5]}], "model": "e-3", "usage": {"prompt_tokens": 8}}',
        ],
        {"model": "e-3", "prompt_tokens": 8},
    ),
    "anthropic": Answer(
        SSE,
        named(
            {
                "type": "message_start",
                "message": {
                    "model": "claude",
                    "content": [],
                    "usage": {"input_tokens": 25, "output_tokens": 1},
                },
            },
            {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
            {"type": "message_delta", "delta": {"stop_reason": "x"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ),
        {"model": "claude", "first_token": 1.3, "prompt_tokens": 25, "completion_tokens": 5},
    ),
}
cases = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())


def call(tell: Callable[[ModelCall], None]) -> Measured:
    """Return what a call came to of which the upstream was told at time 0."""
    measured: list[Measured] = []
    model_call = ModelCall("openai", measured.append)
    model_call.forward(0.0)
    tell(model_call)
    (one,) = measured
    return one


def measure(
    content_type: str, pieces: Iterable[tuple[float, bytes]], *, coding: str = "", status: int = 200
) -> Measured:
    """Return what a call came to of which each piece came at its time."""

    def tell(model_call: ModelCall) -> None:
        model_call.head(status, content_type, coding)
        for now, piece in pieces:
            model_call.piece(piece, now)
        model_call.end()

    return call(tell)


def timed(pieces: list[bytes]) -> list[tuple[float, bytes]]:
    return [(1 + number / 10, piece) for number, piece in enumerate(pieces)]


def rounded(measured: Measured) -> dict[str, Any]:
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in msgspec.structs.asdict(measured).items()
    }


@cases
def test_what_an_answer_tells(answer: Answer) -> None:
    common = {"route": "openai", "model": "gpt-4o", "status": "200", "ttfb": 1.0}
    expected = Measured(**{**common, **answer.expected})
    assert rounded(measure(answer.content_type, timed(answer.pieces))) == rounded(expected)


@given(st.sampled_from(sorted(ANSWERS)), st.data())
def test_it_does_not_matter_how_an_answer_is_split(name: str, data: st.DataObject) -> None:
    answer = ANSWERS[name]
    places = st.lists(st.integers(min_value=0, max_value=1000), max_size=5)
    pieces = [
        (now, part) for now, piece in timed(answer.pieces) for part in cut(piece, data.draw(places))
    ]
    assert measure(answer.content_type, pieces) == measure(
        answer.content_type, timed(answer.pieces)
    )


@cases
def test_an_answer_in_single_bytes_or_all_at_once_tells_the_same(answer: Answer) -> None:
    body = b"".join(answer.pieces)
    once = measure(answer.content_type, [(1.0, body)])
    assert measure(answer.content_type, [(1.0, bytes([byte])) for byte in body]) == once
    counted = ("model", "prompt_tokens", "completion_tokens", "error", "unread")
    apart = measure(answer.content_type, timed(answer.pieces))
    assert [getattr(once, name) for name in counted] == [getattr(apart, name) for name in counted]


@cases
@pytest.mark.parametrize(("coding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_a_compressed_answer_tells_the_same(answer: Answer, coding: str, wbits: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    packed = [packer.compress(p) + packer.flush(zlib.Z_SYNC_FLUSH) for p in answer.pieces]
    packed[-1] += packer.flush()
    measured = measure(answer.content_type, timed(packed), coding=coding)
    assert measured == measure(answer.content_type, timed(answer.pieces))


STRANGE = st.binary() | st.sampled_from(
    [b"data:", b"\n", b"\r", b"data: {}\n\n", b'{"usage":', b'{"model":1}\n', b"[" * 100_000]
    + [b'data: {"usage": {"prompt_tokens": -1, "completion_tokens": 1%b}}\n\n' % (b"0" * 400)]
    + [b'{"eval_count": 1%b, "eval_duration": 1}\n' % (b"0" * 400)]
    + [b'{"eval_count": 1, "eval_duration": -1%b}\n' % (b"0" * 400)]
    + [b'{"timings": {"predicted_per_second": 1e308}, "done": 1}\n', b'{"\xff": "\xff"}\n']
    + [piece for answer in ANSWERS.values() for piece in answer.pieces]
)


@given(
    st.sampled_from([SSE, NDJSON, JSON, "text/html", ""]) | st.text(),
    st.sampled_from(["", "gzip", "deflate", "br"]) | st.text(),
    st.integers(min_value=100, max_value=999),
    st.lists(STRANGE),
    st.lists(STRANGE),
    st.sampled_from([*get_args(Failure), None]),
)
def test_nothing_is_too_strange(
    content_type: str,
    coding: str,
    status: int,
    asked: list[bytes],
    answered: list[bytes],
    failure: Failure | None,
) -> None:
    def tell(model_call: ModelCall) -> None:
        for piece in asked:
            model_call.request(piece)
        model_call.head(status, content_type, coding)
        for now, piece in timed(answered):
            model_call.piece(piece, now)
        if failure:
            model_call.fail(failure)
        else:
            model_call.end()

    measured = call(tell)
    ModelCalls().count(measured)
    assert (measured.prompt_tokens or 0) >= 0 and (measured.completion_tokens or 0) >= 0
    speed = measured.tokens_per_second
    assert speed is None or (speed > 0 and math.isfinite(speed))


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (304, None), (404, "client_error"), (429, "rate_limited"), (503, "server_error")],
)
def test_a_status_that_is_no_success(status: int, error: str | None) -> None:
    measured = measure(
        JSON, [(1.0, b'{"error": {"message": "no"}}')] * (status > 399), status=status
    )
    assert (measured.error, measured.status) == (error, str(status))


def test_a_call_without_an_answer() -> None:
    measured = call(lambda model_call: model_call.fail("connection"))
    assert measured == Measured(route="openai", status="none", error="connection")


def streamed(*pieces: bytes) -> Callable[[ModelCall], None]:
    def tell(model_call: ModelCall) -> None:
        model_call.head(200, SSE, "")
        for now, piece in timed(list(pieces)):
            model_call.piece(piece, now)
        model_call.fail("client_gone")

    return tell


def test_a_client_that_leaves_in_mid_stream_had_what_came_until_then() -> None:
    measured = call(streamed(*sse(ROLE, delta(content="a"), delta(content="b"))))
    assert (measured.error, measured.completion_tokens) == ("client_gone", 2)
    assert measured.first_token == pytest.approx(1.1)


@pytest.mark.parametrize("last", [*DONE, *named(response("completed")), *sse({"done": True})])
def test_a_client_that_leaves_at_the_end_of_a_stream_has_its_answer(last: bytes) -> None:
    assert call(streamed(*sse(delta(content="a")), last)).error is None


def test_content_that_was_held_up_on_its_way_has_no_speed() -> None:
    pieces = [(1.0, p) for p in sse(delta(content="a"))] + [
        (1.001, p) for p in sse(delta(content="b"))
    ]
    assert measure(SSE, pieces).tokens_per_second is None


@pytest.mark.parametrize(
    "pieces",
    [
        [b'{"messages": [{"content": "\\"model\\": \\"no\\""}], "model": "gpt-mini"}'],
        [b'{"mod', b'el" :"gpt-', b'mini", "messages": []}', b"garbage"],
        [b'{"messages": "', b"x" * 900_000, b'", "model": "gpt-mini"}'],
    ],
)
def test_the_model_is_what_the_request_says(pieces: list[bytes]) -> None:
    def tell(model_call: ModelCall) -> None:
        for piece in pieces:
            model_call.request(piece)
        model_call.head(200, JSON, "")
        model_call.piece(b'{"model": "gpt-mini-2024-07-18"}', 1.0)
        model_call.end()

    assert call(tell).model == "gpt-mini"


def test_a_model_far_behind_in_a_request_is_not_looked_for() -> None:
    def tell(model_call: ModelCall) -> None:
        for piece in [b'{"messages": "', *[b"x" * 65536] * 17, b'", "model": "gpt-mini"}']:
            model_call.request(piece)
        model_call.fail("timeout")

    assert call(tell).model is None


@pytest.mark.parametrize("content_type", [SSE, NDJSON])
def test_an_event_that_is_too_large_is_left_out(content_type: str) -> None:
    large, small = (b'{"model": "%b"}' % (b"x" * size) for size in (EVENT_BYTES, 1))
    before, after = (b"data: ", b"\n\n") if content_type is SSE else (b"", b"\n")
    body = b"".join(before + line + after for line in (large, small, large))
    for size in (1000, len(body)):
        pieces = [(1.0, body[at : at + size]) for at in range(0, len(body), size)]
        measured = measure(content_type, pieces)
        assert (measured.model, measured.unread) == ("x", 2)


def test_data_of_many_lines_is_bounded() -> None:
    many = b"data: 1,\n" * (EVENT_BYTES // 8) + b"\n" + sse(delta(content="a"))[0]
    measured = measure(SSE, [(1.0, many)])
    assert (measured.unread, measured.completion_tokens) == (1, 1)


def zipped(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


BODIES = {
    "one line": (SSE, "", b"data: {" + b"x" * 2**23),
    "one document": (JSON, "", b'{"data": [' + b"0.1234567, " * 700_000 + b"1]}"),
    "a bomb": (JSON, "gzip", zipped(b"[" * 2**26)),
}


@pytest.mark.parametrize(("content_type", "coding", "body"), BODIES.values(), ids=BODIES.keys())
def test_a_large_answer_takes_little_memory(content_type: str, coding: str, body: bytes) -> None:
    pieces = [(1.0, body[at : at + 16384]) for at in range(0, len(body), 16384)]
    tracemalloc.start()
    try:
        measure(content_type, pieces, coding=coding)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * EVENT_BYTES


def test_a_piece_of_a_stream_costs_microseconds() -> None:
    piece = sse({**delta(content=" token"), "system_fingerprint": "fp_1", "usage": None})[0]

    def seconds() -> float:
        model_call = ModelCall("openai", lambda _: None)
        model_call.head(200, SSE, "")
        started = time.process_time()
        for _ in range(1000):
            model_call.piece(piece, 1.0)
        return time.process_time() - started

    assert min(seconds() for _ in range(5)) / 1000 < 30e-6


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/openai/deployments/gpt/chat/completions", True),
        ("POST", "/completions", True),
        ("POST", "/v1/embeddings", True),
        ("POST", "/v1/responses", True),
        ("POST", "/api/chat/", True),
        ("POST", "/api/generate", True),
        ("POST", "/api/embed", True),
        ("GET", "/v1/chat/completions", False),
        ("GET", "/v1/models", False),
        ("POST", "/api/show", False),
        ("POST", "/v1/responses/resp_1/cancel", False),
    ],
)
def test_which_requests_are_calls_of_models(method: str, path: str, expected: bool) -> None:
    assert is_model_call(method, path) is expected
    assert (ModelCalls().begin("openai", method, path) is not None) is expected


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"telemetry_cache_{name}", labels) or 0.0


def test_metrics_of_a_call() -> None:
    kept = sample("ttfb_seconds_count")
    model_call = ModelCalls().begin("metrics", "POST", "/v1/chat/completions")
    assert model_call
    model_call.request(b'{"model": "gpt-mini", "stream": true}')
    model_call.forward(0.0)
    model_call.head(200, SSE, "")
    for now, piece in timed(ANSWERS["openai chat"].pieces):
        model_call.piece(piece, now)
    model_call.end()
    # It ends once.
    model_call.fail("client_gone")
    labels = {"route": "metrics", "model": "gpt-mini"}
    assert sample("model_calls_total", **labels, status="200") == 1
    assert sample("model_ttfb_seconds_sum", **labels) == pytest.approx(1.0)
    assert sample("model_first_token_seconds_sum", **labels) == pytest.approx(1.1)
    assert sample("model_tokens_per_second_sum", **labels) == pytest.approx(100)
    assert sample("model_tokens_total", **labels, kind="prompt") == 9
    assert sample("model_tokens_total", **labels, kind="completion") == 30
    assert sample("model_errors_total", **labels, kind="client_gone") == 0
    assert sample("ttfb_seconds_count") == kept + 1
    assert sample("tokens_per_second") == pytest.approx(100)


def test_a_failed_answer_is_no_time_to_first_byte() -> None:
    kept = sample("ttfb_seconds_count")
    failed = Measured(route="failing", model="m", status="500", ttfb=0.1, error="server_error")
    ModelCalls().count(failed)
    assert sample("ttfb_seconds_count") == kept
    assert sample("model_errors_total", route="failing", model=OTHER, kind="server_error") == 1


def test_a_cached_answer_says_nothing_of_the_upstream() -> None:
    kept = sample("ttfb_seconds_count")
    model_call = ModelCalls().begin("caching", "POST", "/v1/embeddings")
    assert model_call
    model_call.request(b'{"model": "e", "input": "a"}')
    model_call.cached()
    model_call.end()
    assert sample("model_calls_total", route="caching", model="e", status="cached") == 1
    assert sample("ttfb_seconds_count") == kept


def test_a_request_that_did_not_go_on_is_no_call() -> None:
    model_call = ModelCalls().begin("refusing", "POST", "/v1/embeddings")
    assert model_call
    model_call.fail("client_gone")
    model_call.end()
    assert sample("model_calls_total", route="refusing", model=OTHER, status="none") == 0


def labels_of(route: str) -> set[str]:
    return {
        value.labels["model"]
        for metric in REGISTRY.collect()
        for value in metric.samples
        if value.name == "telemetry_cache_model_calls_total" and value.labels["route"] == route
    }


@pytest.mark.parametrize(
    "name",
    ["gpt-4o-mini-2024-07-18", "claude-3-5-sonnet-20241022", "hf.co/org/model:Q4_K_M", "a" * 64],
)
def test_names_of_models_are_labels(name: str) -> None:
    ModelCalls().count(Measured(route="named", model=name, status="200"))
    assert name in labels_of("named")


@pytest.mark.parametrize(
    "name",
    ["alice@example.com", "a" * 65, "", "gpt 4", "gpt\n", "+14155550100", "x-4155550100", "Köln"],
)
def test_names_that_are_unlike_a_model_are_no_labels(name: str) -> None:
    ModelCalls().count(Measured(route="strange", model=name, status="200"))
    assert labels_of("strange") == {OTHER}


def test_models_that_no_upstream_knows_are_no_labels() -> None:
    calls = ModelCalls()
    calls.count(Measured(route="unknown", model="gpt-9", status="404", error="client_error"))
    assert labels_of("unknown") == {OTHER}
    calls.count(Measured(route="unknown", model="gpt-4", status="200"))
    calls.count(Measured(route="unknown", model="gpt-4", status="429", error="rate_limited"))
    assert sample("model_errors_total", route="unknown", model="gpt-4", kind="rate_limited") == 1


def test_so_many_models_are_labels_and_no_more() -> None:
    calls = ModelCalls()
    for number in range(100):
        calls.count(Measured(route="many", model=f"model-{number}", status="200"))
    assert labels_of("many") == {f"model-{number}" for number in range(50)} | {OTHER}


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate"],
)
async def test_a_stream_from_a_socket(path: str) -> None:
    measured: list[Measured] = []
    model_call = ModelCall("openai", measured.append)
    body = {"model": "gpt-mini", "stream": True, "stream_options": {"include_usage": True}}
    async with open_upstream() as upstream, httpx2.AsyncClient() as client:
        upstream.behaviour = Behaviour(body_delay=0.05, pause=0.02, chunks=10, gzip=True)
        model_call.request(json.dumps(body).encode())
        model_call.forward(time.monotonic())
        async with client.stream("POST", upstream.url + path, json=body) as answer:
            coding = answer.headers["content-encoding"]
            model_call.head(answer.status_code, answer.headers["content-type"], coding)
            async for piece in answer.aiter_raw():
                model_call.piece(piece, time.monotonic())
    model_call.end()
    (one,) = measured
    assert (one.model, one.prompt_tokens, one.completion_tokens) == ("gpt-mini", PROMPT_TOKENS, 10)
    assert one.ttfb and one.first_token and 0.05 <= one.ttfb <= one.first_token
    # Nine more, 20 ms apart at the least, or as Ollama says.
    assert one.tokens_per_second and one.tokens_per_second < 51
