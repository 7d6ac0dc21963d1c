"""The rules in force: a rules folder, compiled at the start and whenever its content changes.

What redacts takes a redactor once for each record set and keeps it to the end, so a change falls
between two record sets and never into one. A change that cannot be used is refused: the last good
rules stay in force, and log, health and metrics tell of it.
"""

import hashlib
import os
import signal
import stat
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
import trio
from watchfiles import awatch

from sidecar import metrics
from sidecar.redaction.engine import Engine
from sidecar.redaction.faults import RulesError
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.rules import RuleSignal, load_rules

_log = structlog.get_logger(__name__)

_SUFFIXES = frozenset({".yaml", ".yml", ".toml", ".json"})
# Above what a rule file may have; nobody looks further into one that will be refused.
_MOST_BYTES = 2**21

# A change is looked at when nothing more came for a step, or when the changes took this long.
_STEP_MS = 100
_DEBOUNCE_MS = 400
# The folder is looked at this often in any case. A watch does not see everything: not the target
# of a link, not a network drive that others write to, not the folder that takes the place of the
# one being watched; and there are fewer watches than pods may ask for on one node.
_LOOK_SECONDS = 1.0


class Refusal(msgspec.Struct, frozen=True):
    """A change of the rules folder that is not in force: when it was read, and why not."""

    at: datetime
    reason: str


class RulesInForce:
    """The rules of a folder, compiled; the last good ones when the folder is faulty now.

    Args:
        folder: as `load_rules` reads it.
        hash_key: for rules that hash.

    Attributes:
        engine: the rules in force. A change replaces it as a whole, by one assignment.
        digest: SHA-256 of the names and bytes of the files they were read from, in hex digits.
        refused: the last change, when it was refused; else None.

    Raises:
        RulesError: the folder cannot be used at the start.
    """

    def __init__(self, folder: Path, hash_key: bytes = b"") -> None:
        self._folder = folder
        self._hash_key = hash_key
        self._woken = trio.Event()
        self._asked = False
        # Taken before the load, so that what changes during it is seen at the first look.
        digest = _content(folder).digest
        self._put_in_force(Engine(load_rules(folder), hash_key), digest)

    def redactor(self, signal: RuleSignal) -> Redactor:
        """Return the rules in force for one signal; to be kept to the end of a record set."""
        return self.engine.redactor(signal)

    async def run(
        self,
        stopping: trio.Event,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep up with the folder, and look when SIGHUP asks for it, until it is cancelled.

        Args:
            stopping: ends the watching of the folder. SIGHUP stays harmless until the end.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._wake_on_sighup)
            nursery.start_soon(self._wake_on_change, stopping)
            task_status.started()
            while True:
                await self._woken.wait()
                # Whatever comes from here on, during a load too, is one more look after this one.
                self._woken, asked, self._asked = trio.Event(), self._asked, False
                await self.look(asked=asked)

    async def look(self, *, asked: bool = False) -> None:
        """Put in force what the folder holds now, unless it is in force or was refused already.

        One at a time. Reading and compiling are done in a thread.

        Args:
            asked: by an operator, who is told also when nothing changed, and for whom a refused
                change is tried again.
        """
        read, result = None, None
        while True:
            found = await trio.to_thread.run_sync(_content, self._folder)
            if found.digest == self.digest:
                self._stay_in_force(asked)
                return
            if found.digest == self._tried and not asked:
                return
            if found == read and result is not None:
                break
            # What is read while somebody writes may be half of one and half of the other: only
            # what was the same before and after is taken, or refused.
            read, result = found, await trio.to_thread.run_sync(self._compile)
        if isinstance(result, Engine):
            self._put_in_force(result, found.digest)
            metrics.RULES_RELOADS.labels("applied").inc()
            _log.info("rules_in_force", rules=len(result.rules.rules), digest=found.digest[:12])
        else:
            self._refuse(str(result), found.digest)

    def _compile(self) -> Engine | RulesError:
        try:
            return Engine(load_rules(self._folder), self._hash_key)
        except RulesError as error:
            return error
        except Exception as error:
            # Whatever a file of rules sets off, it must not end the process.
            return RulesError(f"{self._folder}: {type(error).__name__}: {error}")

    def _put_in_force(self, engine: Engine, digest: str) -> None:
        self.engine = engine
        self.digest = self._tried = digest
        self.refused: Refusal | None = None
        metrics.RULES.set(len(engine.rules.rules))
        metrics.RULES_LAST_RELOAD_TIMESTAMP.set_to_current_time()
        metrics.RULES_LAST_RELOAD_SUCCESSFUL.set(1)

    def _refuse(self, reason: str, digest: str) -> None:
        self._tried = digest
        self.refused = Refusal(datetime.now(UTC), reason)
        metrics.RULES_RELOADS.labels("refused").inc()
        metrics.RULES_LAST_RELOAD_SUCCESSFUL.set(0)
        _log.error("rules_refused", reason=reason, digest_in_force=self.digest[:12])

    def _stay_in_force(self, asked: bool) -> None:
        if self.refused:
            self._tried = self.digest
            self.refused = None
            metrics.RULES_LAST_RELOAD_SUCCESSFUL.set(1)
            _log.info("rules_change_withdrawn", digest=self.digest[:12])
        elif asked:
            _log.info("rules_unchanged", digest=self.digest[:12])

    async def _wake_on_sighup(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                self._asked = True
                self._woken.set()

    async def _wake_on_change(self, stopping: trio.Event) -> None:
        told = False
        while not stopping.is_set():
            self._woken.set()  # for what changed while nobody watched
            watched = _identity(self._folder)
            changes = awatch(
                self._folder,
                watch_filter=None,  # what Kubernetes swaps begins with dots
                recursive=False,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                rust_timeout=int(_LOOK_SECONDS * 1000),
                yield_on_timeout=True,
                stop_event=stopping,
            )
            try:
                async with aclosing(changes):
                    async for _ in changes:
                        self._woken.set()
                        told = False
                        if _identity(self._folder) != watched:
                            break
            except Exception as error:
                # The folder is away, or the limit of inotify is reached: watching is a help, and
                # looking does without it.
                if not told:
                    _log.warning(
                        "rules_not_watched", error=str(error), looking_every_seconds=_LOOK_SECONDS
                    )
                    told = True
                with trio.move_on_after(_LOOK_SECONDS):
                    await stopping.wait()


class _Content(msgspec.Struct, frozen=True):
    """What a rules folder holds at one moment.

    Attributes:
        digest: SHA-256 of names and bytes, in hex digits.
        versions: device, inode and time of the last change of each file in nanoseconds, by which
            the same bytes are told apart that were away in the meantime.
    """

    digest: str
    versions: list[tuple[int, int, int]]


def _content(folder: Path) -> _Content:
    files: list[tuple[bytes, bytes | str]] = []
    versions = []
    try:
        paths = sorted(path for path in folder.iterdir() if _is_read(path))
    except OSError as error:
        files.append((b"", str(error.errno)))
        paths = []
    for path in paths:
        data: bytes | str
        try:
            status = path.stat()
            versions.append((status.st_dev, status.st_ino, status.st_ctime_ns))
            data = _bytes(path) if stat.S_ISREG(status.st_mode) else "no file"
        except OSError as error:
            data = str(error.errno)
        files.append((os.fsencode(path.name), data))
    return _Content(hashlib.sha256(msgspec.msgpack.encode(files)).hexdigest(), versions)


def _is_read(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".")


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another one at its place; None while there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
