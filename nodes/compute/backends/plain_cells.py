"""Level 0: workers as plain processes of the daemon's own user.

Nothing keeps a job here from what the daemon's user may do. Its tree is found through the worker's
supervisor, which takes in its orphans, or else by the mark in its environment and by its session;
what kills the supervisor and goes on in a new session with another environment cannot be told from
other programs of the same user.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from alpyne_grid.nodes.compute.backends.base import (
    BackendSetup,
    Enforcement,
    Suspends,
    Task,
    TaskEnd,
)
from alpyne_grid.nodes.compute.backends.cells import NOT_METERED, Cell, Kind, Metered, Walls
from alpyne_grid.nodes.compute.backends.launch import (
    MARK,
    Launched,
    folder_tag,
    launch,
    package_places,
)
from alpyne_grid.nodes.compute.backends.tree_freezer import TreeFreezer
from alpyne_grid.nodes.compute.worker import tree

NO_WALLS = Walls()
LIMITS: Mapping[str, Enforcement] = MappingProxyType(
    {
        "cpu": "none",
        "memory": "sampled",
        "wall": "sampled",
        "output": "sampled",
        "result": "sampled",
        "processes": "none",
        "disk": "none",
        "network": "none",
    }
)


class PlainCells:
    """Starts interpreters; see ``CellMaker`` for what its methods promise."""

    level = 0
    limits = LIMITS
    suspends: Suspends = "signals"
    images: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    def __init__(self, setup: BackendSetup) -> None:
        """Start nothing; ``reap`` and ``start`` follow."""
        self.when_lost: Callable[[str], None] = _ignore  # processes have no engine to be lost
        self.pythons: tuple[str, ...] = (f"{sys.version_info.major}.{sys.version_info.minor}",)
        self._folder = setup.folder
        self._started = 0
        self._places: list[str] = []

    def walls(self, task: Task | None) -> Walls:
        """Return none: any worker of the account will do."""
        return NO_WALLS

    async def reap(self) -> int:
        """End what an earlier daemon of this folder left running; return how many processes."""
        return await reap_marked(self._folder)

    async def start(self) -> None:
        """Make its folder; OSError where that fails or a package of the runtime is missing."""
        self._places = package_places()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700, parents=True)

    async def check(self) -> str:
        """Say what the workers run; OSError where a package of the runtime is missing."""
        package_places()
        return f"level 0: plain processes of user {os.getuid()}, Python {self.pythons[0]}"

    def confine(self) -> None:
        """Give up nothing: a job of this level has all that the daemon has."""

    async def make(self, kind: Kind, mark: str) -> Cell:
        """Start an interpreter; OSError where that is impossible."""
        self._started += 1
        return PlainCell(launch(mark, self._scratch / str(self._started), self._places))

    async def close(self) -> None:
        """Hold nothing that would have to be let go of."""

    @property
    def _scratch(self) -> Path:
        return self._folder / "scratch"


class PlainCell:
    """A supervisor, its interpreter and their folder; see ``Cell``."""

    def __init__(self, launched: Launched) -> None:
        """``launched``: a worker that has just been started."""
        self.mark = launched.mark
        self.supervisor = launched.process.pid
        self.control, self.job = launched.control, launched.job
        self.stdout, self.stderr = launched.stdout, launched.stderr
        self._process = launched.process
        self._scratch = launched.scratch
        self._folder: Path | None = None  # of the last command
        self._leftovers: tree.Leftovers | None = None
        self._freezer = TreeFreezer(self.supervisor)

    # ---- per job ----

    def bring(self, file: Path) -> str:
        """Return the file's own path: all of the node's files are readable."""
        return str(file)

    def folder(self, folder: Path) -> str:
        """Return the node's own path."""
        self._folder = folder
        return str(folder)

    def begin(self) -> None:
        """Reset nothing: the worker measures itself."""

    def held_bytes(self, most: int) -> int:
        """Return the memory of the tree below the supervisor."""
        return tree_held_bytes(self.supervisor, most)

    def overrun(self) -> TaskEnd | None:
        """Return None: the kernel enforces nothing here."""
        return None

    def metered(self) -> Metered:
        """Return nothing: the worker's own word is all there is."""
        return NOT_METERED

    def leftovers(self, interpreter: int) -> Callable[[], bool]:
        """Return what looks below the supervisor for others than the interpreter."""
        self._leftovers = tree.Leftovers(self.supervisor, interpreter)
        return self._leftovers.any

    # ---- suspending ----

    async def freeze(self) -> None:
        """Stop the tree by SIGSTOP; OSError where some of it goes on."""
        await self._freezer.freeze()

    async def thaw(self) -> None:
        """Let the tree run again, but for what the job had stopped itself."""
        await self._freezer.thaw()

    # ---- the end ----

    def wake(self) -> None:
        """Continue a supervisor that a job has stopped; the rest need not run to be killed."""
        if self._process.poll() is None:
            tree.continue_all((self.supervisor,))

    def has_exited(self) -> bool:
        """Reap the supervisor where it has ended, and say so."""
        return self._process.poll() is not None

    async def end_all(self) -> tree.Receipt:
        """End what carries the mark or was born in the supervisor's session, and all below."""

        def find() -> list[int]:
            roots = tree.marked(MARK, self.mark) + tree.in_session(self.supervisor)
            return [pid for pid in tree.with_descendants(roots) if pid != os.getpid()]

        return await asyncio.to_thread(tree.end_all, find, reap=self._reap)

    def clear_away(self) -> None:
        """Remove its scratch folder, and the command's that it could not remove itself."""
        if self._leftovers is not None:
            self._leftovers.close()
        if self._folder is not None:
            _remove(self._folder)
        try:
            self._scratch.rmdir()
        except OSError:  # a job left files: as many as it liked
            _remove(self._scratch)

    def _reap(self) -> None:
        self._process.poll()


async def reap_marked(folder: Path) -> int:
    """End all that carries the mark of a back end's folder, and all below; return how many."""
    tag = folder_tag(folder)

    def find() -> list[int]:
        return tree.with_descendants(tree.marked(MARK, f"{tag}."))

    receipt = await asyncio.to_thread(tree.end_all, find)
    return receipt.ended


def tree_held_bytes(supervisor: int, most: int) -> int:
    """Return the memory of the tree below ``supervisor``.

    The sum of resident sets counts what forked processes share more than once; where that sum is
    over the limit ``most``, the exact but slower proportional sets decide.
    """
    processes = tree.descendants(supervisor)
    resident = sum(map(tree.resident_bytes, processes))
    if not most or resident <= most or len(processes) < 2:
        return resident
    return sum(map(tree.proportional_bytes, processes)) or resident


def _remove(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, partial(shutil.rmtree, folder, ignore_errors=True))


def _ignore(why: str) -> None:
    """Do nothing."""
