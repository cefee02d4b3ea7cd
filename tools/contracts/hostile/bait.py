"""What the machine has that a job must not reach: keys, sockets, listeners, processes, segments."""

import asyncio
import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil

ANSWER = "reached"
IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0
VARIABLE = "ALPYNE_BAIT_PASSWORD"  # in the daemon's environment


@contextlib.asynccontextmanager
async def laid_out(state: Path, sockets: tuple[str, ...] = ()) -> AsyncIterator[dict[str, Any]]:
    """Lay the bait out beside a back end in ``state``, and take it away again.

    ``sockets``: those of container engines that the machine really has.
    """
    token = f"bait{secrets.token_hex(12)}"
    async with contextlib.AsyncExitStack() as stack:
        ports = await stack.enter_async_context(_listeners())
        key = stack.enter_context(_files(state, token))
        stack.enter_context(_environment(token))
        bystander = stack.enter_context(_bystander(token))
        for name in (str(state / "engine.sock"), "\0" + token):
            stack.enter_context(_unix_listener(name))
        yield {
            "token": token,
            "state": str(state),
            "key": str(key),
            "environment": [token],
            "daemon_pid": os.getpid(),
            "supervisor": bystander,  # until the job knows its own
            "first": bystander,  # stands for process 1 where a job has no namespace of its own
            "sockets": [str(state / "engine.sock"), *sockets],
            "segment": stack.enter_context(_segment()),
            "address": _own_address(),
            **ports,
        }


@contextlib.contextmanager
def _files(state: Path, token: str) -> Iterator[Path]:
    """Write keys as a node does, hold one open and inheritable, put a name into /dev/shm."""
    state.mkdir(parents=True, exist_ok=True)
    for name in ("identity", f"key-{token}"):
        path = state / name
        path.touch(mode=0o600)
        path.write_text(token)
    shared = Path("/dev/shm", token)
    held = os.open(path, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        with contextlib.suppress(OSError):
            shared.write_text(token)
        yield state / "identity"
    finally:
        os.close(held)
        shared.unlink(missing_ok=True)


@contextlib.contextmanager
def _environment(token: str) -> Iterator[None]:
    os.environ[VARIABLE] = token
    try:
        yield
    finally:
        del os.environ[VARIABLE]


@contextlib.contextmanager
def _bystander(token: str) -> Iterator[int]:
    """Run a process of the daemon's user that has the token on its command line and inside."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, token],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath, VARIABLE: token},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextlib.contextmanager
def _unix_listener(name: str) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(_short(name))
        made.listen(8)
        yield


def _short(name: str) -> str:
    """Return a way to a socket's file that fits into an address, which takes 107 bytes."""
    if name.startswith("\0") or len(name) < 100:
        return name
    return os.path.relpath(name)


@contextlib.contextmanager
def _segment() -> Iterator[int]:
    """Make a segment of shared memory; yield its key."""
    library = ctypes.CDLL(None, use_errno=True)
    key = secrets.randbelow(1 << 30) + 1
    number = library.shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0o600)
    assert number >= 0, os.strerror(ctypes.get_errno())
    try:
        yield key
    finally:
        library.shmctl(number, IPC_RMID, None)


@contextlib.asynccontextmanager
async def _listeners() -> AsyncIterator[dict[str, int]]:
    """Answer whoever connects, on all addresses of the machine."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER.encode())
        writer.close()

    loop = asyncio.get_running_loop()
    server_6: asyncio.Server | None = None
    server = await asyncio.start_server(answer, "0.0.0.0", 0)
    with contextlib.suppress(OSError):  # not every machine has IPv6
        server_6 = await asyncio.start_server(answer, "::1", 0)
    datagrams, _ = await loop.create_datagram_endpoint(_Echo, ("127.0.0.1", 0))
    try:
        yield {
            "port": server.sockets[0].getsockname()[1],
            "port_6": server_6.sockets[0].getsockname()[1] if server_6 else 9,
            "datagram_port": datagrams.get_extra_info("sockname")[1],
        }
    finally:
        datagrams.close()
        for each in filter(None, (server, server_6)):
            each.close()
            await each.wait_closed()


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(ANSWER.encode(), addr)


def _own_address() -> str:
    """Return an IPv4 address of this machine that is not loopback; loopback where it has none."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family is socket.AF_INET and not each.address.startswith("127."):
                return each.address
    return "127.0.0.1"
