"""The same attacks at level 0: what plain processes of the daemon's user do not stop.

That is no defect of level 0, which serves only owners whom the node's administrator trusts. It
shows that the attacks work, so that a level which denies them has really denied something.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
from alpyne_grid.tools.contracts.compute import BOB, DONE, Bench, Run
from alpyne_grid.tools.contracts.hostile import bombs
from alpyne_grid.tools.contracts.hostile.bait import laid_out
from alpyne_grid.tools.contracts.hostile.denial import Outcomes, ProbingBench
from alpyne_grid.tools.contracts.hostile.metering import share_of_two_cores
from alpyne_grid.tools.contracts.hostile.neighbour import neighbour
from alpyne_grid.tools.contracts.hostile.probes import PROBES, Bait, Probe, try_all

from alpyne_proto.messages.compute import Cause, JobState

MIB = 1 << 20
SUCCEED = [probe for probe in PROBES if probe.at_level_0 == "always"]
AS_THE_USER = [probe for probe in PROBES if probe.at_level_0 == "as the user"]
_INHERITED = (
    "the daemon's environment",
    "a descriptor of the daemon",
    "more descriptors than its own",
)
INHERITED = [probe for probe in PROBES if probe.name in _INHERITED]

RUN = "import cloudpickle, sys; f, *a = cloudpickle.load(sys.stdin.buffer)\n"
RUN += "sys.stdout.buffer.write(cloudpickle.dumps(f(*a)))"


class WhatLevelZeroLetsThrough(ProbingBench):
    """Attacks that level 0 lets through."""

    level = 0

    @pytest.mark.parametrize("probe", SUCCEED, ids=lambda probe: probe.name)
    async def test_level_0_lets_through(self, tmp_path: Path, probe: Probe) -> None:
        how, what = (await self.outcomes(tmp_path, SUCCEED))[probe.name]
        assert (how, what) == ("got", what)

    async def test_level_0_lets_through_whatever_the_daemons_user_can_do(
        self, tmp_path: Path
    ) -> None:
        async with laid_out(tmp_path / "state") as bait:
            async with self.hostile(tmp_path / "state") as bench:
                run = await bench.call(try_all, AS_THE_USER, bait)
            expected = await asyncio.to_thread(_outside, AS_THE_USER, bait)
        outcomes: Outcomes = run.value()
        assert [found for found in outcomes.values() if found[0] == "broken"] == []
        assert {name: how for name, (how, _) in outcomes.items()} == {
            name: how for name, (how, _) in expected.items()
        }

    async def test_daemons_environment_and_descriptors_are_found_where_they_are_inherited(
        self, tmp_path: Path
    ) -> None:
        """Level 0 keeps these from its jobs as well: a plain child process stands for a job."""
        async with laid_out(tmp_path) as bait:
            outcomes = await asyncio.to_thread(_outside, INHERITED, bait, close_fds=False)
        assert [how for how, _ in outcomes.values()] == ["got"] * 3

    async def test_level_0_lets_a_job_have_hundreds_of_processes(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await bench.call(_fork_and_reap, 300, processes=48)
            assert run.value() == 300

    async def test_level_0_lets_a_job_fill_the_disk(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await bench.call(_write, 32 * MIB, disk_bytes=16 * MIB)
            assert run.value() == 32 * MIB

    async def test_level_0_notices_memory_only_after_it_was_taken(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await self.beside(bench, bombs.memory_hog, memory_bytes=128 * MIB)
            assert run.how == (JobState.LIMIT, Cause.MEMORY)
            assert run.end.usage.peak_memory_bytes > 128 * MIB

    async def test_level_0_lets_a_job_use_all_cores(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            assert await share_of_two_cores(bench, cpus=1) > 0.8

    async def test_level_0_lets_a_job_end_its_supervisor(self, tmp_path: Path) -> None:
        async with self.hostile(tmp_path) as bench:
            run = await self.beside(bench, bombs.kill_the_supervisor)
            assert run.how == (JobState.FAILED, Cause.CRASH)

    async def test_level_0_ends_orphans_that_ignore_signals(self, tmp_path: Path) -> None:
        """Kill means dead at every level."""
        async with self.hostile(tmp_path) as bench:
            token = self.token()
            run = await self.beside(bench, bombs.leave_deaf_orphans, token)
            assert run.how == DONE
            assert self.named(token) == []

    async def beside(self, bench: Bench, *job: object, **limits: int) -> Run:
        """Run a job beside a neighbour, which is not hurt."""
        async with neighbour(bench):
            run = await bench.call(*job, **limits)  # type: ignore[arg-type]
        assert await bench.value(lambda: "goes on", account=BOB) == "goes on"
        return run


def _outside(probes: list[Probe], bait: Bait, *, close_fds: bool = True) -> Outcomes:
    """Try probes in a process that is no job, as the same user."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=cloudpickle.dumps((try_all, probes, bait)),
        capture_output=True,
        check=True,
        close_fds=close_fds,
    )
    outcomes: Outcomes = cloudpickle.loads(done.stdout.partition(b"\n")[2])
    return outcomes


def _fork_and_reap(count: int) -> int:
    """Have so many processes at the same time."""
    import os
    import signal

    children = []
    for _ in range(count):
        children.append(os.fork())
        if children[-1] == 0:
            signal.pause()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


def _write(size: int) -> int:
    with open("filler", "wb") as file:
        return file.write(bytes(size))
