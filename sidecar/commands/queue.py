"""``sidecar queue``: shows what waits for the exporters, and what becomes of dead letters.

It opens the durable queue beside a running sidecar, which notices what was changed within about a
second. Nothing is created, and what is no queue is left as it is.
"""

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from sidecar.exporters.jsonlines import lines
from sidecar.pipeline.exporter import Refused
from sidecar.pipeline.store import (
    FILE_NAME,
    ROW_OVERHEAD,
    DeadLetter,
    ForeignFileError,
    Store,
    Total,
)
from sidecar.settings import SettingsError, load_settings

_STDOUT = 1
# How much is put back in one commit: a running sidecar waits for it.
_TOGETHER = 8 * 2**20
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_Row = dict[str, Any]


def status(directory: str | None) -> int:
    """Print what waits and what is dead, a row for each exporter and signal.

    On a terminal the rows are a table, else JSON objects, one a line.

    Args:
        directory: of the queue; None for the one of the settings.

    Returns:
        0; 1 when the queue cannot be read, 2 when no directory is named at all.
    """
    return _with_store(directory, _print_status)


def list_letters(directory: str | None, exporter: str | None) -> int:
    """Print a row for each dead letter, the newest last.

    Args:
        directory: as of `status`.
        exporter: whose dead letters; None for all.

    Returns:
        As `status`.
    """
    return _with_store(directory, partial(_print_letters, exporter=exporter))


def show(directory: str | None, id: int) -> int:
    """Print the records of a dead letter, one JSON object a line, as the stdout exporter does.

    Returns:
        As `status`; 1 also when there is no such dead letter, or it is malformed.
    """
    return _with_store(directory, partial(_print_records, id=id))


def replay(directory: str | None, ids: list[int], exporter: str | None) -> int:
    """Let dead letters wait for their exporters again, and print how many do.

    Args:
        directory: as of `status`.
        ids: which; an empty list for all of the exporter.
        exporter: None for all exporters.

    Returns:
        As `status`; 1 also when one of the ids is of no dead letter. The others are put back then.
    """
    return _with_store(directory, partial(_change, Store.replay, "replayed", ids, exporter))


def drop(directory: str | None, ids: list[int], exporter: str | None) -> int:
    """Remove dead letters for good, and print how many that were; takes and returns as `replay`."""
    return _with_store(directory, partial(_change, Store.drop_dead, "dropped", ids, exporter))


def _with_store(directory: str | None, use: Callable[[Store], int]) -> int:
    """Open the queue and use it; say in one line why that cannot be done."""
    try:
        named = load_settings(os.environ).sidecar_queue_dir if directory is None else directory
    except SettingsError as error:
        return _fail(str(error))
    if not named:
        _fail("no queue is named: set SIDECAR_QUEUE_DIR, or give --dir")
        return 2
    path = Path(named) / FILE_NAME
    try:
        with closing(Store(path.parent, alone=False)) as store:
            return use(store)
    except (FileNotFoundError, NotADirectoryError):
        return _fail(f"{named}: there is no queue in it")
    except OSError as error:
        return _fail(f"{path}: {error.strerror}")
    except ForeignFileError as error:
        return _fail(f"{path}: {error}")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
            return _fail(f"{path}: another process keeps it locked; try again")
        return _fail(f"{path}: {error}")


def _print_status(store: Store) -> int:
    now = time.time()
    waiting, dead, _ = store.totals()
    rows = [_total("waiting", total, now) for total in waiting]
    rows += [_total("dead", total, now) for total in dead]
    return _print_rows(rows, "Nothing waits, and there are no dead letters.")


def _total(state: str, total: Total, now: float) -> _Row:
    return {
        "state": state,
        "exporter": total.exporter,
        "signal": total.signal,
        "records": total.records,
        "batches": total.batches,
        "bytes": total.bytes,
        "oldest_seconds": round(max(0.0, now - total.oldest), 3),
    }


def _print_letters(store: Store, exporter: str | None) -> int:
    rows = [
        {
            "id": letter.id,
            "exporter": letter.exporter,
            "signal": letter.signal,
            "records": letter.records,
            "refused": datetime.fromtimestamp(letter.refused, UTC),
            "reason": letter.reason,
        }
        for letter in store.dead_letters()
        if exporter in {None, letter.exporter}
    ]
    return _print_rows(rows, "There are no dead letters.")


def _print_records(store: Store, id: int) -> int:
    packed = store.dead_body(id)
    if packed is None:
        return _fail(_missing(id))
    try:
        return _write(lines(packed.unpack()))
    except (Refused, zstandard.ZstdError) as error:
        reason = error.reason if isinstance(error, Refused) else "its body is damaged"
        return _fail(f"dead letter {id} cannot be shown: {reason}")


def _change(
    change: Callable[[Store, list[int]], int],
    done: str,
    ids: list[int],
    exporter: str | None,
    store: Store,
) -> int:
    """Do something with dead letters, and tell how many there were of those that were named."""
    letters = {letter.id: letter for letter in store.dead_letters()}
    missing = [id for id in dict.fromkeys(ids) if id not in letters]
    chosen = [
        letter
        for letter in letters.values()
        if letter.id in ids or (not ids and exporter in {None, letter.exporter})
    ]
    count = sum(change(store, some) for some in _in_turn(chosen))
    for id in missing:
        _fail(_missing(id))
    # To make room for others, the running sidecar may have removed some of them meanwhile.
    if count < len(chosen):
        _fail(f"{_letters(len(chosen) - count)} went away before")
    if os.isatty(_STDOUT):
        code = _write(f"{_letters(count)} {done}\n".encode())
    else:
        code = _write(msgspec.json.encode({done: count}) + b"\n")
    return 1 if code or missing or count < len(chosen) else 0


def _in_turn(letters: Iterable[DeadLetter]) -> Iterator[list[int]]:
    """Yield the ids of as many as may be changed in one commit."""
    ids: list[int] = []
    size = 0
    for letter in letters:
        ids.append(letter.id)
        size += letter.size + ROW_OVERHEAD
        if size >= _TOGETHER:
            yield ids
            ids, size = [], 0
    if ids:
        yield ids


def _print_rows(rows: list[_Row], nothing: str) -> int:
    if not os.isatty(_STDOUT):
        return _write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    text = _table(rows) if rows else f"{nothing}\n"
    return _write(text.encode())


def _table(rows: list[_Row]) -> str:
    """Return rows as columns under their names, numbers to the right."""
    columns = []
    for name in rows[0]:
        cells = [name.removesuffix("_seconds").upper(), *(_cell(name, row[name]) for row in rows)]
        width = max(map(len, cells))
        is_number = isinstance(rows[0][name], int | float)
        columns.append([f"{cell:>{width}}" if is_number else f"{cell:{width}}" for cell in cells])
    return "".join("  ".join(cells).rstrip() + "\n" for cells in zip(*columns, strict=True))


def _cell(name: str, value: Any) -> str:
    if name.endswith("_seconds"):
        return str(timedelta(seconds=int(value)))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    # A terminal would take some characters for commands.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def _write(data: bytes) -> int:
    try:
        with open(_STDOUT, "wb", closefd=False) as out:
            out.write(data)
    except BrokenPipeError:
        pass  # the reader has seen enough
    except OSError as error:
        return _fail(f"standard output: {error.strerror}")
    return 0


def _fail(message: str) -> int:
    print(f"sidecar: {message}", file=sys.stderr)  # noqa: T201
    return 1


def _missing(id: int) -> str:
    return f"there is no dead letter {id}"


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count} dead letters"
