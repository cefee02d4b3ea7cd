"""What the hostile parts share: a bench with bait beside it, and a look at what is left behind."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from alpyne_grid.tools.contracts.compute import BackendBench, Bench, marked, named

_MARK = re.compile(r"[\w.-]{8,}")  # what a call of this contract prints first


class HostileBench(BackendBench):
    """Makes the bench; the parts of the hostile contract inherit it.

    ``level``: the isolation level that the back end has. ``engine_sockets``: those of container
    engines on this machine. Where ``left_behind`` can find more than processes and mounts, it is
    overridden and added to.
    """

    level = 1
    within_s = 110.0  # machines that run tests are busy
    engine_sockets: tuple[str, ...] = ()

    @contextlib.asynccontextmanager
    async def hostile(self, folder: Path, limit: str = "") -> AsyncIterator[Bench]:
        """Yield a bench that leaves nothing behind; skip where the machine cannot keep a limit."""
        async with self.bench(folder) as bench:
            assert bench.backend.level == self.level
            if limit and bench.backend.limits.get(limit, "none") == "none":
                pytest.skip(f"this machine gives the back end no means to limit {limit}")
            yield bench
        firsts = [run.written().split("\n")[0] for run in bench.sink.runs.values()]
        assert [pid for mark in firsts if _MARK.fullmatch(mark) for pid in marked(mark)] == []
        assert await self._left(folder) == []

    async def _left(self, folder: Path) -> list[str]:
        """Wait a little for what is removed in the background."""
        for _ in range(100):
            left = await asyncio.to_thread(self.left_behind, folder)
            if not left:
                break
            await asyncio.sleep(0.05)
        return left

    def left_behind(self, folder: Path) -> list[str]:
        """Name what is left of a back end in ``folder`` that has been closed."""
        scratch = folder / "backend" / "scratch"
        files = sorted(map(str, scratch.iterdir())) if scratch.exists() else []
        mounts = [
            line.split()[4]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(folder) in line
        ]
        return files + mounts + _children_of(folder)

    def token(self) -> str:
        """Return a number of seconds that nobody else sleeps."""
        return f"3600.{uuid.uuid4().int}"

    def named(self, token: str) -> list[int]:
        """Return the machine's processes with a token on their command lines."""
        return named(token)


def _children_of(folder: Path) -> list[str]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if str(folder) in " ".join(child.cmdline()):
                found.append(f"{child.pid}: {child.name()}")
    return found
