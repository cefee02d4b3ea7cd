"""Find what keeps objects by its name."""

from collections.abc import Mapping

from alpyne_grid.nodes.backends import find
from alpyne_grid.nodes.data.backends.base import BackendFactory

GROUP = "alpyne.data_backends"
_HERE = "alpyne_grid.nodes.data.backends"
OWN: Mapping[str, tuple[str, str]] = {
    "local": (f"{_HERE}.local:LocalBackend", "install alpyne-grid again"),
    "mongodb": (
        f"{_HERE}.mongo:MongoBackend",
        "install it by: pip install 'alpyne-grid[mongodb]'",
    ),
}


def find_backend(name: str) -> BackendFactory:
    """Return what makes the back end ``name``; ConfigError where that is impossible."""
    factory: BackendFactory = find(GROUP, OWN, name)
    return factory
