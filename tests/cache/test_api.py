import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cache.api import routes
from sidecar.cache.keys import tool_key
from sidecar.cache.tiers import MAX_VALUE_BYTES, Cache
from sidecar.http.messages import HTTPError, Request, Response
from sidecar.http.openapi import document
from sidecar.http.routing import Router
from tests.cache.conftest import MEMORY_BYTES, Start
from tests.valkey import Valkey

LIMIT = 2**24


class Client:
    """Calls the handlers as a server would."""

    def __init__(self, cache: Cache, limit: int = LIMIT) -> None:
        self._router = Router(routes(cache, limit))

    async def call(
        self, method: str, target: str, body: bytes = b"", **headers: str
    ) -> tuple[int, Any]:
        """Return the status and the decoded body, or the detail of an error."""
        path, _, query = target.partition("?")
        pieces = [body, b""] if body else [b""]

        async def receive() -> bytes:
            return pieces.pop(0)

        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(method, path, query, named, receive)
        try:
            response: Response = await self._router(request)
        except HTTPError as error:
            return error.status, error.detail
        return response.status, json.loads(response.body)

    async def set(self, **fields: Any) -> tuple[int, Any]:
        return await self.call("POST", "/cache/set", json.dumps(fields).encode())

    async def get(self, key: str) -> Any:
        status, answer = await self.call("GET", f"/cache/get?key={key}")
        assert status == 200
        return answer


@pytest.fixture
def client() -> Client:
    return Client(Cache(MEMORY_BYTES))


async def test_a_value_is_set_got_and_deleted(client: Client) -> None:
    status, answer = await client.set(key="k", data={"a": [1, None]}, ttl=60)
    assert (status, answer["status"], answer["key"]) == (200, "cached", "k")
    answer = await client.get("k")
    assert (answer["hit"], answer["data"]) == (True, {"a": [1, None]})
    assert 59 < answer["ttl_remaining"] <= 60
    assert await client.call("DELETE", "/cache?key=k") == (200, {"deleted": True})
    assert await client.get("k") == {"hit": False, "data": None, "ttl_remaining": None}


async def test_what_is_not_there_can_be_deleted_too(client: Client) -> None:
    assert await client.call("DELETE", "/cache?key=none") == (200, {"deleted": True})


@pytest.mark.parametrize(("ttl", "seconds"), [({}, 3600), ({"ttl": 1.5}, 1.5), ({"ttl": 60}, 60)])
async def test_the_end_is_told_in_utc(client: Client, ttl: dict[str, Any], seconds: float) -> None:
    began = datetime.now(UTC)
    _, answer = await client.set(key="k", data=1, **ttl)
    assert answer["expires_at"].endswith("Z")
    expires_at = datetime.fromisoformat(answer["expires_at"])
    assert began <= expires_at - timedelta(seconds=seconds) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "false",
        '""',
        "1.0",
        "1e400",
        "123456789012345678901234567890.12345678901234567890",
        "-0.0",
        '"\\u00e9 \\ud83d\\ude00 é"',
        '{"b": 1, "a": 2, "b": 3}',
        " [1 , 2] ",
    ],
)
async def test_data_comes_back_as_the_text_it_was(data: str) -> None:
    cache = Cache(MEMORY_BYTES)
    client = Client(cache)
    assert (await client.call("POST", "/cache/set", b'{"key":"k","data":%b}' % data.encode()))[
        0
    ] == 200
    found = await cache.get("k")
    assert found is not None
    assert found.value.strip() == data.strip().encode()
    assert found.value in msgspec.json.encode({"data": msgspec.Raw(found.value)})
    assert (await client.get("k"))["data"] == json.loads(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)
        ),
        max_leaves=8,
    )
)
def test_any_data_comes_back(data: Any) -> None:
    async def main() -> None:
        client = Client(Cache(MEMORY_BYTES))
        assert (await client.set(key="k", data=data))[0] == 200
        assert await client.get("k") == {
            "hit": True,
            "data": data,
            "ttl_remaining": pytest.approx(3600, abs=5),
        }

    trio.run(main)


async def test_the_body_is_not_kept_with_the_value() -> None:
    cache = Cache(MEMORY_BYTES)
    await Client(cache).set(key="k", data="x", other="y" * 10_000)
    found = await cache.get("k")
    assert found is not None
    assert type(found.value) is bytes
    assert found.value == b'"x"'


async def test_unknown_fields_and_parameters_are_ignored(client: Client) -> None:
    assert (await client.set(key="k", data=1, namespace="tools", tags=[1]))[0] == 200
    assert (await client.call("GET", "/cache/get?x=1&key=k&y"))[1]["hit"]


async def test_keys_are_decoded_from_the_query(client: Client) -> None:
    await client.set(key="a b+ü/&=?", data=1)
    assert (await client.get("a+b%2B%C3%BC%2F%26%3D%3F"))["hit"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"data": 1}, "key"),
        ({"key": "k"}, "data"),
        ({"key": "", "data": 1}, "key"),
        ({"key": "k" * 1025, "data": 1}, "key"),
        ({"key": 7, "data": 1}, "key"),
        ({"key": "k", "data": 1, "ttl": 0}, "ttl"),
        ({"key": "k", "data": 1, "ttl": -1}, "ttl"),
        ({"key": "k", "data": 1, "ttl": "60"}, "ttl"),
        ({"key": "k", "data": 1, "ttl": True}, "ttl"),
        ({"key": "k", "data": 1, "ttl": None}, "ttl"),
        ({"key": "k", "data": 1, "ttl": 315_360_001}, "ttl"),
    ],
)
async def test_a_wrong_field_is_named(client: Client, fields: dict[str, Any], named: str) -> None:
    status, detail = await client.set(**fields)
    assert status == 422
    assert named in detail


@pytest.mark.parametrize("key", ["k" * 1024, "é" * 1024, "\x00", " "])
async def test_any_text_up_to_the_limit_is_a_key(client: Client, key: str) -> None:
    assert (await client.set(key=key, data=1))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"key":"k","data":[1,}',
        b'{"key":"k","data":NaN}',
        b'{"key":"k","data":1,"ttl":NaN}',
        b'{"key":"k","data":"\xff"}',
        b'{"key":"\xff","data":1}',
        b'{"key":"\\ud800","data":1}',
        b'{"key":"k","data":%b}' % (b"[" * 100_000 + b"]" * 100_000),
    ],
)
async def test_malformed_json_is_refused(client: Client, body: bytes) -> None:
    assert (await client.call("POST", "/cache/set", body))[0] == 400
    assert not (await client.get("k"))["hit"]


@pytest.mark.parametrize("path", ["/cache/set", "/cache/key"])
async def test_only_json_is_taken(client: Client, path: str) -> None:
    body = b'{"key":"k","data":1,"tool":"t","args":{}}'
    for kind, status in (
        ("text/plain", 415),
        ("application/xml", 415),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.tool+json", 200),
    ):
        assert (await client.call("POST", path, body, content_type=kind))[0] == status
    assert (await client.call("POST", path, body, content_encoding="br"))[0] == 415


async def test_a_large_value_is_refused() -> None:
    client = Client(Cache(8 * MAX_VALUE_BYTES))
    assert (await client.set(key="k" * 1024, data="x" * (MAX_VALUE_BYTES - 2)))[0] == 200
    assert (await client.set(key="k", data="x" * (MAX_VALUE_BYTES - 1)))[0] == 413
    assert (await client.set(key="k", data=1, other="x" * 2 * MAX_VALUE_BYTES))[0] == 413
    assert (await Client(Cache(2000)).set(key="k", data="x" * 2000))[0] == 413
    assert (await Client(Cache(2**20), limit=1000).set(key="k", data="x" * 1000))[0] == 413


@pytest.mark.parametrize("method_path", ["GET /cache/get", "DELETE /cache"])
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "key"),
        ("key=", "key"),
        ("other=1", "key"),
        ("key=a&key=b", "key"),
        (f"key={'k' * 1025}", "key"),
        ("key=%FF", "UTF-8"),
        ("key=%ED%A0%80", "UTF-8"),  # a lone surrogate
        ("&".join("k" for _ in range(1000)), "query"),
    ],
)
async def test_a_wrong_query_is_refused(
    client: Client, method_path: str, query: str, named: str
) -> None:
    method, path = method_path.split()
    status, detail = await client.call(method, f"{path}?{query}")
    assert status == 422
    assert named in detail


async def test_a_key_of_a_call_is_made(client: Client) -> None:
    one = b'{"tool": "search", "args": {"q": "x", "n": {"b": 1, "a": 2}}}'
    other = b'{"args": {"n": {"a": 2, "b": 1}, "q": "x"}, "tool": "search"}'
    key = tool_key("search", {"q": "x", "n": {"a": 2, "b": 1}})
    for body in (one, other):
        assert await client.call("POST", "/cache/key", body) == (200, {"key": key})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"tool": "t", "args": {}}', 200),
        (b'{"tool": "t", "args": {"a": %b}}' % (b"9" * 4300), 200),
        (b'{"tool": "t", "args": {"a": %b}}' % (b"[" * 900 + b"]" * 900), {200, 400}),
        (b'{"tool": "t", "args": {"a": %b}}' % (b"[" * 990 + b"]" * 990), {200, 400}),
        (b'{"tool": "t", "args": {"a": %b}}' % (b"[" * 5000 + b"]" * 5000), 400),
        (b'{"tool": "t", "args": {"a": 1e999}}', 422),
        (b'{"tool": "t", "args": {"a": %b}}' % (b"9" * 4301), 422),
        (b'{"tool": "t", "args": []}', 422),
        (b'{"tool": "t"}', 422),
        (b'{"tool": "", "args": {}}', 422),
        (b'{"tool": "t", "args": {"a": "%b"}}' % (b"x" * 2**20), 413),
        (b'{"tool": "t", "args": {"a": "\xff"}}', 400),
    ],
    ids=range(12),
)
async def test_no_call_is_too_odd_for_an_answer(
    client: Client, body: bytes, status: int | set[int]
) -> None:
    answered, _ = await client.call("POST", "/cache/key", body)
    assert answered in (status if isinstance(status, set) else {status})


async def test_stats_count_look_ups(client: Client) -> None:
    await client.set(key="k", data=1)
    await client.get("k")
    await client.get("k")
    await client.get("none")
    assert await client.call("GET", "/cache/stats") == (
        200,
        {
            "hit_rate": pytest.approx(2 / 3),
            "total_hits": 2,
            "total_misses": 1,
            "total_requests": 3,
        },
    )


def test_every_route_is_documented() -> None:
    paths = document(routes(Cache(MEMORY_BYTES), LIMIT), "1")["paths"]
    statuses = {
        f"{method} {path}": set(operation["responses"])
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    assert statuses == {
        "post /cache/set": {"200", "400", "408", "413", "415", "422"},
        "get /cache/get": {"200", "422"},
        "delete /cache": {"200", "422"},
        "post /cache/key": {"200", "400", "408", "413", "415", "422"},
        "get /cache/stats": {"200"},
    }


async def test_every_call_answers_while_redis_restarts(server: Valkey, connect: Start) -> None:
    cache = await connect(server.url, call_seconds=0.025)
    client = Client(cache)
    took: list[float] = []
    restarted = trio.Event()

    async def use() -> None:
        while not restarted.is_set() or not cache.redis_connected:
            began = time.perf_counter()
            assert (await client.set(key="k", data=len(took)))[0] == 200
            set_at = time.perf_counter()
            assert (await client.get("k"))["data"] == len(took)
            took.extend((set_at - began, time.perf_counter() - set_at))
            await trio.sleep(0.002)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await server.kill()
            await server.start()
            restarted.set()
    took.sort()
    assert took[int(len(took) * 0.95)] < 0.05
