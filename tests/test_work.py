"""Work in turns: nobody waits for the end of what takes long."""

import time
from collections.abc import Generator

import pytest
import trio

from sidecar.work import work_in_turns

LARGE = 2**20


def long(seconds: float, trace: list[str], name: str) -> Generator[None, None, str]:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        time.sleep(0.001)
        yield
    trace.append(name)
    return name


async def test_what_is_short_is_done_before_what_is_long() -> None:
    trace: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work_in_turns, LARGE, long(1.0, trace, "long"))
        await trio.sleep(0.01)
        nursery.start_soon(work_in_turns, LARGE, long(0.01, trace, "short"))
    assert trace == ["short", "long"]


async def test_what_it_returns_and_raises_comes_through() -> None:
    def failing() -> Generator[None, None, None]:
        yield
        raise ValueError("broken")

    for size in (1, LARGE):
        assert await work_in_turns(size, long(0.0, [], "result")) == "result"
        with pytest.raises(ValueError, match="broken"):
            await work_in_turns(size, failing())


async def test_a_cancelled_one_stops_after_its_turn() -> None:
    trace: list[str] = []
    with trio.move_on_after(0.1):
        await work_in_turns(LARGE, long(0.5, trace, "done"))
    await trio.sleep(0.6)
    assert trace == []
