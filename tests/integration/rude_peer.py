"""Peers that say what they like to real daemons, and what must hold of the daemons all the same."""

import asyncio
import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpyne_grid.tools.cluster import Daemon, LocalCluster
from alpyne_grid.wire import Connection

from alpyne_proto import limits
from alpyne_proto.address import Address
from alpyne_proto.codec import decode_as, encode, encode_row, read_rows
from alpyne_proto.container import container_id
from alpyne_proto.errors import ErrorCode, RequestFailed
from alpyne_proto.frame import Flags, Frame, FrameType, pack, split
from alpyne_proto.messages import access, compute, data
from alpyne_proto.messages.control import BodyDigest, Close
from alpyne_proto.messages.hello import CODEC_ZSTD, DiallerHello
from alpyne_proto.messages.program import CommandLine, InputFile
from alpyne_proto.noise import HandshakeState
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import RecordReader, RecordWriter, encode_handshake, take_handshake
from alpyne_proto.registry import Message

MARK = b"R4WPEERBYTES"  # in what rude peers send; never in a log
WAIT_S = 10.0
GOOD = b"what stood here before"


class RudePeer:
    """A dialler made of a socket, Noise and records. ``source``: the address it comes from."""

    def __init__(self, daemon: Daemon, *, source: str = "127.0.0.1") -> None:
        address = Address.parse(daemon.address)
        self._node_key = address.key
        [(host, port)] = address.routes
        self.socket = socket.create_connection((host, port), WAIT_S, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._frames: list[Frame] = []

    def __enter__(self) -> "RudePeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # --- bytes ---

    def send(self, data: bytes) -> None:
        """Send bytes as they are; a daemon that has hung up already is no matter."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def rest(self) -> bytes:
        """Return all that comes until the daemon hangs up."""
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := self.socket.recv(65_536):
                got += piece
        return bytes(got)

    # --- the handshake ---

    def begin(self, preface: bytes = b"") -> bytes:
        """Return preface and message 1."""
        plain = Preface()
        self.noise = HandshakeState(
            NOISE_NAME, True, plain.prologue, self._private, os.urandom(32), self._node_key
        )
        return (preface or plain.encode()) + encode_handshake(self.noise.write_message())

    def message_3(self, hello: bytes) -> bytes:
        """Take message 2 and return message 3 with ``hello`` in it."""
        got = bytearray()
        while (message := take_handshake(got)) is None:
            piece = self.socket.recv(4096)
            assert piece, "the daemon hung up instead of sending message 2"
            got += piece
        self.noise.read_message(message)
        return encode_handshake(self.noise.write_message(hello))

    def greet(self, person: Any, *, certificate: bytes | None = None, **hello: Any) -> "RudePeer":
        """Make a whole handshake as ``person``'s device and take SETTINGS."""
        self._private = person.device.noise_private
        self.send(self.begin())
        shown = person.certificate().encode() if certificate is None else certificate
        values = {"roles": 1, "run_id": os.urandom(16), "codecs": CODEC_ZSTD, **hello}
        self.send(self.message_3(encode(DiallerHello(certificate=shown, **values))))
        sending, receiving = self.noise.split()
        self.writer, self._reader = RecordWriter(sending), RecordReader(receiving)
        return self

    _private = bytes(range(32))

    # --- frames ---

    def say(self, *frames: bytes) -> None:
        """Send frames as one record."""
        self.send(bytes(self.writer.seal(frames)))

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they come, until the daemon hangs up."""
        while True:
            while self._frames:
                yield self._frames.pop(0)
            try:
                data = self.socket.recv(65_536)
            except ConnectionError:
                return
            if not data:
                return
            for record in self._reader.feed(data):
                self._frames += list(split(bytes(record)))

    def next(self, type: FrameType, stream_id: int = 0) -> Frame:
        """Return the next frame of a type (and stream)."""
        for frame in self.frames():
            if frame.type == type and stream_id in (0, frame.stream_id):
                return frame
        raise AssertionError(f"the daemon hung up; {type.name} was expected")

    def closed_with(self) -> ErrorCode | None:
        """Return the code of the CLOSE with which the daemon hangs up; None: without a word."""
        last = None
        for frame in self.frames():
            last = frame
        if last is None or last.type != FrameType.CLOSE:
            return None
        return decode_as(last.meta, Close, lenient=True).code


def frame(
    type: int,
    stream_id: int = 0,
    payload: bytes = b"",
    *,
    flags: int = 0,
    message: Message | None = None,
    meta: bytes = b"",
) -> bytes:
    """Return the bytes of one frame, whatever sense it makes."""
    if message is not None:
        meta = encode(message)
    return pack(type, flags, stream_id, meta, len(payload)) + payload


def request(
    message: Message, stream_id: int = 1, payload: bytes = b"", *, end: bool = True
) -> bytes:
    """Return a REQUEST frame."""
    flags = Flags.END if end else Flags.NONE
    return frame(FrameType.REQUEST, stream_id, payload, flags=flags, message=message)


async def refusal(connection: Connection, message: Message, body: Any = b"", **more: Any) -> Any:
    """Return the error that answers a request."""
    try:
        answer = await connection.call(message, body, timeout_s=WAIT_S, **more)
        await answer.body.read(1 << 20)
    except RequestFailed as error:
        return error
    raise AssertionError(f"{message} was carried out")


@dataclass
class Site:
    """A compute and a data node, their owner, and a guest who is an account at both."""

    folder: Path  # everything that the daemons could reach by a few `..`
    cluster: LocalCluster
    owner: Any
    guest: Any
    compute: Daemon
    data: Daemon
    jobs: int = 0
    log_read: dict[str, int] = field(default_factory=dict)

    @property
    def box(self) -> bytes:
        """The owner's container."""
        return container_id(self.owner.key, "box")

    @property
    def daemons(self) -> tuple[Daemon, Daemon]:
        return self.compute, self.data

    # --- good requests ---

    async def prepare(self) -> None:
        """Put what the good requests ask for."""
        connection = await self.owner.dial(self.data)
        key = Address.parse(self.data.address).key
        await connection.call(data.PutContainer(self.box, "box", 1, (key,), 1, bytes(16)))
        await self.put(connection, "good", GOOD)
        await connection.close()

    async def put(self, connection: Connection, path: str, body: bytes, counter: int = 1) -> Any:
        """Put an object properly."""
        message = data.PutObject(self.box, path, counter, bytes(16), len(body))
        digest = BodyDigest(hashlib.sha256(body).digest())
        return (await connection.call(message, body, trailer=lambda: digest)).message

    async def serves(self) -> None:
        """Make a good request to each daemon, on new connections."""
        connection = await self.owner.dial(self.data)
        got = await connection.call(data.GetObject(self.box, "good"))
        assert await got.body.read(1 << 20) == GOOD
        await connection.close()
        connection = await self.owner.dial(self.compute)
        status = (await connection.call(access.GetStatus())).message
        assert status.busy_slots == 0
        await (await connection.call(compute.ListJobs())).body.read(1 << 22)
        await connection.close()

    async def run_job(
        self, payload: bytes, form: compute.JobForm = compute.JobForm.COMMAND, **spec: Any
    ) -> tuple[compute.JobRow, bytes]:
        """Run one job of the owner's to its end; return its last row and result."""
        self.jobs += 1
        job = os.urandom(8) + self.jobs.to_bytes(8, "big")
        values = {"codec": compute.ResultCodec.PLAIN, **spec}
        row = encode_row(compute.JobSpec(job, 1, form, **values), payload)
        connection = await self.owner.dial(self.compute)
        try:
            answer = await connection.call(compute.SubmitJobs(1), row)
            [(said, _)] = read_rows(await answer.body.read(1 << 20), (0x23,))
            assert isinstance(said, compute.JobAnswer)
            assert said.verdict is compute.Verdict.ACCEPTED, said
            return await self.ended(connection, job)
        finally:
            await connection.close()

    async def ended(self, connection: Connection, job: bytes) -> Any:
        """Wait for a job's end; return its row and result."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            answer = await connection.call(compute.ListJobs(job_id=job))
            [(row, _)] = read_rows(await answer.body.read(1 << 20), (0x2E,))
            assert isinstance(row, compute.JobRow)
            if row.state >= compute.JobState.DONE:
                got = await connection.call(compute.GetResult(job))
                return row, await got.body.read(1 << 20)
            await asyncio.sleep(0.01)
        raise AssertionError("the job did not end")

    # --- what must hold ---

    def logged(self) -> str:
        """Return what the daemons have logged since the last call."""
        new = ""
        for daemon in self.daemons:
            log = daemon.log
            new += log[self.log_read.get(daemon.name, 0) :]
            self.log_read[daemon.name] = len(log)
        return new

    def tree(self) -> set[str]:
        """Return all names outside the daemons' state folders."""
        own = {str(daemon.state) for daemon in self.daemons}
        found = set()
        for at, folders, files in os.walk(self.folder):
            if at in own:
                folders.clear()
                continue
            found.update(os.path.join(at, name) for name in (*folders, *files))
        return found

    def inside(self) -> str:
        """Return all names inside the state folders, one per line."""
        return "\n".join(str(path) for daemon in self.daemons for path in daemon.state.rglob("*"))

    @contextlib.contextmanager
    def bounded(self, daemon: Daemon, most_bytes: int) -> Iterator[None]:
        """Fail where the daemon's peak memory grows by more than ``most_bytes`` meanwhile."""
        Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")  # the peak is now what it has
        before = _peak_bytes(daemon)
        yield
        grown = _peak_bytes(daemon) - before
        assert grown <= most_bytes, f"{daemon.name} grew by {grown} bytes"

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Fail where the daemons do not serve as before, log what they must not, or write out."""
        before, pids = self.tree(), [daemon.pid for daemon in self.daemons]
        self.logged()
        yield
        asyncio.run(asyncio.wait_for(self.serves(), WAIT_S))
        assert [daemon.pid for daemon in self.daemons] == pids
        log = self.logged()
        assert "Traceback" not in log, log
        assert MARK.decode() not in log, log
        assert '"level": "error"' not in log, log
        assert self.tree() == before


def _peak_bytes(daemon: Daemon) -> int:
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def command(
    *argv: str, inputs: dict[str, bytes] | None = None, outputs: tuple[str, ...] = ()
) -> bytes:
    """Return the payload of a command."""
    rows = [encode_row(CommandLine(argv, outputs=outputs))]
    rows += [encode_row(InputFile(path), body) for path, body in (inputs or {}).items()]
    return b"".join(rows)


def started(folder: Path, person: Any) -> Iterator[Site]:
    """Start a site below ``folder`` and end it."""
    owner, guest = person(), person()
    deep = folder / "a" / "b" / "c"
    deep.mkdir(parents=True)
    with LocalCluster(deep / "cluster", owner.write_public) as cluster:
        keys = [str(owner.write_public(deep / "owner")), str(guest.write_public(deep / "guest"))]
        owners = ("--owner", keys[0], "--owner", keys[1])
        daemons = [cluster.add("compute", *owners, "--slots", "2"), cluster.add("data", *owners)]
        cluster.start_all(daemons)
        site = Site(folder, cluster, owner, guest, *daemons)
        asyncio.run(asyncio.wait_for(site.prepare(), WAIT_S))
        yield site


HALF_OPEN_SOURCES = limits.HALF_OPEN_MAX // limits.HALF_OPEN_PER_SOURCE
