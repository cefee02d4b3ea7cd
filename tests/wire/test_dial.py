"""Dialling: routes, wrong keys, dead ports, time limits, and byte streams other than TCP."""

import asyncio
from typing import Any

import pytest
from alpyne_grid.wire import (
    DialFailed,
    Request,
    Service,
    dial,
    dial_transport,
    memory_pair,
    serve_transport,
)

from alpyne_proto.address import Address
from alpyne_proto.errors import AddressError, ErrorCode, Outcome
from alpyne_proto.keys import NodeIdentity
from alpyne_proto.messages.access import GetStatus, NodeStatus
from alpyne_proto.messages.hello import NodeKind
from alpyne_proto.registry import State

STATUS = NodeStatus(NodeKind.COMPUTE)


def answer_status(request: Request) -> None:
    request.reply_nowait(STATUS)


async def closed_port() -> int:
    """Return a port on which nobody listens."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


class Silent(asyncio.Protocol):
    """Accepts, reads and says nothing."""

    transports: list[asyncio.BaseTransport]

    def __init__(self, transports: list[asyncio.BaseTransport]) -> None:
        self.transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transports.append(transport)


async def test_dial_takes_the_next_route_when_the_first_one_is_dead(
    peers: Any, recorder: Any
) -> None:
    server = await peers.serve(recorder)
    dead = await closed_port()
    routes = (("127.0.0.1", dead), ("127.0.0.1", server.port))
    address = Address(routes, peers.node.noise_public)
    connection = await dial(str(address), identity=peers.device, hello=peers.manager_hello())
    assert connection.state is State.OPEN
    await connection.close()
    await server.close()


async def test_dial_takes_the_next_route_when_the_first_one_is_silent(
    peers: Any, recorder: Any
) -> None:
    server = await peers.serve(recorder)
    transports: list[asyncio.BaseTransport] = []
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(lambda: Silent(transports), "127.0.0.1", 0)
    routes = (silent.sockets[0].getsockname()[:2], ("127.0.0.1", server.port))
    connection = await dial(
        Address(routes, peers.node.noise_public), identity=peers.device,
        hello=peers.manager_hello(), timeout_s=2.0,
    )  # fmt: skip
    assert connection.state is State.OPEN
    await connection.close()
    silent.close()
    for transport in transports:
        transport.close()
    await server.close()


async def test_dial_tells_of_every_route_why_it_failed(peers: Any) -> None:
    dead = await closed_port()
    address = Address((("127.0.0.1", dead), ("127.0.0.1", 1)), peers.node.noise_public)
    with pytest.raises(DialFailed) as raised:
        await dial(address, identity=peers.device, hello=peers.manager_hello())
    assert raised.value.outcome is Outcome.NOT_STARTED
    assert f"127.0.0.1:{dead}: " in str(raised.value)
    assert "127.0.0.1:1: " in str(raised.value)
    assert "refused" in str(raised.value)


async def test_dial_fails_when_the_node_has_another_key(peers: Any, recorder: Any) -> None:
    server = await peers.serve(recorder)
    other = NodeIdentity.create(peers.chance.randbytes)
    address = Address((("127.0.0.1", server.port),), other.noise_public)
    with pytest.raises(DialFailed, match="its key is not the one that was expected") as raised:
        await dial(address, identity=peers.device, hello=peers.manager_hello())
    assert raised.value.code is ErrorCode.HANDSHAKE_FAILED
    assert recorder.connected == []
    await server.close()


async def test_dial_fails_in_time_when_nobody_answers(peers: Any) -> None:
    transports: list[asyncio.BaseTransport] = []
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(lambda: Silent(transports), "127.0.0.1", 0)
    address = Address((silent.sockets[0].getsockname()[:2],), peers.node.noise_public)
    began = loop.time()
    with pytest.raises(DialFailed, match="no answer in time"):
        await dial(address, identity=peers.device, hello=peers.manager_hello(), timeout_s=0.1)
    assert loop.time() - began < 1
    silent.close()
    for transport in transports:
        transport.close()


async def test_dial_leaves_no_connection_behind_when_it_is_cancelled(peers: Any) -> None:
    transports: list[asyncio.BaseTransport] = []
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(lambda: Silent(transports), "127.0.0.1", 0)
    address = Address((silent.sockets[0].getsockname()[:2],), peers.node.noise_public)
    dialling = asyncio.ensure_future(
        dial(address, identity=peers.device, hello=peers.manager_hello())
    )
    while not transports:
        await asyncio.sleep(0)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    async with asyncio.timeout(1):  # less than the handshake's own limit
        while not transports[0].is_closing():
            await asyncio.sleep(0)
    silent.close()


async def test_dial_refuses_an_address_that_cannot_be_read(peers: Any) -> None:
    with pytest.raises(AddressError):
        await dial("tcp://nowhere", identity=peers.device, hello=peers.manager_hello())


async def test_dial_opens_its_byte_stream_by_the_function_it_is_given(
    peers: Any, recorder: Any
) -> None:
    server = await peers.serve(recorder)
    asked: list[tuple[str, int]] = []

    async def connect(factory: Any, host: str, port: int) -> Any:
        asked.append((host, port))
        loop = asyncio.get_running_loop()
        return await loop.create_connection(factory, "127.0.0.1", server.port)

    address = Address((("node.example", 7),), peers.node.noise_public)
    connection = await dial(
        address, identity=peers.device, hello=peers.manager_hello(), connect=connect
    )
    assert asked == [("node.example", 7)]
    await connection.close()
    await server.close()


async def test_dial_transport_fails_when_the_other_end_closes(peers: Any) -> None:
    left, right = memory_pair()
    dialling = asyncio.ensure_future(
        dial_transport(
            left, peers.node.noise_public, identity=peers.device, hello=peers.manager_hello()
        )
    )
    await asyncio.sleep(0)
    right.start(asyncio.Protocol())
    right.close()
    with pytest.raises(DialFailed, match="closed the connection during the handshake"):
        await dialling


async def test_one_peer_is_served_over_a_byte_stream_without_a_server_socket(
    peers: Any, recorder: Any
) -> None:
    recorder.add({GetStatus: answer_status})
    left, right = memory_pair()
    server = serve_transport(right, identity=peers.node, hello=peers.node_hello, service=recorder)
    connection = await dial_transport(
        left, peers.node.noise_public, identity=peers.device, hello=peers.manager_hello()
    )
    assert (await connection.call(GetStatus())).message == STATUS
    await server.close()
    await connection.wait_closed()
    assert server.port == 0


async def test_node_may_ask_the_dialler_when_it_serves_too(peers: Any, recorder: Any) -> None:
    class Both(Service):
        def on_connect(self, connection: Any) -> None:
            """A dialler has nothing to promote."""

    recorder.add({GetStatus: answer_status})
    async with peers.in_memory(recorder, Both(), manager={"roles": 3}) as (connection, accepted):
        assert (await connection.call(GetStatus())).message == STATUS
        with pytest.raises(Exception, match="GetStatus"):
            await accepted.call(GetStatus())  # only managers send it, and a node is none
