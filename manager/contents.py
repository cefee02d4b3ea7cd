"""What is put: bytes, files and streams of bytes, as bodies that can be sent to several nodes.

The SHA-256 is computed once, however many copies are sent: whichever body is ahead hashes.
"""

import asyncio
import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncIterable, Callable, Iterable
from pathlib import Path
from typing import IO, Any, Protocol

from alpyne_grid.manager.errors import ProgramError
from alpyne_grid.wire import Body, FileBody

from alpyne_proto.messages.control import BodyDigest

PIECE = 1 << 20
SPOOL_MEMORY = 8 << 20

Given = bytes | bytearray | memoryview | Path | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]


class Content(Protocol):
    """Bytes that can be sent more than once."""

    size: int

    def body(self) -> tuple[Body, Callable[[], BodyDigest]]:
        """Return a body and what gives its trailer at its end."""
        ...

    def sha256(self) -> bytes:
        """Return the hash, once a body was sent."""
        ...

    def close(self) -> None:
        """Nothing is sent any more."""
        ...


class BytesContent:
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = data if isinstance(data, bytes) else bytes(data)
        self._digest = hashlib.sha256(self._data).digest()
        self.size = len(self._data)

    def body(self) -> tuple[Body, Callable[[], BodyDigest]]:
        return self._data, lambda: BodyDigest(self._digest)

    def sha256(self) -> bytes:
        return self._digest

    def close(self) -> None:
        """Nothing is held."""


class FileContent:
    """A file; ``descriptor`` is closed at the end."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._hashed = 0  # bytes of the beginning that are in the hash
        self._lock = threading.Lock()

    def body(self) -> tuple[Body, Callable[[], BodyDigest]]:
        at = 0

        def tap(data: bytes | bytearray | memoryview) -> None:
            nonlocal at
            with self._lock:
                if self._hashed == at:
                    self._hash.update(data)
                    self._hashed += len(data)
            at += len(data)

        body = FileBody(self._descriptor, length=self.size, chunk=PIECE, tap=tap)
        return body, lambda: BodyDigest(self.sha256())

    def sha256(self) -> bytes:
        return self._hash.digest()

    def close(self) -> None:
        os.close(self._descriptor)


async def content_of(given: Given) -> Content:
    """Return the content of what the program gave; ProgramError for what has no bytes.

    Streams without a file of their own are written to a temporary file first: a copy may have to
    be sent again, to another node.
    """
    if isinstance(given, (bytes, bytearray, memoryview)):
        return BytesContent(given)
    loop = asyncio.get_running_loop()
    if isinstance(given, Path):
        return await loop.run_in_executor(None, open_file, given)
    if isinstance(given, AsyncIterable):
        return await _spooled(given)
    is_stream = hasattr(given, "read") or isinstance(given, Iterable)
    if not is_stream or type(given).__name__ == "str":
        raise ProgramError(
            f"content: expected bytes, a pathlib.Path, a binary file or an iterable of bytes, got "
            f"{type(given).__name__}"
        )
    return await loop.run_in_executor(None, _copied, given)


def open_file(path: Path) -> FileContent:
    """Return the content of a regular file; ProgramError for others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ProgramError(f"{path}: cannot be read ({error.strerror})") from None
    size = os.fstat(descriptor).st_size
    if not path.is_file():
        os.close(descriptor)
        raise ProgramError(f"{path}: is no file; for a folder use push_tree")
    return FileContent(descriptor, size)


def _copied(given: Any) -> Content:
    pieces = iter(lambda: given.read(PIECE), b"") if hasattr(given, "read") else given
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY) as spool:
        for piece in pieces:
            _check_piece(piece)
            spool.write(piece)
        return _taken(spool)


async def _spooled(given: AsyncIterable[bytes]) -> Content:
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY) as spool:
        async for piece in given:
            _check_piece(piece)
            spool.write(piece)
        return _taken(spool)


def _check_piece(piece: object) -> None:
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise ProgramError(f"content: expected pieces of bytes, got {type(piece).__name__}")


def _taken(spool: "tempfile.SpooledTemporaryFile[bytes]") -> Content:
    size = spool.tell()
    if size <= SPOOL_MEMORY:
        spool.seek(0)
        return BytesContent(spool.read())
    spool.flush()
    return FileContent(os.dup(spool.fileno()), size)
