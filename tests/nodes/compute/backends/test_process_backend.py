"""The process back end: the contract, and what only plain processes can be asked."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import cloudpickle
import psutil
import pytest
from alpyne_grid.nodes.compute.backends import pool
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.compute.backends.launch import package_places
from alpyne_grid.nodes.compute.backends.plain_cells import PlainCells
from alpyne_grid.nodes.compute.backends.process import ProcessBackend
from alpyne_grid.tools.contracts.compute import (
    ALICE,
    BOB,
    BackendBench,
    BackendContract,
    Bench,
    ObjectRoom,
    call,
    is_dead,
    marked,
    named,
    wait_gone,
)

from alpyne_proto.messages.compute import Cause, JobState

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@asynccontextmanager
async def opened(setup: BackendSetup) -> AsyncIterator[ProcessBackend]:
    """Yield a process back end that has reaped and started."""
    backend = ProcessBackend(setup)
    await backend.reap()
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


class TestContract(BackendContract):
    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        return opened(setup)


class TestProcesses(BackendBench):
    """What the contract cannot ask of every back end."""

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        return opened(setup)

    async def test_job_that_kills_its_supervisor_ends_as_a_crash(self, tmp_path: Path) -> None:
        def work(token: str) -> None:
            import os
            import subprocess
            import time

            subprocess.Popen(["setsid", "sleep", token])
            subprocess.Popen(["sleep", token], env={})
            print(os.environ["ALPYNE_JOB_MARK"])
            os.kill(os.getppid(), 9)
            time.sleep(3600)

        token = f"3600.{uuid.uuid4().int}"
        async with self.bench(tmp_path) as bench:
            run = await bench.call(work, token)
            mark = run.written().strip()
            assert run.how == (JobState.FAILED, Cause.CRASH)
            assert "supervisor" in run.end.text
            assert (marked(mark), named(token), run.end.left) == ([], [], 0)
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_cancel_ends_a_job_that_stopped_its_supervisor(self, tmp_path: Path) -> None:
        def work() -> None:
            import os
            import signal
            import time

            os.kill(os.getppid(), signal.SIGSTOP)
            print(os.environ["ALPYNE_JOB_MARK"])
            time.sleep(3600)

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            mark = await bench.line(run)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run, within_s=3)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert marked(mark) == []

    async def test_cancel_needs_no_supervisor_that_answers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def work() -> None:
            import os
            import signal
            import time

            supervisor = os.getppid()
            print(os.environ["ALPYNE_JOB_MARK"])
            while True:  # it goes on stopping it, also after the daemon continued it
                os.kill(supervisor, signal.SIGSTOP)
                time.sleep(0)

        monkeypatch.setattr("alpyne_grid.nodes.compute.backends.worker_handle.END_TIMEOUT_S", 0.3)
        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            mark = await bench.line(run)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run, within_s=5)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert marked(mark) == []

    async def test_job_that_writes_to_the_daemons_socket_ends_as_a_crash(
        self, tmp_path: Path
    ) -> None:
        def work() -> None:
            import os
            import time

            for name in os.listdir("/proc/self/fd"):
                try:
                    if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                        os.write(int(name), b"\xff" * 100)
                except OSError:
                    continue
            time.sleep(3600)

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert run.how == (JobState.FAILED, Cause.CRASH)
            assert "channel" in run.end.text
            assert await bench.value(lambda: "goes on") == "goes on"

    @pytest.mark.parametrize("state", [JobState.QUEUED, JobState.SUSPENDED, JobState.LOST])
    async def test_job_that_tells_the_daemon_an_impossible_end_ends_as_a_crash(
        self, tmp_path: Path, state: JobState
    ) -> None:
        def work(number: int) -> None:
            import gc
            import time

            from alpyne_worker.channel import DaemonChannel

            from alpyne_proto.messages.worker import JobRan

            (channel,) = (one for one in gc.get_objects() if type(one) is DaemonChannel)
            channel.respond(1, JobRan(state=number))
            time.sleep(3600)

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work, int(state))
            assert run.how == (JobState.FAILED, Cause.CRASH)
            assert "as the end of a job" in run.end.text
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_job_that_closes_all_descriptors_ends_as_a_crash(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: os.closerange(3, 100))
            assert run.how == (JobState.FAILED, Cause.CRASH)
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_job_fails_with_the_reason_when_no_worker_starts(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            backend = bench.backend
            assert isinstance(backend, ProcessBackend)
            cells = backend._maker
            assert isinstance(cells, PlainCells)
            cells._places = [place for place in package_places() if "msgpack" not in place]
            backend.warm(ALICE, 2)
            run = await bench.call(abs, 1)
            assert run.how == (JobState.FAILED, Cause.NODE)
            assert "No module named 'msgpack'" in run.end.text
            await workers(bench, 0)
            cells._places = package_places()
            assert await bench.value(abs, -1) == 1

    async def test_warm_workers_are_there_before_the_first_job_and_after_a_crash(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            bench.backend.warm(ALICE, 2)
            await workers(bench, 2)
            pids = {await bench.value(os.getpid) for _ in range(3)}
            assert len(pids) <= 2
            await bench.call(lambda: os._exit(1))
            await workers(bench, 2)
            bench.backend.warm(ALICE, 0)
            await workers(bench, 0)

    async def test_jobs_of_one_account_run_at_the_same_time(self, tmp_path: Path) -> None:
        def work(own: str, other: str) -> bool:
            import time
            from pathlib import Path

            Path(own).touch()
            while not Path(other).exists():
                time.sleep(0.01)
            return True

        one, two = str(tmp_path / "one"), str(tmp_path / "two")
        async with self.bench(tmp_path) as bench:
            runs = [bench.start_call(work, one, two), bench.start_call(work, two, one)]
            for run in runs:
                assert (await bench.ended(run)).value()

    async def test_worker_of_an_account_that_is_not_kept_warm_ends_when_it_idles(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "IDLE_MAX_S", 0.05)
        async with self.bench(tmp_path) as bench:
            pid = await bench.value(os.getpid, account=BOB)
            await workers(bench, 0)
            assert is_dead(pid)

    async def test_job_can_use_the_manager_library(self, tmp_path: Path) -> None:
        def work() -> list[str]:
            import alpyne_grid.manager

            from alpyne_proto import messages

            return [alpyne_grid.manager.__name__, messages.access.__name__, messages.data.__name__]

        async with self.bench(tmp_path) as bench:
            assert await bench.value(work) == [
                "alpyne_grid.manager", "alpyne_proto.messages.access", "alpyne_proto.messages.data",
            ]  # fmt: skip

    async def test_bundle_needs_no_name_of_an_archive(self, tmp_path: Path) -> None:
        def work() -> int:
            import beside

            found: int = beside.answer()
            return found

        async with self.bench(tmp_path) as bench:
            named = bench.bundle(beside="def answer(): return 1")
            blob = named.rename(tmp_path / ("0f" * 16))
            assert await bench.value(work, bundle=blob) == 1

    async def test_close_leaves_no_folder_of_a_worker(self, tmp_path: Path) -> None:
        def work() -> None:
            from pathlib import Path

            Path("left").write_text("behind")
            os._exit(1)

        async with self.bench(tmp_path) as bench:
            await bench.call(work)
        assert await asyncio.to_thread(gone, tmp_path / "backend" / "scratch")


async def workers(bench: Bench, count: int) -> None:
    """Wait until the back end has ``count`` workers that are ready."""
    assert isinstance(bench.backend, ProcessBackend)
    async with asyncio.timeout(10):
        while [w.state.value for w in bench.backend._workers] != ["idle"] * count:
            await asyncio.sleep(0.01)


def gone(folder: Path) -> bool:
    """Wait until a folder is empty; threads remove what workers left."""
    for _ in range(100):
        if not list(folder.iterdir()):
            return True
        time.sleep(0.02)
    return False


# A daemon in a process of its own: a job that escapes runs in it.
DAEMON = """
import asyncio, os, sys
from pathlib import Path
from alpyne_grid.nodes.compute.backends.base import BackendSetup
from alpyne_grid.nodes.compute.backends.process import ProcessBackend
from alpyne_grid.tools.contracts.compute import ALICE, Bench, ObjectRoom, escape

async def main():
    folder = Path(sys.argv[1])
    backend = ProcessBackend(BackendSetup(folder / "backend", os.urandom(16)))
    await backend.reap()
    await backend.start()
    backend.warm(ALICE, 2)
    bench = Bench(backend, folder, ObjectRoom())
    run = bench.start_call(escape, os.environ["TOKEN"])
    print(await bench.line(run), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def token() -> str:
    """What the processes of one test can be found by."""
    return f"3600.{uuid.uuid4().int}"


def start_daemon(folder: Path, token: str) -> tuple["subprocess.Popen[str]", str]:
    """Start a daemon whose job has escaped; return it and the mark of its folder."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(folder)],
        env={**os.environ, "TOKEN": token},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    mark = daemon.stdout.readline().strip()
    daemon.stdout.close()
    assert mark
    return daemon, mark.split(".")[0]


def test_daemon_takes_everything_along_when_it_is_killed(tmp_path: Path, token: str) -> None:
    daemon, mark = start_daemon(tmp_path, token)
    assert len(named(token)) == 2
    assert len(marked(mark)) >= 5
    daemon.kill()
    daemon.wait()
    left = wait_gone(lambda: marked(mark) + named(token), within_s=1.0)
    assert left == []


def test_reap_ends_what_a_killed_daemon_left_when_its_supervisors_died_too(
    tmp_path: Path, token: str
) -> None:
    daemon, mark = start_daemon(tmp_path, token)
    for supervisor in psutil.Process(daemon.pid).children():
        supervisor.suspend()
    daemon.kill()
    daemon.wait()
    for pid in marked(mark):
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            os.kill(pid, signal.SIGKILL)
    assert len(marked(mark)) >= 2
    backend = ProcessBackend(BackendSetup(tmp_path / "backend", os.urandom(16)))
    assert asyncio.run(backend.reap()) >= 2
    assert marked(mark) == []
    for pid in named(token):  # of the one without the mark nobody can know any more
        os.kill(pid, signal.SIGKILL)


def test_reap_spares_the_processes_of_other_folders(tmp_path: Path, token: str) -> None:
    daemon, mark = start_daemon(tmp_path / "one", token)
    backend = ProcessBackend(BackendSetup(tmp_path / "two", os.urandom(16)))
    assert asyncio.run(backend.reap()) == 0
    assert len(marked(mark)) >= 5
    daemon.kill()
    daemon.wait()
    assert wait_gone(lambda: marked(mark) + named(token), within_s=2.0) == []


def test_bench_of_the_contract_reaches_no_objects_without_a_service(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(BackendSetup(tmp_path / "backend", os.urandom(16))) as backend:
            bench = Bench(backend, tmp_path, ObjectRoom())
            run = await bench.ended(bench.start(call(_read_nothing)))
            assert "no objects" in run.end.text

    asyncio.run(run())


def _read_nothing() -> bytes:
    from alpyne_proto.jobobject import JobObject

    return JobObject(b"c" * 16, "a", 1, b"w" * 16, 3, b"").read()
