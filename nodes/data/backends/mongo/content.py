"""Bodies on their way out: ranges of chunks, read ahead, each chunk checked as it is handed on.

Each range is a query of its own, not a part of a long cursor: a query is repeated at the next
primary when one is lost, a cursor is not. The check of a chunk takes some 65 microseconds, less
than the hop to a thread and back.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from alpyne_grid.nodes.data.backends.base import Data
from alpyne_grid.nodes.data.backends.mongo.chunks import ChunkMissing, checked, count_of
from alpyne_grid.nodes.data.backends.mongo.link import MongoLink
from alpyne_grid.nodes.data.backends.mongo.schema import (
    CHUNKS,
    Doc,
    StoredFile,
    box_of,
    record_of,
)
from alpyne_grid.nodes.data.records import ObjectCorrupt, ObjectKey, ObjectRecord, Version
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.wire.log import Log
from bson import ObjectId

RANGE_BYTES = 8 << 20  # of one query, while few read
FIRST_BYTES = 1 << 20  # of the first one
AHEAD = 3  # queries at once
MANY = 2  # readers, for each so many of which the ranges are halved, thirded, ...
MOVES_MAX = 3  # times that a content may be put anew while it is read


class Shelf:
    """What contents are read from. ``reading``: how many read each file; it is not removed then."""

    def __init__(self, link: MongoLink) -> None:
        self.link = link
        self.reading: Counter[ObjectId] = Counter()
        self._log = Log("data.mongodb")

    @contextlib.contextmanager
    def holding(self, file: ObjectId) -> Iterator[None]:
        """Keep the collector from a file."""
        self.reading[file] += 1
        try:
            yield
        finally:
            self.reading[file] -= 1
            if not self.reading[file]:
                del self.reading[file]

    async def find(self, key: ObjectKey, version: Version | None) -> Doc | None:
        """Return the document of the current version, or of exactly ``version``.

        Raises StoreFailed.
        """
        place = {"box": box_of(key), "path": key.path}
        async with self.link.reading("looking an object up") as session:
            doc = await self.link["objects"].find_one(place, session=session)
            if doc is None or version is None or record_of(doc).version == version:
                return doc
            exactly = {**place, "counter": version.counter, "writer": version.writer}
            return await self.link["superseded"].find_one(exactly, session=session)

    async def fetch(self, stored: StoredFile, numbers: range) -> dict[int, Doc]:
        """Return the chunks that are there, by their numbers, unchecked. Raises StoreFailed."""
        wanted = {"files_id": stored.file, "n": {"$gte": numbers.start, "$lt": numbers.stop}}
        async with self.link.reading("reading an object") as session:
            found = self.link[CHUNKS].find(wanted, {"_id": 0}, session=session)
            # All of them in one answer, which is at most 16 MB.
            docs = await found.batch_size(len(numbers) + 1).to_list()
        return {doc["n"]: doc for doc in docs}

    async def report_damage(self, key: ObjectKey, file: ObjectId, why: str) -> None:
        """Remember that a content is damaged, until the object is put again."""
        self._log.error("object_damaged", container=key.container_id, why=why)
        damaged = {"box": box_of(key), "path": key.path, "file": file}
        # A note that is lost comes back with the next read.
        with contextlib.suppress(StoreFailed), self.link.deadline("noting a damaged object"):
            await self.link["objects"].update_one(damaged, {"$set": {"damaged": True}})


class MongoContent:
    """The bytes of one version."""

    def __init__(self, shelf: Shelf, key: ObjectKey, doc: Doc) -> None:
        self.record: ObjectRecord = record_of(doc)
        self._shelf = shelf
        self._key = key
        self._stored = StoredFile(doc["file"], doc["chunk"])

    async def chunks(self, offset: int, length: int) -> AsyncIterator[Data]:
        """Yield checked bytes. Raises ObjectCorrupt."""
        done = 0
        moves = 0
        while done < length:
            try:
                pieces = self._pieces(offset + done, length - done)
                with self._shelf.holding(self._stored.file):
                    async with contextlib.aclosing(pieces):
                        async for piece in pieces:
                            done += len(piece)
                            yield piece
            except ObjectCorrupt as error:
                if isinstance(error, ChunkMissing) and moves < MOVES_MAX and await self._moved():
                    moves += 1
                    continue
                await self._shelf.report_damage(self._key, self._stored.file, str(error))
                raise ObjectCorrupt(
                    f"object {self._key.path!a} of container {self._key.container_id.hex()}: "
                    f"damaged on this node: {error}; read another copy, and put the object again"
                ) from None

    async def _pieces(self, offset: int, length: int) -> AsyncGenerator[memoryview, None]:
        stored, size = self._stored, self.record.size
        last = count_of(offset + length, stored.chunk)
        skip, left = offset % stored.chunk, length
        ahead: deque[tuple[range, asyncio.Task[dict[int, Doc]]]] = deque()
        ranges = self._ranges(offset // stored.chunk, last)
        try:
            while True:
                while len(ahead) < AHEAD and (numbers := next(ranges, None)) is not None:
                    fetching = self._shelf.fetch(stored, numbers)
                    ahead.append((numbers, asyncio.create_task(fetching)))
                if not ahead:
                    return
                docs = await ahead[0][1]
                numbers, _ = ahead.popleft()
                for number in numbers:
                    chunk = checked(docs.pop(number, None), stored.file, number, size, stored.chunk)
                    piece = memoryview(chunk)[skip : skip + left]
                    skip = 0
                    left -= len(piece)
                    yield piece
        finally:
            left_over = [task for _, task in ahead]
            for task in left_over:
                task.cancel()
            await asyncio.gather(*left_over, return_exceptions=True)

    def _ranges(self, first: int, behind: int) -> Iterator[range]:
        wanted = FIRST_BYTES  # little, so that the reader has something to do early
        while first < behind:
            readers = self._shelf.reading.total()
            many = max(1, wanted // (1 + readers // MANY) // self._stored.chunk)
            yield range(first, min(behind, first + many))
            first += many
            wanted = RANGE_BYTES

    async def _moved(self) -> bool:
        """Return whether the same version now lies in another file, and read from there."""
        doc = await self._shelf.find(self._key, self.record.version)
        if doc is None or not doc["file"] or doc["file"] == self._stored.file:
            return False
        self._stored = StoredFile(doc["file"], doc["chunk"])
        return True
