"""Bearers of tickets at a data node: only its verbs on its subject, only as its job."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from alpyne_grid.wire import Connection, dial

from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.keys import NodeIdentity
from alpyne_proto.messages import data as m
from alpyne_proto.messages.access import ShowTicket
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.messages.hello import DiallerHello
from alpyne_proto.registry import Message
from alpyne_proto.ticket import Ticket, Verb

WRITER = b"w" * 16
JOB = b"j" * 16
ALL = Verb.READ | Verb.WRITE | Verb.LIST


@dataclass
class Bearer:
    """A compute node's connection with one ticket."""

    connection: Connection
    box: bytes
    serial: bytes

    async def put(self, path: str, counter: int, **more: Any) -> Message:
        job = {"job_id": JOB, "allocation": 1, "attempt": 1, "ticket": self.serial, **more}
        message = m.PutObject(self.box, path, counter, WRITER, 1, **job)
        digest = BodyDigest(hashlib.sha256(b"x").digest())
        return (await self.connection.call(message, b"x", trailer=lambda: digest)).message

    async def delete(self, path: str, counter: int) -> Message:
        job = {"job_id": JOB, "allocation": 1, "attempt": 1, "ticket": self.serial}
        message = m.DeleteObject(self.box, path, counter, WRITER, **job)
        return (await self.connection.call(message)).message

    async def get(self, path: str) -> bytes:
        answer = await self.connection.call(m.GetObject(self.box, path, ticket=self.serial))
        return await answer.body.read()

    async def stat(self, path: str) -> Message:
        return (
            await self.connection.call(m.StatObject(self.box, path, ticket=self.serial))
        ).message

    async def list(self, prefix: str = "") -> list[str]:
        message = m.ListObjects(self.box, prefix, ticket=self.serial)
        answer = await self.connection.call(message)
        return [row.path async for row, _ in answer.body.rows()]  # type: ignore[attr-defined]


async def code_of(pending: Awaitable[object]) -> ErrorCode:
    with pytest.raises(RequestFailed) as caught:
        await pending
    return caught.value.code


Bearing = Callable[..., Any]


@pytest.fixture
def bearing() -> Bearing:
    """Return a maker of bearers."""

    @asynccontextmanager
    async def make(
        node: Any, client: Any, verbs: Verb = ALL, prefix: str = "", allocation: int = 1
    ) -> AsyncIterator[Bearer]:
        holder = NodeIdentity.create(os.urandom)
        user = client.user
        ticket = Ticket.issue(
            user.device,
            user.certificate,
            serial=os.urandom(16),
            holder=holder.noise_public,
            audiences=(node.node.address.key,),
            container=client.container,
            verbs=verbs,
            job=JOB,
            allocation=allocation,
            not_after=int(time.time()) + 60,
            prefix=prefix,
        )
        hello = DiallerHello(roles=2, run_id=os.urandom(16), certificate=b"")
        connection = await dial(node.node.address, identity=holder, hello=hello)
        try:
            await connection.call(ShowTicket(ticket.encode()))
            yield Bearer(connection, client.container, ticket.serial)
        finally:
            await connection.close()

    return make


async def test_bearer_acts_for_the_account_when_its_ticket_allows(
    site: Any, bearing: Bearing
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("a", b"1")
        async with bearing(node, client) as bearer:
            assert await bearer.get("a") == b"1"
            await bearer.put("b", 1)
            assert await bearer.list() == ["a", "b"]
            await bearer.delete("a", 2)
        assert await client.get("b") == b"x"
        assert (await client.stat("a")).deleted
        assert node.node.driver.table.used_bytes(client.user.key) == 2


@pytest.mark.parametrize("verbs", [Verb.READ, Verb.WRITE, Verb.LIST])
async def test_bearer_is_refused_what_its_verbs_do_not_allow(
    site: Any, bearing: Bearing, verbs: Verb
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        await client.put("a", b"1")
        async with bearing(node, client, verbs) as bearer:
            asked: list[tuple[Verb, Awaitable[object]]] = [
                (Verb.READ, bearer.get("a")),
                (Verb.READ, bearer.stat("a")),
                (Verb.WRITE, bearer.put("b", 1)),
                (Verb.WRITE, bearer.delete("c", 1)),
                (Verb.LIST, bearer.list()),
            ]
            for needed, pending in asked:
                if needed & verbs:
                    await pending
                else:
                    assert await code_of(pending) is ErrorCode.NOT_PERMITTED


async def test_bearer_sees_and_reaches_only_what_its_prefix_covers(
    site: Any, bearing: Bearing
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        for path in ("in/a", "in/b/c", "inside", "out"):
            await client.put(path, b"1")
        async with bearing(node, client, prefix="in") as bearer:
            assert await bearer.list("in") == ["in/a", "in/b/c"]
            assert await bearer.list("in/b") == ["in/b/c"]
            assert await bearer.get("in/a") == b"1"
            for pending in (bearer.get("inside"), bearer.get("out"), bearer.put("x", 1)):
                assert await code_of(pending) is ErrorCode.NOT_PERMITTED
            for listed in (bearer.list(), bearer.list("i"), bearer.list("inside")):
                assert await code_of(listed) is ErrorCode.NOT_PERMITTED


async def test_bearer_is_refused_in_another_container(site: Any, bearing: Bearing) -> None:
    async with site() as node, node.client() as client:
        await client.create("other")
        other = client.container
        await client.put("a", b"1")
        await client.create()
        async with bearing(node, client) as bearer:
            bearer.box = other
            assert await code_of(bearer.get("a")) is ErrorCode.NOT_PERMITTED
            bearer.box = b"?" * 16
            assert await code_of(bearer.get("a")) is ErrorCode.NOT_PERMITTED


@pytest.mark.parametrize("claim", [{"job_id": b"k" * 16}, {"job_id": b""}, {"allocation": 2}])
async def test_bearer_writes_only_as_the_job_of_its_ticket(
    site: Any, bearing: Bearing, claim: dict[str, Any]
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        async with bearing(node, client) as bearer:
            assert await code_of(bearer.put("a", 1, **claim)) is ErrorCode.NOT_PERMITTED


async def test_node_fences_the_earlier_execution_of_a_job_also_after_a_restart(
    site: Any, bearing: Bearing
) -> None:
    async with site() as node, node.client() as client:
        await client.create()
        box = client.container
        async with bearing(node, client) as first:
            await first.put("a", 1)
            async with bearing(node, client, allocation=2) as second:
                await second.put("b", 1, allocation=2)
            assert await code_of(first.put("a", 2)) is ErrorCode.FENCED
            assert await code_of(first.delete("a", 2)) is ErrorCode.FENCED
    async with site() as node, node.client() as client:
        client.container = box
        async with bearing(node, client) as late, bearing(node, client, allocation=2) as second:
            assert await code_of(late.put("a", 2, attempt=9)) is ErrorCode.FENCED
            await second.put("b", 2, allocation=2)
            await second.put("b", 3, allocation=2, attempt=2)
            assert await code_of(second.put("b", 4, allocation=2)) is ErrorCode.FENCED
        await client.put("a", b"the account itself is not fenced", 3)
