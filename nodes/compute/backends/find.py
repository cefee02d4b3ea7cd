"""Find what runs jobs by its name."""

from collections.abc import Mapping

from alpyne_grid.nodes.backends import find
from alpyne_grid.nodes.compute.backends.base import BackendFactory

GROUP = "alpyne.compute_backends"
_HERE = "alpyne_grid.nodes.compute.backends"
OWN: Mapping[str, tuple[str, str]] = {
    "process": (f"{_HERE}.process:ProcessBackend", "install alpyne-grid again"),
    "docker": (
        f"{_HERE}.containers.backend:DockerBackend",
        "install it by: pip install 'alpyne-grid[docker]'",
    ),
}


def find_backend(name: str) -> BackendFactory:
    """Return what makes the back end ``name``; ConfigError where that is impossible."""
    factory: BackendFactory = find(GROUP, OWN, name)
    return factory
