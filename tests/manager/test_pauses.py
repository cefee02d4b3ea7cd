"""Handles of jobs that are suspended and resumed: who may, what is waited for, what is refused."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager.attach import AttachedJob, Finder
from alpyne_grid.manager.core import GridCore
from alpyne_grid.manager.errors import CannotSuspend, NodeUnreachable, ResultTimeout
from alpyne_grid.manager.grid_events import Plan, ResumeAsked
from alpyne_grid.manager.grid_jobs import GridJob
from alpyne_grid.manager.jobs import AsyncJob
from alpyne_grid.manager.placement import Node, NodeFacts

from alpyne_proto.messages.compute import (
    JobEvent,
    JobForm,
    JobRow,
    JobState,
    ResumeJobs,
    SuspendJobs,
)

A, B = b"A" * 32, b"B" * 32
JOB = b"journal." + bytes(8)
NOT_DONE = 0.05  # s: long enough to see that nothing happens


class Owner:
    """A manager that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bool]] = []

    def pause_job(self, job: AsyncJob, *, pause: bool) -> None:
        self.asked.append((job.job_id, pause))

    def node_name(self, key: bytes | None) -> str:
        return "node"


def job_of(owner: Any) -> AsyncJob:
    return AsyncJob(owner, JOB, JobForm.CALL, "f")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_suspend_and_resume_reach_the_manager() -> None:
    owner = Owner()
    job = job_of(owner)
    job.suspend()
    job.resume()
    assert owner.asked == [(JOB, True), (JOB, False)]


def test_wait_returns_once_the_job_is_suspended_and_once_it_is_no_longer() -> None:
    async def test() -> None:
        job = job_of(Owner())
        waiting = asyncio.ensure_future(job.suspend().wait())
        for state in (JobState.QUEUED, JobState.RUNNING):
            job.took_place(state, A, accepted=True)
            await asyncio.sleep(0)
            assert not waiting.done()
        job.took_place(JobState.SUSPENDED, A, accepted=True)
        assert await waiting is JobState.SUSPENDED
        resumed = asyncio.ensure_future(job.resume().wait())
        await asyncio.sleep(0)
        assert not resumed.done()
        job.took_place(JobState.RUNNING, A, accepted=True)
        assert await resumed is JobState.RUNNING

    run(test())


def test_wait_says_how_the_job_stands_when_it_takes_too_long() -> None:
    async def test() -> None:
        job = job_of(Owner())
        with pytest.raises(ResultTimeout, match=r"still QUEUED after 0.05 s; it stays asked for"):
            await job.suspend().wait(NOT_DONE)

    run(test())


def test_wait_returns_when_the_job_has_ended_instead() -> None:
    async def test() -> None:
        job = job_of(Owner())
        waiting = asyncio.ensure_future(job.suspend().wait())
        await asyncio.sleep(0)
        job.took_place(JobState.DONE, A, accepted=True)
        assert await waiting is JobState.DONE

    run(test())


# --- what a manager refuses -------------------------------------------------------------------


class Table:
    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.key: node for node in nodes}
        self.jobs: dict[bytes, GridJob] = {}


class Core:
    """As much of a GridCore as a check needs."""

    def __init__(self, suspend: str | None, *, up: bool = True) -> None:
        attributes = {} if suspend is None else {"suspend": suspend}
        self.table = Table(Node(A, NodeFacts("worker", 1, attributes), up=up))
        self.soon: list[Any] = []

    def call_soon(self, function: Any) -> None:
        self.soon.append(function)

    def node_name(self, key: bytes) -> str:
        return "worker"

    def check_pausable(self, job_id: bytes, key: bytes) -> None:
        GridCore.check_pausable(self, job_id, key)  # type: ignore[arg-type]


def check(core: Any) -> None:
    GridCore.check_pausable(core, JOB, A)


@pytest.mark.parametrize("how", ["kernel", "signals"])
def test_node_that_can_suspend_is_asked(how: str) -> None:
    check(Core(how))


@pytest.mark.parametrize("how", ["none", None])
def test_node_that_cannot_suspend_is_named(how: str | None) -> None:
    with pytest.raises(CannotSuspend, match=r"its node worker cannot suspend jobs"):
        check(Core(how))


def test_node_that_is_not_connected_is_named() -> None:
    with pytest.raises(NodeUnreachable, match=r"its node worker is not connected"):
        check(Core("kernel", up=False))


def waiting_job(core: Any) -> None:
    """Ask for a pause of a job that has no node yet."""
    core.table.jobs[JOB] = GridJob(Plan(JOB), 0.0)
    GridCore.pause_job(core, job_of(core), pause=True)


def test_job_without_a_node_is_asked_to_pause_where_a_node_of_the_pool_can() -> None:
    core = Core("kernel")
    waiting_job(core)
    assert len(core.soon) == 1


def test_job_without_a_node_is_refused_a_pause_where_no_node_of_the_pool_can() -> None:
    core = Core("none")
    with pytest.raises(CannotSuspend, match="no compute node that is known can suspend jobs"):
        waiting_job(core)
    assert core.soon == []


def test_resume_is_kept_for_when_the_node_is_back_while_it_is_away() -> None:
    core: Any = Core("kernel", up=False)
    core.table.jobs[JOB] = GridJob(Plan(JOB), 0.0)
    core.table.jobs[JOB].node = A
    with pytest.raises(NodeUnreachable):
        GridCore.pause_job(core, job_of(core), pause=True)
    core.handled = []
    core.handle_added = core.handled.append
    GridCore.pause_job(core, job_of(core), pause=False)
    for function in core.soon:
        function()
    assert core.handled == [ResumeAsked(JOB)]


# --- jobs found again -------------------------------------------------------------------------


class FakeCompute:
    def __init__(self, key: bytes) -> None:
        self.key = key
        self.orders: list[tuple[type[Any], list[bytes]]] = []

    def order(self, what: type[Any], job_ids: list[bytes]) -> None:
        self.orders.append((what, job_ids))


class FinderCore(Core):
    """A core with two nodes that have the job."""

    def __init__(self) -> None:
        super().__init__("kernel")
        self.table.nodes[B] = Node(B, NodeFacts("other", 1, {"suspend": "kernel"}))
        self.compute = {key: FakeCompute(key) for key in (A, B)}
        self.watchers: dict[bytes, Any] = {}

        class Own:
            id = b"ownownow"

        self.journal = Own()

    async def watch(self, journal: bytes, watcher: Any) -> None:
        self.watchers[journal] = watcher


def found_again(core: Any, **states: JobState) -> AttachedJob:
    rows = {
        name.encode() * 32: JobRow(JOB, state, number, 1, JobForm.CALL)
        for number, (name, state) in enumerate(states.items(), 1)
    }
    return AttachedJob(Finder(core, Path()), rows)


def test_job_found_again_is_suspended_at_each_node_where_it_is_not_over() -> None:
    core = FinderCore()
    job = found_again(core, A=JobState.KILLED, B=JobState.RUNNING)
    job.suspend()
    job.resume()
    assert core.compute[A].orders == []
    assert core.compute[B].orders == [(SuspendJobs, [JOB]), (ResumeJobs, [JOB])]


def test_job_found_again_tells_when_its_node_has_suspended_it() -> None:
    async def test() -> None:
        core = FinderCore()
        job = found_again(core, A=JobState.RUNNING)
        waiting = asyncio.ensure_future(job.suspend().wait())
        while not core.watchers:
            await asyncio.sleep(0)
        event = JobEvent(1, JOB, 1, 1, JobState.SUSPENDED)
        core.watchers[JOB[:8]](core.compute[A], [(event, b"")])
        assert await waiting is JobState.SUSPENDED
        assert job.needs_following  # it was not fetched: its result stays for whoever waits

    run(test())


def test_job_found_again_that_is_over_is_left_as_it_is() -> None:
    async def test() -> None:
        core = FinderCore()
        job = found_again(core, A=JobState.DONE)
        assert await job.suspend() is JobState.DONE
        assert core.compute[A].orders == []

    run(test())


def test_job_found_again_is_not_suspended_at_a_node_that_cannot() -> None:
    core = FinderCore()
    core.table.nodes[A] = Node(A, NodeFacts("worker", 1, {}))
    with pytest.raises(CannotSuspend):
        found_again(core, A=JobState.RUNNING).suspend()
    assert core.compute[A].orders == []
