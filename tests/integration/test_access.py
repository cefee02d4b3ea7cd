"""Registration, invitations, tickets and revocation at a real data node."""

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from alpyne_grid.tools.cluster import Daemon, LocalCluster
from alpyne_grid.wire import Connection, DialFailed

from alpyne_proto.address import Address
from alpyne_proto.container import container_id
from alpyne_proto.errors import AlpyneError, ErrorCode, RequestFailed
from alpyne_proto.keys import Identity, NodeIdentity
from alpyne_proto.messages import access, data
from alpyne_proto.messages.control import AccountRole, BodyDigest
from alpyne_proto.registry import Message, State
from alpyne_proto.ticket import Ticket, Verb

Run = Callable[[Awaitable[Any]], Any]
Bearer = Callable[[Daemon, Identity], Awaitable[Connection]]
WITHIN_S = 5.0  # revocation takes effect


def key_of(daemon: Daemon) -> bytes:
    return Address.parse(daemon.address).key


async def code_of(answer: Awaitable[Any]) -> ErrorCode:
    with pytest.raises(RequestFailed) as caught:
        await answer
    return caught.value.code


async def make_container(connection: Connection, person: Any, name: str, node: bytes) -> bytes:
    cid = container_id(person.key, name)
    await connection.call(data.PutContainer(cid, name, 1, (node,), 1, os.urandom(16)))
    return cid


async def put(connection: Connection, cid: bytes, path: str, body: bytes, **more: Any) -> None:
    message = data.PutObject(cid, path, 1, os.urandom(16), len(body), **more)
    digest = BodyDigest(hashlib.sha256(body).digest())
    await connection.call(message, body, trailer=lambda: digest)


def test_node_registers_any_key_with_a_small_quota_when_open(
    cluster: LocalCluster, person: Any, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open", "--open-quota-bytes", "1000")

    async def scene() -> None:
        connection = await person().dial(node)
        answer = await connection.call(access.Register("alice"))
        assert answer.message == access.Registered(AccountRole.USER, 1000)
        assert connection.state is State.OPEN
        await connection.call(access.GetStatus())
        await connection.close()

    run(scene())


def test_invitation_admits_one_account_to_an_administered_node(
    cluster: LocalCluster, owner: Any, person: Any, run: Run
) -> None:
    node = cluster.start("data")

    async def scene() -> None:
        admin = await owner.dial(node)
        alice, bob = await person().dial(node), await person().dial(node)
        assert await code_of(alice.call(access.Register())) is ErrorCode.REGISTRATION_CLOSED
        invitation = (await admin.call(access.CreateInvitation(60))).message
        assert len(invitation.code) * 8 >= 128
        await alice.call(access.Register("alice", invitation.code))
        refused = bob.call(access.Register("bob", invitation.code))
        assert await code_of(refused) is ErrorCode.INVITATION_INVALID
        assert bob.state is State.UNKNOWN

    run(scene())


def test_accounts_are_known_after_a_restart(cluster: LocalCluster, person: Any, run: Run) -> None:
    node = cluster.start("data", "--registration", "open")
    alice = person()

    async def register() -> None:
        await (await alice.dial(node)).call(access.Register("alice"))

    run(register())
    node.kill()
    node.start()

    async def again() -> State:
        return (await alice.dial(node)).state

    assert run(again()) is State.OPEN


def test_node_refuses_users_what_administrators_may(
    cluster: LocalCluster, owner: Any, person: Any, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open")

    async def scene() -> None:
        alice = await person().dial(node)
        await alice.call(access.Register())
        requests: list[Message] = [
            access.CreateInvitation(60),
            access.ListAccounts(),
            access.RevokeAccount(owner.key),
            access.RevokeAccount(os.urandom(32)),
        ]
        for request in requests:
            assert await code_of(alice.call(request)) is ErrorCode.NOT_PERMITTED

    run(scene())


def test_node_refuses_a_certificate_of_another_device_or_time(
    cluster: LocalCluster, owner: Any, run: Run
) -> None:
    node = cluster.start("data")
    thief = owner.another_device()
    thief.certificate = owner.certificate  # shows the owner's own certificate
    late = owner.another_device()
    expired = late.certificate(not_after=int(time.time()) - 301)
    late.certificate = lambda: expired

    async def scene(who: Any) -> None:
        await who.dial(node)

    for who in (thief, late):
        with pytest.raises(DialFailed, match="certificate"):
            run(scene(who))


@pytest.mark.parametrize("what", ["account", "device"])
def test_revocation_ends_an_idle_connection_and_stands_after_a_restart(
    cluster: LocalCluster, owner: Any, person: Any, run: Run, what: str
) -> None:
    node = cluster.start("data", "--registration", "open")
    alice = person()
    phone = alice.another_device()

    async def scene() -> None:
        admin, idle = await owner.dial(node), await alice.dial(node)
        await idle.call(access.Register())
        other = await phone.dial(node)
        began = time.monotonic()
        if what == "account":
            await admin.call(access.RevokeAccount(alice.key))
            await other.wait_closed()
        else:
            await admin.call(access.RevokeDevice(alice.key, alice.device.noise_public))
        await idle.wait_closed()
        assert time.monotonic() - began < WITHIN_S
        assert other.is_open is (what == "device")

    run(scene())
    node.kill()
    node.start()

    async def come_back() -> None:
        with pytest.raises(DialFailed, match="revoked"):
            await alice.dial(node)
        if what == "account":
            with pytest.raises(DialFailed, match="revoked"):
                await phone.dial(node)
        else:
            assert (await phone.dial(node)).state is State.OPEN

    run(come_back())


def test_account_revokes_its_own_device(cluster: LocalCluster, person: Any, run: Run) -> None:
    node = cluster.start("data", "--registration", "open")
    alice = person()

    async def scene() -> None:
        lost, kept = await alice.dial(node), await alice.another_device().dial(node)
        await lost.call(access.Register())
        kept = await alice.another_device().dial(node)
        await kept.call(access.RevokeDevice(alice.key, alice.device.noise_public))
        await lost.wait_closed()
        assert kept.is_open

    run(scene())


def test_revocation_ends_an_open_transfer(
    cluster: LocalCluster, owner: Any, person: Any, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open")
    alice = person()

    async def scene() -> None:
        admin, connection = await owner.dial(node), await alice.dial(node)
        await connection.call(access.Register())
        cid = await make_container(connection, alice, "c", key_of(node))
        await put(connection, cid, "big", os.urandom(8 << 20))
        answer = await connection.call(data.GetObject(cid, "big"))
        await anext(aiter(answer.body))  # the node waits for credit in the middle of it
        await admin.call(access.RevokeAccount(alice.key))
        with pytest.raises(AlpyneError):
            async with asyncio.timeout(WITHIN_S):
                await answer.body.read(8 << 20)

    run(scene())


@pytest.mark.parametrize("what", ["account", "device"])
def test_bearer_reads_with_a_ticket_until_who_signed_it_is_revoked(
    cluster: LocalCluster, owner: Any, person: Any, bearer: Bearer, run: Run, what: str
) -> None:
    node = cluster.start("data", "--registration", "open")
    alice = person()
    compute = NodeIdentity.create(os.urandom)

    async def scene() -> Ticket:
        admin, connection = await owner.dial(node), await alice.dial(node)
        await connection.call(access.Register())
        cid = await make_container(connection, alice, "c", key_of(node))
        await put(connection, cid, "a/b", b"hello")
        ticket: Ticket = alice.ticket(
            holder=compute.noise_public, audience=key_of(node), container=cid, prefix="a"
        )
        reader = await bearer(node, compute)
        await reader.call(access.ShowTicket(ticket.encode()))
        answer = await reader.call(data.GetObject(cid, "a/b", ticket=ticket.serial))
        assert await answer.body.read(100) == b"hello"
        revocations: dict[str, Message] = {
            "account": access.RevokeAccount(alice.key),
            "device": access.RevokeDevice(alice.key, alice.device.noise_public),
        }
        await admin.call(revocations[what])
        async with asyncio.timeout(WITHIN_S):
            await reader.wait_closed()
        return ticket

    ticket = run(scene())

    async def show_again() -> ErrorCode:
        return await code_of((await bearer(node, compute)).call(access.ShowTicket(ticket.encode())))

    assert run(show_again()) is ErrorCode.TICKET_INVALID
    node.kill()
    node.start()
    assert run(show_again()) is ErrorCode.TICKET_INVALID


def test_bearer_may_do_only_what_its_ticket_says(
    cluster: LocalCluster, person: Any, bearer: Bearer, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open")
    alice = person()
    compute = NodeIdentity.create(os.urandom)

    async def scene() -> None:
        connection = await alice.dial(node)
        await connection.call(access.Register())
        cid = await make_container(connection, alice, "c", key_of(node))
        other = await make_container(connection, alice, "other", key_of(node))
        await put(connection, cid, "a/b", b"hello")
        await put(connection, cid, "ab", b"secret")
        ticket = alice.ticket(
            holder=compute.noise_public, audience=key_of(node), container=cid, prefix="a"
        )
        reader = await bearer(node, compute)
        await reader.call(access.ShowTicket(ticket.encode()))
        serial = ticket.serial
        forbidden: list[Message] = [
            data.GetObject(cid, "ab", ticket=serial),
            data.GetObject(other, "a/b", ticket=serial),
            data.DeleteObject(cid, "a/b", 9, b"w" * 16, ticket=serial),
            data.ListObjects(cid, "a", ticket=serial),
            data.ListObjects(cid, "", ticket=serial),
        ]
        for request in forbidden:
            assert await code_of(reader.call(request)) is ErrorCode.NOT_PERMITTED
        with pytest.raises(RequestFailed, match="does not cover"):
            await put(reader, cid, "a/c", b"x", ticket=serial)
        unknown = data.GetObject(cid, "a/b", ticket=os.urandom(16))
        assert await code_of(reader.call(unknown)) is ErrorCode.TICKET_INVALID

    run(scene())


def test_ticket_is_refused_at_another_node_from_another_holder_and_expired(
    cluster: LocalCluster, person: Any, bearer: Bearer, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open")
    alice, stranger = person(), person()
    compute, other = NodeIdentity.create(os.urandom), NodeIdentity.create(os.urandom)

    async def scene() -> None:
        await (await alice.dial(node)).call(access.Register())
        here: dict[str, Any] = {"container": b"c" * 16, "audience": key_of(node)}
        held = {"holder": compute.noise_public}
        bad = [
            alice.ticket(holder=other.noise_public, **here),
            alice.ticket(**held, container=b"c" * 16, audience=os.urandom(32)),
            alice.ticket(**held, **here, not_after=int(time.time()) - 301),
            stranger.ticket(**held, **here),  # an account that is not registered here
        ]
        for ticket in bad:
            reader = await bearer(node, compute)
            shown = reader.call(access.ShowTicket(ticket.encode()))
            assert await code_of(shown) is ErrorCode.TICKET_INVALID
            assert reader.state is State.UNKNOWN
        good = alice.ticket(**held, **here, verbs=Verb.READ).encode()
        for at in range(0, len(good), 7):
            forged = bytearray(good)
            forged[at] ^= 1
            reader = await bearer(node, compute)
            shown = reader.call(access.ShowTicket(bytes(forged)))
            assert await code_of(shown) is ErrorCode.TICKET_INVALID

    run(scene())


def test_foreign_ids_answer_exactly_like_unknown_ones_at_a_data_node(
    cluster: LocalCluster, person: Any, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open")
    alice, mallory = person(), person()
    writer = b"w" * 16

    def requests(cid: bytes) -> list[Message]:
        return [
            data.GetContainer(cid),
            data.GetObject(cid, "x"),
            data.GetObject(cid, "nothing"),
            data.StatObject(cid, "x"),
            data.ListObjects(cid),
            data.DeleteObject(cid, "x", 9, writer),
        ]

    async def scene() -> None:
        hers, his = await alice.dial(node), await mallory.dial(node)
        await hers.call(access.Register())
        await his.call(access.Register())
        cid = await make_container(hers, alice, "c", key_of(node))
        await put(hers, cid, "x", b"hers")
        for foreign, unknown in zip(requests(cid), requests(b"u" * 16), strict=True):
            answers = []
            for request in (foreign, unknown):
                try:
                    answer = await his.call(request)
                    answers.append((answer.message, await answer.body.read(1000)))
                except RequestFailed as error:
                    answers.append((error.code, str(error).replace(("u" * 16).encode().hex(), "?")))
            assert str(answers[0]).replace(cid.hex(), "?") == str(answers[1])
        with pytest.raises(RequestFailed) as foreign_put:
            await put(his, cid, "x", b"his")
        with pytest.raises(RequestFailed) as unknown_put:
            await put(his, b"u" * 16, "x", b"his")
        assert foreign_put.value.code is unknown_put.value.code
        revoke = [access.RevokeDevice(key, b"d" * 32) for key in (alice.key, os.urandom(32))]
        texts = []
        for request in revoke:
            with pytest.raises(RequestFailed) as refused:
                await his.call(request)
            texts.append((refused.value.code, str(refused.value)))
        assert texts[0] == texts[1]
        answer = await hers.call(data.GetObject(cid, "x"))
        assert await answer.body.read(10) == b"hers"

    run(scene())


def test_administrator_lists_more_accounts_than_one_frame_holds(
    cluster: LocalCluster, owner: Any, person: Any, run: Run
) -> None:
    node = cluster.start("data", "--registration", "open")

    async def scene() -> None:
        people = [person() for _ in range(400)]
        for one in people:
            connection = await one.dial(node)
            await connection.call(access.Register("x" * 100))
            await connection.close()
        admin = await owner.dial(node)
        answer = await admin.call(access.ListAccounts())
        keys = {row.account async for row, _ in answer.body.rows(access.AccountRow)}
        assert keys == {owner.key, *(one.key for one in people)}

    run(scene())


def test_node_is_found_where_it_was_unless_the_port_is_taken(cluster: LocalCluster) -> None:
    node = cluster.start("data")
    first = node.address
    node.kill()
    node.launch()  # with --port 0, as before
    node.wait_ready()
    assert node.address == first
    node.kill()
    port = Address.parse(first).routes[0][1]
    with socket.create_server(("127.0.0.1", port)):
        node.launch()
        node.wait_ready()
    assert Address.parse(node.address).key == Address.parse(first).key
    assert node.address != first
