"""Data nodes in memory, which refuse, lose, damage and hang when told to."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from alpyne_grid.manager.errors import NodeUnreachable
from alpyne_grid.manager.versions import Descriptor

from alpyne_proto.errors import AlpyneError, ConnectionLost, ErrorCode, RequestFailed
from alpyne_proto.jobobject import JobObject
from alpyne_proto.messages import data as messages

CONTAINER = b"c" * 16


class FakeBody:
    """An answer's body, in pieces; an exception among them ends it."""

    def __init__(self, pieces: list[bytes | AlpyneError]) -> None:
        self._pieces = pieces
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, AlpyneError):
                raise piece
            yield piece

    async def read(self, most: int) -> bytes:
        return b"".join([piece async for piece in self])[: most + 1]

    async def pour(self, sink: Any) -> None:
        async for piece in self:
            sink.feed(piece)

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeAnswer:
    message: Any
    body: FakeBody


@dataclass
class FakeNode:
    """A data node and the manager's link to it."""

    key: bytes
    is_up: bool = True
    label: str = ""
    has_container: bool = True
    versions: dict[str, dict[tuple[int, bytes], bytes | None]] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    before: Callable[["FakeNode", Any], None] = lambda node, message: None
    spoil: Callable[[bytes], list[bytes | AlpyneError]] = lambda data: [data]

    @property
    def name(self) -> str:
        return self.key[:1].decode()

    async def ready(self, timeout_s: float = 0.0) -> "FakeNode":
        if not self.is_up:
            raise NodeUnreachable(f"node {self.name} cannot be reached")
        return self

    async def call(self, message: Any, body: Any = b"", **how: Any) -> FakeAnswer:
        await self.ready()
        self.asked.append(message)
        self.before(self, message)
        if isinstance(message, messages.PutContainer):
            self.has_container = True
            return FakeAnswer(None, FakeBody([]))
        if not self.has_container:
            raise RequestFailed(ErrorCode.NOT_FOUND, "container: not known at this node")
        if isinstance(message, messages.StatObject):
            return FakeAnswer(self.newest(message.path), FakeBody([]))
        if isinstance(message, messages.GetObject):
            return self._get(message)
        data = None if isinstance(message, messages.DeleteObject) else bytes(body)
        return self._write(message, data)

    def newest(self, path: str) -> messages.ObjectInfo:
        found = self.versions.get(path)
        if not found:
            return messages.ObjectInfo(0)
        version = max(found)
        data = found[version]
        digest = hashlib.sha256(data).digest() if data is not None else b""
        return messages.ObjectInfo(*version, len(data or b""), digest, data is None)

    def _get(self, message: messages.GetObject) -> FakeAnswer:
        data = self.versions.get(message.path, {}).get((message.counter, message.writer))
        if data is None:
            raise RequestFailed(ErrorCode.NOT_FOUND, "no such version")
        piece = data[message.offset : message.offset + message.length]
        return FakeAnswer(self.newest(message.path), FakeBody(type(self).spoil_of(self, piece)))

    def spoil_of(self, piece: bytes) -> list[bytes | AlpyneError]:
        return self.spoil(piece)

    def _write(self, message: Any, data: bytes | None) -> FakeAnswer:
        version, now = (message.counter, message.writer), self.newest(message.path)
        held = (now.counter, now.writer)
        absent = now.counter == 0 or now.deleted
        expected = (message.expect_counter, message.expect_writer)
        conflict = (
            version <= held
            or (message.expect is messages.Expect.ABSENT and not absent)
            or (message.expect is messages.Expect.VERSION and held != expected)
        )
        if conflict:
            raise RequestFailed(ErrorCode.VERSION_CONFLICT, "a node never goes back")
        self.versions.setdefault(message.path, {})[version] = data
        return FakeAnswer(messages.ObjectInfo(*version), FakeBody([]))


class FakeNodes:
    """A manager's links to data nodes."""

    def __init__(self, names: str) -> None:
        self.links: Any = {name.encode() * 32: FakeNode(name.encode() * 32) for name in names}
        self.own_label = "here"
        self.failovers: list[str] = []

    def __getitem__(self, name: str) -> FakeNode:
        node: FakeNode = self.links[name.encode() * 32]
        return node

    def node_name(self, key: bytes | None) -> str:
        return key[:1].decode() if key else ""

    def read_failed_over(self, item: JobObject, node: bytes) -> None:
        self.failovers.append(self.node_name(node))

    def container(self, copies: int) -> Descriptor:
        return Descriptor(CONTAINER, "c", copies, tuple(self.links), (1, b"w" * 16))

    def give(self, data: bytes, *names: str) -> JobObject:
        """Put a version of the object "o" on some nodes, and return it."""
        for name in names:
            self[name].versions["o"] = {(1, b"w" * 16): data}
        digest = hashlib.sha256(data).digest()
        holders = tuple(self[name].key for name in names)
        return JobObject(CONTAINER, "o", 1, b"w" * 16, len(data), digest, holders)


@pytest.fixture
def nodes() -> FakeNodes:
    """Three data nodes, a, b and c."""
    return FakeNodes("abc")


@pytest.fixture
def lost() -> ConnectionLost:
    """What a transfer ends with when its node dies."""
    return ConnectionLost("the transport ended")
