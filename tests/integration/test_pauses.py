"""Jobs that are suspended and resumed, through real daemons at level 0."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from alpyne_grid.manager import (
    AsyncManager,
    Job,
    JobCancelled,
    JobState,
    Manager,
    NodeUnreachable,
    NoNodeFits,
)
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster

pytestmark = pytest.mark.integration
MIB = 1 << 20
TICKS_S = 0.5  # what a job that runs writes a dozen ticks in, and one that stands still none


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("pauses") / "cluster", create_account) as made:
        made.start("compute", "--slots", "1")
        yield made


@pytest.fixture(scope="module")
def grid(cluster: LocalCluster) -> Iterator[Manager]:
    with Manager.connect(cluster.addresses, home=cluster.home) as made:
        yield made


@pytest.fixture
def begin(grid: Manager, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Submits jobs that tick, and ends those that are left."""
    begun = []

    def submit(name: str = "ticks", **options: Any) -> Job:
        begun.append(grid.submit(tick, str(tmp_path / name), **options))
        return begun[-1]

    yield submit
    for job in begun:
        job.cancel().wait(20)


def tick(path: str) -> None:
    """Write a byte to ``path`` again and again, with a child process that does so too."""
    import subprocess

    subprocess.Popen(["sh", "-c", 'while :; do printf c >> "$0"; sleep 0.03; done', path])
    while True:
        with open(path, "a") as file:
            file.write("p")
        time.sleep(0.03)


def ends_after(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


def ticks(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def stands_still(path: Path) -> bool:
    before = ticks(path)
    time.sleep(TICKS_S)
    return ticks(path) == before


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, "waited 20 s"
        time.sleep(0.02)


def test_suspended_job_stands_still_with_its_children_and_goes_on_when_resumed(
    begin: Callable[..., Job], tmp_path: Path
) -> None:
    job, path = begin(), tmp_path / "ticks"
    wait_until(lambda: ticks(path) > 4)
    assert job.suspend().wait(20) is JobState.SUSPENDED
    before = ticks(path)
    time.sleep(TICKS_S)
    assert ticks(path) == before
    assert job.state is JobState.SUSPENDED
    assert job.resume().wait(20) is JobState.RUNNING
    wait_until(lambda: ticks(path) > before + 4)


def test_timeout_does_not_go_on_while_a_job_is_suspended(grid: Manager) -> None:
    job = grid.submit(ends_after, 1.0, timeout="1.8s")
    wait_until(lambda: job.state is JobState.RUNNING)
    job.suspend().wait(20)
    time.sleep(2.0)
    job.resume()
    assert job.result(20) == "done"


def test_job_that_waits_is_suspended_as_soon_as_it_runs(
    begin: Callable[..., Job], tmp_path: Path
) -> None:
    first, second = begin("first"), begin("second")
    second.accepted(20)
    wait_until(lambda: ticks(tmp_path / "first") > 0)
    asked = second.suspend()
    assert second.state is JobState.QUEUED
    first.cancel().wait(20)
    assert asked.wait(20) is JobState.SUSPENDED
    second.resume().wait(20)
    wait_until(lambda: ticks(tmp_path / "second") > 0)


def test_suspended_job_is_cancelled_with_all_its_processes(
    begin: Callable[..., Job], tmp_path: Path
) -> None:
    job, path = begin(), tmp_path / "ticks"
    wait_until(lambda: ticks(path) > 4)
    job.suspend().wait(20)
    receipt = job.cancel().wait(20)
    assert (receipt.ended >= 2, receipt.left) == (True, 0)
    with pytest.raises(JobCancelled):
        job.result()
    assert str(path) not in [word for p in psutil.process_iter() for word in words_of(p)]


def test_job_is_suspended_and_resumed_by_another_program_of_the_account(
    cluster: LocalCluster, begin: Callable[..., Job]
) -> None:
    job = begin()
    job.accepted(20)

    async def from_elsewhere() -> None:
        async with AsyncManager.connect(cluster.addresses, home=cluster.home) as other:
            found = await other.job(job.id)
            assert await found.suspend() is JobState.SUSPENDED
            wait_until_here = asyncio.to_thread(wait_until, lambda: job.state is found.state)
            await wait_until_here
            assert await found.resume() is JobState.RUNNING

    asyncio.run(asyncio.wait_for(from_elsewhere(), 30))
    wait_until(lambda: job.state is JobState.RUNNING)


def move_bytes(size: int) -> tuple[int, int]:
    """Write a file for good and read it from where it is; return what the kernel counted."""
    import os
    import tempfile

    def counted() -> dict[str, int]:
        with open("/proc/self/io") as file:
            return {name: int(number) for name, number in (line.split(": ") for line in file)}

    before = counted()
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        file.read()
    after = counted()
    return tuple(after[name] - before[name] for name in ("read_bytes", "write_bytes"))  # type: ignore[return-value]


def test_usage_of_a_job_tells_what_it_moved_and_whose_peak_it_is(
    grid: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The yardstick is a file of this process beside the node's folder."""
    monkeypatch.chdir(tmp_path)
    on_disk = move_bytes(MIB)
    job = grid.submit(move_bytes, 4 * MIB)
    counted = job.result(20)
    usage = job.usage
    assert usage is not None
    for own, by_job, told in zip(
        on_disk, counted, (usage.disk_read_bytes, usage.disk_written_bytes), strict=True
    ):
        if own:  # a file system in memory has none
            assert by_job >= 4 * MIB
        assert told >= by_job
    assert usage.peak_memory_bytes > 1 << 20
    assert isinstance(usage.peak_is_shared, bool)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"processes": 10}, "does not enforce a limit on processes"),
        ({"disk": "1MiB"}, "does not enforce a limit on disk"),
        ({"network": "lan"}, "does not list the network 'lan' for jobs"),
        ({"image": "science"}, "does not list the image 'science' for jobs"),
    ],
)
def test_job_that_asks_for_what_no_node_keeps_fails_with_the_reason_of_each(
    grid: Manager, cluster: LocalCluster, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(NoNodeFits, match=why):
        grid.submit(ends_after, 0.0, **options).result(20)


def is_out_of_reach(job: Job) -> bool:
    """Whether a job cannot be suspended because its node is not connected, and says so."""
    try:
        job.suspend()
    except NodeUnreachable as error:
        assert "is not connected" in str(error)
        return True
    return False


@pytest.mark.crash
def test_job_runs_again_after_a_restart_of_its_node_and_is_suspended_for_whom_it_concerns(
    tmp_path: Path,
) -> None:
    with LocalCluster(tmp_path / "cluster", create_account) as cluster:
        daemon = cluster.start("compute", "--slots", "2")
        with Manager.connect(cluster.addresses, home=cluster.home, lost_after="30s") as grid:
            mine = grid.submit(tick, str(tmp_path / "mine")).accepted(20)
            wait_until(lambda: ticks(tmp_path / "mine") > 0)
            mine.suspend().wait(20)
            with Manager.connect(cluster.addresses, home=cluster.home) as gone:
                left = gone.submit(tick, str(tmp_path / "left")).accepted(20)
                wait_until(lambda: ticks(tmp_path / "left") > 0)
                left.suspend().wait(20)
            daemon.kill()
            wait_until(lambda: is_out_of_reach(mine))
            before = ticks(tmp_path / "left")
            daemon.start()
            # Nobody asks this daemon to suspend the one; the other's program still wants it.
            wait_until(lambda: ticks(tmp_path / "left") > before + 4)
            with Manager.connect(cluster.addresses, home=cluster.home) as other:
                wait_until(lambda: other.job(mine.id).state is JobState.SUSPENDED)
            assert stands_still(tmp_path / "mine")
            grid.job(left.id).cancel().wait(20)
            mine.cancel().wait(20)
