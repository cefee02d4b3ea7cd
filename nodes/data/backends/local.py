"""The local back end: names in the node's SQLite file, contents in its state folder.

Contents up to INLINE_MAX stand in the database: the commit that names them makes them durable, and
one commit serves many. Larger ones are files, content-addressed per account, each stored once.

Names and small contents are read on the event loop's thread: the read takes some 20 microseconds,
less than the hop to a thread. Files are read and written in threads.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from alpyne_grid.nodes.data.backends import local_rows as sql
from alpyne_grid.nodes.data.backends.base import PAGE, BackendSetup, Content, Data, Stage
from alpyne_grid.nodes.data.backends.local_files import (
    BLOCK,
    CHECK,
    BlobFiles,
    BlockVerifier,
    FileStage,
    checks_of,
    unlink,
)
from alpyne_grid.nodes.data.backends.local_rows import LocalBlob
from alpyne_grid.nodes.data.records import (
    Change,
    ContainerEntry,
    Cutoffs,
    Descriptor,
    Found,
    ObjectCorrupt,
    ObjectKey,
    ObjectPage,
    ObjectRecord,
    ObjectSpan,
    Publish,
    Refresh,
    Staged,
    Swept,
    Usage,
    Version,
)
from alpyne_grid.nodes.store import Statement, StoreFailed
from alpyne_grid.wire.files import FileBody
from alpyne_grid.wire.log import Log

SCHEMA = sql.SCHEMA
INLINE_MAX = 32 * 1024  # where a commit's bytes begin to cost more than a file's flushes
CHUNK = 1 << 20  # bytes read at once while few read; fewer when many do, to bound memory
SCAN = 1000  # rows that one page looks at on the event loop's thread, some milliseconds
TRASH_BATCH = 256
OPEN_TRIES = 3  # times that a file may be replaced while it is being opened
RESERVE = 64 << 20  # bytes of the disk that contents leave to the database
MEMBER = 32  # bytes of a member's key


@dataclass(slots=True)
class Blob:
    """Where a content stands: in ``file``, or in ``data`` with its ``checks``."""

    no: int
    file: str
    checks: bytes
    data: bytes


class LocalBackend:
    """Keeps objects in ``setup.folder`` and their names in ``setup.store`` (with SCHEMA)."""

    def __init__(self, setup: BackendSetup) -> None:
        self._store = setup.store
        self._folder = setup.folder
        self._files = BlobFiles(setup.folder)
        self._orphans: asyncio.Task[None] | None = None
        self._log = Log("data.local")
        self.readers = 0  # contents being read from files

    async def start(self) -> None:
        """Remove what an earlier run left; files that no row names go in the background."""
        await self._files.run(self._files.prepare)
        await self.empty_trash()
        self._orphans = asyncio.create_task(self.remove_orphans())

    async def close(self) -> None:
        """End the threads."""
        if self._orphans is not None:
            self._orphans.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._orphans
        await asyncio.to_thread(self._files.close)

    # ---- names ----

    async def usages(self) -> Mapping[bytes, Usage]:
        """Return what each account keeps."""
        rows = self._store.read(sql.USAGES)
        return {owner: Usage(size, count) for owner, size, count in rows}

    async def look_up(self, key: ObjectKey, job_id: bytes) -> Found:
        """Return what stands under ``key``, and the fence of ``job_id``."""
        rows = self._store.read(sql.LOOK_UP, (key.path, key.owner, key.container_id))
        if not rows:
            return Found(False)
        current = sql.record_of(rows[0]) if rows[0][0] is not None else None
        fences = self._store.read(sql.FENCE, (key.owner, job_id)) if job_id else ()
        for allocation, attempt in fences:
            return Found(True, current, (allocation, attempt))
        return Found(True, current)

    async def container(self, owner: bytes, container_id: bytes) -> Descriptor | None:
        """Return the descriptor of a container of ``owner``."""
        rows = self._store.read(sql.CONTAINER, (owner, container_id))
        return _entry(rows[0]).descriptor if rows else None

    async def containers(
        self, owner: bytes, after: bytes, limit: int = PAGE
    ) -> Sequence[ContainerEntry]:
        """Return containers in order of their ids."""
        rows = self._store.read(sql.CONTAINERS, (owner, after, limit))
        return [_entry(row) for row in rows]

    async def objects(
        self,
        owner: bytes,
        container_id: bytes,
        span: ObjectSpan,
        accepts: Callable[[str], bool] | None,
        limit: int = PAGE,
    ) -> ObjectPage | None:
        """Return the next objects in path order."""
        numbers = self._store.read(sql.CONTAINER_NUMBER, (owner, container_id))
        if not numbers:
            return None
        low, high = sql.path_bounds(span.prefix)
        most = SCAN if accepts is not None else limit
        rows = self._store.read(
            sql.OBJECTS, (numbers[0][0], span.after, low, high, int(span.tombstones), most)
        )
        found: list[tuple[str, ObjectRecord]] = []
        for path, *columns in rows:
            if accepts is None or accepts(path):
                found.append((path, sql.record_of(tuple(columns))))
                if len(found) == limit:
                    return ObjectPage(tuple(found), path)
        return ObjectPage(tuple(found), rows[-1][0] if len(rows) == most else None)

    async def commit(self, changes: Sequence[Change]) -> None:
        """Return when ``changes`` are durable. Raises StoreFailed."""
        await self._store.commit(tuple(sql.statements(changes)))
        for change in changes:
            if isinstance(change, Publish | Refresh) and change.staged is not None:
                self._files.unnamed.discard(sql.blob_of(change.staged.handle).file)

    async def sweep(self, cutoffs: Cutoffs, limit: int) -> Swept:
        """Take away what is older than ``cutoffs``, and the files that nothing names any more."""
        read = self._store.read
        superseded = read(sql.OLD_SUPERSEDED, (cutoffs.superseded_ms, limit))
        tombstones = read(sql.OLD_TOMBSTONES, (cutoffs.tombstones_ms, limit))
        batch: list[Statement] = [(sql.DROP_FENCES, (cutoffs.fences_ms, limit))]
        batch += [(sql.DROP_SUPERSEDED, row[:4]) for row in superseded]
        batch += [(sql.DROP_TOMBSTONE, row[:4]) for row in tombstones]
        await self._store.commit(batch)
        freed: dict[bytes, Usage] = {}
        for *_, owner, size in (*superseded, *tombstones):
            before = freed.get(owner, Usage())
            freed[owner] = Usage(before.size_bytes + size, before.rows + 1)
        await self.empty_trash()
        return Swept(freed, limit in (len(superseded), len(tombstones)))

    # ---- bytes ----

    def stage(self, owner: bytes, size: int) -> Stage:
        """Begin to take a body. Raises StoreFailed where the disk has no room for it."""
        if size <= INLINE_MAX:
            return _RowStage(owner)
        free = shutil.disk_usage(self._folder).free
        if size > free - RESERVE:
            raise StoreFailed(
                f"the node's disk has {free} bytes left, {RESERVE} of them kept for its database; "
                f"{size} bytes do not fit; put the object on another node"
            )
        return FileStage(self._files, owner)

    async def discard(self, staged: Staged) -> None:
        """Remove a staged file unless a row names it."""
        file = sql.blob_of(staged.handle).file
        if not file:
            return
        named = self._store.read(sql.BLOB_FILE, (staged.owner, staged.sha256))
        if not named or named[0][0] != file:
            await self._files.run(unlink, (self._files.path_of(staged.owner, file),))
        self._files.unnamed.discard(file)

    async def open(self, key: ObjectKey, version: Version | None) -> Content | ObjectRecord | None:
        """Return the bytes of the current version, or of exactly ``version``."""
        rows = self._store.read(sql.OPEN_CURRENT, (key.path, key.owner, key.container_id))
        found = sql.record_of(rows[0][:6]) if rows else None
        if version is not None and (found is None or found.version != version):
            args = (key.path, *version, key.owner, key.container_id)
            rows = self._store.read(sql.OPEN_SUPERSEDED, args)
            found = sql.record_of(rows[0][:6]) if rows else None
        if found is None or found.deleted:
            return found
        no, file, checks, data = rows[0][6:]
        return LocalContent(self, key, found, Blob(no, file, checks, data))

    async def corrupt(self, owner: bytes, limit: int) -> Sequence[ObjectKey]:
        """Return objects that were found damaged and not put again since."""
        rows = self._store.read(sql.DAMAGED, (owner, limit))
        return [ObjectKey(owner, container_id, path) for container_id, path in rows]

    # ---- for LocalContent ----

    async def open_file(
        self, key: ObjectKey, blob: Blob, size: int, first: int, blocks: int
    ) -> tuple[int, bytes]:
        """Return a descriptor of the blob's file, and the checks of some of its blocks.

        Raises ObjectCorrupt.
        """
        loop = asyncio.get_running_loop()
        for _ in range(OPEN_TRIES):
            # Read anew each time: the file may be replaced by another with the same bytes.
            part = (first * CHECK + 1, blocks * CHECK)
            rows = self._store.read(sql.FILE_AND_CHECKS, (*part, blob.no))
            if not rows:
                break
            blob.file, checks = rows[0]
            path = self._files.path_of(key.owner, blob.file)
            try:
                return await loop.run_in_executor(self._files.readers, _open, path, size), checks
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ObjectCorrupt(f"its file cannot be read ({error.strerror})") from None
        raise ObjectCorrupt("its file is missing")

    def read_ahead(self, descriptor: int, first: int, length: int, checks: bytes) -> FileBody:
        """Return checked bytes of a file from the beginning of block ``first``."""
        chunk = max(BLOCK, CHUNK // (1 + self.readers // 16))
        return FileBody(
            descriptor,
            offset=first * BLOCK,
            length=length,
            chunk=chunk - chunk % BLOCK,
            tap=BlockVerifier(checks, first).feed,
            executor=self._files.readers,
        )

    def report_damage(self, key: ObjectKey, blob: Blob, why: str) -> None:
        """Remember that a blob is damaged, until the same bytes are put again."""
        self._log.error("object_damaged", container=key.container_id, blob=blob.no, why=why)
        container = (key.owner, key.container_id)
        batch = (
            (sql.MARK_DAMAGED, (blob.no, blob.file)),
            (sql.NOTE_DAMAGED, (key.owner, *container, key.path)),
        )
        self._store.write(batch, lambda error: None)  # a lost note comes back with the next read

    # ---- upkeep ----

    async def empty_trash(self) -> None:
        """Unlink the files that no row names any more."""
        while rows := self._store.read(sql.TRASH, (TRASH_BATCH,)):
            paths = [self._files.path_of(owner, file) for _, owner, file in rows]
            await self._files.run(unlink, paths)
            await self._store.commit([(sql.DROP_TRASH, (no,)) for no, _, _ in rows])

    async def remove_orphans(self) -> None:
        """Unlink files that were in place when a daemon was killed before it had named them."""
        removed = 0
        for owner, first, folder in await self._files.run(self._files.folders):
            present = await self._files.run(os.listdir, folder)
            # In this order: what is named between the two reads is in one of them.
            unnamed = self._files.unnamed.copy()
            high = bytes([first + 1]) if first < 0xFF else b"\xff" * 33
            rows = self._store.read(sql.FILES_BETWEEN, (owner, bytes([first]), high))
            orphans = set(present) - unnamed - {file for (file,) in rows}
            await self._files.run(unlink, [folder / file for file in orphans])
            removed += len(orphans)
        if removed:
            self._log.info("orphans_removed", files=removed)


class LocalContent:
    """The bytes of one version."""

    def __init__(
        self, backend: LocalBackend, key: ObjectKey, record: ObjectRecord, blob: Blob
    ) -> None:
        self.record = record
        self._backend = backend
        self._key = key
        self._blob = blob

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
            self._backend.report_damage(self._key, self._blob, str(error))
            raise ObjectCorrupt(
                f"{sql.key_text(self._key)}: damaged on this node: {error}; read another copy, "
                "and put the object again"
            ) from None

    async def _file_chunks(self, offset: int, length: int) -> AsyncIterator[Data]:
        backend, size = self._backend, self.record.size
        first, behind = offset // BLOCK, -(-(offset + length) // BLOCK)
        descriptor, checks = await backend.open_file(
            self._key, self._blob, size, first, behind - first
        )
        backend.readers += 1
        try:
            whole = min(size, behind * BLOCK) - first * BLOCK
            skip, left = offset - first * BLOCK, length
            body = aiter(backend.read_ahead(descriptor, first, whole, checks))
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
            backend.readers -= 1
            os.close(descriptor)


class _RowStage:
    """A small body on its way into its row; nothing is durable before the commit that names it."""

    def __init__(self, owner: bytes) -> None:
        self._owner = owner
        self._data = bytearray()

    def feed(self, data: Data) -> bool:
        self._data += data
        return True

    def when_room(self, callback: Callable[[], None]) -> None:
        callback()

    async def finish(self) -> Staged:
        data = bytes(self._data)
        blob = LocalBlob("", checks_of(data), data)
        return Staged(self._owner, len(data), hashlib.sha256(data).digest(), blob)

    async def discard(self) -> None:
        self._data.clear()


def _entry(row: tuple[bytes, str, int, bytes, int, bytes, int, int]) -> ContainerEntry:
    container_id, name, copies, keys, counter, writer, objects, size_bytes = row
    members = tuple(keys[at : at + MEMBER] for at in range(0, len(keys), MEMBER))
    version = Version(counter, writer)
    return ContainerEntry(
        Descriptor(container_id, name, copies, members, version), objects, size_bytes
    )


def _open(path: "os.PathLike[str]", size: int) -> int:
    """In a thread: open a file of exactly ``size`` bytes."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    found = os.fstat(descriptor).st_size
    if found != size:
        os.close(descriptor)
        raise ObjectCorrupt(f"its file has {found} bytes, expected {size}")
    return descriptor
