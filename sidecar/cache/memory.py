"""The cache of one pod: in memory, bounded by bytes, each entry with a time to live.

What goes when room is needed is told by S3-FIFO, counted in bytes (Yang et al., "FIFO Queues are
All You Need for Cache Eviction", SOSP 2023): a new key passes through a small queue and has to be
asked for meanwhile, or it leaves. So keys that are asked for once, however many they are, push out
none that is in use. And no new key is refused: what was just set is there.

No I/O and no tasks; time comes from a clock that is passed in.
"""

import heapq
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

# What an entry costs beside its key and value: headers of the objects, its place in a queue and in
# the heap, and a hash in `MemoryCache._left`. tracemalloc tells 440 to 535 bytes (CPython 3.11, 300
# to 60,000 entries, each key set up to three times).
ENTRY_OVERHEAD = 560

# The paper's figures: the share of the room for new keys, how often one must be asked for there
# to stay, and how many turns of the large queue a key can earn.
_NEW_SHARE = 0.1
_PROVEN_HITS = 2
_MAX_HITS = 3


class ValueTooLargeError(ValueError):
    """A value is larger than what the cache may hold.

    Attributes:
        limit: the most bytes a value may have.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"The value is larger than {limit} bytes.")
        self.limit = limit


class Found(msgspec.Struct, frozen=True, gc=False):
    """A value and the seconds for which it is still good."""

    value: bytes
    ttl: float


class _Entry(msgspec.Struct, gc=False):
    value: bytes
    expires_at: float
    size: int
    hits: int = 0


class MemoryCache:
    """Values by key; those that are not asked for go first when room is needed.

    Args:
        max_bytes: the bound for keys, values and `ENTRY_OVERHEAD` each.
        clock: seconds that never go backwards.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._new: OrderedDict[str, _Entry] = OrderedDict()
        self._proven: OrderedDict[str, _Entry] = OrderedDict()
        # Hashes of keys that left `_new`, in two generations: who comes back is proven.
        self._left: set[int] = set()
        self._left_before: set[int] = set()
        # (expires_at, key); a row whose entry is gone or replaced means nothing.
        self._expiries: list[tuple[float, str]] = []
        self._new_bytes = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._proven)

    def get(self, key: str) -> Found | None:
        """Return what is under the key, unless it has expired."""
        entry = self._entry(key)
        if entry is None:
            return None
        ttl = entry.expires_at - self._clock()
        if ttl <= 0:
            self.delete(key)
            return None
        if entry.hits < _MAX_HITS:
            entry.hits += 1
        return Found(entry.value, ttl)

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep the value for ``ttl`` seconds (more than 0).

        Raises:
            ValueTooLargeError: it would not fit even alone; what was under the key stays.
        """
        size = len(key.encode()) + len(value) + ENTRY_OVERHEAD
        if size > self._max_bytes:
            raise ValueTooLargeError(max(0, self._max_bytes - size + len(value)))
        proven = key in self._proven or self._has_left(key)
        old = self._pop(key)
        self.expire()
        while self.bytes + size > self._max_bytes:
            self._evict()
        entry = _Entry(value, self._clock() + ttl, size, old.hits if old is not None else 0)
        self._push(key, entry, proven)
        heapq.heappush(self._expiries, (entry.expires_at, key))
        self._compact()

    def delete(self, key: str) -> None:
        """Forget the key; it need not be there."""
        self._pop(key)

    def clear(self) -> None:
        """Forget every key."""
        self._new.clear()
        self._proven.clear()
        self._left.clear()
        self._left_before.clear()
        self._expiries.clear()
        self._new_bytes = self.bytes = 0

    def expire(self) -> None:
        """Forget every value whose time is over."""
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            expires_at, key = heapq.heappop(self._expiries)
            entry = self._entry(key)
            if entry is not None and entry.expires_at == expires_at:
                self.delete(key)

    def _evict(self) -> None:
        """Let the oldest key of one queue go, or on if it has been asked for."""
        new = self._new_bytes > _NEW_SHARE * self._max_bytes or not self._proven
        key = next(iter(self._new if new else self._proven))
        entry = self._pop(key)
        assert entry is not None
        if new and entry.hits < _PROVEN_HITS:
            self._left.add(hash(key))
        elif new:
            entry.hits = 0
            self._push(key, entry, proven=True)
        elif entry.hits:
            entry.hits -= 1
            self._push(key, entry, proven=True)

    def _has_left(self, key: str) -> bool:
        return hash(key) in self._left or hash(key) in self._left_before

    def _entry(self, key: str) -> _Entry | None:
        return self._proven.get(key) or self._new.get(key)

    def _push(self, key: str, entry: _Entry, proven: bool) -> None:
        (self._proven if proven else self._new)[key] = entry
        self.bytes += entry.size
        if not proven:
            self._new_bytes += entry.size

    def _pop(self, key: str) -> _Entry | None:
        entry = self._proven.pop(key, None)
        if entry is None:
            entry = self._new.pop(key, None)
            if entry is None:
                return None
            self._new_bytes -= entry.size
        self.bytes -= entry.size
        return entry

    def _compact(self) -> None:
        if len(self._left) > len(self) // 2:
            self._left, self._left_before = set(), self._left
        # A key that is set again and again leaves a row each time.
        if len(self._expiries) > 1.5 * len(self) + 64:
            self._expiries = [
                (entry.expires_at, key)
                for queue in (self._new, self._proven)
                for key, entry in queue.items()
            ]
            heapq.heapify(self._expiries)
