"""Control groups of Linux, versions 1 and 2: where they are, and what they say of a process.

Reading needs no privileges. A machine may have both versions at once ("hybrid"): each controller
is in one hierarchy, and it is asked where it is. Sources: cgroups(7), the kernel's
``admin-guide/cgroup-v2`` and ``admin-guide/cgroup-v1``, proc(5) for ``mountinfo``.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "freezer", "io")
_V1_NAMES = {"io": "blkio"}  # what version 1 calls a controller that version 2 calls otherwise
# Version 2 counts processor time in the controller cpu and freezes without any controller.
_V2_NAMES = {"cpuacct": "cpu"}
_V2_ALWAYS = ("cpuacct", "freezer")
_READ = 64 * 1024  # bytes; the largest of these files grows with the number of disks
_MICRO_PER_MILLI = 1000


class Hierarchy(NamedTuple):
    """A mounted hierarchy: the folder of one of its groups is ``mount`` and the path below."""

    version: int  # 1 or 2
    mount: Path
    root: str  # the group that is mounted there, "/" unless in a container
    controllers: tuple[str, ...]  # by the names of version 2

    def folder(self, group: str) -> Path | None:
        """Return the folder of ``group`` (as in /proc/PID/cgroup); None where it is not mounted."""
        if self.root == "/":
            return self.mount / group.lstrip("/")
        if group != self.root and not group.startswith(f"{self.root}/"):
            return None
        return self.mount / group[len(self.root) :].lstrip("/")


def hierarchies(proc: Path = Path("/proc")) -> list[Hierarchy]:
    """Return the hierarchies that are mounted here; OSError where ``proc`` cannot be read."""
    found: list[Hierarchy] = []
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, mount, *_ = before.split()
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup":
            named = set(options.split(","))
            has = tuple(name for name in CONTROLLERS if _V1_NAMES.get(name, name) in named)
            if has:
                found.append(Hierarchy(1, Path(mount), root, has))
        elif kind == "cgroup2":
            found.append(Hierarchy(2, Path(mount), root, _controllers_v2(Path(mount))))
    return found


def _controllers_v2(folder: Path) -> tuple[str, ...]:
    try:
        named = set((folder / "cgroup.controllers").read_text().split())
    except OSError:
        named = set()
    return tuple(
        name for name in CONTROLLERS if name in _V2_ALWAYS or _V2_NAMES.get(name, name) in named
    )


def groups_of(pid: int, proc: Path = Path("/proc")) -> dict[str, tuple[int, Path]]:
    """Return for each controller the version and folder of the group in which ``pid`` is.

    A controller that no hierarchy has, or whose group is not mounted here, is left out. Where both
    versions could be asked (freezing, processor time), version 1 is: there it was set up.
    Raises OSError where the process is gone.
    """
    paths: dict[str, str] = {}  # "" is version 2
    for line in (proc / str(pid) / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    found: dict[str, tuple[int, Path]] = {}
    for hierarchy in sorted(hierarchies(proc), key=lambda one: one.version):
        for name in hierarchy.controllers:
            key = "" if hierarchy.version == 2 else _V1_NAMES.get(name, name)
            folder = hierarchy.folder(paths[key]) if key in paths else None
            if folder is not None and name not in found and folder.is_dir():
                found[name] = (hierarchy.version, folder)
    return found


class Gauge:
    """One value of one file, read anew each time; what was last read where it is gone."""

    def __init__(self, path: Path, parse: Callable[[bytes], int]) -> None:
        """Open ``path``, for writing too where that is allowed; OSError where it is not there."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._parse = parse
        self._last = 0

    def read(self) -> int:
        """Return the value; where the group is no more, the one before."""
        with contextlib.suppress(OSError, ValueError):
            self._last = self._parse(os.pread(self._file, _READ, 0))
        return self._last

    def read_both(self, other: "Gauge") -> tuple[int, int]:
        """Read this value and that of a gauge of the same file at once."""
        with contextlib.suppress(OSError, ValueError):
            data = os.pread(self._file, _READ, 0)
            self._last, other._last = self._parse(data), other._parse(data)
        return self._last, other._last

    def reset(self) -> bool:
        """Have a peak begin anew; False where the kernel or the rights do not allow it.

        Version 2 (since Linux 6.12) resets it for this very descriptor, whatever is written.
        """
        try:
            os.pwrite(self._file, b"0", 0)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file; ``read`` returns what it read last."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class GroupReading(NamedTuple):
    """All that the groups of a process say; None where the machine does not tell.

    Counters run from the making of the group, and count all processes in it, ended ones too.
    """

    memory_bytes: int | None = None  # now: pages, files in memory, page cache, kernel objects
    peak_bytes: int | None = None  # of memory_bytes, since it was last reset
    files_bytes: int | None = None  # the part of memory_bytes that is files on tmpfs and the like
    oom_kills: int | None = None  # processes that the kernel ended over the memory limit
    processes: int | None = None  # now, threads included
    processes_refused: int | None = None  # forks refused over the limit of processes
    cpu_ms: int | None = None
    read_bytes: int | None = None  # from disks
    written_bytes: int | None = None


class ControlGroups:
    """The control groups of one process, opened once and then read as often as needed.

    A reading costs some microseconds for each value. All files stay readable, with their last
    values, when the group is removed.
    """

    def __init__(self, folders: Mapping[str, tuple[int, Path]]) -> None:
        """``folders``: version and folder by controller, as ``groups_of`` returns them."""
        self.folders = dict(folders)
        self._gauges: dict[str, Gauge] = {}
        for value in GroupReading._fields:
            for source in _SOURCES[value]:
                if self.folders.get(source.controller, (0, None))[0] == source.version:
                    path = self.folders[source.controller][1] / source.file
                    with contextlib.suppress(OSError):
                        self._gauges.setdefault(value, Gauge(path, source.parse))

    @classmethod
    def of(cls, pid: int, proc: Path = Path("/proc")) -> "ControlGroups":
        """Open the groups of ``pid``, for instance a container's first process.

        Needs no privileges. OSError where the process is gone. Values that the machine does not
        have are None in each reading.
        """
        return cls(groups_of(pid, proc))

    def read(self) -> GroupReading:
        """Read all values."""
        return GroupReading(**{name: gauge.read() for name, gauge in self._gauges.items()})

    def value(self, name: str) -> int | None:
        """Read one value by its name in ``GroupReading``; None where the machine has it not."""
        gauge = self._gauges.get(name)
        return gauge.read() if gauge is not None else None

    def disk_traffic(self) -> tuple[int, int]:
        """Read ``read_bytes`` and ``written_bytes``; 0 where the machine has them not."""
        read, written = self._gauges.get("read_bytes"), self._gauges.get("written_bytes")
        return read.read_both(written) if read is not None and written is not None else (0, 0)

    def reset_peak(self) -> bool:
        """Have ``peak_bytes`` begin anew; False where that cannot be, and it stays shared.

        Version 1 always can, version 2 since Linux 6.12; both need the right to write.
        """
        gauge = self._gauges.get("peak_bytes")
        return gauge is not None and gauge.reset()

    def close(self) -> None:
        """Close all files; the last readings stay."""
        for gauge in self._gauges.values():
            gauge.close()


# ---- what the files look like ----


def _number(data: bytes) -> int:
    return int(data)


def _keyed(key: bytes) -> Callable[[bytes], int]:
    """Parse lines of ``KEY VALUE`` ("flat keyed" in the kernel's words)."""

    def parse(data: bytes) -> int:
        for line in data.splitlines():
            name, _, value = line.partition(b" ")
            if name == key:
                return int(value)
        raise ValueError(key)

    return parse


def _nanoseconds(data: bytes) -> int:
    return int(data) // (1000 * _MICRO_PER_MILLI)


def _microseconds(data: bytes) -> int:
    return _keyed(b"usage_usec")(data) // _MICRO_PER_MILLI


def _disks_v1(key: bytes) -> Callable[[bytes], int]:
    """Parse lines of ``MAJOR:MINOR Read 123`` and sum over the disks."""

    def parse(data: bytes) -> int:
        rows = (line.split() for line in data.splitlines())
        return sum(int(row[2]) for row in rows if len(row) == 3 and row[1] == key)

    return parse


def _disks_v2(key: bytes) -> Callable[[bytes], int]:
    """Parse lines of ``MAJOR:MINOR rbytes=123 wbytes=...`` and sum over the disks."""

    def parse(data: bytes) -> int:
        pairs = (pair.partition(b"=") for pair in data.split() if b"=" in pair)
        return sum(int(value) for name, _, value in pairs if name == key)

    return parse


class _Source(NamedTuple):
    version: int
    controller: str
    file: str
    parse: Callable[[bytes], int]


_V1_DISKS = "blkio.throttle.io_service_bytes_recursive"
_SOURCES: Mapping[str, tuple[_Source, ...]] = {
    "memory_bytes": (
        _Source(1, "memory", "memory.usage_in_bytes", _number),
        _Source(2, "memory", "memory.current", _number),
    ),
    "peak_bytes": (
        _Source(1, "memory", "memory.max_usage_in_bytes", _number),
        _Source(2, "memory", "memory.peak", _number),
    ),
    "files_bytes": (
        _Source(1, "memory", "memory.stat", _keyed(b"total_shmem")),
        _Source(2, "memory", "memory.stat", _keyed(b"shmem")),
    ),
    "oom_kills": (
        _Source(1, "memory", "memory.oom_control", _keyed(b"oom_kill")),
        _Source(2, "memory", "memory.events", _keyed(b"oom_kill")),
    ),
    "processes": (
        _Source(1, "pids", "pids.current", _number),
        _Source(2, "pids", "pids.current", _number),
    ),
    "processes_refused": (
        _Source(1, "pids", "pids.events", _keyed(b"max")),
        _Source(2, "pids", "pids.events", _keyed(b"max")),
    ),
    "cpu_ms": (
        _Source(1, "cpuacct", "cpuacct.usage", _nanoseconds),
        _Source(2, "cpuacct", "cpu.stat", _microseconds),
    ),
    "read_bytes": (
        _Source(1, "io", _V1_DISKS, _disks_v1(b"Read")),
        _Source(2, "io", "io.stat", _disks_v2(b"rbytes")),
    ),
    "written_bytes": (
        _Source(1, "io", _V1_DISKS, _disks_v1(b"Write")),
        _Source(2, "io", "io.stat", _disks_v2(b"wbytes")),
    ),
}
