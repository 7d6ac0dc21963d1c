"""What clients and upstreams see of the response cache, by real sockets; RFC 9111 if no other."""

import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
import trio

from sidecar.cache.fields import http_date_of
from sidecar.metrics import REGISTRY
from sidecar.pressure import Overloaded
from sidecar.proxy.entries import MOST_PIECES, Kept
from sidecar.proxy.upstream import Answer, Whole
from tests.proxy.conftest import Served, Start
from tests.upstream import NEVER, Behaviour, Upstream
from tests.valkey import run_valkey

EMBEDDING = {"model": "m", "input": "hello"}
CHAT = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "hello"}]}
POST = [{"path": "*/embeddings"}, {"path": "*/chat/completions", "when": {"temperature": 0}}]
# Far longer than anything here takes.
LONG = 10.0


def route(upstream: Upstream, cache: dict[str, Any] | None = None, **options: Any) -> Any:
    return {
        "name": "up",
        "upstream": upstream.url,
        "redact": "none",
        "cache": cache or {},
        **options,
    }


def says(control: str | None, body: str = "one", **headers: str) -> Behaviour:
    """Return an answer with this ``Cache-Control``; other headers by name, ``_`` for ``-``."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    if control is not None:
        told["cache-control"] = control
    pieces = (body.encode(),) if body else ()
    return Behaviour(headers=tuple(told.items()), pieces=pieces)


def unchanged(**headers: str) -> Behaviour:
    """Return a 304."""
    return Behaviour(status=304, headers=says(None, **headers).headers)


def failing(status: int = 503, control: str = "max-age=60") -> Behaviour:
    return Behaviour(status=status, headers=(("cache-control", control),), pieces=(b"failed",))


def status_of(response: httpx2.Response) -> str:
    """Return what the cache says of an answer."""
    return str(response.headers.get("cache-status", "")).removeprefix("sidecar; ")


class Step(msgspec.Struct, frozen=True):
    """A call, and what comes of it.

    Attributes:
        answer: of the upstream; None: it must not be asked.
        said: by the cache, a pattern.
        body: that the client gets.
        headers: of the call, such as ``cache_control``.
        asked: headers that the upstream must get; with None, it must not.
    """

    answer: Behaviour | None
    said: str
    body: str = "one"
    headers: dict[str, str] = {}
    method: str = "GET"
    path: str = "/echo"
    status: int = 200
    asked: dict[str, str | None] = {}


async def take(step: Step, served: Served, upstream: Upstream) -> httpx2.Response:
    before = len(upstream.requests)
    if step.answer is not None:
        upstream.answers.append(step.answer)
    headers = {name.replace("_", "-"): value for name, value in step.headers.items()}
    response = await served.client.request(step.method, f"/up{step.path}", headers=headers)
    assert len(upstream.requests) - before == (step.answer is not None)
    assert (response.status_code, response.text) == (step.status, step.body)
    assert re.fullmatch(step.said, status_of(response)), status_of(response)
    for name, value in step.asked.items():
        assert upstream.requests[-1].header(name.replace("_", "-")) == (value or ""), name
    return response


PAST, LATER = http_date_of(1_000_000_000).decode(), http_date_of(4_000_000_000).decode()
MISS = "fwd=uri-miss; stored"
NOT_STORED = "fwd=uri-miss"
HIT = r"hit; ttl=\d+"
STALE = r"hit; ttl=-\d+"
FRESH = says("max-age=60")
FIRST = Step(FRESH, MISS)
AGAIN = Step(None, HIT)
TAGGED = Step(says("max-age=60", etag='"1"'), MISS)
# It is stale as soon as it comes.
OLD = Step(says("max-age=60", etag='"1"', age="90"), MISS)
OLD_BY_DATE = Step(says("max-age=60", last_modified=PAST, age="90"), MISS)

# Where it is said, and what happens one after the other. Each ends with another answer than the
# first wherever the first must not be given again.
TABLE: dict[str, list[Step]] = {
    "4: what is fresh is given": [FIRST, AGAIN, AGAIN],
    "4: of another URI": [FIRST, Step(FRESH, MISS, path="/echo?x")],
    "4.2.1: s-maxage goes before max-age": [
        Step(says("max-age=0, s-maxage=60"), MISS),
        AGAIN,
    ],
    "4.2.1: max-age goes before Expires": [
        Step(says("max-age=60", expires=PAST), MISS),
        AGAIN,
    ],
    "5.3: Expires": [Step(says(None, expires=LATER), MISS), AGAIN],
    "5.3: Expires in the past": [
        Step(says(None, expires=PAST), NOT_STORED),
        Step(says(None, "two"), NOT_STORED, "two"),
    ],
    "5.3: an invalid Expires": [
        Step(says(None, expires="0"), NOT_STORED),
        Step(FRESH, MISS),
    ],
    "4.2.2: nothing is guessed": [
        Step(says(None, last_modified=PAST), MISS),
        Step(unchanged(), "fwd=stale; fwd-status=304", asked={"if_modified_since": PAST}),
    ],
    "4.2.3: Age of a cache before": [
        Step(says("max-age=60", age="55"), MISS),
        Step(None, r"hit; ttl=[0-4]"),
    ],
    "4.2.3: Date of long ago": [
        Step(says("max-age=60", date=PAST), NOT_STORED),
        Step(says("max-age=60", "two"), MISS, "two"),
    ],
    "4.3.1: validation by ETag": [
        OLD,
        Step(
            unchanged(etag='"1"', cache_control="max-age=60"),
            "fwd=stale; fwd-status=304",
            asked={"if_none_match": '"1"'},
        ),
        AGAIN,
    ],
    "4.3.1: validation by Last-Modified": [
        OLD_BY_DATE,
        Step(
            unchanged(cache_control="max-age=60"),
            "fwd=stale; fwd-status=304",
            asked={"if_modified_since": PAST, "if_none_match": None},
        ),
        AGAIN,
    ],
    "4.3.3: another ETag is another answer": [
        OLD,
        Step(says("max-age=60", "two", etag='"2"'), "fwd=stale; stored", "two"),
        Step(None, HIT, "two"),
    ],
    "4.3.3: an error of the server is passed on": [
        OLD,
        Step(failing(500), "fwd=stale", "failed", status=500),
    ],
    "4.3.2: the client has it by ETag": [
        TAGGED,
        Step(None, HIT, "", {"if_none_match": '"0", W/"1"'}, status=304),
        Step(None, HIT, "", {"if_none_match": "*"}, status=304),
        Step(None, HIT, "one", {"if_none_match": '"2"'}),
        Step(None, HIT, "one", {"if_none_match": '"2"', "if_modified_since": LATER}),
    ],
    "4.3.2: the client has it by date": [
        Step(says("max-age=60", last_modified=PAST), MISS),
        Step(None, HIT, "", {"if_modified_since": PAST}, status=304),
        Step(
            None,
            HIT,
            "one",
            {"if_modified_since": http_date_of(999_999_999).decode()},
        ),
    ],
    "4.3.2: the client asks on its own for what is stale": [
        OLD,
        Step(
            unchanged(etag='"1"', cache_control="max-age=60"),
            "fwd=stale",
            "",
            {"if_none_match": '"1"'},
            status=304,
            asked={"if_none_match": '"1"'},
        ),
        AGAIN,
    ],
    "4.3.2: a condition and nothing stored": [
        Step(unchanged(etag='"1"'), NOT_STORED, "", {"if_none_match": '"1"'}, status=304),
        FIRST,
    ],
    "4.3.5: HEAD tells that it is another": [
        TAGGED,
        Step(
            says(None, "", etag='"2"'),
            "fwd=request",
            "",
            {"cache_control": "no-cache"},
            "HEAD",
        ),
        Step(says("max-age=60", "two"), MISS, "two"),
    ],
    "4.3.5: HEAD makes it fresh": [
        OLD,
        Step(says("max-age=60", "", etag='"1"'), "fwd=stale", "", {"if_none_match": '"0"'}, "HEAD"),
        AGAIN,
    ],
    "4: HEAD is answered with what GET got": [FIRST, Step(None, HIT, "", method="HEAD")],
    "3: an answer to HEAD is not one to GET": [
        Step(says("max-age=60", ""), NOT_STORED, "", method="HEAD"),
        FIRST,
    ],
    "3: OPTIONS": [
        Step(FRESH, "fwd=method", method="OPTIONS"),
        Step(FRESH, "fwd=method", method="OPTIONS"),
    ],
    "3.4: a part": [
        FIRST,
        Step(
            Behaviour(status=206, pieces=(b"o",), headers=(("content-range", "bytes 0-0/3"),)),
            "fwd=bypass",
            "o",
            {"range": "bytes=0-0"},
            status=206,
            asked={"range": "bytes=0-0"},
        ),
        AGAIN,
    ],
    "3.4: a part that is all": [
        Step(FRESH, "fwd=bypass", headers={"range": "bytes=0-"}),
        FIRST,
    ],
    "RFC 9110 13.1.1: If-Match": [
        TAGGED,
        Step(FRESH, "fwd=bypass", headers={"if_match": '"1"'}),
    ],
    "3.5: credentials have a cache each": [
        Step(says("max-age=60", "a"), MISS, "a", {"authorization": "Bearer a"}),
        Step(says("max-age=60", "b"), MISS, "b", {"authorization": "Bearer b"}),
        Step(says("max-age=60"), MISS),
        Step(None, HIT, "a", {"authorization": "Bearer a"}),
        Step(None, HIT, "b", {"authorization": "Bearer b"}),
        Step(says("max-age=60", "c"), MISS, "c", {"cookie": "session=1"}),
        Step(says("max-age=60", "d"), MISS, "d", {"x_api_key": "d"}),
        AGAIN,
    ],
    "4.1: Vary": [
        Step(
            says("max-age=60", "de", vary="Accept-Language"), MISS, "de", {"accept_language": "de"}
        ),
        Step(
            says("max-age=60", "fr", vary="Accept-Language"),
            "fwd=vary-miss; stored",
            "fr",
            {"accept_language": "fr"},
        ),
        Step(None, HIT, "de", {"accept_language": "de"}),
        Step(None, HIT, "fr", {"accept_language": "fr"}),
    ],
    "4.1: Vary: *": [
        Step(says("max-age=60", vary="*"), NOT_STORED),
        Step(says("max-age=60", "two"), MISS, "two"),
    ],
    "4.4: PUT": [FIRST, Step(says(None, ""), "fwd=method", "", method="PUT"), FIRST],
    "4.4: DELETE": [
        FIRST,
        Step(Behaviour(status=204), "fwd=method", "", method="DELETE", status=204),
        FIRST,
    ],
    "4.4: POST": [FIRST, Step(says(None, ""), "fwd=method", "", method="POST"), FIRST],
    "4.4: all that vary": [
        Step(says("max-age=60", vary="accept-language"), MISS, headers={"accept_language": "de"}),
        Step(says(None, ""), "fwd=method", "", method="PATCH"),
        Step(says("max-age=60", "two"), MISS, "two", {"accept_language": "de"}),
    ],
    "4.4: Location": [
        FIRST,
        Step(says(None, "", location="../echo"), "fwd=method", "", method="POST", path="/echo/x"),
        FIRST,
    ],
    "4.4: not after an error": [
        FIRST,
        Step(Behaviour(status=404, pieces=()), "fwd=method", "", method="DELETE", status=404),
        AGAIN,
    ],
    "4.4: not another URI": [
        FIRST,
        Step(says(None, ""), "fwd=method", "", method="PUT", path="/echo/x"),
        AGAIN,
    ],
    "5.2.1.1: max-age=0": [
        TAGGED,
        Step(
            unchanged(etag='"1"'),
            "fwd=request; fwd-status=304",
            headers={"cache_control": "max-age=0"},
            asked={"if_none_match": '"1"'},
        ),
    ],
    "5.2.1.1: max-age": [
        Step(says("max-age=600", age="100"), MISS),
        Step(None, HIT, headers={"cache_control": "max-age=200"}),
        Step(
            says("max-age=600", "two"),
            "fwd=request; stored",
            "two",
            {"cache_control": "max-age=50"},
        ),
        Step(None, HIT, "two"),
    ],
    "5.2.1.2: max-stale": [
        Step(says("max-age=60", etag='"1"', age="90"), MISS),
        Step(None, STALE, headers={"cache_control": "max-stale"}),
        Step(None, STALE, headers={"cache_control": "max-stale=1000"}),
        Step(unchanged(), "fwd=stale; fwd-status=304", headers={"cache_control": "max-stale=10"}),
    ],
    "5.2.1.3: min-fresh": [
        FIRST,
        Step(None, HIT, headers={"cache_control": "min-fresh=30"}),
        Step(
            says("max-age=600", "two"),
            "fwd=request; stored",
            "two",
            {"cache_control": "min-fresh=300"},
        ),
    ],
    "5.2.1.4: no-cache": [
        FIRST,
        Step(
            says("max-age=60", "two"),
            "fwd=request; stored",
            "two",
            {"cache_control": "no-cache"},
        ),
        Step(None, HIT, "two"),
    ],
    "5.2.1.5: no-store of the client": [
        Step(FRESH, NOT_STORED, headers={"cache_control": "no-store"}),
        FIRST,
    ],
    "5.2.1.7: only-if-cached": [
        FIRST,
        Step(None, HIT, headers={"cache_control": "only-if-cached"}),
    ],
    "5.4: Pragma": [
        FIRST,
        Step(says("max-age=60", "two"), "fwd=request; stored", "two", {"pragma": "no-cache"}),
    ],
    "5.2.2.2: must-revalidate": [
        Step(says("max-age=60, must-revalidate", etag='"1"', age="90"), MISS),
        Step(unchanged(), "fwd=stale; fwd-status=304", headers={"cache_control": "max-stale"}),
    ],
    "5.2.2.4: no-cache of the upstream": [
        Step(says("max-age=60, no-cache", etag='"1"'), MISS),
        Step(unchanged(), "fwd=stale; fwd-status=304", asked={"if_none_match": '"1"'}),
        Step(unchanged(), "fwd=stale; fwd-status=304"),
    ],
    "5.2.2.5: no-store": [
        Step(says("no-store, max-age=60"), NOT_STORED),
        Step(says("no-store", "two"), NOT_STORED, "two"),
    ],
    "5.2.2.7: private": [
        Step(says("private, max-age=60"), NOT_STORED),
        Step(says("private", "two"), NOT_STORED, "two"),
    ],
    "7.3: Set-Cookie": [
        Step(says("max-age=60", set_cookie="session=1"), NOT_STORED),
        Step(says("max-age=60", "two"), MISS, "two"),
    ],
}


@pytest.mark.parametrize("rule", TABLE)
async def test_get_is_cached_as_the_rfc_says(start: Start, upstream: Upstream, rule: str) -> None:
    served = await start(route(upstream))
    for step in TABLE[rule]:
        await take(step, served, upstream)


async def test_its_age_is_told_and_grows(start: Start, upstream: Upstream) -> None:
    """Sections 4.2.3 and 5.1."""
    served = await start(route(upstream))
    first = await take(Step(says("max-age=60", age="7"), MISS), served, upstream)
    assert first.headers["age"] == "7"
    ages: set[int] = set()
    with trio.fail_after(LONG):
        while len(ages) < 2:
            again = await take(AGAIN, served, upstream)
            ages.add(int(again.headers["age"]))
            assert int(again.headers["age"]) + int(status_of(again)[len("hit; ttl=") :]) in (59, 60)
    assert min(ages) == 7


async def test_what_was_fresh_is_asked_for_again_after_its_time(
    start: Start, upstream: Upstream
) -> None:
    """Section 4.2."""
    served = await start(route(upstream))
    await take(Step(says("max-age=1", etag='"1"'), MISS), served, upstream)
    upstream.behaviour = unchanged()
    with trio.fail_after(LONG):
        while status_of(response := await served.client.get("/up/echo")).startswith("hit"):
            assert response.text == "one"
    assert (status_of(response), response.text) == ("fwd=stale; fwd-status=304", "one")


async def test_an_answer_without_a_date_gets_one(start: Start, upstream: Upstream) -> None:
    """RFC 9110 section 6.6.1."""
    served = await start(route(upstream))
    undated = Behaviour(
        raw=b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 3\r\n\r\none"
    )
    first = await take(Step(undated, MISS), served, upstream)
    again = await take(AGAIN, served, upstream)
    assert first.headers["date"]
    assert again.headers["date"]
    assert int(again.headers["age"]) <= 1


async def test_only_if_cached_never_calls_the_upstream(start: Start, upstream: Upstream) -> None:
    """Section 5.2.1.7."""
    served = await start(route(upstream))
    for asked in ("only-if-cached", "only-if-cached, no-cache"):
        response = await served.client.get("/up/echo", headers={"cache-control": asked})
        assert response.status_code == 504
    assert not upstream.requests


async def test_a_304_about_something_else_is_asked_for_again(
    start: Start, upstream: Upstream
) -> None:
    """Section 4.3.4."""
    served = await start(route(upstream))
    await take(OLD, served, upstream)
    upstream.answers += [unchanged(etag='"2"'), says("max-age=60", "two", etag='"2"')]
    response = await served.client.get("/up/echo")
    assert (response.text, status_of(response)) == ("two", "fwd=stale; stored")
    assert [call.header("if-none-match") for call in upstream.requests] == ["", '"1"', ""]


async def test_what_caches_before_say_of_themselves_stays(start: Start, upstream: Upstream) -> None:
    """RFC 9211 section 2."""
    served = await start(route(upstream))
    upstream.answers.append(says("max-age=60", cache_status="cdn; hit"))
    for expected in ("cdn; hit, sidecar; fwd=uri-miss; stored", r"cdn; hit, sidecar; hit; ttl=\d+"):
        response = await served.client.get("/up/echo")
        assert re.fullmatch(expected, response.headers["cache-status"])


@pytest.mark.parametrize(
    ("control", "stored"),
    [
        ("max-age=60", False),
        ("public, max-age=60", True),
        ("s-maxage=60", True),
        ("max-age=60, must-revalidate", True),
    ],
)
async def test_callers_share_what_may_be_shared(
    start: Start, upstream: Upstream, control: str, stored: bool
) -> None:
    """Section 3.5."""
    served = await start(route(upstream, {"shared": True}))
    answer = says(control)
    said = MISS if stored else NOT_STORED
    await take(Step(answer, said, headers={"authorization": "Bearer a"}), served, upstream)
    again = AGAIN if stored else Step(answer, said)
    again = msgspec.structs.replace(again, headers={"authorization": "Bearer b"})
    await take(again, served, upstream)


async def test_the_route_tells_for_how_long_when_nobody_else_does(
    start: Start, upstream: Upstream
) -> None:
    """Section 4.2.2."""
    served = await start(route(upstream, {"ttl": 300}))
    await take(Step(says(None), MISS), served, upstream)
    await take(Step(None, r"hit; ttl=(300|29\d)"), served, upstream)
    await take(Step(says("no-store", "two"), NOT_STORED, "two", path="/echo/2"), served, upstream)


async def test_a_route_without_a_cache_keeps_nothing(start: Start, upstream: Upstream) -> None:
    declared = route(upstream)
    del declared["cache"]
    served = await start(declared)
    for _ in range(2):
        await take(Step(FRESH, ""), served, upstream)


async def test_a_get_with_a_body_is_passed_on(start: Start, upstream: Upstream) -> None:
    """RFC 9110 section 9.3.1: it means nothing, but to servers of searches it does."""
    served = await start(route(upstream))
    upstream.behaviour = Behaviour(headers=(("cache-control", "max-age=60"),))
    for body in ("one", "two"):
        response = await served.client.request("GET", "/up/echo", content=body)
        assert (response.json()["body"], status_of(response)) == (body, "fwd=bypass")
    assert status_of(await served.client.get("/up/echo")) == MISS


async def test_a_client_that_closes_when_it_has_all_leaves_it_stored(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))
    for number in range(20):
        upstream.answers.append(says("max-age=60", "x" * 300_000, content_length="300000"))
        async with served.connect() as wire:
            await wire.say(b"GET /proxy/up/echo/%d HTTP/1.1\r\nhost: h\r\n\r\n" % number)
            left = 300_000
            head = await wire.head()
            assert head.status_code == 200
            while left:
                left -= len((await wire.event()).data)
        async with served.connect() as wire:
            again = await wire.ask(f"GET /proxy/up/echo/{number}")
        assert again.values("cache-status")[0].startswith("sidecar; hit")


# POST


async def post(
    served: Served, path: str, content: str | bytes | dict[str, Any], **headers: str
) -> httpx2.Response:
    body = msgspec.json.encode(content) if isinstance(content, dict) else content
    return await served.client.post(
        f"/up/v1/{path}", content=body, headers={"content-type": "application/json", **headers}
    )


async def test_the_same_text_is_embedded_once(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, {"post": POST}))
    first = await post(served, "embeddings", EMBEDDING)
    again = await post(served, "embeddings", '{ "input": "hel\\u006co",\n"model":"m"}')
    assert status_of(first) == MISS
    assert re.fullmatch(r"hit; ttl=3(600|59\d)", status_of(again))
    assert again.content == first.content
    assert upstream.calls["/v1/embeddings"] == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"input":1}', '{"input":1.0}'),
        ('{"input":1}', '{"input":"1"}'),
        ('{"input":1}', '{"input":true}'),
        ('{"input":"a","model":"m"}', '{"input":"a","model":"n"}'),
        ('{"input":["a","b"]}', '{"input":["b","a"]}'),
        ('{"input":"a"}', '{"input":"a","user":null}'),
        ('{"input":"\\u00e9"}', '{"input":"e\\u0301"}'),
    ],
)
async def test_another_body_is_another_call(
    start: Start, upstream: Upstream, one: str, other: str
) -> None:
    served = await start(route(upstream, {"post": POST}))
    for body in (one, other):
        assert status_of(await post(served, "embeddings", body)) == MISS
    for body in (one, other):
        assert status_of(await post(served, "embeddings", body)).startswith("hit")
    assert upstream.calls["/v1/embeddings"] == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("embeddings", "no JSON"),
        ("embeddings", '{"input":"a","input":"b"}'),
        ("embeddings", '{"input":NaN}'),
        ("completions", '{"prompt":"a","temperature":0}'),
        ("chat/completions", '{"messages":[],"temperature":0.7}'),
        ("chat/completions", '{"messages":[],"temperature":false}'),
        ("chat/completions", '{"messages":[],"temperature":"0"}'),
        ("chat/completions", '{"messages":[]}'),
        ("chat/completions", "[0]"),
    ],
)
async def test_a_post_of_which_the_operator_says_nothing_is_never_stored(
    start: Start, upstream: Upstream, path: str, body: str
) -> None:
    served = await start(route(upstream, {"post": POST}))
    upstream.behaviour = says("max-age=60")
    for _ in range(2):
        assert status_of(await post(served, path, body)) == "fwd=method"
    assert len(upstream.requests) == 2
    assert bytes(upstream.requests[1].body) == body.encode()


async def test_without_opting_in_no_post_is_stored(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream))
    for _ in range(2):
        assert status_of(await post(served, "embeddings", EMBEDDING)) == "fwd=method"
    assert upstream.calls["/v1/embeddings"] == 2


async def test_a_compressed_post_is_passed_on(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, {"post": POST}))
    for _ in range(2):
        response = await post(
            served, "embeddings", msgspec.json.encode(EMBEDDING), **{"content-encoding": "x"}
        )
        assert status_of(response) == "fwd=method"


async def test_a_stream_is_given_again_as_a_stream(start: Start, upstream: Upstream) -> None:
    """Also with what providers put on their streams: ``no-cache``, and a cookie."""
    served = await start(route(upstream, {"post": POST}, observe="llm"))
    upstream.behaviour = Behaviour(headers=(("set-cookie", "lb=1"),), pause=0.02)
    streaming = {**CHAT, "stream": True}
    first = await post(served, "chat/completions", streaming)
    assert (first.headers["cache-control"], first.headers["set-cookie"]) == ("no-cache", "lb=1")
    async with served.connect() as wire:
        body = msgspec.json.encode(streaming)
        head = "POST /proxy/up/v1/chat/completions HTTP/1.1\r\nhost: h\r\n"
        head += f"accept-encoding: gzip, deflate, zstd\r\ncontent-length: {len(body)}\r\n\r\n"
        await wire.say(head.encode() + body)
        answer = await wire.head("POST")
        headers = {name.decode(): value.decode() for name, value in answer.headers}
        pieces = b""
        chunks = 0
        while data := getattr(await wire.event(), "data", b""):
            pieces += data
            chunks += 1
    assert headers["cache-status"].startswith("sidecar; hit")
    assert "set-cookie" not in headers
    assert "content-length" not in headers
    assert headers["content-type"] == "text/event-stream"
    assert pieces == first.content
    assert chunks == first.text.count("data: ")
    assert upstream.calls["/v1/chat/completions"] == 1


def model_calls(status: str) -> float:
    labels = {"route": "up", "model": "m", "status": status}
    return REGISTRY.get_sample_value("telemetry_cache_model_calls_total", labels) or 0.0


async def test_a_cached_answer_of_a_model_is_counted_as_one(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, {"post": POST}, observe="llm"))
    before = model_calls("cached"), model_calls("200")
    for _ in range(3):
        await post(served, "embeddings", EMBEDDING)
    assert (model_calls("cached"), model_calls("200")) == (before[0] + 2, before[1] + 1)


async def test_a_redacted_body_is_the_key(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, {"post": POST}, redact="request"))
    first = await post(served, "embeddings", {"input": "mail ada@example.org"})
    again = await post(served, "embeddings", {"input": "mail bob@example.org"})
    assert (status_of(first), status_of(again)[:3]) == (MISS, "hit")
    assert b"ada" not in upstream.requests[0].body


# What is never stored


NEVER_STORED: dict[str, tuple[Behaviour, dict[str, Any]]] = {
    "an error of the server": (failing(500), {}),
    "another one": (failing(503, "public, max-age=60, s-maxage=60"), {}),
    "a part": (
        Behaviour(
            status=206,
            pieces=(b"o",),
            headers=(("cache-control", "max-age=60"), ("content-range", "bytes 0-0/3")),
        ),
        {},
    ),
    "more than max_bytes, announced": (
        says("max-age=60", "x" * 1025, content_length="1025"),
        {"max_bytes": 1024},
    ),
    "more than max_bytes": (says("max-age=60", "x" * 1025), {"max_bytes": 1024}),
}


@pytest.mark.parametrize("what", NEVER_STORED)
async def test_this_is_never_stored(start: Start, upstream: Upstream, what: str) -> None:
    answer, cache = NEVER_STORED[what]
    served = await start(route(upstream, cache))
    upstream.behaviour = answer
    for _ in range(2):
        response = await served.client.get("/up/echo")
        assert not status_of(response).startswith("hit")
    assert len(upstream.requests) == 2


async def test_as_much_as_max_bytes_is_stored(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream, {"max_bytes": 1024}))
    await take(Step(says("max-age=60", "x" * 1024), MISS, "x" * 1024), served, upstream)
    await take(Step(None, HIT, "x" * 1024), served, upstream)


@pytest.mark.parametrize(
    ("pieces", "room", "kept"),
    [
        (MOST_PIECES, math.inf, True),
        (MOST_PIECES + 1, math.inf, False),
        (100, 100, True),
        (100, 99, False),
    ],
)
async def test_a_body_is_kept_while_there_is_memory_for_it(
    pieces: int, room: float, kept: bool
) -> None:
    """And goes on whole in any case."""
    got: list[list[bytes] | None] = []
    taken = 0

    def take(size: int) -> None:
        nonlocal taken
        taken += size
        if taken > room:
            raise Overloaded("in_flight")

    async def keep(collected: list[bytes] | None) -> None:
        got.append(collected)

    answer = Answer(200, [], Whole(*[b"x"] * pieces))
    passed = [piece async for piece in Kept(answer, 2**20, take, keep)]
    assert len(passed) == pieces
    assert got == [passed if kept else None]


@pytest.mark.parametrize(
    ("headers", "before_the_last"), [([(b"content-length", b"2")], True), ([], False)]
)
async def test_a_body_is_kept_before_its_client_has_it(headers: Any, before_the_last: bool) -> None:
    """Without a length the client sees the end only after that."""
    got: list[list[bytes] | None] = []

    async def keep(collected: list[bytes] | None) -> None:
        got.append(collected)

    kept = Kept(Answer(200, headers, Whole(b"a", b"b")), 2**20, lambda _: None, keep)
    assert (await anext(kept), got) == (b"a", [])
    assert await anext(kept) == b"b"
    assert got == ([[b"a", b"b"]] if before_the_last else [])
    assert [piece async for piece in kept] == []
    assert got == [[b"a", b"b"]]


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_body_is_not_stored(
    start: Start, upstream: Upstream, announced: bool, reset: bool
) -> None:
    served = await start(route(upstream))
    length = {"content_length": "6"} if announced else {}
    cut = msgspec.structs.replace(
        says("max-age=60", **length), pieces=(b"one", b"two"), cut="body", reset=reset
    )
    upstream.answers.append(cut)
    with pytest.raises(httpx2.RemoteProtocolError):
        await served.client.get("/up/echo")
    await take(FIRST, served, upstream)
    await take(AGAIN, served, upstream)


async def test_an_answer_whose_client_leaves_in_its_middle_is_not_stored(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))
    upstream.answers.append(
        msgspec.structs.replace(says("max-age=60"), pieces=(b"one", b"two"), pause=NEVER)
    )
    async with served.client.stream("GET", "/up/echo") as response:
        assert status_of(response) == MISS
        assert await anext(response.aiter_bytes()) == b"one"
    with trio.fail_after(LONG):
        await upstream.requests[0].closed.wait()
    await take(FIRST, served, upstream)


PERSONAL = b'{"mail": "ada@example.org"}'
JSON = (("content-type", "application/json"), ("cache-control", "max-age=60"))


@pytest.mark.parametrize(
    ("answer", "options", "status"),
    [
        (Behaviour(headers=JSON, pieces=(b"{no json",)), {}, 502),
        (Behaviour(headers=(("content-type", "image/png"), JSON[1]), pieces=(b"x",)), {}, 502),
        (
            Behaviour(headers=(("content-type", "image/png"), JSON[1]), pieces=(b"x",)),
            {"unknown": "drop"},
            200,
        ),
    ],
)
async def test_what_redaction_takes_away_is_not_stored(
    start: Start, upstream: Upstream, answer: Behaviour, options: dict[str, Any], status: int
) -> None:
    served = await start(route(upstream, redact="both", **options))
    upstream.behaviour = answer
    for _ in range(2):
        response = await served.client.get("/up/echo")
        assert response.status_code == status
        assert not status_of(response).startswith("hit")
        assert "stored" not in status_of(response)
    assert len(upstream.requests) == 2


async def test_an_answer_of_which_a_rule_drops_a_record_is_not_stored(
    start: Start, upstream: Upstream
) -> None:
    rules = [{"id": "board", "pattern": "board", "action": {"drop_record": {}}}]
    served = await start(route(upstream, redact="both"), rules=rules)
    lines = (("content-type", "application/x-ndjson"), JSON[1])
    upstream.behaviour = Behaviour(headers=lines, pieces=(b'{"a":1}\n{"a":"board"}\n',))
    for _ in range(2):
        assert (await served.client.get("/up/echo")).json() == {"a": 1}
    assert len(upstream.requests) == 2


async def test_a_stream_that_cannot_be_redacted_to_its_end_is_not_stored(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, redact="both"))
    events = (("content-type", "text/event-stream"), JSON[1])
    upstream.behaviour = Behaviour(
        headers=events, pieces=(b"data: one\n\n", b"data: " + b"x" * 2**21 + b"\n\n")
    )
    for _ in range(2):
        with pytest.raises(httpx2.RemoteProtocolError):
            await served.client.get("/up/echo")
    assert len(upstream.requests) == 2


async def test_redis_gets_what_was_redacted_and_other_rules_have_other_answers(
    start: Start, upstream: Upstream
) -> None:
    async with run_valkey() as server:
        declared = route(upstream, {"post": POST}, redact="both")
        served = await start(declared, redis_url=server.url)
        with trio.fail_after(LONG):
            while not served.cache.redis_connected:
                await trio.sleep(0.01)
        upstream.behaviour = Behaviour(
            headers=(*JSON, ("x-owner", "ada@example.org")), pieces=(PERSONAL,)
        )

        async def ask() -> list[httpx2.Response]:
            return [
                await served.client.get(
                    "/up/echo/ada@example.org", headers={"authorization": "Bearer hidden-key"}
                ),
                await post(served, "embeddings", {"input": "ada@example.org"}),
            ]

        for said in ("fwd=uri-miss; stored", "hit"):
            for response in await ask():
                assert status_of(response).startswith(said)
                assert b"ada" not in response.content
                assert "ada" not in response.headers["x-owner"]
        with server.client() as client:
            keys = client.keys(b"*")
            kept = [client.get(key) for key in keys if b"lock" not in key]
        assert len(kept) == 2
        for text in [*keys, *kept]:
            assert b"example.org" not in text
            assert b"hidden-key" not in text
        served.declare(declared, rules=[{"id": "other", "find": "email"}])
        await served.reload()
        for response in await ask():
            assert status_of(response) == MISS


# One call for many


async def together(count: int, call: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Make calls at once; return what came of them."""
    results = []

    async def one() -> None:
        results.append(await call())

    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
    return results


def sorted_out(responses: list[httpx2.Response]) -> list[str]:
    return sorted({re.sub(r"ttl=\d+", "ttl=N", status_of(response)) for response in responses})


async def test_one_call_is_made_for_many_and_the_others_say_so(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, {"post": POST}))
    upstream.behaviour = msgspec.structs.replace(says("max-age=60"), head_delay=1)
    for call in (
        lambda: served.client.get("/up/echo"),
        lambda: post(served, "embeddings", EMBEDDING),
    ):
        responses = await together(50, call)
        assert sorted_out(responses) == ["fwd=uri-miss; stored", "fwd=uri-miss; ttl=N; collapsed"]
        assert {response.text for response in responses} == {"one"}
    assert len(upstream.requests) == 2


async def test_a_stale_answer_is_validated_once_for_many(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream))
    await take(Step(says("max-age=1", etag='"1"'), MISS), served, upstream)
    with trio.fail_after(LONG):
        while (
            await served.client.get("/up/echo", headers={"cache-control": "only-if-cached"})
        ).status_code == 200:
            pass
    upstream.behaviour = msgspec.structs.replace(
        unchanged(cache_control="max-age=60"), head_delay=1
    )
    responses = await together(50, lambda: served.client.get("/up/echo"))
    assert sorted_out(responses) == [
        "fwd=stale; fwd-status=304",
        "fwd=stale; ttl=N; collapsed",
    ]
    assert len(upstream.requests) == 2


async def test_one_call_is_made_for_each_variant(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream))
    upstream.behaviour = msgspec.structs.replace(
        says("max-age=60", vary="accept-language"), head_delay=1
    )
    languages = iter(["de", "fr", "en"] * 20)

    async def ask() -> httpx2.Response:
        return await served.client.get("/up/echo", headers={"accept-language": next(languages)})

    await together(60, ask)
    assert sorted(call.header("accept-language") for call in upstream.requests) == [
        "de",
        "en",
        "fr",
    ]


async def test_a_client_that_leaves_hands_on(start: Start, upstream: Upstream) -> None:
    served = await start(route(upstream))
    upstream.answers.append(Behaviour(head_delay=NEVER))
    upstream.behaviour = says("max-age=60")
    scope = trio.CancelScope()

    async def leave() -> None:
        with scope:
            await served.client.get("/up/echo")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await upstream.received(1)
        answers: list[httpx2.Response] = []

        async def wait() -> None:
            answers.extend(await together(20, lambda: served.client.get("/up/echo")))

        nursery.start_soon(wait)
        with trio.fail_after(LONG):
            while served.proxy._calls < 21:
                await trio.sleep(0.005)
        assert len(upstream.requests) == 1
        scope.cancel()
    assert {answer.text for answer in answers} == {"one"}
    assert len(upstream.requests) == 2


async def seconds_of(count: int, call: Callable[[], Awaitable[Any]]) -> float:
    before = trio.current_time()
    await together(count, call)
    return trio.current_time() - before


@pytest.mark.parametrize(
    "answer",
    [
        says("no-store"),
        says("max-age=60, no-cache", etag='"1"'),
        says("max-age=60", set_cookie="a=b"),
        says("max-age=60", "x" * 2000),
        says(None),
        failing(),
        Behaviour(cut="before_head"),
        Behaviour(raw=b"garbage\r\n\r\n"),
    ],
)
async def test_calls_do_not_wait_one_after_the_other_for_what_is_of_no_use_to_them(
    start: Start, upstream: Upstream, answer: Behaviour
) -> None:
    served = await start(route(upstream, {"max_bytes": 1024}))
    upstream.behaviour = msgspec.structs.replace(answer, head_delay=0.2)
    assert await seconds_of(50, lambda: served.client.get("/up/echo")) < 1.5
    # And from then on not at all.
    best = min([await seconds_of(10, lambda: served.client.get("/up/echo")) for _ in range(3)])
    assert best < 0.39


async def begun(count: int, served: Served) -> list[bytes]:
    """Return the first pieces of answers to as many calls, which all go on until each has one."""
    pieces: list[bytes] = []
    all_have = trio.Event()

    async def ask() -> None:
        async with served.client.stream("GET", "/up/echo") as response:
            body = response.aiter_bytes()  # it closes the connection when it is not kept
            pieces.append(await anext(body))
            if len(pieces) == count:
                all_have.set()
            await all_have.wait()

    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(ask)
    return pieces


async def test_many_wait_no_longer_than_until_it_shows_that_they_wait_in_vain(
    start: Start, upstream: Upstream
) -> None:
    """A stream of events has no end."""
    served = await start(route(upstream))
    upstream.behaviour = msgspec.structs.replace(
        says(None, content_type="text/event-stream"),
        pieces=(b"data: 1\n\n", b"data: 2\n\n"),
        head_delay=1,
        pause=NEVER,
    )

    assert await begun(5, served) == [b"data: 1\n\n"] * 5


async def test_many_do_not_wait_for_what_is_too_large_to_be_kept(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, {"max_bytes": 1024}))
    upstream.behaviour = msgspec.structs.replace(
        says("max-age=60"), pieces=(b"x" * 1025, b"y"), body_delay=1, pause=NEVER
    )

    assert await begun(5, served) == [b"x" * 1025] * 5


async def test_after_a_failure_one_call_is_made_for_many_again(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream))
    await take(Step(failing(), NOT_STORED, "failed", status=503), served, upstream)
    await take(FIRST, served, upstream)
    await take(Step(says(None, ""), "fwd=method", "", method="PUT"), served, upstream)
    upstream.behaviour = msgspec.structs.replace(says("max-age=60"), head_delay=1)
    await together(20, lambda: served.client.get("/up/echo"))
    assert len(upstream.requests) == 4


# Stale answers


SWR = "max-age=60, stale-while-revalidate=600"
SIE = "max-age=60, stale-if-error=600"
IF_ERROR = r"hit; ttl=-\d+; detail=if-error"


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(LONG):
        while not condition():
            await trio.sleep(0.005)


@pytest.mark.parametrize(
    ("control", "cache"),
    [
        (SWR, {}),
        ("max-age=60", {"stale_while_revalidate": 600}),
        (SWR, {"stale_while_revalidate": 0}),
    ],
)
@pytest.mark.parametrize("tagged", [True, False])
async def test_a_stale_answer_is_given_while_one_call_fetches_it_anew(
    start: Start, upstream: Upstream, control: str, cache: dict[str, Any], tagged: bool
) -> None:
    """RFC 5861 section 3."""
    served = await start(route(upstream, cache))
    tag = {"etag": '"1"'} if tagged else {}
    await take(Step(says(control, age="90", **tag), MISS), served, upstream)
    upstream.behaviour = msgspec.structs.replace(
        says("max-age=60", "two", etag='"2"'), head_delay=1
    )
    responses = await together(20, lambda: served.client.get("/up/echo"))
    assert not any(call.finished.is_set() for call in upstream.requests[1:])
    assert {response.text for response in responses} == {"one"}
    assert all(re.fullmatch(STALE, status_of(response)) for response in responses)
    await upstream.received(2)
    assert upstream.requests[1].header("if-none-match") == ('"1"' if tagged else "")
    with trio.fail_after(LONG):
        while (await served.client.get("/up/echo")).text == "one":
            pass
    await take(Step(None, HIT, "two"), served, upstream)
    assert len(upstream.requests) == 2


async def test_a_call_in_the_background_asks_for_itself(start: Start, upstream: Upstream) -> None:
    """The condition of the client is about what the client has."""
    served = await start(route(upstream))
    await take(Step(says(SWR, etag='"1"', age="90"), MISS), served, upstream)
    upstream.behaviour = unchanged(cache_control="max-age=60")
    response = await served.client.get("/up/echo", headers={"if-none-match": '"other"'})
    assert response.text == "one"
    await upstream.received(2)
    assert upstream.requests[1].header("if-none-match") == '"1"'
    with trio.fail_after(LONG):
        while not re.fullmatch(HIT, status_of(await served.client.get("/up/echo"))):
            pass


async def test_what_is_fetched_in_the_background_is_redacted_and_its_findings_count(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, redact="both"))
    old = (("content-type", "application/json"), ("cache-control", SWR), ("age", "90"))
    upstream.answers += [
        Behaviour(headers=old, pieces=(b'{"a": 1}',)),
        Behaviour(headers=JSON, pieces=(PERSONAL,)),
    ]
    for _ in range(2):
        assert (await served.client.get("/up/echo")).json() == {"a": 1}
    with trio.fail_after(LONG):
        while (response := await served.client.get("/up/echo")).json() == {"a": 1}:
            pass
    assert b"ada" not in response.content
    await until(lambda: [row.count for row in served.redactions.rows()] == [1])


@pytest.mark.parametrize(
    "answer",
    [
        failing(500),
        Behaviour(cut="before_head"),
        Behaviour(cut="body", pieces=(b"one", b"two")),
        Behaviour(raw=b"garbage\r\n\r\n"),
        Behaviour(headers=(("content-type", "image/png"),), pieces=(b"x",)),
    ],
)
async def test_a_call_in_the_background_that_fails_harms_nobody(
    start: Start, upstream: Upstream, answer: Behaviour
) -> None:
    served = await start(route(upstream, redact="both"))
    old = (("content-type", "text/plain"), ("cache-control", SWR), ("age", "90"))
    upstream.answers.append(Behaviour(headers=old, pieces=(b"one",)))
    upstream.behaviour = answer
    for number in range(2, 5):
        with trio.fail_after(LONG):
            while len(upstream.requests) < number:
                assert (await served.client.get("/up/echo")).text == "one"


UNREACHABLE = "connect"


@pytest.mark.parametrize(
    "failure",
    [
        failing(500),
        failing(502),
        failing(503),
        failing(504),
        Behaviour(cut="before_head"),
        Behaviour(head_delay=NEVER),
        Behaviour(raw=b"garbage\r\n\r\n"),
        UNREACHABLE,
    ],
)
@pytest.mark.parametrize(("control", "cache"), [(SIE, {}), ("max-age=60", {"stale_if_error": 600})])
async def test_a_stale_answer_is_given_when_the_upstream_fails(
    start: Start,
    upstream: Upstream,
    nursery: trio.Nursery,
    failure: Behaviour | str,
    control: str,
    cache: dict[str, Any],
) -> None:
    """RFC 5861 section 4."""
    timeouts = {"first_byte": 0.3, "connect": 1.0}
    served = await start(route(upstream, cache, timeouts=timeouts))
    await take(Step(says(control, age="90", etag='"1"'), MISS), served, upstream)
    if isinstance(failure, str):
        # The route keeps its name and its URL, behind which there is nothing any more.
        served.proxy._destinations.find("up").upstream._client._port = 1  # type: ignore[union-attr]
        served.proxy._destinations.find("up").upstream.close()
    else:
        upstream.behaviour = failure
    for _ in range(2):
        response = await served.client.get("/up/echo")
        assert (response.status_code, response.text) == (200, "one")
        assert re.fullmatch(IF_ERROR, status_of(response))


@pytest.mark.parametrize(
    ("control", "status", "cache"),
    [
        (f"{SIE}, must-revalidate", 503, {}),
        ("max-age=60, proxy-revalidate", 503, {"stale_if_error": 600}),
        ("s-maxage=60", 503, {"stale_if_error": 600}),
        ("max-age=60, no-cache", 503, {"stale_if_error": 600}),
        (f"max-age=60, {SWR}, must-revalidate", 503, {}),
        ("max-age=60, stale-if-error=10", 503, {"stale_if_error": 600}),
        (SIE, 404, {}),
        (SIE, 501, {}),
    ],
)
async def test_no_stale_answer_is_given_where_it_may_not(
    start: Start, upstream: Upstream, control: str, status: int, cache: dict[str, Any]
) -> None:
    """Section 4.2.4."""
    served = await start(route(upstream, cache))
    await take(Step(says(control, age="90", etag='"1"'), MISS), served, upstream)
    await take(
        Step(failing(status), r"fwd=stale(; stored)?", "failed", status=status), served, upstream
    )


async def test_a_failed_call_of_a_model_is_counted_though_a_stale_answer_is_given(
    start: Start, upstream: Upstream
) -> None:
    served = await start(route(upstream, {"post": POST, "stale_if_error": 600}, observe="llm"))
    old = msgspec.structs.replace(says("max-age=60", "{}"), headers=(*JSON, ("age", "90")))
    upstream.answers.append(old)
    await post(served, "embeddings", EMBEDDING)
    upstream.behaviour = failing()
    labels = {"route": "up", "model": "m", "kind": "server_error"}
    name = "telemetry_cache_model_errors_total"
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    response = await post(served, "embeddings", EMBEDDING)
    assert re.fullmatch(IF_ERROR, status_of(response))
    assert (REGISTRY.get_sample_value(name, labels) or 0.0) == before + 1
