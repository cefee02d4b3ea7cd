"""The back end ``docker``: warm workers in containers that the kernel keeps to their limits."""

from alpyne_grid.nodes.compute.backends.base import BackendSetup
from alpyne_grid.nodes.compute.backends.containers.cells import DockerCells
from alpyne_grid.nodes.compute.backends.containers.settings import OPTIONS
from alpyne_grid.nodes.compute.backends.pool import WorkerPool


class DockerBackend(WorkerPool):
    """Runs jobs in containers of a Docker Engine on this machine."""

    options = OPTIONS

    def __init__(self, setup: BackendSetup) -> None:
        """Start nothing. ConfigError for options that cannot be used."""
        super().__init__("docker", setup, DockerCells(setup))
