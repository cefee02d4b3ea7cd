"""What the node's administrator gives to a job that asks for no limit of its own."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from alpyne_grid.nodes.errors import ConfigError

PROCESSES = 256  # a fork bomb stops there; few programs need as many
DISK_BYTES = 256 << 20  # scratch is memory of the machine
DISK_LEAST = 1 << 20
PROCESSES_MOST = (1 << 22) - 1  # the kernel has no more; with the supervisor
BYTES_MOST = 1 << 50
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class WallDefaults(NamedTuple):
    """The limits of a job that asks for none; 0 = no limit."""

    memory_bytes: int = 0
    processes: int = PROCESSES
    disk_bytes: int = DISK_BYTES


def read_defaults(options: Mapping[str, tuple[str, ...]]) -> WallDefaults:
    """Return what the options job-memory, job-processes and job-disk say, or else the defaults.

    Raises ConfigError for what is no number or size.
    """
    return WallDefaults(
        _size(options, "job-memory", 0, 0, BYTES_MOST),
        _size(options, "job-processes", PROCESSES, 1, PROCESSES_MOST),
        _size(options, "job-disk", DISK_BYTES, DISK_LEAST, BYTES_MOST),
    )


def _size(
    options: Mapping[str, tuple[str, ...]], name: str, default: int, least: int, most: int
) -> int:
    values = options.get(name, ())
    if not values:
        return default
    found = re.fullmatch(r"(\d{1,15})([KMGT]iB|B)?", values[-1])
    size = int(found[1]) * _UNITS[found[2] or ""] if found else -1
    if not least <= size <= most:
        raise ConfigError(
            f"{name}: expected a number such as 256 or 512MiB (KiB, GiB, TiB), {least} to {most}, "
            f"got {values[-1]!r:.80}"
        )
    return size
