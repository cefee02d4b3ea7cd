"""Objects of running jobs: the daemon's side of the worker's ReadObject and WriteObject.

    worker --ReadObject--> daemon --GetObject, under a ticket of that job--> data node
                                   `--> the next holder, where one is lost, refuses or is corrupt

The daemon keeps the connections and the tickets; a worker gets neither. A ticket is used only for
the job that it names, which must belong to the account that signed it: an account could otherwise
have this node act under a ticket of another one.

A written object is a version (counter, writer) with counter = allocation << 32 | attempt and writer
= the first 16 bytes of SHA-256(context + job id): a later execution of the job
writes a higher version, and the same one is never written twice with other bytes. It goes to the
audiences of the job's WRITE ticket in their order, to as many as copies are asked for; the others
are spares for those that fail.

Source: spec/PROTOCOL.md, "Compute", "Objects of jobs".
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from tempfile import SpooledTemporaryFile
from typing import IO

from alpyne_grid.nodes.compute.backends.base import Task, TaskObjects
from alpyne_grid.nodes.compute.data_links import DataLinks, Dial, is_of_the_way
from alpyne_grid.wire import Connection, FileBody, Log, dial

from alpyne_proto.address import Address, key_to_text
from alpyne_proto.errors import (
    AddressError,
    AlpyneError,
    ConnectionLost,
    ErrorCode,
    RequestFailed,
    TicketInvalid,
)
from alpyne_proto.keys import NodeIdentity
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.messages.data import GetObject, ObjectInfo, PutObject
from alpyne_proto.messages.hello import DiallerHello
from alpyne_proto.messages.worker import (
    OBJECT_PIECE,
    ObjectFollows,
    ObjectWritten,
    ReadObject,
    WriteObject,
)
from alpyne_proto.registry import Role
from alpyne_proto.ticket import Ticket, Verb

DIAL_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 20.0  # for an answer to begin; a connection without life ends by itself
ROUND_PAUSES_S = (0.2, 1.0, 3.0)  # before all holders are tried again
SPOOL_MEMORY = 8 << 20  # bytes of a written object that are kept in memory, not in a file
_CONTEXT = b"alpyne job writer v1\x00"

_Failures = list[tuple[Address, Exception]]


def make_objects(identity: NodeIdentity, *, host_label: str = "") -> "ObjectService":
    """Return the objects of a compute node with ``identity``, on the machine ``host_label``."""
    hello = DiallerHello(int(Role.NODE), os.urandom(16), b"", host_label=host_label)

    async def dial_node(address: Address) -> Connection:
        return await dial(address, identity=identity, hello=hello, timeout_s=DIAL_TIMEOUT_S)

    return ObjectService(dial_node, identity.noise_public, host_label=host_label)


class ObjectService:
    """Opens the objects of executions over connections that the jobs of one account share."""

    def __init__(
        self,
        dial_node: Dial,
        own_key: bytes,
        *,
        host_label: str = "",
        pauses_s: Sequence[float] = ROUND_PAUSES_S,
    ) -> None:
        """``own_key``: this node's static key, the holder that tickets must name."""
        self._dial_node = dial_node
        self._host_label = host_label
        self._links: dict[bytes, DataLinks] = {}  # by account
        self._own_key = own_key
        self._pauses_s = pauses_s
        self._log = Log("compute.objects")

    def open(self, task: Task) -> "JobObjects":
        """Return the objects of ``task``; nothing is dialled before the first use."""
        log = self._log.bind(job=task.execution.job_id)
        links = self.links_of(task.execution.account)
        return JobObjects(links, task, self._own_key, self._pauses_s, log)

    def links_of(self, account: bytes) -> DataLinks:
        """Return the connections that serve the jobs of ``account`` alone."""
        links = self._links.get(account)
        if links is None:
            links = self._links[account] = DataLinks(self._dial_node, self._host_label)
        return links

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(links.close() for links in self._links.values()))


class JobObjects(TaskObjects):
    """Reads and writes under the tickets of one execution."""

    def __init__(
        self, links: DataLinks, task: Task, own_key: bytes, pauses_s: Sequence[float], log: Log
    ) -> None:
        self.read_bytes = 0
        self.written_bytes = 0
        self.failovers = 0
        self._links = links
        self._execution = task.execution
        self._folder = task.folder.parent  # in the state folder, as everything that a node writes
        self._pauses_s = pauses_s
        self._log = log
        self._addresses = _addresses(task.data_nodes)
        self._tickets = [
            ticket
            for ticket in map(_parsed, task.tickets)
            if ticket is not None
            and ticket.holder == own_key
            and ticket.job == task.execution.job_id
            and ticket.account == task.execution.account
        ]

    async def read(self, order: ReadObject) -> tuple[ObjectFollows, bytes]:
        """Return at most OBJECT_PIECE bytes of an object from the first holder that has them.

        Raises RequestFailed: NOT_PERMITTED where no ticket covers the object, CORRUPT where all
        that have it were avoided, else what the last holder said.
        """
        ticket, nodes = self._nodes(order, Verb.READ)
        holders = [node for node in nodes if node.key in order.holders] or nodes
        left = [node for node in holders if node.key not in order.avoid]
        if not left:
            raise RequestFailed(
                ErrorCode.CORRUPT, "every data node that has the object sent damaged bytes"
            )
        failures: _Failures = []
        for pause_s in (0.0, *self._pauses_s):
            await asyncio.sleep(pause_s)
            for node in await self._links.ranked(left):
                try:
                    found = await self._get(node, ticket, order)
                except (AlpyneError, OSError) as error:
                    failures.append((node, error))
                    self._log.info("read_failed_at", node=key_to_text(node.key)[:8], error=error)
                else:
                    self._count_read(len(found[1]), failed_over=bool(failures or order.avoid))
                    return found
            if not any(is_of_the_way(error) for _, error in failures[-len(left) :]):
                break
        raise _all_failed("read", failures)

    async def write(self, order: WriteObject, body: AsyncIterator[bytes]) -> ObjectWritten:
        """Write the body to as many data nodes as the order asks; all at once, spares after.

        Raises RequestFailed: NOT_PERMITTED where no ticket covers the object, FENCED where a later
        execution of the job has written, else why too few nodes have it.
        """
        ticket, nodes = self._nodes(order, Verb.WRITE)
        copies = min(order.copies or len(nodes), len(ticket.audiences))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with SpooledTemporaryFile(max_size=SPOOL_MEMORY, dir=str(self._folder)) as spool:
            sha256 = await _spooled(body, order.size, spool)
            put = self._put_of(order, ticket)
            holders: list[bytes] = []
            failures: _Failures = []
            waiting = list(nodes)
            while len(holders) < copies and waiting:
                batch = waiting[: copies - len(holders)]
                del waiting[: len(batch)]
                puts = (self._put(node, ticket, put, spool, sha256) for node in batch)
                results = await asyncio.gather(*puts, return_exceptions=True)
                for node, result in zip(batch, results, strict=True):
                    if isinstance(result, (AlpyneError, OSError)):
                        failures.append((node, result))
                    elif isinstance(result, BaseException):
                        raise result
                    else:
                        holders.append(node.key)
        if len(holders) < copies or not holders:
            raise _all_failed(f"written to {len(holders)} of {copies} data nodes", failures)
        self.written_bytes += order.size
        return ObjectWritten(put.counter, put.writer, order.size, sha256, tuple(holders))

    def close(self) -> None:
        """Forget the tickets: the execution is over."""
        self._tickets.clear()

    # ---- parts ----

    def _nodes(self, order: ReadObject | WriteObject, verb: Verb) -> tuple[Ticket, list[Address]]:
        """Return the ticket for ``verb`` on the object, and its audiences that can be dialled."""
        for ticket in self._tickets:
            if ticket.permits(verb, order.container_id, order.path):
                found = (self._addresses.get(key) for key in ticket.audiences)
                return ticket, [address for address in found if address is not None]
        raise RequestFailed(
            ErrorCode.NOT_PERMITTED,
            f"no ticket of this job covers {verb.name} of it; name the object or its container "
            "when the job is submitted",
        )

    async def _get(
        self, node: Address, ticket: Ticket, order: ReadObject
    ) -> tuple[ObjectFollows, bytes]:
        self._links.use(node.key)
        try:
            connection = await self._links.connection(node, ticket)
            request = GetObject(
                container_id=order.container_id,
                path=order.path,
                counter=order.counter,
                writer=order.writer,
                offset=order.offset,
                length=min(order.length, OBJECT_PIECE),
                ticket=ticket.serial,
            )
            answer = await connection.call(request, timeout_s=ANSWER_TIMEOUT_S)
            info = answer.message
            assert isinstance(info, ObjectInfo), "the registry names the answer"
            data = await answer.body.read(OBJECT_PIECE)
        finally:
            self._links.unuse(node.key)
        return ObjectFollows(info.size, info.sha256, node.key, info.counter, info.writer), data

    def _put_of(self, order: WriteObject, ticket: Ticket) -> PutObject:
        execution = self._execution
        return PutObject(
            container_id=order.container_id,
            path=order.path,
            counter=execution.allocation << 32 | execution.attempt,
            writer=hashlib.sha256(_CONTEXT + execution.job_id).digest()[:16],
            size=order.size,
            ticket=ticket.serial,
            job_id=execution.job_id,
            allocation=execution.allocation,
            attempt=execution.attempt,
        )

    async def _put(
        self, node: Address, ticket: Ticket, put: PutObject, spool: IO[bytes], sha256: bytes
    ) -> None:
        self._links.use(node.key)
        try:
            connection = await self._links.connection(node, ticket)
            body = FileBody(spool.fileno(), length=put.size) if put.size > SPOOL_MEMORY else None
            in_memory = b""
            if body is None:
                spool.seek(0)
                in_memory = spool.read()
            await connection.call(
                put, in_memory if body is None else body, trailer=lambda: BodyDigest(sha256)
            )
        finally:
            self._links.unuse(node.key)

    def _count_read(self, size: int, *, failed_over: bool) -> None:
        self.read_bytes += size
        if failed_over:
            self.failovers += 1
            self._log.info("read_failed_over", size=size)


async def _spooled(body: AsyncIterator[bytes], size: int, spool: IO[bytes]) -> bytes:
    """Write the whole body into ``spool`` and return its SHA-256; it must have ``size`` bytes."""
    hashed = hashlib.sha256()
    got = 0
    async for data in body:
        got += len(data)
        if got > size:
            break
        hashed.update(data)
        spool.write(data)
    if got != size:
        raise RequestFailed(ErrorCode.BAD_REQUEST, f"expected {size} bytes of body, got {got}")
    spool.flush()
    return hashed.digest()


def _addresses(texts: Sequence[str]) -> dict[bytes, Address]:
    found = {}
    for text in texts:
        try:
            address = Address.parse(text)
        except AddressError:
            continue  # the manager's mistake; what needs it says that it cannot be reached
        found[address.key] = address
    return found


def _parsed(data: bytes) -> Ticket | None:
    try:
        return Ticket.parse(data)
    except TicketInvalid:
        return None


def _all_failed(what: str, failures: _Failures) -> AlpyneError:
    """Return one error for all nodes that failed, with the code that says most."""
    if not failures:
        return RequestFailed(
            ErrorCode.NOT_PERMITTED, "none of the ticket's data nodes has an address in the job"
        )
    codes = [getattr(error, "code", ErrorCode.INTERNAL) for _, error in failures]
    told = {node.key: f"{key_to_text(node.key)[:8]}: {error}" for node, error in failures}
    text = f"{what}: " + "; ".join(told.values())
    if ErrorCode.FENCED in codes:
        return RequestFailed(ErrorCode.FENCED, text)
    if all(isinstance(error, ConnectionLost | OSError) for _, error in failures):
        return ConnectionLost(text)
    asked = [code for (_, error), code in zip(failures, codes, strict=True)
             if isinstance(error, RequestFailed)]  # fmt: skip
    return RequestFailed(asked[-1] if asked else ErrorCode.INTERNAL, text)
