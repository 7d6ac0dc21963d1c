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


def test_the_least_recently_used_goes_first(clock: Clock) -> None:
    memory = MemoryCache(room_for(("a", b"1"), ("b", b"2")), clock)
    memory.set("a", b"1", 10)
    memory.set("b", b"2", 10)
    memory.get("a")
    memory.set("c", b"3", 10)
    assert memory.get("b") is None
    assert memory.get("a") is not None
    assert memory.get("c") is not None


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


def test_setting_one_key_again_and_again_does_not_grow(clock: Clock) -> None:
    memory = MemoryCache(10_000, clock)
    for _ in range(10_000):
        memory.set("key", b"value", 10)
    assert len(memory._expiries) < 100


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"),
            st.sampled_from("abcdeé"),
            st.integers(min_value=0, max_value=3000),
            st.integers(min_value=1, max_value=20),
        ),
        st.tuples(st.just("delete"), st.sampled_from("abcdeé")),
        st.tuples(st.just("wait"), st.integers(min_value=1, max_value=10)),
    )
)


@given(OPERATIONS)
def test_it_never_holds_too_much_or_tells_an_old_value(
    operations: list[tuple[object, ...]],
) -> None:
    clock = Clock()
    memory = MemoryCache(6000, clock)
    model: dict[str, tuple[bytes, float]] = {}
    for operation in operations:
        match operation:
            case ("set", str(key), int(size), int(ttl)):
                value = bytes(size)
                memory.set(key, value, ttl)
                model[key] = (value, clock.now + ttl)
                assert memory.get(key) == Found(value, ttl)
            case ("delete", str(key)):
                memory.delete(key)
                model.pop(key, None)
            case ("wait", int(seconds)):
                clock.now += seconds
        assert memory.bytes <= 6000
        for key in "abcdeé":
            found = memory.get(key)
            if found is not None:
                assert (found.value, clock.now + found.ttl) == model[key]
                assert found.ttl > 0
    held = [(key, found.value) for key in "abcdeé" if (found := memory.get(key))]
    assert (len(memory), memory.bytes) == (len(held), room_for(*held))
