"""The cache over HTTP: the routes under ``/cache``.

``data`` is kept as the JSON text that came in, so every number and string comes back as it was.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from sidecar.cache.keys import tool_key
from sidecar.cache.memory import ValueTooLargeError
from sidecar.cache.tiers import MAX_VALUE_BYTES, Cache, Stats
from sidecar.http.body import read_json
from sidecar.http.messages import Handler, HTTPError, Request, Response, json_response
from sidecar.http.routing import Body, Route, problems

MAX_TTL = 315_360_000  # seconds: ten years of 365 days

# The largest value, and room for the key and for what a client sends beside them.
_MAX_SET_BYTES = MAX_VALUE_BYTES + 64 * 1024
_MAX_ARGS_BYTES = 2**20
_MAX_PARAMETERS = 32

_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=1024, description="The cache key.")]
_QueryT = TypeVar("_QueryT", bound=msgspec.Struct)


class SetRequest(msgspec.Struct):
    """A value to keep for ``ttl`` seconds."""

    key: _Key
    data: msgspec.Raw
    ttl: Annotated[float, msgspec.Meta(gt=0, le=MAX_TTL, description="Seconds.")] = 3600


class SetResponse(msgspec.Struct):
    """Until when the value is kept."""

    status: Literal["cached"]
    key: str
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)]


class CacheKeyQuery(msgspec.Struct):
    """The query of ``GET /cache/get`` and ``DELETE /cache``."""

    key: _Key


class GetResponse(msgspec.Struct):
    """A hit with its value and the seconds it is still kept, or a miss with neither."""

    hit: bool
    data: msgspec.Raw
    ttl_remaining: float | None


class DeleteResponse(msgspec.Struct):
    """The key holds nothing now, whether it did before or not."""

    deleted: bool


class KeyRequest(msgspec.Struct):
    """A tool call."""

    tool: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    args: dict[str, Any]


class KeyResponse(msgspec.Struct):
    """The key of a tool call."""

    key: str


_MISS = GetResponse(hit=False, data=msgspec.Raw(b"null"), ttl_remaining=None)

_MALFORMED = "Malformed JSON."
_SHAPE = "Valid JSON of another shape; the detail names the field."
_TYPE = "Unknown media type or coding."
_QUERY = "The key is missing, empty, too long or given twice."


def routes(cache: Cache, max_body_bytes: int) -> list[Route]:
    """Return the routes of the cache.

    Args:
        cache: where values are kept.
        max_body_bytes: the most a request body may have; smaller limits of this API still hold.
    """

    async def set_value(request: Request) -> Response:
        given = await read_json(request, SetRequest, min(max_body_bytes, _MAX_SET_BYTES))
        # A copy, since the Raw is a view that would keep the whole body.
        value = bytes(given.data)
        _check_utf8(value)
        # Before the write, so that nobody is told a time at which the value is gone already.
        expires_at = datetime.now(UTC) + timedelta(seconds=given.ttl)
        try:
            await cache.set(given.key, value, given.ttl)
        except ValueTooLargeError as error:
            raise HTTPError(413, f"data is larger than {error.limit} bytes.") from None
        return json_response(SetResponse("cached", given.key, expires_at))

    async def get_value(request: Request) -> Response:
        found = await cache.get(_query(request, CacheKeyQuery).key)
        if found is None:
            return json_response(_MISS)
        return json_response(GetResponse(True, msgspec.Raw(found.value), round(found.ttl, 3)))

    async def delete_value(request: Request) -> Response:
        await cache.delete(_query(request, CacheKeyQuery).key)
        return json_response(DeleteResponse(True))

    async def make_key(request: Request) -> Response:
        call = await read_json(request, KeyRequest, min(max_body_bytes, _MAX_ARGS_BYTES))
        try:
            return json_response(KeyResponse(tool_key(call.tool, call.args)))
        except RecursionError:
            raise HTTPError(400, "The JSON is nested too deeply.") from None

    async def stats(_: Request) -> Response:
        return json_response(cache.stats())

    return _table(set_value, get_value, delete_value, make_key, stats)


def _table(
    set_value: Handler, get_value: Handler, delete_value: Handler, make_key: Handler, stats: Handler
) -> list[Route]:
    return [
        Route(
            method="POST",
            path="/cache/set",
            handler=set_value,
            summary="Keep a value",
            tag="Cache",
            request=Body(
                "Key, value (any JSON) and time to live in seconds.",
                {"application/json": SetRequest},
                {"key": "greeting", "data": {"text": "hello"}, "ttl": 60},
            ),
            responses={
                200: _json("Kept.", SetResponse),
                **problems(
                    _400=_MALFORMED,
                    _408="The body did not arrive in time.",
                    _413=f"The value is larger than {MAX_VALUE_BYTES} bytes, or than fits.",
                    _415=_TYPE,
                    _422=_SHAPE,
                ),
            },
        ),
        Route(
            method="GET",
            path="/cache/get",
            handler=get_value,
            summary="Look up a value",
            tag="Cache",
            query=CacheKeyQuery,
            responses={200: _json("A hit or a miss.", GetResponse), **problems(_422=_QUERY)},
        ),
        Route(
            method="DELETE",
            path="/cache",
            handler=delete_value,
            summary="Forget a value",
            tag="Cache",
            query=CacheKeyQuery,
            responses={200: _json("Forgotten.", DeleteResponse), **problems(_422=_QUERY)},
        ),
        Route(
            method="POST",
            path="/cache/key",
            handler=make_key,
            summary="Make the key of a tool call: the same for equal calls, for no others",
            tag="Cache",
            request=Body(
                "The call.",
                {"application/json": KeyRequest},
                {"tool": "web_search", "args": {"query": "weather", "limit": 5}},
            ),
            responses={
                200: _json("The key.", KeyResponse),
                **problems(
                    _400=_MALFORMED,
                    _408="The body did not arrive in time.",
                    _413="Too large.",
                    _415=_TYPE,
                    _422=_SHAPE,
                ),
            },
        ),
        Route(
            method="GET",
            path="/cache/stats",
            handler=stats,
            summary="Hits and misses since the start",
            tag="Cache",
            responses={200: _json("The counts.", Stats)},
        ),
    ]


def _json(description: str, kind: type[msgspec.Struct]) -> Body:
    return Body(description, {"application/json": kind})


def _check_utf8(value: bytes) -> None:
    # The decoder checks the syntax of what it keeps raw, but not its encoding.
    try:
        value.decode()
    except UnicodeDecodeError:
        raise HTTPError(400, "The body is not valid JSON.") from None


def _query(request: Request, kind: type[_QueryT]) -> _QueryT:
    """Decode the query; parameters that ``kind`` does not name are ignored.

    Raises:
        HTTPError: 422 when a parameter is missing, given twice, or not as ``kind`` says.
    """
    try:
        pairs = parse_qsl(
            request.query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise HTTPError(422, "The query is not percent-encoded UTF-8.") from None
    names = [name for name, _ in pairs]
    for name in kind.__struct_encode_fields__:
        if names.count(name) > 1:
            raise HTTPError(422, f"The query parameter {name} is given more than once.")
    try:
        return msgspec.convert(dict(pairs), kind)
    except msgspec.ValidationError as error:
        raise HTTPError(422, f"In the query: {error}.") from None
