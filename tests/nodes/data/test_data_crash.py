"""A data node's daemon, killed: what it has acknowledged survives, the rest is absent or whole."""

import asyncio
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alpyne_grid.wire import Connection, dial

from alpyne_proto.address import Address
from alpyne_proto.container import container_id
from alpyne_proto.errors import AlpyneError
from alpyne_proto.messages import data as m
from alpyne_proto.messages.control import BodyDigest
from alpyne_proto.messages.hello import DiallerHello
from alpyne_proto.ssh_keys import write_public_line

WRITER = b"w" * 16
SIZES = (100, 30_000, 40_000, 300_000, 2_000_000)
MIB = 1 << 20


class Daemon:
    """A data node's process on one state folder, killed and started again."""

    def __init__(self, folder: Path, user: Any) -> None:
        self.state = folder / "state"
        self._user = user
        self._owner = folder / "owner.pub"
        self._owner.write_text(write_public_line(user.key) + "\n")
        self._process: asyncio.subprocess.Process | None = None
        self.address = ""

    async def start(self) -> None:
        arguments = ["--state", str(self.state), "--owner", str(self._owner)]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alpyne_grid.nodes.daemon", "data", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        assert "ready" in line
        self.address = line.split()[-1]

    async def end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        hello = DiallerHello(
            roles=1, run_id=os.urandom(16), certificate=self._user.certificate.encode()
        )
        connection = await dial(self.address, identity=self._user.device, hello=hello)
        try:
            yield connection
        finally:
            await connection.close()

    def peak_memory(self) -> int:
        """Return the most memory that the process has had, in bytes."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024


@pytest.fixture
def user(make_user: Any) -> Any:
    return make_user()


@asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[None]:
    await daemon.start()
    try:
        yield
    finally:
        await daemon.end(signal.SIGKILL)


def content(path: str, counter: int) -> bytes:
    """Return what this version of this object holds."""
    seed = hashlib.sha256(f"{path} {counter}".encode()).digest()
    size = SIZES[seed[0] % len(SIZES)] + seed[1]
    return (seed * (size // 32 + 1))[:size]


async def keep_putting(
    connection: Connection, box: bytes, path: str, acknowledged: dict[str, int]
) -> None:
    """Put version after version until the node is gone."""
    counter = acknowledged.get(path, 0) + 2  # above one that may have been kept unacknowledged
    while True:
        data = content(path, counter)
        digest = BodyDigest(hashlib.sha256(data).digest())
        message = m.PutObject(box, path, counter, WRITER, len(data))
        try:
            await connection.call(message, data, trailer=lambda digest=digest: digest)  # type: ignore[misc]
        except AlpyneError:
            return
        acknowledged[path] = counter
        counter += 1


@pytest.mark.crash
async def test_node_has_all_that_it_acknowledged_after_kills_during_puts(
    tmp_path: Path, user: Any
) -> None:
    daemon = Daemon(tmp_path, user)
    box = container_id(user.key, "box")
    acknowledged: dict[str, int] = {}
    for kill_after in (30, 90, 60):
        async with running(daemon), daemon.connected() as connection:
            if not acknowledged:
                key = Address.parse(daemon.address).key
                await connection.call(m.PutContainer(box, "box", 1, (key,), 1, WRITER))
            before = sum(acknowledged.values())
            putting = [
                asyncio.create_task(keep_putting(connection, box, f"object {n}", acknowledged))
                for n in range(16)
            ]
            while sum(acknowledged.values()) < before + kill_after:
                await asyncio.sleep(0)
            await daemon.end(signal.SIGKILL)
            await asyncio.gather(*putting)
        async with running(daemon), daemon.connected() as connection:
            for path, counter in acknowledged.items():
                answer = await connection.call(m.GetObject(box, path))
                info = answer.message
                assert isinstance(info, m.ObjectInfo)
                assert info.counter >= counter
                assert await answer.body.read(4 * MIB) == content(path, info.counter)
            answer = await connection.call(m.ListObjects(box))
            async for row, _ in answer.body.rows():
                assert isinstance(row, m.ObjectRow)
                if row.path not in acknowledged:
                    got = await connection.call(m.GetObject(box, row.path))
                    assert await got.body.read(4 * MIB) == content(row.path, row.counter)
    assert list((daemon.state / "objects" / "incoming").iterdir()) == []


@pytest.mark.slow
async def test_node_keeps_its_memory_bounded_when_an_object_has_2_gib(
    tmp_path: Path, user: Any
) -> None:
    block = os.urandom(MIB)
    hashed = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        for n in range(2048):
            piece = n.to_bytes(8, "big") + block[8:]
            hashed.update(piece)
            yield piece

    daemon = Daemon(tmp_path, user)
    box = container_id(user.key, "box")
    async with running(daemon), daemon.connected() as connection:
        key = Address.parse(daemon.address).key
        await connection.call(m.PutContainer(box, "box", 1, (key,), 1, WRITER))
        message = m.PutObject(box, "large", 1, WRITER, 2048 * MIB)
        await connection.call(message, body(), trailer=lambda: BodyDigest(hashed.digest()))
        answer = await connection.call(m.GetObject(box, "large"))
        got = hashlib.sha256()
        async for chunk in answer.body:
            got.update(chunk)
        assert got.digest() == hashed.digest()
        assert daemon.peak_memory() < 150 * MIB
    shutil.rmtree(daemon.state)  # pytest keeps folders for a while
