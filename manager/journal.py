"""The journal: what a manager must not forget, in one locked append-only file per process.

It holds three kinds of facts, each durable before anybody acts on it:

    RESERVED   job counters below this one may have been sent, under allocation 1
    ALLOCATED  this job was given to another execution place, under this allocation
    SETTLED    this execution's result is the job's one result

Records have 64 bytes, aligned, each with a CRC; the file is extended by zeros ahead of time, so
that a commit overwrites blocks that exist (one fdatasync, no file system transaction). A reader
stops at the first record that does not hold: what lies behind was never acknowledged.

      0      8            16           48         56    60
    +--------+------------+------------+----------+-----+----
    | magic  | journal id | account    | created  | crc |  0      the first 64 bytes
    +--------+------------+------------+----------+-----+----
    | kind 8, 0 24, allocation 32 | counter 64 | attempt 32 | sha256 | 0 64 | crc |   each record
"""

import contextlib
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from alpyne_grid.manager.errors import JournalError

from alpyne_grid.durable import try_lock

MAGIC = b"ALPYNEJ1"
SUFFIX = ".journal"
BLOCK = 1 << 16  # job counters reserved at once
AHEAD = 256 * 1024  # bytes of zeros written ahead of the records
INLINE_S = 0.0005  # a commit that usually takes no longer may be waited for on the event loop
KEPT_S = 8 * 86_400  # a dead journal may go: nodes keep unsettled results for 7 days

_HEADER = struct.Struct(">8s8s32sQI4x")
_RECORD = struct.Struct(">B3xIQI32s8xI")
RECORD_SIZE = _RECORD.size
NO_HASH = bytes(32)
Done = Callable[[BaseException | None], None]


class Kind(IntEnum):
    """What a record says."""

    RESERVED = 1
    ALLOCATED = 2
    SETTLED = 3


class Record(NamedTuple):
    """One fact; ``counter`` is the job's number in its journal."""

    kind: Kind
    counter: int
    allocation: int = 0
    attempt: int = 0
    sha256: bytes = NO_HASH


@dataclass(slots=True)
class Known:
    """What a journal says: reserved counters, newest allocations, settled executions."""

    reserved: int = 0
    allocations: dict[int, int] = field(default_factory=dict)
    settled: dict[int, Record] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Take one record; a job that is settled stays settled with its first execution."""
        if record.kind is Kind.RESERVED:
            self.reserved = max(self.reserved, record.counter)
        elif record.kind is Kind.ALLOCATED:
            before = self.allocations.get(record.counter, 1)
            self.allocations[record.counter] = max(before, record.allocation)
        else:
            self.settled.setdefault(record.counter, record)


class Journal:
    """One open, locked journal. ``append`` may be called from any thread.

    A thread of its own, started with the first append, writes what has gathered and makes it
    durable by one fdatasync (group commit).
    """

    def __init__(self, path: Path, descriptor: int, journal_id: bytes, known: Known, end: int):
        self.path = path
        self.id = journal_id
        self.known = known  # as read at opening; later appends do not change it
        self._descriptor = descriptor
        self._seed = zlib.crc32(journal_id)
        self._end = end  # where the next record goes
        self._zeroed = os.fstat(descriptor).st_size
        self._queue: SimpleQueue[tuple[Sequence[Record], Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # of the counters
        self._writing = threading.Lock()  # of the file; taken after _lock, never before it
        self._counter = known.reserved  # counters of an earlier process are never used again
        self._reserved = self._reserving = known.reserved
        self._failed: OSError | None = None
        self._appended = self._committed = 0  # by and for callers of append
        self._usual_s = 0.0  # that a commit takes: a moving average

    # --- opening ----------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, account: bytes, random: Callable[[int], bytes]) -> "Journal":
        """Make a new journal in ``folder`` (made where missing) with a first block of counters.

        ``account``: Ed25519 key, 32 bytes. ``random``: bytes for the journal's id. Raises
        JournalError.
        """
        journal_id = random(8)
        path = folder / f"{journal_id.hex()}{SUFFIX}"
        head = _pack_head(journal_id, account, int(time.time()))
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags, 0o600)
            try_lock(descriptor)
            _write_at(descriptor, head + bytes(AHEAD - len(head)), 0)
            journal = cls(path, descriptor, journal_id, Known(), len(head))
            journal._write([Record(Kind.RESERVED, BLOCK)])
            _sync_folder(folder)
        except OSError as error:
            raise JournalError(
                f"journal {path}: cannot be made ({error.strerror}); set ALPYNE_HOME to a folder "
                "on a local disk that you may write to"
            ) from None
        journal._reserved = journal._reserving = BLOCK
        return journal

    @classmethod
    def adopt(cls, folder: Path, journal_id: bytes) -> "Journal | None":
        """Open the journal of a process that has ended.

        Returns None where this folder has none of that id, or where its process still lives.
        Raises JournalError for a file that is no journal.
        """
        path = folder / f"{journal_id.hex()}{SUFFIX}"
        try:
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalError(f"journal {path}: cannot be opened ({error.strerror})") from None
        if not try_lock(descriptor):
            os.close(descriptor)
            return None
        try:
            known, end = _read(descriptor, path, journal_id)
        except JournalError:
            os.close(descriptor)
            raise
        return cls(path, descriptor, journal_id, known, end)

    # --- use --------------------------------------------------------------------------------

    def take_counter(self) -> int:
        """Return a job counter that no process used before; durable, from a reserved block.

        The next block is reserved in the background when half of this one is used; only a caller
        that outruns the disk waits for it. Raises JournalError.
        """
        with self._lock:
            self._counter += 1
            if self._counter < self._reserved - BLOCK // 2:
                return self._counter
            if self._counter >= self._reserved:
                self._reserve_now()
            elif self._reserving < self._reserved + BLOCK:
                self._reserving = self._reserved + BLOCK
                self.append([Record(Kind.RESERVED, self._reserving)], self._block_reserved)
            return self._counter

    def append(self, records: Sequence[Record], done: Done) -> None:
        """Make ``records`` durable, then call ``done(None)`` in the journal's thread.

        ``done`` gets a JournalError where they could not be written; nothing is written after
        that.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="alpyne-journal", daemon=True)
            self._thread.start()
        self._appended += 1
        self._queue.put((records, done))

    def commit_now(self, records: Sequence[Record]) -> bool:
        """Make ``records`` durable before returning, where the disk is usually fast enough.

        Returns False, and has written nothing, where it is not, or where others wait: use
        ``append`` then. Raises JournalError. On a fast disk a commit takes less time than waking a
        thread and being woken by it.
        """
        if self._usual_s > INLINE_S or self._appended != self._committed:
            return False
        try:
            self._write(records)
        except OSError as problem:
            raise self._describe(problem) from None
        return True

    def close(self, *, remove: bool = False) -> None:
        """Write what is queued and close; ``remove`` deletes a journal that nobody needs."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)

    # --- the journal's thread ---------------------------------------------------------------

    def _reserve_now(self) -> None:
        wanted = max(self._reserving, self._reserved + BLOCK)
        try:
            self._write([Record(Kind.RESERVED, wanted)])
        except OSError as problem:
            raise self._describe(problem) from None
        self._reserved = self._reserving = wanted

    def _block_reserved(self, error: BaseException | None) -> None:
        if error is None:
            with self._lock:
                self._reserved = max(self._reserved, self._reserving)

    def _run(self) -> None:
        closing = False
        while not closing:
            items = [self._queue.get()]
            with contextlib.suppress(Empty):
                while True:
                    items.append(self._queue.get_nowait())
            closing = None in items
            batch = [item for item in items if item is not None]
            error: JournalError | None = None
            try:
                self._write([record for records, _ in batch for record in records])
            except OSError as problem:
                error = self._describe(problem)
            self._committed += len(batch)
            for _, done in batch:
                done(error)

    def _describe(self, problem: OSError) -> JournalError:
        return JournalError(
            f"journal {self.path}: cannot be written ({problem.strerror}); nothing that depends on "
            "it was sent or delivered, results stay on their nodes; make room and start again"
        )

    def _write(self, records: Sequence[Record]) -> None:
        data = b"".join(map(self._pack, records))
        begun = time.perf_counter()
        with self._writing:
            if self._failed is not None:
                raise self._failed
            try:
                if self._end + len(data) > self._zeroed:
                    grown = max(AHEAD, len(data))
                    _write_at(self._descriptor, bytes(grown), self._zeroed)
                    self._zeroed += grown
                _write_at(self._descriptor, data, self._end)
            except OSError as error:
                # After a failed fsync nobody knows what the disk has: no later record may follow.
                self._failed = error
                raise
            self._end += len(data)
            self._usual_s += (time.perf_counter() - begun - self._usual_s) / 8

    def _pack(self, record: Record) -> bytes:
        kind, counter, allocation, attempt, sha256 = record
        body = _RECORD.pack(kind, allocation, counter, attempt, sha256, 0)[:-4]
        return body + zlib.crc32(body, self._seed).to_bytes(4, "big")


def remove_old(folder: Path) -> None:
    """Delete the journals of dead processes whose jobs no node can know any more."""
    now_s = time.time()
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            if now_s - path.stat().st_mtime < KEPT_S:
                continue
            descriptor = os.open(path, os.O_RDWR)
            try:
                if try_lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _pack_head(journal_id: bytes, account: bytes, created_s: int) -> bytes:
    checked = _HEADER.pack(MAGIC, journal_id, account, created_s, 0)[:-8]
    return _HEADER.pack(MAGIC, journal_id, account, created_s, zlib.crc32(checked))


def _read(descriptor: int, path: Path, journal_id: bytes) -> tuple[Known, int]:
    """Return what a journal says and where its next record goes."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        head = file.read(_HEADER.size)
        fields = _HEADER.unpack(head) if len(head) == _HEADER.size else ()
        if not fields or fields[1] != journal_id or head != _pack_head(*fields[1:4]):
            raise JournalError(
                f"journal {path}: is no journal, or of another release; move it away"
            )
        known, end, seed = Known(), _HEADER.size, zlib.crc32(journal_id)
        while len(data := file.read(RECORD_SIZE)) == RECORD_SIZE:
            kind, allocation, counter, attempt, sha256, crc = _RECORD.unpack(data)
            if zlib.crc32(data[:-4], seed) != crc or kind not in Kind.__members__.values():
                break
            known.add(Record(Kind(kind), counter, allocation, attempt, sha256))
            end += RECORD_SIZE
    return known, end


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    if hasattr(os, "pwrite"):
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], offset + written)
    else:
        os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, data)
    getattr(os, "fdatasync", os.fsync)(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable; systems that cannot open folders do it by themselves."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
