"""The contract of back ends, on one server and on a replica set of three, both with passwords."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alpyne_grid.nodes.data.backends.base import DataBackend
from alpyne_grid.tools.contracts.data import DurableBackendContract
from mongo_bench import opened
from parts.mongo_set import MongoSet


class OnMongo(DurableBackendContract):
    """The contract on the set that ``mongo`` is."""

    mongo: MongoSet

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[DataBackend]:
        async with opened(self.mongo.uri, folder) as backend:
            yield backend


class TestOneServer(OnMongo):
    @pytest.fixture(autouse=True)
    def _on_one(self, mongo_single: MongoSet) -> None:
        self.mongo = mongo_single


class TestThreeServers(OnMongo):
    @pytest.fixture(autouse=True)
    def _on_three(self, mongo_set: MongoSet) -> None:
        self.mongo = mongo_set
