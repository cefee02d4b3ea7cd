"""Standard output and error."""

import asyncio
from pathlib import Path

from alpyne_grid.tools.contracts.compute.bench import BackendBench

from alpyne_proto.messages.compute import Cause, JobState


class OutputContract(BackendBench):
    """Standard output and error."""

    async def test_output_is_seen_while_the_job_runs(self, tmp_path: Path) -> None:
        def work() -> None:
            import time

            print("now", time.time())
            time.sleep(30)

        async with self.bench(tmp_path) as bench:
            await bench.value(abs, 1)  # a worker is warm
            run = bench.start_call(work)
            begun = asyncio.get_running_loop().time()
            assert (await bench.line(run)).startswith("now")
            assert run.output[0][0] - begun < 0.5
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)

    async def test_output_of_a_started_python_is_seen_at_once_too(self, tmp_path: Path) -> None:
        def work() -> None:
            import subprocess
            import sys

            code = "import time; print('child'); time.sleep(30)"
            subprocess.run([sys.executable, "-c", code], check=True)

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            assert await bench.line(run) == "child"
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)

    async def test_output_comes_whole_and_in_order_before_the_end(self, tmp_path: Path) -> None:
        def work(count: int) -> None:
            import os
            import subprocess
            import sys

            for n in range(count):
                print("line", n)
                if n % 1000 == 0:
                    os.write(2, b"raw %d\n" % n)
            subprocess.run(["sh", "-c", "echo from the shell; echo error >&2"], check=True)
            sys.stdout.write("no newline")

        async with self.bench(tmp_path) as bench:
            run = await bench.call(work, 20_000)
            expected = "".join(f"line {n}\n" for n in range(20_000))
            assert run.written(1) == expected + "from the shell\nno newline"
            assert (
                run.written(2) == "".join(f"raw {n}\n" for n in range(0, 20_000, 1000)) + "error\n"
            )

    async def test_output_of_a_job_stays_its_own(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            runs = [await bench.call(lambda n=n: print("job", n)) for n in range(5)]
            assert [run.written() for run in runs] == [f"job {n}\n" for n in range(5)]

    async def test_endless_output_ends_with_cancel(self, tmp_path: Path) -> None:
        def work() -> None:
            while True:
                print("x" * 1000)

        async with self.bench(tmp_path) as bench:
            run = bench.start_call(work)
            await bench.until(lambda: len(run.output) > 200)
            bench.backend.cancel(run.task.execution)
            await bench.ended(run)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert await bench.value(lambda: "goes on") == "goes on"
