"""A node's durable store: SQLite in WAL mode, one writing thread, group commit.

    loop --write(batch, done)--> queue --> writer thread: BEGIN, all queued batches, COMMIT (fsync)
    loop <--done(None | StoreFailed)-- one wake-up per commit

Everything that is queued while a commit runs goes into the next one, so that the cost of an fsync
is shared by all who wait. ``synchronous=FULL``: in WAL mode NORMAL does not flush at a commit, and
a power cut takes acknowledged rows. Checkpoints are PASSIVE and small, and wait for a quiet moment:
the checkpoint that SQLite makes by itself would stand inside somebody's commit.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpyne_grid.nodes.errors import StateError

from alpyne_grid.durable import sync_folder
from alpyne_proto.errors import AlpyneError, ErrorCode

GROUP_MAX = 1024  # batches in one commit; bounds how long the first of them waits for the last
PARAMETERS_MAX = 30_000  # of one statement; SQLite's own bound is 32,766
CHECKPOINT_COMMITS = 256  # commits after which a quiet moment is used for a checkpoint
CHECKPOINT_BYTES = 4 << 20  # or so many bytes of values
CHECKPOINT_QUIET_S = 0.1  # what counts as a quiet moment
CHECKPOINT_FORCED = 4  # times the bounds above: then without a quiet moment


class StoreFailed(AlpyneError):
    """A batch was not committed and has left nothing behind, or a query had no answer; says why."""

    code = ErrorCode.STORE_FAILED


@dataclass(frozen=True, slots=True)
class Schema:
    """One component's tables: step n brings its version n to n + 1, beginning with version 0."""

    component: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows for ``head VALUES (...), (...) tail``; neighbours of one head become one statement.

    Each statement gives the interpreter lock away and has to get it back, so few statements matter
    more than short ones.
    """

    head: str
    rows: Sequence[tuple[Any, ...]]
    tail: str = ""


Statement = tuple[str, Sequence[Any]]
Batch = Sequence[Statement | Rows]
Done = Callable[[StoreFailed | None], None]

_META = """
CREATE TABLE IF NOT EXISTS store_schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS store_commit (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER);
INSERT OR IGNORE INTO store_commit VALUES (1, 0);
"""
# What a batch can raise: SQLite's own errors, and values that SQLite cannot hold.
_BATCH_ERRORS = (sqlite3.Error, OverflowError, ValueError, TypeError)


class CommitStore:
    """A SQLite file with group commit; use from the loop's thread, made by ``CommitStore.open``."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._gathered: list[tuple[Batch, Done]] = []  # what the writer has not been given yet
        self._hand_over: asyncio.Handle | None = None
        self._hand_over_s: float | None = None
        self._queue: queue.SimpleQueue[list[tuple[Batch, Done]] | None] = queue.SimpleQueue()
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._number = 0
        self._last_commit = 0
        self._commits = 0  # since the last checkpoint
        self._bytes = 0
        self._thread: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        schemas: Iterable[Schema],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> "CommitStore":
        """Open or create ``path``, bring its tables up to ``schemas`` and start the writer thread.

        ``done`` callbacks run on ``loop`` (default: the running one). Raises StateError for a file
        that is no database, or that a newer version has written.
        """
        store = cls(path, loop or asyncio.get_running_loop())
        try:
            store._prepare(schemas)
        except sqlite3.Error as error:
            store._disconnect()
            raise StateError(
                f"store {path}: cannot be used ({error}); restore it from a backup, or choose "
                "another folder by --state"
            ) from None
        except StateError:
            store._disconnect()
            raise
        store._thread = threading.Thread(target=store._run, name="store writer", daemon=True)
        store._thread.start()
        return store

    @property
    def last_commit(self) -> int:
        """Number of the newest commit whose callbacks have run; rises over restarts."""
        return self._last_commit

    def write(self, batch: Batch, done: Done, *, within_s: float = 0.0) -> None:
        """Queue ``batch``, which is committed wholly or not at all, in the order of the calls.

        ``done(None)`` follows on the loop when it is durable, ``done(StoreFailed)`` where it could
        not be committed; other batches are not affected by that. ``within_s``: how long the commit
        may wait for others to share it; 0: it begins when this turn of the loop is over.
        """
        if self._thread is None:
            raise StoreFailed(f"store {self._path}: closed")
        self._gathered.append((batch, done))
        due_s = self._loop.time() + within_s
        if self._hand_over_s is None or due_s < self._hand_over_s:
            if self._hand_over is not None:
                self._hand_over.cancel()
            self._hand_over_s = due_s
            if within_s:
                self._hand_over = self._loop.call_at(due_s, self._wake_writer)
            else:
                # Behind what this turn has to send: the writer would compete for the interpreter.
                self._hand_over = self._loop.call_soon(self._at_end_of_turn)

    def _at_end_of_turn(self) -> None:
        self._hand_over = self._loop.call_soon(self._wake_writer)

    def _wake_writer(self) -> None:
        self._hand_over = self._hand_over_s = None
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._queue.put(gathered)

    async def commit(self, batch: Batch) -> None:
        """Write ``batch`` and wait until it is durable. Raises StoreFailed."""
        future: asyncio.Future[None] = self._loop.create_future()

        def done(error: StoreFailed | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.write(batch, done)
        await future

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query, on a connection of its own: it sees what is committed.

        Raises StoreFailed where the file is damaged or cannot be read.
        """
        try:
            return self._reader.execute(sql, args).fetchall()
        except sqlite3.Error as error:
            raise StoreFailed(
                f"store {self._path}: cannot be read ({error}); restore it from a backup"
            ) from None

    async def close(self) -> None:
        """Commit what is queued, checkpoint, and close the file; callbacks still run."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._wake_writer()
        self._queue.put(None)
        await asyncio.to_thread(thread.join)
        self._disconnect()

    def _prepare(self, schemas: Iterable[Schema]) -> None:
        self._writer.executescript(_META)
        for schema in schemas:
            rows = self._writer.execute(
                "SELECT version FROM store_schema WHERE component = ?", (schema.component,)
            ).fetchall()
            version = rows[0][0] if rows else 0
            if version > len(schema.steps):
                raise StateError(
                    f"store {self._path}: {schema.component} has version {version}, this software "
                    f"knows {len(schema.steps)}; run the newer software that wrote it"
                )
            for number in range(version, len(schema.steps)):
                self._writer.executescript(
                    f"BEGIN IMMEDIATE; {schema.steps[number]}; INSERT OR REPLACE INTO store_schema "
                    f"VALUES ('{schema.component}', {number + 1}); COMMIT;"
                )
        self._number = self._writer.execute("SELECT number FROM store_commit").fetchall()[0][0]
        self._last_commit = self._number
        sync_folder(self._path.parent)
        self._reader.execute("PRAGMA query_only = ON")

    def _disconnect(self) -> None:
        self._reader.close()
        self._writer.close()

    # ---- the writer thread ----

    def _run(self) -> None:
        ending = False
        while not ending:
            try:
                item = self._queue.get(timeout=CHECKPOINT_QUIET_S if self._due(1) else None)
            except queue.Empty:
                self._checkpoint()
                continue
            group: list[tuple[Batch, Done]] = []
            while item is not None:
                group += item
                if len(group) >= GROUP_MAX or self._queue.empty():
                    break
                item = self._queue.get()  # never waits: this thread alone takes from the queue
            ending = item is None
            if group:
                finished = self._commit(group)
                try:
                    self._loop.call_soon_threadsafe(self._report, self._number, finished)
                except RuntimeError:  # the loop is closed: nobody is left to be told
                    return
            if self._due(CHECKPOINT_FORCED):
                self._checkpoint()
        self._checkpoint()

    def _commit(self, group: list[tuple[Batch, Done]]) -> list[tuple[Done, StoreFailed | None]]:
        """Commit all of ``group`` at once; where that fails, each batch by itself."""
        error = self._transaction([batch for batch, _ in group])
        if error is None or len(group) == 1:
            return [(done, error) for _, done in group]
        return [(done, self._transaction([batch])) for batch, done in group]

    def _transaction(self, batches: Sequence[Batch]) -> StoreFailed | None:
        execute = self._writer.execute
        try:
            execute("BEGIN IMMEDIATE")
            for sql, args in _statements(batches):
                execute(sql, args)
                self._bytes += sum(len(arg) for arg in args if type(arg) is bytes)
            execute("UPDATE store_commit SET number = ?", (self._number + 1,))
            execute("COMMIT")
        except _BATCH_ERRORS as error:
            if self._writer.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    execute("ROLLBACK")
            return StoreFailed(f"store {self._path}: not committed: {error}")
        self._number += 1
        self._commits += 1
        return None

    def _due(self, times: int) -> bool:
        return (
            self._commits >= CHECKPOINT_COMMITS * times or self._bytes >= CHECKPOINT_BYTES * times
        )

    def _checkpoint(self) -> None:
        self._commits = self._bytes = 0
        # A checkpoint that cannot write loses nothing: the rows are in the log, and the next tries.
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # ---- back on the loop ----

    def _report(self, number: int, finished: list[tuple[Done, StoreFailed | None]]) -> None:
        self._last_commit = max(self._last_commit, number)
        left = iter(finished)
        try:
            for done, error in left:
                done(error)
        except BaseException:
            # One caller's mistake goes to the loop's handler; the others still get their word.
            self._loop.call_soon(self._report, number, list(left))
            raise


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # Not in autocommit's way: transactions are begun and ended by hand.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StateError(
            f"store {path}: cannot be opened ({error}); check the folder's rights, or choose "
            "another by --state"
        ) from None
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA busy_timeout = 10000")
    except sqlite3.Error as error:
        connection.close()
        raise StateError(
            f"store {path}: cannot be used ({error}); restore it from a backup, or choose another "
            "folder by --state"
        ) from None
    return connection


def _statements(batches: Iterable[Batch]) -> Iterable[Statement]:
    """Yield the statements of ``batches`` in order, neighbouring Rows of one head made one."""
    waiting: Rows | None = None
    rows: list[tuple[Any, ...]] = []
    for batch in batches:
        for item in batch:
            if type(item) is Rows:
                if waiting is None or item.head != waiting.head or item.tail != waiting.tail:
                    if waiting is not None:
                        yield from _chunks(waiting, rows)
                    waiting, rows = item, []
                rows.extend(item.rows)
            else:
                if waiting is not None:
                    yield from _chunks(waiting, rows)
                    waiting, rows = None, []
                yield item  # type: ignore[misc]
    if waiting is not None:
        yield from _chunks(waiting, rows)


def _chunks(form: Rows, rows: list[tuple[Any, ...]]) -> Iterable[Statement]:
    if not rows:
        return
    width = len(rows[0])
    most = max(1, PARAMETERS_MAX // width)
    place = "(" + ",".join("?" * width) + ")"
    for at in range(0, len(rows), most):
        chunk = rows[at : at + most]
        sql = f"{form.head} VALUES {','.join([place] * len(chunk))} {form.tail}"
        yield sql, [value for row in chunk for value in row]


def publish_file(source: Path, target: Path) -> None:
    """Make ``source`` durable under the name ``target`` in the same file system; blocks.

    Write, flush, rename, flush the folder: without the last a power cut may take the name. Run it
    off the loop, before the rows that name the file are written. Raises OSError.
    """
    descriptor = os.open(source, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(source, target)
    sync_folder(target.parent)
