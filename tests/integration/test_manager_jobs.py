"""Jobs through the manager library on real daemons: failures, faults, cancels, re-attachment."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.manager import (
    BadProgram,
    Job,
    JobCancelled,
    JobCrashed,
    JobFailed,
    JobRaised,
    JobState,
    JobTimeout,
    LimitExceeded,
    Manager,
    MissingFile,
    UnpicklableResult,
    UnsafeResult,
)
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import Daemon, LocalCluster

WITHIN_S = 20.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One compute node for the tests that leave it as it was."""
    with LocalCluster(tmp_path_factory.mktemp("jobs") / "cluster", create_account) as made:
        made.start("compute", "--slots", "2")
        yield made


@pytest.fixture(scope="module")
def grid(shared: LocalCluster) -> Iterator[Manager]:
    with Manager.connect(shared.addresses, home=shared.home) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster for a test that breaks it."""
    with LocalCluster(tmp_path / "cluster", create_account) as made:
        yield made


def wait_until(is_true: Any, what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_true():
        assert time.monotonic() < deadline, f"waited {WITHIN_S} s for {what}"
        time.sleep(0.02)


def processes_with(marker: str) -> list[int]:
    """Return the processes whose environment or command line holds ``marker``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in text:
            found.append(int(entry.name))
    return found


# ---- what goes wrong in a program -----------------------------------------------------------


def raise_error() -> None:
    raise ValueError("seventeen is no colour")


def leave() -> None:
    os._exit(3)


def crash() -> None:
    ctypes.string_at(0)


def return_lock() -> Any:
    return threading.Lock()


def eat_memory() -> int:
    blocks = []
    while True:
        blocks.append(bytearray(os.urandom(1 << 20)) * 4)


def flood() -> None:
    while True:
        print("x" * 10_000)


def sleep_long() -> None:
    time.sleep(600)


def own_class() -> Any:
    class Point:
        pass

    return Point()


def test_exception_comes_back_with_the_remote_traceback(grid: Manager) -> None:
    job = grid.submit(raise_error)
    with pytest.raises(JobRaised) as caught:
        job.result(WITHIN_S)
    assert isinstance(caught.value.__cause__, ValueError)
    text = str(caught.value)
    assert "seventeen is no colour" in text
    assert "in raise_error" in text  # the remote traceback
    assert job.id in text
    assert job.node in text


@pytest.mark.parametrize(
    ("function", "options", "error", "text"),
    [
        (leave, {}, JobCrashed, "3"),
        (crash, {}, JobCrashed, "SIGSEGV"),
        (return_lock, {}, UnpicklableResult, "lock"),
        (eat_memory, {"memory": "200MiB"}, LimitExceeded, "memory"),
        (flood, {"output": "1MiB"}, LimitExceeded, "output"),
        (sleep_long, {"timeout": "0.3s"}, JobTimeout, ""),
    ],
)
def test_failure_has_its_own_error_and_the_node_goes_on(
    grid: Manager, function: Any, options: dict[str, Any], error: type[JobFailed], text: str
) -> None:
    with pytest.raises(error) as caught:
        grid.submit(function, **options).result(WITHIN_S)
    assert text in str(caught.value)
    assert grid.submit(sum, [1, 2]).result(WITHIN_S) == 3


def test_source_file_failures_are_named(grid: Manager, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    for content, error in (
        ("def main(:\n", BadProgram),
        ("x = 1\n", BadProgram),
        ("import no_such_module_anywhere\ndef main(): pass\n", MissingFile),
    ):
        program.write_text(content)
        with pytest.raises(error):
            grid.run_source(program).result(WITHIN_S)
    program.write_text("def main(a, b='2'):\n    return a + b\n")
    assert grid.run_source(program, "1").result(WITHIN_S) == "12"


def test_command_runs_with_files_and_a_missing_one_is_named(grid: Manager) -> None:
    done = grid.run_command(
        ["sh", "-c", "cat in.txt > out.txt; echo said; exit 0"],
        inputs={"in.txt": b"content"},
        outputs=["*.txt"],
    ).result(WITHIN_S)
    assert done.files["out.txt"] == b"content"
    with pytest.raises(MissingFile, match="no-such-program"):
        grid.run_command(["no-such-program-anywhere"]).result(WITHIN_S)


def test_untrusted_node_may_send_plain_values_only(shared: LocalCluster) -> None:
    with Manager.connect(shared.addresses, home=shared.home, untrusted=shared.addresses) as grid:
        plain = {"a": [1, 2.5, None, True, b"x", ("t", {3})]}
        assert grid.submit(dict, plain).result(WITHIN_S) == plain
        with pytest.raises(UnsafeResult, match="Point"):
            grid.submit(own_class).result(WITHIN_S)


def test_retries_count_exceptions(grid: Manager, tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def third_time(path: str) -> int:
        with open(path, "a") as file:
            file.write("x")
        count = os.path.getsize(path)
        if count < 3:
            raise RuntimeError("not yet")
        return count

    assert grid.submit(third_time, str(marks), retries=2).result(WITHIN_S) == 3
    marks.unlink()
    with pytest.raises(JobRaised):
        grid.submit(third_time, str(marks), retries=1).result(WITHIN_S)


def test_map_raises_at_the_item_that_failed_and_goes_on(grid: Manager) -> None:
    results = grid.map(lambda n: 10 // n, [5, 0, 2], return_exceptions=True)
    first, second, third = results
    assert (first, third) == (2, 5)
    assert isinstance(second, JobRaised)
    assert isinstance(second.__cause__, ZeroDivisionError)


def test_crash_in_a_chunk_fails_its_item_only(grid: Manager) -> None:
    def fragile(n: int) -> int:
        if n == 13:
            os._exit(1)
        return n

    results = list(grid.map(fragile, range(32), chunk=16, return_exceptions=True))
    assert [n for n in results if isinstance(n, int)] == [n for n in range(32) if n != 13]
    assert isinstance(results[13], JobCrashed)


def test_map_takes_items_as_there_is_room_and_holds_no_more(grid: Manager) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for n in range(100_000):
            taken += 1
            yield n

    results = grid.map(abs, items(), chunk=10)
    assert [next(results) for _ in range(20)] == list(range(20))
    assert taken < 10_000
    results.close()


# ---- cancel ---------------------------------------------------------------------------------


def resist(marker: str) -> None:
    """Double-fork into new sessions, ignore SIGTERM, and stay."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["MARK"] = marker
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve(
                    sys.executable,
                    [sys.executable, "-c", "import signal,time\n"
                     "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)", marker],
                    dict(os.environ),
                )  # fmt: skip
            os._exit(0)
    print("forked", flush=True)
    time.sleep(600)


def test_cancel_ends_a_resisting_tree_and_says_so(grid: Manager) -> None:
    marker = f"marker-{os.getpid()}-cancel"
    job = grid.submit(resist, marker)
    assert next(iter(job.output())) == "forked"
    wait_until(lambda: len(processes_with(marker)) >= 3, "the forked processes")
    receipt = job.cancel().wait(WITHIN_S)
    assert receipt.ended >= 4
    assert receipt.left == 0
    assert processes_with(marker) == []
    with pytest.raises(JobCancelled):
        job.result(WITHIN_S)
    assert grid.submit(sum, [1, 2]).result(WITHIN_S) == 3


# ---- output ---------------------------------------------------------------------------------


def talk(count: int, pause_s: float) -> int:
    for n in range(count):
        print(f"{time.time()} line {n}", flush=True)
        time.sleep(pause_s)
    return count


def test_output_comes_while_the_job_runs_and_whole_after_re_attachment(
    shared: LocalCluster, grid: Manager, tmp_path: Path
) -> None:
    job = grid.submit(talk, 8, 0.1)
    delays = []
    lines = []
    for line in job.output():
        printed, _, text = line.partition(" ")
        delays.append(time.time() - float(printed))
        lines.append(text)
    assert lines == [f"line {n}" for n in range(8)]
    assert sorted(delays)[-2] < 0.5  # a busy machine may hold one up
    other_home = tmp_path / "other machine"
    other_home.mkdir()
    shutil.copy(shared.home / "account", other_home / "account")
    with Manager.connect(shared.addresses, home=other_home) as elsewhere:
        again = elsewhere.job(job.id)
        assert [line.partition(" ")[2] for line in again.output()] == lines
        assert again.result(WITHIN_S) == 8


def test_job_is_found_by_tag_from_another_machine_while_it_runs(
    shared: LocalCluster, grid: Manager, tmp_path: Path
) -> None:
    job = grid.submit(talk, 4, 0.2, tags=["night run"]).accepted(WITHIN_S)
    other_home = tmp_path / "other"
    other_home.mkdir()
    shutil.copy(shared.home / "account", other_home / "account")
    with Manager.connect(shared.addresses, home=other_home) as elsewhere:
        found = elsewhere.jobs(tag="night run")
        assert [one.id for one in found] == [job.id]
        assert found[0].result(WITHIN_S) == 4
    assert job.result(WITHIN_S) == 4


# ---- nodes that die -------------------------------------------------------------------------


def slow_square(n: int) -> int:
    time.sleep(0.2)
    return n * n


def test_killed_node_goes_on_after_its_restart_and_every_result_comes_once(
    own: LocalCluster,
) -> None:
    node = own.start("compute", "--slots", "2")
    finished: list[int] = []
    with Manager.connect(own.addresses, home=own.home, lost_after="30s") as grid:
        jobs = [grid.submit(slow_square, n) for n in range(12)]
        for job in jobs:
            job.add_done_callback(lambda done: finished.append(done.result()))
            job.accepted(WITHIN_S)
        jobs[0].result(WITHIN_S)
        node.kill()
        node.start()
        assert [job.result(WITHIN_S) for job in jobs] == [n * n for n in range(12)]
        wait_until(lambda: len(finished) >= 12, "the callbacks")
        assert sorted(finished) == sorted(n * n for n in range(12))
        assert grid.statistics().moved == 0


def test_jobs_move_when_a_node_stays_away(own: LocalCluster) -> None:
    first, second = own.start("compute", "--slots", "1"), own.start("compute", "--slots", "1")
    with Manager.connect(own.addresses, home=own.home, lost_after="0.5s") as grid:
        jobs = [grid.submit(slow_square, n) for n in range(10)]
        wait_until(lambda: {job.node for job in jobs} - {""} != set(), "a placement")
        jobs[0].result(WITHIN_S)
        first.kill()
        assert [job.result(WITHIN_S) for job in jobs] == [n * n for n in range(10)]
        assert grid.statistics().moved >= 1
    assert second.running


def test_two_executions_finish_after_a_partition_and_one_is_delivered(
    own: LocalCluster, tmp_path: Path
) -> None:
    """A stopped daemon is a partition: its worker runs on, and nobody hears of it."""
    daemons = {d.address: d for d in (own.start("compute", "--slots", "1") for _ in range(2))}
    marks = tmp_path / "marks"
    marks.mkdir()

    def execution(folder: str) -> str:
        import os
        import time

        time.sleep(2.0)
        name = f"{os.getpid()}"
        open(os.path.join(folder, name), "w").close()
        return name

    delivered: list[str] = []
    with Manager.connect(own.addresses, home=own.home, lost_after="0.5s") as grid:
        job = grid.submit(execution, str(marks))
        job.add_done_callback(lambda done: delivered.append(done.result()))
        wait_until(lambda: job.state is JobState.RUNNING, "the job to run")
        node = next(n for n in grid.nodes() if n.name == job.node)
        stopped = daemons[node.address]
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: len(list(marks.iterdir())) == 2, "both executions to finish")
            value = job.result(WITHIN_S)
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        wait_until(lambda: grid.statistics().fenced == 1, "the late result to be fenced")
        assert delivered == [value]
        assert job.result(WITHIN_S) == value


def test_revoking_an_account_kills_its_running_job(own: LocalCluster, tmp_path: Path) -> None:
    marker = f"marker-{os.getpid()}-revoked"
    guest_home = tmp_path / "guest"
    create_account(guest_home)
    node = own.start(
        "compute",
        "--owner",
        str(own.home / "account.pub"),
        "--owner",
        str(guest_home / "account.pub"),
    )
    with Manager.connect([node.address], home=guest_home) as guest:
        job = guest.submit(resist, marker)
        assert next(iter(job.output())) == "forked"
        wait_until(lambda: len(processes_with(marker)) >= 3, "the forked processes")
        revoke(own, node, guest_home)
        deadline = time.monotonic() + 5.0
        while processes_with(marker):
            assert time.monotonic() < deadline, "processes of a revoked account live on"
            time.sleep(0.02)
    node.kill()
    node.start()
    with (
        pytest.raises(Exception, match="revoked"),
        Manager.connect([node.address], home=guest_home, timeout="3s") as guest,
    ):
        guest.submit(sum, [1]).result(3)


def revoke(cluster: LocalCluster, node: Daemon, guest_home: Path) -> None:
    """Revoke the guest's account by the command line, as an administrator does."""
    environment = {**os.environ, "ALPYNE_HOME": str(cluster.home)}
    for arguments in (
        ["pair", node.address],
        ["revoke", str(guest_home / "account.pub"), "--pool"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "alpyne_grid", *arguments],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_manager_may_die_and_another_one_takes_its_results(
    own: LocalCluster, tmp_path: Path
) -> None:
    own.start("compute", "--slots", "1")
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, sys, time\n"
        "from alpyne_grid.manager import Manager\n"
        "def slow(n):\n    import time; time.sleep(0.3); return n * 7\n"
        "grid = Manager.connect(sys.argv[1:])\n"
        "jobs = [grid.submit(slow, n, tags=['orphans']).accepted() for n in range(5)]\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "ALPYNE_HOME": str(own.home)}
    done = subprocess.run(
        [sys.executable, str(script), *own.addresses],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr
    with Manager.connect(own.addresses, home=own.home) as grid:
        found: list[Job] = grid.jobs(tag="orphans")
        assert sorted(job.result(WITHIN_S) for job in found) == [0, 7, 14, 21, 28]
