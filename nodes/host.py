"""What every node is made of: state folder, store, accounts, access, server. Nodes add handlers.

host = NodeHost(config)
await host.open(extra_schema)          # lock, identity, store, accounts
host.handle({PutObject: put, ...})     # the node's own requests
await host.serve()                     # from here on it answers
await host.close()
"""

import os
import secrets
import time
from collections.abc import Callable, Mapping

from alpyne_grid.nodes import accounts
from alpyne_grid.nodes.access import Access, AccessHooks
from alpyne_grid.nodes.accounts import AccountTable, Change
from alpyne_grid.nodes.config import NodeConfig
from alpyne_grid.nodes.state import StateFolder
from alpyne_grid.nodes.store import CommitStore, Schema
from alpyne_grid.wire import Connection, Handler, Server, Service, serve

from alpyne_grid import __version__
from alpyne_proto.address import Address
from alpyne_proto.compression import Compression
from alpyne_proto.messages.hello import CODEC_ZSTD, AcceptorHello, NodeKind
from alpyne_proto.registry import Message

SOFTWARE = f"alpyne-grid {__version__}"


class NodeService(Service):
    """The connections of a node: who is told of what."""

    def __init__(self) -> None:
        super().__init__()
        self.when_connected: Callable[[Connection], None] = lambda connection: None
        self.when_disconnected: list[Callable[[Connection], None]] = []
        self.when_interrupted: Callable[[Connection, Message], None] = lambda *_: None

    def on_connect(self, connection: Connection) -> None:
        """Let access decide the connection's state."""
        self.when_connected(connection)

    def on_interrupt(self, connection: Connection, message: Message) -> None:
        """Hand it to the node."""
        self.when_interrupted(connection, message)

    def on_disconnect(self, connection: Connection) -> None:
        """Tell everybody who asked."""
        for call in self.when_disconnected:
            call(connection)


class NodeHost:
    """A node without its own business. ``boot_id`` is new at each start."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.boot_id = secrets.token_bytes(16)
        self.hooks = AccessHooks()
        self.service = NodeService()
        self._started_at = time.monotonic()
        self._server: Server | None = None

    @property
    def uptime_s(self) -> int:
        """Whole seconds since the start."""
        return int(time.monotonic() - self._started_at)

    @property
    def address(self) -> Address:
        """The address to hand out; legal once it serves."""
        assert self._server is not None, "serve() comes first"
        host = self.config.advertise or self.config.host
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return Address(((host, self._server.port),), self.state.identity.noise_public)

    async def open(self, *schemas: Schema) -> None:
        """Lock the state folder and open the store, with ``schemas`` beside the accounts'.

        Raises StateError where the folder cannot be used.
        """
        self.state = StateFolder(self.config.state)
        try:
            self.store = CommitStore.open(self.state.database, (accounts.SCHEMA, *schemas))
            self.access = Access(
                await self._load_accounts(),
                node_key=self.state.identity.noise_public,
                persist=self._persist,
                clock_s=lambda: int(time.time()),
                random=os.urandom,
                takes_tickets=self.config.kind is NodeKind.DATA,
                hooks=self.hooks,
            )
        except BaseException:
            self.state.close()
            raise
        self.service.when_connected = self.access.admit
        self.service.when_disconnected.append(self.access.forget)
        self.handle(self.access.handlers())

    def handle(self, handlers: Mapping[type[Message], Handler]) -> None:
        """Serve these requests too."""
        self.service.add(handlers)

    def when_disconnected(self, call: Callable[[Connection], None]) -> None:
        """Call ``call`` with every connection that ends."""
        self.service.when_disconnected.append(call)

    def when_interrupted(self, call: Callable[[Connection, Message], None]) -> None:
        """Call ``call`` with every interrupt."""
        self.service.when_interrupted = call

    async def serve(self) -> None:
        """Listen; where the port is left open, on the last one if it is still free.

        A node that starts again is then where managers look for it.
        """
        ports = [self.config.port] if self.config.port else [self.state.last_port, 0]
        for port in ports:
            try:
                self._server = await self._listen(port)
                break
            except OSError:
                if port == ports[-1]:
                    raise
        assert self._server is not None, "the last port raises or serves"
        self.state.last_port = self._server.port

    async def _listen(self, port: int) -> Server:
        return await serve(
            self.config.host,
            port,
            identity=self.state.identity,
            hello=self._hello,
            service=self.service,
            compression=Compression(self.config.compression),
        )

    async def stop_serving(self) -> None:
        """Take no more connections and requests, and end those that are open."""
        if self._server is not None:
            await self._server.close()

    async def close(self) -> None:
        """Stop serving, close the store, give the folder back."""
        await self.stop_serving()
        await self.store.close()
        self.state.close()

    def _hello(self) -> AcceptorHello:
        return AcceptorHello(
            kind=self.config.kind,
            boot_id=self.boot_id,
            store_id=self.state.store_id,
            generation=self.state.generation,
            last_commit=self.store.last_commit,
            signing_key=self.state.identity.signing.public,
            codecs=0 if self.config.compression == "off" else CODEC_ZSTD,
            host_label=self.config.host_label,
            software=SOFTWARE,
        )

    async def _load_accounts(self) -> AccountTable:
        config = self.config
        table = AccountTable(
            self.state.identity.noise_public,
            config.registration,
            frozenset(config.owners),
            config.quota_bytes,
            config.open_quota_bytes,
        )
        now_s = int(time.time())
        table.load(
            self.store.read("SELECT * FROM accounts"),
            self.store.read("SELECT * FROM invitations WHERE not_after >= ?", (now_s,)),
            self.store.read("SELECT * FROM revoked_devices"),
        )
        change = table.adopt_owners(now_s)
        expired = ("DELETE FROM invitations WHERE not_after < ?", (now_s,))
        await self.store.commit((expired, *change.statements))
        return table

    def _persist(self, change: Change, done: Callable[[BaseException | None], None]) -> None:
        self.store.write(change.statements, done)
