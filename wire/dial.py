"""Dialling: a connection to the node of an address, by whichever of its routes works first."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from alpyne_grid.wire.connection import Connection
from alpyne_grid.wire.log import Log
from alpyne_grid.wire.service import Service

from alpyne_proto.address import Address, key_to_text
from alpyne_proto.compression import Compression
from alpyne_proto.errors import AlpyneError, ConnectionLost, ErrorCode, Outcome
from alpyne_proto.handshake import SessionConfig
from alpyne_proto.keys import Identity
from alpyne_proto.messages.hello import DiallerHello

Connect = Callable[[Callable[[], asyncio.BaseProtocol], str, int], Awaitable[Any]]
_LEAST_S: Final = 1.0  # that a route gets, however many follow it


class DialFailed(ConnectionLost):
    """No route led to the node. Nothing was asked of it: ``outcome`` is NOT_STARTED.

    ``code`` is TOO_BUSY where it was found and had no place, else that of the last failure.
    """

    outcome = Outcome.NOT_STARTED


async def dial(
    address: Address | str,
    *,
    identity: Identity,
    hello: DiallerHello,
    service: Service | None = None,
    timeout_s: float = 10.0,
    compression: Compression = Compression.AUTO,
    connect: Connect | None = None,
    log: Log | None = None,
) -> Connection:
    """Connect to a node, and return once it has said what we are to it (``state``, ``role``).

    address: where, and which key it must prove. identity: our keys. hello: our roles, certificate
    and limits. service: what the node may ask of us. timeout_s: for all routes together. connect:
    opens a byte stream, as the event loop's `create_connection` does (the default).
    A node that says it is busy is tried again until timeout_s. Raises DialFailed, which tells of
    each route why it failed.
    """
    target = Address.parse(address) if isinstance(address, str) else address
    loop = asyncio.get_running_loop()
    attempt = _Attempt(
        lambda: _make(target.key, identity, hello, service, compression, log),
        connect or loop.create_connection,
        loop.time() + timeout_s,
    )
    while True:
        connection = await attempt.run(target.routes)
        if connection is not None:
            return connection
        # A node that is busy with handshakes has a place a moment later.
        pause = random.uniform(0.02, 0.2)
        if attempt.code is not ErrorCode.TOO_BUSY or loop.time() + pause > attempt.deadline:
            # A node that shuts somebody out is there; only other failures leave these questions.
            asked = "; is it running, and is the address right?"
            raise DialFailed(
                f"node {key_to_text(target.key)[:8]}: no connection ({attempt.story})"
                f"{'' if attempt.code is ErrorCode.REVOKED else asked}",
                attempt.code,
            )
        await asyncio.sleep(pause)


class _Attempt:
    """One try of each route, in order, and what became of it."""

    def __init__(self, make: Callable[[], Connection], connect: Connect, deadline: float) -> None:
        self.deadline = deadline
        self.code = ErrorCode.TRUNCATED
        self.story = ""
        self._make = make
        self._connect = connect

    async def run(self, routes: Sequence[tuple[str, int]]) -> Connection | None:
        """Return a connection that is ready; None where no route gives one."""
        failures = []
        was_busy, self.code = self.code is ErrorCode.TOO_BUSY, ErrorCode.TRUNCATED
        for index, (host, port) in enumerate(routes):
            left = self.deadline - asyncio.get_running_loop().time()
            share = max(left / (len(routes) - index), _LEAST_S)
            connection = self._make()
            try:
                async with asyncio.timeout(min(share, left)):
                    await self._connect(_giver(connection), host, port)
                    await connection.wait_ready()
                    return connection
            except (OSError, AlpyneError) as error:  # TimeoutError is an OSError
                failures.append(f"{host}:{port}: {_describe(error)}")
                if isinstance(error, AlpyneError):
                    self.code = error.code
            finally:
                if not connection.is_ready:
                    connection.abort()
        if was_busy and self.code is ErrorCode.TRUNCATED:
            self.code = ErrorCode.TOO_BUSY  # time was up in the middle of another try
        else:
            self.story = "; ".join(failures)
        return None


def _giver(connection: Connection) -> Callable[[], asyncio.BaseProtocol]:
    return lambda: connection


async def dial_transport(
    transport: asyncio.Transport,
    key: bytes,
    *,
    identity: Identity,
    hello: DiallerHello,
    service: Service | None = None,
    timeout_s: float = 10.0,
    compression: Compression = Compression.AUTO,
    log: Log | None = None,
) -> Connection:
    """Speak to the node with the static key `key` over any byte stream; see `dial`.

    transport: as asyncio's; it gets its protocol, and the protocol its `connection_made`, here.
    """
    connection = _make(key, identity, hello, service, compression, log)
    transport.set_protocol(connection)
    connection.connection_made(transport)
    try:
        async with asyncio.timeout(timeout_s):
            await connection.wait_ready()
    except (OSError, AlpyneError) as error:
        raise DialFailed(
            f"node {key_to_text(key)[:8]}: {_describe(error)}",
            error.code if isinstance(error, AlpyneError) else ErrorCode.TRUNCATED,
        ) from None
    finally:
        if not connection.is_ready:
            connection.abort()
    return connection


def _make(
    key: bytes,
    identity: Identity,
    hello: DiallerHello,
    service: Service | None,
    compression: Compression,
    log: Log | None,
) -> Connection:
    config = SessionConfig(
        hello=hello,
        static_private=identity.noise_private,
        random=os.urandom,
        remote_static=key,
        compression=compression,
    )
    log = (log or Log("wire.dial")).bind(node=key_to_text(key)[:8])
    return Connection(config, service or Service(), log=log)


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)  # the event loop's own text leaves the reason out
    return str(error) or type(error).__name__
