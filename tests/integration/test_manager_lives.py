"""What becomes of maps and jobs: dropped, cancelled from elsewhere, found by tag, kept waiting."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import AsyncManager, JobCancelled, JobRaised, JobState, Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("lives") / "cluster", create_account) as made:
        made.start("compute", "--slots", "2")
        yield made


@pytest.fixture(scope="module")
def grid(cluster: LocalCluster) -> Iterator[Manager]:
    with Manager.connect(cluster.addresses, home=cluster.home) as made:
        yield made


def double(n: int) -> int:
    return n * 2


def add(a: str, b: str) -> str:
    return a + b


def inverse(n: int) -> float:
    return 1 / n


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def wait_until(is_true: Any) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, "waited 20 s"
        time.sleep(0.02)


def test_reduce_keeps_order_and_takes_the_results_of_a_map(grid: Manager) -> None:
    parts = grid.map(str, range(300))
    assert grid.reduce(add, parts, fan_in=7) == "".join(map(str, range(300)))
    assert grid.reduce(add, ["a"]) == "a"
    assert grid.reduce(add, [], "start") == "start"
    with pytest.raises(TypeError):
        grid.reduce(add, [])


def test_reduce_raises_what_its_function_raises(grid: Manager) -> None:
    with pytest.raises(JobRaised, match="TypeError"):
        grid.reduce(add, ["a", 1, "b"])


def test_callbacks_are_called_once_per_item_for_results_and_failures(grid: Manager) -> None:
    finished: dict[int, float] = {}
    failed: dict[int, Exception] = {}
    results = grid.map(
        inverse,
        [1, 2, 0, 4],
        chunk=2,
        return_exceptions=True,
        on_finish=finished.__setitem__,
        on_failure=failed.__setitem__,
    )
    values = list(results)
    assert finished == {0: 1.0, 1: 0.5, 3: 0.25}
    assert list(failed) == [2] and isinstance(failed[2].__cause__, ZeroDivisionError)
    assert values == [1.0, 0.5, failed[2], 0.25]


def test_map_is_cancelled_when_nobody_wants_its_results_any_more(grid: Manager) -> None:
    results = grid.map(sleep, [0.0, *[30.0] * 10], chunk=1, tags=["dropped"])
    assert next(results) == 0.0
    wait_until(lambda: JobState.RUNNING in {job.state for job in grid.jobs(tag="dropped")})
    del results
    gc.collect()
    wait_until(lambda: all(job.state >= JobState.DONE for job in grid.jobs(tag="dropped")))


def test_map_is_cancelled_when_its_manager_is_closed(cluster: LocalCluster, grid: Manager) -> None:
    with Manager.connect(cluster.addresses, home=cluster.home) as other:
        results = other.map(sleep, [0.0, *[30.0] * 10], chunk=1, tags=["closed"])
        next(results)
        wait_until(lambda: JobState.RUNNING in {job.state for job in grid.jobs(tag="closed")})
    assert all(job.state >= JobState.DONE for job in grid.jobs(tag="closed"))


def test_journal_goes_when_all_is_settled_and_stays_while_a_job_runs(
    cluster: LocalCluster,
) -> None:
    journals = cluster.home / "journals"
    before = set(journals.iterdir())
    with Manager.connect(cluster.addresses, home=cluster.home) as one:
        one.submit(double, 1).result(20)
    assert set(journals.iterdir()) == before
    with Manager.connect(cluster.addresses, home=cluster.home) as other:
        job = other.submit(sleep, 1.0).accepted(20)
    left = set(journals.iterdir()) - before
    assert [path.stem for path in left] == [job.id[:16]]
    with Manager.connect(cluster.addresses, home=cluster.home) as again:
        assert again.job(job.id).result(20) == 1.0


def test_job_is_cancelled_by_its_id_from_another_manager(
    cluster: LocalCluster, grid: Manager
) -> None:
    job = grid.submit(sleep, 60)
    wait_until(lambda: job.state is JobState.RUNNING)
    with Manager.connect(cluster.addresses, home=cluster.home) as other:
        receipt = other.job(job.id).cancel().wait(20)
        assert receipt.confirmed and receipt.ended >= 1
    with pytest.raises(JobCancelled):
        job.result(20)


def test_chunks_found_by_tag_give_values_and_errors_in_order(grid: Manager) -> None:
    list(grid.map(inverse, [1, 0, 4, 5], chunk=2, tags=["chunks"], return_exceptions=True))
    first, second = grid.jobs(tag="chunks")
    one, error = first.result(20)
    assert (one, second.result(20)) == (1.0, [0.25, 0.2])
    assert isinstance(error, JobRaised)


def test_program_may_call_from_many_threads_at_once(grid: Manager) -> None:
    wrong: list[int] = []

    def work(base: int) -> None:
        for number in range(base, base + 20):
            if grid.submit(double, number).result(60) != number * 2:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n * 100,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_asynchronous_manager_finds_jobs_again_too(cluster: LocalCluster) -> None:
    async def main() -> None:
        async with AsyncManager.connect(cluster.addresses, home=cluster.home) as grid:
            job = grid.submit(double, 21)
            assert await job == 42
            assert await (await grid.job(job.id)).result() == 42
            assert job.epoch == (1, 1)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_job_waits_for_its_node_when_asked_to(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "cluster", create_account) as own:
        nodes = [own.add("compute", "--slots", "1") for _ in range(2)]
        own.start_all(nodes)
        with Manager.connect(own.addresses, home=own.home, lost_after="0.3s") as grid:
            job = grid.submit(sleep, 1.0, on_lost="wait").accepted(20)
            address = next(node.address for node in grid.nodes() if node.name == job.node)
            here = next(daemon for daemon in nodes if daemon.address == address)
            here.kill()
            time.sleep(1.0)
            here.start()
            assert job.result(20) == 1.0
            statistics = grid.statistics()
            assert (statistics.moved, statistics.done) == (0, 1)
