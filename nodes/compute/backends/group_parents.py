"""Which control group of this machine we may divide, and the files by which that is done.

Sources: cgroups(7), the kernel's ``admin-guide/cgroup-v2`` ("Delegation", "No Internal Process
Constraint").
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from alpyne_grid.nodes.compute.worker import tree

_ENABLED_V2 = ("memory", "cpu", "pids", "io")  # those that have to be switched on for children
LEAF = "daemon"  # the leaf into which the daemon goes where its own group is divided


def parent_v1(own: Path, name: str, wanted: list[str]) -> tuple[Path, list[str]]:
    """Make the parent below the daemon's own group, so that its limits hold for the cells too."""
    parent = own / name
    parent.mkdir(exist_ok=True)
    if not os.access(parent / "cgroup.procs", os.W_OK):
        raise PermissionError(f"{parent}: its processes cannot be set")
    return parent, wanted


def parent_v2(mount: Path, own: Path, name: str, wanted: list[str]) -> tuple[Path, list[str]]:
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

    A group with processes cannot give any, so the daemon moves into a leaf where it is alone there
    with what it has started itself.
    """
    missing = _named(folder / "cgroup.controllers") - _switched_on(folder)
    missing &= set(_ENABLED_V2)
    if missing and is_own:
        inside = processes_in([folder])
        if set(inside) <= {os.getpid(), *tree.descendants(os.getpid())}:
            with contextlib.suppress(OSError):
                (folder / LEAF).mkdir(exist_ok=True)
                for pid in inside:
                    write_file(folder / LEAF / "cgroup.procs", str(pid))
    for name in missing:
        with contextlib.suppress(OSError):
            write_file(folder / "cgroup.subtree_control", f"+{name}")


def _switched_on(folder: Path) -> set[str]:
    return _named(folder / "cgroup.subtree_control")


def _named(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


def own_paths(proc: Path) -> dict[str, str]:
    """Return the daemon's own group by controller, "" for version 2."""
    paths: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            paths.update(dict.fromkeys(names.split(","), path))
    if "blkio" in paths:
        paths["io"] = paths["blkio"]
    return paths


def processes_in(folders: Iterable[Path]) -> list[int]:
    """Return the processes in groups, each once; those of a group that is gone are none."""
    found: dict[int, None] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            found.update(dict.fromkeys(map(int, (folder / "cgroup.procs").read_text().split())))
    return list(found)


def write_file(path: Path, text: str) -> None:
    """Write a control file; OSError names the file, which the kernel's own errors do not."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from None
