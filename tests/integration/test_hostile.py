"""What hostile accounts and strangers try at real daemons, while others are served as before."""

import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from alpyne_grid.nodes.access import CONNECTIONS_PER_ACCOUNT
from alpyne_grid.tools.cluster import Daemon, LocalCluster
from alpyne_grid.wire import Connection, DialFailed

from alpyne_proto.address import Address
from alpyne_proto.errors import ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.keys import Identity
from alpyne_proto.messages import access
from alpyne_proto.registry import State

Run = Callable[[Awaitable[Any]], Any]
Bearer = Callable[[Daemon, Identity], Awaitable[Connection]]
UNKNOWN_PER_SOURCE = 64  # see wire/strangers.py


def key_of(daemon: Daemon) -> bytes:
    return Address.parse(daemon.address).key


async def close_all(*connections: Connection) -> None:
    for connection in connections:
        await connection.close()


def test_account_cannot_take_all_connections_of_a_node(
    cluster: LocalCluster, person: Any, bearer: Bearer, owner: Any, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open")
    greedy, other = person(), person()

    async def scene() -> None:
        first = await greedy.dial(node)
        await first.call(access.Register())
        held = [first] + [await greedy.dial(node) for _ in range(CONNECTIONS_PER_ACCOUNT - 1)]
        with pytest.raises(DialFailed, match="connections to this node"):
            await greedy.dial(node, timeout_s=2.0)
        holder = owner.device  # any key
        peer = await bearer(node, holder)
        ticket = greedy.ticket(
            holder=holder.noise_public, audience=key_of(node), container=os.urandom(16)
        )
        with pytest.raises(RequestFailed) as caught:
            await peer.call(access.ShowTicket(ticket.encode()))
        assert caught.value.code is ErrorCode.OVERLOADED
        assert all(connection.is_open for connection in held)
        stranger = await other.dial(node)
        assert stranger.state is State.UNKNOWN
        await stranger.close()
        await held.pop().close()
        held.append(await greedy.dial(node))
        assert held[-1].state is State.OPEN
        await close_all(*held, peer)

    run(scene())


def test_strangers_keep_no_account_out(
    cluster: LocalCluster, person: Any, bearer: Bearer, owner: Any, run: Run
) -> None:
    node = cluster.start("data")

    async def scene() -> None:
        stranger = person()
        held = [await stranger.dial(node) for _ in range(UNKNOWN_PER_SOURCE)]
        with pytest.raises((DialFailed, ConnectionLost), match="without an account"):
            crowd = await stranger.dial(node, timeout_s=2.0)
            await crowd.wait_closed()
            await crowd.wait_ready()
        admin = await owner.dial(node)
        assert admin.state is State.OPEN
        assert all(connection.is_open for connection in held)
        await close_all(*held, admin)

    run(scene())


@pytest.mark.parametrize("kind", ["compute", "data"])
def test_second_daemon_on_a_folder_is_refused_and_the_first_goes_on(
    cluster: LocalCluster, owner: Any, run: Run, kind: str
) -> None:
    node = cluster.start(kind)
    second = cluster.add(kind, name="second")
    second.arguments[second.arguments.index("--state") + 1] = str(node.state)
    second.launch()
    assert second.process is not None
    assert second.process.wait(20) == 1
    assert "another daemon runs on it" in second.log

    async def scene() -> None:
        await (await owner.dial(node)).call(access.GetStatus())

    run(scene())
    second.stop()


@pytest.mark.parametrize(("kind", "table"), [("compute", "jobs"), ("data", "data_containers")])
def test_node_with_a_damaged_table_ends_with_what_to_do_and_no_traceback(
    cluster: LocalCluster, kind: str, table: str
) -> None:
    node = cluster.start(kind)
    node.stop()
    database = node.state / "node.db"
    with contextlib.closing(sqlite3.connect(database)) as opened:
        ((page,),) = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    with open(database, "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes([77]) * 4096)
    node.launch()
    assert node.process is not None
    assert node.process.wait(20) == 1
    assert "restore it from a backup" in node.log
    assert "Traceback" not in node.log
