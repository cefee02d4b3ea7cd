"""Blobs: under their hash, per account, bounded, and durable before they count."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.compute.blobs import ARRIVING_S, UNUSED_S, BlobStore
from alpyne_grid.wire import BodyReader

from alpyne_proto.errors import ErrorCode, RequestFailed

ALICE, BOB = b"a" * 32, b"b" * 32


class NoConnection:
    """Takes the credit and the wishes of a reader."""

    def give_credit(self, stream_id: int, size: int) -> None:
        pass

    def stop_stream(self, stream_id: int, code: ErrorCode, text: str) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def blobs(tmp_path: Path, clock: Clock) -> BlobStore:
    store = BlobStore(tmp_path / "blobs", clock)
    store.open()
    return store


async def put(blobs: BlobStore, data: bytes, account: bytes = ALICE, **more: Any) -> bytes:
    """Put ``data``; more: sha256, size, quota_bytes, in_use."""
    sha256 = more.pop("sha256", hashlib.sha256(data).digest())
    size = more.pop("size", len(data))
    body = BodyReader(NoConnection(), 1)
    for at in range(0, len(data), 50_000):
        body.push(data[at : at + 50_000], end=False)
    body.push(b"", end=True)
    options = {"quota_bytes": None, "used_elsewhere": 0, "in_use": set, **more}
    await blobs.put(account, sha256, size, body, **options)
    return sha256


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def code_of(make: Callable[[], Coroutine[Any, Any, Any]]) -> ErrorCode:
    with pytest.raises(RequestFailed) as caught:
        asyncio.run(make())
    return caught.value.code


def test_blob_is_there_for_its_account_only_and_after_a_restart(
    blobs: BlobStore, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 1000
    sha256 = asyncio.run(put(blobs, data))
    again = BlobStore(tmp_path / "blobs")
    again.open()
    for store in (blobs, again):
        assert store.missing(ALICE, (sha256, b"\x01" * 32)) == (b"\x01" * 32,)
        assert store.missing(BOB, (sha256,)) == (sha256,)
        assert store.path(ALICE, sha256).read_bytes() == data
        assert (store.kept(ALICE), store.kept(BOB)) == (len(data), 0)


def test_blob_with_another_hash_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    wrong = b"\x07" * 32
    assert code_of(lambda: put(blobs, b"data", sha256=wrong)) is ErrorCode.DIGEST_MISMATCH
    assert blobs.missing(ALICE, (wrong,)) == (wrong,)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert blobs.kept(ALICE) == 0


@pytest.mark.parametrize("size", [3, 5])
def test_blob_with_another_size_leaves_nothing(blobs: BlobStore, tmp_path: Path, size: int) -> None:
    assert code_of(lambda: put(blobs, b"data", size=size)) is ErrorCode.BAD_REQUEST
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_blob_that_is_there_is_not_written_again(blobs: BlobStore) -> None:
    sha256 = asyncio.run(put(blobs, b"data"))
    before = blobs.path(ALICE, sha256).stat().st_ino
    asyncio.run(put(blobs, b"data"))
    assert blobs.path(ALICE, sha256).stat().st_ino == before
    assert blobs.kept(ALICE) == 4


def test_blob_over_the_quota_is_refused_before_it_is_written(
    blobs: BlobStore, tmp_path: Path
) -> None:
    def too_much() -> Coroutine[Any, Any, bytes]:
        return put(blobs, b"x" * 100, quota_bytes=150, used_elsewhere=60)

    assert code_of(too_much) is ErrorCode.QUOTA_EXCEEDED
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_blob_makes_room_of_those_that_no_job_names_any_more(
    blobs: BlobStore, clock: Clock
) -> None:
    async def main() -> None:
        named = await put(blobs, b"n" * 100)
        unused = await put(blobs, b"u" * 100)
        clock.now_s += ARRIVING_S + 1
        fresh = await put(blobs, b"f" * 100)
        new = await put(blobs, b"x" * 100, quota_bytes=300, in_use=lambda: {named})
        assert blobs.missing(ALICE, (named, unused, fresh, new)) == (unused,)

    run(main())


def test_blobs_that_nobody_used_for_a_day_go(blobs: BlobStore, clock: Clock) -> None:
    async def main() -> None:
        named, used, unused = [await put(blobs, data) for data in (b"a", b"b", b"c")]
        clock.now_s += UNUSED_S + 1
        blobs.missing(ALICE, (used,))
        await blobs.drop_unused(lambda account: {named})
        assert blobs.missing(ALICE, (named, used, unused)) == (unused,)
        assert not blobs.path(ALICE, unused).exists()

    run(main())


def test_restart_deletes_blobs_that_had_not_arrived_whole(blobs: BlobStore, tmp_path: Path) -> None:
    asyncio.run(put(blobs, b"data"))
    part = tmp_path / "blobs" / ALICE.hex() / ".part-1234"
    part.write_bytes(b"da")
    again = BlobStore(tmp_path / "blobs")
    again.open()
    assert not part.exists()
    assert again.kept(ALICE) == 4


def test_number_of_blobs_is_bounded_without_a_quota_of_bytes_too(
    blobs: BlobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alpyne_grid.nodes.compute.blobs.BLOBS_MAX", 2)
    first = asyncio.run(put(blobs, b"1"))
    second = asyncio.run(put(blobs, b"2"))
    assert code_of(lambda: put(blobs, b"3")) is ErrorCode.QUOTA_EXCEEDED
    asyncio.run(put(blobs, b"3", BOB))
    clock.now_s += ARRIVING_S + 1
    asyncio.run(put(blobs, b"3", in_use=lambda: {first}))
    assert blobs.missing(ALICE, (first, second)) == (second,)
    assert blobs.kept(ALICE) == 2


def test_blob_that_arrives_twice_at_the_same_time_counts_once(blobs: BlobStore) -> None:
    async def main() -> None:
        await asyncio.gather(put(blobs, b"data"), put(blobs, b"data"))
        assert blobs.kept(ALICE) == 4

    run(main())
