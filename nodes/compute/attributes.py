"""What a compute node says of itself: the attributes of its offer, memory, disk and load."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from alpyne_grid.nodes.compute.admission import Offer
from alpyne_grid.nodes.compute.backends.base import LIMIT_NAMES, Backend
from alpyne_grid.nodes.errors import ConfigError

from alpyne_proto.messages.access import Attribute

ATTRIBUTES_MAX = 64  # as in NodeStatus
NAME_MAX, VALUE_MAX = 64, 256  # bytes, as in Attribute


def memory_total_bytes() -> int:
    """Return the machine's memory, bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def memory_free_bytes() -> int:
    """Return what programs can still take without swapping, bytes; 0 where unknown."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def disk_free_bytes(folder: Path) -> int:
    """Return the free bytes of the file system that ``folder`` lies in."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def load_per_core() -> float:
    """Return the machine's load over the last minute per core, rounded to 0.05."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1) * 20) / 20


def make_offer(backend: Backend, *, slots: int, host_label: str, labels: tuple[str, ...]) -> Offer:
    """Return what a node with ``backend`` offers.

    ``labels``: NAME=VALUE attributes that its operator adds; they cannot replace the node's own.
    Raises ConfigError for a label that is none, and for more images or networks than fit.
    """
    system = os.uname()
    memory = memory_total_bytes()
    own = {
        "os": system.sysname.lower(),
        "arch": system.machine,
        "pythons": ",".join(backend.pythons),
        "cores": str(os.cpu_count() or 1),
        "slots": str(slots),
        "memory_bytes": str(memory),
        "host": host_label,
        "backend": backend.name,
        "isolation": str(backend.level),
        "suspend": backend.suspends,
        "images": _as_list("images", backend.images),
        "networks": _as_list("networks", backend.networks),
        "implementation": sys.implementation.name,
    }
    own.update({f"limit.{name}": backend.limits.get(name, "none") for name in LIMIT_NAMES})
    return Offer(slots, memory, backend.pythons, {**_read_labels(labels, own), **own})


def as_rows(attributes: Mapping[str, str], score: float) -> tuple[Attribute, ...]:
    """Return the attributes for NodeStatus, by name."""
    shown = {**attributes, "score": f"{score:.1f}"}
    return tuple(Attribute(name, value) for name, value in sorted(shown.items()))


def _as_list(name: str, listed: tuple[str, ...]) -> str:
    text = ",".join(listed)
    if len(text.encode()) > VALUE_MAX:
        raise ConfigError(
            f"{name}: expected names of at most {VALUE_MAX} bytes together, as an offer can tell, "
            f"got {len(text.encode())}; list fewer, or give them shorter names"
        )
    return text


def _read_labels(labels: tuple[str, ...], own: Mapping[str, str]) -> dict[str, str]:
    read: dict[str, str] = {}
    for label in labels:
        name, equals, value = label.partition("=")
        if not equals or not name or name in own:
            raise ConfigError(
                f"labels: expected NAME=VALUE with a name of your own, got {label!r}; "
                f"taken are {', '.join(sorted(own))}"
            )
        if len(name.encode()) > NAME_MAX or len(value.encode()) > VALUE_MAX:
            raise ConfigError(
                f"labels: expected at most {NAME_MAX} bytes of name and {VALUE_MAX} of value, "
                f"got {label[:40]!r}..."
            )
        read[name] = value
    if len(read) + len(own) >= ATTRIBUTES_MAX:
        raise ConfigError(f"labels: at most {ATTRIBUTES_MAX - len(own) - 1}, got {len(read)}")
    return read
