"""The handshake of a connection: preface, then Noise XK in three records.

    dialler                                   acceptor
       | preface, message 1 (no payload)         |
       |---------------------------------------->|
       |        message 2 (AcceptorHello)        |
       |<----------------------------------------|
       | message 3 (DiallerHello)                |
       |---------------------------------------->|
       |                    records: SETTINGS .. |
       |<----------------------------------------|

Whatever goes wrong ends in HandshakeFailed here and in silence towards the peer, with one
exception: an acceptor that is full, or speaks another version, suite or pattern, answers a
well-formed preface with its own.

Source: spec/PROTOCOL.md, "Handshake".
"""

from collections.abc import Callable
from dataclasses import dataclass

from alpyne_proto import limits
from alpyne_proto.codec import decode_as, encode
from alpyne_proto.compression import Compression
from alpyne_proto.errors import (
    AlpyneError,
    CodecError,
    ErrorCode,
    HandshakeFailed,
    LocalProtocolError,
    RecordError,
)
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello
from alpyne_proto.noise import KEY_SIZE, CipherState, HandshakeState
from alpyne_proto.preface import NOISE_NAME, Preface, PrefaceFlag
from alpyne_proto.record import encode_handshake, take_handshake
from alpyne_proto.registry import Role
from alpyne_proto.table import Phase, PhaseMachine, Side, Step


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session needs to know; the windows that it grants stand in ``hello``."""

    hello: AcceptorHello | DiallerHello  # ours; its class says which side we are
    static_private: bytes  # our X25519 private key, 32 bytes
    random: Callable[[int], bytes]  # n -> n unpredictable bytes, for instance os.urandom
    remote_static: bytes | None = None  # dialler only: the node's public key, 32 bytes
    compression: Compression = Compression.AUTO
    busy: bool = False  # acceptor only: refuse whoever comes, and say that it is for lack of room

    def __post_init__(self) -> None:
        if self.is_dialler != (self.remote_static is not None):
            raise LocalProtocolError(
                "remote_static: a dialler needs it, an acceptor cannot have it"
            )
        if not self.roles:
            raise LocalProtocolError("hello.roles: a dialler is a manager, a node, or both")

    @property
    def is_dialler(self) -> bool:
        """Whether this side opened the connection."""
        return isinstance(self.hello, DiallerHello)

    @property
    def side(self) -> Side:
        """Which side this is."""
        return Side.DIALLER if self.is_dialler else Side.ACCEPTOR

    @property
    def roles(self) -> Role:
        """What this side may send."""
        return roles_of(self.hello)


def roles_of(hello: AcceptorHello | DiallerHello) -> Role:
    """Return the roles of whoever sent ``hello``."""
    return Role(hello.roles) if isinstance(hello, DiallerHello) else Role.NODE


class Handshake:
    """One side of one handshake: bytes in, bytes out, and the keys at its end."""

    __slots__ = ("_config", "_noise", "_phases", "peer_hello")

    def __init__(self, config: SessionConfig, phases: PhaseMachine) -> None:
        self._config = config
        self._phases = phases
        self._noise: HandshakeState | None = None
        self.peer_hello: AcceptorHello | DiallerHello | None = None

    @property
    def done(self) -> bool:
        """Whether both sides have their keys."""
        return self.peer_hello is not None

    @property
    def handshake_hash(self) -> bytes:
        """The transcript's hash, once done."""
        return self._finished.handshake_hash

    @property
    def remote_static(self) -> bytes:
        """The peer's static public key, once done."""
        key = self._finished.remote_static
        assert key is not None  # both messages of XK that prove a static key were taken
        return key

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the (sending, receiving) ciphers, once, when done."""
        return self._finished.split()

    def begin(self) -> bytes:
        """Return what the dialler sends first."""
        preface = Preface()
        self._noise = self._begin_noise(preface)
        return preface.encode() + encode_handshake(self._noise.write_message())

    def advance(self, buffer: bytearray) -> bytes:
        """Take what is whole from the front of ``buffer``; return bytes to send.

        Raises HandshakeFailed; a RefusedPreface names what may still be sent.
        """
        output = b""
        try:
            while not self.done:
                answer = self._steps[self._phases.phase](self, buffer)
                if answer is None:
                    break
                output += answer
        except (RecordError, CodecError) as error:
            raise HandshakeFailed(str(error)) from None
        return output

    @property
    def _finished(self) -> HandshakeState:
        if self._noise is None or self.peer_hello is None:
            raise LocalProtocolError("handshake: not finished")
        return self._noise

    def _begin_noise(self, preface: Preface) -> HandshakeState:
        config = self._config
        return HandshakeState(
            NOISE_NAME,
            config.is_dialler,
            preface.prologue,
            config.static_private,
            config.random(KEY_SIZE),
            config.remote_static,
        )

    def _take_preface(self, buffer: bytearray) -> bytes | None:
        """Acceptor: the dialler's preface."""
        if len(buffer) < limits.PREFACE:
            # What cannot become a preface need not be waited for.
            if not Preface().encode().startswith(bytes(buffer[:8])):
                raise HandshakeFailed("preface: not an Alpyne peer")
            return None
        preface = Preface.parse(bytes(buffer[: limits.PREFACE]))
        try:
            preface.check()
        except HandshakeFailed as error:
            raise RefusedPreface(str(error), Preface().encode()) from None
        if self._config.busy:
            raise RefusedPreface("no room", Preface(flags=PrefaceFlag.BUSY).encode())
        del buffer[: limits.PREFACE]
        self._noise = self._begin_noise(preface)
        self._phases.move(Step.PREFACE_TAKEN)
        return b""

    def _take_message_1(self, buffer: bytearray) -> bytes | None:
        """Acceptor: the dialler's ephemeral key; the answer carries our hello."""
        payload = self._read(buffer)
        if payload is None:
            return None
        if payload:
            raise HandshakeFailed(f"message 1: {len(payload)} bytes of payload, expected none")
        self._phases.move(Step.MESSAGE_1_TAKEN)
        return self._write_hello()

    def _take_message_2(self, buffer: bytearray) -> bytes | None:
        """Dialler: the acceptor's hello, or its refusal; the answer carries our hello."""
        if buffer[:1] == b"A":
            if len(buffer) < limits.PREFACE:
                return None
            refusal = Preface.parse(bytes(buffer[: limits.PREFACE]))
            error = HandshakeFailed(refusal.explain_refusal())
            if refusal.flags & PrefaceFlag.BUSY:
                error.code = ErrorCode.TOO_BUSY  # a hint, as unsigned as the text: try later
            raise error
        payload = self._read(buffer)
        if payload is None:
            return None
        hello = decode_as(payload, AcceptorHello, lenient=False)
        output = self._write_hello()
        self._phases.move(Step.MESSAGE_2_TAKEN)
        self.peer_hello = hello
        return output

    def _take_message_3(self, buffer: bytearray) -> bytes | None:
        """Acceptor: the dialler's proof and hello."""
        payload = self._read(buffer)
        if payload is None:
            return None
        hello = decode_as(payload, DiallerHello, lenient=False)
        if not hello.roles:
            raise HandshakeFailed("DiallerHello.roles: expected at least one role, got none")
        self._phases.move(Step.MESSAGE_3_TAKEN)
        self.peer_hello = hello
        return b""

    def _read(self, buffer: bytearray) -> bytes | None:
        assert self._noise is not None  # made with the preface, before any message
        message = take_handshake(buffer)
        return None if message is None else self._noise.read_message(message)

    def _write_hello(self) -> bytes:
        assert self._noise is not None
        return encode_handshake(self._noise.write_message(encode(self._config.hello)))

    _steps = {  # noqa: RUF012 - one table for all, never changed
        Phase.PREFACE: _take_preface,
        Phase.MESSAGE_1: _take_message_1,
        Phase.MESSAGE_2: _take_message_2,
        Phase.MESSAGE_3: _take_message_3,
    }


class RefusedPreface(HandshakeFailed):
    """The acceptor refuses a dialler, and says so with its own preface."""

    def __init__(self, text: str, preface: bytes) -> None:
        AlpyneError.__init__(self, text)
        self.preface = preface
