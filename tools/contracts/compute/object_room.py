"""Objects in memory, as the jobs of a bench reach them through their daemon."""

import hashlib
from collections.abc import AsyncIterator

from alpyne_grid.nodes.compute.backends.base import Execution, Task

from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.messages.worker import ObjectFollows, ObjectWritten, ReadObject, WriteObject
from alpyne_proto.registry import Message


class Objects:
    """Objects in memory; keeps what was asked."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[Message] = []
        self.damaged: dict[bytes, bytes] = {}  # what a holder gives instead, once it serves
        self.serving: list[bytes] = [b"1" * 32, b"2" * 32]
        self.open_executions: list[Execution] = []

    async def read(self, order: ReadObject) -> tuple[ObjectFollows, bytes]:
        self.asked.append(order)
        if order.path not in self.contents:
            raise RequestFailed(ErrorCode.NOT_FOUND, f"no object {order.path}")
        left = [node for node in self.serving if node not in order.avoid]
        if not left:
            raise RequestFailed(ErrorCode.CORRUPT, "all holders are damaged")
        data = self.damaged.get(left[0], self.contents[order.path])
        whole = self.contents[order.path]
        digest = hashlib.sha256(whole).digest()
        piece = data[order.offset : order.offset + order.length]
        return ObjectFollows(len(whole), digest, left[0], 1, b"w" * 16), piece

    async def write(self, order: WriteObject, body: AsyncIterator[bytes]) -> ObjectWritten:
        self.asked.append(order)
        data = b"".join([piece async for piece in body])
        self.contents[order.path] = data
        digest = hashlib.sha256(data).digest()
        return ObjectWritten(1, b"w" * 16, len(data), digest, tuple(self.serving))


class ObjectsOfTask:
    """The objects as one execution reaches them."""

    def __init__(self, objects: Objects, task: Task) -> None:
        self.read_bytes = self.written_bytes = self.failovers = 0
        self._objects = objects
        self._execution = task.execution
        objects.open_executions.append(task.execution)

    async def read(self, order: ReadObject) -> tuple[ObjectFollows, bytes]:
        follows, piece = await self._objects.read(order)
        self.read_bytes += len(piece)
        return follows, piece

    async def write(self, order: WriteObject, body: AsyncIterator[bytes]) -> ObjectWritten:
        written = await self._objects.write(order, body)
        self.written_bytes += written.size
        return written

    def close(self) -> None:
        self._objects.open_executions.remove(self._execution)


class ObjectRoom:
    """The access that opens the same objects for every execution."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.is_closed = False

    def open(self, task: Task) -> ObjectsOfTask:
        return ObjectsOfTask(self.objects, task)

    async def close(self) -> None:
        self.is_closed = True
