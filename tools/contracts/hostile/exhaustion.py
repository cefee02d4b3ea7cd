"""Jobs that use up memory, processes, disk, descriptors and output: named, ended, harmless."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from alpyne_grid.tools.contracts.compute import DONE, FAILED, LIMIT, Bench, Run, marked
from alpyne_grid.tools.contracts.hostile import bombs
from alpyne_grid.tools.contracts.hostile.bench import HostileBench
from alpyne_grid.tools.contracts.hostile.neighbour import neighbour

from alpyne_proto.messages.compute import Cause, JobState

MIB = 1 << 20
MEMORY = 128 * MIB
LITTLE_MEMORY = 48 * MIB
DISK = 16 * MIB
PROCESSES = 48
OUTPUT = 8 * MIB
KEEPS_THE_WORKER = (
    DONE,
    (FAILED, Cause.EXCEPTION),
    (LIMIT, Cause.OUTPUT),
    (LIMIT, Cause.DISK),  # where the job itself gave up, and its folders could be emptied
)  # which carries the mark as well


class ExhaustionContract(HostileBench):
    """Each bomb ends once, by the name of the limit, and a neighbour's job does not notice it."""

    async def attacked(
        self, bench: Bench, bomb: Callable[..., Any], *args: Any, **limits: Any
    ) -> Run:
        """Run a bomb beside a neighbour to its end; nothing of it may be left."""
        async with neighbour(bench):
            run = await bench.ended(bench.start_call(bomb, *args, **limits), 60)
        assert run.end.left == 0
        assert run.how in KEEPS_THE_WORKER or marked(run.written().split("\n")[0]) == []
        assert await bench.value(lambda: "goes on") == "goes on"
        return run

    @pytest.mark.parametrize("bomb", [bombs.fork_bomb, bombs.thread_bomb, bombs.deaf_forks])
    async def test_job_that_starts_too_many_processes_ends_by_that_limit(
        self, tmp_path: Path, bomb: Callable[[], int]
    ) -> None:
        async with self.hostile(tmp_path, "processes") as bench:
            run = await self.attacked(bench, bomb, processes=PROCESSES)
            assert run.how == (LIMIT, Cause.PROCESSES)
            assert "process" in run.end.text
            assert str(PROCESSES) in run.end.text

    async def test_job_may_have_as_many_processes_as_its_limit_says(self, tmp_path: Path) -> None:
        def work(count: int) -> int:
            import os
            import time

            children = []
            for _ in range(count):
                children.append(os.fork())
                if children[-1] == 0:
                    time.sleep(1)
                    os._exit(0)
            for child in children:
                os.waitpid(child, 0)
            return len(children)

        async with self.hostile(tmp_path, "processes") as bench:
            assert await bench.value(work, PROCESSES - 8, processes=PROCESSES) == PROCESSES - 8

    @pytest.mark.parametrize("bomb", [bombs.memory_hog, bombs.memory_hogs, bombs.shared_memory_hog])
    async def test_job_that_takes_too_much_memory_ends_by_that_limit(
        self, tmp_path: Path, bomb: Callable[[], int]
    ) -> None:
        async with self.hostile(tmp_path, "memory") as bench:
            run = await self.attacked(bench, bomb, memory_bytes=MEMORY)
            assert run.how == (LIMIT, Cause.MEMORY)
            assert "memory" in run.end.text
            assert str(MEMORY) in run.end.text
            assert run.end.usage.peak_memory_bytes > MEMORY // 2

    async def test_each_of_many_jobs_that_take_too_much_memory_ends_by_that_limit(
        self, tmp_path: Path
    ) -> None:
        async with self.hostile(tmp_path, "memory") as bench:
            runs = [
                bench.start_call(bombs.memory_hog, memory_bytes=LITTLE_MEMORY) for _ in range(20)
            ]
            for run in runs:
                await bench.ended(run, 60)
            assert [run.how for run in runs] == [(LIMIT, Cause.MEMORY)] * 20
            assert [len(run.ends) for run in runs] == [1] * 20
            assert len({run.written().split("\n")[0] for run in runs}) == 20  # each its own cell
            assert min(run.end.usage.peak_memory_bytes for run in runs) > LITTLE_MEMORY // 2

    async def test_job_that_fills_the_disk_ends_by_that_limit(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path, "disk") as bench:
            run = await self.attacked(bench, bombs.disk_filler, disk_bytes=DISK)
            assert run.how == (LIMIT, Cause.DISK)

    async def test_command_that_fills_the_disk_ends_by_that_limit(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path, "disk") as bench:
            line = ["dd", "if=/dev/zero", "of=filler", "bs=1M", f"count={bombs.DISK_MOST // MIB}"]
            run = await bench.command(line, disk_bytes=DISK)
            assert run.how == (LIMIT, Cause.DISK)

    async def test_job_that_swallows_errors_writes_no_more_than_its_limits(
        self, tmp_path: Path
    ) -> None:
        async with self.hostile(tmp_path, "disk") as bench:
            run = await self.attacked(
                bench, bombs.stubborn_disk_filler, disk_bytes=DISK, memory_bytes=MEMORY
            )
            if run.end.state is JobState.DONE:
                assert run.value() <= DISK + MEMORY
            else:
                assert run.end.state is LIMIT
                assert run.end.cause in (Cause.DISK, Cause.MEMORY)

    async def test_job_that_makes_files_without_end_ends_by_a_limit(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path, "disk") as bench:
            run = await self.attacked(
                bench, bombs.inode_filler, disk_bytes=DISK, memory_bytes=MEMORY
            )
            assert run.end.state is LIMIT
            assert run.end.cause in (Cause.DISK, Cause.MEMORY)

    async def test_job_that_opens_descriptors_without_end_is_refused_more(
        self, tmp_path: Path
    ) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await self.attacked(bench, bombs.descriptor_hog)
            assert run.how == (FAILED, Cause.EXCEPTION)
            assert "Too many open files" in run.failure().text
            assert 100 < int(run.written().split("\n")[1]) <= 65_536

    async def test_endless_output_ends_when_the_node_has_had_enough(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            before = psutil.Process().memory_info().rss
            async with neighbour(bench):
                run = bench.start_call(bombs.endless_output)
                await bench.until(lambda: sum(len(d) for *_, d in run.output) > OUTPUT, 30)
                bench.backend.cancel(run.task.execution)
                await bench.ended(run)
            written = sum(len(data) for *_, data in run.output)
            assert run.how == (JobState.KILLED, Cause.CANCELLED)
            assert OUTPUT < written < OUTPUT + 4 * MIB
            assert psutil.Process().memory_info().rss - before < 100 * MIB
            assert marked(run.written().split("\n")[0]) == []

    async def test_endless_result_ends_by_that_limit(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await self.attacked(bench, bombs.endless_result, result_bytes=MIB)
            assert run.how == (LIMIT, Cause.OUTPUT)
            assert run.end.result == b""

    async def test_job_that_leaves_deaf_orphans_leaves_nothing(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            token = self.token()
            run = await self.attacked(bench, bombs.leave_deaf_orphans, token)
            assert run.value() == 3
            assert self.named(token) == []
            assert run.end.ended >= 3

    async def test_job_that_leaves_folders_which_are_hard_to_remove_leaves_nothing(
        self, tmp_path: Path
    ) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await self.attacked(bench, bombs.leave_deep_folders)
            assert run.value() == 1500

    async def test_job_that_breaks_its_channel_ends_as_a_crash(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await self.attacked(bench, bombs.flood_the_channel)
            assert run.how == (FAILED, Cause.CRASH)

    async def test_job_cannot_end_or_stop_its_supervisor(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await self.attacked(bench, bombs.kill_the_supervisor)
            assert run.value() == 1  # process 1 of its namespace, which takes no signals from there
