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
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from alpyne_grid.nodes.compute.backends.cells import Walls
from alpyne_grid.nodes.compute.backends.cgroups import ControlGroups, Hierarchy, hierarchies

PREFIX = "alpyne-"
CPU_PERIOD_US = 100_000  # the kernel's own default
SUPERVISOR = 1  # process of a cell that is not the job's
PATIENCE_S = 3.0  # for killed processes to leave their group
PAUSE_S = 0.002  # between looks
FREEZE_PATIENCE_S = 2.0
_ENABLED_V2 = ("memory", "cpu", "pids", "io")  # those that have to be switched on for children
_OURS = "daemon"  # the leaf into which the daemon goes where its own group is divided


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
        paths = _own_paths(self._proc)
        for hierarchy in sorted(hierarchies(self._proc), key=lambda one: one.version):
            wanted = [name for name in hierarchy.controllers if name not in self._controllers]
            group = paths.get("" if hierarchy.version == 2 else hierarchy.controllers[0])
            own = hierarchy.folder(group) if group is not None else None
            if own is None or not wanted:
                continue
            if hierarchy.version == 2 and own.name == _OURS:
                own = own.parent  # this process has divided it before
            with contextlib.suppress(OSError):
                self._use(hierarchy, own, wanted)

    def _use(self, hierarchy: Hierarchy, own: Path, wanted: list[str]) -> None:
        version = hierarchy.version
        parent, has = (
            _parent_v1(own, self._name, wanted)
            if version == 1
            else _parent_v2(hierarchy.mount, own, self._name, wanted)
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

    def without(self, parent: Path) -> None:
        """Use ``parent`` no more: it has turned out to be of no use."""
        self._parents.pop(parent, None)
        for name in [n for n, (_, folder) in self._controllers.items() if folder == parent]:
            del self._controllers[name]

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
            _write(folder / "memory.limit_in_bytes", str(most))
            with contextlib.suppress(OSError):  # the kernel does not count swap
                _write(folder / "memory.memsw.limit_in_bytes", str(most))
        elif version == 2:
            _write(folder / "memory.max", str(most))
            with contextlib.suppress(OSError):  # the machine has no swap
                _write(folder / "memory.swap.max", "0")

    def _limit_cpu(self, quota_us: int) -> None:
        version, folder = self._at.get("cpu", (0, Path()))
        if version == 1:
            _write(folder / "cpu.cfs_period_us", str(CPU_PERIOD_US))
            _write(folder / "cpu.cfs_quota_us", str(quota_us))
        elif version == 2:
            _write(folder / "cpu.max", f"{quota_us} {CPU_PERIOD_US}")

    def _write(self, controller: str, file: str, text: str) -> None:
        if controller in self._at:
            _write(self._at[controller][1] / file, text)

    @property
    def counts(self) -> Collection[str]:
        """The controllers that count what the cell uses."""
        return self._at.keys()

    # ---- processes ----

    def add(self, pid: int) -> None:
        """Move a process here, with all that it starts from now on; OSError where that fails."""
        for folder in self._folders:
            _write(folder / "cgroup.procs", str(pid))

    def processes(self) -> list[int]:
        """Return the processes inside."""
        return _processes(self._folders)

    def kill(self) -> None:
        """Send SIGKILL to all inside, frozen ones too; never raises."""
        kill_groups(self._folders)

    # ---- standing still ----

    @property
    def can_freeze(self) -> bool:
        return "freezer" in self._at

    def freeze(self) -> None:
        """Stop all inside; return when all stand still. Blocks; OSError where they do not."""
        version, folder = self._at["freezer"]
        _write(folder / _FREEZER[version], _FROZEN[version])
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
            _write(folder / _FREEZER[version], _THAWED[version])

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
    ended: set[int] = set()
    for parent in parents:
        if not parent.name.startswith(PREFIX) or not parent.is_dir():
            continue
        cells = [folder for folder in parent.iterdir() if folder.is_dir()]
        ended.update(_processes(cells))
        kill_groups(cells)
        remove_groups([*cells, parent])
    return len(ended)


def kill_groups(folders: Iterable[Path]) -> None:
    """Send SIGKILL to all processes in groups, and let them run so that it can take effect."""
    for folder in folders:
        try:
            _write(folder / "cgroup.kill", "1")  # version 2, since Linux 5.14
        except OSError:
            for pid in _processes([folder]):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        for version in (1, 2):
            with contextlib.suppress(OSError):
                _write(folder / _FREEZER[version], _THAWED[version])


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


# ---- which group may be divided ----


def _parent_v1(own: Path, name: str, wanted: list[str]) -> tuple[Path, list[str]]:
    """Make the parent below the daemon's own group, so that its limits hold for the cells too."""
    parent = own / name
    parent.mkdir(exist_ok=True)
    if not os.access(parent / "cgroup.procs", os.W_OK):
        raise PermissionError(f"{parent}: its processes cannot be set")
    return parent, wanted


def _parent_v2(mount: Path, own: Path, name: str, wanted: list[str]) -> tuple[Path, list[str]]:
    """Make the parent where most of ``wanted`` can be switched on; the nearest such place."""
    best: tuple[int, Path] | None = None
    for folder in (own, *own.parents):
        if not folder.is_relative_to(mount):
            break
        if os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK):
            _switch_on(folder, is_own=folder == own)
            count = len(_switched_on(folder) & set(wanted))
            if best is None or count > best[0]:
                best = count, folder
    if best is None:
        raise PermissionError(f"{own}: neither it nor a group above it may be divided")
    parent = best[1] / name
    parent.mkdir(exist_ok=True)
    _switch_on(parent, is_own=False)
    on = _switched_on(parent)
    return parent, [one for one in wanted if one in ("cpuacct", "freezer") or one in on]


def _switch_on(folder: Path, *, is_own: bool) -> None:
    """Give the children of a group the controllers that it has, as far as that is allowed.

    A group with processes cannot give any, so the daemon moves into a leaf where it is alone there.
    """
    missing = _named(folder / "cgroup.controllers") - _switched_on(folder)
    missing &= set(_ENABLED_V2)
    if missing and is_own and _processes([folder]) == [os.getpid()]:
        with contextlib.suppress(OSError):
            (folder / _OURS).mkdir(exist_ok=True)
            _write(folder / _OURS / "cgroup.procs", str(os.getpid()))
    for name in missing:
        with contextlib.suppress(OSError):
            _write(folder / "cgroup.subtree_control", f"+{name}")


def _switched_on(folder: Path) -> set[str]:
    return _named(folder / "cgroup.subtree_control")


def _named(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


def _own_paths(proc: Path) -> dict[str, str]:
    """Return the daemon's own group by controller, "" for version 2."""
    paths: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            paths.update(dict.fromkeys(names.split(","), path))
    if "blkio" in paths:
        paths["io"] = paths["blkio"]
    return paths


# ---- files ----


def _processes(folders: Iterable[Path]) -> list[int]:
    found: dict[int, None] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            found.update(dict.fromkeys(map(int, (folder / "cgroup.procs").read_text().split())))
    return list(found)


def _is_frozen(version: int, folder: Path) -> bool:
    if version == 1:
        return (folder / _FREEZER[1]).read_text().strip() == _FROZEN[1]
    return "frozen 1" in (folder / "cgroup.events").read_text().splitlines()


def _write(path: Path, text: str) -> None:
    """Write a control file; OSError names the file, which the kernel's own errors do not."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from None
