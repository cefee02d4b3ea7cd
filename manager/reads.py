"""Reading one exact version of an object: from a holder, and on at the next where that one fails.

Bytes are checked end to end against the version's SHA-256 before a whole read is called good; a
data node checks the blocks of each range that it serves.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from alpyne_grid.manager.asking import ANSWER_S, DataNodes
from alpyne_grid.manager.errors import ObjectUnavailable
from alpyne_grid.manager.versions import read_order
from alpyne_grid.wire import Answer, FileSink
from alpyne_grid.wire.log import Log

from alpyne_proto.errors import AlpyneError, ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.jobobject import TO_THE_END, JobObject
from alpyne_proto.messages.data import GetObject, ObjectInfo

WAIT_S = 3.0
FIRST_ANSWER_S = 3.0  # where others can be asked instead
IN_MEMORY_MAX = 1 << 32  # bytes of one object that is read at once
_ROUNDS = 2  # all holders are asked again once: one that restarts is back


class ReadNodes(DataNodes, Protocol):
    """Links, this machine's label, and where failovers are counted."""

    @property
    def own_label(self) -> str:
        """This machine's host label."""
        ...

    def read_failed_over(self, item: JobObject, node: bytes) -> None:
        """A read went on at another node than ``node``."""
        ...


class Reads:
    """Reads objects for the manager's program."""

    def __init__(self, nodes: ReadNodes) -> None:
        self._nodes = nodes
        self._log = Log("manager.reads")

    async def stream(
        self, item: JobObject, offset: int = 0, length: int = TO_THE_END
    ) -> AsyncIterator[bytes]:
        """Yield bytes of ``item`` as they come; a whole object's SHA-256 is checked at the end.

        Raises ObjectUnavailable where no holder can serve the version, or the hash is another.
        """
        end = min(item.size, offset + length)
        digest = hashlib.sha256() if (offset, end) == (0, item.size) else None
        at = offset
        attempts = _Attempts(self._nodes, item)
        while at < end or not attempts.begun:
            try:
                answer = await attempts.open(at, end - at)
                async for data in answer.body:
                    piece = bytes(data)
                    if at + len(piece) > end:
                        answer.body.cancel()
                        raise _too_long(item)
                    at += len(piece)
                    if digest is not None:
                        digest.update(piece)
                    yield piece
                if at < end:
                    attempts.fail(_short(item, at, end))
            except (AlpyneError, OSError) as error:
                attempts.fail(error)
        if digest is not None and digest.digest() != item.sha256:
            raise ObjectUnavailable(
                f"object {item.path!r}: the bytes received are damaged (their SHA-256 is another); "
                "read it again, another copy may be whole"
            )

    async def read(self, item: JobObject, offset: int = 0, length: int = TO_THE_END) -> bytes:
        """Return bytes of ``item``; a whole object is checked, and read elsewhere if damaged."""
        end = min(item.size, offset + length)
        if end - offset > IN_MEMORY_MAX:
            raise ObjectUnavailable(
                f"object {item.path!r}: {end - offset} bytes are too many to read at once; use "
                "stream() or pull()"
            )
        is_whole = (offset, end) == (0, item.size)
        attempts = _Attempts(self._nodes, item)
        while True:
            try:
                answer = await attempts.open(offset, end - offset)
                data = await answer.body.read(max(1, end - offset))
            except (AlpyneError, OSError) as error:
                attempts.fail(error)
                continue
            if len(data) != end - offset:
                attempts.fail(_short(item, offset + len(data), end))
            elif is_whole and hashlib.sha256(data).digest() != item.sha256:
                attempts.fail(_damaged(item))
            else:
                return data

    async def to_file(self, item: JobObject, make: Callable[[], int]) -> int:
        """Write the whole object to a file, checked; return its open descriptor.

        ``make``: gives a fresh, empty, open descriptor; it is called again where the bytes of all
        but the last holder were damaged, and closed descriptors are this function's business.
        """
        attempts = _Attempts(self._nodes, item)
        while True:
            descriptor = make()
            try:
                if await self._pour(item, attempts, descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    async def _pour(self, item: JobObject, attempts: "_Attempts", descriptor: int) -> bool:
        """Fill the file from one holder after the other; False where the bytes are damaged."""
        sink = FileSink(descriptor, digest=True, durable=True)
        try:
            while sink.size < item.size or not attempts.begun:
                try:
                    answer = await attempts.open(sink.size, item.size - sink.size)
                    await answer.body.pour(_Bounded(sink, item))
                    if sink.size < item.size:
                        attempts.fail(_short(item, sink.size, item.size))
                except AlpyneError as error:
                    attempts.fail(error)
            await sink.finish(durable=True)
        except BaseException:
            await sink.abort()
            raise
        if sink.sha256 == item.sha256:
            return True
        attempts.fail(_damaged(item))
        return False


class _Bounded:
    """A sink that takes no more than the object has: a node may send what it likes."""

    def __init__(self, sink: FileSink, item: JobObject) -> None:
        self._sink = sink
        self._item = item

    def feed(self, data: bytes | bytearray | memoryview) -> bool:
        """Take bytes."""
        if self._sink.size + len(data) > self._item.size:
            raise _too_long(self._item)
        return self._sink.feed(data)

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when there is room."""
        self._sink.when_room(callback)


class _Attempts:
    """The holders of one read, asked one after the other."""

    def __init__(self, nodes: ReadNodes, item: JobObject) -> None:
        near = [key for key in item.holders if _label(nodes, key) == nodes.own_label]
        order = read_order(item.holders, near, item.path)
        self._up_first(nodes, order)
        self._nodes = nodes
        self._item = item
        self._left = [key for _ in range(_ROUNDS) for key in order]
        self._current: bytes | None = None
        self._failures: dict[bytes, Exception] = {}
        self.begun = False

    @staticmethod
    def _up_first(nodes: ReadNodes, order: list[bytes]) -> None:
        order.sort(key=lambda key: not ((link := nodes.links.get(key)) and link.is_up))

    async def open(self, offset: int, length: int) -> Answer:
        """Ask a holder for bytes; ObjectUnavailable where none is left to be asked."""
        if self._current is None:
            if not self._left:
                raise self._unavailable()
            self._current = self._left.pop(0)
        link = self._nodes.links.get(self._current)
        if link is None:
            raise ConnectionLost(f"{self._nodes.node_name(self._current)} is not in the pool")
        item = self._item
        request = GetObject(
            container_id=item.container_id,
            path=item.path,
            counter=item.counter,
            writer=item.writer,
            offset=offset,
            length=length,
        )
        # One that hangs is found out by its silence only; until then another one may serve.
        answer_s = FIRST_ANSWER_S if self._left else ANSWER_S
        answer = await link.call(request, timeout_s=answer_s, wait_s=WAIT_S)
        self.begun = True
        if not isinstance(answer.message, ObjectInfo):
            raise RequestFailed(ErrorCode.INTERNAL, "the node answered with something else")
        return answer

    def fail(self, error: Exception) -> None:
        """Take that the current holder failed; the next ``open`` asks another."""
        if isinstance(error, ObjectUnavailable) and self._current is None:
            raise error
        if self._current is not None:
            self._failures[self._current] = error
            if self._left:
                self._nodes.read_failed_over(self._item, self._current)
            self._current = None

    def _unavailable(self) -> ObjectUnavailable:
        why = "; ".join(f"{self._nodes.node_name(k)}: {e}" for k, e in self._failures.items())
        return ObjectUnavailable(
            f"object {self._item.path!r}: none of its {len(self._item.holders)} holders can serve "
            f"it ({why or 'it has none'})"
        )


def _label(nodes: ReadNodes, key: bytes) -> str:
    link = nodes.links.get(key)
    return link.label if link is not None else ""


def _short(item: JobObject, at: int, end: int) -> ObjectUnavailable:
    return ObjectUnavailable(f"object {item.path!r}: ended at byte {at} of {end}")


def _too_long(item: JobObject) -> ObjectUnavailable:
    return ObjectUnavailable(f"object {item.path!r}: more bytes came than it has")


def _damaged(item: JobObject) -> ObjectUnavailable:
    return ObjectUnavailable(f"object {item.path!r}: the bytes received are damaged")
