"""Limits and figures that come from the kernel: processor time, peaks, bytes from and to disks."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alpyne_grid.tools.contracts.compute import Bench
from alpyne_grid.tools.contracts.hostile import bombs
from alpyne_grid.tools.contracts.hostile.bench import HostileBench
from alpyne_grid.tools.contracts.hostile.neighbour import neighbour

MIB = 1 << 20
BUSY_S = 1.5


class MeteringContract(HostileBench):
    """A job gets the processor time that it has asked for, and is told what it used."""

    async def test_job_of_one_slot_gets_one_core_when_it_has_two_busy_processes(
        self, tmp_path: Path
    ) -> None:
        """The yardstick is beside it: the same work without a limit, which gets more."""
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("this machine has one core")
        async with self.hostile(tmp_path, "cpu") as bench:
            assert await _cores(bench, cpus=1) < 1.25
            assert await share_of_two_cores(bench, cpus=2) > 0.8

    async def test_neighbour_goes_on_beside_many_busy_processes(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path, "cpu") as bench, neighbour(bench):
            run = await bench.call(bombs.busy, BUSY_S, 8, cpus=1)
            assert run.end.usage.cpu_ms < run.value() * 1250

    async def test_usage_has_the_processor_time_of_processes_that_nobody_waited_for(
        self, tmp_path: Path
    ) -> None:
        def work() -> None:
            import os
            import time

            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    end = time.process_time() + 0.4
                    while time.process_time() < end:
                        pass
                    open("done", "w").close()
                os._exit(0)
            while not os.path.exists("done"):
                time.sleep(0.01)

        async with self.hostile(tmp_path, "cpu") as bench:
            run = await bench.call(work)
            assert 400 <= run.end.usage.cpu_ms < 5000

    async def test_usage_has_the_peak_of_memory_that_was_given_back(self, tmp_path: Path) -> None:
        def work() -> int:
            hog = bytearray(os.urandom(4096) * (96 << 8))
            return len(hog)

        async with self.hostile(tmp_path, "memory") as bench:
            run = await bench.call(work)
            assert 96 * MIB < run.end.usage.peak_memory_bytes < 300 * MIB

    async def test_usage_of_a_small_job_is_small_or_says_that_its_peak_is_shared(
        self, tmp_path: Path
    ) -> None:
        async with self.hostile(tmp_path, "memory") as bench:
            large = await bench.call(lambda: len(bytearray(os.urandom(4096) * (96 << 8))))
            small = (await bench.call(abs, -1)).end.usage
            assert small.cpu_ms < large.end.usage.cpu_ms + 100
            assert small.peak_memory_bytes < 64 * MIB or small.peak_is_shared

    async def test_usage_has_the_bytes_that_came_from_disks_and_went_to_disks(
        self, tmp_path: Path
    ) -> None:
        """The kernel's own count of the job's process is the yardstick.

        A scratch in memory takes nothing to a disk, and then usage must not say so.
        """
        async with self.hostile(tmp_path, "disk") as bench:
            run = await bench.call(_move_bytes)
            read, written = run.value()
            usage = run.end.usage
            if await asyncio.to_thread(_read_from_disks):  # not where all files lie in memory
                assert read > MIB
            assert usage.disk_read_bytes >= 0.9 * read
            assert abs(usage.disk_written_bytes - written) <= max(0.1 * written, MIB)


async def share_of_two_cores(bench: Bench, cpus: int) -> float:
    """Return which part of two cores a job gets, of what processes without a limit get now.

    Others may use this machine meanwhile: the best of some attempts counts.
    """
    shares: list[float] = []
    while len(shares) < 4 and max(shares, default=0.0) < 0.8:
        free = await asyncio.to_thread(_cores_without_limit)
        shares.append(await _cores(bench, cpus) / free)
    return max(shares)


async def _cores(bench: Bench, cpus: int) -> float:
    """Return how many cores two busy processes of a job got."""
    run = await bench.call(bombs.busy, BUSY_S, 2, cpus=cpus)
    return float(run.end.usage.cpu_ms / (run.value() * 1000))


def _cores_without_limit() -> float:
    """Return how many cores two busy processes get on this machine now."""
    code = f"import time; e = time.monotonic() + {BUSY_S}\nwhile time.monotonic() < e: pass"
    code += "\nprint(time.process_time())"
    line = [sys.executable, "-c", code]
    both = [subprocess.Popen(line, stdout=subprocess.PIPE) for _ in range(2)]
    begun = time.monotonic()
    used = sum(float(process.communicate()[0]) for process in both)
    return used / (time.monotonic() - begun)


def _move_bytes() -> tuple[int, int]:
    """Write a file for good, read files that are in no cache; return the kernel's own count."""
    import os

    written = _counted("write_bytes")
    with open("moved", "wb", buffering=0) as file:
        for _ in range(8):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    return _read_from_disks(), _counted("write_bytes") - written


def _read_from_disks() -> int:
    """Read files of Python's library anew; return how many bytes came from disks."""
    import os

    before = _counted("read_bytes")
    for folder, _, names in os.walk(os.path.dirname(os.__file__)):
        for name in names[:50]:
            with open(os.path.join(folder, name), "rb") as source:
                os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                source.read()
        if _counted("read_bytes") - before > 4 * MIB:
            break
    return _counted("read_bytes") - before


def _counted(name: str) -> int:
    """Return a number of bytes that the kernel counts for this process."""
    with open("/proc/self/io") as file:
        return {key: int(number) for key, number in (line.split(": ") for line in file)}[name]
