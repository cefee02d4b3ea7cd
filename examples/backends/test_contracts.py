"""Both back ends keep what Alpyne expects of any back end."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import cloudpickle
import pytest
from alpyne_example_backends.disk import MARKER, DiskBackend
from alpyne_example_backends.gentle import GentleBackend
from alpyne_grid.nodes.compute.backends.base import Backend, BackendSetup
from alpyne_grid.nodes.data.backends.base import BackendSetup as DataSetup
from alpyne_grid.nodes.data.backends.base import DataBackend
from alpyne_grid.nodes.errors import ConfigError
from alpyne_grid.nodes.store import CommitStore
from alpyne_grid.tools.contracts.compute import BackendContract
from alpyne_grid.tools.contracts.data import DurableBackendContract

# Functions of this file travel to the workers by value: they do not have it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class TestGentle(BackendContract):
    options: Mapping[str, tuple[str, ...]] = MappingProxyType({"nice": ("1",)})

    @asynccontextmanager
    async def opened(self, setup: BackendSetup) -> AsyncIterator[Backend]:
        backend = GentleBackend(replace(setup, options=self.options))
        await backend.reap()
        await backend.start()
        try:
            yield backend
        finally:
            await backend.close()

    async def test_job_and_what_it_starts_run_as_the_options_say(self, tmp_path: Path) -> None:
        def work() -> tuple[int, set[int], int]:
            import subprocess

            shown = subprocess.run(["nice"], check=True, capture_output=True).stdout
            return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), int(shown)

        core = max(os.sched_getaffinity(0))
        self.options = {"nice": ("7",), "cores": (str(core),)}
        async with self.bench(tmp_path) as bench:
            assert await bench.value(work) == (7, {core}, 7)


class TestDisk(DurableBackendContract):
    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[DataBackend]:
        store = CommitStore.open(folder / "node.db", ())
        disk = folder / "disk"
        new = () if disk.exists() else ("yes",)
        disk.mkdir(exist_ok=True)
        options = {"folder": (str(disk),), "new": new}
        backend = DiskBackend(DataSetup(folder / "objects", store, options))
        await backend.start()
        try:
            yield backend
        finally:
            await backend.close()
            await store.close()

    async def test_backend_refuses_a_folder_that_is_not_its_disk(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path):
            pass
        (tmp_path / "disk" / MARKER).unlink()
        with pytest.raises(OSError, match="mount the disk"):
            async with self.opened(tmp_path):
                pass


@pytest.mark.parametrize("options", [{"nice": ("20",)}, {"nice": ("-1",)}, {"cores": ("all",)}])
def test_gentle_refuses_what_this_machine_does_not_have(
    tmp_path: Path, options: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        GentleBackend(BackendSetup(tmp_path, bytes(16), options=options))
