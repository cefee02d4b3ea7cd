"""Links: the connections to the pool's nodes, kept alive, greeted, and registered on first contact.

A Link is one node. It dials and redials; when a connection is up and OPEN it asks for the node's
status and tells its owner. Calls go to the connection of the moment.
"""

import asyncio
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from alpyne_grid.manager import pool as pools
from alpyne_grid.manager.errors import NodeUnreachable
from alpyne_grid.manager.identity import ManagerIdentity, not_registered
from alpyne_grid.wire import Answer, Backoff, Body, Connection, Redialler, Service, dial
from alpyne_grid.wire.log import Log

from alpyne_proto import limits
from alpyne_proto.compression import Compression
from alpyne_proto.errors import AlpyneError, ConnectionLost, RequestFailed
from alpyne_proto.messages.access import GetStatus, NodeStatus, Register, Registered
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello, NodeKind
from alpyne_proto.registry import Message, Role, State

DIAL_TIMEOUT_S = 10.0
GREET_TIMEOUT_S = 10.0
CALL_WAIT_S = 3.0  # how long a call waits for a connection that is not up
# Windows for objects, in units of the protocol's own: a get is some 15 % faster, for its node goes
# on while the program writes and hashes. The connection's grows likewise, so that as many streams
# as ever may stand still without stopping the others.
WIDE = 4
BACKOFF = Backoff(first_s=0.05, most_s=10.0)  # a restarted daemon is found before it counts as lost


class LinkOwner(Protocol):
    """What a link tells, on the event loop."""

    def link_up(self, link: "Link", status: NodeStatus, *, fresh: bool) -> None:
        """The node is connected, registered and has said what it has."""

    def link_down(self, link: "Link") -> None:
        """The connection is lost, or could not be used."""

    def link_failed(self, link: "Link", error: AlpyneError) -> None:
        """An attempt to connect failed; more follow."""


@dataclass(slots=True)
class LinkSettings:
    """What all links of a manager share."""

    identity: ManagerIdentity
    run_id: bytes
    invitations: dict[bytes, bytes] = field(default_factory=dict)  # node key -> code
    invitation: bytes = b""  # for nodes without one of their own
    host_label: str = ""
    compression: Compression = Compression.AUTO
    home: Path | None = None  # where generations are remembered; None: nowhere

    def hello(self, kind: NodeKind | None) -> DiallerHello:
        """Return what a node is told. ``kind``: None where it was not reached before."""
        wide = 1 if kind is NodeKind.COMPUTE else WIDE
        return DiallerHello(
            roles=Role.MANAGER,
            run_id=self.run_id,
            certificate=self.identity.certificate.encode(),
            max_data=wide * limits.CONNECTION_WINDOW,
            max_stream_data=wide * limits.STREAM_WINDOW,
            host_label=self.host_label,
        )


class Link:
    """One node of the pool."""

    def __init__(
        self, node: pools.PoolNode, settings: LinkSettings, owner: LinkOwner, service: Service
    ) -> None:
        self.node = node
        self.name = node.shown  # what people call it
        self.key = node.key
        self.kind = node.kind
        self.label = node.label
        self.trusted = node.trusted
        self.status: NodeStatus | None = None
        self.error: AlpyneError | None = None  # why it is not up
        self.heard = asyncio.Event()  # up, or failed once
        self._settings = settings
        self._owner = owner
        self._service = service
        self._log = Log("manager.link", node=node.shown)
        self._ready: Connection | None = None  # registered and greeted
        self._usable = asyncio.Event()
        self._seen: AcceptorHello | None = None  # of the connection before
        self._sent_before = self._received_before = 0
        self._redialler = Redialler(
            self._dial, on_down=self._down, on_failure=self._failed, backoff=BACKOFF
        )

    def start(self) -> None:
        """Begin to dial."""
        self._redialler.start()

    async def close(self) -> None:
        """Stop dialling and close the connection."""
        self._ready = None
        await self._redialler.close()

    @property
    def is_up(self) -> bool:
        """Whether calls go out at once."""
        return self._ready is not None and self._ready.is_open

    @property
    def connection(self) -> Connection | None:
        """The connection of the moment, where calls go out at once."""
        return self._ready if self.is_up else None

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to the node so far, encrypted, over all its connections."""
        return self._sent_before + (self._ready.sent_bytes if self._ready is not None else 0)

    @property
    def received_bytes(self) -> int:
        """Bytes received from the node so far, likewise."""
        ready = self._ready
        return self._received_before + (ready.received_bytes if ready is not None else 0)

    def dial_now(self) -> None:
        """Try at once instead of waiting for the next attempt's time."""
        self._redialler.dial_now()

    async def ready(self, timeout_s: float = CALL_WAIT_S) -> Connection:
        """Return a connection that calls can use; NodeUnreachable after ``timeout_s``."""
        if self._ready is not None and self._ready.is_open:
            return self._ready
        self.dial_now()
        try:
            async with asyncio.timeout(timeout_s):
                while self._ready is None or not self._ready.is_open:
                    self._usable.clear()
                    await self._usable.wait()
        except TimeoutError:
            why = f": {self.error}" if self.error is not None else ""
            raise NodeUnreachable(f"node {self.name} cannot be reached{why}") from None
        return self._ready

    async def call(
        self,
        message: Message,
        body: Body = b"",
        *,
        timeout_s: float | None = None,
        wait_s: float = CALL_WAIT_S,
    ) -> Answer:
        """Send a request over the connection of the moment; see Connection.call."""
        connection = await self.ready(wait_s)
        return await connection.call(message, body, timeout_s=timeout_s)

    # --- private ----------------------------------------------------------------------------

    async def _dial(self) -> Connection:
        """Dial, register where needed, and greet; part of each of the redialler's attempts."""
        connection = await dial(
            self.node.address,
            identity=self._settings.identity.device,
            hello=self._settings.hello(self.kind),
            service=self._service,
            timeout_s=DIAL_TIMEOUT_S,
            compression=self._settings.compression,
        )
        try:
            status = await self._greet(connection)
        except BaseException:
            connection.abort()
            raise
        self._up(connection, status)
        return connection

    async def _greet(self, connection: Connection) -> NodeStatus:
        if connection.state is State.UNKNOWN:
            await self._register(connection)
        answer = await connection.call(GetStatus(), timeout_s=GREET_TIMEOUT_S)
        if not isinstance(answer.message, NodeStatus):
            raise ConnectionLost(f"node {self.name}: answered GetStatus with something else")
        return answer.message

    async def _register(self, connection: Connection) -> None:
        settings = self._settings
        invitation = settings.invitations.get(self.key, settings.invitation)
        name = f"{os.environ.get('USER', 'manager')}@{socket.gethostname()}"[:100]
        try:
            answer = await connection.call(
                Register(name=name, invitation=invitation), timeout_s=GREET_TIMEOUT_S
            )
        except RequestFailed as error:
            raise not_registered(self.name, str(error)) from None
        if not isinstance(answer.message, Registered):
            raise not_registered(self.name, "it gave no answer to the registration")

    def _up(self, connection: Connection, status: NodeStatus) -> None:
        hello = connection.peer_hello
        assert isinstance(hello, AcceptorHello)
        fresh = self._seen is not None and _knows_less(hello, self._seen)
        self._seen = hello
        self.kind, self.label, self.status = hello.kind, hello.host_label, status
        self.error = None
        self._ready = connection
        self._remember(hello)
        self._owner.link_up(self, status, fresh=fresh)
        self.heard.set()
        self._usable.set()

    def _remember(self, hello: AcceptorHello) -> None:
        home = self._settings.home
        if home is None:
            return
        known = pools.load(home)
        before = known.seen.get(self.key)
        seen = pools.Seen(hello.store_id, hello.generation)
        is_older = (
            before is not None
            and before.store_id == seen.store_id
            and before.generation > seen.generation
        )
        if is_older:
            self._log.warning("restored_backup", generation=seen.generation)
        paired = known.nodes.get(self.key)
        is_known = paired is None or (paired.kind, paired.label) == (hello.kind, hello.host_label)
        if before == seen and is_known:
            return
        pools.note(home, self.key, seen, hello.kind, hello.host_label)

    def _down(self, connection: Connection) -> None:
        self._sent_before += connection.sent_bytes
        self._received_before += connection.received_bytes
        self._ready = None
        if isinstance(connection.error, AlpyneError):
            self.error = connection.error
        self._owner.link_down(self)

    def _failed(self, error: AlpyneError) -> None:
        self.error = error
        self._owner.link_failed(self, error)
        self.heard.set()


def _knows_less(now: AcceptorHello, before: AcceptorHello) -> bool:
    """Return whether the node's store is another one than before, or a restored backup."""
    if now.store_id != before.store_id:
        return True
    return now.boot_id != before.boot_id and now.generation <= before.generation
