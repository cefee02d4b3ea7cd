"""Bodies on their way in.

A small body waits in memory: the commit that names it writes its chunk, so that one commit makes
many durable. A larger one is cut into chunks, which go out in several inserts at once: each insert
waits for a majority's journals, and the next ones need not wait for it. Hashing and copying are
done in threads; what a stage holds in memory is bounded, the less the more stages there are.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from alpyne_grid.nodes.data.backends.base import Data
from alpyne_grid.nodes.data.backends.mongo.changes import MongoBlob
from alpyne_grid.nodes.data.backends.mongo.chunks import CHUNK, Cutter
from alpyne_grid.nodes.data.backends.mongo.link import MongoLink
from alpyne_grid.nodes.data.backends.mongo.schema import CHUNKS, Doc, StoredFile, note_in
from alpyne_grid.nodes.data.records import Staged
from alpyne_grid.nodes.store import StoreFailed
from bson import ObjectId

SMALL_MAX = 64 * 1024  # bytes up to which a body is written by the commit
GROUP = 8  # chunks of one insert
INSERTS = 4  # of one stage at once
STAGES_BYTES = 128 << 20  # that all stages may hold in memory, beside the least of each
LEAST_BYTES = (GROUP + 1) * CHUNK  # that one stage may hold at least: an insert, and what comes
_SMALL_PIECE = 16 * 1024  # a smaller piece is copied: it may keep a whole record alive


class Stages:
    """All bodies that are on their way in, or are in and have no name yet."""

    def __init__(self, link: MongoLink, run_name: bytes) -> None:
        self.link = link
        self.run_name = run_name
        self.threads = ThreadPoolExecutor(4, "mongodb stage")
        self.unnamed: set[ObjectId] = set()  # files that the collector must leave alone
        self.active = 0

    def bound(self) -> int:
        """Return how many bytes one stage may hold."""
        most = (INSERTS + 1) * GROUP * CHUNK
        return max(LEAST_BYTES, min(most, STAGES_BYTES // max(1, self.active)))

    def begin(self, owner: bytes, size: int) -> "SmallStage | ChunkStage":
        """Return a stage for a body of ``size`` bytes."""
        return SmallStage(owner) if size <= SMALL_MAX else ChunkStage(self, owner)

    async def forget(self, file: ObjectId) -> None:
        """Remove the chunks of a file that nothing names, and its note. Raises StoreFailed."""
        await remove_chunks(self.link, file)
        with self.link.deadline("removing a discarded body"):
            await self.link["unnamed"].delete_one({"_id": file})
        self.unnamed.discard(file)


def new_file() -> ObjectId:
    """Return an id for a file: random, so that files spread over shards and ids tell no order."""
    return ObjectId(os.urandom(12))


async def remove_chunks(link: MongoLink, file: ObjectId, at_once: int = 512) -> None:
    """Remove the chunks of a file, some at a time. Raises StoreFailed."""
    chunks = link[CHUNKS]
    while True:
        with link.deadline("removing chunks"):
            first = await chunks.find_one({"files_id": file}, {"n": 1}, sort=[("n", 1)])
            if first is None:
                return
            behind = first["n"] + at_once
            await chunks.delete_many({"files_id": file, "n": {"$lt": behind}})


class SmallStage:
    """A small body; nothing of it is in the database before the commit that names it."""

    def __init__(self, owner: bytes) -> None:
        self._owner = owner
        self._data = bytearray()

    def feed(self, data: Data) -> bool:
        """Take bytes."""
        self._data += data
        return True

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back at once: there is always room."""
        callback()

    async def finish(self) -> Staged:
        """Return the body as a chunk that is not written yet."""
        file = new_file()
        cutter = Cutter(file)
        chunks = tuple(cutter.cut([[bytes(self._data)]] if self._data else []))
        blob = MongoBlob(StoredFile(file, CHUNK), chunks)
        return Staged(self._owner, cutter.size, cutter.sha256, blob)

    async def discard(self) -> None:
        """Forget the bytes."""
        self._data.clear()


class ChunkStage:
    """A body on its way into chunks, of which the database knows as an unnamed file."""

    def __init__(self, stages: Stages, owner: bytes) -> None:
        self._stages = stages
        self._owner = owner
        self._file = new_file()
        self._cutter = Cutter(self._file)
        self._pieces: list[Data] = []  # of the chunk that is being filled
        self._filled = 0
        self._full: list[list[Data]] = []  # chunks to be cut
        self._held = 0  # bytes taken and not yet durable
        self._error: StoreFailed | None = None
        self._ended = self._over = False
        self._more = asyncio.Event()
        self._inserts: set[asyncio.Task[None]] = set()
        self._when_room: Callable[[], None] | None = None
        stages.active += 1
        stages.unnamed.add(self._file)
        self._work = asyncio.create_task(self._run())

    def feed(self, data: Data) -> bool:
        """Take bytes; return whether there is room for more. Raises StoreFailed."""
        if self._error is not None:
            raise self._error
        self._held += len(data)
        view = memoryview(data)
        while view:
            part = view[: CHUNK - self._filled]
            self._pieces.append(bytes(part) if len(part) < _SMALL_PIECE else part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == CHUNK:
                self._close_chunk()
        return self._held < self._stages.bound()

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when there is room, or when writing has failed."""
        self._when_room = callback
        self._tell_room()

    async def finish(self) -> Staged:
        """Return when all chunks are durable. Raises StoreFailed; then nothing is left behind."""
        if self._filled:
            self._close_chunk()
        await self._end()
        if self._error is not None:
            error = self._error
            await self.discard()
            raise error
        self._over = True
        self._stages.active -= 1
        blob = MongoBlob(StoredFile(self._file, CHUNK))
        return Staged(self._owner, self._cutter.size, self._cutter.sha256, blob)

    async def discard(self) -> None:
        """Remove what was written, when nothing more is on its way there."""
        if self._over:
            return
        self._over = True
        self._full.clear()
        self._pieces.clear()
        await self._end()
        self._stages.active -= 1
        if self._error is None:
            await self._stages.forget(self._file)
        else:
            # An insert without an answer may arrive yet; the collector comes later, and twice.
            self._stages.unnamed.discard(self._file)

    # ---- the way of a chunk ----

    def _close_chunk(self) -> None:
        self._full.append(self._pieces)
        self._pieces, self._filled = [], 0
        if len(self._full) >= GROUP:
            self._more.set()

    async def _run(self) -> None:
        """Note the file, then cut and insert until the body has ended."""
        stages = self._stages
        loop = asyncio.get_running_loop()
        try:
            with stages.link.deadline("beginning an object"):
                await stages.link["unnamed"].insert_one(note_in(self._file, stages.run_name))
            while self._error is None:
                if len(self._full) < GROUP and not self._ended:
                    self._more.clear()
                    await self._more.wait()
                    continue
                group, self._full = self._full[:GROUP], self._full[GROUP:]
                if not group:
                    return
                docs = await loop.run_in_executor(stages.threads, self._cutter.cut, group)
                while len(self._inserts) >= INSERTS:
                    await asyncio.wait(self._inserts, return_when=asyncio.FIRST_COMPLETED)
                insert = asyncio.create_task(self._insert(docs))
                self._inserts.add(insert)
                insert.add_done_callback(self._inserts.discard)
        except StoreFailed as error:
            self._fail(error)

    async def _insert(self, docs: list[Doc]) -> None:
        link = self._stages.link
        try:
            with link.deadline("writing an object"):
                await link[CHUNKS].insert_many(docs)
        except StoreFailed as error:
            self._fail(error)
        else:
            self._held -= sum(len(doc["data"]) for doc in docs)
            self._tell_room()

    async def _end(self) -> None:
        """Return when nothing is on its way any more."""
        self._ended = True
        self._more.set()
        await asyncio.wait((self._work,))
        if self._inserts:
            await asyncio.wait(self._inserts)

    def _fail(self, error: StoreFailed) -> None:
        self._error = self._error or error
        self._more.set()
        self._tell_room()

    def _tell_room(self) -> None:
        if self._error is None and self._held >= self._stages.bound():
            return
        callback, self._when_room = self._when_room, None
        if callback is not None:
            callback()
