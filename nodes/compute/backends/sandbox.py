"""Level 1: workers in sandboxes of bubblewrap, without any rights and behind limits of the kernel.

A sandbox has namespaces of its own (users, processes, IPC, host name, network, control groups), a
file system that shows what a Python needs and nothing else, no capabilities, a filter of system
calls, and, where the machine gives them, control groups. Where it gives none, memory and processes
are sampled; ``limits`` says which. There is no way back to level 0: a machine that does not let
this user make a sandbox is an error at the start, found by a sandbox that is made for a try.
"""

import asyncio
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from alpyne_grid.nodes.compute.backends import bubblewrap, seccomp
from alpyne_grid.nodes.compute.backends.base import (
    BackendSetup,
    Enforcement,
    Suspends,
    Task,
)
from alpyne_grid.nodes.compute.backends.cell_groups import CellGroup, CellGroups, reap_groups
from alpyne_grid.nodes.compute.backends.cells import Cell, Kind, Walls
from alpyne_grid.nodes.compute.backends.launch import folder_tag
from alpyne_grid.nodes.compute.backends.plain_cells import reap_marked
from alpyne_grid.nodes.compute.backends.sandbox_cell import SandboxCell
from alpyne_grid.nodes.compute.backends.sandbox_files import Brought
from alpyne_grid.nodes.compute.backends.sandbox_start import (
    Recipe,
    Start,
    offer_to_the_oom_killer,
    read_words,
)
from alpyne_grid.nodes.compute.backends.sandbox_view import make_view
from alpyne_grid.nodes.compute.backends.stage import GROUP, USERS, USERS_MOST, Stage
from alpyne_grid.nodes.compute.backends.wall_defaults import PROCESSES_MOST, read_defaults
from alpyne_grid.nodes.errors import ConfigError

from alpyne_grid.durable import write_durably

MEMORY_LEAST = 32 << 20  # an interpreter needs about 20 MiB
READY_S = 30.0  # for the interpreter of the first try to say something
NPROC_PER_NAMESPACE = (5, 14)  # the kernel since which RLIMIT_NPROC counts per user namespace
FIRST_WORDS = 4096  # bytes; the interpreter's first message is far smaller
_BASE: Mapping[str, Enforcement] = MappingProxyType(
    {"wall": "sampled", "output": "sampled", "result": "sampled", "disk": "kernel"}
)


class SandboxCells:
    """Makes sandboxes; see ``CellMaker`` for what its methods promise."""

    level = 1
    images: tuple[str, ...] = ()

    def __init__(self, setup: BackendSetup) -> None:
        """Start nothing. ConfigError for options that cannot be used."""
        self.when_lost: Callable[[str], None] = _ignore  # processes have no engine to be lost
        self.pythons: tuple[str, ...] = (f"{sys.version_info.major}.{sys.version_info.minor}",)
        self.networks = _networks(setup.options.get("network", ()))
        self._defaults = read_defaults(setup.options)
        self._folder = setup.folder
        self._state = setup.folder.parent  # beside its own folder lies what no job may see
        self._boot = setup.boot_id.hex()[:8]
        self._groups = CellGroups("")  # none, until ``start``
        self._recipe: Recipe | None = None
        self._made = 0
        self._first_user = secrets.randbelow(USERS_MOST)  # other nodes of this machine have others
        self._clearing: set[asyncio.Future[object]] = set()

    # ---- what it is ----

    @property
    def limits(self) -> Mapping[str, Enforcement]:
        has = self._groups.controllers
        counted = "pids" in has or _counts_processes()
        return {
            **_BASE,
            "cpu": "kernel" if "cpu" in has else "none",
            "memory": "kernel" if "memory" in has else "sampled",
            "processes": "kernel" if counted else "sampled",
            "network": "kernel",
        }

    @property
    def suspends(self) -> Suspends:
        return "kernel" if "freezer" in self._groups.controllers else "signals"

    def walls(self, task: Task | None) -> Walls:
        """Return what ``task`` asks for, or else the defaults; 0 for what need not be kept here."""
        has, defaults = self._groups.controllers, self._defaults
        memory = (task.memory_bytes if task is not None else 0) or defaults.memory_bytes
        # Where it is sampled, the walls need not keep workers apart, but for a default.
        kept = memory and ("memory" in has or defaults.memory_bytes)
        return Walls(
            max(memory, MEMORY_LEAST) if kept else 0,
            (task.cpus if task is not None else 1) if "cpu" in has else 0,
            # More than the kernel can have at all would be an error to it, not a limit.
            min((task.processes if task is not None else 0) or defaults.processes, PROCESSES_MOST),
            (task.disk_bytes if task is not None else 0) or defaults.disk_bytes,
            task.network if task is not None else "",
        )

    # ---- life ----

    async def reap(self) -> int:
        """End what an earlier daemon of this folder left; return how many processes.

        ``--die-with-parent`` has ended all of it with that daemon, but for what was frozen.
        """
        parents = await asyncio.to_thread(_read_parents, self._parents_file)
        ended = await asyncio.to_thread(reap_groups, parents)
        return ended + await reap_marked(self._folder)

    async def start(self) -> None:
        """Find out what the machine gives, and make one sandbox for a try; OSError with advice."""
        await asyncio.to_thread(shutil.rmtree, self._cells, ignore_errors=True)
        try:
            await self._prepare(folder_tag(self._folder))
            parents = "".join(f"{parent}\n" for parent in self._groups.parents)
            write_durably(self._parents_file, parents.encode())
            await self._try()
        except BaseException:
            await self.close()
            raise

    async def check(self) -> str:
        """Say what ``start`` would find; OSError with advice where it would fail."""
        cells, self._folder = self._folder, self._folder / f"check-{secrets.token_hex(4)}"
        try:
            await self._prepare(f"check-{secrets.token_hex(4)}")
            await self._try()
            words = ", ".join(f"{name} {how}" for name, how in sorted(self.limits.items()))
            return (
                f"level 1: sandboxes of bubblewrap, user {os.getuid()}, Python {self.pythons[0]}; "
                f"{self._groups.describe()}; limits: {words}"
            )
        finally:
            await self.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder, self._groups = cells, CellGroups("")

    def confine(self) -> None:
        """Give up nothing: what makes a sandbox needs no more than any program."""

    async def close(self) -> None:
        """Wait until all cells are cleared away, and remove the parents of their groups."""
        while self._clearing:
            await asyncio.wait(self._clearing)
        await asyncio.to_thread(self._groups.close)
        if self._recipe is not None:
            if self._recipe.stage is not None:
                self._recipe.stage.close()
            self._recipe = None

    async def _prepare(self, tag: str) -> None:
        machine = platform.machine()
        if not seccomp.supports(machine):
            raise OSError(
                f"level 1 needs a filter of system calls, and there is none for {machine}; use the "
                "docker back end there, or start the node with --level 0 for owners you trust"
            )
        program = bubblewrap.find_program()
        self._cells.mkdir(mode=0o700, parents=True)
        if _is_root():
            self._cells.chmod(0o711)  # the user of a cell goes through it, inside of the stage
        view = make_view(self._folder / "etc", self._state)
        stage = None
        if _is_root():
            seen = [*(path for path, _ in view.binds), str(self._cells)]
            stage = await asyncio.to_thread(Stage, seen)
        self._groups = CellGroups(tag)
        await asyncio.to_thread(self._groups.open)
        has = self._groups.controllers
        code = seccomp.filter_program(machine, memory_is_counted="memory" in has)
        self._recipe = Recipe(program, view, code, stage, "pids" in has)

    async def _try(self) -> None:
        """Make one cell and see its interpreter run; OSError with advice where it does not."""
        cell = await self.make(Kind(b"", self.walls(None)), f"{secrets.token_hex(8)}.try.")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READY_S):
                said = await loop.sock_recv(cell.job, FIRST_WORDS)
        except (TimeoutError, ConnectionError):
            said = b""
        finally:
            await cell.end_all()
            why = read_words(cell.stderr)
            cell.control.close()
            cell.job.close()
            os.close(cell.stdout)
            os.close(cell.stderr)
            cell.clear_away()
        if not said:
            raise OSError(f"a worker does not start in a sandbox. {bubblewrap.advice(why)}")

    # ---- cells ----

    async def make(self, kind: Kind, mark: str) -> Cell:
        """Start bubblewrap with a worker inside; OSError with what to do where that fails."""
        if self._recipe is None:
            raise OSError("sandboxes cannot be made before the back end has started")
        self._made += 1
        name = f"{self._boot}.{self._made}"
        folder = self._cells / name
        folder.mkdir(mode=0o700)
        user = os.geteuid() or USERS + (self._first_user + self._made) % USERS_MOST
        os.chown(folder, user, -1)
        brought = Brought(folder, GROUP if _is_root() else None)
        group = CellGroup({})
        try:
            group = await asyncio.to_thread(self._groups.make, name, kind.walls)
            started = Start(self._recipe, kind.walls, folder, mark, user)
            try:
                supervisor = await started.supervisor()
                await started.join(group, supervisor)
                offer_to_the_oom_killer(supervisor)
                started.let_go()
            except BaseException:
                started.end()
                raise
        except BaseException:
            self._clear(lambda: _remove(group, folder))
            raise
        return SandboxCell(mark, started, supervisor, kind.walls, group, brought, self._clear)

    def _clear(self, remove: Callable[[], object]) -> None:
        """Run ``remove``, which may block, in the background."""
        future = asyncio.get_running_loop().run_in_executor(None, remove)
        self._clearing.add(future)
        future.add_done_callback(self._clearing.discard)

    @property
    def _cells(self) -> Path:
        return self._folder / "cells"

    @property
    def _parents_file(self) -> Path:
        return self._folder / "groups"


def _networks(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the networks that jobs may ask for; ConfigError for one that level 1 has not."""
    for name in names:
        if name not in bubblewrap.NETWORKS:
            raise ConfigError(
                f"network: level 1 knows the network `host` only (all that this machine reaches), "
                f"got {name!r:.80}; leave it out, or use the docker back end"
            )
    return tuple(dict.fromkeys(names))


def _is_root() -> bool:
    return os.geteuid() == 0


def _counts_processes() -> bool:
    """Say whether RLIMIT_NPROC limits each sandbox by itself."""
    numbers = platform.release().split("-")[0].split(".")[:2]
    release = tuple(int(number) for number in numbers if number.isdigit())
    return release >= NPROC_PER_NAMESPACE


def _read_parents(file: Path) -> list[Path]:
    try:
        return [Path(line) for line in file.read_text().splitlines()]
    except FileNotFoundError:
        return []


def _remove(group: CellGroup, folder: Path) -> None:
    group.remove()
    shutil.rmtree(folder, ignore_errors=True)


def _ignore(why: str) -> None:
    """Do nothing."""
