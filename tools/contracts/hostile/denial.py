"""What a hostile job reaches for is denied to it: each thing by itself, by all means at once."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from alpyne_grid.tools.contracts.compute import FAILED, Run
from alpyne_grid.tools.contracts.hostile.bait import laid_out
from alpyne_grid.tools.contracts.hostile.bench import HostileBench
from alpyne_grid.tools.contracts.hostile.neighbour import Neighbour, neighbour
from alpyne_grid.tools.contracts.hostile.probes import PROBES, Probe, try_all

from alpyne_proto.messages.compute import Cause

Outcomes = dict[str, tuple[str, str]]


def prize(bait: dict[str, Any], beside: Neighbour, level: int) -> dict[str, Any]:
    """Return the bait with what the neighbour's job has; its supervisor is the job's own."""
    return {
        **bait,
        "supervisor": 0,
        "first": 1 if level else bait["first"],
        "neighbours_files": beside.files,
        "neighbours_token": beside.token,
    }


class ProbingBench(HostileBench):
    """Tries all probes once, in one job beside a neighbour; each test looks at one outcome."""

    _outcomes: ClassVar[dict[type, Outcomes | BaseException]] = {}

    async def outcomes(self, folder: Path, probes: list[Probe]) -> Outcomes:
        """Return what came of each probe, by its name."""
        found = self._outcomes.get(type(self))
        if found is None:
            try:
                found = await self._tried(folder, probes)
            except BaseException as error:  # the others need not wait for the same
                self._outcomes[type(self)] = error
                raise
            self._outcomes[type(self)] = found
        if isinstance(found, BaseException):
            raise AssertionError(f"the probes could not be tried: {found!r}") from found
        return found

    async def _tried(self, folder: Path, probes: list[Probe]) -> Outcomes:
        state = folder / "state"
        async with laid_out(state, self.engine_sockets) as bait:
            async with self.hostile(state) as bench, neighbour(bench) as beside:
                run = await bench.call(try_all, probes, prize(bait, beside, self.level))
                outcomes: Outcomes = run.value()
                assert run.end.left == 0
            assert (state / "identity").read_text() == bait["token"]
        return outcomes


class DenialContract(ProbingBench):
    """Each thing that a job reaches for beyond its own is denied."""

    @pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
    async def test_job_is_denied(self, tmp_path: Path, probe: Probe) -> None:
        how, what = (await self.outcomes(tmp_path, list(PROBES)))[probe.name]
        assert (how, what) == ("denied", what)

    async def test_job_runs_behind_a_filter_of_system_calls(self, tmp_path: Path) -> None:
        def work() -> str:
            with open("/proc/self/status") as file:
                (line,) = (line for line in file if line.startswith("Seccomp:"))
            return line.split()[1]

        async with self.hostile(tmp_path) as bench:
            assert await bench.value(work) == "2"

    @pytest.mark.parametrize(
        "trick",
        [
            "ln -s {secret} out",
            "ln -s /proc/self/environ out",
            "mkfifo out",
            "mknod out c 1 3",
            "mknod out b 7 0",
            "ln {secret} out",
            "echo own > own; ln own out",
            "mkdir real; ln -s real sub; echo own > real/out; ln -s sub/out out",
        ],
    )
    async def test_command_gives_out_no_file_that_is_not_plainly_its_own(
        self, tmp_path: Path, trick: str
    ) -> None:
        secret = tmp_path / "identity"
        secret.write_text("the daemon's key")
        async with self.hostile(tmp_path) as bench:
            line = ["sh", "-c", trick.format(secret=secret) + "; true"]
            _refuses(await bench.command(line, (), ["out"]))

    async def test_command_gives_out_no_link_that_replaces_its_file_all_the_time(
        self, tmp_path: Path
    ) -> None:
        secret = tmp_path / "identity"
        secret.write_text("the daemon's key")
        swap = f"while :; do ln -sf {secret} out; rm out; echo own > out; rm out; done"
        async with self.hostile(tmp_path) as bench:
            for _ in range(4):  # each costs a worker
                line = ["sh", "-c", f"({swap}) >/dev/null 2>&1 & sleep 0.05"]
                run = await bench.command(line, (), ["out"])
                given = [data for _, data in run.rows()]
                assert all(data in (b"", b"own\n") for data in given)


def _refuses(run: Run) -> None:
    assert run.how == (FAILED, Cause.MISSING_FILE)
    assert all(data == b"" for _, data in run.rows())
