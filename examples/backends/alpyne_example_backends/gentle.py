"""The compute back end ``gentle``: jobs leave the machine to whoever sits at it.

    alpyne node compute --backend gentle --option nice=15 --option cores=2,3

Jobs run as plain processes, as those of the back end ``process`` do, but at a low priority
(``nice``, 0 to 19, by default 19), with the disk only while nobody else wants it, and where
``cores`` is given on those cores alone. The pool of warm workers is Alpyne's own; what is added
is how one is made.
"""

import os

import psutil
from alpyne_grid.nodes.compute.backends.base import BackendSetup
from alpyne_grid.nodes.compute.backends.cells import Cell, Kind
from alpyne_grid.nodes.compute.backends.plain_cells import PlainCells
from alpyne_grid.nodes.compute.backends.pool import WorkerPool
from alpyne_grid.nodes.errors import ConfigError


class GentleBackend(WorkerPool):
    """Runs jobs in warm processes that give way to all others."""

    options = frozenset({"nice", "cores"})

    def __init__(self, setup: BackendSetup) -> None:
        """Start nothing. ConfigError for a niceness or cores that this machine does not have."""
        super().__init__("gentle", setup, GentleCells(setup))


class GentleCells(PlainCells):
    """Starts interpreters, and takes their priority before they run anything."""

    def __init__(self, setup: BackendSetup) -> None:
        super().__init__(setup)
        self._nice = _whole("nice", setup.options.get("nice", ("19",))[-1], range(20))
        here = os.sched_getaffinity(0)
        asked = ",".join(setup.options.get("cores", ()))
        self._cores = {_whole("cores", core, here) for core in asked.split(",") if core} or here

    async def check(self) -> str:
        """Say what the workers run, and how."""
        cores = ", ".join(map(str, sorted(self._cores)))
        return f"{await super().check()}, niceness {self._nice}, cores {cores}"

    async def make(self, kind: Kind, mark: str) -> Cell:
        """Start an interpreter; OSError where that is impossible."""
        cell = await super().make(kind, mark)
        # First the one whose children inherit it, then those that it had already.
        supervisor = psutil.Process(cell.supervisor)
        self._restrain(supervisor)
        for child in supervisor.children(recursive=True):
            self._restrain(child)
        return cell

    def _restrain(self, process: psutil.Process) -> None:
        try:
            process.nice(self._nice)
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
            process.cpu_affinity(sorted(self._cores))
        except psutil.NoSuchProcess:  # it failed to start, which its pool will notice
            return


def _whole(name: str, text: str, allowed: "range | set[int]") -> int:
    if not text.isdecimal() or int(text) not in allowed:
        shown = ", ".join(map(str, sorted(allowed)))
        raise ConfigError(f"backend gentle: {name}: expected one of {shown}, got {text!r}")
    return int(text)
