"""What a session tells its driver: frozen values, in the order in which things happened.

Payloads and data are bytes, or read-only memoryviews of a record that nothing else refers to; both
may be kept. Whoever is done with ``n`` of them calls ``Session.consume(stream_id, n)``.
"""

from dataclasses import dataclass

from alpyne_proto.errors import AlpyneError, ErrorCode
from alpyne_proto.messages.control import AccountRole
from alpyne_proto.messages.hello import AcceptorHello, DiallerHello
from alpyne_proto.registry import Message, State

Payload = bytes | memoryview


class Event:
    """Base of all events."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(Event):
    """Both sides have proven their keys. The acceptor now calls ``promote`` or ``close``."""

    hello: AcceptorHello | DiallerHello  # the peer's
    remote_static: bytes  # the peer's X25519 key, 32 bytes


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The acceptor said what the connection may do now (to the dialler only)."""

    state: State
    role: AccountRole


@dataclass(frozen=True, slots=True)
class RequestReceived(Event):
    """The peer opened a stream. Answer by ``respond``; call ``release`` when the work has ended."""

    stream_id: int
    message: Message
    payload: Payload  # the body's first bytes
    end: bool  # the body is complete


@dataclass(frozen=True, slots=True)
class ResponseReceived(Event):
    """The answer to a request of ours."""

    stream_id: int
    message: Message
    payload: Payload  # the body's first bytes
    end: bool  # the body is complete


@dataclass(frozen=True, slots=True)
class DataReceived(Event):
    """More bytes of a body, behind all that came before."""

    stream_id: int
    data: Payload
    end: bool  # the body is complete
    trailer: Message | None  # only with ``end``


@dataclass(frozen=True, slots=True)
class StreamReset(Event):
    """The peer ends its side of the stream unfinished: what came of the body is not all of it."""

    stream_id: int
    code: ErrorCode
    text: str


@dataclass(frozen=True, slots=True)
class StopReceived(Event):
    """The peer wants no more bytes of the stream; our side of it has ended."""

    stream_id: int
    code: ErrorCode
    text: str


@dataclass(frozen=True, slots=True)
class RequestAcked(Event):
    """The peer has handed a request that was sent with ``want_ack`` to its handler."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamWritable(Event):
    """``send_room`` of the stream, which was too small, has grown."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class InterruptReceived(Event):
    """An urgent message. It stands before the data that came in the same record."""

    interrupt_id: int
    message: Message


@dataclass(frozen=True, slots=True)
class InterruptAcked(Event):
    """The peer has handed the interrupt to its handler."""

    interrupt_id: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived(Event):
    """The peer takes no new streams; those above ``last_stream`` were not looked at."""

    last_stream: int
    code: ErrorCode
    text: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """The last event. Send what ``next_record`` still gives, then close the transport."""

    error: AlpyneError | None  # None: a clean end by either side
