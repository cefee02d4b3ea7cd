"""Commits: wholly or not at all, in order; bodies staged and discarded; fences."""

import asyncio
from pathlib import Path

import pytest
from alpyne_grid.nodes.data.records import (
    Change,
    Found,
    JobEpoch,
    ObjectKey,
    ObjectRecord,
    Publish,
    RaiseFence,
    Refresh,
)
from alpyne_grid.nodes.store import StoreFailed
from alpyne_grid.tools.contracts.data.bench import (
    ANN,
    BOB,
    JOB,
    LARGE,
    DataBench,
    key,
    publish,
    read,
    stage,
    version,
)


class CommitContract(DataBench):
    """Commits: wholly or not at all, in order; bodies staged and discarded; fences."""

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

    async def test_backend_remembers_the_highest_execution_of_each_job(
        self, tmp_path: Path
    ) -> None:
        async with self.with_boxes(tmp_path) as backend:
            for pair in ((1, 9), (2, 1), (1, 10)):
                await backend.commit([RaiseFence(ANN, JobEpoch(JOB, *pair), 1)])
            assert (await backend.look_up(key("a"), JOB)).fence == (2, 1)
            assert (await backend.look_up(key("a"), b"k" * 16)).fence == (0, 0)
            assert (await backend.look_up(key("a", BOB), JOB)).fence == (0, 0)
