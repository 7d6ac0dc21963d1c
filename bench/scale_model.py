"""What many pods ask of one Redis: a simulation of the calls that their caches make.

At most `PLAYED` pods are played out, each with a real `MemoryCache` on the simulation's clock;
every one of them stands for as many of all pods. What all pods share is played once: which keys
Redis has, until when, who is fetching them, and whom it has to tell of a change. The steps of a
look-up are those of `sidecar.proxy.caching`: look, take the lock of the key, look again, fetch,
store, leave the lock; those who wait for the lock are told, and look again.

Nothing here is measured; one seed, one outcome.
"""

import bisect
import heapq
import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial

import msgspec

from sidecar.cache.memory import MemoryCache

PLAYED = 50
SEED = 1
NAME_CHARS = 64

# How long a finished lock is remembered, see `sidecar.cache.locks`.
_DONE_SECONDS = 2.0
_LOOKS_AT_THE_TABLE = 40
_ELSEWHERE = -1


class Workload(msgspec.Struct, frozen=True):
    """What one pod does, and with what.

    Attributes:
        lookups: of keys that other pods use too, a second and pod.
        writes: of keys that other pods use too (``POST /cache/set``), a second and pod.
        own_writes: of keys that no other pod uses, a second and pod; each of another key.
        ttl: seconds for which a value is kept.
        keys: how many there are.
        zipf: the n-th most frequent key comes with a weight of 1 / n ** zipf.
        fetch_seconds: of a key that nobody has.
        sizes: bytes of a value, and the share of the keys that have one of that size.
        memory_bytes: of the first tier, ``SIDECAR_CACHE_BYTES``.
    """

    name: str
    lookups: float
    writes: float
    own_writes: float
    ttl: float
    keys: int = 5_000
    zipf: float = 1.0
    fetch_seconds: float = 0.5
    sizes: tuple[tuple[int, float], ...] = (
        (256, 0.2),
        (1024, 0.3),
        (4096, 0.35),
        (16384, 0.12),
        (65536, 0.03),
    )
    memory_bytes: int = 16 * 2**20


class Rates(msgspec.Struct):
    """What comes of a workload.

    Attributes:
        calls: kind of call, see `bench.scale_cost.Figures`, → how many a second.
        stored_in, stored_out: bytes a second of values, as Redis keeps them.
        hit_ratio: of the first tier, from 0 to 1.
        keys, stored_bytes: in Redis, on average.
        tracked_keys, tracked_items: that Redis remembers, on average, and pairs of key and pod.
        most_told: pods that one change is told to, at most.
        busiest: calls in the busiest second, by kind.
    """

    calls: dict[str, float]
    stored_in: float
    stored_out: float
    hit_ratio: float
    keys: float
    stored_bytes: float
    tracked_keys: float
    tracked_items: float
    most_told: float
    busiest: dict[str, float]


def sizes_of(workload: Workload) -> list[int]:
    """Return the size of the value of each key, the most frequent first."""
    sizes, shares = zip(*workload.sizes, strict=True)
    return random.Random(SEED).choices(sizes, shares, k=workload.keys)


class _Key:
    """What the pods share of one key; pods are those that are played."""

    __slots__ = ("expires_at", "generation", "leader", "locked", "size", "tracked")

    def __init__(self, size: int) -> None:
        self.size = size
        self.expires_at = 0.0  # 0: Redis does not have it
        self.generation = 0
        self.leader: int | None = None  # who is fetching it; `_ELSEWHERE`: none that is played
        self.tracked: set[int] = set()  # told of the next change of the value
        self.locked: set[int] = set()  # told of the next change of the lock


class Simulation:
    """One workload on so many pods.

    Args:
        workload: of each pod.
        pods: how many there are.
        stored: bytes of a value → bytes as Redis keeps it.
        seed: of all that comes by chance.
        played: pods that are played out, at most.
    """

    def __init__(
        self,
        workload: Workload,
        pods: int,
        stored: Callable[[int], float],
        seed: int = SEED,
        played: int = PLAYED,
    ) -> None:
        self._load = workload
        self._pods = pods
        self._played = min(pods, played)
        self._weight = pods / self._played
        self._sizes = sizes, _ = list(zip(*workload.sizes, strict=True))
        self._stored = {size: stored(size) for size in sizes}
        self._values = {size: bytes(size) for size in sizes}
        self._draw = random.Random(seed)
        self._now = 0.0
        self._memory = [
            MemoryCache(workload.memory_bytes, lambda: self._now) for _ in range(self._played)
        ]
        weights = [1 / n**workload.zipf for n in range(1, workload.keys + 1)]
        self._cumulated = list(itertools.accumulate(weights))
        self._share = [weight / self._cumulated[-1] for weight in weights]
        self._keys = [_Key(size) for size in sizes_of(workload)]
        self._names = [f"{number:08}".ljust(NAME_CHARS) for number in range(workload.keys)]
        # (when, order among those of one moment, what, with what)
        self._events: list[tuple[float, int, Callable[..., None], tuple[int, ...]]] = []
        self._order = itertools.count()
        self._seconds: dict[int, dict[str, float]] = {}
        self._bytes: dict[str, float] = {}
        self._own: deque[tuple[float, int]] = deque()
        self._hits = self._lookups = 0
        self._most_told = 0.0
        self._measuring = False

    def run(self, warm_up: float, seconds: float) -> Rates:
        """Let pass the one time, and return what comes of the other."""
        # As if it had run for long: every key is at some point of its time.
        for number in range(self._load.keys):
            self._store(number, _ELSEWHERE, self._load.ttl * self._draw.random())
        self._again(self._load.lookups * self._played, self._look_up)
        self._again(self._load.writes * self._pods, self._write)
        self._again(self._load.own_writes * self._played, self._write_own)
        self._pass(warm_up)
        self._measuring = True
        table: dict[str, float] = defaultdict(float)
        for _ in range(_LOOKS_AT_THE_TABLE):
            self._pass(seconds / _LOOKS_AT_THE_TABLE)
            for name, value in self._table().items():
                table[name] += value / _LOOKS_AT_THE_TABLE
        return self._rates(seconds, table)

    def _again(self, rate: float, what: Callable[[], None]) -> None:
        """Do something after a while, so that it comes at this rate, by chance."""
        if rate:
            self._at(self._now + self._draw.expovariate(rate), what)

    def _at(self, when: float, what: Callable[..., None], *args: int) -> None:
        heapq.heappush(self._events, (when, next(self._order), what, args))

    def _pass(self, seconds: float) -> None:
        end = self._now + seconds
        while self._events[0][0] <= end:
            self._now, _, what, args = heapq.heappop(self._events)
            what(*args)
        self._now = end

    def _count(self, what: str, weight: float) -> None:
        if self._measuring:
            self._seconds.setdefault(int(self._now), defaultdict(float))[what] += weight

    def _carry(self, way: str, size: int, weight: float) -> None:
        if self._measuring:
            self._bytes[way] = self._bytes.get(way, 0.0) + weight * self._stored[size]

    def _any_key(self) -> int:
        return bisect.bisect(self._cumulated, self._draw.random() * self._cumulated[-1])

    def _look_up(self) -> None:
        """Let one of the pods look a key up."""
        self._again(self._load.lookups * self._played, self._look_up)
        pod, number = self._draw.randrange(self._played), self._any_key()
        found = self._memory[pod].get(self._names[number]) is not None
        if self._measuring:
            self._lookups += 1
            self._hits += found
        if not found:
            self._miss(pod, number)

    def _miss(self, pod: int, number: int) -> None:
        key = self._keys[number]
        if key.expires_at:
            self._read(pod, number)
            return
        key.tracked.add(pod)
        if key.leader is None:
            self._lead(number, pod)
            return
        self._count("read_missing", self._weight)
        if pod != key.leader and pod not in key.locked:
            self._count("lock", self._weight)
            key.locked.add(pod)

    def _read(self, pod: int, number: int) -> None:
        key = self._keys[number]
        self._count("read", self._weight)
        self._carry("out", key.size, self._weight)
        self._keep(pod, number, key.expires_at - self._now)
        key.tracked.add(pod)

    def _keep(self, pod: int, number: int, ttl: float) -> None:
        self._memory[pod].set(self._names[number], self._values[self._keys[number].size], ttl)

    def _lead(self, number: int, pod: int) -> None:
        """Begin to fetch a key: look, take the lock, look again."""
        self._count("read_missing", 2)
        self._count("lock", 1)
        self._keys[number].leader = pod
        self._at(self._now + self._load.fetch_seconds, self._fetched, number)

    def _lead_elsewhere(self, number: int, generation: int) -> None:
        key = self._keys[number]
        if key.generation == generation and key.leader is None:
            self._lead(number, _ELSEWHERE)

    def _fetched(self, number: int) -> None:
        """Store what was fetched, leave the lock, and let those who waited look again."""
        key = self._keys[number]
        leader, key.leader = key.leader, None
        assert leader is not None
        self._store(number, leader, self._load.ttl)
        self._count("lock", 1)
        self._tell(len(key.locked))
        for pod in sorted(key.locked):
            self._count("lock", self._weight)
            self._read(pod, number)
        self._at(self._now + _DONE_SECONDS, self._forget_lock, number)

    def _forget_lock(self, number: int) -> None:
        key = self._keys[number]
        if key.leader is None:
            self._tell(len(key.locked))
            key.locked.clear()

    def _write(self) -> None:
        self._again(self._load.writes * self._pods, self._write)
        pod, number = self._draw.randrange(self._pods), self._any_key()
        self._store(number, pod if pod < self._played else _ELSEWHERE, self._load.ttl)

    def _write_own(self) -> None:
        """Let a pod write a key that nobody else asks for; it is told when that expires."""
        self._again(self._load.own_writes * self._played, self._write_own)
        self._expire_own()
        pod = self._draw.randrange(self._played)
        (size,) = self._draw.choices(*self._sizes)
        name = f"own {next(self._order)}".ljust(NAME_CHARS)
        self._memory[pod].set(name, self._values[size], self._load.ttl)
        self._count("set", self._weight)
        self._carry("in", size, self._weight)
        self._own.append((self._now + self._load.ttl, size))

    def _expire_own(self) -> None:
        while self._own and self._own[0][0] <= self._now:
            self._own.popleft()
            self._count("told", self._weight)

    def _store(self, number: int, pod: int, ttl: float) -> None:
        """Let a pod write a value; all others who know the key are told."""
        key = self._keys[number]
        self._count("set", 1)
        self._carry("in", key.size, 1)
        self._change(number, pod)
        if pod != _ELSEWHERE:
            self._keep(pod, number, ttl)
            key.tracked.add(pod)
        key.expires_at = self._now + ttl
        key.generation += 1
        self._at(key.expires_at, self._expire, number, key.generation)

    def _expire(self, number: int, generation: int) -> None:
        key = self._keys[number]
        if key.generation != generation:
            return
        self._change(number, _ELSEWHERE)
        key.expires_at = 0.0
        rate = (self._pods - self._played) * self._load.lookups * self._share[number]
        self._again(rate, partial(self._lead_elsewhere, number, generation))

    def _change(self, number: int, writer: int) -> None:
        key = self._keys[number]
        told = key.tracked - {writer}
        self._tell(len(told))
        for pod in told:
            self._memory[pod].delete(self._names[number])
        key.tracked.clear()

    def _tell(self, played: int) -> None:
        if self._measuring:
            told = self._weight * played
            self._count("told", told)
            self._most_told = max(self._most_told, told)

    def _table(self) -> dict[str, float]:
        self._expire_own()
        sizes = [key.size for key in self._keys if key.expires_at]
        watched = [names for key in self._keys for names in (key.tracked, key.locked) if names]
        own = self._weight * len(self._own)
        own_bytes = self._weight * sum(self._stored[size] for _, size in self._own)
        # The key of the probe is one more, which every pod has read.
        return {
            "keys": own + len(sizes),
            "stored_bytes": own_bytes + sum(self._stored[size] for size in sizes),
            "tracked_keys": own + len(watched) + 1,
            "tracked_items": own + self._weight * sum(map(len, watched)) + self._pods,
        }

    def _rates(self, seconds: float, table: dict[str, float]) -> Rates:
        probes = {"probe": float(self._pods)}
        calls: dict[str, float] = defaultdict(float)
        for second in self._seconds.values():
            for name, count in second.items():
                calls[name] += count / seconds
        return Rates(
            calls=calls | probes,
            stored_in=self._bytes.get("in", 0.0) / seconds,
            stored_out=self._bytes.get("out", 0.0) / seconds,
            hit_ratio=self._hits / self._lookups,
            **table,
            most_told=self._most_told,
            busiest=max(self._seconds.values(), key=lambda second: sum(second.values())) | probes,
        )
