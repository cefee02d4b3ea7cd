"""Files of the local back end: one per content, named for its hash, checked block by block.

    blobs/<account>/<first byte of the hash>/<hash>.<random>
    incoming/<random>

A body is written under ``incoming``, flushed, renamed to its place, and its folder is flushed;
only then a row may name it. The random part makes every name new: content that is put again while
its old file is being removed cannot meet it.
"""

import asyncio
import contextlib
import os
import secrets
import threading
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from struct import Struct
from typing import ParamSpec, TypeVar

from alpyne_grid.nodes.data.backends.base import Data
from alpyne_grid.nodes.data.backends.local_rows import LocalBlob
from alpyne_grid.nodes.data.records import ObjectCorrupt, Staged
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire.files import FileSink

from alpyne_grid.durable import sync_folder

# Bytes under one CRC-32: the least that a read takes from the disk, and that a reader holds.
BLOCK = 256 * 1024
FLUSH_EVERY = 16 << 20  # bytes after which the disk is set to work while more arrive
WRITERS = 4  # threads; a flush may hold one for long
READERS = 4

CHECK = 4  # bytes of one CRC-32, big-endian

_CHECK = Struct(">I")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class BlockChecks:
    """CRC-32 of each block of what is fed, in order; the last block may be short."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._crc = 0
        self._filled = 0

    def feed(self, data: Data) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: BLOCK - self._filled]
            self._crc = zlib.crc32(part, self._crc)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == BLOCK:
                self._close_block()

    def finish(self) -> bytes:
        """Return all checks, 4 bytes big-endian each."""
        if self._filled:
            self._close_block()
        return bytes(self._done)

    def _close_block(self) -> None:
        self._done += _CHECK.pack(self._crc)
        self._crc = self._filled = 0


class BlockVerifier:
    """Compares blocks, fed in order, with their ``checks``; ``first``: the first one's number."""

    def __init__(self, checks: bytes, first: int) -> None:
        self._checks = checks
        self._first = first
        self._next = 0

    def feed(self, data: Data) -> None:
        """Take whole blocks (the object's last one may be short); raises ObjectCorrupt."""
        view = memoryview(data)
        while view:
            block = view[:BLOCK]
            at = self._next * _CHECK.size
            if at + _CHECK.size > len(self._checks):
                raise ObjectCorrupt("there are more bytes than checks of them")
            if zlib.crc32(block) != _CHECK.unpack_from(self._checks, at)[0]:
                raise ObjectCorrupt(
                    f"block {self._first + self._next} of {BLOCK} bytes has a wrong checksum"
                )
            self._next += 1
            view = view[len(block) :]


def checks_of(data: bytes) -> bytes:
    """Return the checks of a whole content."""
    checks = BlockChecks()
    checks.feed(data)
    return checks.finish()


class BlobFiles:
    """The folders of the local back end. ``unnamed``: files in place that no row names yet."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._loop = asyncio.get_running_loop()
        self.writers = ThreadPoolExecutor(WRITERS, "data write")
        self.readers = ThreadPoolExecutor(READERS, "data read")
        self._flusher = ThreadPoolExecutor(1, "data flush")
        self._making = threading.Lock()
        self._durable: set[Path] = set()  # folders whose names this run has made durable
        self.unnamed: set[str] = set()

    def prepare(self) -> None:
        """Make the folders, and remove what was on its way when an earlier daemon ended."""
        for folder in (self._blobs, self._incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(self._blobs.parent)
        for left in self._incoming.iterdir():
            left.unlink(missing_ok=True)

    def close(self) -> None:
        """Wait for the threads and end them; blocks."""
        for pool in (self.writers, self.readers, self._flusher):
            pool.shutdown(wait=True, cancel_futures=True)

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``function`` in a writer's thread."""
        return await self._loop.run_in_executor(self.writers, lambda: function(*args, **kwargs))

    def new_incoming(self) -> Path:
        """Return a path for a body on its way."""
        return self._incoming / secrets.token_hex(16)

    def flush_soon(self, path: Path) -> "Future[None]":
        """Begin to write ``path``'s dirty pages to the disk, beside whoever goes on writing it."""
        return self._flusher.submit(_flush, path)

    def path_of(self, owner: bytes, file: str) -> Path:
        """Return where the file of a blob stands."""
        return self._blobs / owner.hex() / file[:2] / file

    def adopt(self, source: Path, owner: bytes, sha256: bytes) -> str:
        """Move a flushed file to its place and make its name durable; return the name. Blocks."""
        file = f"{sha256.hex()}.{secrets.token_hex(4)}"
        target = self.path_of(owner, file)
        self._make_durable(target.parent)
        self.unnamed.add(file)
        try:
            os.replace(source, target)
            sync_folder(target.parent)
        except BaseException:
            self.unnamed.discard(file)
            raise
        return file

    def _make_durable(self, folder: Path) -> None:
        """Make ``folder``; return when its name, and those above it, are on the disk."""
        with self._making:
            if folder in self._durable:
                return
            for each in (folder.parent, folder):
                each.mkdir(mode=0o700, exist_ok=True)
                sync_folder(each.parent)
            self._durable.add(folder)

    def folders(self) -> list[tuple[bytes, int, Path]]:
        """Return (owner, first byte of the hashes, folder) of all folders with files. Blocks."""
        found = []
        for account in sorted(self._blobs.iterdir()):
            for folder in sorted(account.iterdir()):
                with contextlib.suppress(ValueError):  # nothing that we made
                    found.append((bytes.fromhex(account.name), int(folder.name, 16), folder))
        return found


class FileStage:
    """A body on its way into a file."""

    def __init__(self, files: BlobFiles, owner: bytes) -> None:
        self._files = files
        self._owner = owner
        self._path = files.new_incoming()
        self._checks = BlockChecks()
        self._unflushed = 0
        self._flush: Future[None] | None = None
        self._over = False
        self._sink = FileSink(self._path, tap=self._tap, executor=files.writers)
        self.feed = self._sink.feed
        self.when_room = self._sink.when_room

    async def finish(self) -> Staged:
        """Return when the file is durable in its place. Raises StoreFailed."""
        sink, files = self._sink, self._files
        try:
            await sink.finish(durable=True)
            file = await files.run(files.adopt, self._path, self._owner, sink.sha256)
        except OSError as error:
            await self.discard()
            raise StoreFailed(
                f"the node could not write the object ({error.strerror}); try again later, or "
                "put it on another node"
            ) from None
        self._over = True
        blob = LocalBlob(file, self._checks.finish())
        return Staged(self._owner, sink.size, sink.sha256, blob)

    async def discard(self) -> None:
        """Remove the file, when no thread uses it any more."""
        if self._over:
            return
        self._over = True
        await self._sink.abort()
        await self._files.run(self._path.unlink, missing_ok=True)

    def _tap(self, data: Data) -> None:
        """In the writing thread: check, and keep the disk busy while more arrives."""
        self._checks.feed(data)
        self._unflushed += len(data)
        if self._unflushed >= FLUSH_EVERY and (self._flush is None or self._flush.done()):
            self._unflushed = 0
            self._flush = self._files.flush_soon(self._path)


def unlink(paths: Iterable[Path]) -> None:
    """Remove files. One that cannot be removed stays, and costs room until a later run. Blocks."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _flush(path: Path) -> None:
    # A failure shows again at the end: the writer's own fsync reports it.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            getattr(os, "fdatasync", os.fsync)(descriptor)
        finally:
            os.close(descriptor)
