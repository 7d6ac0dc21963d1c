import math
import time
from collections.abc import AsyncIterator

import pytest
import trio
import trio.lowlevel

from sidecar.cache.breaker import Breaker, LastIdle, answers

FAST, SLOW = 0.001, 0.005


@pytest.mark.parametrize(
    ("calls", "enough"),
    [
        ([(FAST, False)] * 10, False),
        ([(SLOW, False)] * 2, False),
        ([(SLOW, False)] * 3, True),
        ([(SLOW, False), (SLOW, False), (FAST, False), (SLOW, False), (SLOW, False)], False),
        ([(SLOW, True)], True),
        # The process, not Redis, took the time; but it does not always.
        ([(FAST, True)] * 2, False),
        ([(FAST, True)] * 3, True),
    ],
)
def test_a_silent_call_or_three_slow_ones_are_enough(
    calls: list[tuple[float, bool]], enough: bool
) -> None:
    breaker = Breaker(0.02)
    told = [
        breaker.is_enough(number, waited, given_up=given_up)
        for number, (waited, given_up) in enumerate(calls)
    ]
    assert told[-1] is enough


def test_slow_calls_of_before_do_not_count_once_it_is_closed_again() -> None:
    breaker = Breaker(0.02)
    for asked in range(3):
        breaker.is_enough(asked, SLOW, given_up=False)
    breaker.open()
    assert not breaker.closed
    breaker.close()
    assert breaker.closed
    assert not breaker.is_enough(3, SLOW, given_up=False)


def test_slow_calls_at_the_same_time_are_one() -> None:
    breaker = Breaker(0.02)
    told = [breaker.is_enough(0.0001 * number, SLOW, given_up=False) for number in range(20)]
    assert not any(told)


@pytest.fixture
async def idle() -> AsyncIterator[LastIdle]:
    idle = LastIdle()
    trio.lowlevel.add_instrument(idle)
    yield idle
    trio.lowlevel.remove_instrument(idle)


def block(seconds: float) -> None:
    """Keep the event loop from going on."""
    time.sleep(seconds)


async def test_what_comes_while_the_process_is_busy_was_not_waited_for(idle: LastIdle) -> None:
    asked = time.perf_counter()
    block(0.05)
    await trio.lowlevel.checkpoint()
    assert idle.waited(asked) == 0


async def test_what_has_not_come_when_the_process_is_idle_was_waited_for(idle: LastIdle) -> None:
    asked = time.perf_counter()
    block(0.03)
    await trio.sleep(0.03)
    assert 0.05 < idle.waited(asked) < 0.1


async def test_what_comes_after_a_wait_while_the_process_is_busy_counts_until_then(
    idle: LastIdle,
) -> None:
    asked = time.perf_counter()
    await trio.sleep(0.03)
    block(0.1)
    await trio.lowlevel.checkpoint()
    assert 0.02 < idle.waited(asked) < 0.08


async def answer(number: int, seconds: float) -> int:
    await trio.sleep(seconds)
    return number


async def test_answers_come_in_the_order_of_the_calls() -> None:
    assert await answers([answer(1, 0.02), answer(2, 0.0)], 5) == [1, 2]


async def test_who_does_not_answer_is_given_up() -> None:
    began = time.perf_counter()
    with pytest.raises(trio.TooSlowError):
        await answers([answer(1, 0), answer(2, math.inf)], 0.05)
    assert time.perf_counter() - began >= 0.05


async def test_an_error_does_not_wait_for_the_other_answers() -> None:
    async def fail() -> None:
        raise OSError("away")

    with trio.fail_after(1), pytest.raises(OSError, match="away"):
        await answers([answer(1, math.inf), fail()], 60)
