import enum
import gzip
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
import trio
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sidecar.http.body import decompress, media_type, read_body, read_json
from sidecar.http.messages import Disconnected, HTTPError, Request

LIMIT = 2**20


def request(pieces: Iterable[bytes] = (), **headers: str) -> Request:
    waiting = iter(pieces)

    async def receive() -> bytes:
        await trio.lowlevel.checkpoint()
        return next(waiting, b"")

    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/", "", names, receive)


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate (raw)": raw_deflate,
    "zstd": zstandard.compress,
}
every_coding = pytest.mark.parametrize("name", ENCODERS)


def coding_of(name: str) -> str:
    return name.partition(" ")[0]


@every_coding
@given(data=st.binary(max_size=3000), repeat=st.integers(1, 200))
def test_what_was_compressed_comes_back(name: str, data: bytes, repeat: int) -> None:
    whole = data * repeat
    assert decompress(ENCODERS[name](whole), coding_of(name), LIMIT) == whole


@every_coding
def test_a_body_of_exactly_the_limit_fits_and_one_more_byte_does_not(name: str) -> None:
    body = ENCODERS[name](b"a" * 1000)
    assert decompress(body, coding_of(name), 1000) == b"a" * 1000
    with pytest.raises(HTTPError) as caught:
        decompress(body, coding_of(name), 999)
    assert caught.value.status == 413


@every_coding
def test_every_truncation_is_refused(name: str) -> None:
    body = ENCODERS[name](b"hello, world " * 50)
    for end in range(len(body)):
        with pytest.raises(HTTPError) as caught:
            decompress(body[:end], coding_of(name), LIMIT)
        assert caught.value.status == 400


@every_coding
def test_data_after_the_end_is_refused(name: str) -> None:
    with pytest.raises(HTTPError) as caught:
        decompress(ENCODERS[name](b"hello") + b"garbage", coding_of(name), LIMIT)
    assert caught.value.status == 400


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_give_output_or_a_refusal(coding: str, data: bytes) -> None:
    try:
        assert len(decompress(data, coding, 1000)) <= 1000
    except HTTPError as error:
        assert error.status in (400, 413)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_several_members_are_one_body(name: str) -> None:
    parts = [b"first ", b"", b"second" * 20_000, b" last"]
    body = b"".join(ENCODERS[name](part) for part in parts)
    assert decompress(body, name, LIMIT) == b"".join(parts)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_flood_of_empty_members_is_refused(name: str) -> None:
    with pytest.raises(HTTPError) as caught:
        decompress(ENCODERS[name](b"") * 100_000, name, LIMIT)
    assert caught.value.status == 400


def test_zstd_frames_may_be_skippable() -> None:
    skippable = bytes.fromhex("502a4d18") + (3).to_bytes(4, "little") + b"abc"
    assert decompress(skippable + zstandard.compress(b"data"), "zstd", LIMIT) == b"data"


def test_a_zstd_window_larger_than_the_standard_allows_is_refused() -> None:
    params = zstandard.ZstdCompressionParameters(window_log=27)
    encoder = zstandard.ZstdCompressor(compression_params=params).compressobj()
    body = encoder.compress(b"x" * 1000) + encoder.flush()
    with pytest.raises(HTTPError) as caught:
        decompress(body, "zstd", LIMIT)
    assert caught.value.status == 400


# In a process of its own, since the peak of a process never falls again; not by getrusage, whose
# peak a child inherits.
MEASURE = """
import re, sys
from pathlib import Path
from sidecar.http.body import decompress
from sidecar.http.messages import HTTPError
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
body = sys.stdin.buffer.read()
before = peak()
try:
    decompress(body, sys.argv[1], int(sys.argv[2]))
except HTTPError as error:
    print(error.status, peak() - before)
"""


def bomb(coding: str, mebibytes: int) -> bytes:
    zeros = bytes(2**20)
    if coding == "zstd":
        frame = zstandard.ZstdCompressor().compressobj()
        return b"".join(frame.compress(zeros) for _ in range(mebibytes)) + frame.flush()
    stream = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    return b"".join(stream.compress(zeros) for _ in range(mebibytes)) + stream.flush()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_bomb_costs_no_more_memory_than_the_bound(coding: str) -> None:
    bound = 8 * 2**20
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, coding, str(bound)],
        input=bomb(coding, 256),
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    status, grown = map(int, run.stdout.split())
    assert status == 413
    # The bound, one piece, and the window that zstd decodes in.
    assert grown < 3 * bound


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "GZIPPED", "\x00"])
async def test_an_unknown_coding_is_refused_before_the_body_is_read(coding: str) -> None:
    async def receive() -> bytes:
        raise AssertionError("the body was read")

    with pytest.raises(HTTPError) as caught:
        await read_body(Request("POST", "/", "", {"content-encoding": coding}, receive), LIMIT)
    assert caught.value.status == 415
    assert caught.value.headers == {"accept-encoding": "gzip, deflate, zstd"}


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 5000])
async def test_an_announced_giant_is_refused_before_the_body_is_read(length: str) -> None:
    async def receive() -> bytes:
        raise AssertionError("the body was read")

    with pytest.raises(HTTPError) as caught:
        await read_body(Request("POST", "/", "", {"content-length": length}, receive), LIMIT)
    assert caught.value.status == 413


async def test_an_unannounced_giant_is_refused_when_it_passes_the_limit() -> None:
    taken = 0

    async def receive() -> bytes:
        nonlocal taken
        taken += 1
        return bytes(1000)

    with pytest.raises(HTTPError) as caught:
        await read_body(Request("POST", "/", "", {}, receive), 10_000)
    assert caught.value.status == 413
    assert taken == 11


@pytest.mark.parametrize("coding", ["", "identity", "Identity", " GZIP "])
async def test_a_body_in_pieces_is_joined(coding: str) -> None:
    data = b"some text " * 100
    body = gzip.compress(data) if "GZIP" in coding else data
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
    assert await read_body(request(pieces, content_encoding=coding), LIMIT) == data


async def test_a_compressed_body_past_the_limit_is_refused_though_it_would_not_grow() -> None:
    body = gzip.compress(b"", mtime=0) * 100
    with pytest.raises(HTTPError) as caught:
        await read_body(request([body], content_encoding="gzip"), 1000)
    assert caught.value.status == 413


async def test_other_tasks_run_while_a_large_body_is_decompressed() -> None:
    turns = 0
    done = False

    async def neighbour() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbour)
        body = request([gzip.compress(bytes(8 * LIMIT))], content_encoding="gzip")
        assert len(await read_body(body, 8 * LIMIT)) == 8 * LIMIT
        done = True
    assert turns > 50


async def test_a_client_that_goes_away_is_told_to_the_handler() -> None:
    async def receive() -> bytes:
        raise Disconnected

    with pytest.raises(Disconnected):
        await read_body(Request("POST", "/", "", {}, receive), LIMIT)


async def test_a_body_that_never_arrives_is_given_up(autojump_clock: MockClock) -> None:
    with pytest.raises(HTTPError) as caught:
        await read_body(Request("POST", "/", "", {}, never), LIMIT)
    assert caught.value.status == 408


async def never() -> bytes:
    await trio.sleep_forever()
    raise AssertionError


class Colour(enum.Enum):
    RED = "red"


class Paint(msgspec.Struct, forbid_unknown_fields=True):
    colour: Colour
    litres: float = 1.0
    mixed: dict[Colour, int] = {}


async def read(text: str | bytes, content_type: str | None = "application/json") -> Paint:
    body = text.encode() if isinstance(text, str) else text
    headers = {} if content_type is None else {"content_type": content_type}
    return await read_json(request([body], **headers), Paint, LIMIT)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/vnd.api+json; charset="utf-8"; v=1',
    ],
)
async def test_json_is_decoded_for_its_media_types(content_type: str | None) -> None:
    assert await read('{"colour":"red"}', content_type) == Paint(Colour.RED)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "application/json; charset=latin-1", "json", "text/x+json"],
)
async def test_other_media_types_are_refused(content_type: str) -> None:
    with pytest.raises(HTTPError) as caught:
        await read('{"colour":"red"}', content_type)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"colour":"red"} x',
        "\ufeff{}",
        b'{"colour":"\xff"}',
        '{"colour":"\\ud800"}',
        '{"colour":1, "litres":',
        "[" * 500_000,
        '{"x":' * 150_000,
        '{"colour":"red","litres":NaN}',
    ],
)
async def test_malformed_json_is_a_bad_request(text: str | bytes) -> None:
    with pytest.raises(HTTPError) as caught:
        await read(text)
    assert caught.value.status == 400


async def test_a_wrong_shape_names_the_field() -> None:
    with pytest.raises(HTTPError) as caught:
        await read('{"colour":"red","litres":"many"}')
    assert caught.value.status == 422
    assert caught.value.detail == "Expected `float`, got `str` - at `$.litres`."


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"colour":"hunter2"}', "Invalid value - at `$.colour`."),
        ('{"colour":"hunter2\' - at `$.hunter2"}', "Invalid value - at `$.colour`."),
        ('{"colour":"red","mixed":{"hunter2":1}}', "Invalid value - at `key` in `$.mixed`."),
        ('{"colour":"red","hunter2":1}', "Object contains an unknown field."),
        ('{"colour":"red","hunter2 - at `$.hunter2`":1}', "Object contains an unknown field."),
    ],
)
async def test_no_piece_of_the_payload_is_in_the_detail(text: str, detail: str) -> None:
    with pytest.raises(HTTPError) as caught:
        await read(text)
    assert (caught.value.status, caught.value.detail) == (422, detail)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=50)
@given(value=json_values)
async def test_any_json_document_is_decoded_or_refused(value: Any) -> None:
    try:
        await read(json.dumps(value))
    except HTTPError as error:
        assert error.status in (400, 422)


def test_the_media_type_is_lower_case_without_parameters() -> None:
    assert media_type(request(content_type=" Text/Plain ; charset=x")) == "text/plain"
    assert media_type(request()) == ""


def test_gzip_written_by_a_streaming_client_is_read() -> None:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as stream:
        for _ in range(100):
            stream.write(b"line\n")
            stream.flush()
    assert decompress(out.getvalue(), "gzip", LIMIT) == b"line\n" * 100
