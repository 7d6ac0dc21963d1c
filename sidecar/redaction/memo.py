"""What is known of values that come again and again, as most of telemetry does."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """A bounded number of entries, of which those that are asked for stay.

    Two generations: when the young one is full it becomes the old one, which is forgotten but for
    what was asked for since. Threads may use it at the same time; what one of them just put in may
    then be missing.

    Args:
        most: entries of one generation.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return what is known."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep it in mind."""
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[key] = value
