"""What a program asks of isolated nodes, from its keyword to the error that names it."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alpyne_grid.manager import JobState, LimitExceeded, Manager, NoNodeFits
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster

from alpyne_proto.messages.compute import Cause

pytestmark = pytest.mark.integration


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.bubblewrap, id="level-1"),
        pytest.param("docker", marks=pytest.mark.docker, id="level-2"),
    ],
)
def grid(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Manager]:
    """A manager of one isolated node."""
    options = ["--level", "1"]
    if request.param == "docker":
        engine = request.getfixturevalue("engine")
        options = ["--backend", "docker", "--docker-host", engine.host, "--image", engine.image]
    with LocalCluster(tmp_path_factory.mktemp("limits") / "cluster", create_account) as cluster:
        cluster.start("compute", "--slots", "2", *options)
        with Manager.connect(cluster.addresses, home=cluster.home) as made:
            yield made


def start_many(count: int) -> int:
    import subprocess

    return len([subprocess.Popen(["sleep", "30"]) for _ in range(count)])


def hoard(size: int) -> int:
    return len(bytearray(b"x" * size))


def fill(size: int) -> int:
    import os
    import tempfile

    with tempfile.TemporaryFile() as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
        return file.tell()


def spin(seconds: float) -> float:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return seconds


@pytest.mark.parametrize(
    ("work", "amount", "limit", "cause"),
    [
        (start_many, 100, {"processes": 20}, Cause.PROCESSES),
        (hoard, 400 << 20, {"memory": "100MiB"}, Cause.MEMORY),
        (fill, 64 << 20, {"disk": "16MiB"}, Cause.DISK),
    ],
    ids=["processes", "memory", "disk"],
)
def test_job_over_a_limit_ends_with_its_name_and_with_what_to_do(
    grid: Manager, work: Callable[[int], int], amount: int, limit: dict[str, Any], cause: Cause
) -> None:
    neighbour = grid.submit(spin, 1.0)
    job = grid.submit(work, amount, **limit)
    with pytest.raises(LimitExceeded, match=f"raise {next(iter(limit))}= of the job") as caught:
        job.result(60)
    assert (caught.value.cause, job.state) == (cause, JobState.LIMIT)
    assert neighbour.result(60) == 1.0


@pytest.mark.parametrize(
    ("work", "amount", "limit"),
    [
        (start_many, 5, {"processes": 40}),
        (hoard, 20 << 20, {"memory": "200MiB"}),
        (fill, 8 << 20, {"disk": "64MiB"}),
    ],
    ids=["processes", "memory", "disk"],
)
def test_job_within_its_limit_is_well(
    grid: Manager, work: Callable[[int], int], amount: int, limit: dict[str, Any]
) -> None:
    assert grid.submit(work, amount, **limit).result(60) == amount


def burn(cpu_s: float) -> float:
    """Use processor time, however busy the machine is."""
    until = time.process_time() + cpu_s
    while time.process_time() < until:
        pass
    return cpu_s


def test_usage_of_a_job_is_what_the_kernel_counted(grid: Manager) -> None:
    job = grid.submit(burn, 0.3)
    job.result(60)
    usage = job.usage
    assert usage is not None
    assert 200 < usage.cpu_ms < 2000
    assert 1 << 20 < usage.peak_memory_bytes < 1 << 30


def test_isolated_job_is_suspended_and_resumed(grid: Manager) -> None:
    job = grid.submit(spin, 1.0)
    assert job.suspend().wait(60) is JobState.SUSPENDED
    assert job.resume().wait(60) is JobState.RUNNING
    assert job.result(60) == 1.0


@pytest.mark.parametrize("named", [{"network": "lan"}, {"image": "nobody/has:it"}])
def test_job_that_asks_for_what_is_not_listed_is_told_what_is(
    grid: Manager, named: dict[str, str]
) -> None:
    ((kind, name),) = named.items()
    with pytest.raises(NoNodeFits, match=rf"does not list the {kind} '{name}' for jobs \({kind}s:"):
        grid.submit(spin, 0.0, **named).result(60)
