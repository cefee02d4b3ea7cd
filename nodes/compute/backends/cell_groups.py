"""Control groups of our own: one for each cell, below one parent per back end's folder.

    <a group that we may divide>/alpyne-TAG/<cell>      in each hierarchy that has a controller

Which group may be divided depends on the machine: with version 1, the daemon's own where its user
may write there (mostly root's alone); with version 2, the own group where it was delegated to us,
or the nearest one above it that we may write to (a systemd user's ``app.slice``). Where none is
found, cells have no groups, and limits are sampled. Sources: cgroups(7), the kernel's
``admin-guide/cgroup-v2`` ("Delegation", "No Internal Process Constraint").
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from alpyne_grid.nodes.compute.backends.cells import Walls
from alpyne_grid.nodes.compute.backends.cgroups import ControlGroups, Hierarchy, hierarchies
from alpyne_grid.nodes.compute.backends.group_parents import (
    LEAF,
    own_paths,
    parent_v1,
    parent_v2,
    processes_in,
    write_file,
)
from alpyne_grid.nodes.compute.worker import tree

PREFIX = "alpyne-"
CPU_PERIOD_US = 100_000  # the kernel's own default
SUPERVISOR = 1  # process of a cell that is not the job's
PATIENCE_S = 3.0  # for killed processes to leave their group
PAUSE_S = 0.002  # between looks
FREEZE_PATIENCE_S = 2.0
_TRIED = Walls(memory_bytes=64 << 20, cpus=1, processes=8)


class CellGroups:
    """The parent groups, one in each hierarchy that can be used."""

    def __init__(self, tag: str, proc: Path = Path("/proc")) -> None:
        """``tag``: of the back end's folder. Makes nothing yet."""
        self._name = f"{PREFIX}{tag}"
        self._proc = proc
        self._parents: dict[Path, int] = {}  # version by folder
        self._controllers: dict[str, tuple[int, Path]] = {}  # by controller: version, parent

    def open(self) -> None:
        """Find out what can be divided and make the parents; never raises, but may find nothing."""
        paths = own_paths(self._proc)
        for hierarchy in sorted(hierarchies(self._proc), key=lambda one: one.version):
            wanted = [name for name in hierarchy.controllers if name not in self._controllers]
            group = paths.get("" if hierarchy.version == 2 else hierarchy.controllers[0])
            own = hierarchy.folder(group) if group is not None else None
            if own is None or not wanted:
                continue
            if hierarchy.version == 2 and own.name == LEAF:
                own = own.parent  # this process has divided it before
            with contextlib.suppress(OSError):
                self._use(hierarchy, own, wanted)
        for parent in self.parents:
            try:
                self._try(parent)
            except OSError:
                self._without(parent)

    def _use(self, hierarchy: Hierarchy, own: Path, wanted: list[str]) -> None:
        version = hierarchy.version
        parent, has = (
            parent_v1(own, self._name, wanted)
            if version == 1
            else parent_v2(hierarchy.mount, own, self._name, wanted)
        )
        self._parents[parent] = version
        self._controllers.update((name, (version, parent)) for name in has)

    @property
    def controllers(self) -> frozenset[str]:
        """What cells can be limited and measured by, of ``cgroups.CONTROLLERS``."""
        return frozenset(self._controllers)

    @property
    def parents(self) -> list[Path]:
        """The folders of the parents; below them is nothing but cells."""
        return list(self._parents)

    def describe(self) -> str:
        """Return in some words what was found."""
        if not self._controllers:
            return "no control groups"
        versions = sorted({version for version, _ in self._controllers.values()})
        names = ", ".join(sorted(self._controllers))
        return f"control groups version {' and '.join(map(str, versions))} ({names})"

    def _try(self, parent: Path) -> None:
        """Do all that is done with a cell, with a process that waits; OSError where it fails."""
        folders = {c: (v, p / "try") for c, (v, p) in self._controllers.items() if p == parent}
        group = CellGroup(folders)
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            try:
                group.make(_TRIED)
                group.add(process.pid)
                if group.can_freeze:
                    group.freeze()
                    group.thaw()
                if group.processes() != [process.pid]:
                    raise OSError(f"{parent}: the process is not in its group")
            finally:
                process.kill()
                process.wait()
                group.remove()

    def _without(self, parent: Path) -> None:
        """Use ``parent`` no more: it has turned out to be of no use."""
        self._parents.pop(parent, None)
        for name in [n for n, (_, folder) in self._controllers.items() if folder == parent]:
            del self._controllers[name]
        with contextlib.suppress(OSError):
            parent.rmdir()

    def make(self, name: str, walls: Walls) -> "CellGroup":
        """Make the groups of a cell and set their limits; OSError where that fails."""
        group = CellGroup({c: (v, p / name) for c, (v, p) in self._controllers.items()})
        try:
            group.make(walls)
        except BaseException:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """Remove the parents; those that still hold a cell stay."""
        for parent in self._parents:
            with contextlib.suppress(OSError):
                parent.rmdir()


class CellGroup:
    """The groups of one cell, in all hierarchies."""

    def __init__(self, folders: Mapping[str, tuple[int, Path]]) -> None:
        """``folders``: version and folder by controller; empty where the machine has none."""
        self._at = dict(folders)
        self._folders = list(dict.fromkeys(folder for _, folder in folders.values()))
        self.gauges = ControlGroups({})

    def make(self, walls: Walls) -> None:
        """Make the folders and set the limits; OSError where that fails."""
        for folder in self._folders:
            folder.mkdir()
        if walls.memory_bytes:
            self._limit_memory(walls.memory_bytes)
        if walls.processes:
            self._write("pids", "pids.max", str(walls.processes + SUPERVISOR))
        if walls.cpus:
            self._limit_cpu(walls.cpus * CPU_PERIOD_US)
        self.gauges = ControlGroups(self._at)

    def _limit_memory(self, most: int) -> None:
        version, folder = self._at.get("memory", (0, Path()))
        if version == 1:
            write_file(folder / "memory.limit_in_bytes", str(most))
            with contextlib.suppress(OSError):  # the kernel does not count swap
                write_file(folder / "memory.memsw.limit_in_bytes", str(most))
        elif version == 2:
            write_file(folder / "memory.max", str(most))
            with contextlib.suppress(OSError):  # the machine has no swap
                write_file(folder / "memory.swap.max", "0")

    def _limit_cpu(self, quota_us: int) -> None:
        version, folder = self._at.get("cpu", (0, Path()))
        if version == 1:
            write_file(folder / "cpu.cfs_period_us", str(CPU_PERIOD_US))
            write_file(folder / "cpu.cfs_quota_us", str(quota_us))
        elif version == 2:
            write_file(folder / "cpu.max", f"{quota_us} {CPU_PERIOD_US}")

    def _write(self, controller: str, file: str, text: str) -> None:
        if controller in self._at:
            write_file(self._at[controller][1] / file, text)

    @property
    def counts(self) -> Collection[str]:
        """The controllers that count what the cell uses."""
        return self._at.keys()

    # ---- processes ----

    def add(self, pid: int) -> None:
        """Move a process here, with all that it starts from now on; OSError where that fails."""
        for folder in self._folders:
            write_file(folder / "cgroup.procs", str(pid))

    def processes(self) -> list[int]:
        """Return the processes inside."""
        return processes_in(self._folders)

    def kill(self) -> None:
        """Send SIGKILL to all inside, frozen ones too; never raises."""
        kill_groups(self._folders)

    # ---- standing still ----

    @property
    def can_freeze(self) -> bool:
        """Whether the machine can stop them without their notice."""
        return "freezer" in self._at

    def freeze(self) -> None:
        """Stop all inside; return when all stand still. Blocks; OSError where they do not."""
        version, folder = self._at["freezer"]
        write_file(folder / _FREEZER[version], _FROZEN[version])
        deadline = time.monotonic() + FREEZE_PATIENCE_S
        while not _is_frozen(version, folder):
            if time.monotonic() > deadline:
                self.thaw()
                raise OSError(f"{folder}: its processes do not freeze")
            time.sleep(PAUSE_S)

    def thaw(self) -> None:
        """Let all inside run again; returns at once. OSError where that fails."""
        if self.can_freeze:
            version, folder = self._at["freezer"]
            write_file(folder / _FREEZER[version], _THAWED[version])

    # ---- the end ----

    def remove(self) -> bool:
        """Remove the groups once they are empty, for which it waits; say whether they are gone."""
        self.gauges.close()
        return remove_groups(self._folders)


_FREEZER = {1: "freezer.state", 2: "cgroup.freeze"}
_FROZEN = {1: "FROZEN", 2: "1"}
_THAWED = {1: "THAWED", 2: "0"}


def reap_groups(parents: Iterable[Path]) -> int:
    """End all that is in cells below ``parents``, and remove those; return how many processes.

    ``parents``: as ``CellGroups.parents`` of an earlier daemon, which may be gone. Blocks.
    """
    known = [one for one in parents if one.name.startswith(PREFIX) and one.is_dir()]
    # All at once: what is frozen in one hierarchy does not die of what is done in another.
    cells = [folder for parent in known for folder in parent.iterdir() if folder.is_dir()]
    ended = [pid for pid in processes_in(cells) if tree.is_alive(pid)]
    kill_groups(cells)
    remove_groups([*cells, *known])
    return len(ended)


def kill_groups(folders: Iterable[Path]) -> None:
    """Send SIGKILL to all processes in groups, and let them run so that it can take effect."""
    for folder in folders:
        try:
            write_file(folder / "cgroup.kill", "1")  # version 2, since Linux 5.14
        except OSError:
            for pid in processes_in([folder]):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        for version in (1, 2):
            with contextlib.suppress(OSError):
                write_file(folder / _FREEZER[version], _THAWED[version])


def remove_groups(folders: Iterable[Path]) -> bool:
    """Remove groups, cells before their parent, as soon as they are empty; say if all are gone."""
    deadline = time.monotonic() + PATIENCE_S
    left = list(folders)
    while left:
        for folder in list(left):
            with contextlib.suppress(FileNotFoundError):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    raise
                except OSError:  # busy: a dead process needs a moment to leave
                    continue
            left.remove(folder)
        if left and time.monotonic() > deadline:
            return False
        if left:
            kill_groups(left)
            time.sleep(PAUSE_S)
    return True


def _is_frozen(version: int, folder: Path) -> bool:
    if version == 1:
        return (folder / _FREEZER[1]).read_text().strip() == _FROZEN[1]
    return "frozen 1" in (folder / "cgroup.events").read_text().splitlines()
