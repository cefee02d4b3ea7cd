"""What a job used, as JSON and lists show it."""

from typing import Any

from alpyne_grid.tools.quantities import size_text

from alpyne_proto.messages.compute import Usage


def usage_as_dict(used: Usage) -> dict[str, Any]:
    """Return ``used`` for JSON; ``peak_is_shared``: the peak may be an earlier job's."""
    return {
        "wall_ms": used.wall_ms,
        "cpu_ms": used.cpu_ms,
        "peak_memory_bytes": used.peak_memory_bytes,
        "peak_is_shared": used.peak_is_shared,
        "disk_read_bytes": used.disk_read_bytes,
        "disk_written_bytes": used.disk_written_bytes,
        "read_bytes": used.read_bytes,
        "written_bytes": used.written_bytes,
    }


def peak_text(used: Usage) -> str:
    """Return a job's peak of memory; one that may be an earlier job's is an upper bound."""
    if not used.peak_memory_bytes:
        return ""
    return ("<= " if used.peak_is_shared else "") + size_text(used.peak_memory_bytes)
