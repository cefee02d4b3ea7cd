"""Jobs found again: which execution is the result, and what may be settled."""

import asyncio
import hashlib
import os
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager.attach import AttachedJob, Finder, chunks_done, in_order, parse_job_id
from alpyne_grid.manager.errors import UnsafeResult
from alpyne_grid.manager.journal import Journal, Kind, Record

from alpyne_proto.codec import encode_row
from alpyne_proto.errors import ErrorCode, LocalProtocolError, RequestFailed
from alpyne_proto.messages import program as rows
from alpyne_proto.messages.compute import (
    Cause,
    JobEvent,
    JobForm,
    JobRow,
    JobState,
    ListJobs,
    ResultCodec,
    ResultFollows,
)

A, B = b"A" * 32, b"B" * 32


def value(text: str) -> bytes:
    return encode_row(rows.Value(), pickle.dumps(text))


class FakeLink:
    def __init__(self, key: bytes) -> None:
        self.key, self.name, self.trusted, self.is_up = key, key[:1].decode(), True, True


class FakeCompute:
    """A node: its rows and results, and what it was told."""

    def __init__(self, key: bytes) -> None:
        self.key, self.link = key, FakeLink(key)
        self.rows: list[JobRow] = []
        self.results: dict[tuple[bytes, int, int], bytes] = {}
        self.settled: list[tuple[bytes, int, int]] = []

    async def jobs(self, query: ListJobs) -> list[JobRow]:
        return [row for row in self.rows if query.job_id in (b"", row.job_id)]

    async def result(self, job_id: bytes) -> tuple[ResultFollows, bytes]:
        for (known, allocation, attempt), body in self.results.items():
            if known == job_id:
                digest = hashlib.sha256(body).digest()
                head = ResultFollows(JobState.DONE, allocation, attempt, len(body), digest)
                return head, body
        raise RequestFailed(ErrorCode.NOT_FOUND, "no such job")

    def settle(self, job_id: bytes, allocation: int, attempt: int) -> None:
        self.settled.append((job_id, allocation, attempt))

    def has(
        self, job_id: bytes, allocation: int, state: JobState, text: str = "", **more: Any
    ) -> None:
        self.rows.append(
            JobRow(job_id, state, allocation, 1, JobForm.CALL, result_bytes=99, **more)
        )
        self.results[job_id, allocation, 1] = value(text)


class FakeCore:
    def __init__(self) -> None:
        self.compute = {key: FakeCompute(key) for key in (A, B)}
        self.links = {key: node.link for key, node in self.compute.items()}
        self.jobs: dict[bytes, Any] = {}
        self.watchers: dict[bytes, Any] = {}
        self.settles = True

        class Own:
            id = b"ownownow"

        self.journal = Own()

    async def watch(self, journal: bytes, watcher: Any) -> None:
        self.watchers[journal] = watcher

    def node_name(self, key: bytes | None) -> str:
        return key[:1].decode() if key else ""


Test = Callable[[FakeCore, Finder, Journal], Awaitable[None]]


def run(folder: Path, test: Test, *, alive: bool = False) -> Journal:
    """Run a test beside a journal whose process has ended, or lives."""
    journal = Journal.create(folder, b"a" * 32, os.urandom)
    if not alive:
        journal.close()

    async def main() -> None:
        core: Any = FakeCore()
        finder = Finder(core, folder)
        try:
            await asyncio.wait_for(test(core, finder, journal), 10)
        finally:
            finder.close()

    asyncio.run(main())
    return journal


def of(journal: Journal, counter: int = 1) -> bytes:
    return journal.id + counter.to_bytes(8, "big")


def known(journal: Journal, folder: Path) -> dict[int, Record]:
    again = Journal.adopt(folder, journal.id)
    assert again is not None
    settled = again.known.settled
    again.close()
    return settled


def test_finished_job_gives_its_result_and_is_settled_in_its_journal(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.DONE, "value")
        job = await finder.job(of(journal).hex())
        assert await job.result() == "value"
        assert core.compute[A].settled == [(of(journal), 1, 1)]

    journal = run(tmp_path, test)
    assert known(journal, tmp_path)[1][:4] == (Kind.SETTLED, 1, 1, 1)


def test_settled_execution_is_the_result_though_a_higher_one_has_finished(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.DONE, "settled", settled=True)
        core.compute[B].has(of(journal), 2, JobState.DONE, "other")
        assert await (await finder.job(of(journal))).result() == "settled"

    run(tmp_path, test)


def test_highest_finished_execution_is_the_result_when_none_is_settled(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.DONE, "first")
        core.compute[B].has(of(journal), 2, JobState.DONE, "second")
        assert await (await finder.job(of(journal))).result() == "second"

    run(tmp_path, test)


def test_journal_decides_before_any_mark(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, b"a" * 32, os.urandom)
    done: list[Any] = []
    journal.append([Record(Kind.SETTLED, 1, 2, 1)], done.append)
    journal.close()
    assert done == [None]

    async def main() -> None:
        core: Any = FakeCore()
        core.compute[A].has(of(journal), 1, JobState.DONE, "marked", settled=True)
        core.compute[B].has(of(journal), 2, JobState.DONE, "journalled")
        finder = Finder(core, tmp_path)
        assert await (await finder.job(of(journal))).result() == "journalled"
        finder.close()

    asyncio.run(main())


def test_running_job_gives_its_result_when_its_node_pushes_it(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.RUNNING)
        job = await finder.job(of(journal))
        waiting = asyncio.ensure_future(job.result())
        while not core.watchers:
            await asyncio.sleep(0.001)
        event = JobEvent(1, of(journal), 1, 2, JobState.DONE, inline=True)
        core.watchers[journal.id](core.compute[A], [(event, value("pushed"))])
        assert await waiting == "pushed"
        assert job.epoch == (1, 2)

    run(tmp_path, test)


def test_result_that_cannot_be_fetched_is_asked_for_again(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.DONE, "late")
        results, core.compute[A].results = core.compute[A].results, {}
        waiting = asyncio.ensure_future((await finder.job(of(journal))).result())
        await asyncio.sleep(0.05)
        core.compute[A].results = results
        assert await waiting == "late"

    run(tmp_path, test)


def test_nothing_is_settled_while_the_jobs_manager_lives(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.DONE, "value")
        assert await (await finder.job(of(journal))).result() == "value"
        assert core.compute[A].settled == []

    journal = run(tmp_path, test, alive=True)
    journal.close()
    assert known(journal, tmp_path) == {}


def test_job_of_another_home_is_settled_at_its_node(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        foreign = b"elsewher" + bytes(8)
        core.compute[A].has(foreign, 1, JobState.DONE, "value")
        assert await (await finder.job(foreign)).result() == "value"
        assert core.compute[A].settled == [(foreign, 1, 1)]

    run(tmp_path, test)


def test_pickle_of_a_node_that_is_not_trusted_here_is_refused(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.DONE, "x", codec=ResultCodec.PICKLE)
        core.compute[A].link.trusted = False
        with pytest.raises(UnsafeResult, match="not trusted here"):
            await (await finder.job(of(journal))).result()

    run(tmp_path, test)


def test_failed_job_raises_when_it_is_found_again(tmp_path: Path) -> None:
    async def test(core: FakeCore, finder: Finder, journal: Journal) -> None:
        core.compute[A].has(of(journal), 1, JobState.FAILED, cause=Cause.CRASH)
        core.compute[A].results[of(journal), 1, 1] = b""
        error = await (await finder.job(of(journal))).exception()
        assert error is not None and type(error).__name__ == "JobCrashed"

    run(tmp_path, test)


def row(
    number: int,
    group: bytes = b"",
    index: int = 0,
    at: int = 0,
    state: JobState = JobState.DONE,
    items: int = 0,
) -> JobRow:
    return JobRow(
        bytes(8) + number.to_bytes(8, "big"), state, 1, 1, JobForm.MAP, group=group,
        index=index, submitted_at_ms=at, items=items,
    )  # fmt: skip


def attached(*found: JobRow) -> list[AttachedJob]:
    core: Any = FakeCore()
    return [AttachedJob(Finder(core, Path()), {A: one}) for one in found]


def test_chunks_of_a_map_stand_together_in_order() -> None:
    jobs = attached(
        row(1, b"m" * 16, 20, at=5),
        row(2, at=6),
        row(3, b"m" * 16, 0, at=7),
        row(4, b"n" * 16, at=4),
    )
    assert [job.job_id[-1] for job in in_order(jobs)] == [4, 3, 1, 2]


def test_chunks_that_failed_count_as_missing() -> None:
    jobs = attached(
        row(1, index=0, items=4),
        row(2, index=4, items=4, state=JobState.FAILED),
        row(3, index=8, items=4, state=JobState.RUNNING),
        row(4, index=12),
    )
    assert {first: count for first, (_, count) in chunks_done(jobs).items()} == {0: 4, 8: 4}


@pytest.mark.parametrize("text", ["", "xyz", "00" * 15, "00" * 17, 7])
def test_job_id_that_is_none_is_refused(text: Any) -> None:
    with pytest.raises(LocalProtocolError, match="32 hex digits"):
        parse_job_id(text)
