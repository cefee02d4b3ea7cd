"""Containers and objects: descriptors, bytes, ranges, versions, tombstones."""

import hashlib
from pathlib import Path

import pytest
from alpyne_grid.nodes.data.records import (
    Found,
    KeepContainer,
    ObjectKey,
    ObjectRecord,
    ObjectSpan,
)
from alpyne_grid.tools.contracts.data.bench import (
    ALWAYS,
    ANN,
    BOB,
    BOX,
    LARGE,
    DataBench,
    descriptor,
    key,
    publish,
    read,
    version,
)


class ObjectContract(DataBench):
    """Containers and objects: descriptors, bytes, ranges, versions, tombstones."""

    async def test_backend_returns_a_descriptor_only_to_its_owner(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as backend:
            await backend.commit([KeepContainer(ANN, descriptor(), True)])
            assert await backend.container(ANN, BOX) == descriptor()
            assert await backend.container(BOB, BOX) is None

    async def test_backend_replaces_a_descriptor_when_it_is_kept_again(
        self, tmp_path: Path
    ) -> None:
        async with self.opened(tmp_path) as backend:
            await backend.commit([KeepContainer(ANN, descriptor(), True)])
            await publish(backend, "a", 1, b"x")
            await backend.commit([KeepContainer(ANN, descriptor(2, copies=1), False)])
            assert await backend.container(ANN, BOX) == descriptor(2, copies=1)
            assert await read(backend, "a") == b"x"

    async def test_backend_lists_containers_by_id_with_what_they_hold(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as backend:
            ids = [bytes([n]) * 16 for n in (7, 3, 9)]
            for each in ids:
                await backend.commit([KeepContainer(ANN, descriptor(1, each), True)])
            await backend.commit([KeepContainer(ANN, descriptor(), True)])
            await publish(backend, "a", 1, b"12345")
            await publish(backend, "b", 1, b"123")
            await publish(backend, "b", 2, b"1234")
            await publish(backend, "gone", 1, b"1234567")
            await publish(backend, "gone", 2, None)
            first = await backend.containers(ANN, b"", 2)
            rest = await backend.containers(ANN, first[-1].descriptor.container_id, 9)
            found = [
                (e.descriptor.container_id[0], e.objects, e.size_bytes) for e in (*first, *rest)
            ]
            assert found == [(3, 0, 0), (7, 0, 0), (9, 0, 0), (BOX[0], 2, 9)]
            assert await backend.containers(BOB, b"") == []

    async def test_backend_finds_nothing_when_the_container_is_unknown_or_foreign(
        self, tmp_path: Path
    ) -> None:
        async with self.opened(tmp_path) as backend:
            await backend.commit([KeepContainer(ANN, descriptor(), True)])
            await publish(backend, "a", 1, b"x")
            for owner, box in ((BOB, BOX), (ANN, b"?" * 16)):
                asked = ObjectKey(owner, box, "a")
                assert await backend.look_up(asked, b"") == Found(False)
                assert await backend.open(asked, None) is None
                assert await backend.open(asked, version(1)) is None
                assert await backend.objects(owner, box, ObjectSpan(), None) is None

    @pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "large"])
    async def test_backend_returns_what_was_published(self, tmp_path: Path, data: bytes) -> None:
        async with self.with_boxes(tmp_path) as backend:
            record = await publish(backend, "a", 1, data)
            assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).digest())
            assert await backend.look_up(key("a"), b"") == Found(True, record)
            content = await backend.open(key("a"), None)
            assert not isinstance(content, ObjectRecord | None)
            assert content.record == record
            assert await read(backend, "a") == data

    @pytest.mark.parametrize(
        ("offset", "length"),
        [
            (0, 1),
            (0, 0),
            (1, 1),
            (262_143, 2),
            (262_144, 262_144),
            (300_000, 416_800),
            (716_800, 0),
        ],
    )
    async def test_backend_returns_ranges(self, tmp_path: Path, offset: int, length: int) -> None:
        async with self.with_boxes(tmp_path) as backend:
            await publish(backend, "a", 1, LARGE)
            found = await read(backend, "a", None, offset, length)
            assert found == LARGE[offset : offset + length]

    async def test_backend_keeps_a_superseded_version_by_its_exact_version(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for counter, data in ((1, b"one"), (2, LARGE), (5, b"five")):
                await publish(backend, "a", counter, data)
            assert await read(backend, "a") == b"five"
            assert await read(backend, "a", version(5)) == b"five"
            assert await read(backend, "a", version(2)) == LARGE
            assert await read(backend, "a", version(1)) == b"one"
            assert await read(backend, "a", version(3)) is None
            assert await read(backend, "b", version(1)) is None

    async def test_backend_returns_the_tombstone_and_the_versions_before_when_deleted(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            await publish(backend, "a", 1, b"one")
            tombstone = await publish(backend, "a", 2, None)
            assert await backend.open(key("a"), None) == tombstone
            assert await backend.open(key("a"), version(2)) == tombstone
            assert await read(backend, "a", version(1)) == b"one"
            await publish(backend, "a", 3, b"three")
            assert await read(backend, "a") == b"three"
            assert await read(backend, "a", version(2)) is None

    async def test_backend_keeps_accounts_apart_when_paths_and_contents_are_the_same(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            await publish(backend, "a", 1, LARGE, ANN)
            await publish(backend, "a", 1, LARGE, BOB)
            await publish(backend, "a", 2, None, ANN)
            await backend.sweep(ALWAYS, 10)
            assert await read(backend, "a", owner=ANN) is None
            assert await read(backend, "a", owner=BOB) == LARGE

    async def test_backend_keeps_shared_content_until_its_last_name_is_gone(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for path in "abc":
                await publish(backend, path, 1, LARGE)
            for path in "ab":
                await publish(backend, path, 2, None)
                await backend.sweep(ALWAYS, 10)
                assert await read(backend, "c") == LARGE
