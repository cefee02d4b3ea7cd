"""A container whose first process ends before it can say a word."""

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.tools.contracts.compute import FAILED, LIMIT, BackendBench, marked
from parts.docker_engine import Engine

from alpyne_proto.messages.compute import Cause

cloudpickle.register_pickle_by_value(sys.modules[__name__])
MIB = 1 << 20
MEMORY = 48 * MIB
FIRST = "1000"  # of oom_score_adj: the one that the kernel ends before all others


def take_memory_once_the_supervisor_goes_first() -> None:
    import time

    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")
    print(os.environ["ALPYNE_JOB_MARK"], flush=True)
    score = ""
    while score != FIRST:
        time.sleep(0.005)
        with open("/proc/1/oom_score_adj") as file:
            score = file.read().strip()
    taken = []
    while True:
        taken.append(bytearray(b"x" * MIB))


def bide() -> None:
    import time

    print("up", flush=True)
    time.sleep(60)


class TestLostSupervisor(BackendBench):
    @pytest.fixture(autouse=True)
    def _given(self, engine: Engine, opened: Any, containers_of: Any) -> None:
        self._engine, self._opened, self._containers_of = engine, opened, containers_of

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        found: AbstractAsyncContextManager[Backend] = self._opened(self._engine, setup)
        return found

    async def test_job_ends_by_its_limit_when_the_kernel_ended_the_supervisor_over_it(
        self, tmp_path: Path
    ) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root may have a supervisor go first")
        async with self.bench(tmp_path) as bench:
            runs = [
                bench.start_call(take_memory_once_the_supervisor_goes_first, memory_bytes=MEMORY)
                for _ in range(4)
            ]
            for run in runs:
                inside = marked(await bench.line(run, 20))
                (supervisor,) = [p for p in inside if psutil.Process(p).ppid() not in inside]
                Path(f"/proc/{supervisor}/oom_score_adj").write_text(FIRST)
            for run in runs:
                await bench.ended(run)
            assert [run.how for run in runs] == [(LIMIT, Cause.MEMORY)] * 4
            assert min(run.end.usage.peak_memory_bytes for run in runs) > MEMORY // 2

    async def test_job_fails_for_the_node_when_somebody_else_ended_its_container(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            runs = [bench.start_call(bide) for _ in range(3)]
            for run in runs:
                await bench.line(run, 20)
            for row in self._containers_of(self._engine, tmp_path / "backend"):
                await asyncio.to_thread(self._engine.api.post, f"/containers/{row['Id']}/kill")
            for run in runs:
                await bench.ended(run)
            assert [run.how for run in runs] == [(FAILED, Cause.NODE)] * 3
            assert "run the job again" in runs[0].end.text
