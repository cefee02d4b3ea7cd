"""What accounts keep, and what is swept."""

from pathlib import Path

from alpyne_grid.nodes.data.records import (
    Cutoffs,
    Found,
    JobEpoch,
    RaiseFence,
    Swept,
    Usage,
)
from alpyne_grid.tools.contracts.data.bench import (
    ALWAYS,
    ANN,
    BOB,
    JOB,
    NEVER,
    DataBench,
    key,
    publish,
    read,
    version,
)


class RetentionContract(DataBench):
    """What accounts keep, and what is swept."""

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
