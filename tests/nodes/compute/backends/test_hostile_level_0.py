"""What the process back end lets through at level 0, by the same means as the hostile contract."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.compute.backends.process import ProcessBackend
from alpyne_grid.tools.contracts.hostile import WhatLevelZeroLetsThrough


class TestLevelZero(WhatLevelZeroLetsThrough):
    @asynccontextmanager
    async def opened(self, setup: BackendSetup) -> AsyncIterator[Backend]:
        backend = ProcessBackend(setup)
        await backend.reap()
        await backend.start()
        try:
            yield backend
        finally:
            await backend.close()
