"""Orders to a real node: jobs suspended and resumed, and what of a job's spec its back end gets."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from alpyne_grid.nodes.compute import node as node_module
from alpyne_grid.nodes.compute.backends.base import Task, TaskSink
from alpyne_grid.nodes.compute.backends.process import ProcessBackend

from alpyne_proto.errors import ErrorCode
from alpyne_proto.messages.compute import (
    CancelJobs,
    JobRow,
    JobState,
    ListJobs,
    ResumeJobs,
    SuspendJobs,
    Verdict,
)

NodeOf = Callable[..., AbstractAsyncContextManager[Any]]
FOR_EVER = "def main():\n    while True: pass\n"


class Walled(ProcessBackend):
    """A back end that says it keeps every limit, and notes what it is to run."""

    tasks: list[Task] = []  # noqa: RUF012 - the test's record
    images = ("plain", "science")
    networks = ("lan",)

    @property
    def limits(self) -> Any:
        return {**super().limits, "processes": "kernel", "disk": "kernel"}

    def run(self, task: Task, sink: TaskSink) -> None:
        Walled.tasks.append(task)
        super().run(task, sink)


class Unstoppable(ProcessBackend):
    """A back end that cannot suspend; it must not be asked to."""

    suspends = "none"  # type: ignore[assignment]

    def suspend(self, execution: Any) -> None:
        raise AssertionError("suspends is none")


@pytest.fixture
def walled(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """What the back end of a node of this test was told to run."""
    monkeypatch.setattr(Walled, "tasks", [])
    monkeypatch.setattr(node_module, "find_backend", lambda name: Walled)
    return Walled.tasks


def test_node_hands_limits_network_and_image_to_its_back_end(
    node_of: NodeOf, manager: Any, walled: list[Task]
) -> None:
    asked = {"processes": 9, "disk_bytes": 1 << 20, "network": "lan", "image": "science"}

    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            assert await manager.value(await manager.submit("def main(): return 7", **asked)) == 7

    asyncio.run(main())
    (task,) = walled
    assert {name: getattr(task, name) for name in asked} == asked


def test_node_refuses_an_image_that_it_does_not_list_and_names_those_that_it_does(
    node_of: NodeOf, manager: Any, program: Callable[[str], bytes], walled: list[Task]
) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            spec = manager.spec(image="big")
            (answer,) = await manager.send((spec, program("def main(): return 1")))
            assert (answer.verdict, answer.code) == (Verdict.REFUSED, ErrorCode.UNSUPPORTED)
            assert "image 'big' for jobs (images: plain, science)" in answer.text

    asyncio.run(main())
    assert walled == []


def test_node_suspends_and_resumes_a_job_and_tells_of_it(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = await manager.submit(FOR_EVER)
            await manager.until(job, JobState.RUNNING)
            await manager.connection.interrupt(SuspendJobs((job.job_id,)))
            await manager.until(job, JobState.SUSPENDED)
            await manager.connection.interrupt(ResumeJobs((job.job_id,)))
            await manager.until(job, JobState.RUNNING)
            await manager.connection.interrupt(SuspendJobs((job.job_id,)))
            await manager.until(job, JobState.SUSPENDED)
            await manager.connection.interrupt(CancelJobs((job.job_id,)))
            end = await manager.until(job)
            assert (end.state, end.left) == (JobState.KILLED, 0)

    asyncio.run(main())


def test_node_suspends_no_jobs_of_others(
    node_of: NodeOf, manager: Any, another: Callable[..., Any]
) -> None:
    async def main() -> None:
        other = another()
        async with node_of(manager, other) as node:
            await manager.dial(node)
            await other.dial(node)
            job = await manager.submit(FOR_EVER)
            await manager.until(job, JobState.RUNNING)
            await other.connection.interrupt(SuspendJobs((job.job_id,)))
            # Its own order comes later and is carried out first: the other one was for nobody.
            own = await manager.submit(FOR_EVER)
            await manager.connection.interrupt(SuspendJobs((own.job_id,)))
            await manager.until(own, JobState.SUSPENDED)
            rows = await manager.rows(ListJobs(), kind=JobRow)
            assert [row.state for row in rows] == [JobState.RUNNING, JobState.SUSPENDED]

    asyncio.run(main())


def test_node_passes_over_the_order_when_its_back_end_cannot_suspend(
    node_of: NodeOf, manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "find_backend", lambda name: Unstoppable)

    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = await manager.submit("def main(): return 7")
            await manager.connection.interrupt(SuspendJobs((job.job_id,)))
            assert await manager.value(job) == 7

    asyncio.run(main())


def test_restarted_node_runs_a_job_that_was_suspended(node_of: NodeOf, manager: Any) -> None:
    async def main() -> None:
        async with node_of(manager) as node:
            await manager.dial(node)
            job = await manager.submit(FOR_EVER)
            await manager.until(job, JobState.RUNNING)
            await manager.connection.interrupt(SuspendJobs((job.job_id,)))
            await manager.until(job, JobState.SUSPENDED)
        async with node_of(manager) as node:
            await manager.dial(node)
            assert (await manager.until(job, JobState.RUNNING, attempt=2)).attempt == 2

    asyncio.run(main())
