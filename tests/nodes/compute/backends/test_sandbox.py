"""Level 1: both contracts on sandboxes, and what only sandboxes can be asked."""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import cloudpickle
import pytest
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.compute.backends.process import ProcessBackend
from alpyne_grid.tools.contracts.compute import BackendContract
from alpyne_grid.tools.contracts.hostile import HostileContract

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.bubblewrap


@asynccontextmanager
async def opened(setup: BackendSetup) -> AsyncIterator[ProcessBackend]:
    """Yield a process back end of level 1 that has reaped and started."""
    backend = ProcessBackend(replace(setup, options={**setup.options, "level": ("1",)}))
    await backend.reap()
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


class TestContract(BackendContract):
    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        return opened(setup)


class TestHostile(HostileContract):
    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        return opened(setup)
