"""Level 2: a container per worker, made by the launcher.

What depends on the engine waits for it: while it is away no container can be made, and what ran in
containers that went with it fails for the node. A launcher that ended takes all containers along.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alpyne_grid.nodes.compute.backends.base import BackendSetup, Enforcement, Suspends, Task
from alpyne_grid.nodes.compute.backends.cells import Cell, Kind, Walls
from alpyne_grid.nodes.compute.backends.containers.cell import DockerCell
from alpyne_grid.nodes.compute.backends.containers.confine import architecture, confine_process
from alpyne_grid.nodes.compute.backends.containers.link import (
    Done,
    EngineAway,
    LauncherLink,
)
from alpyne_grid.nodes.compute.backends.containers.runtime import install_runtime
from alpyne_grid.nodes.compute.backends.containers.settings import Settings, read_settings
from alpyne_grid.nodes.compute.backends.containers.verbs import ENGINE_BACK
from alpyne_grid.nodes.compute.backends.launch import folder_tag

ENGINE_PATIENCE_S = 30.0  # that a job waits for an engine to be back
RETRY_S = 0.25
CELLS_MOST = 1024  # containers at once; the pool of workers keeps far fewer
PROCESSES_MOST = 32_768  # of a job, where the administrator gives no more
DISK_LEAST = 1 << 16  # bytes of scratch; an engine takes no less than a page
LAUNCHER_LOST = (
    "the launcher, which held the socket of the container engine, has ended, and with it all "
    "containers; start the node again, jobs that ran will run again"
)


class DockerCells:
    """Has containers made; see ``CellMaker`` for what its methods promise."""

    level = 2
    suspends: Suspends = "kernel"

    def __init__(self, setup: BackendSetup) -> None:
        """Start nothing; ``reap`` and ``start`` follow. ConfigError where options are wrong."""
        self.when_lost: Callable[[str], None] = _ignore
        self.settings: Settings = read_settings(setup.options)
        self.limits: Mapping[str, Enforcement] = _limits({})
        self.pythons: tuple[str, ...] = ()
        self._folder = setup.folder.absolute()
        self._started = 0
        self._link: LauncherLink | None = None
        self._confined = False
        self._closing = False
        self._engine_is_there = asyncio.Event()
        self._removing: set[asyncio.Task[None]] = set()

    @property
    def images(self) -> tuple[str, ...]:
        """The images that jobs may ask for, the default first."""
        return self.settings.images

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that jobs may ask for."""
        return self.settings.networks

    def walls(self, task: Task | None) -> Walls:
        """Return what the kernel enforces for ``task``: all of its limits."""
        image, (memory, processes, disk) = self.settings.images[0], self.settings.defaults
        memory = min(memory, _machine_bytes())
        if task is None:
            return Walls(memory, 1, processes, min(disk, _machine_bytes()), "", image)
        # Beyond what the launcher would take, a limit keeps nobody from anything.
        return Walls(
            min(task.memory_bytes or memory, _machine_bytes()),
            min(task.cpus, _cores()),  # a node may have more slots than cores
            min(task.processes or processes, self._processes_most),
            max(DISK_LEAST, min(task.disk_bytes or disk, _machine_bytes())),
            task.network,
            task.image or image,
        )

    # ---- life ----

    async def reap(self) -> int:
        """Remove the containers that an earlier daemon of this folder left; return how many."""
        link = await self._opened()
        return int((await link.ask("reap")).value["ended"])

    async def start(self) -> None:
        """Look at the engine, the images and the networks; OSError where one is missing."""
        try:
            await self._look()
        except OSError:
            await self.close()  # nobody closes what did not start
            raise

    async def check(self) -> str:
        """Say what engine and images there are, leaving nothing; OSError as ``start``."""
        try:
            seen = await self._look()
        finally:
            await self.close()
        images = ", ".join(
            f"{name} (Python {python})"
            for name, python in zip(self.images, seen["pythons"], strict=True)
        )
        missing = [name for name, how in self.limits.items() if how == "none"]
        lacks = f", which enforces no limit of {', '.join(missing)}" if missing else ""
        seccomp = "" if seen["seccomp"] else ", without its seccomp profile"
        root = "; nothing keeps root from the engine: run the node as a user of the group docker"
        return (
            f"level 2: Docker Engine {seen['engine']} at {self.settings.host}{seccomp}{lacks}; "
            f"images {images}{root if os.geteuid() == 0 else ''}"
        )

    def confine(self) -> None:
        """Let this process open no unix socket any more; OSError where the kernel cannot."""
        confine_process()
        self._confined = True

    async def make(self, kind: Kind, mark: str) -> Cell:
        """Have a container made; OSError where it cannot be."""
        self._started += 1
        number, walls = self._started, kind.walls
        made = asyncio.ensure_future(self._order(number, mark, walls))
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(self._discard)
            raise

    async def close(self) -> None:
        """Let the launcher end what is left, and itself."""
        self._closing = True
        if self._removing:
            await asyncio.wait(self._removing)
        if self._link is not None:
            link, self._link = self._link, None
            await link.close()
        await asyncio.to_thread(shutil.rmtree, self._cells, ignore_errors=True)

    # ---- how ----

    async def _opened(self) -> LauncherLink:
        """Return the link to a launcher that has the engine's socket."""
        if self._link is not None:
            return self._link
        architecture()  # before anything is started
        link = LauncherLink(self._on_event, self._on_lost)
        await link.start()
        try:
            await asyncio.to_thread(self._make_folders)  # while the launcher gets ready
            await self._open(link)
        except OSError:
            await link.close()
            raise
        self._engine_is_there.set()
        self._link = link
        return link

    async def _open(self, link: LauncherLink) -> None:
        """Tell the launcher what it may do."""
        settings = self.settings
        await link.ask(
            "open",
            host=settings.host,
            tag=folder_tag(self._folder),
            runtime=str(self._runtime),
            cells=str(self._cells),
            images=list(settings.images),
            networks=list(settings.networks),
            cells_most=CELLS_MOST,
            memory_most=_machine_bytes(),
            cpus_most=_cores(),
            processes_most=self._processes_most,
        )

    @property
    def _processes_most(self) -> int:
        return max(PROCESSES_MOST, self.settings.defaults.processes)

    def _make_folders(self) -> None:
        install_runtime(self._runtime)
        shutil.rmtree(self._cells, ignore_errors=True)
        self._cells.mkdir(mode=0o755, parents=True)

    async def _look(self) -> Mapping[str, Any]:
        seen = (await (await self._opened()).ask("look")).value
        self.limits = _limits(seen)
        self.pythons = tuple(dict.fromkeys(seen["pythons"]))
        return seen

    async def _order(self, number: int, mark: str, walls: Walls) -> DockerCell:
        link = self._link
        if link is None:
            raise OSError(LAUNCHER_LOST)
        try:
            async with asyncio.timeout(ENGINE_PATIENCE_S):
                done = await self._ask_patiently(link, number, mark, walls)
        except TimeoutError:
            self._remove(number)
            raise OSError(
                f"the container engine at {self.settings.host} did not come back within "
                f"{ENGINE_PATIENCE_S:.0f} s; start it: systemctl start docker"
            ) from None
        folder = self._cells / str(number)
        try:
            return DockerCell(
                link, number, mark, walls, done, folder, partial(self._remove, number)
            )
        except OSError as error:
            self._remove(number)
            raise OSError(f"its container ended at once: {error}") from None

    async def _ask_patiently(
        self, link: LauncherLink, number: int, mark: str, walls: Walls
    ) -> Done:
        """Have a container made, as soon as the engine is there."""
        while True:
            await self._engine_is_there.wait()
            try:
                return await link.ask(
                    "make",
                    cell=number,
                    mark=mark,
                    image=walls.image,
                    network=walls.network,
                    memory=walls.memory_bytes,
                    cpus=walls.cpus,
                    processes=walls.processes,
                    disk=walls.disk_bytes,
                )
            except EngineAway:
                await asyncio.sleep(RETRY_S)  # until the launcher knows whether it is lost

    def _remove(self, number: int) -> None:
        """Have what is left of a cell removed, in the background."""
        if self._link is not None:
            task = asyncio.get_running_loop().create_task(_remove(self._link, number))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    def _discard(self, made: "asyncio.Future[DockerCell]") -> None:
        """Remove a cell that nobody waits for any more."""
        if not made.cancelled() and made.exception() is None:
            made.result().let_go()

    def _on_event(self, name: str) -> None:
        if name == ENGINE_BACK:
            self._engine_is_there.set()
        else:
            self._engine_is_there.clear()

    def _on_lost(self) -> None:
        """React to the end of the launcher, which no confined daemon can start again."""
        self._link = None
        if self._closing:
            return
        if self._confined:
            # Not by an error of some job: the node ends in order, with exit code 1, and its service
            # manager starts it anew. Jobs that ran are not told to have failed: they run again.
            asyncio.get_running_loop().call_soon(_end_the_node)
        else:
            self.when_lost(LAUNCHER_LOST)

    @property
    def _runtime(self) -> Path:
        return self._folder / "runtime"

    @property
    def _cells(self) -> Path:
        return self._folder / "cells"


def _limits(seen: Mapping[str, Any]) -> Mapping[str, Enforcement]:
    """Return how each limit is enforced by an engine that says what its kernel can do."""

    def by_kernel(name: str) -> Enforcement:
        return "kernel" if seen.get(name, True) else "none"

    return MappingProxyType(
        {
            "cpu": by_kernel("cpu"),
            "memory": by_kernel("memory"),
            "wall": "sampled",
            "output": "sampled",
            "result": "sampled",
            "processes": by_kernel("processes"),
            "disk": "kernel",
            "network": "kernel",
        }
    )


def _cores() -> int:
    return os.cpu_count() or 1


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def _remove(link: LauncherLink, number: int) -> None:
    with contextlib.suppress(OSError):  # the engine is away; the launcher removes it later
        await link.ask("end", cell=number)


def _end_the_node() -> None:
    raise SystemExit(f"alpyne node: {LAUNCHER_LOST}")


def _ignore(why: str) -> None:
    """Do nothing."""
