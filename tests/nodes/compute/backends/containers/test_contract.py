"""The contract of compute back ends, on containers of a real engine."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.tools.contracts.compute import BackendContract
from parts.docker_engine import Engine


class TestContract(BackendContract):
    @pytest.fixture(autouse=True)
    def _given(self, engine: Engine, opened: Any) -> None:
        self._engine, self._opened = engine, opened

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        found: AbstractAsyncContextManager[Backend] = self._opened(self._engine, setup)
        return found
