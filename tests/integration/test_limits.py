"""What a program asks of isolated nodes, from its keyword to the error that names it."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from alpyne_grid.manager import (
    Job,
    JobCancelled,
    JobState,
    JobTimeout,
    LimitExceeded,
    Manager,
    NoNodeFits,
)
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import LocalCluster
from parts.docker_engine import Engine

from alpyne_proto.messages.compute import Cause

pytestmark = pytest.mark.integration
STANDS_STILL_S = 0.4  # how long a suspension lasts; the jobs tell the time each 10 ms
_CONTAINER = re.compile("[0-9a-f]{64}")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.bubblewrap, id="level-1"),
        pytest.param("docker", marks=pytest.mark.docker, id="level-2"),
    ],
)
def engine_of_node(request: pytest.FixtureRequest) -> Engine | None:
    """The engine that has the node's containers; None at level 1."""
    return request.getfixturevalue("engine") if request.param == "docker" else None


@pytest.fixture(scope="module")
def grid(
    engine_of_node: Engine | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Manager]:
    """A manager of one isolated node."""
    options = ["--level", "1"]
    if engine_of_node is not None:
        host, image = engine_of_node.host, engine_of_node.image
        options = ["--backend", "docker", "--docker-host", host, "--image", image]
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


def tick(mark: str) -> None:
    """Print the time again and again, as does a child with ``mark`` on its command line."""
    import subprocess
    import sys

    code = """if True:
    import os, sys, time
    while True:
        os.write(1, b"%s %.6f\\n" % (sys.argv[1].encode(), time.monotonic()))
        time.sleep(0.01)"""
    subprocess.Popen([sys.executable, "-c", code, "child", mark])
    exec(code.replace("sys.argv[1]", "'job'"), {})


def heard_from_both(lines: Iterator[str], after: float) -> list[float]:
    """Read on until the job and its child told a time later than ``after``; return all times."""
    times, later = [], set()
    for line in lines:
        who, _, at = line.partition(" ")
        times.append(float(at))
        if times[-1] > after:
            later.add(who)
        if later == {"job", "child"}:
            return times
    raise AssertionError(f"the job ended; after {after} came {later}")


def processes_of(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if mark in (process.info["cmdline"] or []):
            found.append(process.pid)
    return found


def containers_of(pids: list[int]) -> set[str]:
    """Return the ids of the containers that processes are in."""
    groups = [Path(f"/proc/{pid}/cgroup").read_text() for pid in pids]
    return {found for text in groups for found in _CONTAINER.findall(text)}


def ticking(grid: Manager) -> tuple[Job, str, Iterator[str]]:
    """Return a job that ticks already, its mark, and what it prints on."""
    mark = f"tick-{secrets.token_hex(8)}"
    job = grid.submit(tick, mark)
    lines = job.output()
    heard_from_both(lines, 0.0)
    return job, mark, lines


def test_job_over_its_time_ends_with_that_name_beside_a_job_that_goes_on(grid: Manager) -> None:
    neighbour, _, lines = ticking(grid)
    job = grid.submit(spin, 60.0, timeout="500ms")
    with pytest.raises(JobTimeout, match="raise timeout= of the job") as caught:
        job.result(30)
    assert (caught.value.cause, job.state) == (Cause.WALL_TIME, JobState.TIMEOUT)
    assert caught.value.receipt.left == 0
    heard_from_both(lines, time.monotonic())
    assert neighbour.state is JobState.RUNNING
    neighbour.cancel().wait(30)


def test_suspended_job_stands_still_with_its_child_until_it_is_resumed(grid: Manager) -> None:
    job, _, lines = ticking(grid)
    assert job.suspend().wait(30) is JobState.SUSPENDED
    begun = time.monotonic()
    time.sleep(STANDS_STILL_S)
    assert job.state is JobState.SUSPENDED
    ended = time.monotonic()
    assert job.resume().wait(30) is JobState.RUNNING
    times = heard_from_both(lines, ended)
    assert [at for at in times if begun < at < ended] == []
    job.cancel().wait(30)


def test_suspended_job_leaves_no_process_and_no_container_when_it_is_cancelled(
    grid: Manager, engine_of_node: Engine | None
) -> None:
    job, mark, _ = ticking(grid)
    assert job.suspend().wait(30) is JobState.SUSPENDED
    pids = processes_of(mark)
    assert pids
    containers = containers_of(pids) if engine_of_node else set()
    assert len(containers) == (1 if engine_of_node else 0)
    receipt = job.cancel().wait(30)
    assert receipt.confirmed and receipt.ended >= 2
    assert receipt.left == 0
    with pytest.raises(JobCancelled):
        job.result(0)
    assert processes_of(mark) == []
    deadline = time.monotonic() + 20  # a container is removed after its processes
    while engine_of_node and any(
        engine_of_node.api.get(f"/containers/{one}/json") for one in containers
    ):
        assert time.monotonic() < deadline, f"the engine still has {containers}"
        time.sleep(0.05)


@pytest.mark.parametrize("named", [{"network": "lan"}, {"image": "nobody/has:it"}])
def test_job_that_asks_for_what_is_not_listed_is_told_what_is(
    grid: Manager, named: dict[str, str]
) -> None:
    ((kind, name),) = named.items()
    with pytest.raises(NoNodeFits, match=rf"does not list the {kind} '{name}' for jobs \({kind}s:"):
        grid.submit(spin, 0.0, **named).result(60)
