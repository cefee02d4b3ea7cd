"""What the tests of containers share: a back end on an engine, and what it leaves there."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.compute.backends.base import BackendSetup
from alpyne_grid.nodes.compute.backends.containers import recipe
from alpyne_grid.nodes.compute.backends.containers.backend import DockerBackend
from alpyne_grid.nodes.compute.backends.launch import folder_tag
from parts.docker_engine import Engine

Opener = Callable[[Engine, BackendSetup], AbstractAsyncContextManager[DockerBackend]]


def with_engine(engine: Engine, setup: BackendSetup) -> BackendSetup:
    """Return ``setup`` with the options that name the engine and its images."""
    options = {
        "docker-host": (engine.host,),
        "image": (engine.image,),
        **setup.options,
    }
    return replace(setup, options=options)


@asynccontextmanager
async def _opened(engine: Engine, setup: BackendSetup) -> AsyncIterator[DockerBackend]:
    backend = DockerBackend(with_engine(engine, setup))
    try:
        await backend.reap()
        await backend.start()
        yield backend
    finally:
        await backend.close()


@pytest.fixture
def opened() -> Opener:
    """Return what yields a back end that has reaped and started, and closes it."""
    return _opened


@pytest.fixture
def containers_of() -> Callable[[Engine, Path], list[Any]]:
    """Return what lists the containers that belong to a back end's folder, ended ones too."""

    def containers(engine: Engine, folder: Path) -> list[Any]:
        filters = f'{{"label":["{recipe.LABEL}={folder_tag(folder)}"]}}'
        return list(engine.api.get("/containers/json", all="true", filters=filters))

    return containers
