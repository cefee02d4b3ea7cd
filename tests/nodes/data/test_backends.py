"""The contract of back ends, on the local one and on one of dictionaries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alpyne_grid.nodes.data.backends.base import BackendSetup, DataBackend
from alpyne_grid.nodes.data.backends.local import LocalBackend
from alpyne_grid.nodes.data.backends.local_schema import SCHEMA
from alpyne_grid.nodes.store import CommitStore
from alpyne_grid.tools.contracts.data import DataBackendContract, DurableBackendContract
from dict_backend import DictBackend


class TestLocalBackend(DurableBackendContract):
    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[DataBackend]:
        store = CommitStore.open(folder / "node.db", (SCHEMA,))
        backend = LocalBackend(BackendSetup(folder / "objects", store))
        await backend.start()
        try:
            yield backend
        finally:
            await backend.close()
            await store.close()


class TestDictBackend(DataBackendContract):
    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[DataBackend]:
        yield DictBackend()
