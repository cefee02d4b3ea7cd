"""What the tests of data nodes share: a node in this process, and its client."""

import hashlib
import importlib.util
import os
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.nodes.config import NodeConfig, Registration
from alpyne_grid.nodes.data.node import DataNode
from alpyne_grid.wire import Connection, dial

from alpyne_proto.certificate import Certificate
from alpyne_proto.container import container_id
from alpyne_proto.errors import RequestFailed
from alpyne_proto.keys import DeviceIdentity, SigningKey
from alpyne_proto.messages import data as m
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.messages.hello import DiallerHello, NodeKind
from alpyne_proto.registry import Message

WRITER = b"w" * 16
Body = bytes | Iterable[bytes] | AsyncIterable[bytes]

# Test files are imported by themselves; what they share is made importable here.
_spec = importlib.util.spec_from_file_location(
    "dict_backend", Path(__file__).with_name("dict_backend.py")
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["dict_backend"] = _module
_spec.loader.exec_module(_module)


@dataclass
class User:
    """An account with one device."""

    account: SigningKey
    device: DeviceIdentity
    certificate: Certificate

    @classmethod
    def create(cls) -> "User":
        account, device = SigningKey.create(os.urandom), DeviceIdentity.create(os.urandom)
        certificate = Certificate.issue(
            account,
            serial=1,
            noise_key=device.noise_public,
            signing_key=device.signing.public,
            not_after=int(time.time()) + 86_400,
        )
        return cls(account, device, certificate)

    @property
    def key(self) -> bytes:
        return self.account.public


@dataclass
class Client:
    """Speaks to a data node in its messages, as one user with one container."""

    connection: Connection
    user: User
    container: bytes
    counter: int = 0

    async def call(self, message: Message, body: Body = b"", **more: Any) -> Any:
        return (await self.connection.call(message, body, **more)).message

    async def refusal(self, message: Message, body: Body = b"", **more: Any) -> RequestFailed:
        """Return the error that a request is answered with."""
        with pytest.raises(RequestFailed) as caught:
            await self.connection.call(message, body, **more)
        return caught.value

    async def create(self, name: str = "box", members: tuple[bytes, ...] = (b"k" * 32,)) -> None:
        self.container = container_id(self.user.key, name)
        await self.call(m.PutContainer(self.container, name, 1, members, 1, WRITER))

    def put_message(self, path: str, data: bytes, counter: int, **more: Any) -> m.PutObject:
        return m.PutObject(self.container, path, counter, WRITER, len(data), **more)

    async def put(self, path: str, data: bytes, counter: int = 1, **more: Any) -> m.ObjectInfo:
        info = await self.call(
            self.put_message(path, data, counter, **more), data, trailer=digest_of(data)
        )
        assert isinstance(info, m.ObjectInfo)
        return info

    async def put_refusal(
        self, path: str, data: bytes, counter: int = 1, **more: Any
    ) -> RequestFailed:
        message = self.put_message(path, data, counter, **more)
        return await self.refusal(message, data, trailer=digest_of(data))

    async def get(self, path: str, **more: Any) -> bytes:
        answer = await self.connection.call(m.GetObject(self.container, path, **more))
        return await answer.body.read(1 << 30)

    async def stat(self, path: str) -> m.ObjectInfo:
        info = await self.call(m.StatObject(self.container, path))
        assert isinstance(info, m.ObjectInfo)
        return info

    async def delete(self, path: str, counter: int, **more: Any) -> m.ObjectInfo:
        info = await self.call(m.DeleteObject(self.container, path, counter, WRITER, **more))
        assert isinstance(info, m.ObjectInfo)
        return info

    async def list(self, **more: Any) -> list[m.ObjectRow]:
        answer = await self.connection.call(m.ListObjects(self.container, **more))
        rows = [row async for row, _ in answer.body.rows()]
        assert all(isinstance(row, m.ObjectRow) for row in rows)
        return rows  # type: ignore[return-value]


def digest_of(data: bytes) -> Callable[[], Message]:
    """Return the trailer of a body."""
    return lambda: BodyDigest(hashlib.sha256(data).digest())


@dataclass
class Site:
    """A data node in this process, or the address of one elsewhere, and its users."""

    node: DataNode
    owner: User
    state: Path

    @property
    def blobs(self) -> list[Path]:
        """The files with contents."""
        return [p for p in (self.state / "objects" / "blobs").rglob("*") if p.is_file()]

    @property
    def incoming(self) -> list[Path]:
        """The files of bodies on their way."""
        return list((self.state / "objects" / "incoming").iterdir())

    @asynccontextmanager
    async def client(self, user: User | None = None, label: str = "") -> AsyncIterator[Client]:
        """Connect as a user, by default the owner."""
        user = user or self.owner
        hello = DiallerHello(
            roles=1,
            run_id=os.urandom(16),
            certificate=user.certificate.encode(),
            host_label=label,
        )
        connection = await dial(self.node.address, identity=user.device, hello=hello)
        try:
            yield Client(connection, user, b"")
        finally:
            await connection.close()


MakeSite = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def site(tmp_path: Path) -> MakeSite:
    """Return a maker of data nodes; two of the same ``state`` are one node restarted."""
    owner = User.create()

    @asynccontextmanager
    async def make(state: Path = tmp_path / "state", **more: Any) -> AsyncIterator[Site]:
        config = NodeConfig(
            kind=NodeKind.DATA,
            state=state,
            owners=(owner.key,),
            backend="local",
            registration=Registration.OPEN,
            **{"quota_bytes": 0, **more},
        )
        node = DataNode(config.validated())
        await node.start()
        try:
            yield Site(node, owner, state)
        finally:
            await node.close()

    return make


@pytest.fixture
def make_user() -> Callable[[], User]:
    """Return a maker of accounts."""
    return User.create
