"""The data back end ``disk``: objects lie on a disk of their own, which may not be there.

    alpyne node data --backend disk --option folder=/mnt/archive --option new=yes     # once
    alpyne node data --backend disk --option folder=/mnt/archive

When a disk is not mounted, its mount point is an empty folder. A node that took it for its store
would answer that it has no object, and would fill the wrong disk. So ``new=yes`` leaves a marker
there, and without it a folder that has no marker is refused.
"""

import os
from dataclasses import replace
from pathlib import Path

from alpyne_grid.nodes.data.backends.base import BackendSetup
from alpyne_grid.nodes.data.backends.local import LocalBackend
from alpyne_grid.nodes.data.backends.local_schema import SCHEMA
from alpyne_grid.nodes.errors import ConfigError
from alpyne_grid.nodes.store import CommitStore

MARKER = "alpyne-objects"
REMEDY = "mount the disk, or give --option new=yes once where it is to be a new one"


class DiskBackend(LocalBackend):
    """Keeps objects and their names in a folder that the node's administrator names."""

    options = frozenset({"folder", "new"})

    def __init__(self, setup: BackendSetup) -> None:
        """Open nothing yet. ConfigError where no folder is named."""
        given = setup.options.get("folder", ())
        if len(given) != 1 or not Path(given[0]).is_absolute():
            raise ConfigError("backend disk: expected one --option folder=/PATH, an absolute one")
        self._disk = Path(given[0])
        self._is_new = setup.options.get("new") == ("yes",)
        self._setup = setup

    async def check(self) -> str:
        """Say where objects lie. Raises OSError where the disk is not there."""
        if not self._disk.is_dir() or not os.access(self._disk, os.W_OK):
            raise OSError(f"{self._disk} is no folder that can be written; {REMEDY}")
        if not self._is_new and not (self._disk / MARKER).exists():
            raise OSError(f"{self._disk} holds no objects of Alpyne's; {REMEDY}")
        return f"objects lie in {self._disk}"

    async def start(self) -> None:
        """Open the store on the disk, and recover. Raises OSError or StateError."""
        await self.check()
        (self._disk / MARKER).touch()
        self._names = CommitStore.open(self._disk / "names.db", (SCHEMA,))
        super().__init__(replace(self._setup, folder=self._disk / "bytes", store=self._names))
        await super().start()

    async def close(self) -> None:
        """Give back threads and files."""
        if hasattr(self, "_names"):  # else the start failed
            await super().close()
            await self._names.close()
