"""A whole data node on MongoDB, as a daemon, and a manager that puts into it."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alpyne_grid.manager import Container, Manager
from alpyne_grid.manager.identity import create_account
from alpyne_grid.tools.cluster import Daemon, LocalCluster
from mongo_bench import database_of

SIZES = (100, 3_000, 60_000, 70_000, 300_000)
PUTTERS = 16


def content(path: str, version: int = 1) -> bytes:
    """Return what this version of this object holds."""
    seed = hashlib.sha256(f"{path} {version}".encode()).digest()
    size = SIZES[seed[0] % len(SIZES)] + seed[1]
    return (seed * (size // 32 + 1))[:size]


class Site:
    """A data node on a database of its own, and a manager that puts into it."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._cluster = LocalCluster(folder / "cluster", create_account)
        file = folder / "uri"
        file.write_text(uri)
        options = ["--backend", "mongodb", "--uri-file", str(file)]
        options += ["--database", database_of(folder), "--quota-bytes", "0"]
        self.daemon: Daemon = self._cluster.start("data", *options)
        self.grid = Manager.connect(self._cluster.addresses, home=self._cluster.home)
        self.box: Container = self.grid.container("box")
        self.acknowledged: dict[str, float] = {}  # path: seconds that it took
        self._noted = threading.Lock()

    def put(self, path: str) -> None:
        """Put an object and note that it was acknowledged."""
        began = time.monotonic()
        self.box.put(path, content(path))
        with self._noted:
            self.acknowledged[path] = time.monotonic() - began

    def check_all(self) -> None:
        """Assert that everything that was acknowledged is there, whole."""
        with ThreadPoolExecutor(PUTTERS) as readers:
            got = readers.map(lambda path: (path, self.box.get(path)), self.acknowledged)
            assert [path for path, data in got if data != content(path)] == []

    def close(self) -> None:
        self.grid.close()
        self._cluster.close()
