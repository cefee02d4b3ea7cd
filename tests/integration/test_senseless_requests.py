"""Bad input to real daemons: a documented error, the next request served, and a clean log."""

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.tools.cluster import Daemon, LocalCluster
from alpyne_grid.wire import Connection

from alpyne_proto import messages
from alpyne_proto.address import Address
from alpyne_proto.errors import AlpyneError, RequestFailed
from alpyne_proto.fields import Bits, Blob, Choice, Flag, ListOf, Real, Struct, Text, Uint
from alpyne_proto.messages.access import GetStatus, NodeStatus, Register
from alpyne_proto.registry import MESSAGES, STRUCTS, Message, Role, Shape, Spec, State

assert messages  # importing them fills the registry

Run = Callable[[Awaitable[Any]], Any]
GOOD_PREFACE = b"ALPYNE\r\n\x01\x01\x01\x00"
BAD_NAMES = ["..", "a/../../b", "/etc/passwd", "a\x00b", "x" * 5000, "~/a", "a//b", "./a", "\u202e"]
ASKED = [
    spec
    for spec in MESSAGES.values()
    if spec.shape is Shape.REQUEST and spec.senders & Role.MANAGER and State.OPEN in spec.states
]


@pytest.fixture(params=["compute", "data"])
def node(request: pytest.FixtureRequest, cluster: LocalCluster) -> Iterator[Daemon]:
    """A daemon that is as well afterwards as before, and has written only where it may."""
    before = files_in(cluster.folder)
    options = ("--registration", "open") if request.param == "data" else ()
    daemon = cluster.start(request.param, *options)
    pid = daemon.pid
    yield daemon
    assert daemon.pid == pid
    assert daemon.stop() == 0
    for word in ("Traceback", '"level": "error"', "uncaught", "handler_failed", "hook_failed"):
        assert word not in daemon.log
    written = {
        path for path in files_in(cluster.folder) - before if daemon.state not in path.parents
    }
    assert {path.name for path in written} <= {daemon.state.name, f"{daemon.name}.log"}


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


async def serves(connection: Connection) -> None:
    answer = await connection.call(GetStatus())
    assert isinstance(answer.message, NodeStatus)


async def send(daemon: Daemon, data: bytes) -> bytes:
    """Send bytes on a connection of their own; return what came back before it closed."""
    route = Address.parse(daemon.address).routes[0]
    reader, writer = await asyncio.open_connection(*route)
    try:
        writer.write(data)
        with contextlib.suppress(OSError):  # the node may have reset it already
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    except OSError:  # the node had closed it before all was sent
        return b""
    finally:
        writer.close()


def test_node_serves_on_when_strangers_send_garbage(node: Daemon, owner: Any, run: Run) -> None:
    chance = random.Random(1)
    pieces = [chance.randbytes(size) for size in (1, 12, 100, 5000, 70_000)]
    pieces += [GOOD_PREFACE + piece for piece in pieces]
    pieces += [GOOD_PREFACE + b"\x01\xff\xff\xff" + chance.randbytes(100)]  # a record of 16 MiB
    pieces += [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\x00\x01"]

    async def scene() -> None:
        admin = await owner.dial(node)
        for piece in pieces:
            assert len(await send(node, piece)) <= len(GOOD_PREFACE)
        await serves(admin)
        await serves(await owner.dial(node))

    run(scene())


# ---- requests of people it knows -------------------------------------------------------------


def some_value(kind: Any, chance: random.Random) -> Any:
    """Return a value that the kind's bounds allow, however little sense it makes."""
    if isinstance(kind, Uint):
        return chance.choice([0, 1, 7, (1 << kind.bits) - 1])
    if isinstance(kind, Blob):
        return chance.randbytes(chance.choice([kind.least, min(kind.most, kind.least + 20)]))
    if isinstance(kind, Text):
        fitting = [name for name in BAD_NAMES if len(name.encode()) <= kind.most]
        return chance.choice([*fitting, ""])
    if isinstance(kind, Choice):
        return chance.choice(list(kind.enum))
    if isinstance(kind, Bits):
        return chance.getrandbits(32) & kind.mask
    if isinstance(kind, ListOf):
        return tuple(some_value(kind.item, chance) for _ in range(chance.choice([0, 1, 2])))
    if isinstance(kind, Struct):
        return some_message(STRUCTS[kind.name], chance)
    return chance.random() if isinstance(kind, Real) else isinstance(kind, Flag)


def some_message(spec: Spec, chance: random.Random) -> Any:
    return spec.cls(**{field.name: some_value(field.kind, chance) for field in spec.fields})


async def ask(connection: Connection, message: Message, body: bytes) -> bool:
    """Ask, and return whether an answer came; what is refused must say why."""
    try:
        async with asyncio.timeout(2):
            answer = await connection.call(message, body)
            await answer.body.read(1 << 20)
    except RequestFailed as error:
        assert str(error)
    except (AlpyneError, TimeoutError):
        return False  # our own side refuses to send it, or the node waits for more of a body
    return True


@pytest.mark.parametrize("who", ["administrator", "user"])
def test_node_serves_on_when_requests_make_no_sense(
    node: Daemon, owner: Any, person: Any, run: Run, who: str
) -> None:
    """Every request there is, with unknown ids, wild numbers, bad names and bodies of garbage."""
    chance = random.Random(2)
    answered: set[str] = set()

    async def scene() -> None:
        someone = owner if who == "administrator" else person()
        registering = await someone.dial(node)
        await ask(registering, Register("someone"), b"")  # a compute node takes no user
        state = registering.state
        for spec in ASKED:
            connection = await someone.dial(node)
            for _ in range(6):
                size = chance.choice([0, 3, 300]) if spec.body or spec.rows else 0
                message = some_message(spec, chance)
                if connection.is_open and await ask(connection, message, chance.randbytes(size)):
                    answered.add(spec.name)
            await connection.close()
        if state is State.OPEN:
            assert answered == {spec.name for spec in ASKED}
        await serves(await owner.dial(node))

    run(scene())


def test_registration_that_was_refused_leaves_the_connection_usable(
    node: Daemon, person: Any, run: Run
) -> None:
    async def scene() -> None:
        connection = await person().dial(node)
        for code in (os.urandom(16), os.urandom(64)):
            with pytest.raises(RequestFailed):
                await connection.call(Register("x", code))
        assert connection.is_open
        assert connection.state is State.UNKNOWN

    run(scene())
