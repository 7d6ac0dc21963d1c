import math
import time

import pytest
import trio
import trio.lowlevel

from sidecar.cache.breaker import Breaker, IdleTime, answers

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
    told = [breaker.is_enough(waited, given_up=given_up) for waited, given_up in calls]
    assert told[-1] is enough


def test_slow_calls_of_before_do_not_count_once_it_is_closed_again() -> None:
    breaker = Breaker(0.02)
    for _ in range(3):
        breaker.is_enough(SLOW, given_up=False)
    breaker.open()
    assert not breaker.closed
    breaker.close()
    assert breaker.closed
    assert not breaker.is_enough(SLOW, given_up=False)


async def test_only_what_the_loop_waits_for_is_idle() -> None:
    idle = IdleTime()
    trio.lowlevel.add_instrument(idle)
    before = idle.seconds
    time.sleep(0.05)  # noqa: ASYNC251 (it must block)
    await trio.lowlevel.checkpoint()
    assert idle.seconds - before < 0.01
    await trio.sleep(0.05)
    assert 0.04 < idle.seconds - before < 0.07
    trio.lowlevel.remove_instrument(idle)


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
