"""FileBody and FileSink: bytes, digests, bounds, errors."""

import asyncio
import errno
import hashlib
import os
import random
import threading
from pathlib import Path

import pytest
from alpyne_grid.wire import FileBody, FileSink

from alpyne_proto.errors import LocalProtocolError

DATA = random.Random(1).randbytes(300_001)


async def collect(body: FileBody) -> bytes:
    return b"".join([chunk async for chunk in body])


async def test_file_body_gives_the_whole_file_when_no_length_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    body = FileBody(tmp_path / "file", chunk=64 * 1024, digest=True)
    assert await collect(body) == DATA
    assert body.sha256 == hashlib.sha256(DATA).digest()
    assert body.sent == len(DATA)


async def test_file_body_gives_nothing_when_the_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert await collect(FileBody(tmp_path / "file")) == b""


@pytest.mark.parametrize("length", [0, 1, 64 * 1024, 64 * 1024 + 1, 200_000])
async def test_file_body_gives_exactly_the_range_when_one_is_asked(
    tmp_path: Path, length: int
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    body = FileBody(tmp_path / "file", offset=1000, length=length, chunk=64 * 1024)
    assert await collect(body) == DATA[1000 : 1000 + length]


async def test_file_body_raises_when_the_file_is_shorter_than_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with pytest.raises(OSError, match="expected 9999 bytes more"):
        await collect(FileBody(tmp_path / "file", length=len(DATA) + 9999))


async def test_file_body_leaves_a_descriptor_open_when_it_was_given_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    assert await collect(FileBody(descriptor, offset=5)) == DATA[5:]
    os.close(descriptor)  # raises where the body had closed it


async def test_file_body_raises_what_the_tap_raises_before_the_chunk_is_given(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(DATA)

    def refuse(chunk: object) -> None:
        raise ValueError("corrupt")

    given = []
    with pytest.raises(ValueError, match="corrupt"):
        async for chunk in FileBody(tmp_path / "file", tap=refuse):
            given.append(chunk)
    assert given == []


async def test_file_body_closes_its_file_when_it_is_left_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    before = os.listdir("/proc/self/fd")
    chunks = aiter(FileBody(tmp_path / "file", chunk=1000))
    await anext(chunks)
    await chunks.aclose()
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_file_sink_writes_and_hashes_pieces_of_any_size(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "file", batch=50_000)
    at = 0
    for size in [1, 2, 3, 100, 20_000, 5, 70_000, 16_384, 16_383, 1, 100_000] * 2:
        piece = DATA[at : at + size]
        await sink.write(memoryview(piece))
        at += len(piece)
    await sink.finish(durable=True)
    assert (tmp_path / "file").read_bytes() == DATA[:at]
    assert sink.sha256 == hashlib.sha256(DATA[:at]).digest()
    assert sink.size == at


async def test_file_sink_makes_an_empty_file_when_nothing_came(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "file")
    await sink.finish()
    assert (tmp_path / "file").read_bytes() == b""


async def test_file_sink_says_no_room_until_the_thread_has_caught_up(tmp_path: Path) -> None:
    gate = threading.Event()
    sink = FileSink(tmp_path / "file", batch=1000, queue=3000, tap=lambda _: gate.wait(10))
    room = asyncio.Event()
    assert sink.feed(bytes(1000))
    assert sink.feed(bytes(1000))
    assert not sink.feed(bytes(1000))
    sink.when_room(room.set)
    assert not room.is_set()
    gate.set()
    await room.wait()
    await sink.finish()
    assert sink.size == 3000


async def test_file_sink_raises_at_finish_when_the_tap_has_raised(tmp_path: Path) -> None:
    def refuse(piece: object) -> None:
        raise ValueError("not as announced")

    sink = FileSink(tmp_path / "file", batch=10, tap=refuse)
    sink.feed(bytes(100))
    with pytest.raises(ValueError, match="not as announced"):
        await sink.finish()
    with pytest.raises(ValueError, match="not as announced"):
        sink.feed(b"more")


async def test_file_sink_refuses_a_path_that_exists(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    sink = FileSink(tmp_path / "file")
    sink.feed(b"new")
    with pytest.raises(OSError) as raised:
        await sink.finish()
    assert raised.value.errno == errno.EEXIST
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_file_sink_writes_nothing_more_when_it_was_aborted(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "file", batch=10)
    sink.feed(bytes(20))
    await sink.abort()
    with pytest.raises(LocalProtocolError, match="aborted"):
        sink.feed(b"more")
    assert (tmp_path / "file").stat().st_size == 20


async def test_file_sink_leaves_a_descriptor_open_when_it_was_given_one(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    sink = FileSink(descriptor, digest=False)
    sink.feed(b"abc")
    await sink.finish()
    assert os.pread(descriptor, 10, 0) == b"abc"
    os.close(descriptor)
