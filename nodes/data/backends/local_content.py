"""Contents of the local back end on their way out: each block is checked before it is handed on."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator

from alpyne_grid.nodes.data.backends import local_rows as sql
from alpyne_grid.nodes.data.backends.base import Data
from alpyne_grid.nodes.data.backends.local_files import (
    BLOCK,
    CHECK,
    BlobFiles,
    BlockVerifier,
    checks_of,
)
from alpyne_grid.nodes.data.backends.local_rows import LocalBlob
from alpyne_grid.nodes.data.records import ObjectCorrupt, ObjectKey, ObjectRecord
from alpyne_grid.nodes.store import CommitStore, StoreFailed
from alpyne_grid.wire.files import FileBody
from alpyne_grid.wire.log import Log

CHUNK = 1 << 20  # bytes read at once while few read; fewer when many do, to bound memory
MANY = 16  # readers, for each so many of which the chunks are halved, thirded, ...
OPEN_TRIES = 3  # times that a file may be replaced while it is being opened


class Shelf:
    """What contents are read from."""

    def __init__(self, store: CommitStore, files: BlobFiles) -> None:
        self._store = store
        self._files = files
        self._log = Log("data.local")
        self.readers = 0  # contents being read from files

    async def open_file(
        self, key: ObjectKey, record: ObjectRecord, first: int, blocks: int
    ) -> tuple[int, str, bytes]:
        """Return a descriptor of a content's file, its name, and the checks of some of its blocks.

        Raises ObjectCorrupt.
        """
        loop = asyncio.get_running_loop()
        part = (first * CHECK + 1, blocks * CHECK)
        for _ in range(OPEN_TRIES):
            # Read anew each time: the file may be replaced by another with the same bytes.
            rows = self._store.read(sql.FILE_AND_CHECKS, (*part, key.owner, record.sha256))
            if not rows:
                break
            file, checks = rows[0]
            path = self._files.path_of(key.owner, file)
            try:
                opened = await loop.run_in_executor(self._files.readers, _open, path, record.size)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ObjectCorrupt(f"its file cannot be read ({error.strerror})") from None
            return opened, file, checks
        raise ObjectCorrupt("its file is missing")

    def read_ahead(self, descriptor: int, first: int, length: int, checks: bytes) -> FileBody:
        """Return checked bytes of a file from the beginning of block ``first``."""
        chunk = max(BLOCK, CHUNK // (1 + self.readers // MANY))
        return FileBody(
            descriptor,
            offset=first * BLOCK,
            length=length,
            chunk=chunk - chunk % BLOCK,
            tap=BlockVerifier(checks, first).feed,
            executor=self._files.readers,
        )

    def report_damage(self, key: ObjectKey, record: ObjectRecord, file: str, why: str) -> None:
        """Remember that a content is damaged, until the same bytes are put again."""
        self._log.error("object_damaged", container=key.container_id, why=why)
        batch = (
            (sql.MARK_DAMAGED, (key.owner, record.sha256, file)),
            (sql.NOTE_DAMAGED, (key.owner, key.owner, key.container_id, key.path)),
        )
        # A note that is lost comes back with the next read.
        with contextlib.suppress(StoreFailed):
            self._store.write(batch, lambda error: None)


class LocalContent:
    """The bytes of one version."""

    def __init__(self, shelf: Shelf, key: ObjectKey, record: ObjectRecord, blob: LocalBlob) -> None:
        self.record = record
        self._shelf = shelf
        self._key = key
        self._blob = blob
        self._file = blob.file

    async def chunks(self, offset: int, length: int) -> AsyncIterator[Data]:
        """Yield checked bytes. Raises ObjectCorrupt."""
        if not length:
            return
        try:
            if self._blob.file:
                async for chunk in self._file_chunks(offset, length):
                    yield chunk
                return
            data = self._blob.data
            if len(data) != self.record.size or checks_of(data) != self._blob.checks:
                raise ObjectCorrupt("its row has a wrong checksum")
            yield memoryview(data)[offset : offset + length]
        except ObjectCorrupt as error:
            self._shelf.report_damage(self._key, self.record, self._file, str(error))
            raise ObjectCorrupt(
                f"{sql.key_text(self._key)}: damaged on this node: {error}; read another copy, "
                "and put the object again"
            ) from None

    async def _file_chunks(self, offset: int, length: int) -> AsyncIterator[Data]:
        shelf, size = self._shelf, self.record.size
        first, behind = offset // BLOCK, -(-(offset + length) // BLOCK)
        descriptor, self._file, checks = await shelf.open_file(
            self._key, self.record, first, behind - first
        )
        shelf.readers += 1
        try:
            whole = min(size, behind * BLOCK) - first * BLOCK
            skip, left = offset - first * BLOCK, length
            body = aiter(shelf.read_ahead(descriptor, first, whole, checks))
            assert isinstance(body, AsyncGenerator), "its end must not outlive the descriptor"
            async with contextlib.aclosing(body):
                async for chunk in body:
                    piece = memoryview(chunk)[skip : skip + left]
                    skip = 0
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise ObjectCorrupt(f"its file cannot be read ({error.strerror})") from None
        finally:
            shelf.readers -= 1
            os.close(descriptor)


def _open(path: "os.PathLike[str]", size: int) -> int:
    """In a thread: open a file of exactly ``size`` bytes."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    found = os.fstat(descriptor).st_size
    if found != size:
        os.close(descriptor)
        raise ObjectCorrupt(f"its file has {found} bytes, expected {size}")
    return descriptor
