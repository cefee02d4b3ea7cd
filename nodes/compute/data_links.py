"""A compute node's connections to data nodes, opened for the jobs of one account.

Accounts share no connection: a ticket is named by its serial there, a revocation ends all of it,
and what one account says of a node's routes must not keep another one from it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from alpyne_grid.wire import Connection

from alpyne_proto.address import Address
from alpyne_proto.errors import AlpyneError, ConnectionLost
from alpyne_proto.messages.access import ShowTicket
from alpyne_proto.ticket import Ticket

AVOID_S = 5.0  # a node that could not be reached is asked last for so long
IDLE_S = 120.0  # an unused connection is closed after it
TICKETS_MAX = 1000  # shown on one connection, of which a data node takes 1,024; then another begins
DONE_CHECK_S = 0.5  # between looks whether a connection that is replaced has done its work

Dial = Callable[[Address], Awaitable[Connection]]


@dataclass(slots=True)
class _Link:
    dialled: asyncio.Task[Connection]
    shown: set[bytes] = field(default_factory=set)  # serials of tickets
    shows: int = 0  # begun, those on their way included

    @property
    def is_usable(self) -> bool:
        """Whether requests can be sent, or will be as soon as it is dialled."""
        if not self.dialled.done():
            return True
        if self.dialled.cancelled() or self.dialled.exception() is not None:
            return False
        connection = self.dialled.result()
        return connection.is_open and not connection.is_going_away


class DataLinks:
    """One connection per data node, dialled at its first use and closed when it idles."""

    def __init__(self, dial: Dial, host_label: str = "") -> None:
        """``dial`` makes one connection; ``host_label`` is this node's own."""
        self._dial = dial
        self._own_label = host_label
        self._open: dict[bytes, _Link] = {}
        self._labels: dict[bytes, str] = {}
        self._failed_s: dict[bytes, float] = {}
        self._used_s: dict[bytes, float] = {}
        self._busy: dict[bytes, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def connection(self, address: Address, ticket: Ticket) -> Connection:
        """Return a connection to a node that has seen ``ticket``.

        Raises ConnectionLost where it cannot be reached, RequestFailed where it refuses the ticket.
        """
        link = self._link(address)
        serial = ticket.serial
        if link.shows >= TICKETS_MAX and serial not in link.shown:
            del self._open[address.key]
            self._in_background(_close_when_done(link.dialled))
            link = self._link(address)
        is_new = serial not in link.shown
        link.shows += is_new
        connection = await asyncio.shield(link.dialled)  # others may wait for it too
        if is_new:
            await connection.call(ShowTicket(ticket.encode()))
            link.shown.add(serial)
        return connection

    async def ranked(self, addresses: Iterable[Address]) -> list[Address]:
        """Return data nodes in the order in which to try them.

        Those on this machine (same host label) come first, those that just failed last; else the
        order given stands.
        """
        known = list(addresses)
        if self._own_label and len(known) > 1:
            await self._learn_labels(known)
        now_s = asyncio.get_running_loop().time()

        def rank(address: Address) -> tuple[bool, bool]:
            failed = now_s - self._failed_s.get(address.key, -AVOID_S) < AVOID_S
            elsewhere = self._labels.get(address.key) != self._own_label
            return failed, bool(self._own_label) and elsewhere

        return sorted(known, key=rank)

    def use(self, key: bytes) -> None:
        """Keep the connection to a node open until ``unuse``."""
        self._busy[key] = self._busy.get(key, 0) + 1

    def unuse(self, key: bytes) -> None:
        """Let the connection idle, and in time end."""
        self._busy[key] -= 1
        loop = asyncio.get_running_loop()
        self._used_s[key] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(IDLE_S, self._hang_up)

    async def close(self) -> None:
        """Close all connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key in list(self._open):
            await self._close_one(key)
        for task in list(self._closing):
            task.cancel()

    def _link(self, address: Address) -> _Link:
        key = address.key
        link = self._open.get(key)
        if link is None or not link.is_usable:
            dialled = asyncio.get_running_loop().create_task(self._dial_once(address))
            dialled.add_done_callback(_note_error)
            link = self._open[key] = _Link(dialled)
        return link

    async def _dial_once(self, address: Address) -> Connection:
        key = address.key
        try:
            connection = await self._dial(address)
        except BaseException:
            self._failed_s[key] = asyncio.get_running_loop().time()
            raise
        self._failed_s.pop(key, None)
        self._labels[key] = getattr(connection.peer_hello, "host_label", "")
        return connection

    async def _learn_labels(self, addresses: list[Address]) -> None:
        """Dial the nodes that were never dialled: only then they say on which machine they are."""
        strangers = [
            address
            for address in addresses
            if address.key not in self._labels and address.key not in self._failed_s
        ]
        dials = [asyncio.shield(self._link(address).dialled) for address in strangers]
        await asyncio.gather(*dials, return_exceptions=True)

    def _hang_up(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for key, used_s in list(self._used_s.items()):
            if loop.time() - used_s >= IDLE_S and not self._busy.get(key):
                del self._used_s[key]
                self._in_background(self._close_one(key))
        if self._used_s:
            self._timer = loop.call_later(IDLE_S, self._hang_up)

    async def _close_one(self, key: bytes) -> None:
        link = self._open.pop(key, None)
        if link is None:
            return
        if not link.dialled.done():
            link.dialled.cancel()
        elif link.is_usable:
            await link.dialled.result().close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close_when_done(dialled: asyncio.Task[Connection]) -> None:
    """Close a connection that gets no more requests once those under way have ended."""
    with contextlib.suppress(AlpyneError, OSError):
        connection = await asyncio.shield(dialled)
        try:
            while connection.has_work:  # noqa: ASYNC110 - nobody tells of the last one
                await asyncio.sleep(DONE_CHECK_S)
        finally:
            connection.close_nowait()


def _note_error(task: asyncio.Task[Connection]) -> None:
    """Take the error of a dial whose every waiter was cancelled: nobody else will."""
    if not task.cancelled():
        task.exception()


def is_of_the_way(error: BaseException) -> bool:
    """Say whether an error lies in reaching a node, so that trying again may help."""
    if isinstance(error, ConnectionLost | TimeoutError):
        return True
    return isinstance(error, AlpyneError) and bool(getattr(error, "retryable", False))
