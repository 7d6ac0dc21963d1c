"""What Redis has missed: the keys whose last write is not known to be there."""

from collections.abc import Iterator

import msgspec

_OVERHEAD = 200  # of a str and a row in a dict


class _Row(msgspec.Struct, frozen=True, gc=False):
    key: str
    write: int
    size: int


class Unsent:
    """Keys by their local names, bounded by bytes; the oldest go first.

    Args:
        max_bytes: the bound for keys, names, and `_OVERHEAD` each.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: dict[str, _Row] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, name: str) -> str:
        """Return the key of a name that is here."""
        return self._rows[name].key

    def add(self, name: str, key: str, write: int) -> bool:
        """Remember a key and the number of its last write; tell whether all still fit."""
        self._remove(name)
        size = len(key.encode()) + (0 if name is key else len(name)) + _OVERHEAD
        self._rows[name] = _Row(key, write, size)
        self._bytes += size
        fits = self._bytes <= self._max_bytes
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._rows)))
        return fits

    def sent(self, name: str, write: int) -> None:
        """Forget a key, unless it was written again after this write."""
        row = self._rows.get(name)
        if row is not None and row.write <= write:
            self._remove(name)

    def postpone(self, name: str) -> None:
        """Move a key to the end, if it is here."""
        if name in self._rows:
            self._rows[name] = self._rows.pop(name)

    def _remove(self, name: str) -> None:
        row = self._rows.pop(name, None)
        if row is not None:
            self._bytes -= row.size
