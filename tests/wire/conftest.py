"""What the tests of the wire share: coroutine tests that leave nothing behind, peers, services."""

import asyncio
import contextlib
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
from alpyne_grid.wire import Connection, Server, ServerLimits, Service, dial, memory_pair, serve
from alpyne_grid.wire.dial import dial_transport

from alpyne_proto.address import Address
from alpyne_proto.keys import DeviceIdentity, NodeIdentity
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import CODEC_ZSTD, AcceptorHello, DiallerHello, NodeKind
from alpyne_proto.registry import Message, State

TEST_S = 20.0  # after which a test that hangs is ended
GRACE_S = 2.0  # for what was cancelled or closed to end


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test; fail it for tasks it leaves and for errors that reached the loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(_run(lambda: pyfuncitem.obj(**arguments)))
    return True


async def _run(test: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(str(context)))
    async with asyncio.timeout(TEST_S):
        await test()
        deadline = loop.time() + GRACE_S
        while _left() and loop.time() < deadline:
            await asyncio.sleep(0.001)
    assert _left() == []
    assert unhandled == []


def _left() -> list[Any]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@dataclass
class Recorder(Service):
    """A service that keeps what its connections told, and takes every dialler as a user."""

    state: State = State.OPEN
    interrupts: list[Message] = field(default_factory=list)
    connected: list[Connection] = field(default_factory=list)
    disconnected: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def on_connect(self, connection: Connection) -> None:
        self.connected.append(connection)
        if connection.is_acceptor:
            connection.promote(self.state, AccountRole.USER)

    def on_interrupt(self, connection: Connection, message: Message) -> None:
        self.interrupts.append(message)

    def on_disconnect(self, connection: Connection) -> None:
        self.disconnected.append(connection)


@dataclass
class Peers:
    """Keys and hellos of a node and a manager."""

    chance: random.Random
    node: NodeIdentity
    device: DeviceIdentity

    def node_hello(self, **changes: Any) -> AcceptorHello:
        values: dict[str, Any] = {
            "kind": NodeKind.COMPUTE,
            "boot_id": bytes(16),
            "store_id": bytes(16),
            "generation": 1,
            "last_commit": 0,
            "signing_key": self.node.signing.public,
            "codecs": CODEC_ZSTD,
        }
        return AcceptorHello(**{**values, **changes})

    def manager_hello(self, **changes: Any) -> DiallerHello:
        values = {"roles": 1, "run_id": bytes(16), "certificate": b"", "codecs": CODEC_ZSTD}
        return DiallerHello(**{**values, **changes})

    async def serve(self, service: Service, bounds: ServerLimits | None = None) -> Server:
        """Serve on a free port of loopback."""
        return await serve(
            "127.0.0.1", 0, identity=self.node, hello=self.node_hello, service=service,
            bounds=bounds,
        )  # fmt: skip

    async def dial(self, server: Server, service: Service | None = None, **more: Any) -> Connection:
        """Dial a server of `serve`."""
        address = Address((("127.0.0.1", server.port),), self.node.noise_public)
        options = {"identity": self.device, "hello": self.manager_hello(), "service": service}
        return await dial(address, **{**options, **more})

    @contextlib.asynccontextmanager
    async def over_tcp(
        self, service: Service, dialling: Service | None = None
    ) -> AsyncIterator[Connection]:
        """A manager's connection to a node with `service`, by a socket."""
        server = await self.serve(service)
        connection = await self.dial(server, dialling)
        try:
            yield connection
        finally:
            await connection.close()
            await server.close(1.0)

    @contextlib.asynccontextmanager
    async def in_memory(
        self, service: Service, dialling: Service | None = None, *, capacity: int = 128 * 1024,
        node: dict[str, Any] | None = None, manager: dict[str, Any] | None = None,
    ) -> AsyncIterator[tuple[Connection, Connection]]:  # fmt: skip
        """(the manager's, the node's) ends of a connection without a socket."""
        left, right = memory_pair(capacity=capacity)
        server = Server(
            identity=self.node, hello=lambda: self.node_hello(**(node or {})), service=service
        )
        accepted = server.attach(right)
        assert accepted is not None
        connection = await dial_transport(
            left, self.node.noise_public, identity=self.device,
            hello=self.manager_hello(**(manager or {})), service=dialling,
        )  # fmt: skip
        try:
            yield connection, accepted
        finally:
            await connection.close()
            await server.close(1.0)


Linked = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def peers() -> Peers:
    chance = random.Random(7)
    return Peers(
        chance, NodeIdentity.create(chance.randbytes), DeviceIdentity.create(chance.randbytes)
    )


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
