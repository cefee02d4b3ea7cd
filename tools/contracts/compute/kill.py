"""Kill means dead."""

import uuid
from pathlib import Path

from alpyne_grid.tools.contracts.compute.bench import BackendBench, vanishes
from alpyne_grid.tools.contracts.compute.processes import escape, marked, named
from alpyne_grid.tools.contracts.compute.recorder import DONE

from alpyne_proto.messages.compute import Cause, JobState


class KillContract(BackendBench):
    """Kill means dead."""

    async def test_cancel_ends_all_that_double_forked_and_ignores_signals(
        self, tmp_path: Path
    ) -> None:
        token = f"3600.{uuid.uuid4().int}"

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(escape, token)
            mark = await bench.line(run)
            assert len(marked(mark)) >= 3
            assert len(named(token)) == 2
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert (marked(mark), named(token)) == ([], [])
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert (run.end.ended, run.end.left) == (5, 0)
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_cancel_ends_a_process_that_keeps_forking(self, tmp_path: Path) -> None:
        def work() -> None:
            import os
            import time

            print(os.environ["ALPYNE_JOB_MARK"])
            for _ in range(4):
                if os.fork() == 0:
                    while True:  # each one forks its successor and ends
                        if os.fork():
                            os._exit(0)
            time.sleep(30)

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            mark = await bench.line(run)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert marked(mark) == []
            assert run.end.left == 0

    async def test_cancel_ends_a_command(self, tmp_path: Path) -> None:
        token = f"3600.{uuid.uuid4().int}"
        async with self.bench(tmp_path) as bench:
            run = bench.start_command(["sh", "-c", f"trap '' TERM; echo up; sleep {token}; :"])
            assert await bench.line(run) == "up"
            assert bench.backend.level or run.task.folder.exists()  # else it may be inside only
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert named(token) == []
            assert run.end.ended >= 2
            assert await vanishes(run.task.folder)

    async def test_cancel_ends_a_job_before_it_began(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = bench.start_call(print, "never")
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert run.output == []

    async def test_cancel_does_nothing_when_the_job_has_ended(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(abs, -1)
            bench.backend.cancel(run.task.execution)
            assert await bench.value(abs, -2) == 2
            assert run.how == DONE

    async def test_cancel_twice_ends_the_job_once(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = bench.start_call(_sleep)
            await bench.line(run)
            bench.backend.cancel(run.task.execution)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert await bench.value(abs, -2) == 2
            assert len(run.ends) == 1

    async def test_job_leaves_no_process_behind_when_it_returns(self, tmp_path: Path) -> None:
        def work(token: str) -> str:
            import os
            import subprocess
            from pathlib import Path

            def started() -> int:
                count = 0
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        count += token.encode() in path.read_bytes()
                    except OSError:  # it ended meanwhile
                        continue
                return count

            subprocess.Popen(
                ["setsid", "sh", "-c", f"trap '' TERM HUP; sleep {token} & sleep {token}"]
            )
            while started() < 3:
                pass
            return os.environ["ALPYNE_JOB_MARK"]

        token = f"3600.{uuid.uuid4().int}"
        async with self.bench(tmp_path) as bench:
            run = await bench.call(work, token)
            assert (marked(run.value()), named(token)) == ([], [])
            assert run.how == DONE
            assert run.end.ended >= 2
            assert run.end.left == 0

    async def test_job_that_waited_for_its_processes_has_none_ended(self, tmp_path: Path) -> None:
        def work() -> None:
            import subprocess

            subprocess.run(["true"], check=True)
            subprocess.Popen(["true"]).wait()

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert (run.end.ended, run.end.left) == (0, 0)

    async def test_job_that_forks_and_returns_twice_ends_once(self, tmp_path: Path) -> None:
        def work() -> int:
            import os

            return os.fork()

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work)
            assert run.value() > 0
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_close_ends_running_and_waiting_jobs(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            running = bench.start_call(_sleep)
            mark = await bench.line(running)
            waiting = bench.start_call(_sleep)
            await bench.backend.close()
            assert running.end.state is JobState.KILLED
            assert waiting.end.state is JobState.KILLED
            assert marked(mark) == []


def _sleep() -> None:
    import os
    import time

    print(os.environ["ALPYNE_JOB_MARK"])
    time.sleep(3600)
