import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cache.memory import ENTRY_OVERHEAD, Found, MemoryCache, ValueTooLargeError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def room_for(*entries: tuple[str, bytes]) -> int:
    return sum(len(key.encode()) + len(value) + ENTRY_OVERHEAD for key, value in entries)


def test_a_value_is_found_with_what_is_left_of_its_time(clock: Clock) -> None:
    memory = MemoryCache(10_000, clock)
    memory.set("key", b"value", 10)
    clock.now += 4
    assert memory.get("key") == Found(b"value", 6)
    assert memory.get("other") is None


def test_a_value_is_gone_when_its_time_is_over(clock: Clock) -> None:
    memory = MemoryCache(10_000, clock)
    memory.set("key", b"value", 10)
    clock.now += 10
    assert memory.get("key") is None
    assert (len(memory), memory.bytes) == (0, 0)


def test_expired_values_leave_memory_without_being_asked_for(clock: Clock) -> None:
    memory = MemoryCache(10_000, clock)
    memory.set("short", b"value", 1)
    memory.set("long", b"value", 9)
    clock.now += 5
    memory.expire()
    assert len(memory) == 1
    assert memory.get("long") is not None


def test_a_new_value_takes_the_place_and_the_time_of_the_old(clock: Clock) -> None:
    memory = MemoryCache(10_000, clock)
    memory.set("key", b"old", 1)
    memory.set("key", b"new", 10)
    clock.now += 5
    memory.expire()
    assert memory.get("key") == Found(b"new", 5)
    assert memory.bytes == room_for(("key", b"new"))


def test_keys_that_are_asked_for_outlast_a_scan_of_those_that_are_not(clock: Clock) -> None:
    hot = {f"hot {number:02}": b"1" for number in range(50)}
    memory = MemoryCache(2 * room_for(*hot.items()), clock)
    for _ in range(3):
        for key, value in hot.items():
            if memory.get(key) is None:
                memory.set(key, value, 1000)
    for number in range(10_000):
        memory.set(f"scan {number}", b"1", 1000)
        memory.get(f"scan {number}")
    assert all(memory.get(key) for key in hot)


def test_a_key_that_has_just_been_set_is_there_however_hot_the_others_are(clock: Clock) -> None:
    memory = MemoryCache(room_for(("hot 1", b"1"), ("hot 2", b"2")), clock)
    for key in ("hot 1", "hot 2"):
        memory.set(key, b"1", 1000)
        for _ in range(10):
            memory.get(key)
    memory.set("new", b"1", 1000)
    assert memory.get("new") is not None


def test_hot_keys_of_yesterday_make_room_for_those_of_today(clock: Clock) -> None:
    memory = MemoryCache(room_for(*((f"{number:03}", b"1") for number in range(100))), clock)
    for day in "ab":
        for _ in range(20):
            for number in range(90):
                if memory.get(f"{day}{number:02}") is None:
                    memory.set(f"{day}{number:02}", b"1", 1000)
    assert sum(memory.get(f"b{number:02}") is not None for number in range(90)) == 90


def test_of_keys_that_were_hot_those_stay_that_still_are(clock: Clock) -> None:
    memory = MemoryCache(room_for(*((f"{number:03}", b"1") for number in range(100))), clock)

    def ask(keys: list[str]) -> int:
        misses = 0
        for _ in range(3):
            for key in keys:
                if memory.get(key) is None:
                    misses += 1
                    memory.set(key, b"1", 1000)
        return misses

    still, once = ([f"{kind}{number:02}" for number in range(40)] for kind in "ab")
    for group in range(10):
        ask(still + once)
        ask([f"c{group}{number}" for number in range(5)])
    misses = 0
    for group in range(100):
        misses += ask(still)
        ask([f"d{group:02}{number}" for number in range(5)])
    assert misses == 0
    assert not any(memory.get(key) for key in once)


def test_a_key_that_is_missed_soon_after_it_left_stays(clock: Clock) -> None:
    memory = MemoryCache(room_for(*((f"{number:03}", b"1") for number in range(100))), clock)
    for key in ("old", "new", *(f"{number:03}" for number in range(100))):
        memory.set(key, b"1", 1000)
    assert memory.get("old") is None
    memory.set("old", b"1", 1000)
    for number in range(1000, 1050):
        memory.set(str(number), b"1", 1000)
    assert memory.get("old") is not None
    assert memory.get("new") is None


def test_expired_values_make_room_before_good_ones(clock: Clock) -> None:
    memory = MemoryCache(room_for(("a", b"1"), ("b", b"2")), clock)
    memory.set("a", b"1", 100)
    memory.set("b", b"2", 1)
    clock.now += 2
    memory.set("c", b"3", 100)
    assert memory.get("a") is not None


def test_a_value_that_would_never_fit_is_refused_and_changes_nothing(clock: Clock) -> None:
    memory = MemoryCache(ENTRY_OVERHEAD + 10, clock)
    memory.set("key", b"1234567", 10)
    with pytest.raises(ValueTooLargeError, match="7 bytes") as refusal:
        memory.set("key", b"12345678", 10)
    assert refusal.value.limit == 7
    assert memory.get("key") == Found(b"1234567", 10)


def test_nothing_is_left_after_clearing(clock: Clock) -> None:
    memory = MemoryCache(10_000, clock)
    for number in range(100):
        memory.set(str(number), b"value", 10)
        memory.get(str(number))
    memory.clear()
    assert (len(memory), memory.bytes, memory.get("99")) == (0, 0, None)
    memory.set("key", b"value", 10)
    assert memory.get("key") == Found(b"value", 10)
    assert memory.bytes == room_for(("key", b"value"))


def test_the_overhead_covers_what_an_entry_takes() -> None:
    max_bytes = 2 * 2**20
    tracemalloc.start()
    try:
        memory = MemoryCache(max_bytes)
        for number in range(15_000):
            memory.set(f"key {number}", b"%d" % number, 1000 + number % 3)
            memory.set(f"key {number}", b"%d" % number, 1000)
            for _ in range(number % 3):
                memory.get(f"key {number}")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.75 * max_bytes < taken < max_bytes


def test_setting_one_key_again_and_again_does_not_grow(clock: Clock) -> None:
    memory = MemoryCache(10_000, clock)
    for _ in range(10_000):
        memory.set("key", b"value", 10)
    assert len(memory._expiries) < 100


def test_what_is_remembered_of_keys_that_left_does_not_outgrow_those_that_are_there(
    clock: Clock,
) -> None:
    memory = MemoryCache(50_000, clock)
    for number in range(10_000):
        memory.set(str(number), b"value", 10)
        if number % 100 == 0:
            memory.clear()
        assert len(memory._left) + len(memory._left_before) <= 50_000 / ENTRY_OVERHEAD


KEYS = "abcdeé"
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"),
            st.sampled_from(KEYS),
            st.integers(min_value=0, max_value=3000),
            st.integers(min_value=1, max_value=20),
        ),
        st.tuples(st.just("get"), st.sampled_from(KEYS)),
        st.tuples(st.just("delete"), st.sampled_from(KEYS)),
        st.tuples(st.just("wait"), st.integers(min_value=1, max_value=10)),
        st.tuples(st.just("clear")),
    )
)


@given(OPERATIONS)
def test_it_never_holds_too_much_or_tells_an_old_value(
    operations: list[tuple[object, ...]],
) -> None:
    clock = Clock()
    memory = MemoryCache(6000, clock)
    model: dict[str, tuple[bytes, float]] = {}

    def check(key: str) -> None:
        found = memory.get(key)
        if found is not None:
            assert (found.value, clock.now + found.ttl) == model[key]
            assert found.ttl > 0

    for operation in operations:
        match operation:
            case ("set", str(key), int(size), int(ttl)):
                value = bytes(size)
                memory.set(key, value, ttl)
                model[key] = (value, clock.now + ttl)
                # Half of them, as being asked for tells a key from others.
                if size % 2:
                    assert memory.get(key) == Found(value, ttl)
            case ("get", str(key)):
                check(key)
            case ("delete", str(key)):
                memory.delete(key)
                model.pop(key, None)
                assert memory.get(key) is None
            case ("wait", int(seconds)):
                clock.now += seconds
            case ("clear",):
                memory.clear()
                model.clear()
        assert memory.bytes <= 6000
    for key in KEYS:
        check(key)
    held = [(key, found.value) for key in KEYS if (found := memory.get(key))]
    assert (len(memory), memory.bytes) == (len(held), room_for(*held))


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 3)), max_size=50))
def test_nothing_goes_while_there_is_room(sets: list[tuple[str, int]]) -> None:
    memory = MemoryCache(room_for(*((key, b"1") for key in KEYS)), Clock())
    model: dict[str, bytes] = {}
    for key, reads in sets:
        memory.set(key, b"1", 10)
        model[key] = b"1"
        for _ in range(reads):
            memory.get(key)
        for other, value in model.items():
            assert memory.get(other) == Found(value, 10)
