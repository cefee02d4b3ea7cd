"""The disk below a folder: figures of durable work mean nothing where nothing is durable."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from alpyne_proto.errors import AlpyneError

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


class NoRealDisk(AlpyneError):
    """A folder lies in memory, where a commit costs nothing and survives nothing."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """Where a folder lies."""

    kind: str
    device: str
    mounted_on: str

    def __str__(self) -> str:
        return f"{self.kind} on {self.device}, mounted on {self.mounted_on}"


def file_system_of(folder: Path) -> FileSystem:
    """Return the file system that holds ``folder``."""
    resolved = folder.resolve()
    holding = [
        part
        for part in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(Path(part.mountpoint))
    ]
    if not holding:
        return FileSystem("unknown", "unknown", str(resolved.anchor))
    # The last one mounted hides those before it.
    best = max(enumerate(holding), key=lambda entry: (len(entry[1].mountpoint), entry[0]))[1]
    return FileSystem(best.fstype, best.device, best.mountpoint)


def real_folder(wanted: Path | None, look: Callable[[Path], FileSystem] = file_system_of) -> Path:
    """Return the folder to measure in: ``wanted``, or one for temporary files that is on a disk.

    ``look``: tells a folder's file system. Raises NoRealDisk for one in memory.
    """
    if wanted is not None:
        found = look(wanted)
        if found.kind in IN_MEMORY:
            raise NoRealDisk(
                f"{wanted}: lies on {found}, in memory, where nothing is durable; "
                "choose a folder on a disk by --folder"
            )
        return wanted
    places = [Path(tempfile.gettempdir()), Path.home(), Path.cwd()]
    for place in places:
        if look(place).kind not in IN_MEMORY and os.access(place, os.W_OK):
            return place
    raise NoRealDisk(
        f"{', '.join(map(str, places))}: all lie in memory or cannot be written; choose a folder "
        "on a disk by --folder"
    )
