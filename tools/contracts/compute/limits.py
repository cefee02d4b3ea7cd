"""Limits on memory and results, and what is metered."""

from pathlib import Path

import pytest
from alpyne_grid.tools.contracts.compute.bench import BackendBench
from alpyne_grid.tools.contracts.compute.recorder import LIMIT

from alpyne_proto.messages.compute import Cause


class LimitContract(BackendBench):
    """Limits, and what is metered."""

    async def test_memory_over_its_limit_ends_the_job(self, tmp_path: Path) -> None:
        def work() -> None:
            import time

            hog = bytearray(300 << 20)
            time.sleep(30)
            del hog

        async with self.bench(tmp_path) as bench:
            if bench.backend.limits.get("memory", "none") == "none":
                pytest.skip("the back end enforces no memory limit")
            run = await bench.call(work, memory_bytes=150 << 20)
            assert run.how == (LIMIT, Cause.MEMORY)
            assert "memory" in run.end.text
            assert run.end.usage.peak_memory_bytes > 140 << 20  # a kernel stops it just before
            assert await bench.value(lambda: "goes on") == "goes on"

    async def test_memory_of_started_processes_counts(self, tmp_path: Path) -> None:
        def work() -> None:
            import subprocess
            import sys

            code = "hog = bytearray(300 << 20); import time; time.sleep(30)"
            subprocess.run([sys.executable, "-c", code], check=False)

        async with self.bench(tmp_path) as bench:
            if bench.backend.limits.get("memory", "none") == "none":
                pytest.skip("the back end enforces no memory limit")
            run = await bench.call(work, memory_bytes=150 << 20)
            assert run.how == (LIMIT, Cause.MEMORY)
            assert run.end.ended >= (2 if bench.backend.limits["memory"] == "sampled" else 0)
            assert run.end.left == 0

    async def test_result_over_its_limit_ends_as_limit(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await bench.call(lambda: b"x" * 100_000, result_bytes=50_000)
            assert run.how == (LIMIT, Cause.OUTPUT)
            assert "50000" in run.end.text
            assert run.end.result == b""

    async def test_usage_says_what_was_used(self, tmp_path: Path) -> None:
        def work() -> int:
            import time

            hog = bytearray(64 << 20)
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
            return len(hog)

        async with self.bench(tmp_path) as bench:
            await bench.value(work)
            small = (await bench.call(abs, 1)).end.usage
            usage = (await bench.call(work)).end.usage
            assert 300 <= usage.cpu_ms < 2000
            assert usage.wall_ms >= 300
            assert 64 << 20 < usage.peak_memory_bytes < 200 << 20
            assert small.cpu_ms < 100
            assert small.peak_memory_bytes < 64 << 20 or small.peak_is_shared
