"""Find a back end by its name: the embedded one, or one that a distribution adds."""

from importlib.metadata import entry_points

from alpyne_grid.nodes.compute.backends.base import BackendFactory
from alpyne_grid.nodes.errors import ConfigError

GROUP = "alpyne_grid.compute_backends"


def find_backend(name: str) -> BackendFactory:
    """Return what makes the back end ``name``; ConfigError where none has that name."""
    if name == "process":
        from alpyne_grid.nodes.compute.backends.process import ProcessBackend

        return ProcessBackend
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    entry = found.get(name)
    if entry is None:
        known = ", ".join(sorted({"process", *found}))
        raise ConfigError(f"backend: expected one of {known}, got {name!r}")
    factory: BackendFactory = entry.load()
    return factory
