import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cache.stored import Stored, Varies, pack, unpack, vary_names
from tests.cache.http import NOW, at, h, stored

BYTES = st.binary(max_size=20)
HEADERS = st.lists(st.tuples(st.sampled_from([b"vary", b"date", b"x"]), BYTES), max_size=4)


@given(HEADERS, HEADERS, st.lists(BYTES, max_size=5), st.floats(0, 1e11), st.integers(200, 599))
def test_what_is_unpacked_is_what_was_packed(
    request: list[tuple[bytes, bytes]],
    response: list[tuple[bytes, bytes]],
    pieces: list[bytes],
    when: float,
    status: int,
) -> None:
    entry = stored(
        response,
        request=request,
        pieces=pieces,
        request_time=when,
        response_time=when,
        status=status,
    )
    assert unpack(pack(entry)) == entry
    varies = Varies(entry.vary, when)
    assert unpack(pack(varies)) == varies


def test_the_pieces_of_a_stream_stay_pieces() -> None:
    pieces = [b"data: 1\n\n", b"", b"data: 2\n\n"]
    found = unpack(pack(stored(h(), pieces=pieces)))
    assert isinstance(found, Stored)
    assert found.pieces == pieces


PACKED = pack(stored(h("max-age=5", vary="accept"), request=h(accept="a"), pieces=[b"body"]))


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda data: b"http1" + data))
def test_foreign_bytes_are_no_entry(data: bytes) -> None:
    assert unpack(data) is None


@given(st.integers(0, len(PACKED) - 1))
def test_a_cut_entry_is_none(length: int) -> None:
    assert unpack(PACKED[:length]) is None
    assert unpack(PACKED + PACKED[:1]) is None


@given(st.integers(0, len(PACKED) - 1), st.integers(0, 255))
def test_a_changed_byte_raises_nothing(position: int, byte: int) -> None:
    unpack(PACKED[:position] + bytes([byte]) + PACKED[position + 1 :])


@pytest.mark.parametrize(
    "changed", [{"status": 199}, {"status": 600}, {"request_time": float("nan")}]
)
def test_an_entry_of_impossible_values_is_none(changed: dict[str, float]) -> None:
    assert unpack(pack(msgspec.structs.replace(stored(h()), **changed))) is None


def test_an_entry_of_another_version_is_none() -> None:
    assert unpack(PACKED.replace(b"http1", b"http2", 1)) is None


def test_headers_of_one_connection_are_not_stored() -> None:
    # RFC 9111 section 3.1
    response = h(
        connection="close, X-Hop",
        x_hop="1",
        keep_alive="timeout=5",
        transfer_encoding="chunked",
        te="x",
        upgrade="h2c",
        trailer="x",
        proxy_authenticate="Basic",
        proxy_authorization="x",
        proxy_connection="x",
        proxy_authentication_info="x",
    )
    kept = h(date=at(0), x_unknown="kept", content_type="text/plain")
    assert stored(response + kept).headers == kept


def test_repeated_headers_stay_in_order() -> None:
    response = h(date=at(0), link=["<a>", "<b>"], x="1")
    assert stored(response).headers == response


def test_a_response_without_date_gets_the_time_it_came() -> None:
    # RFC 9110 section 6.6.1
    assert stored(h(), response_time=NOW + 7.9).headers == h(date=at(7))


@pytest.mark.parametrize(
    ("length", "complete"),
    [(None, True), ("4", True), ("5", False), ("3", False), ("4, 4", False), (["4", "5"], False)],
)
def test_a_body_is_complete_with_its_length(length: str | list[str] | None, complete: bool) -> None:
    response = h() if length is None else h(content_length=length)
    assert stored(response, pieces=[b"ab", b"cd"]).complete == complete


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        ([], []),
        ("", []),
        ("Accept", ["accept"]),
        (["Origin, accept", "ACCEPT,"], ["accept", "origin"]),
        ("accept, *", ["*", "accept"]),
        ("accept encoding", ["*"]),
        ('"accept', ["*"]),
        ("\xe4", ["*"]),
    ],
)
def test_vary_names(vary: str | list[str], names: list[str]) -> None:
    assert vary_names(h(vary=vary)) == names


# RFC 9111 section 4.1: what is asked first, what is asked then, whether it is the same
MATCHING = [
    (h(accept="a"), h(accept="a"), True),
    (h(accept="a"), h(accept="A"), False),
    (h(accept="a"), h(), False),
    (h(), h(), True),
    (h(accept=""), h(), False),
    (h(accept="a,b"), h(accept=" a ,  b "), True),
    (h(accept="a, b"), h(accept=["a", "b"]), True),
    (h(accept="a, b"), h(accept="b, a"), False),
    (h(accept='"a,b"'), h(accept='"a, b"'), False),
    (h(accept='"a,b'), h(accept='"a, b'), False),
    (h(accept="a;q=1"), h(accept="a; q=1"), False),
    (h(accept="a", x="1"), h(accept="a", x="2"), True),
]


@pytest.mark.parametrize(("first", "then", "same"), MATCHING)
def test_matching(
    first: list[tuple[bytes, bytes]], then: list[tuple[bytes, bytes]], same: bool
) -> None:
    assert stored(h(vary="Accept"), request=first).matches(then) == same


def test_nothing_matches_any_request_when_all_decide() -> None:
    assert not stored(h(vary="*")).matches([])


def test_credentials_that_a_response_varies_by_are_not_readable() -> None:
    request = h(authorization="Bearer secret", cookie="session=secret")
    assert b"secret" not in pack(stored(h(vary="authorization, cookie"), request=request))
