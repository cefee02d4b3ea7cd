"""Bodies from files and into files: disk and hashing in threads, the event loop only passes bytes.

One thread hop moves a batch of a MiB or more, so that hops cost little beside the copying. Memory
is bounded: a FileBody holds two chunks, a FileSink its queue.
"""

import asyncio
import errno
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Final

from alpyne_proto.errors import LocalProtocolError

Data = bytes | bytearray | memoryview
Tap = Callable[[Data], None]

CHUNK: Final = 1 << 20  # bytes read or written at once
QUEUE: Final = 4 << 20  # bytes that a sink holds at most, beside one piece
_SMALL: Final = 16 * 1024  # a smaller piece is copied: it may keep a whole record alive
_VECTORS: Final = 512  # buffers per writev; POSIX promises 16, all systems of today 1024


class FileBody:
    """A file's bytes as a body to send: read, and hashed if wanted, ahead of the sender."""

    def __init__(
        self,
        source: str | os.PathLike[str] | int,
        *,
        offset: int = 0,
        length: int | None = None,
        chunk: int = CHUNK,
        digest: bool = False,
        tap: Tap | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Take bytes of a file; it is opened, if it is not open, when the first are asked for.

        source: a path, or a descriptor that stays open for as long as the body is in use and whose
        position is neither used nor changed. offset, length: in bytes; None: to the end of the
        file. digest: compute the SHA-256 of what is read. tap: called in the thread with each
        chunk, in order, before it is sent; what it raises ends the body. executor: default the
        loop's own.
        """
        self._source = source
        self._offset = offset
        self._length = length
        self._chunk = chunk
        self._hash = hashlib.sha256() if digest else None
        self._tap = tap
        self._executor = executor
        self.sent = 0  # bytes handed out

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of what was read: of everything once the body has ended."""
        if self._hash is None:
            raise LocalProtocolError("file body: made without digest=True, so it has no SHA-256")
        return self._hash.digest()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks; OSError where the file cannot be read or is shorter than asked."""
        loop = asyncio.get_running_loop()
        source = self._source
        descriptor = -1
        ahead: asyncio.Future[bytes] | None = None
        try:
            if isinstance(source, int):
                descriptor = source
            else:
                descriptor = await loop.run_in_executor(self._executor, _open_to_read, source)
            left = sys.maxsize if self._length is None else self._length
            at = self._offset
            size = min(self._chunk, left)
            ahead = loop.run_in_executor(self._executor, self._read, descriptor, size, at)
            while left:
                data = await ahead
                at, left = at + len(data), left - len(data)
                if self._length is None and len(data) < size:
                    left = 0
                elif not data:
                    self._say_short(left)
                size = min(self._chunk, left)
                if left:
                    ahead = loop.run_in_executor(self._executor, self._read, descriptor, size, at)
                self.sent += len(data)
                yield data
        finally:
            if ahead is not None:
                await asyncio.wait((ahead,))  # the thread must not read a closed descriptor
                if not ahead.cancelled():
                    ahead.exception()
            if descriptor >= 0 and not isinstance(source, int):
                os.close(descriptor)

    def _read(self, descriptor: int, size: int, offset: int) -> bytes:
        """In the thread: read and hash."""
        data = _read_at(descriptor, size, offset)
        if self._hash is not None:
            self._hash.update(data)
        if self._tap is not None and data:
            self._tap(data)
        return data

    def _say_short(self, left: int) -> None:
        name = "the file" if isinstance(self._source, int) else os.fspath(self._source)
        raise OSError(
            errno.EIO, f"{name}: expected {left} bytes more than it has; was it cut while read?"
        )


class FileSink:
    """A file that takes a body: written, and hashed, in a thread; see BodyReader.pour.

    All methods are called on the event loop's thread.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | int,
        *,
        digest: bool = True,
        tap: Tap | None = None,
        durable: bool = False,
        batch: int = CHUNK,
        queue: int = QUEUE,
        executor: Executor | None = None,
    ) -> None:
        """Write to a file from its position on.

        target: a descriptor, which stays open until `finish` or `abort` has returned and is not
        closed by them, or the path of a file that is made (it must not exist) and closed at the
        end. digest: compute the SHA-256. tap: called in the thread with each piece, in order; what
        it raises is raised by `finish`. durable: fsync at the end, for which the disk is made to
        begin early. batch: bytes per thread hop. queue: bytes held at most.
        """
        self._target = target
        self._descriptor = target if isinstance(target, int) else -1
        self._hash = hashlib.sha256() if digest else None
        self._tap = tap
        self._durable = durable
        self._batch = batch
        self._queue = queue
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Data] = []
        self._waiting_bytes = 0
        self._writing_bytes = 0
        self._job: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._when_room: Callable[[], None] | None = None
        self.size = 0  # bytes taken

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of what was written: of everything after `finish`."""
        if self._hash is None:
            raise LocalProtocolError("file sink: made with digest=False, so it has no SHA-256")
        return self._hash.digest()

    def feed(self, data: Data) -> bool:
        """Take bytes; they must not change any more. Return whether there is room for more.

        Raises what an earlier write raised (OSError, or what the tap raised).
        """
        if self._error is not None:
            raise self._error
        size = len(data)
        if size >= _SMALL:
            self._waiting.append(data)
        else:
            if not (self._waiting and type(self._waiting[-1]) is bytearray):
                self._waiting.append(bytearray())
            tail = self._waiting[-1]
            assert type(tail) is bytearray
            tail += data
            if len(tail) >= _SMALL:
                self._waiting[-1] = memoryview(tail)  # full: the next small piece begins another
        self.size += size
        self._waiting_bytes += size
        if self._job is None and self._waiting_bytes >= self._batch:
            self._start()
        return self._waiting_bytes + self._writing_bytes < self._queue

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, on the loop, when there is room, or when writing has failed."""
        self._when_room = callback

    async def write(self, data: Data) -> None:
        """Take bytes, and return when there is room for more; raises as `feed` does."""
        if not self.feed(data):
            room: asyncio.Future[None] = self._loop.create_future()
            self.when_room(lambda: None if room.done() else room.set_result(None))
            await room

    async def finish(self, *, durable: bool = False) -> None:
        """Write all that is left, and fsync where it shall be durable.

        durable: as in `FileSink`, which may have said so before. The file's folder is not synced:
        that belongs to the rename that publishes the file. Raises what any write raised.
        """
        await self._idle()
        if self._error is None:
            self._start(last=True, durable=durable)
            await self._idle()
        if self._error is not None:
            await self.abort()
            raise self._error

    async def abort(self) -> None:
        """Forget what is not written, and return when no thread uses the file any more."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._error = self._error or LocalProtocolError("file sink: it was aborted")
        await self._idle()
        if not isinstance(self._target, int) and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _idle(self) -> None:
        while self._job is not None:
            await asyncio.wait((self._job,))

    def _start(self, *, last: bool = False, durable: bool = False) -> None:
        pieces, self._waiting = self._waiting, []
        self._writing_bytes, self._waiting_bytes = self._waiting_bytes, 0
        job = self._loop.run_in_executor(self._executor, self._work, pieces, last, durable)
        self._job = job
        job.add_done_callback(self._after)

    def _after(self, job: "asyncio.Future[None]") -> None:
        self._job = None
        self._writing_bytes = 0
        error = None if job.cancelled() else job.exception()
        self._error = self._error or error
        if self._error is None and self._waiting_bytes >= self._batch:
            self._start()
        callback, self._when_room = self._when_room, None
        if callback is not None:
            callback()

    def _work(self, pieces: list[Data], last: bool, durable: bool) -> None:
        """In the thread: write and hash what has gathered."""
        if self._descriptor < 0:
            assert not isinstance(self._target, int), "a descriptor is open from the beginning"
            self._descriptor = _open_to_write(self._target)
        for first in range(0, len(pieces), _VECTORS):
            some = pieces[first : first + _VECTORS]
            _write_all(self._descriptor, some)
            for piece in some:
                if self._hash is not None:
                    self._hash.update(piece)
                if self._tap is not None:
                    self._tap(piece)
        if self._durable and pieces:
            _begin_writeback(self._descriptor, sum(map(len, pieces)))
        if durable or (last and self._durable):
            os.fsync(self._descriptor)
        if last and not isinstance(self._target, int):
            os.close(self._descriptor)
            self._descriptor = -1


def _open_to_read(path: str | os.PathLike[str]) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))


def _open_to_write(path: str | os.PathLike[str]) -> int:
    binary = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o600)


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read `size` bytes, fewer only at the end of the file."""
    data = _pread(descriptor, size, offset)
    while 0 < len(data) < size:
        more = _pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # systems without pread: one reader per descriptor
    return os.read(descriptor, size)


def _begin_writeback(descriptor: int, size: int) -> None:
    """Have the disk begin with the last `size` bytes written, so that fsync finds little to do."""
    if hasattr(os, "posix_fadvise"):
        # Linux begins to write dirty pages of which it is told so, and does not wait for them.
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.posix_fadvise(descriptor, end - size, size, os.POSIX_FADV_DONTNEED)


def _write_all(descriptor: int, pieces: list[Data]) -> None:
    if not hasattr(os, "writev"):
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
        return
    left = sum(len(piece) for piece in pieces)
    while left:
        written = os.writev(descriptor, pieces)
        left -= written
        if left:
            pieces = _behind(pieces, written)


def _behind(pieces: list[Data], count: int) -> list[Data]:
    """Return what of `pieces` lies behind the first `count` bytes."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[index + 1 :]]
        count -= len(piece)
    return []
