"""Where records wait for the exporters: an SQLite database, on disk or in memory.

Each batch is one row, and a row for each exporter says that it still waits for that one. A batch
goes when it waits for none. What a target refused for good is a *dead letter*: a copy of the batch
for that exporter, with the reason, until there is no room for it.

Nothing here waits for anything but the disk; `sidecar.pipeline.queue` calls it in a thread. The
file is in WAL mode (https://www.sqlite.org/wal.html), so it may be read, and dead letters be put
back, while the sidecar runs.
"""

import errno
import fcntl
import math
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import zstandard

from sidecar.pipeline.batch import SIGNALS, PackedBatch, Signal

FILE_NAME = "queue.sqlite3"
# What a batch takes beside its body: the row, its place in the tables, the rest of its last page.
ROW_OVERHEAD = 200

_APPLICATION_ID = 0x54435351
_VERSION = 1
_SCHEMA = """
CREATE TABLE batch (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- no id is used again while someone may hold it
    signal TEXT NOT NULL,
    records INTEGER NOT NULL,
    size INTEGER NOT NULL,
    added REAL NOT NULL,  -- Unix time
    body BLOB NOT NULL
) STRICT;
CREATE TABLE pending (
    exporter TEXT NOT NULL,
    signal TEXT NOT NULL,  -- of the batch, so that those of one are together
    batch INTEGER NOT NULL REFERENCES batch,
    PRIMARY KEY (exporter, signal, batch)
) STRICT, WITHOUT ROWID;
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    exporter TEXT NOT NULL,
    reason TEXT NOT NULL,
    refused REAL NOT NULL,  -- Unix time
    signal TEXT NOT NULL,
    records INTEGER NOT NULL,
    size INTEGER NOT NULL,
    added REAL NOT NULL,
    body BLOB NOT NULL
) STRICT;
"""
# Pages of 4 KiB, from which on the log is written back into the database and begun anew.
_CHECKPOINT_PAGES = 256
# To take something out, SQLite first writes more. So there is a file that is of no use but to be
# removed when the disk is full; it is there again before anything is taken in.
_RESERVE_NAME, _RESERVE_BYTES = "queue.reserve", 4 * 2**20
_PROBE_BYTES = 256 * 1024
# As SQLite says it.
_FULL = "database or disk is full"
_LOCK_SECONDS = 5.0
# The disk says that the file is not, or no longer, what it was.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class ForeignFileError(Exception):
    """The file is no queue, or one of another version."""


class InUseError(OSError):
    """Another process has the queue."""


class Row(msgspec.Struct, frozen=True):
    """A batch that waits, and since when (Unix time)."""

    id: int
    added: float
    batch: PackedBatch


class DeadLetter(msgspec.Struct, frozen=True):
    """A batch that an exporter's target refused for good.

    Attributes:
        id: of the dead letter.
        exporter, reason: who refused it and why.
        refused, added: when, and when it came in; Unix time.
        signal, records, size: as of `PackedBatch`.
    """

    id: int
    exporter: str
    reason: str
    refused: float
    added: float
    signal: Signal
    records: int
    size: int


class Total(msgspec.Struct, frozen=True):
    """What waits for one exporter of one signal, or is dead.

    Attributes:
        exporter, signal: whose it is.
        batches, records: how many.
        size: of the bodies, in bytes.
        bytes: what they take: compressed bodies and overhead.
        oldest: when the first of them came in, or was refused; Unix time.
    """

    exporter: str
    signal: Signal
    batches: int
    records: int
    size: int
    bytes: int
    oldest: float


class Settled(msgspec.Struct, frozen=True):
    """Batches that an exporter is done with.

    Attributes:
        exporter: its name.
        signal: of all of them.
        ids: of the rows.
        reason: why they were refused for good, or None when they were exported.
    """

    exporter: str
    signal: Signal
    ids: list[int]
    reason: str | None = None


class Lost(msgspec.Struct, frozen=True):
    """Records that are given up."""

    exporter: str
    signal: Signal
    records: int


class Store:
    """The open database. Its methods may be called from any thread, one at a time.

    Args:
        directory: where the file is; created when it is not there. None: in memory.
        fsync: whether a write is on the device when it returns, or on its way there.
        max_dead_bytes: the bound of all dead letters together.
        alone: keep other processes from opening it so, too. Otherwise it is opened beside them,
            nothing is created, and what is no queue is left as it is.
        after: the batches of a file that is created have greater ids than this.

    Raises:
        ForeignFileError, sqlite3.Error: the file cannot be used as it is.
        InUseError: another process has it.
        OSError: the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        fsync: bool = True,
        max_dead_bytes: int = 2**62,
        alone: bool = True,
        after: int = 0,
    ) -> None:
        self._max_dead_bytes = max_dead_bytes
        self._lock = _lock(directory) if directory is not None and alone else None
        self._reserve = directory / _RESERVE_NAME if directory is not None and alone else None
        try:
            self._db = _connect(None if directory is None else directory / FILE_NAME, create=alone)
            try:
                _prepare(self._db, fsync=fsync, create=alone, after=after)
                self._has_reserve = self._make_reserve()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._unlock()
            raise

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(
        self, added: Sequence[tuple[PackedBatch, Iterable[str]]], settled: Iterable[Settled]
    ) -> tuple[list[int], list[Lost]]:
        """Add batches for exporters and settle others, all or nothing.

        Returns:
            How many of each settled were there; the dead letters that went to make room for others,
            or for which the disk has none.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        try:
            if added:
                self._check_room()
            return self._write(added, settled)
        except sqlite3.Error as error:
            had_reserve = self._has_reserve
            self._release_reserve()
            if added or had_reserve or not _is_full(error):
                raise
            # Nothing is left to be released: what leaves the queue cannot be kept elsewhere.
            return self._write((), settled, bury=False)

    def _write(
        self,
        added: Sequence[tuple[PackedBatch, Iterable[str]]],
        settled: Iterable[Settled],
        *,
        bury: bool = True,
    ) -> tuple[list[int], list[Lost]]:
        now = time.time()
        with _transaction(self._db) as db:
            for batch, exporters in added:
                row = db.execute(
                    "INSERT INTO batch (signal, records, size, added, body) VALUES (?,?,?,?,?)",
                    (batch.signal, batch.records, batch.size, now, batch.body),
                ).lastrowid
                db.executemany(
                    "INSERT INTO pending VALUES (?, ?, ?)",
                    [(name, batch.signal, row) for name in exporters],
                )
            removed: list[int] = []
            lost: list[Lost] = []
            refused = False
            for one in settled:
                if one.reason is not None and bury:
                    refused = True
                    self._bury(one, now)
                elif one.reason is not None:
                    lost.append(Lost(one.exporter, one.signal, self._records(one.ids)))
                removed.append(self._settle(one))
            return removed, lost + (self._trim() if refused else [])

    def _check_room(self) -> None:
        """Raise ``sqlite3.OperationalError`` when there is neither a reserve nor room for one."""
        if self._has_reserve:
            return
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        if free * self._db.execute("PRAGMA page_size").fetchone()[0] < _RESERVE_BYTES:
            raise sqlite3.OperationalError(_FULL)

    def _make_reserve(self) -> bool:
        """Set room aside; tell whether there is some."""
        if self._reserve is None:
            return True
        try:
            with self._reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            self._release_reserve()
            return False
        return True

    def _release_reserve(self) -> None:
        if self._reserve is not None:
            self._has_reserve = False
            with suppress(OSError):
                self._reserve.unlink()

    def _bury(self, settled: Settled, now: float) -> None:
        self._db.executemany(
            "INSERT INTO dead (exporter, reason, refused, signal, records, size, added, body) "
            "SELECT ?, ?, ?, signal, records, size, added, body FROM batch WHERE id = ?",
            [(settled.exporter, settled.reason, now, id) for id in settled.ids],
        )

    def _records(self, ids: Iterable[int]) -> int:
        """Return how many records batches hold."""
        count = 0
        for id in ids:
            found = self._db.execute("SELECT records FROM batch WHERE id = ?", (id,)).fetchone()
            count += found[0] if found else 0
        return count

    def _settle(self, settled: Settled) -> int:
        removed = self._db.executemany(
            "DELETE FROM pending WHERE exporter = ? AND signal = ? AND batch = ?",
            [(settled.exporter, settled.signal, id) for id in settled.ids],
        ).rowcount
        # And those batches that wait for nobody now.
        names = self._exporters()
        others = f"exporter IN ({','.join('?' * len(names))}) AND signal = ?"
        self._db.executemany(
            "DELETE FROM batch WHERE id = ? "
            f"AND NOT EXISTS (SELECT 1 FROM pending WHERE {others} AND batch = id)",
            [(id, *names, settled.signal) for id in settled.ids],
        )
        return removed

    def _exporters(self) -> list[str]:
        return [name for (name,) in self._db.execute(_EXPORTERS)]

    def _firsts(self, exporter: str) -> list[tuple[int, Signal]]:
        """Return the first batch that waits for an exporter of each signal, the oldest first."""
        return sorted(
            (first, signal)
            for signal, first in self._db.execute(_FIRSTS, (exporter,))
            if first is not None
        )

    def _trim(self) -> list[Lost]:
        """Remove the oldest dead letters beyond the bound."""
        cost = f"length(body) + {ROW_OVERHEAD}"
        excess = self._db.execute(f"SELECT total({cost}) FROM dead").fetchone()[0]
        excess -= self._max_dead_bytes
        lost: list[Lost] = []
        while excess > 0:
            id, exporter, signal, records, size = self._db.execute(
                f"SELECT id, exporter, signal, records, {cost} FROM dead ORDER BY id LIMIT 1"
            ).fetchone()
            self._db.execute("DELETE FROM dead WHERE id = ?", (id,))
            lost.append(Lost(exporter, signal, records))
            excess -= size
        return lost

    def head(self, exporter: str, max_bytes: int, max_batches: int) -> list[Row]:
        """Return the batches that have waited longest for an exporter.

        They are of the signal of the oldest, at most ``max_batches``, and their bodies at most
        ``max_bytes`` together, uncompressed, unless the first alone is larger.
        """
        rows: list[Row] = []
        room = max_bytes
        for _, signal in self._firsts(exporter)[:1]:
            for id, added, records, size, body in self._db.execute(
                "SELECT id, added, records, size, body FROM pending JOIN batch ON id = batch "
                "WHERE exporter = ? AND pending.signal = ? ORDER BY batch LIMIT ?",
                (exporter, signal, max_batches),
            ):
                room -= size
                if rows and room < 0:
                    break
                rows.append(Row(id, added, PackedBatch(signal, records, size, body)))
        return rows

    def expire(self, before: float, behind: Mapping[tuple[str, Signal], int]) -> list[Total]:
        """Give up what came in before a time (Unix); return what that was.

        Args:
            before: the time.
            behind: exporter, signal → the last id that is under way; what is under way stays.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        try:
            with _transaction(self._db):
                return [
                    total
                    for name in self._exporters()
                    for _, signal in self._firsts(name)
                    if (total := self._expire(name, signal, before, behind.get((name, signal), 0)))
                ]
        except sqlite3.Error:
            self._release_reserve()
            raise

    def _expire(self, name: str, signal: Signal, before: float, behind: int) -> Total | None:
        ids, records, size, cost, oldest = [], 0, 0, 0, math.inf
        for id, added, *counts in self._db.execute(
            f"SELECT id, added, records, size, length(body) + {ROW_OVERHEAD} "
            "FROM pending JOIN batch ON id = batch WHERE exporter = ? AND pending.signal = ? "
            "AND batch > ? ORDER BY batch LIMIT 10000",
            (name, signal, behind),
        ):
            if added >= before:
                break
            ids.append(id)
            records, size, cost = records + counts[0], size + counts[1], cost + counts[2]
            oldest = min(oldest, added)
        if not ids:
            return None
        self._settle(Settled(name, signal, ids))
        return Total(name, signal, len(ids), records, size, cost, oldest)

    def _waiting(self) -> list[Total]:
        return self._totals(
            "SELECT exporter, pending.signal, count(*), sum(records), sum(size), "
            f"sum(length(body) + {ROW_OVERHEAD}), min(added) "
            "FROM pending JOIN batch ON id = batch GROUP BY exporter, pending.signal"
        )

    def _dead(self) -> list[Total]:
        return self._totals(
            "SELECT exporter, signal, count(*), sum(records), sum(size), "
            f"sum(length(body) + {ROW_OVERHEAD}), min(refused) "
            "FROM dead GROUP BY exporter, signal"
        )

    def _totals(self, query: str) -> list[Total]:
        totals = [Total(*row) for row in self._db.execute(query)]
        if any(total.signal not in SIGNALS for total in totals):
            raise ForeignFileError("a signal in it is none")
        return totals

    def totals(self) -> tuple[list[Total], list[Total], int]:
        """Return what waits, what is dead, and `version`, as of one moment, whatever others write.

        Raises:
            ForeignFileError: a signal is none.
        """
        self._db.execute("BEGIN")
        try:
            return self._waiting(), self._dead(), self.version()
        finally:
            with suppress(sqlite3.Error):
                self._db.execute("COMMIT")

    def oldest(self) -> dict[str, float]:
        """Return for each exporter since when (Unix time) it is waited for.

        Raises:
            ForeignFileError: a batch is not there, so that what stands behind it is out of reach.
        """
        oldest = {}
        for name in self._exporters():
            for first, _ in self._firsts(name)[:1]:
                found = self._db.execute(
                    "SELECT added FROM batch WHERE id = ?", (first,)
                ).fetchone()
                if found is None:
                    raise ForeignFileError("a batch in it is missing")
                oldest[name] = found[0]
        return oldest

    def version(self) -> int:
        """Return a number that changes when another process has written to the file."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def probe(self) -> None:
        """Raise ``sqlite3.Error`` while the disk does not take what a large batch takes."""
        try:
            self._has_reserve = self._make_reserve()
            self._check_room()
            with _transaction(self._db) as db:
                db.execute(
                    "INSERT INTO dead (exporter, reason, refused, signal, records, size, added, "
                    f"body) VALUES ('', '', 0, '', 0, 0, 0, zeroblob({_PROBE_BYTES}))"
                )
                db.execute("DELETE FROM dead WHERE exporter = ''")
        except sqlite3.Error:
            self._release_reserve()
            raise

    def dead_letters(self) -> list[DeadLetter]:
        """Return all dead letters without their bodies, the oldest first."""
        return [
            DeadLetter(*row)
            for row in self._db.execute(
                "SELECT id, exporter, reason, refused, added, signal, records, size "
                "FROM dead ORDER BY id"
            )
        ]

    def dead_body(self, id: int) -> PackedBatch | None:
        """Return what a dead letter holds; None when there is no such one."""
        row = self._db.execute(
            "SELECT signal, records, size, body FROM dead WHERE id = ?", (id,)
        ).fetchone()
        return None if row is None else PackedBatch(*row)

    def replay(self, ids: Iterable[int]) -> int:
        """Let dead letters wait for their exporters again; return how many did."""
        count = 0
        with _transaction(self._db) as db:
            for id in ids:
                found = db.execute(
                    "SELECT exporter, signal FROM dead WHERE id = ?", (id,)
                ).fetchone()
                if found is None:
                    continue
                row = db.execute(
                    "INSERT INTO batch (signal, records, size, added, body) "
                    "SELECT signal, records, size, ?, body FROM dead WHERE id = ?",
                    (time.time(), id),
                ).lastrowid
                db.execute("INSERT INTO pending VALUES (?, ?, ?)", (*found, row))
                db.execute("DELETE FROM dead WHERE id = ?", (id,))
                count += 1
        return count

    def drop_dead(self, ids: Iterable[int]) -> int:
        """Remove dead letters; return how many were there."""
        with _transaction(self._db) as db:
            return db.executemany("DELETE FROM dead WHERE id = ?", [(id,) for id in ids]).rowcount


_FIRSTS = f"""
SELECT column1, (SELECT min(batch) FROM pending WHERE exporter = ? AND signal = column1)
FROM (VALUES {", ".join(f"('{signal}')" for signal in SIGNALS)})
"""
# A jump from name to name instead of a pass over all that waits
# (https://www.sqlite.org/lang_with.html).
_EXPORTERS = """
WITH RECURSIVE name(exporter) AS (
    SELECT min(exporter) FROM pending
    UNION ALL
    SELECT (SELECT min(pending.exporter) FROM pending WHERE pending.exporter > name.exporter)
    FROM name WHERE name.exporter IS NOT NULL
) SELECT exporter FROM name WHERE exporter IS NOT NULL
"""


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def is_damaged(error: Exception) -> bool:
    """Tell whether an error says that the file must be set aside."""
    if isinstance(error, ForeignFileError | zstandard.ZstdError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED


def set_aside(directory: Path) -> Path:
    """Rename the file, and what SQLite keeps beside it; return its new name.

    Raises:
        OSError: it cannot be renamed.
    """
    path = directory / FILE_NAME
    aside = path.with_name(f"{path.name}.set-aside-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _lock(directory: Path) -> int:
    """Make the directory this process's own; return the descriptor that says so."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "queue.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InUseError("another process uses it") from None
    return lock


def _connect(path: Path | None, *, create: bool) -> sqlite3.Connection:
    if path is None:
        return _open(":memory:")
    if create:
        # What is written here was redacted, but is nobody's business all the same.
        if not path.exists():
            path.touch(mode=0o600)
        return _open(path)
    _look_at(path)
    return _open(f"{path.absolute().as_uri()}?mode=rw")


def _look_at(path: Path) -> None:
    """Check that a file is a queue without a trace left, as opening it to write might leave."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ForeignFileError("it is no regular file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    # While anyone has it open there is a log. Without one, SQLite would make one
    # (https://www.sqlite.org/uri.html#uriimmutable).
    has_log = path.with_name(f"{path.name}-wal").exists()
    how = "mode=ro" if has_log else "mode=ro&immutable=1"
    with closing(_open(f"{path.absolute().as_uri()}?{how}")) as db:
        _check(db)


def _open(database: str | Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        database,
        uri=isinstance(database, str),
        timeout=_LOCK_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    # A text that is damaged is looked at as any other: its error would have no code.
    db.text_factory = lambda text: text.decode(errors="replace")
    return db


def _check(db: sqlite3.Connection, *, create: bool = False) -> bool:
    """Tell whether a database is empty; raises `ForeignFileError` when it is no queue."""
    own = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    try:
        empty = not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    except UnicodeDecodeError:
        # What SQLite says of a damaged schema quotes it.
        raise ForeignFileError("its schema is damaged") from None
    is_queue = (own, version) == (_APPLICATION_ID, _VERSION)
    if not is_queue and not (create and empty and own == version == 0):
        raise ForeignFileError("it is no queue of this version")
    return empty


def _prepare(db: sqlite3.Connection, *, fsync: bool, create: bool, after: int) -> None:
    """Check that the file is a queue, or make it one."""
    empty = _check(db, create=create)
    # In memory, what is taken out is given back, and bodies may be as they are: large. A file has
    # its free pages used again.
    if not db.execute("PRAGMA database_list").fetchone()[2]:
        db.execute("PRAGMA page_size = 16384")
        db.execute("PRAGMA auto_vacuum = FULL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    # In KiB; the default of 2 MiB, said so that nobody has to look it up.
    db.execute("PRAGMA cache_size = -2048")
    db.execute("PRAGMA temp_store = MEMORY")
    # Some builds overwrite what is removed with zeros: on a full disk there is no room for those.
    db.execute("PRAGMA secure_delete = OFF")
    if empty:
        db.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} INSERT INTO sqlite_sequence VALUES ('batch', {after}); "
            f"PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {_VERSION}; COMMIT;"
        )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        # Of some errors SQLite has rolled back already.
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
