"""The back end ``process``: processes of the daemon's own user, plain or in sandboxes.

At level 0 a job can do all that the daemon's user can: it serves owners whom the node's
administrator trusts. At level 1 each worker lives in namespaces of its own, behind limits that the
kernel keeps; where the machine does not give that, the node does not start.
"""

from alpyne_grid.nodes.compute.backends.base import BackendSetup
from alpyne_grid.nodes.compute.backends.cells import CellMaker
from alpyne_grid.nodes.compute.backends.plain_cells import PlainCells
from alpyne_grid.nodes.compute.backends.pool import WorkerPool
from alpyne_grid.nodes.errors import ConfigError

LEVEL = "level"
LEVELS = ("0", "1")
WALLS = ("network", "job-memory", "job-processes", "job-disk")  # only where there are walls


class ProcessBackend(WorkerPool):
    """Runs jobs in warm processes."""

    options = frozenset({LEVEL, *WALLS})

    def __init__(self, setup: BackendSetup) -> None:
        """Start nothing. ConfigError for options that its level does not have."""
        super().__init__("process", setup, _cells(setup))


def _cells(setup: BackendSetup) -> CellMaker:
    """Return what makes the cells of the level that the node's administrator chose."""
    level = setup.options.get(LEVEL, ("0",))
    if len(level) != 1 or level[0] not in LEVELS:
        raise ConfigError(
            f"level: expected one of {', '.join(LEVELS)}, got {' '.join(level)!r}; level 2, "
            "containers, is --backend docker without --level"
        )
    if level[0] == "1":
        # Only where it is asked for: level 0 runs on machines without what it needs.
        from alpyne_grid.nodes.compute.backends.sandbox import SandboxCells

        return SandboxCells(setup)
    without = [name for name in WALLS if name in setup.options]
    if without:
        raise ConfigError(
            f"{without[0]}: level 0 cannot keep a job to it; start the node with --level 1, or "
            "leave it out"
        )
    return PlainCells(setup)
