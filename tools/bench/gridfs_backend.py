"""A large object through the MongoDB back end by itself, in turns with pymongo's own GridFS.

Both sides run in one process on one event loop, take the body in pieces of a record and hand it
out as they have it; so the figure says what the back end adds: hashing, checking each chunk, a
transaction for the name. A data node's encryption is no part of it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from alpyne_grid.nodes.data.backends.base import BackendSetup
from alpyne_grid.nodes.data.records import (
    Descriptor,
    KeepContainer,
    ObjectKey,
    ObjectRecord,
    Publish,
    Version,
)
from alpyne_grid.nodes.store import CommitStore
from alpyne_grid.tools.bench.figures import Figure, Series, Unit
from alpyne_grid.tools.bench.setting import Setting

SHARE = 0.8  # of what bare pymongo does
PIECE = 61_440  # bytes of a record
MIB = 1 << 20
OWNER, BOX, WRITER = b"a" * 32, b"b" * 16, b"w" * 16


def measure(setting: Setting, uri_file: Path, databases: list[str]) -> list[Figure]:
    """Measure put and get; ``databases``: one for the back end, one for bare GridFS."""
    return asyncio.run(_measure(setting, uri_file, databases))


async def _measure(setting: Setting, uri_file: Path, databases: list[str]) -> list[Figure]:
    size = setting.amounts.object_bytes
    names = ("put", "get", "bare pymongo put", "bare pymongo get")
    put, got, bare_put, bare_get = (Series(name, Unit.MB_PER_SECOND) for name in names)
    folder = setting.folder / "gridfs-backend"
    folder.mkdir(parents=True, exist_ok=True)
    async with _backend(folder, uri_file, databases[0]) as backend:
        bucket = _bucket(backend.link.client[databases[1]])
        await bucket.upload_from_stream("small", b"so that the indexes exist")
        for run in setting.each_run("object through the MongoDB back end"):
            for series, seconds in (
                (bare_put, await _bare_put(bucket, size, run)),
                (put, await _put(backend, size, run)),
                (bare_get, await _bare_get(bucket, run)),
                (got, await _get(backend, size, run)),
            ):
                series.values.append(size / seconds)
            await bucket.delete_by_name(f"{run}")
    return [
        Figure(
            f"{size >> 20} MiB through the MongoDB back end: {what}",
            measured,
            [yardstick],
            SHARE * yardstick.median,
            at_least=True,
            decides=True,
            note=f"reach: {SHARE:.0%} of bare pymongo",
        )
        for what, measured, yardstick in (("put", put, bare_put), ("get", got, bare_get))
    ]


@asynccontextmanager
async def _backend(folder: Path, uri_file: Path, database: str) -> AsyncIterator[Any]:
    """Start a back end with a container."""
    from alpyne_grid.nodes.data.backends.mongo import MongoBackend

    store = CommitStore.open(folder / "node.db", ())
    options = {"uri-file": (str(uri_file),), "database": (database,)}
    backend = MongoBackend(BackendSetup(folder, store, options))
    try:
        await backend.start()
        kept = Descriptor(BOX, "figures", 1, (b"m" * 32,), Version(1, WRITER))
        await backend.commit([KeepContainer(OWNER, kept, True)])
        yield backend
    finally:
        await backend.close()
        await store.close()


def _bucket(database: Any) -> Any:
    """Return GridFS as pymongo has it, with the back end's concerns."""
    from gridfs import AsyncGridFSBucket
    from pymongo import WriteConcern
    from pymongo.read_concern import ReadConcern

    return AsyncGridFSBucket(
        database.client.get_database(
            database.name,
            write_concern=WriteConcern("majority", j=True),
            read_concern=ReadConcern("majority"),
        )
    )


def _pieces(size: int) -> Iterator[memoryview]:
    block = os.urandom(MIB)
    for begin in range(0, size, MIB):
        body = memoryview(begin.to_bytes(8, "big") + block[8:])[: size - begin]
        for at in range(0, len(body), PIECE):
            yield body[at : at + PIECE]


async def _put(backend: Any, size: int, run: int) -> float:
    begun = perf_counter()
    stage = backend.stage(OWNER, size)
    for piece in _pieces(size):
        if not stage.feed(piece):
            room = asyncio.Event()
            stage.when_room(room.set)
            await room.wait()
    staged = await stage.finish()
    record = ObjectRecord(Version(1, WRITER), size, staged.sha256)
    key = ObjectKey(OWNER, BOX, f"{run}")
    await backend.commit([Publish(key, record, None, staged, run)])
    return perf_counter() - begun


async def _get(backend: Any, size: int, run: int) -> float:
    begun = perf_counter()
    content = await backend.open(ObjectKey(OWNER, BOX, f"{run}"), None)
    left = size
    async for chunk in content.chunks(0, size):
        left -= len(chunk)
    assert not left
    return perf_counter() - begun


async def _bare_put(bucket: Any, size: int, run: int) -> float:
    begun = perf_counter()
    async with bucket.open_upload_stream(f"{run}") as upload:
        for piece in _pieces(size):
            await upload.write(bytes(piece))
    return perf_counter() - begun


async def _bare_get(bucket: Any, run: int) -> float:
    begun = perf_counter()
    stream = await bucket.open_download_stream_by_name(f"{run}")
    while await stream.readchunk():
        pass
    return perf_counter() - begun
