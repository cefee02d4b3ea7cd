"""Server: accepts connections, lets strangers in as far as they may come, and ends gracefully."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import cast

from alpyne_grid.wire.connection import Connection
from alpyne_grid.wire.log import Log
from alpyne_grid.wire.service import Service
from alpyne_grid.wire.strangers import Admission, ServerLimits, Strangers
from alpyne_grid.wire.transport import peer_name, source_of

from alpyne_proto.compression import Compression
from alpyne_proto.errors import ErrorCode
from alpyne_proto.handshake import SessionConfig
from alpyne_proto.keys import Identity
from alpyne_proto.messages.hello import AcceptorHello

BACKLOG = 512


class Server:
    """The connections of one node; made by `serve`, or without a socket for `attach` alone."""

    def __init__(
        self,
        *,
        identity: Identity,
        hello: Callable[[], AcceptorHello],
        service: Service,
        bounds: ServerLimits | None = None,
        compression: Compression = Compression.AUTO,
        log: Log | None = None,
    ) -> None:
        """Make a server without a socket; see `serve` for the arguments."""
        self.connections: set[Connection] = set()  # those whose handshake is complete
        self._identity = identity
        self._hello = hello
        self._service = service
        self._bounds = bounds or ServerLimits()
        self._compression = compression
        self._log = log or Log("wire.server")
        self._strangers = Strangers(self._bounds)
        self._listeners: asyncio.Server | None = None
        self._closing = False

    @property
    def port(self) -> int:
        """The port that is listened on; 0 without a socket."""
        sockets = self._listeners.sockets if self._listeners is not None else ()
        return int(sockets[0].getsockname()[1]) if sockets else 0

    @property
    def half_open(self) -> int:
        """Connections whose handshake is not complete."""
        return self._strangers.half_open

    def attach(self, transport: asyncio.Transport) -> Connection | None:
        """Serve any byte stream; None where there is no place for it.

        transport: as asyncio's; it gets its protocol, and the protocol its `connection_made`, here.
        """
        full = self._closing or len(self.connections) >= self._bounds.connections_max
        source = source_of(transport)
        admission = self._strangers.admit(source, full=full)
        if admission is Admission.DROPPED:
            transport.abort()
            return None
        connection = self._make(transport, busy=admission is Admission.REFUSED)
        self._strangers.watch(connection, admission, source)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return connection if admission is Admission.ADMITTED else None

    async def listen(self, host: str | Sequence[str] | None, port: int) -> None:
        """Listen on a port of all addresses of `host`; OSError where that cannot be."""
        loop = asyncio.get_running_loop()
        self._listeners = await loop.create_server(
            lambda: _Accepted(self), host, port, backlog=BACKLOG
        )

    async def close(self, grace_s: float = 5.0) -> None:
        """End gracefully: no new connections or requests, those under way get `grace_s` seconds."""
        self._closing = True
        if self._listeners is not None:
            self._listeners.close()
        self._strangers.drop_all()
        for connection in tuple(self.connections):
            connection.go_away()
        await _all((c.drain() for c in self.connections), grace_s)
        text = "the node is ending"
        ends = [c.close(ErrorCode.SHUTTING_DOWN, text) for c in self.connections]
        await _all(ends, None)

    # ---- private ----

    def _make(self, transport: asyncio.Transport, *, busy: bool) -> Connection:
        config = SessionConfig(
            hello=self._hello(),
            static_private=self._identity.noise_private,
            random=os.urandom,
            compression=self._compression,
            busy=busy,
        )
        return Connection(
            config,
            self._service,
            log=self._log.bind(peer=peer_name(transport)),
            when_connected=self._connected,
            when_lost=self._lost,
        )

    def _connected(self, connection: Connection) -> None:
        self.connections.add(connection)
        self._strangers.has_proven_its_key(connection)

    def _lost(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._strangers.forget(connection)


class _Accepted(asyncio.Protocol):
    """Stands in until the transport, and by it the peer's address, is there."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.attach(cast(asyncio.Transport, transport))


async def serve(
    host: str | Sequence[str] | None,
    port: int,
    *,
    identity: Identity,
    hello: Callable[[], AcceptorHello],
    service: Service,
    bounds: ServerLimits | None = None,
    compression: Compression = Compression.AUTO,
    log: Log | None = None,
) -> Server:
    """Serve a node on a port; requests are handled from here on.

    host: an address or name, several, or None for all. port: 0 for a free one, see Server.port.
    identity: the node's keys; its Noise key is what diallers must know. hello: called for each
    connection. service: the handlers. bounds: what strangers may use. Raises OSError where the
    port cannot be had.
    """
    server = Server(
        identity=identity,
        hello=hello,
        service=service,
        bounds=bounds,
        compression=compression,
        log=log,
    )
    await server.listen(host, port)
    return server


def serve_transport(
    transport: asyncio.Transport,
    *,
    identity: Identity,
    hello: Callable[[], AcceptorHello],
    service: Service,
    bounds: ServerLimits | None = None,
    compression: Compression = Compression.AUTO,
    log: Log | None = None,
) -> Server:
    """Serve one peer over any byte stream; see `serve`, and `Server.attach` for more of them.

    transport: as asyncio's; it gets its protocol, and the protocol its `connection_made`, here.
    """
    server = Server(
        identity=identity,
        hello=hello,
        service=service,
        bounds=bounds,
        compression=compression,
        log=log,
    )
    server.attach(transport)
    return server


async def _all(what: Iterable[Coroutine[None, None, None]], timeout_s: float | None) -> None:
    """Run all at once, and cancel those that are not through in time."""
    tasks = [asyncio.ensure_future(one) for one in what]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
