"""Suspending: a job stands still, with all that it started, until it is resumed or ended.

The jobs print readings of the monotonic clock, which is one for the whole machine. So a test need
not wait and see that nothing happens: no reading lies within the time of the suspension.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alpyne_grid.tools.contracts.compute.bench import BOB, BackendBench, Bench
from alpyne_grid.tools.contracts.compute.processes import marked
from alpyne_grid.tools.contracts.compute.recorder import DONE, Run

from alpyne_proto.messages.compute import Cause, JobState

START_S = 20.0  # within which anything happens; a machine may be busy
STANDS_STILL_S = 0.3  # how long a suspension lasts; the jobs read the clock each millisecond
_READING = re.compile(r"\d+\.\d{2,6}")


class SuspensionContract(BackendBench):
    """Suspend, resume, and cancel of what is suspended."""

    @asynccontextmanager
    async def suspending(self, folder: Path) -> AsyncIterator[Bench]:
        """Yield a bench whose back end can suspend; skip where it cannot."""
        async with self.bench(folder) as bench:
            if bench.backend.suspends == "none":
                pytest.skip("the back end suspends no jobs")
            yield bench

    @pytest.mark.parametrize("job", ["one", "many", "forking"])
    async def test_suspended_job_stands_still_until_it_is_resumed(
        self, tmp_path: Path, job: str
    ) -> None:
        async with self.suspending(tmp_path) as bench:
            run = bench.start_call({"one": _tick, "many": _tick_in_many, "forking": _tick_on}[job])
            await bench.until(lambda: len(_readings(run)) > 20, START_S)
            bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            begun = time.monotonic()
            await asyncio.sleep(STANDS_STILL_S)
            ended = time.monotonic()
            bench.backend.resume(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended", "resumed"], START_S)
            await bench.until(
                lambda: len([at for at in _readings(run) if at > ended]) > 20, START_S
            )
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert [at for at in _readings(run) if begun < at < ended] == []
            assert run.how == (JobState.KILLED, Cause.CANCELLED)

    async def test_job_returns_its_value_when_it_was_suspended_meanwhile(
        self, tmp_path: Path
    ) -> None:
        def work() -> int:
            import time

            print("up")
            for _ in range(100):
                time.sleep(0.002)
            return 42

        async with self.suspending(tmp_path) as bench:
            run = bench.start_call(work)
            await bench.line(run, START_S)
            bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            assert not run.ends
            bench.backend.resume(run.task.execution)
            await bench.ended(run)
            assert run.value() == 42
            assert run.moves == ["suspended", "resumed"]
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_command_stands_still_when_it_is_suspended(self, tmp_path: Path) -> None:
        async with self.suspending(tmp_path) as bench:
            line = "while :; do cut -d' ' -f1 /proc/uptime; done"
            run = bench.start_command(["sh", "-c", line])
            await bench.until(lambda: len(_readings(run)) > 5, START_S)
            bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            begun = _uptime()
            await asyncio.sleep(STANDS_STILL_S)
            ended = _uptime()
            bench.backend.resume(run.task.execution)
            await bench.until(lambda: max(_readings(run)) > ended, START_S)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert [at for at in _readings(run) if begun < at < ended] == []

    async def test_cancel_ends_a_suspended_job(self, tmp_path: Path) -> None:
        async with self.suspending(tmp_path) as bench:
            run = bench.start_call(_tick_in_many)
            mark = await bench.line(run, START_S)
            bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert run.end.left == 0
            assert marked(mark) == []
            assert run.moves == ["suspended"]
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_close_ends_a_suspended_job(self, tmp_path: Path) -> None:
        async with self.suspending(tmp_path) as bench:
            run = bench.start_call(_tick)
            mark = await bench.line(run, START_S)
            bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            await bench.backend.close()
            assert run.end.state is JobState.KILLED
            assert marked(mark) == []

    async def test_job_is_suspended_as_soon_as_it_runs_when_it_waited_for_its_worker(
        self, tmp_path: Path
    ) -> None:
        async with self.suspending(tmp_path) as bench:
            run = bench.start_call(lambda: "went on")
            bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            assert not run.ends
            bench.backend.resume(run.task.execution)
            await bench.ended(run)
            assert run.value() == "went on"

    async def test_job_runs_through_when_it_is_resumed_before_it_began(
        self, tmp_path: Path
    ) -> None:
        async with self.suspending(tmp_path) as bench:
            run = bench.start_call(lambda: "went on")
            bench.backend.suspend(run.task.execution)
            bench.backend.resume(run.task.execution)
            await bench.ended(run)
            assert run.value() == "went on"

    async def test_neighbour_runs_while_a_job_is_suspended(self, tmp_path: Path) -> None:
        async with self.suspending(tmp_path) as bench:
            run = bench.start_call(_tick)
            await bench.line(run, START_S)
            bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            assert await bench.value(lambda: "of the same account") == "of the same account"
            assert await bench.value(lambda: "of another", account=BOB) == "of another"
            assert not run.ends
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)

    async def test_suspend_and_resume_do_nothing_when_the_job_has_ended(
        self, tmp_path: Path
    ) -> None:
        async with self.suspending(tmp_path) as bench:
            run = await bench.call(abs, -1)
            bench.backend.suspend(run.task.execution)
            bench.backend.resume(run.task.execution)
            assert await bench.value(abs, -2) == 2
            assert run.how == DONE
            assert run.moves == []

    async def test_suspend_twice_and_resume_once_lets_the_job_go_on(self, tmp_path: Path) -> None:
        async with self.suspending(tmp_path) as bench:
            run = bench.start_call(_tick)
            await bench.line(run, START_S)
            for _ in range(2):
                bench.backend.suspend(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended"], START_S)
            bench.backend.resume(run.task.execution)
            await bench.until(lambda: run.moves == ["suspended", "resumed"], START_S)
            count = len(_readings(run))
            await bench.until(lambda: len(_readings(run)) > count + 20, START_S)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)


def _readings(run: Run) -> list[float]:
    """Return the clock's readings that a job has printed; a call's first line is its mark."""
    lines = run.written().split("\n")[:-1]
    return [float(line) for line in lines if _READING.fullmatch(line)]


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def _tick() -> None:
    """Print the clock, for ever."""
    import os
    import time

    print(os.environ["ALPYNE_JOB_MARK"])
    while True:
        os.write(1, b"%.6f\n" % time.monotonic())
        time.sleep(0.001)


def _tick_in_many() -> None:
    """Print the clock from a thread, a child and an orphan in a session of its own."""
    import os
    import threading
    import time

    def tick() -> None:
        while True:
            os.write(1, b"%.6f\n" % time.monotonic())
            time.sleep(0.001)

    print(os.environ["ALPYNE_JOB_MARK"])
    if os.fork() == 0:
        tick()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        tick()
    threading.Thread(target=tick, daemon=True).start()
    tick()


def _tick_on() -> None:
    """Print the clock from processes that each fork their successor and end."""
    import os
    import time

    print(os.environ["ALPYNE_JOB_MARK"])
    if os.fork() == 0:
        while True:
            os.write(1, b"%.6f\n" % time.monotonic())
            if os.fork():
                os._exit(0)
    time.sleep(3600)
