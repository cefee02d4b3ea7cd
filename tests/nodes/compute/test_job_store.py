"""Jobs in real SQLite files: what a restarted daemon finds."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.compute import job_events as ev
from alpyne_grid.nodes.compute.job import Job, Now, Settled
from alpyne_grid.nodes.compute.job_store import SCHEMA, JobStore
from alpyne_grid.nodes.store import CommitStore

from alpyne_proto.messages.compute import Cause, JobState, SettleRow

ALICE, BOB = b"a" * 32, b"b" * 32


class Daemon:
    """A table on a real store, without a back end."""

    def __init__(self, path: Path, bench: Any) -> None:
        self.store = CommitStore.open(path, (SCHEMA,))
        self.jobs = JobStore(self.store)
        self.bench = bench

    async def restore(self) -> tuple[Job, ...]:
        jobs = await self.jobs.load()
        await self.perform(self.bench.handle(ev.JobsRestored(jobs)))
        return jobs

    async def perform(self, effects: list[ev.Effect]) -> list[ev.Effect]:
        """Store what is to be stored; return the effects that follow."""
        followed: list[ev.Effect] = []
        for effect in effects:
            if isinstance(effect, ev.Store):
                done = asyncio.get_running_loop().create_future()
                self.jobs.write(effect.writes, done.set_result)
                assert await done is None
                self.bench.stores.remove(effect)
                followed += self.bench.handle(ev.BatchStored(effect.batch))
        return followed + (await self.perform(followed) if followed else [])


@pytest.fixture
def with_daemon(tmp_path: Path, make_bench: Any) -> Callable[..., None]:
    """Runs each function with a daemon of its own, one after the other, on the same file."""

    def run(*lives: Callable[[Daemon], Coroutine[Any, Any, None]], slots: int = 1) -> None:
        async def main() -> None:
            for life in lives:
                daemon = Daemon(tmp_path / "node.db", make_bench(slots=slots))
                try:
                    await daemon.restore()
                    await life(daemon)
                finally:
                    await daemon.store.close()

        asyncio.run(main())

    return run


def test_restart_finds_waiting_and_running_jobs_with_their_programs(
    with_daemon: Callable[..., None],
) -> None:
    async def first(daemon: Daemon) -> None:
        bench = daemon.bench
        specs = (bench.spec(1, tags=("x",), tickets=(b"ticket",)), bench.spec(2))
        await daemon.perform(bench.submit(*specs, payload=b"the program"))
        bench.started(bench.execution(1))

    async def second(daemon: Daemon) -> None:
        bench = daemon.bench
        one, two = bench.job(1), bench.job(2)
        assert (one.state, one.attempt) == (JobState.STARTING, 2)
        assert (two.state, two.attempt) == (JobState.QUEUED, 2)
        assert one.spec == bench.spec(1, tags=("x",), tickets=(b"ticket",))
        assert daemon.jobs.payload(one) == b"the program"

    async def third(daemon: Daemon) -> None:
        assert daemon.bench.job(1).attempt == 3  # each attempt was durable before it started

    with_daemon(first, second, third)


def test_restart_finds_results_and_marks(with_daemon: Callable[..., None]) -> None:
    async def first(daemon: Daemon) -> None:
        bench = daemon.bench
        await daemon.perform(bench.submit(bench.spec(1), bench.spec(2)))
        await daemon.perform(bench.run(bench.execution(1), data=b"value one"))
        failed = {"state": JobState.FAILED, "cause": Cause.EXCEPTION, "text": "boom"}
        await daemon.perform(bench.run(bench.execution(2), data=b"", **failed))
        row = SettleRow(bench.job_id(1), 1, 1)
        await daemon.perform(bench.handle(ev.JobsSettled(9, ALICE, (row,))))

    async def second(daemon: Daemon) -> None:
        one, two = daemon.bench.job(1), daemon.bench.job(2)
        assert (one.state, one.settled) == (JobState.DONE, Settled.DELIVERED)
        assert (two.state, two.cause, two.settled) == (
            JobState.FAILED,
            Cause.EXCEPTION,
            Settled.NO,
        )
        assert daemon.jobs.result(one) == b"value one"
        assert daemon.jobs.result(two) == b""
        assert one.sequence < two.sequence == daemon.bench.table.sequence(ALICE)

    with_daemon(first, second)


def test_restart_keeps_what_a_job_weighs(with_daemon: Callable[..., None]) -> None:
    weights: list[int] = []

    async def first(daemon: Daemon) -> None:
        bench = daemon.bench
        await daemon.perform(bench.submit(bench.spec(1), payload=b"p" * 1000))
        await daemon.perform(bench.run(bench.execution(1), data=b"v" * 500))
        weights.append(bench.table.bytes_kept(ALICE))

    async def second(daemon: Daemon) -> None:
        weights.append(daemon.bench.table.bytes_kept(ALICE))

    with_daemon(first, second)
    assert weights[0] == weights[1]


def test_restart_keeps_only_the_higher_allocation_when_both_are_stored(
    with_daemon: Callable[..., None],
) -> None:
    async def first(daemon: Daemon) -> None:
        bench = daemon.bench
        await daemon.perform(bench.submit(bench.spec(1)))
        await daemon.perform(bench.submit(bench.spec(1, allocation=2)))  # the lower still runs

    async def second(daemon: Daemon) -> None:
        (job,) = daemon.bench.table.all_jobs()
        assert job.spec.allocation == 2
        assert daemon.store.read("SELECT count(*) FROM jobs") == [(1,)]

    with_daemon(first, second)


def test_restart_keeps_two_accounts_jobs_of_one_id_apart(
    with_daemon: Callable[..., None],
) -> None:
    async def first(daemon: Daemon) -> None:
        bench = daemon.bench
        await daemon.perform(bench.submit(bench.spec(1, name="alice's")))
        await daemon.perform(bench.submit(bench.spec(1, name="bob's"), account=BOB))

    async def second(daemon: Daemon) -> None:
        bench = daemon.bench
        assert bench.job(1).spec.name == "alice's"
        assert bench.job(1, BOB).spec.name == "bob's"

    with_daemon(first, second)


def test_store_has_nothing_of_a_job_left_when_its_time_is_over(
    with_daemon: Callable[..., None],
) -> None:
    async def only(daemon: Daemon) -> None:
        bench = daemon.bench
        await daemon.perform(bench.submit(bench.spec(1)))
        await daemon.perform(bench.run(bench.execution(1)))
        await daemon.perform(bench.pass_time(8 * 86_400))
        for table in ("jobs", "job_attempts", "job_ends", "job_marks"):
            assert daemon.store.read(f"SELECT count(*) FROM {table}") == [(0,)]

    with_daemon(only)


def test_restart_deletes_rows_that_belong_to_no_job(with_daemon: Callable[..., None]) -> None:
    async def first(daemon: Daemon) -> None:
        bench = daemon.bench
        bench.submit(bench.spec(1))
        bench.failed()  # the job's row, but the end comes through
        bench.submit(bench.spec(2))
        bench.stores.clear()
        await daemon.store.commit([("INSERT INTO job_marks VALUES (77, 1, 0)", ())])

    async def second(daemon: Daemon) -> None:
        assert daemon.store.read("SELECT count(*) FROM job_marks") == [(0,)]

    with_daemon(first, second)


def test_restart_drops_results_whose_time_passed_while_the_node_was_off(
    with_daemon: Callable[..., None],
) -> None:
    async def first(daemon: Daemon) -> None:
        bench = daemon.bench
        await daemon.perform(bench.submit(bench.spec(1)))
        await daemon.perform(bench.run(bench.execution(1)))

    async def second(daemon: Daemon) -> None:
        table = daemon.bench.table
        later = Now(0.0, daemon.bench.wall_ms + 8 * 86_400_000)
        assert table.next_due_s(later) < 0
        (store,) = table.handle(ev.TimePassed(), later)
        assert store.writes == (ev.JobsDropped((1,)),)

    with_daemon(first, second)
