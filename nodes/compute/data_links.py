"""A compute node's connections to data nodes, opened for jobs and shared by them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from alpyne_grid.wire import Connection

from alpyne_proto.address import Address
from alpyne_proto.errors import AlpyneError, ConnectionLost
from alpyne_proto.messages.access import ShowTicket
from alpyne_proto.ticket import Ticket

AVOID_S = 5.0  # a node that could not be reached is asked last for so long
IDLE_S = 120.0  # an unused connection is closed after it

Dial = Callable[[Address], Awaitable[Connection]]


class DataLinks:
    """One connection per data node, dialled at its first use and closed when it idles."""

    def __init__(self, dial: Dial, host_label: str = "") -> None:
        """``dial`` makes one connection; ``host_label`` is this node's own."""
        self._dial = dial
        self._own_label = host_label
        self._open: dict[bytes, asyncio.Task[Connection]] = {}
        self._shown: dict[bytes, set[bytes]] = {}  # serials of tickets, by node
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
        connection = await self._connected(address)
        shown = self._shown[address.key]
        if ticket.serial not in shown:
            await connection.call(ShowTicket(ticket.encode()))
            shown.add(ticket.serial)
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

    async def _connected(self, address: Address) -> Connection:
        key = address.key
        task = self._open.get(key)
        if task is None or (task.done() and not _is_usable(task)):
            self._shown[key] = set()
            task = asyncio.get_running_loop().create_task(self._dial_once(address))
            task.add_done_callback(_note_error)
            self._open[key] = task
        return await asyncio.shield(task)  # others may wait for it too

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
        await asyncio.gather(*map(self._connected, strangers), return_exceptions=True)

    def _hang_up(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for key, used_s in list(self._used_s.items()):
            if loop.time() - used_s >= IDLE_S and not self._busy.get(key):
                del self._used_s[key]
                closing = loop.create_task(self._close_one(key))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        if self._used_s:
            self._timer = loop.call_later(IDLE_S, self._hang_up)

    async def _close_one(self, key: bytes) -> None:
        task = self._open.pop(key, None)
        if task is None:
            return
        if not task.done():
            task.cancel()
        elif _is_usable(task):
            await task.result().close()


def _note_error(task: asyncio.Task[Connection]) -> None:
    """Take the error of a dial whose every waiter was cancelled: nobody else will."""
    if not task.cancelled():
        task.exception()


def _is_usable(task: asyncio.Task[Connection]) -> bool:
    if task.cancelled() or task.exception() is not None:
        return False
    connection = task.result()
    return connection.is_open and not connection.is_going_away


def is_of_the_way(error: BaseException) -> bool:
    """Say whether an error lies in reaching a node, so that trying again may help."""
    if isinstance(error, ConnectionLost | TimeoutError):
        return True
    return isinstance(error, AlpyneError) and bool(getattr(error, "retryable", False))
