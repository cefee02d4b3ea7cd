"""DataNode: host, back end, object table and handlers, put together."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from alpyne_grid.nodes.backends import check_options
from alpyne_grid.nodes.config import NodeConfig
from alpyne_grid.nodes.data.backends.base import BackendSetup, DataBackend
from alpyne_grid.nodes.data.backends.find import find_backend
from alpyne_grid.nodes.data.backends.local_schema import SCHEMA
from alpyne_grid.nodes.data.driver import ObjectDriver
from alpyne_grid.nodes.data.object_table import ObjectTable
from alpyne_grid.nodes.data.service import data_handlers
from alpyne_grid.nodes.data.traffic import Traffic
from alpyne_grid.nodes.host import NodeHost
from alpyne_grid.nodes.store import CommitStore
from alpyne_grid.wire import Request
from alpyne_grid.wire.log import Log

from alpyne_grid.durable import sync_folder
from alpyne_proto.address import Address
from alpyne_proto.messages.access import Attribute, GetStatus, NodeStatus
from alpyne_proto.messages.hello import NodeKind

SWEEP_EVERY_S = 60.0
SHOWN_DAMAGED = 3  # paths that a status names


class DataNode:
    """A data node: ``await start()`` opens its state folder and serves, ``await close()`` ends it.

    make_backend: what keeps its objects; by default the one that ``config.backend`` names.
    """

    def __init__(
        self,
        config: NodeConfig,
        make_backend: Callable[[BackendSetup], DataBackend] | None = None,
    ) -> None:
        self._config = config
        self._make_backend = make_backend or find_backend(config.backend)
        check_options(config.backend, self._make_backend, config.options)
        self._host = NodeHost(config)
        self._log = Log("data.node")
        self._traffic = Traffic()
        self._sweeper: asyncio.Task[None] | None = None
        self._backend: DataBackend | None = None
        self._driver: ObjectDriver | None = None

    @property
    def address(self) -> Address:
        """The address to hand out, once it serves."""
        return self._host.address

    @property
    def driver(self) -> ObjectDriver:
        """The object table at work, once started."""
        assert self._driver is not None, "start() comes first"
        return self._driver

    async def check(self) -> str:
        """Say with what it would work, without starting. Raises AlpyneError or OSError."""
        with tempfile.TemporaryDirectory(prefix="alpyne-check-") as folder:
            store = CommitStore.open(Path(folder) / "check.db", (SCHEMA,))
            try:
                objects = self._config.state / "objects"  # which a check does not make
                setup = BackendSetup(objects, store, self._config.options)
                return await self._make_backend(setup).check()
            finally:
                await store.close()

    async def start(self) -> None:
        """Open the state folder, recover, serve. Raises StateError or OSError."""
        host = self._host
        await host.open(SCHEMA)
        try:
            folder = self._config.state / "objects"
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
            backend = self._backend = self._make_backend(
                BackendSetup(folder, host.store, self._config.options)
            )
            await backend.start()
            table = ObjectTable(await backend.usages())
            self._driver = ObjectDriver(table, backend, lambda: time.time_ns() // 1_000_000)
            host.hooks.used_bytes = table.used_bytes
            host.handle(data_handlers(self._driver, backend, host.access, self._traffic))
            host.handle({GetStatus: self._status})
            self._sweeper = asyncio.create_task(self._sweep())
            await host.serve()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop serving, finish what was acknowledged or may be, give everything back."""
        await self._host.stop_serving()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._driver is not None:
            await self._driver.close()
        if self._backend is not None:
            await self._backend.close()
        await self._host.close()

    async def _sweep(self) -> None:
        while True:
            self.driver.sweep()
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _status(self, request: Request) -> None:
        account = request.connection.account
        host = self._host
        assert self._backend is not None, "requests come only once it serves"
        request.reply_nowait(
            NodeStatus(
                kind=NodeKind.DATA,
                disk_free=await asyncio.to_thread(_disk_free, str(self._config.state)),
                used_bytes=self.driver.table.used_bytes(account),
                quota_bytes=host.access.quota_of(account),
                attributes=self._attributes(),
                health=await self._health(self._backend, account),
                traffic=self._traffic.of(account),
                uptime_s=host.uptime_s,
            )
        )

    def _attributes(self) -> tuple[Attribute, ...]:
        config = self._config
        pairs = [("backend", config.backend), ("host", config.host_label)]
        pairs += [(name, value) for name, _, value in map(_split, config.labels)]
        return tuple(Attribute(name[:64], value[:256]) for name, value in pairs)

    async def _health(self, backend: DataBackend, account: bytes) -> str:
        """Say what of the account's objects was found damaged; empty: nothing."""
        damaged = await backend.corrupt(account, SHOWN_DAMAGED + 1)
        if not damaged:
            return ""
        names = ", ".join(f"{key.path[:80]!a}" for key in damaged[:SHOWN_DAMAGED])
        more = " and more" if len(damaged) > SHOWN_DAMAGED else ""
        return f"damaged objects: {names}{more}; put them again from another copy"[:512]


def _split(label: str) -> tuple[str, str, str]:
    return label.partition("=")


def _disk_free(path: str) -> int:
    return shutil.disk_usage(path).free
