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
from collections.abc import Callable, Mapping, Sequence

from alpyne_grid.nodes.data.backends import local_rows as sql
from alpyne_grid.nodes.data.backends.base import PAGE, BackendSetup, Content, Data, Stage
from alpyne_grid.nodes.data.backends.local_content import LocalContent, Shelf
from alpyne_grid.nodes.data.backends.local_files import BlobFiles, FileStage, checks_of, unlink
from alpyne_grid.nodes.data.backends.local_rows import LocalBlob
from alpyne_grid.nodes.data.records import (
    Change,
    ContainerEntry,
    Cutoffs,
    Descriptor,
    Found,
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
from alpyne_grid.wire.log import Log

INLINE_MAX = 32 * 1024  # where a commit's bytes begin to cost more than a file's flushes
SCAN = 1000  # rows that one page looks at on the event loop's thread, some milliseconds
TRASH_BATCH = 256
RESERVE = 64 << 20  # bytes of the disk that contents leave to the database
MEMBER = 32  # bytes of a member's key


class LocalBackend:
    """Keeps objects in ``setup.folder``, and their names in ``setup.store``."""

    def __init__(self, setup: BackendSetup) -> None:
        self._store = setup.store
        self._folder = setup.folder
        self._files = BlobFiles(setup.folder)
        self._orphans: asyncio.Task[None] | None = None
        self._shelf = Shelf(self._store, self._files)
        self._log = Log("data.local")

    async def check(self) -> str:
        """Say that it needs nothing but its folder."""
        return "objects lie in the state folder"

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
        fences = read(sql.OLD_FENCES, (cutoffs.fences_ms, limit))
        batch: list[Statement] = [(sql.DROP_FENCE, row) for row in fences]
        batch += [(sql.DROP_SUPERSEDED, row[:4]) for row in superseded]
        batch += [(sql.DROP_TOMBSTONE, row[:4]) for row in tombstones]
        await self._store.commit(batch)
        freed: dict[bytes, Usage] = {}
        gone = [row[4:] for row in (*superseded, *tombstones)]
        for owner, size in (*gone, *((owner, 0) for owner, *_ in fences)):
            before = freed.get(owner, Usage())
            freed[owner] = Usage(before.size_bytes + size, before.rows + 1)
        await self.empty_trash()
        return Swept(freed, limit in (len(superseded), len(tombstones), len(fences)))

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
        file, checks, data = rows[0][6:]  # None where a damaged database has lost the blob
        blob = LocalBlob(file or "", checks or b"", data or b"")
        return LocalContent(self._shelf, key, found, blob)

    async def corrupt(self, owner: bytes, limit: int) -> Sequence[ObjectKey]:
        """Return objects that were found damaged and not put again since."""
        rows = self._store.read(sql.DAMAGED, (owner, limit))
        return [ObjectKey(owner, container_id, path) for container_id, path in rows]

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
