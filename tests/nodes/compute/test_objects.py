"""Objects of jobs: read and written at real data nodes, under tickets, by way of a compute node."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes import access
from alpyne_grid.nodes.compute import data_links
from alpyne_grid.nodes.compute.backends.base import Execution, Task
from alpyne_grid.nodes.compute.objects import JobObjects, ObjectService, make_objects
from alpyne_grid.nodes.config import NodeConfig, Registration
from alpyne_grid.nodes.data.node import DataNode
from alpyne_grid.wire import Connection, dial

from alpyne_proto.address import Address
from alpyne_proto.certificate import Certificate
from alpyne_proto.container import container_id
from alpyne_proto.errors import AlpyneError, ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.keys import DeviceIdentity, NodeIdentity, SigningKey
from alpyne_proto.messages.compute import JobForm, ResultCodec
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.messages.data import PutContainer, PutObject, StatObject
from alpyne_proto.messages.hello import DiallerHello, NodeKind
from alpyne_proto.messages.worker import OBJECT_PIECE, ReadObject, WriteObject
from alpyne_proto.ticket import Ticket, Verb

JOB = b"j" * 16
WRITER = b"w" * 16
NO_PAUSES = ()


class Account:
    """An account with a device."""

    def __init__(self) -> None:
        self.signing = SigningKey.create(os.urandom)
        self.device = DeviceIdentity.create(os.urandom)
        self.container = container_id(self.signing.public, "box")
        self.certificate = Certificate.issue(
            self.signing,
            serial=1,
            noise_key=self.device.noise_public,
            signing_key=self.device.signing.public,
            not_after=int(time.time()) + 86_400,
        )

    async def dial(self, node: DataNode) -> Connection:
        hello = DiallerHello(1, os.urandom(16), self.certificate.encode())
        return await dial(node.address, identity=self.device, hello=hello)


class Site:
    """Data nodes in this process, one account, and a compute node's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = Account()
        self.compute = NodeIdentity.create(os.urandom)
        self.nodes: list[DataNode] = []

    async def start_node(self, label: str = "") -> DataNode:
        state = self.folder / f"data{len(self.nodes)}"
        config = NodeConfig(
            kind=NodeKind.DATA,
            state=state,
            owners=(self.owner.signing.public,),
            backend="local",
            registration=Registration.OPEN,
            host_label=label,
        )
        node = DataNode(config.validated())
        await node.start()
        self.nodes.append(node)
        connection = await self.owner.dial(node)
        await connection.call(
            PutContainer(self.owner.container, "box", 1, (node.address.key,), 1, WRITER)
        )
        await connection.close()
        return node

    async def put(self, node: DataNode, path: str, data: bytes) -> None:
        connection = await self.owner.dial(node)
        order = PutObject(self.owner.container, path, 1, WRITER, len(data))
        digest = hashlib.sha256(data).digest()
        await connection.call(order, data, trailer=lambda: BodyDigest(digest))
        await connection.close()

    async def counter(self, node: DataNode, path: str) -> int:
        """The version of an object that a node has."""
        connection = await self.owner.dial(node)
        info = (await connection.call(StatObject(self.owner.container, path))).message
        await connection.close()
        found: int = info.counter  # type: ignore[attr-defined]
        return found

    def ticket(self, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "serial": os.urandom(16),
            "holder": self.compute.noise_public,
            "audiences": tuple(node.address.key for node in self.nodes),
            "container": self.owner.container,
            "verbs": Verb.READ | Verb.WRITE,
            "job": JOB,
            "allocation": 3,
            "not_after": int(time.time()) + 3600,
        }
        signer = changes.pop("signer", self.owner)
        ticket = Ticket.issue(signer.device, signer.certificate, **{**fields, **changes})
        return ticket.encode()

    def task(self, *tickets: bytes, **changes: Any) -> Task:
        execution = Execution(self.owner.signing.public, JOB, 3, 2)._replace(**changes)
        return Task(
            execution,
            JobForm.CALL,
            ResultCodec.PICKLE,
            self.folder / "work" / "1",
            b"",
            tickets=tickets or (self.ticket(),),
            data_nodes=tuple(str(node.address) for node in self.nodes),
        )

    def read_order(self, path: str, **more: Any) -> ReadObject:
        return ReadObject(self.owner.container, path, **more)

    def write_order(self, path: str, size: int, copies: int = 0) -> WriteObject:
        return WriteObject(self.owner.container, path, size, copies)


@asynccontextmanager
async def site_of(
    folder: Path, labels: tuple[str, ...] = ("", ""), own_label: str = ""
) -> AsyncIterator[tuple[Site, ObjectService]]:
    """A site with a data node for each label, and the objects of its compute node."""
    site = Site(folder)
    async with AsyncExitStack() as stack:
        for label in labels:
            node = await site.start_node(label)
            stack.push_async_callback(node.close)
        service = make_objects(site.compute, host_label=own_label)
        service._pauses_s = NO_PAUSES
        stack.push_async_callback(service.close)
        yield site, service


async def body_of(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


async def refusal(asked: Awaitable[Any]) -> AlpyneError:
    """The error that a read or write ends with."""
    with pytest.raises(AlpyneError) as caught:
        await asked
    return caught.value


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


def test_job_reads_an_object_whole_and_in_ranges(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            data = os.urandom(OBJECT_PIECE + 1000)
            await site.put(site.nodes[0], "a/b", data)
            objects = service.open(site.task())
            follows, piece = await objects.read(site.read_order("a/b", counter=1, writer=WRITER))
            assert piece == data[:OBJECT_PIECE]
            assert follows.size == len(data)
            assert follows.sha256 == hashlib.sha256(data).digest()
            assert follows.holder == site.nodes[0].address.key
            order = site.read_order("a/b", counter=1, writer=WRITER, offset=OBJECT_PIECE)
            assert (await objects.read(order))[1] == data[OBJECT_PIECE:]
            assert (objects.read_bytes, objects.failovers) == (len(data), 0)

    run(test)


def test_read_goes_on_at_the_next_holder_when_one_is_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            for node in site.nodes:
                await site.put(node, "a", b"data")
            objects = service.open(site.task())
            await objects.read(site.read_order("a"))
            await site.nodes[0].close()
            for _ in range(2):  # the second one asks the lost node last, and waits for nothing
                follows, data = await objects.read(site.read_order("a"))
                assert (follows.holder, data) == (site.nodes[1].address.key, b"data")
            assert objects.failovers == 1

    run(test)


def test_read_goes_on_at_the_next_holder_when_one_has_not_the_object(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            await site.put(site.nodes[1], "a", b"data")
            objects = service.open(site.task())
            assert (await objects.read(site.read_order("a")))[1] == b"data"
            assert objects.failovers == 1

    run(test)


def test_read_goes_on_at_the_next_holder_when_one_is_corrupt(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            data = os.urandom(300_000)
            for node in site.nodes:
                await site.put(node, "a", data)
            blobs = [p for p in (tmp_path / "data0").rglob("*") if p.is_file()]
            (blob,) = [p for p in blobs if p.stat().st_size == len(data)]
            blob.chmod(0o600)
            blob.write_bytes(os.urandom(len(data)))
            objects = service.open(site.task())
            follows, read = await objects.read(site.read_order("a"))
            assert follows.holder == site.nodes[1].address.key
            assert read == data
            assert objects.failovers == 1

    run(test)


def test_read_avoids_holders_that_sent_damaged_bytes(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            for node in site.nodes:
                await site.put(node, "a", b"data")
            first, second = (node.address.key for node in site.nodes)
            objects = service.open(site.task())
            follows, _ = await objects.read(site.read_order("a", avoid=(first,)))
            assert follows.holder == second
            assert objects.failovers == 1
            error = await refusal(objects.read(site.read_order("a", avoid=(first, second))))
            assert error.code is ErrorCode.CORRUPT

    run(test)


def test_read_asks_only_the_holders_that_the_job_names(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            for node in site.nodes:
                await site.put(node, "a", b"data")
            second = site.nodes[1].address.key
            objects = service.open(site.task())
            follows, _ = await objects.read(site.read_order("a", holders=(second,)))
            assert follows.holder == second
            assert objects.failovers == 0

    run(test)


def test_read_prefers_the_data_node_on_the_same_machine(tmp_path: Path) -> None:
    async def test() -> None:
        labels = ("east", "west", "north")
        async with site_of(tmp_path, labels, own_label="west") as (site, service):
            for node in site.nodes:
                await site.put(node, "a", b"data")
            objects = service.open(site.task())
            follows, _ = await objects.read(site.read_order("a"))
            assert follows.holder == site.nodes[1].address.key
            assert objects.failovers == 0

    run(test)


def test_read_says_not_found_when_no_holder_has_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            error = await refusal(service.open(site.task()).read(site.read_order("missing")))
            assert error.code is ErrorCode.NOT_FOUND
            assert str(error).count("missing") == 2

    run(test)


def test_read_is_lost_when_no_holder_can_be_reached(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            task = site.task()
            for node in site.nodes:
                await node.close()
            error = await refusal(service.open(task).read(site.read_order("a")))
            assert isinstance(error, ConnectionLost)

    run(test)


def test_read_tries_all_again_when_nodes_may_come_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"data")
            service._pauses_s = (0.01,)
            dialled = []
            real_dial = service._dial_node

            async def fail_once(address: Any) -> Connection:
                dialled.append(address)
                if len(dialled) == 1:
                    raise ConnectionLost("it restarts")
                return await real_dial(address)

            service._dial_node = fail_once
            assert (await service.open(site.task()).read(site.read_order("a")))[1] == b"data"
            assert len(dialled) == 2

    run(test)


@pytest.mark.parametrize(
    "changes",
    [
        {"verbs": Verb.WRITE},
        {"container": b"o" * 16},
        {"prefix": "other"},
        {"job": b"o" * 16},
        {"holder": b"o" * 32},
        {"signer": Account()},
    ],
    ids=["verb", "container", "prefix", "another job", "another node", "another account"],
)
def test_read_is_refused_here_when_no_ticket_of_the_job_covers_it(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"data")
            objects = service.open(site.task(site.ticket(**changes), b"no ticket at all"))
            error = await refusal(objects.read(site.read_order("a")))
            assert error.code is ErrorCode.NOT_PERMITTED
            assert "no ticket of this job" in str(error)

    run(test)


def test_read_is_refused_by_the_data_node_when_the_ticket_has_expired(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"data")
            objects = service.open(site.task(site.ticket(not_after=1)))
            error = await refusal(objects.read(site.read_order("a")))
            assert error.code is ErrorCode.TICKET_INVALID

    run(test)


def test_read_is_refused_when_the_execution_is_over(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"data")
            objects = service.open(site.task())
            objects.close()
            error = await refusal(objects.read(site.read_order("a")))
            assert error.code is ErrorCode.NOT_PERMITTED

    run(test)


@pytest.mark.parametrize("size", [0, 10, 300_000, 9 << 20])
def test_write_lies_on_all_data_nodes_of_the_ticket(tmp_path: Path, size: int) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            data = os.urandom(size)
            objects = service.open(site.task())
            written = await objects.write(site.write_order("out/x", size), body_of(data))
            assert written.holders == tuple(node.address.key for node in site.nodes)
            assert written.counter == 3 << 32 | 2
            assert (written.size, written.sha256) == (size, hashlib.sha256(data).digest())
            assert objects.written_bytes == size
            for key in written.holders:
                order = site.read_order("out/x", holders=(key,), counter=written.counter,
                                        writer=written.writer)  # fmt: skip
                assert (await objects.read(order))[1] == data[:OBJECT_PIECE]
            assert not [p for p in (tmp_path / "work").iterdir() if p.is_file()]

    run(test)


def test_write_takes_a_spare_node_when_one_is_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("", "", "")) as (site, service):
            task = site.task()
            await site.nodes[0].close()
            objects = service.open(task)
            written = await objects.write(site.write_order("x", 4, copies=2), body_of(b"data"))
            assert written.holders == tuple(node.address.key for node in site.nodes[1:])

    run(test)


def test_write_fails_naming_how_many_have_it_when_too_few_can(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path) as (site, service):
            task = site.task()
            await site.nodes[0].close()
            objects = service.open(task)
            error = await refusal(objects.write(site.write_order("x", 4), body_of(b"data")))
            assert "written to 1 of 2 data nodes" in str(error)

    run(test)


def test_write_is_fenced_when_a_later_execution_has_written(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            late = service.open(site.task())
            later = service.open(site.task(site.ticket(allocation=4), allocation=4, attempt=1))
            await later.write(site.write_order("x", 3), body_of(b"new"))
            error = await refusal(late.write(site.write_order("x", 3), body_of(b"old")))
            assert error.code is ErrorCode.FENCED
            assert await site.counter(site.nodes[0], "x") == 4 << 32 | 1

    run(test)


def test_write_is_refused_when_its_body_is_not_as_long_as_said(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            objects = service.open(site.task())
            for size in (3, 5):
                error = await refusal(objects.write(site.write_order("x", size), body_of(b"data")))
                assert error.code is ErrorCode.BAD_REQUEST
            assert await site.counter(site.nodes[0], "x") == 0

    run(test)


def test_jobs_share_a_connection_which_closes_when_it_idles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.setattr(data_links, "IDLE_S", 0.05)
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"data")
            jobs: list[JobObjects] = [service.open(site.task()) for _ in range(5)]
            await asyncio.gather(*(job.read(site.read_order("a")) for job in jobs))
            (link,) = service.links_of(site.owner.signing.public)._open.values()
            connection = link.dialled.result()
            assert connection.is_open
            await asyncio.wait_for(_closed(connection), 5)
            assert (await jobs[0].read(site.read_order("a")))[1] == b"data"

    run(test)


async def _closed(connection: Connection) -> None:
    while connection.is_open:
        await asyncio.sleep(0.01)


def test_error_of_a_data_node_says_which_node_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            error = await refusal(service.open(site.task()).read(site.read_order("missing")))
            assert isinstance(error, RequestFailed)
            assert str(site.nodes[0].address).partition("#")[2][:8] in str(error)

    run(test)


def test_job_gets_nothing_by_a_ticket_that_another_account_has_shown(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"secret")
            ticket = site.ticket()
            await service.open(site.task(ticket)).read(site.read_order("a"))
            thief = Account()
            # A data node that was shown the ticket knows its serial; the thief's signature is good.
            forged = site.ticket(signer=thief, serial=Ticket.parse(ticket).serial)
            theft = service.open(site.task(forged, account=thief.signing.public))
            error = await refusal(theft.read(site.read_order("a")))
            assert isinstance(error, RequestFailed)
            assert error.code is ErrorCode.TICKET_INVALID

    run(test)


def test_account_cannot_spoil_the_way_of_another_one_to_a_data_node(tmp_path: Path) -> None:
    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"data")
            real_dial, never = service._dial_node, asyncio.Event()

            async def dial_node(address: Any) -> Connection:
                if address.routes == wrong.routes:
                    await never.wait()
                return await real_dial(address)

            service._dial_node = dial_node
            other = Account()
            wrong = Address((("192.0.2.1", 9),), site.nodes[0].address.key)
            task = site.task(site.ticket(signer=other), account=other.signing.public)
            spoiled = service.open(replace(task, data_nodes=(str(wrong),)))
            waiting = asyncio.ensure_future(spoiled.read(site.read_order("a")))
            await asyncio.sleep(0)
            objects = service.open(site.task())
            assert (await asyncio.wait_for(objects.read(site.read_order("a")), 5))[1] == b"data"
            waiting.cancel()

    run(test)


def test_more_jobs_than_a_connection_takes_tickets_read_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "TICKETS_PER_CONNECTION", 4)
    monkeypatch.setattr(data_links, "TICKETS_MAX", 3)

    async def test() -> None:
        async with site_of(tmp_path, ("",)) as (site, service):
            await site.put(site.nodes[0], "a", b"data")
            jobs = [service.open(site.task()) for _ in range(10)]
            for job in jobs:
                assert (await job.read(site.read_order("a")))[1] == b"data"
            await asyncio.gather(*(job.read(site.read_order("a")) for job in jobs))

    run(test)


def test_compute_node_shows_fewer_tickets_than_a_data_node_takes() -> None:
    assert data_links.TICKETS_MAX < access.TICKETS_PER_CONNECTION
