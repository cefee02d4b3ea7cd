"""MapRun: chunks, order, window, division, retries; nodes are a function that ends jobs."""

import asyncio
import concurrent.futures
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from alpyne_grid.manager import program as programs
from alpyne_grid.manager import sources
from alpyne_grid.manager.chunks import ChunkSizes
from alpyne_grid.manager.errors import JobCrashed, JobFailed, JobRaised
from alpyne_grid.manager.grid_events import Outcome
from alpyne_grid.manager.jobs import AsyncJob, Ended
from alpyne_grid.manager.map_work import MapWork
from alpyne_grid.manager.maps import Earlier, MapRun, Row
from alpyne_grid.manager.options import CheckedOptions
from alpyne_grid.manager.results import Failed, Place

from alpyne_proto.codec import encode_row, read_rows
from alpyne_proto.messages import program as rows
from alpyne_proto.messages.compute import Cause, JobForm, JobState, ResultCodec, Usage

Work = Callable[[Any], Any]


class Crash(BaseException):
    """Kills the interpreter."""


@dataclass
class FakeGrid:
    """Runs chunks when told to, in any order."""

    work: Work
    waiting: list[tuple[AsyncJob, programs.Program]] = field(default_factory=list)
    executed: list[int] = field(default_factory=list)  # indexes, once per execution
    most_waiting: int = 0
    slots: int = 2

    def submit_chunk(self, work: MapWork, program: programs.Program) -> AsyncJob:
        job = AsyncJob(None, b"j" * 16, JobForm.MAP, "f")  # type: ignore[arg-type]
        self.waiting.append((job, program))
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        return job

    def total_slots(self) -> int:
        return self.slots

    def run_one(self, at: int = 0) -> None:
        job, program = self.waiting.pop(at)
        job.deliver(
            Ended(self._outcome(program), Place(b"j" * 16, "n", ResultCodec.PICKLE), JobForm.MAP)
        )

    def _outcome(self, program: programs.Program) -> Outcome:
        found = read_rows(program.payload, (rows.Function.SPEC.code, rows.Items.SPEC.code))
        body = b""
        for index, (item,) in enumerate(pickle.loads(found[1][1]), program.first):
            self.executed.append(index)
            try:
                value = [self.work(item)]
                body += encode_row(rows.Values(index, 1), pickle.dumps(value))
            except Crash:
                return Outcome(JobState.FAILED, Cause.CRASH, "died", b"", b"n" * 32, 1, 1)
            except Exception as error:  # noqa: BLE001 - as a worker does
                row = rows.ItemFailed(index, Cause.EXCEPTION, type(error).__name__, str(error))
                body += encode_row(row)
        usage = Usage(wall_ms=0)
        return Outcome(JobState.DONE, Cause.NONE, "", body, b"n" * 32, 1, 1, usage=usage)


def start(
    grid: FakeGrid,
    items: Iterable[Any],
    chunk: int = 0,
    *,
    retries: int = 0,
    ordered: bool = True,
    earlier: Earlier | None = None,
) -> MapRun:
    work = MapWork(programs.function_row(len, []), (), "f", CheckedOptions(retries=retries), b"")

    async def prepare() -> tuple[MapWork, Earlier]:
        return work, earlier or {}

    source = sources.source_of(sources.as_tuples((items,)), sources.length_of((items,)))
    return MapRun(grid, prepare, source, sizes=ChunkSizes(chunk), ordered=ordered)


async def collect(
    run: MapRun, grid: FakeGrid, pick: int = 0, into: list[Row] | None = None
) -> list[Row]:
    """Take all rows; whenever the map has sent all that it will, the chunk ``pick`` ends."""
    found: list[Row] = [] if into is None else into

    async def nodes() -> None:
        before = -1
        while True:
            await asyncio.sleep(0.0005)
            if grid.waiting and len(grid.waiting) == before:
                grid.run_one(pick)
            before = len(grid.waiting)

    running = asyncio.ensure_future(nodes())
    try:
        while (some := await run.next_rows()) is not None:
            found += some
    finally:
        running.cancel()
    return found


def test_map_yields_values_in_order_when_chunks_end_in_another() -> None:
    async def main() -> None:
        grid = FakeGrid(lambda x: x * 2)
        run = start(grid, range(50), chunk=3)
        found = await collect(run, grid, pick=-1)
        assert [(index, item, value) for index, (item,), value in found] == [
            (n, n, 2 * n) for n in range(50)
        ]
        assert sorted(grid.executed) == list(range(50))

    asyncio.run(main())


def test_map_yields_values_as_they_come_when_asked() -> None:
    async def main() -> None:
        grid = FakeGrid(lambda x: x)
        run = start(grid, range(20), chunk=1, ordered=False)
        found = await collect(run, grid, pick=-1)
        indexes = [row[0] for row in found]
        assert sorted(indexes) == list(range(20))
        assert indexes != sorted(indexes)

    asyncio.run(main())


def test_map_takes_no_more_items_than_its_window_when_nobody_takes_results() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(300):
            taken += 1
            yield number

    async def main() -> None:
        grid = FakeGrid(lambda x: x)
        run = start(grid, items(), chunk=1)
        run.start()
        for _ in range(200):
            await asyncio.sleep(0.001)
            while grid.waiting:
                grid.run_one()
        assert taken == 4 * (3 * 2 + 2)
        assert len(await collect(run, grid)) == 300
        assert grid.most_waiting <= 3 * 2 + 2

    asyncio.run(main())


def test_map_fails_the_item_that_raises_and_no_other() -> None:
    async def main() -> None:
        grid = FakeGrid(lambda x: 1 // x)
        found = await collect(start(grid, [1, 0, 1], chunk=3), grid)
        assert [type(value) for _, _, value in found] == [int, Failed, int]
        error = found[1][2].error
        assert isinstance(error, JobRaised) and error.item == 1

    asyncio.run(main())


def test_map_halves_a_chunk_that_crashes_until_the_item_is_alone() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise Crash
        return item

    async def main() -> None:
        grid = FakeGrid(work)
        found = await collect(start(grid, range(16), chunk=8), grid)
        values = [value for _, _, value in found]
        assert values[:5] + values[6:] == [*range(5), *range(6, 16)]
        error = values[5].error
        assert isinstance(error, JobCrashed) and error.item == 5

    asyncio.run(main())


def test_map_runs_an_item_that_raises_again_as_often_as_allowed() -> None:
    fails = {3: 2, 4: 9}

    def work(item: int) -> int:
        if fails.get(item, 0) > 0:
            fails[item] -= 1
            raise ValueError(item)
        return item

    async def main() -> None:
        grid = FakeGrid(work)
        found = await collect(start(grid, range(6), chunk=6, retries=2), grid)
        values = [value for _, _, value in found]
        assert values[:4] == [0, 1, 2, 3]
        assert type(values[4]) is Failed
        assert grid.executed.count(3) == grid.executed.count(4) == 3
        assert grid.executed.count(0) == 1

    asyncio.run(main())


def test_map_raises_what_its_items_raise_after_the_results_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    async def main() -> None:
        grid = FakeGrid(lambda x: x)
        found: list[Row] = []
        with pytest.raises(OSError, match="gone"):
            await collect(start(grid, items(), chunk=1), grid, into=found)
        assert len(found) == 2

    asyncio.run(main())


def test_map_cancels_what_is_under_way_when_it_is_closed() -> None:
    cancelled = []

    class Owner:
        def cancel_job(self, job: AsyncJob) -> None:
            cancelled.append(job)

    async def main() -> None:
        grid = FakeGrid(lambda x: x)
        run = start(grid, range(100), chunk=1)
        run.start()
        while not grid.waiting:
            await asyncio.sleep(0.001)
        for job, _ in grid.waiting:
            job._owner = Owner()  # type: ignore[assignment]
        jobs = [job for job, _ in grid.waiting]
        run.close()
        assert cancelled == jobs
        assert await run.next_rows() is None

    asyncio.run(main())


def test_map_does_not_repeat_chunks_that_an_earlier_run_has_done() -> None:
    async def main() -> None:
        grid = FakeGrid(lambda x: x)
        done = AsyncJob(None, b"d" * 16, JobForm.MAP, "f")  # type: ignore[arg-type]
        body = encode_row(rows.Values(4, 3), pickle.dumps(["a", "b", "c"]))
        outcome = Outcome(JobState.DONE, Cause.NONE, "", body, b"n" * 32, 1, 1)
        done.deliver(Ended(outcome, Place(b"d" * 16, "n", ResultCodec.PICKLE), JobForm.MAP))
        run = start(grid, range(10), chunk=4, earlier={4: (done, 3)})
        found = await collect(run, grid)
        assert [value for _, _, value in found] == [0, 1, 2, 3, "a", "b", "c", 7, 8, 9]
        assert sorted(grid.executed) == [0, 1, 2, 3, 7, 8, 9]

    asyncio.run(main())


def test_map_ends_with_the_error_when_its_manager_is_closed() -> None:
    async def main() -> None:
        grid = FakeGrid(lambda x: x)
        run = start(grid, range(4), chunk=4)
        run.start()
        while not grid.waiting:
            await asyncio.sleep(0.001)
        grid.waiting[0][0].fail(JobFailed("closed"))
        with pytest.raises(JobFailed, match="closed"):
            await run.next_rows()

    asyncio.run(main())


def test_map_over_nothing_yields_nothing() -> None:
    async def main() -> None:
        grid = FakeGrid(lambda x: x)
        assert await collect(start(grid, []), grid) == []
        assert grid.executed == []

    asyncio.run(main())


def test_future_of_a_job_may_be_waited_for_in_any_thread() -> None:
    job = AsyncJob(None, b"d" * 16, JobForm.CALL, "f")  # type: ignore[arg-type]
    assert isinstance(job.future, concurrent.futures.Future)
