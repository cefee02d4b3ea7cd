"""The hostile contract on containers: level 2."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.tools.contracts.hostile import HostileContract
from parts.docker_engine import Engine


class TestHostile(HostileContract):
    level = 2

    @pytest.fixture(autouse=True)
    def _given(self, engine: Engine, opened: Any, containers_of: Any) -> None:
        self._engine, self._opened, self._containers_of = engine, opened, containers_of
        self.engine_sockets = (str(engine.socket),)

    def opened(self, setup: BackendSetup) -> AbstractAsyncContextManager[Backend]:
        found: AbstractAsyncContextManager[Backend] = self._opened(self._engine, setup)
        return found

    def left_behind(self, folder: Path) -> list[str]:
        containers = self._containers_of(self._engine, folder / "backend")
        cells = folder / "backend" / "cells"
        files = sorted(map(str, cells.iterdir())) if cells.exists() else []
        return super().left_behind(folder) + [row["Id"] for row in containers] + files
