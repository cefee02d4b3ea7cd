"""What jobs print: one capped file per job, readable while it grows and after the end.

    output/<number>.<attempt> = frames of: descriptor u8, length u32 (big-endian), bytes

The offset that readers ask for counts the bytes of both streams together, in the order in which the
node saw them. Frames are appended as they come and flushed to the disk before the job's end is
stored; a frame that a power cut has torn ends the file.
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

FRAME = struct.Struct(">BI")
FRAME_MAX = 60_000  # bytes of one frame; with its row's header it fits one DATA frame
READ_BYTES = 256 * 1024  # of the file at once


class Piece(NamedTuple):
    """Bytes of one stream."""

    descriptor: int  # 1 = stdout, 2 = stderr
    offset: int  # of the first byte in both streams together
    data: bytes


@dataclass(slots=True)
class _Log:
    """The output of one execution while somebody writes or follows it."""

    descriptor: int = -1
    size: int = 0  # bytes of both streams
    ended: bool = False
    readers: int = 0
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class OutputStore:
    """Output of jobs, by the job's number and attempt; use from the loop's thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: dict[tuple[int, int], _Log] = {}
        self._kept: dict[bytes, int] = {}
        self._sizes: dict[int, tuple[bytes, int]] = {}

    def open(self, owners: dict[tuple[int, int], bytes]) -> None:
        """Read the folder, make it where it is missing, delete what is of none of ``owners``.

        ``owners``: accounts by number and attempt of their finished jobs.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self._folder.iterdir():
            number, _, attempt = file.name.partition(".")
            key = (
                (int(number), int(attempt)) if number.isdecimal() and attempt.isdecimal() else None
            )
            account = owners.get(key) if key is not None else None
            if key is None or account is None:
                file.unlink()
            else:
                self._note(account, key[0], file.stat().st_size)

    def kept(self, account: bytes) -> int:
        """Return the bytes of the account's output on the disk."""
        return self._kept.get(account, 0)

    def append(
        self, account: bytes, number: int, attempt: int, descriptor: int, data: bytes, most: int
    ) -> bool:
        """Append ``data``, cut where the job's output reaches ``most`` bytes.

        Returns whether all of it had room. Raises OSError where the disk does not take it.
        """
        log = self._log(number, attempt)
        if log.descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            log.descriptor = os.open(self._path(number, attempt), flags, 0o600)
        fits = data[: max(0, most - log.size)]
        for at in range(0, len(fits), FRAME_MAX):
            part = fits[at : at + FRAME_MAX]
            frame = FRAME.pack(descriptor, len(part)) + part
            if os.write(log.descriptor, frame) != len(frame):
                raise OSError("output: the disk is full")
            self._note(account, number, len(frame))
        log.size += len(fits)
        log.wake()
        return len(fits) == len(data)

    def has(self, number: int) -> bool:
        """Return whether the job has printed anything."""
        return number in self._sizes

    def flush(self, number: int, attempt: int) -> None:
        """Make the output durable; blocks, so run it off the loop. Raises OSError."""
        for path in (self._path(number, attempt), self._folder):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def end(self, number: int, attempt: int) -> None:
        """Tell followers that nothing follows."""
        log = self._logs.get((number, attempt))
        if log is None:
            return
        log.ended = True
        if log.descriptor >= 0:
            os.close(log.descriptor)
            log.descriptor = -1
        log.wake()
        self._release(number, attempt, log)

    def drop(self, numbers: Iterable[int]) -> None:
        """Delete the output of jobs that are gone."""
        for number in numbers:
            account, size = self._sizes.pop(number, (b"", 0))
            if not size:
                continue
            self._kept[account] -= size
            for path in self._folder.glob(f"{number}.*"):
                path.unlink()

    async def read(
        self, number: int, attempt: int, *, offset: int, follow: Callable[[], bool]
    ) -> AsyncIterator[list[Piece]]:
        """Yield the pieces from ``offset`` on.

        ``follow`` is asked at the beginning: where it says so, the pieces go on until ``end``.
        """
        log = self._log(number, attempt) if follow() else None
        if log is not None:
            log.readers += 1
        try:
            reader = _Reader(self._path(number, attempt), offset)
            with contextlib.closing(reader):
                while True:
                    ended = log is None or log.ended
                    pieces = reader.next()
                    if pieces is None and ended:
                        return
                    if pieces:
                        yield pieces
                    elif pieces is None and log is not None:
                        waiter = asyncio.get_running_loop().create_future()
                        log.waiters.append(waiter)
                        await waiter
        finally:
            if log is not None:
                log.readers -= 1
                self._release(number, attempt, log)

    def close(self) -> None:
        """Close what is open; files stay."""
        for number, attempt in list(self._logs):
            self.end(number, attempt)

    def _path(self, number: int, attempt: int) -> Path:
        return self._folder / f"{number}.{attempt}"

    def _log(self, number: int, attempt: int) -> _Log:
        key = (number, attempt)
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = _Log()
        return log

    def _release(self, number: int, attempt: int, log: _Log) -> None:
        if not log.readers and log.descriptor < 0:
            self._logs.pop((number, attempt), None)

    def _note(self, account: bytes, number: int, size: int) -> None:
        self._sizes[number] = (account, self._sizes.get(number, (account, 0))[1] + size)
        self._kept[account] = self._kept.get(account, 0) + size


class _Reader:
    """Frames of one file, from an offset in the streams on; the file may not exist yet."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._wanted = offset
        self._descriptor = -1
        self._position = 0  # in the file
        self._offset = 0  # in the streams

    def next(self) -> list[Piece] | None:
        """Return the next pieces, maybe none of them behind the offset; None for no more now."""
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY)
            except FileNotFoundError:
                return None
        buffer = os.pread(self._descriptor, READ_BYTES, self._position)
        pieces = []
        at = 0
        while len(buffer) - at >= FRAME.size:
            descriptor, length = FRAME.unpack_from(buffer, at)
            begin = at + FRAME.size
            if length > FRAME_MAX or begin + length > len(buffer):
                break
            at = begin + length
            skip = min(length, max(0, self._wanted - self._offset))
            if skip < length:
                pieces.append(Piece(descriptor, self._offset + skip, buffer[begin + skip : at]))
            self._offset += length
        self._position += at
        return pieces if at else None

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
