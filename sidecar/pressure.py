"""Admission: how much is taken in at a time, so that the process stays within its memory.

Three bounds, each answered with 429 where it is reached: the requests that are being taken in, the
bytes of bodies in flight, and the memory of the process. Small bodies may take a little more than
large ones, so that health, metrics and the cache go on answering.
"""

import ctypes
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

import structlog
import trio

from sidecar import metrics

_log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 1
# Each is some tens of KiB while its body comes in; how many are redacted at once is `work`'s.
MAX_REQUESTS = 1000
# So many of the largest bodies may be in flight, compressed and decompressed together.
_BODIES = 4
# Above those come bodies up to this size, as many as there may be requests.
_SMALL_BYTES = 16 * 1024
# Of a cgroup's limit; what is left is for what the kernel counts besides (buffers of sockets).
_CGROUP_SHARE = 0.9
# An unlimited v1 cgroup has the largest page-aligned 64-bit number.
_UNLIMITED = 2**60
_STATM, _PAGE_BYTES = Path("/proc/self/statm"), os.sysconf("SC_PAGESIZE")
_RELIEF_SECONDS = 1.0
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 256 * 1024

Reason = Literal["memory", "in_flight"]
_DETAILS: dict[Reason, str] = {
    "memory": "The sidecar is at its memory limit; try again later.",
    "in_flight": "Too much is being taken in at once; try again later.",
}


class Overloaded(Exception):  # noqa: N818 (named as what it answers, like QueueFull)
    """No room now; the message is for the client.

    Args:
        reason: which bound was reached.
    """

    retry_after_seconds = RETRY_AFTER_SECONDS

    def __init__(self, reason: Reason) -> None:
        super().__init__(_DETAILS[reason])
        self.reason = reason


class Pressure:
    """The bounds, and what counts against them now.

    Args:
        max_body_bytes: of one body.
        memory_limit: resident bytes above which nothing is taken in; None: no limit.

    Attributes:
        bytes: of bodies in flight; kept by `Held`.
        promised: of these, what may still have to be written; kept by `Held`.
    """

    def __init__(self, max_body_bytes: int, memory_limit: int | None) -> None:
        self._most_bytes = _BODIES * max_body_bytes
        self._memory_limit = memory_limit
        self._requests = 0
        self.bytes = 0
        self.promised = 0
        self._over_memory = 0  # so many were refused for it
        self._over = trio.lowlevel.ParkingLot()
        if memory_limit is not None:
            _return_large_buffers()
        metrics.MEMORY_LIMIT.set(memory_limit or 0)

    @contextmanager
    def intake(self, held: "Held") -> Iterator[None]:
        """Take a request in; from here on its body counts against memory too.

        Raises:
            Overloaded: there is no room.
        """
        held.is_intake = True
        self.check_memory()
        if self._requests >= MAX_REQUESTS:
            raise Overloaded("in_flight")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def check_bytes(self, size: int, *, small: bool) -> None:
        """Raise `Overloaded` when so many bytes more of a body are too many."""
        most = self._most_bytes + (MAX_REQUESTS * _SMALL_BYTES if small else 0)
        if self.bytes + size > most:
            raise Overloaded("in_flight")

    def check_memory(self, size: int = 0) -> None:
        """Raise `Overloaded` when the memory limit is reached, or would be with so much more."""
        if self._memory_limit is not None and _resident() + size > self._memory_limit:
            self._over_memory += 1
            self._over.unpark_all()
            raise Overloaded("memory")

    async def run(self) -> None:
        """Make room while the memory limit keeps being reached, at most once a second.

        What was freed stays with the C library otherwise, and everything would be refused for ever.
        """
        while self._memory_limit is not None:
            await self._over.park()
            started = time.monotonic()
            _log.warning("memory_limit_reached", limit_bytes=self._memory_limit)
            seen = 0
            while seen != self._over_memory:
                seen = self._over_memory
                await trio.to_thread.run_sync(_make_room)
                await trio.sleep(_RELIEF_SECONDS)
            _log.info("memory_limit_left", seconds=round(time.monotonic() - started, 1))


class Held:
    """The bytes of bodies that one request holds, until the block ends.

    Compressed, decompressed and redacted ones count.

    Args:
        pressure: bounds them; None: nothing does.

    Attributes:
        size: so many now.
        promised: of these, what may still have to be written.
        is_intake: whether it counts against memory.
    """

    def __init__(self, pressure: Pressure | None = None) -> None:
        self._pressure = pressure
        self.size = 0
        self.promised = 0
        self.is_intake = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pressure is not None:
            self._pressure.bytes -= self.size
            self._pressure.promised -= self.promised

    def expect(self, size: int) -> None:
        """Raise `Overloaded` when so many bytes more have no room; nothing is counted."""
        if self._pressure is None:
            return
        self._pressure.check_bytes(size, small=self.size + size <= _SMALL_BYTES)
        if self.is_intake:
            self._pressure.check_memory()

    def take(self, size: int) -> None:
        """Count so many bytes more; raises `Overloaded` when they have no room."""
        self.expect(size)
        self.size += size
        if self._pressure is not None:
            self._pressure.bytes += size

    def promise(self, size: int) -> None:
        """Count so many bytes more that are going to be written.

        One may be written whatever there is, or a body as large as what is left would never be.

        Raises:
            Overloaded: there is no room beside what others write.
        """
        if self._pressure is None:
            return
        if self._pressure.promised:
            self._pressure.check_memory(self._pressure.promised + size)
        self.take(size)
        self.promised += size
        self._pressure.promised += size


def memory_limit(setting: int | None) -> int | None:
    """Return the limit for `Pressure`.

    Args:
        setting: bytes; 0: no limit; None: nine tenths of the cgroup's, if that has one.
    """
    if setting is not None:
        return setting or None
    limit = cgroup_limit()
    return None if limit is None else int(limit * _CGROUP_SHARE)


def cgroup_limit(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the lowest memory limit, in bytes, of this process's cgroup and those above it.

    None where there is none. The files are those of cgroup v2
    (https://docs.kernel.org/admin-guide/cgroup-v2.html, ``memory.max``) and v1
    (``memory.limit_in_bytes``). In a container the root is the container's own cgroup, whatever
    path the process sees.
    """
    with suppress(OSError):
        limits = [
            limit
            for line in own.read_text().splitlines()
            for folder, name in _limit_files(line, root)
            if (limit := _limit(folder / name)) is not None
        ]
        return min(limits, default=None)
    return None


def _limit_files(line: str, root: Path) -> Iterator[tuple[Path, str]]:
    """Yield where the limits stand of one line of ``/proc/self/cgroup``: id:controllers:path."""
    _, controllers, path = line.split(":", 2)
    if not controllers:
        top, name = root, "memory.max"
    elif "memory" in controllers.split(","):
        top, name = root / "memory", "memory.limit_in_bytes"
    else:
        return
    place = Path(path.lstrip("/"))
    for part in (place, *place.parents):
        yield top / part, name


def _limit(path: Path) -> int | None:
    try:
        limit = int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None
    return limit if limit < _UNLIMITED else None


def _resident() -> int:
    """Return the resident memory of the process in bytes (proc_pid_statm(5))."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES


def _return_large_buffers() -> None:
    """Let the C library give back large buffers at once.

    glibc raises the size from which it does to the size of what was freed last, so that bodies
    would come to lie in its heap, which shrinks at its end only (mallopt(3), M_MMAP_THRESHOLD).
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def _make_room() -> None:
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
