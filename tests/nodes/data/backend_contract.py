"""What every back end of data nodes must do. Subclass it and say how to make one.

    class TestMyBackend(DurableBackendContract):
        @asynccontextmanager
        async def opened(self, folder):  # yields a started back end; one folder is one store
            ...

A coroutine test runner must be at work (see conftest.py).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.data.backends.base import DataBackend
from alpyne_grid.nodes.data.records import (
    Change,
    Cutoffs,
    Descriptor,
    Found,
    JobEpoch,
    KeepContainer,
    ObjectKey,
    ObjectRecord,
    ObjectSpan,
    Publish,
    RaiseFence,
    Refresh,
    Staged,
    Swept,
    Usage,
    Version,
)
from alpyne_grid.nodes.store import StoreFailed

ANN, BOB = b"a" * 32, b"b" * 32
BOX = b"c" * 16
JOB = b"j" * 16
LARGE = bytes(range(256)) * 2800  # some 700 KB: more than any back end keeps in a row
NEVER = Cutoffs(0, 0, 0)
ALWAYS = Cutoffs(1 << 60, 1 << 60, 1 << 60)


def key(path: str, owner: bytes = ANN) -> ObjectKey:
    return ObjectKey(owner, BOX, path)


def version(counter: int) -> Version:
    return Version(counter, b"w" * 16)


def descriptor(counter: int = 1, container: bytes = BOX, copies: int = 2) -> Descriptor:
    members = (b"m" * 32, b"n" * 32)
    return Descriptor(container, f"name {container[0]}", copies, members, version(counter))


async def stage(backend: DataBackend, data: bytes, owner: bytes = ANN) -> Staged:
    """Bring a body in, in pieces."""
    incoming = backend.stage(owner, len(data))
    view = memoryview(data)
    for at in range(0, len(view), 50_000):
        if not incoming.feed(view[at : at + 50_000]):
            room = asyncio.Event()
            incoming.when_room(room.set)
            await room.wait()
    return await incoming.finish()


async def publish(
    backend: DataBackend, path: str, counter: int, data: bytes | None, owner: bytes = ANN
) -> ObjectRecord:
    """Put (or, with None, delete) as the object table would."""
    previous = (await backend.look_up(key(path, owner), b"")).current
    staged = None if data is None else await stage(backend, data, owner)
    record = ObjectRecord(version(counter), deleted=True, modified_at_ms=counter)
    if staged is not None:
        record = ObjectRecord(version(counter), staged.size, staged.sha256, False, counter)
    await backend.commit([Publish(key(path, owner), record, previous, staged, counter)])
    return record


async def read(
    backend: DataBackend,
    path: str,
    at: Version | None = None,
    offset: int = 0,
    length: int | None = None,
    owner: bytes = ANN,
) -> bytes | None:
    """Return bytes of a version; None where there is none, or a tombstone."""
    content = await backend.open(key(path, owner), at)
    if content is None or isinstance(content, ObjectRecord):
        return None
    length = content.record.size - offset if length is None else length
    chunks = content.chunks(offset, length)
    assert isinstance(chunks, AsyncGenerator)
    async with contextlib.aclosing(chunks):
        return b"".join([bytes(chunk) async for chunk in chunks])


async def paths(backend: DataBackend, span: ObjectSpan = ObjectSpan(), **more: Any) -> list[str]:  # noqa: B008
    """Return all paths of a span, page by page."""
    found: list[str] = []
    after: str | None = span.after
    while after is not None:
        span = ObjectSpan(span.prefix, after, span.tombstones)
        page = await backend.objects(ANN, BOX, span, more.get("accepts"), more.get("limit", 2))
        assert page is not None
        assert len(page.rows) <= more.get("limit", 2)
        found += [path for path, _ in page.rows]
        after = page.after
    return found


class DataBackendContract:
    """What holds for every back end."""

    def opened(self, folder: Path) -> AbstractAsyncContextManager[DataBackend]:
        """Return a context in which a started back end lives; ``folder`` is all it may use."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def with_boxes(self, folder: Path) -> "AsyncGenerator[DataBackend, None]":
        """Open a back end where two accounts have a container of the same id."""
        async with self.opened(folder) as backend:
            await backend.commit([KeepContainer(o, descriptor(), True) for o in (ANN, BOB)])
            yield backend

    # ---- containers ----

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

    # ---- objects ----

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

    # ---- commits ----

    async def test_backend_writes_nothing_of_a_batch_when_part_of_it_fails(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            record = ObjectRecord(version(1), deleted=True)
            nowhere = ObjectKey(ANN, b"?" * 16, "a")
            batch: list[Change] = [
                Publish(key("a"), record, None, None, 1),
                RaiseFence(ANN, JobEpoch(JOB, 5, 5), 1),
                Publish(nowhere, record, None, None, 1),
            ]
            with pytest.raises(StoreFailed):
                await backend.commit(batch)
            assert await backend.look_up(key("a"), JOB) == Found(True)

    async def test_backend_commits_in_the_order_of_the_calls(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            records = [ObjectRecord(version(n), deleted=True) for n in range(1, 31)]
            before = [None, *records]
            await asyncio.gather(
                *(
                    backend.commit([Publish(key("a"), record, previous, None, 1)])
                    for previous, record in zip(before, records, strict=False)
                )
            )
            assert await backend.look_up(key("a"), b"") == Found(True, records[-1])

    async def test_backend_takes_fresh_bytes_for_a_version_that_it_has(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            record = await publish(backend, "a", 1, LARGE)
            await publish(backend, "b", 1, LARGE)
            usages = await backend.usages()
            await backend.commit([Refresh(key("a"), await stage(backend, LARGE))])
            assert await backend.look_up(key("a"), b"") == Found(True, record)
            assert await read(backend, "a") == await read(backend, "b") == LARGE
            assert await backend.usages() == usages

    async def test_backend_forgets_a_body_that_is_discarded(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            incoming = backend.stage(ANN, len(LARGE))
            incoming.feed(LARGE[:400_000])
            await incoming.discard()
            await publish(backend, "a", 1, LARGE)
            await backend.discard(await stage(backend, LARGE))
            await backend.discard(await stage(backend, LARGE[1:]))
            assert await read(backend, "a") == LARGE

    async def test_backend_keeps_a_published_body_when_it_is_discarded_by_mistake(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            staged = await stage(backend, LARGE)
            record = ObjectRecord(version(1), staged.size, staged.sha256)
            await backend.commit([Publish(key("a"), record, None, staged, 1)])
            await backend.discard(staged)
            assert await read(backend, "a") == LARGE

    # ---- fences ----

    async def test_backend_remembers_the_highest_execution_of_each_job(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for pair in ((1, 9), (2, 1), (1, 10)):
                await backend.commit([RaiseFence(ANN, JobEpoch(JOB, *pair), 1)])
            assert (await backend.look_up(key("a"), JOB)).fence == (2, 1)
            assert (await backend.look_up(key("a"), b"k" * 16)).fence == (0, 0)
            assert (await backend.look_up(key("a", BOB), JOB)).fence == (0, 0)

    # ---- lists ----

    async def test_backend_lists_objects_in_the_order_of_their_bytes(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            names = ["a", "a/b", "a.b", "B", "ü", "\uffff", "\U0001f600", "\U0010ffff", "z/z"]
            for name in names:
                await publish(backend, name, 1, b"x")
            assert await paths(backend) == sorted(names, key=str.encode)

    @pytest.mark.parametrize(
        ("span", "expected"),
        [
            (ObjectSpan("a/"), ["a/1", "a/2", "a/\U0010ffff"]),
            (ObjectSpan("a"), ["a", "a/1", "a/2", "a/\U0010ffff", "ab"]),
            (ObjectSpan("a/", "a/1"), ["a/2", "a/\U0010ffff"]),
            (ObjectSpan("b", "a/1"), ["b"]),
            (ObjectSpan("", "ab"), ["b"]),
            (ObjectSpan("x"), []),
            (ObjectSpan("a/", "b"), []),
        ],
    )
    async def test_backend_lists_what_a_span_asks_for(
        self, tmp_path: Path, span: ObjectSpan, expected: list[str]
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for name in ("a", "a/1", "a/2", "a/\U0010ffff", "ab", "b"):
                await publish(backend, name, 1, b"x")
            assert await paths(backend, span) == expected

    async def test_backend_lists_tombstones_only_when_asked(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            await publish(backend, "a", 1, b"x")
            tombstone = await publish(backend, "b", 1, None)
            assert await paths(backend) == ["a"]
            assert await paths(backend, ObjectSpan(tombstones=True)) == ["a", "b"]
            page = await backend.objects(ANN, BOX, ObjectSpan("b", "", True), None)
            assert page is not None
            assert page.rows == (("b", tombstone),)

    async def test_backend_lists_what_the_caller_accepts(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            names = [f"{n:03}" for n in range(30)]
            for name in names:
                await publish(backend, name, 1, b"x")
            found = await paths(backend, accepts=lambda path: path.endswith("7"), limit=2)
            assert found == ["007", "017", "027"]

    # ---- usage and retention ----

    async def test_backend_counts_what_accounts_keep(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            assert await backend.usages() == {ANN: Usage(0, 1), BOB: Usage(0, 1)}
            await publish(backend, "a", 1, b"12345")
            await publish(backend, "b", 1, b"12345")
            assert (await backend.usages())[ANN] == Usage(10, 3)
            await publish(backend, "a", 2, b"123")
            assert (await backend.usages())[ANN] == Usage(13, 4)
            await publish(backend, "a", 3, None)
            assert (await backend.usages())[ANN] == Usage(13, 5)
            await publish(backend, "a", 4, b"1")
            assert (await backend.usages())[ANN] == Usage(14, 5)
            assert (await backend.usages())[BOB] == Usage(0, 1)

    async def test_backend_sweeps_what_is_older_than_the_cutoffs(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for counter in (10, 20, 30):
                await publish(backend, "a", counter, b"x" * counter)
            await publish(backend, "b", 10, None)
            await publish(backend, "c", 20, None)
            await backend.commit([RaiseFence(ANN, JobEpoch(JOB, 1, 1), 10)])
            assert await backend.sweep(NEVER, 10) == Swept({}, False)
            swept = await backend.sweep(Cutoffs(25, 15, 15), 10)
            # Version 10 was superseded at 20, version 20 at 30; b's tombstone is of 10.
            assert swept == Swept({ANN: Usage(10, 3)}, False)  # the fence is a row, too
            assert await read(backend, "a", version(10)) is None
            assert await read(backend, "a", version(20)) == b"x" * 20
            assert await backend.look_up(key("b"), JOB) == Found(True)
            assert (await backend.look_up(key("c"), b"")).current is not None
            assert (await backend.usages())[ANN] == Usage(50, 4)

    async def test_backend_sweeps_a_bounded_part_and_says_that_there_is_more(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for counter in range(1, 7):
                await publish(backend, "a", counter, b"x")
            freed = [await backend.sweep(ALWAYS, 2) for _ in range(4)]
            assert [swept.freed.get(ANN, Usage()).rows for swept in freed] == [2, 2, 1, 0]
            assert [swept.more for swept in freed] == [True, True, False, False]
            assert await read(backend, "a") == b"x"

    async def test_backend_counts_and_sweeps_fences_as_rows(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for number in range(3):
                job = number.to_bytes(16, "big")
                await backend.commit([RaiseFence(BOB, JobEpoch(job, 1, 1), 10)])
                await backend.commit([RaiseFence(BOB, JobEpoch(job, 1, 2), 10)])
            assert (await backend.usages())[BOB] == Usage(0, 4)
            freed = [await backend.sweep(ALWAYS, 2) for _ in range(2)]
            assert freed == [
                Swept({BOB: Usage(0, 2)}, True),
                Swept({BOB: Usage(0, 1)}, False),
            ]
            assert (await backend.usages())[BOB] == Usage(0, 1)


class DurableBackendContract(DataBackendContract):
    """What holds for every back end that keeps what it was given; nodes serve no other."""

    async def test_backend_has_everything_when_it_is_opened_again(self, tmp_path: Path) -> None:
        async with self.with_boxes(tmp_path) as backend:
            await publish(backend, "large", 1, LARGE)
            await publish(backend, "small", 1, b"x")
            await publish(backend, "small", 2, b"y")
            await publish(backend, "gone", 1, None)
            await backend.commit([RaiseFence(ANN, JobEpoch(JOB, 3, 4), 1)])
            usages = dict(await backend.usages())
        async with self.opened(tmp_path) as backend:
            assert await read(backend, "large") == LARGE
            assert await read(backend, "small") == b"y"
            assert await read(backend, "small", version(1)) == b"x"
            assert isinstance(await backend.open(key("gone"), None), ObjectRecord)
            assert (await backend.look_up(key("small"), JOB)).fence == (3, 4)
            assert await backend.usages() == usages
