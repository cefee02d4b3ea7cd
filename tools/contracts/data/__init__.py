"""The contracts of back ends of data nodes.

    class TestMyBackend(DurableBackendContract):
        @asynccontextmanager
        async def opened(self, folder):  # yields a started back end; one folder is one store
            backend = MyBackend(folder)
            await backend.start()
            try:
                yield backend
            finally:
                await backend.close()

``DataBackendContract`` holds for every back end, ``DurableBackendContract`` for those that keep
what they were given. A node's store is made by ``CommitStore.open`` where a back end uses it.
"""

from alpyne_grid.tools.contracts.data.bench import (
    ALWAYS,
    ANN,
    BOB,
    BOX,
    JOB,
    LARGE,
    NEVER,
    DataBench,
    descriptor,
    key,
    paths,
    publish,
    read,
    stage,
    version,
)
from alpyne_grid.tools.contracts.data.commits import CommitContract
from alpyne_grid.tools.contracts.data.durability import DurabilityContract
from alpyne_grid.tools.contracts.data.lists import ListContract
from alpyne_grid.tools.contracts.data.objects import ObjectContract
from alpyne_grid.tools.contracts.data.retention import RetentionContract


class DataBackendContract(ObjectContract, CommitContract, ListContract, RetentionContract):
    """What holds for every back end."""


class DurableBackendContract(DataBackendContract, DurabilityContract):
    """What holds for every back end that keeps what it was given; nodes serve no other."""


__all__ = [
    "ALWAYS",
    "ANN",
    "BOB",
    "BOX",
    "JOB",
    "LARGE",
    "NEVER",
    "CommitContract",
    "DataBackendContract",
    "DataBench",
    "DurabilityContract",
    "DurableBackendContract",
    "ListContract",
    "ObjectContract",
    "RetentionContract",
    "descriptor",
    "key",
    "paths",
    "publish",
    "read",
    "stage",
    "version",
]
