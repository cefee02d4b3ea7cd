"""Back ends on a server for tests, and what they do there, seen from beside them."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from alpyne_grid.nodes.data.backends.base import BackendSetup
from alpyne_grid.nodes.data.backends.mongo import MongoBackend
from alpyne_grid.nodes.data.records import KeepContainer
from alpyne_grid.tools.contracts.data.bench import ANN, BOB, descriptor
from parts import places, processes

MIB = 1 << 20


def database_of(folder: Path) -> str:
    """Return the name of the database that belongs to a test's folder."""
    return "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]


def backend_of(uri: str, folder: Path, **options: str) -> MongoBackend:
    """Return a back end with its state in ``folder``, on the folder's own database."""
    folder.mkdir(exist_ok=True)
    given = {"uri": uri, "database": database_of(folder), **options}
    taken = {name.replace("_", "-"): (value,) for name, value in given.items()}
    return MongoBackend(BackendSetup(folder, None, taken))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened(uri: str, folder: Path, **options: str) -> AsyncIterator[MongoBackend]:
    """Start a back end, and close it at the end."""
    backend = backend_of(uri, folder, **options)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.close()


@contextlib.asynccontextmanager
async def with_boxes(uri: str, folder: Path, **options: str) -> AsyncIterator[MongoBackend]:
    """The same, with a container of each of two accounts."""
    async with opened(uri, folder, **options) as backend:
        await backend.commit([KeepContainer(owner, descriptor(), True) for owner in (ANN, BOB)])
        yield backend


async def counts(backend: MongoBackend) -> dict[str, int]:
    """Return how many documents there are of contents: chunks, files, and files without a name."""
    names = {"chunks": "contents.chunks", "files": "contents.files", "unnamed": "unnamed"}
    return {short: await backend.link[name].count_documents({}) for short, name in names.items()}


def with_options(uri: str, **options: object) -> str:
    """Return ``uri`` with more options."""
    return uri + "".join(f"&{name}={value}" for name, value in options.items())


@contextlib.contextmanager
def lone_mongod(folder: Path, *options: str) -> Iterator[str]:
    """Run a mongod that was never set up, with ``options``; yield its host and port."""
    folder.mkdir()
    (port,) = places.free_ports(1)
    command: list[str | Path] = [
        places.found()["mongodb"]["mongod"],
        *("--port", str(port), "--bind_ip", "127.0.0.1", "--dbpath", folder, "--nounixsocket"),
        *("--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=0"),
        *options,
    ]
    record, log = folder / "process.json", folder / "log"
    process = processes.start(command, record, log, dict(os.environ))
    try:
        _wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.end(signal.SIGKILL)


def _wait_for(port: int) -> None:
    from pymongo import MongoClient

    client: Any = MongoClient("127.0.0.1", port, directConnection=True)
    try:
        client.admin.command("hello")
    finally:
        client.close()


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `alpyne node data` with ``arguments`` to its end."""
    command = [sys.executable, "-m", "alpyne_grid.nodes.daemon", "data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
