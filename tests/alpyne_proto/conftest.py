"""Two sessions face to face without a socket, and a peer that says what it likes."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from alpyne_proto.codec import encode
from alpyne_proto.events import ConnectionClosed, Event
from alpyne_proto.fields import Blob, Choice, Flag, ListOf, Real, Text
from alpyne_proto.frame import Frame, FrameType, pack, split
from alpyne_proto.messages.control import AccountRole, Settings
from alpyne_proto.messages.hello import CODEC_ZSTD, AcceptorHello, DiallerHello, NodeKind
from alpyne_proto.noise import HandshakeState
from alpyne_proto.preface import NOISE_NAME, Preface
from alpyne_proto.record import RecordReader, RecordWriter, encode_handshake, take_handshake
from alpyne_proto.registry import Message, State
from alpyne_proto.session import Session, SessionConfig

NODE_PRIVATE, DEVICE_PRIVATE = b"\x11" * 32, b"\x22" * 32
NODE_PUBLIC, DEVICE_PUBLIC = (
    X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    for key in (NODE_PRIVATE, DEVICE_PRIVATE)
)
NODE_HELLO = AcceptorHello(
    NodeKind.DATA, b"b" * 16, b"s" * 16, 1, 2, b"k" * 32, codecs=CODEC_ZSTD, host_label="here"
)
MANAGER_HELLO = DiallerHello(1, b"r" * 16, b"certificate", codecs=CODEC_ZSTD)


def config(*, dialler: bool, seed: int = 1, **changes: Any) -> SessionConfig:
    """Make a configuration; ``hello`` is a mapping of what its hello has otherwise."""
    hello = (MANAGER_HELLO if dialler else NODE_HELLO, changes.pop("hello", {}))
    keys = random.Random(seed + dialler)
    made = SessionConfig(
        hello=replace(hello[0], **hello[1]),
        static_private=DEVICE_PRIVATE if dialler else NODE_PRIVATE,
        random=keys.randbytes,
        remote_static=NODE_PUBLIC if dialler else None,
    )
    return replace(made, **changes)


@dataclass
class Link:
    """A dialler and an acceptor, what each was told, and the time."""

    dialler: Session
    acceptor: Session
    now: float = 0.0
    told: dict[Session, list[Event]] = field(default_factory=dict)

    def other(self, session: Session) -> Session:
        return self.acceptor if session is self.dialler else self.dialler

    def take(self, session: Session) -> list[bytes]:
        """Return the records that a session has ready, one by one."""
        return [bytes(r) for r in iter(lambda: session.next_record(self.now), None)]

    def give(self, session: Session, *records: bytes) -> list[Event]:
        """Let bytes arrive at a session; return what it tells."""
        events: list[Event] = session.events()
        for record in records:
            events += session.receive_data(record, self.now)
        return events

    def move(self, sender: Session) -> list[Event]:
        """Carry what one session has ready to the other; return what that tells."""
        return self.give(self.other(sender), *self.take(sender))

    def settle(self) -> tuple[list[Event], list[Event]]:
        """Carry everything both ways until nothing is left; return what each side told."""
        told: tuple[list[Event], list[Event]] = (self.dialler.events(), self.acceptor.events())
        while True:
            to_acceptor, to_dialler = self.take(self.dialler), self.take(self.acceptor)
            if not to_acceptor and not to_dialler:
                return told
            told[0].extend(self.give(self.dialler, *to_dialler))
            told[1].extend(self.give(self.acceptor, *to_acceptor))

    def handshake(self) -> None:
        """Carry the handshake through; the acceptor has not said yet what the dialler may do."""
        self.move(self.dialler)
        self.move(self.acceptor)
        self.move(self.dialler)

    def open(self, state: State = State.OPEN) -> None:
        """Carry the handshake through and let the acceptor say SETTINGS."""
        self.handshake()
        self.acceptor.promote(State.UNKNOWN if state is State.BEARER else state, AccountRole.USER)
        if state is State.BEARER:
            self.acceptor.promote(State.BEARER)
        self.settle()


class RawPeer:
    """A peer made of Noise and records only: it sends any frames, legal or not."""

    def __init__(self, session: Session, *, is_dialler: bool, state: State | None) -> None:
        self.session = session
        self.now = 0.0
        self._unread = bytearray()
        if is_dialler:
            self._dial()
        else:
            self._accept()
        if state is None:
            return
        steps = [State.UNKNOWN, State.BEARER] if state is State.BEARER else [state]
        for step in steps:
            if is_dialler:
                session.promote(step, AccountRole.USER)
            else:
                self.send(frame(FrameType.SETTINGS, message=Settings(step)))
        self.receive()

    def _dial(self) -> None:
        preface = Preface()
        noise = HandshakeState(
            NOISE_NAME, True, preface.prologue, DEVICE_PRIVATE, b"\x33" * 32, NODE_PUBLIC
        )
        self.session.receive_data(preface.encode() + encode_handshake(noise.write_message()), 0.0)
        noise.read_message(self._take_message())
        last = encode_handshake(noise.write_message(encode(MANAGER_HELLO)))
        self.events = self.session.receive_data(last, 0.0)
        self._set_ciphers(noise)

    def _accept(self) -> None:
        preface = Preface()
        noise = HandshakeState(NOISE_NAME, False, preface.prologue, NODE_PRIVATE, b"\x33" * 32)
        first = bytearray(self.session.next_record(0.0) or b"")
        assert bytes(first[:12]) == preface.encode()
        del first[:12]
        message = take_handshake(first)
        assert message is not None
        noise.read_message(message)
        answer = encode_handshake(noise.write_message(encode(NODE_HELLO)))
        self.events = self.session.receive_data(answer, 0.0)
        noise.read_message(self._take_message())
        self._set_ciphers(noise)

    def _take_message(self) -> bytes:
        record = bytearray(self.session.next_record(0.0) or b"")
        message = take_handshake(record)
        assert message is not None
        return message

    def _set_ciphers(self, noise: HandshakeState) -> None:
        sending, receiving = noise.split()
        self._writer, self._reader = RecordWriter(sending), RecordReader(receiving)

    def send(self, *frames: bytes) -> list[Event]:
        """Send frames as one record; return what the session tells."""
        return self.session.receive_data(self._writer.seal(frames), self.now)

    def receive(self) -> list[Frame]:
        """Return the frames that the session has ready."""
        records = iter(lambda: self.session.next_record(self.now), None)
        plain = [plain for record in records for plain in self._reader.feed(bytes(record))]
        return [frame for one in plain for frame in split(one)]


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


def closing(events: list[Event]) -> BaseException | None:
    """Return the error with which the connection was closed; fails where it was not."""
    assert events, "nothing was told"
    last = events[-1]
    assert isinstance(last, ConnectionClosed), f"not closed, but {last}"
    return last.error


@pytest.fixture(scope="session")
def make_link() -> Callable[..., Link]:
    """Make a link; arguments: changes of the dialler's and the acceptor's configuration."""

    def make(dialler: dict[str, Any] | None = None, acceptor: dict[str, Any] | None = None) -> Link:
        return Link(
            Session(config(dialler=True, **(dialler or {})), 0.0),
            Session(config(dialler=False, **(acceptor or {})), 0.0),
        )

    return make


@pytest.fixture
def link(make_link: Callable[..., Link]) -> Link:
    """A link in state OPEN."""
    made = make_link()
    made.open()
    return made


@pytest.fixture(scope="session")
def make_raw() -> Callable[..., RawPeer]:
    """Make a raw peer of a session; ``is_dialler`` is the raw peer's side."""

    def make(
        *, is_dialler: bool = True, state: State | None = State.OPEN, **changes: Any
    ) -> RawPeer:
        session = Session(config(dialler=not is_dialler, **changes), 0.0)
        return RawPeer(session, is_dialler=is_dialler, state=state)

    return make


@pytest.fixture
def raw(make_raw: Callable[..., RawPeer]) -> RawPeer:
    """A raw dialler, its session an acceptor in state OPEN."""
    return make_raw()


@pytest.fixture(name="frame", scope="session")
def _frame() -> Callable[..., bytes]:
    return frame


@pytest.fixture(name="closing", scope="session")
def _closing() -> Callable[..., BaseException | None]:
    return closing


def _plain(kind: Any) -> Any:
    """Return the smallest value of a kind that its own check takes."""
    if isinstance(kind, Blob):
        return bytes(kind.least)
    if isinstance(kind, Choice):
        return next(iter(kind.enum))
    if isinstance(kind, ListOf):
        return ()
    return {Flag: False, Real: 0.0, Text: ""}.get(type(kind), 0)


@pytest.fixture(scope="session")
def make_message() -> Callable[[type[Message]], Message]:
    """Make a message of a class, with the smallest value of each required field."""

    def make(cls: type[Message]) -> Message:
        required = [spec for spec in cls.SPEC.fields if spec.required]
        return cls(**{spec.name: _plain(spec.kind) for spec in required})

    return make
