"""The engine goes while jobs run, and comes back; the launcher goes."""

import asyncio
import os
import signal
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.compute.backends.containers import cells
from alpyne_grid.tools.contracts.compute import BackendBench, Bench, Run
from parts.docker_engine import Engine

from alpyne_proto.messages.compute import Cause, JobState

cloudpickle.register_pickle_by_value(sys.modules[__name__])
LOST = (JobState.FAILED, Cause.NODE)


def wait() -> None:
    """Say that it runs, and go on for long."""
    print("runs", flush=True)
    time.sleep(3600)


async def running(bench: Bench) -> Run:
    """Return a job that runs and does not end by itself."""
    run = bench.start_call(wait)
    await bench.line(run, 20)
    return run


def launcher_of(bench: Bench) -> int:
    """Return the launcher's pid."""
    maker: Any = bench.backend
    return int(maker._maker._link.pid)


class TestEngineLoss(BackendBench):
    @pytest.fixture(autouse=True)
    def _given(self, own_engine: Engine, opened: Any, containers_of: Any) -> None:
        self.engine, self._opened = own_engine, opened
        self._containers_of = containers_of

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        found: AbstractAsyncContextManager[Backend] = self._opened(self.engine, setup)
        return found

    @pytest.mark.parametrize("how", ["stop", "kill"])
    async def test_job_fails_for_the_node_when_the_engine_restarts(
        self, tmp_path: Path, how: str
    ) -> None:
        async with self.bench(tmp_path) as bench:
            run = await running(bench)
            await asyncio.to_thread(getattr(self.engine, how))
            await asyncio.to_thread(self.engine.start)
            await bench.ended(run)
            assert run.how == LOST
            assert "run the job again" in run.end.text
            assert await bench.value(lambda: "goes on") == "goes on"

    @pytest.mark.parametrize("how", ["stop", "kill"])
    async def test_job_waits_for_the_engine_when_it_is_away(self, tmp_path: Path, how: str) -> None:
        async with self.bench(tmp_path) as bench:
            await asyncio.to_thread(getattr(self.engine, how))
            run = bench.start_call(lambda: "waited")
            await asyncio.sleep(0.5)
            assert not run.ends
            await asyncio.to_thread(self.engine.start)
            await bench.ended(run, 40)
            assert run.value() == "waited"

    async def test_job_fails_and_says_what_to_do_when_the_engine_stays_away(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cells, "ENGINE_PATIENCE_S", 0.5)
        async with self.bench(tmp_path) as bench:
            await asyncio.to_thread(self.engine.stop)
            run = bench.start_call(wait)
            await bench.ended(run)
            assert run.how == LOST
            assert "systemctl start docker" in run.end.text
            await asyncio.to_thread(self.engine.start)

    async def test_nothing_is_left_on_the_engine_when_it_restarted_under_load(
        self, tmp_path: Path
    ) -> None:
        async with self.bench(tmp_path) as bench:
            runs = [await running(bench) for _ in range(4)]
            await asyncio.to_thread(self.engine.kill)
            waiting = [bench.start_call(lambda: "later") for _ in range(4)]
            await asyncio.to_thread(self.engine.start)
            for run in runs:
                await bench.ended(run)
                assert run.how == LOST
            for run in waiting:
                await bench.ended(run, 40)
                assert run.value() == "later" or run.how == LOST
        assert self._containers_of(self.engine, tmp_path / "backend") == []

    async def test_jobs_fail_for_the_node_when_the_launcher_is_killed(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await running(bench)
            os.kill(launcher_of(bench), signal.SIGKILL)
            await bench.ended(run)
            assert run.how == LOST
            assert "start the node again" in run.end.text

    async def test_job_ends_by_that_when_its_container_is_removed(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as bench:
            run = await running(bench)
            for row in self._containers_of(self.engine, tmp_path / "backend"):
                self.engine.api.delete(f"/containers/{row['Id']}", force="true")
            await bench.ended(run)
            assert run.how == LOST
            assert "somebody removed the container" in run.end.text
