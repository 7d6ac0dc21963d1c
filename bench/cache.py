"""What the cache keeps when there is too much, and what it costs to keep and to store it."""

import base64
import bisect
import itertools
import json
import os
import random
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from bench.table import Row, Section, progress
from sidecar.cache.memory import ENTRY_OVERHEAD, MemoryCache
from sidecar.cache.values import CacheKeys, Codec

ENTRIES = 1000
_VALUE = bytes(100)
_KEY_BYTES = 6
_KEYS = 20 * ENTRIES
_CALLS = 200_000
_ZIPF = 0.9
_TIMES = 5


class _Lru:
    """What a cache would keep that lets the least recently used go."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()

    def get(self, key: str) -> bool:
        if key not in self._keys:
            return False
        self._keys.move_to_end(key)
        return True

    def set(self, key: str) -> None:
        self._keys[key] = None
        if len(self._keys) > ENTRIES:
            self._keys.popitem(last=False)


def _zipf() -> list[str]:
    """Return keys of which the n-th most frequent comes with a weight of 1 / n ** 0.9."""
    draw = random.Random(1)
    weights = list(itertools.accumulate(1 / n**_ZIPF for n in range(1, _KEYS + 1)))
    return [f"k{bisect.bisect(weights, draw.random() * weights[-1]):05}" for _ in range(_CALLS)]


def _with_scans(keys: list[str]) -> list[str]:
    """Put, after every 5,000 keys, 2,000 in that come once."""
    once = itertools.count()
    mixed = []
    for start in range(0, len(keys), 5000):
        mixed += keys[start : start + 5000]
        mixed += [f"s{next(once):05}" for _ in range(2000)]
    return mixed


def _loop() -> list[str]:
    return [f"k{number % (ENTRIES * 5 // 4):05}" for number in range(_CALLS)]


def _hits(trace: list[str], get: Callable[[str], object], put: Callable[[str], None]) -> float:
    """Return the share of keys that are there when they are asked for; who is not is put in."""
    hits = 0
    for key in trace:
        if get(key):
            hits += 1
        else:
            put(key)
    return hits / len(trace)


def _full() -> MemoryCache:
    return MemoryCache(ENTRIES * (ENTRY_OVERHEAD + _KEY_BYTES + len(_VALUE)))


def _hit_rows() -> list[Row]:
    zipf = _zipf()
    rows = []
    for what, trace in (
        ("Zipf", zipf),
        ("Zipf, and scans of keys that come once", _with_scans(zipf)),
        ("a loop over a quarter more than fits", _loop()),
    ):
        progress(f"cache, {what}")
        memory, lru = _full(), _Lru()
        ours = _hits(trace, memory.get, lambda key: memory.set(key, _VALUE, 3600))  # noqa: B023
        theirs = _hits(trace, lru.get, lru.set)
        rows.append(
            Row(f"hits, {what}", f"{100 * ours:.1f} %, LRU {100 * theirs:.1f} %", "more than LRU")
        )
    return rows


def _speed_rows() -> list[Row]:
    progress("cache, get and set")
    memory = _full()
    there = [f"k{number:05}" for number in range(ENTRIES)]
    other = [f"o{number:05}" for number in range(ENTRIES)]

    def put(keys: list[str]) -> None:
        for key in keys:
            memory.set(key, _VALUE, 3600)

    def get(keys: list[str]) -> None:
        for key in keys:
            memory.get(key)

    put(there)
    figures = {
        "get, a hit": _best(lambda: get(there)),
        "get, a miss": _best(lambda: get(other)),
        "set, a key that is there": _best(lambda: put(there)),
        "set, in place of another key": _best(lambda: put(other + there)) / 2,
    }
    return [Row(what, f"{1e9 * taken / ENTRIES:.0f} ns") for what, taken in figures.items()]


def _search_results(size: int) -> bytes:
    """Return JSON as a search tool answers it, cut to a size in bytes."""
    draw = random.Random(size)
    words = (Path(__file__).parents[1] / "README.md").read_text().split()
    results = [
        {
            "title": " ".join(draw.choices(words, k=6)),
            "url": f"https://example.com/{draw.getrandbits(40):x}",
            "snippet": " ".join(draw.choices(words, k=20)),
        }
        for _ in range(size // 200 + 1)
    ]
    return json.dumps(results).encode()[:size]


def _codec_rows() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "keys")
        file.write_text(f"a:{base64.b64encode(os.urandom(32)).decode()}\n")
        codecs = {"": Codec(), ", encrypted": Codec(CacheKeys.load(file))}
        for size in (1024, 100 * 1024):
            values = {"search results": _search_results(size), "random": os.urandom(size)}
            for (kind, value), (how, codec) in itertools.product(values.items(), codecs.items()):
                progress(f"cache, {kind}{how}")
                rows.append(_codec_row(f"{size // 1024} KiB, {kind}{how}", codec, value))
    return rows


def _codec_row(what: str, codec: Codec, value: bytes) -> Row:
    key = "tool:web_search:query=telemetry:0123456789abcdef"
    stored = codec.encode(key, value)
    encode = _best(lambda: [codec.encode(key, value) for _ in range(100)]) / 100
    decode = _best(lambda: [codec.decode(key, stored) for _ in range(100)]) / 100
    share = 100 * len(stored) / len(value)
    return Row(
        f"stored form of {what}",
        f"{share:.0f} % of the size, {1e6 * encode:.0f} µs to encode, {1e6 * decode:.0f} to decode",
    )


def _best(once: Callable[[], object]) -> float:
    """Return the fewest seconds of some calls: others share the machine."""
    times = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        once()
        times.append(time.perf_counter() - started)
    return min(times)


def rows() -> list[Row]:
    return [*_hit_rows(), *_speed_rows(), *_codec_rows()]


SECTION = Section(
    "Cache",
    f"Room for {ENTRIES} entries of {len(_VALUE)} bytes, {_CALLS} calls. Zipf: {_KEYS} keys, "
    f"exponent {_ZIPF}; scans: after every 5,000 calls 2,000 keys that come once. Times: best of "
    f"{_TIMES}.",
    rows,
)
