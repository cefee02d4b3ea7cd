"""Contents in GridFS: readable by any tool, checked, collected, bounded in memory."""

import asyncio
import contextlib
import hashlib
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.data.backends.mongo import MongoBackend, collector, staging
from alpyne_grid.nodes.data.backends.mongo.chunks import CHUNK
from alpyne_grid.nodes.data.records import Cutoffs, ObjectCorrupt, Refresh
from alpyne_grid.tools.contracts.data.bench import (
    ALWAYS,
    ANN,
    LARGE,
    NEVER,
    key,
    publish,
    read,
    stage,
    version,
)
from bson import ObjectId
from gridfs import AsyncGridFSBucket
from mongo_bench import MIB, backend_of, counts, opened, with_boxes
from parts.mongo_set import MongoSet

CHUNKS = -(-len(LARGE) // CHUNK)


async def file_of(backend: MongoBackend, path: str) -> ObjectId:
    """Return the file that an object lies in."""
    doc = await backend.link["objects"].find_one({"path": path})
    assert doc is not None
    return ObjectId(doc["file"])


@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "large"])
async def test_contents_are_files_that_any_gridfs_tool_reads(
    mongo_single: MongoSet, tmp_path: Path, data: bytes
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await publish(backend, "a/b", 1, data)
        bucket = AsyncGridFSBucket(backend.link.database, "contents")
        found = await bucket.open_download_stream(await file_of(backend, "a/b"))
        assert await found.read() == data
        assert found.filename is not None
        assert found.filename.endswith("/a/b")
        assert found.metadata == {"sha256": hashlib.sha256(data).digest()}


# ---- damage ----


async def flip(chunks: Any, file: ObjectId) -> None:
    doc = await chunks.find_one({"files_id": file, "n": 1})
    data = bytearray(doc["data"])
    data[1000] ^= 1
    await chunks.update_one({"_id": doc["_id"]}, {"$set": {"data": bytes(data)}})


async def cut(chunks: Any, file: ObjectId) -> None:
    doc = await chunks.find_one({"files_id": file, "n": 1})
    await chunks.update_one({"_id": doc["_id"]}, {"$set": {"data": doc["data"][:-1]}})


async def lose(chunks: Any, file: ObjectId) -> None:
    await chunks.delete_one({"files_id": file, "n": 1})


async def swap(chunks: Any, file: ObjectId) -> None:
    for before, after in ((0, 99), (1, 0), (99, 1)):
        await chunks.update_one({"files_id": file, "n": before}, {"$set": {"n": after}})


@pytest.mark.parametrize("damage", [flip, cut, lose, swap])
async def test_backend_hands_out_no_damaged_piece_and_names_the_object_until_it_is_put_again(
    mongo_single: MongoSet, tmp_path: Path, damage: Any
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await publish(backend, "a", 1, LARGE)
        await publish(backend, "whole", 1, LARGE)
        await damage(backend.link["contents.chunks"], await file_of(backend, "a"))
        with pytest.raises(ObjectCorrupt, match=r"chunk \d .*read another copy"):
            await read(backend, "a")
        assert await backend.corrupt(ANN, 9) == [key("a")]
        assert await read(backend, "whole") == LARGE
        await backend.commit([Refresh(key("a"), await stage(backend, LARGE))])
        assert await read(backend, "a") == LARGE
        assert await backend.corrupt(ANN, 9) == []


async def test_backend_reads_ranges_beside_a_damaged_chunk(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await publish(backend, "a", 1, LARGE)
        await flip(backend.link["contents.chunks"], await file_of(backend, "a"))
        assert await read(backend, "a", None, 0, CHUNK) == LARGE[:CHUNK]
        assert await read(backend, "a", None, 2 * CHUNK, 100) == LARGE[2 * CHUNK : 2 * CHUNK + 100]


async def test_reader_goes_on_when_the_content_is_put_anew_beneath_it(
    mongo_single: MongoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await publish(backend, "a", 1, LARGE)
        content: Any = await backend.open(key("a"), None)  # it has looked up where the bytes lie
        await backend.commit([Refresh(key("a"), await stage(backend, LARGE))])
        backend.parts.collector.collect_soon()
        await backend.parts.collector.collected()
        assert (await counts(backend))["chunks"] == CHUNKS
        assert b"".join([bytes(c) async for c in content.chunks(0, len(LARGE))]) == LARGE


# ---- what no version names ----


async def test_backend_leaves_nothing_of_a_body_that_is_discarded(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        for data in (LARGE, b"small"):
            await backend.discard(await stage(backend, data))
            half = backend.stage(ANN, len(LARGE))
            half.feed(data)
            await half.discard()
        assert await counts(backend) == {"chunks": 0, "files": 0, "unnamed": 0}


async def test_next_start_removes_what_a_killed_daemon_was_taking_in(
    mongo_single: MongoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "TWICE_AFTER_S", 0.0)
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await publish(backend, "kept", 1, LARGE)
        half = backend.stage(ANN, 64 * MIB)
        assert isinstance(half, staging.ChunkStage)
        half.feed(bytes(staging.GROUP * CHUNK))
        await until(lambda: counts(backend), lambda found: found["chunks"] > CHUNKS)
        await stage(backend, LARGE)  # whole, but never named
        half._work.cancel()  # nothing else is done, as by a kill
    async with opened(mongo_single.uri, tmp_path) as backend:
        await backend.parts.collector.collected()
        backend.parts.collector.collect_soon()  # a sweep's
        await backend.parts.collector.collected()
        assert await counts(backend) == {"chunks": CHUNKS, "files": 1, "unnamed": 0}
        assert await read(backend, "kept") == LARGE


async def test_sweep_removes_the_bytes_of_what_it_takes(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        for counter, data in ((1, LARGE), (2, b"small"), (3, LARGE)):
            await publish(backend, "a", counter, data)
        await publish(backend, "b", 1, LARGE)
        await publish(backend, "b", 2, None)
        await backend.sweep(Cutoffs(2, 0, 0), 10)  # nothing is old enough
        await backend.parts.collector.collected()
        assert (await counts(backend))["files"] == 4
        await backend.sweep(ALWAYS, 10)
        await backend.parts.collector.collected()
        assert await counts(backend) == {"chunks": CHUNKS, "files": 1, "unnamed": 0}
        assert await read(backend, "a") == LARGE


async def test_collector_waits_for_whoever_reads(mongo_single: MongoSet, tmp_path: Path) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        data = LARGE * 20  # more than is read ahead
        await publish(backend, "a", 1, data)
        content: Any = await backend.open(key("a"), version(1))
        chunks = content.chunks(0, len(data))
        got = bytes(await anext(chunks))
        await publish(backend, "a", 2, None)
        await backend.sweep(ALWAYS, 10)
        await backend.parts.collector.collected()
        async with contextlib.aclosing(chunks):
            got += b"".join([bytes(chunk) async for chunk in chunks])
        assert got == data
        await backend.sweep(NEVER, 10)
        await backend.parts.collector.collected()
        assert await counts(backend) == {"chunks": 0, "files": 0, "unnamed": 0}


# ---- memory ----


async def test_stage_stops_its_sender_when_the_server_takes_nothing(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    async with with_boxes(mongo_single.uri, tmp_path) as backend:
        await publish(backend, "warm", 1, LARGE)
        incoming = backend.stage(ANN, 1 << 30)
        piece = bytes(60_000)
        taken = 0
        mongo_single.suspend(0)
        try:
            while incoming.feed(piece):
                taken += len(piece)
                await asyncio.sleep(0)
                assert taken < 32 * MIB
        finally:
            mongo_single.resume(0)
        room = asyncio.Event()
        incoming.when_room(room.set)
        await room.wait()
        await incoming.discard()


async def test_back_end_makes_its_state_only_when_it_starts(
    mongo_single: MongoSet, tmp_path: Path
) -> None:
    backend = backend_of(mongo_single.uri, tmp_path / "state")
    assert "not used yet" in await backend.check()
    assert list((tmp_path / "state").iterdir()) == []


async def until(ask: Any, holds: Any) -> None:
    """Wait until what ``ask`` returns is as expected."""
    async with asyncio.timeout(20):
        while not holds(await ask()):
            await asyncio.sleep(0.01)
